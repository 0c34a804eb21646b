"""PortPolicy as an object of the cluster: read and list it. Changing it is ``apply``'s."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pydantic import ValidationError

from portforge.errors import PolicyError
from portforge.kube._refused import GROUP, RefusedError, ask
from portforge.policy import PortPolicy
from portforge.policy._read import _Object, policy_of
from portforge.policy._wording import field_text, sentence
from portforge.policy._yaml import canonical

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

__all__ = ["Live", "chosen", "from_object", "list_policies", "name_of", "read_policy", "to_object"]

Object = dict[str, Any]


def name_of(policy: PortPolicy) -> str:
    """``namespace/name``."""
    return f"{policy.namespace}/{policy.name}"


def from_object(data: Mapping[str, Any]) -> PortPolicy:
    """The policy in an object of the API server, whatever else its metadata holds.

    Raises
    ------
    PolicyError: with the object's name and the field as its place.
    """
    metadata = data.get("metadata") or {}
    place = f"{metadata.get('namespace')}/{metadata.get('name')}"
    kept = {key: metadata[key] for key in ("namespace", "name") if key in metadata}
    try:
        return policy_of(
            _Object.model_validate({**data, "metadata": kept}, by_alias=True, by_name=False)
        )
    except ValidationError as wrong:
        found = [(field_text(e["loc"]), *sentence(e)) for e in wrong.errors(include_url=False)]
        told = tuple(f"{place}: {field}: {what}; {do}" for field, what, do in found)
        field, problem, remedy = found[0]
        raise PolicyError(
            problem + (f" (and {len(found) - 1} more)" if len(found) > 1 else ""),
            place=f"{place}: {field}",
            remedy=remedy,
            problems=told if len(found) > 1 else (),
        ) from None


def to_object(policy: PortPolicy) -> Object:
    """The object as plain data, in the order of contract 2."""
    plain: Object = json.loads(json.dumps(canonical(policy)))
    return plain


@dataclass(frozen=True)
class Live:
    """A policy as the cluster has it; ``problem`` where it cannot be read, and no ``policy``."""

    data: Object
    policy: PortPolicy | None
    problem: str = ""

    @property
    def name(self) -> str:
        """``namespace/name``."""
        return f"{self.data['metadata']['namespace']}/{self.data['metadata']['name']}"

    @property
    def status(self) -> Object:
        """The aggregated status; empty where no agent wrote one."""
        return self.data.get("status") or {}


def _live(data: Object) -> Live:
    try:
        return Live(data, from_object(data))
    except PolicyError as wrong:
        return Live(data, None, str(wrong))


def list_policies(api: ApiClient, namespace: str | None = None) -> list[Live]:
    """Every PortPolicy of one namespace, or of all, sorted by name."""
    within = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    answer = ask(api, "GET", f"{GROUP}{within}/portpolicies", place="portpolicies")
    found = [
        {"apiVersion": answer["apiVersion"], "kind": "PortPolicy", **item}
        for item in answer["items"]
    ]
    return sorted(map(_live, found), key=lambda live: live.name)


def read_policy(api: ApiClient, namespace: str, name: str) -> Live | None:
    """One policy as the cluster has it; None where there is none."""
    try:
        return _live(ask(api, "GET", path_of(namespace, name), place=f"{namespace}/{name}"))
    except RefusedError as no:
        if no.status == 404 and (no.answer.get("details") or {}).get("name"):
            return None
        raise


def path_of(namespace: str, name: str) -> str:
    """The object's path below the API server's address."""
    return f"{GROUP}/namespaces/{quote(namespace, safe='')}/portpolicies/{quote(name, safe='')}"


def chosen(lives: Iterable[Live], names: Iterable[str]) -> list[Live]:
    """Those called ``names`` (``name`` or ``namespace/name``); all where there are no names.

    Raises
    ------
    PolicyError: a name that nobody has, or that two namespaces have.
    """
    known = list(lives)
    picked: dict[str, Live] = {}
    for name in names:
        found = [x for x in known if name in (x.name, x.name.partition("/")[2])]
        if len(found) != 1:
            raise PolicyError(
                "no such policy in the cluster" if not found else "more than one namespace has it",
                place=name,
                remedy="portforge status --cluster lists them"
                if not found
                else "give -n NAMESPACE",
            )
        picked[found[0].name] = found[0]
    return list(picked.values()) if picked else known
