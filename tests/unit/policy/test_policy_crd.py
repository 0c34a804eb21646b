"""The CRD and the Python model name the same fields, values, patterns and limits.

What both accept is tried on a real API server: tests/cluster/test_crd.py.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from portforge.policy import _model as model
from portforge.policy._approval import NOT_UNDER_DIGEST
from portforge.policy._read import _Object, _Spec

CHART = Path(__file__).parents[3] / "deploy/helm/portforge"
CRD = YAML(typ="safe", pure=True).load((CHART / "crds/portpolicies.yaml").read_text())
(VERSION,) = CRD["spec"]["versions"]
SPEC = VERSION["schema"]["openAPIV3Schema"]["properties"]["spec"]
RULE = SPEC["properties"]["ingress"]["items"]
PEER = RULE["properties"]["peers"]["items"]


def flat(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """``schema`` with its reference followed and ``or null`` left out."""
    if "$ref" in schema:
        return definitions[schema["$ref"].rpartition("/")[2]]  # type: ignore[no-any-return]
    for choice in schema.get("anyOf", ()):
        if choice.get("type") != "null":
            return flat(choice, definitions)
    return schema


def compare(crd: dict[str, Any], schema: dict[str, Any], definitions: dict[str, Any]) -> int:
    """Assert that both say the same, here and below; how many fields were compared."""
    compared = 0
    if "properties" in crd:
        assert sorted(crd["properties"]) == sorted(schema["properties"])
        assert sorted(crd.get("required", ())) == sorted(schema.get("required", ()))
        for name, field in crd["properties"].items():
            compared += 1 + compare(
                field, flat(schema["properties"][name], definitions), definitions
            )
    if "items" in crd:
        compared += compare(crd["items"], flat(schema["items"], definitions), definitions)
    for key in ("type", "pattern", "minimum", "maximum"):
        if key in crd or (key in schema and key != "title"):
            assert crd.get(key) == schema.get(key), (key, crd, schema)
    if "enum" in crd:
        # TCP and UDP are lint's: the model knows the protocols of flow records.
        expected = ["TCP", "UDP"] if "TCP" in crd["enum"] else schema["enum"]
        assert crd["enum"] == expected
    if "maxLength" in schema:
        assert crd["maxLength"] == schema["maxLength"]
    if schema.get("format") == "date-time":
        assert crd["format"] == "date-time"
    return compared


def test_fields_required_types_patterns_enums() -> None:
    schema = _Spec.model_json_schema(by_alias=True)
    assert compare(SPEC, schema, schema["$defs"]) == 40


def test_defaults_and_limits() -> None:
    for name in ("mode", "established"):
        assert SPEC["properties"][name]["default"] == str(_Spec.model_fields[name].default)
    for direction in ("ingress", "egress"):
        assert SPEC["properties"][direction]["maxItems"] == model.MOST_RULES
    assert RULE["properties"]["peers"]["maxItems"] == model.MOST_PEERS
    assert RULE["properties"]["peers"]["minItems"] == 1


def test_group_version_and_kind() -> None:
    assert f"{CRD['spec']['group']}/{VERSION['name']}" == model.API_VERSION
    assert CRD["spec"]["names"]["kind"] == model.KIND
    assert _Object.model_fields["status"].annotation is not None
    assert "status" in VERSION["subresources"]


def test_the_admission_policy_knows_what_is_under_the_digest() -> None:
    """A field it did not compare could be changed in somebody else's name."""
    text = (CHART / "templates/admission.yaml").read_text()
    content = text[text.index("- name: contentChanged") : text.index("- name: name\n")]
    compared = set(re.findall(r"oldObject\.spec\.\??(\w+)", content))
    assert compared == set(SPEC["properties"]) - set(NOT_UNDER_DIGEST)
    for field, name in (("approval", "approvalChanged"), ("confirmBefore", "trialChanged")):
        assert f"oldObject.spec.?{field}" in text[text.index(f"- name: {name}") :]
