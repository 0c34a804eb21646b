"""pydantic's findings in the analyst's words: the problem and the remedy. Nothing else."""

from __future__ import annotations

from typing import Any

from pydantic_core import ErrorDetails

__all__ = ["Location", "field_text", "sentence"]

Location = tuple[str | int, ...]


def field_text(location: Location) -> str:
    """``('spec', 'ingress', 0, 'port')`` as ``spec.ingress[0].port``."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


_REMEDIES = {
    "missing": "add it",
    "int_type": "write a whole number, without quotes",
    "greater_than_equal": "ports go from 1 to 65535",
    "less_than_equal": "ports go from 1 to 65535",
    "timezone_aware": "add the time zone, as in 2027-01-01T00:00:00Z",
    "datetime_from_date_parsing": "write it as 2027-01-01T00:00:00Z",
    "datetime_parsing": "write it as 2027-01-01T00:00:00Z",
    "string_type": "write a name; put quotes around one that looks like a number",
    "string_pattern_mismatch": "write it as Kubernetes does",
    "string_too_long": "shorten it",
    "string_too_short": "write a name",
    "tuple_type": "write a list, each item after a dash",
    "model_type": "write fields, each as name: value",
    "dict_type": "write fields, each as name: value",
}


def _known(location: Location) -> str:
    """The fields that may stand where an unknown one was found."""
    allowed: dict[Any, str] = {
        (): "apiVersion, kind, metadata, spec",
        ("metadata",): "namespace, name",
        ("spec",): "workload, mode, established, ingress, egress, expiresAt, author, "
        "confirmBefore, approval",
        ("spec", "workload"): "kind, name",
        ("spec", "approval"): "by, at, digest",
    }
    parent = location[:-1]
    if parent in allowed:
        return allowed[parent]
    if parent[-1] == "workload":
        return "namespace, kind, name"
    return (
        "workload, namespace, cidr, entity"
        if "peers" in parent
        else ("id, protocol, port, endPort, peers, expiresAt")
    )


def sentence(error: ErrorDetails) -> tuple[str, str]:
    """The problem and the remedy of one of pydantic's findings."""
    kind, context, value = error["type"], error.get("ctx", {}), error.get("input")
    shown = "" if isinstance(value, dict | list) else f"{value!r} "
    if kind == "extra_forbidden":
        return "unknown field", f"known here: {_known(error['loc'])}"
    if kind == "missing":
        return "required field is missing", _REMEDIES[kind]
    if kind == "value_error":
        problem, _, remedy = str(context["error"]).partition(": ")
        return problem, remedy or "write one of them"
    if kind in ("literal_error", "enum"):
        return f"{shown}is not known here", f"write {context['expected']}"
    if kind == "string_pattern_mismatch":
        what = "a sha256: digest" if "sha256" in context["pattern"] else "a name that can be used"
        remedy = (
            "approve the policy again with portforge approve"
            if "sha256" in context["pattern"]
            else f"it must match {context['pattern']}"
        )
        return f"{shown}is not {what}", remedy
    message = error["msg"][0].lower() + error["msg"][1:]
    said = message.removeprefix("input ")
    return f"{shown}{said}" if said != message else message, _REMEDIES.get(kind, "correct it")
