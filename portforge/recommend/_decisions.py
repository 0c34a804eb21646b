"""The decisions file: what must be learned, what never may, what is sensitive. Reading only.

A file is a YAML list. It is read as strictly as policies are: an unknown field, a field written
twice, or two decisions that contradict each other are refused, with file and line.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from functools import cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, TypeAdapter, ValidationError, model_validator

from portforge.errors import PolicyError
from portforge.policy import Entity, PeerSelector
from portforge.policy._model import Instant, Model, Namespace, Port, Who, WorkloadField
from portforge.policy._places import Document, MalformedError, documents
from portforge.policy._read import Problem
from portforge.policy._wording import field_text, sentence
from portforge.recommend._edges import Edge
from portforge.schema import Direction, PeerKind, Protocol, Workload

__all__ = ["Decision", "Verb", "read_decisions"]

_FIELDS = "workload, namespace, direction, protocol, port, peer, decision, by, reason, at"
_EXAMPLE = "write namespace/Kind/name, as in shop/Deployment/web"


class Verb(StrEnum):
    """What to do with all that a decision matches."""

    LEARN = "learn"
    NEVER = "never"
    SENSITIVE = "sensitive"


def _workload(value: object) -> object:
    if not isinstance(value, str):
        return value
    parts = value.split("/")
    if len(parts) != 3:
        raise ValueError(f"{value!r} is not a workload: {_EXAMPLE}")
    return Workload(*parts)


def _peer(value: object) -> object:
    """A workload, ``shop/*``, a CIDR or one address, ``Node``, ``Cluster`` or ``World``."""
    if not isinstance(value, str):
        return value
    if value in [str(entity) for entity in Entity]:
        return {"entity": value}
    try:
        return {"cidr": f"{value}/{ip_address(value).max_prefixlen}"}
    except ValueError:
        pass
    if value.count("/") == 2:
        return {"workload": _workload(value)}
    if value.endswith("/*"):
        return {"namespace": value.removesuffix("/*")}
    try:
        ip_network(value, strict=False)
    except ValueError:
        raise ValueError(
            f"{value!r} is not a peer: write namespace/Kind/name, namespace/*, an address, "
            "a CIDR, Node, Cluster or World"
        ) from None
    return {"cidr": value}


class Decision(Model):
    """One entry. ``peer`` None: whoever it is. The words are those of rules and evidence.

    ``learn`` and ``never`` name workload, direction, protocol and port. ``sensitive`` names one at
    least of workload, namespace, port and peer, and has no direction: it is meant at both ends.
    """

    workload: Annotated[WorkloadField | None, BeforeValidator(_workload)] = None
    namespace: Namespace | None = None
    direction: Direction | None = None
    protocol: Literal[Protocol.TCP, Protocol.UDP] | None = None
    port: Port | None = None
    peer: Annotated[PeerSelector | None, BeforeValidator(_peer)] = None
    decision: Verb
    by: Who
    reason: Who
    at: Instant

    @model_validator(mode="after")
    def _whole(self) -> Self:
        given = {name for name in _ABOUT if getattr(self, name) is not None}
        if self.decision == Verb.SENSITIVE:
            if not given - {"protocol", "direction"}:
                raise ValueError("marks nothing: name a workload, a namespace, a port or a peer")
            if "direction" in given:
                raise ValueError("a mark has no direction: leave it out, both are meant")
            if {"workload", "namespace"} <= given:
                raise ValueError("names a workload and a namespace: leave the namespace out")
            return self
        missing = [name for name in ("workload", "direction", "protocol", "port")
                   if name not in given]  # fmt: skip
        if missing:
            raise ValueError(f"lacks {', '.join(missing)}: {self.decision} needs it")
        if "namespace" in given:
            raise ValueError(f"names a namespace: {self.decision} is about one workload")
        return self

    @property
    def door(self) -> tuple[Direction, Protocol, int] | None:
        """Direction, protocol and port of ``learn`` and ``never``; of a mark None."""
        if self.direction is None or self.protocol is None or self.port is None:
            return None
        return self.direction, self.protocol, self.port

    @property
    def key(self) -> tuple[Any, ...]:
        """What it is about; two decisions about the same contradict or repeat each other."""
        text = [str(getattr(self, name) or "") for name in ("direction", "protocol", "peer")]
        owner = self.workload or (self.namespace or "", "", "")
        marks = self.decision == Verb.SENSITIVE
        return (marks, *owner, *text[:2], self.port or 0, text[2])

    def matches(self, edge: Edge) -> bool:
        """Whether the edge is what was decided about; of a mark, as the one or the other end."""
        given = (
            (self.direction, edge.direction),
            (self.protocol, edge.protocol),
            (self.port, edge.port),
        )
        if any(said is not None and said != is_so for said, is_so in given):
            return False
        if self.peer is not None and not _is(self.peer, edge):
            return False
        ends = [edge.workload]
        if self.decision == Verb.SENSITIVE and self.peer is None:
            peer = edge.peer
            if peer.workload is not None:
                name = (peer.namespace or "", peer.workload_kind or "", peer.workload)
                ends.append(Workload(*name))
        return any(
            (self.workload is None or end == self.workload)
            and (self.namespace is None or (end is not None and end.namespace == self.namespace))
            for end in ends
        )

    def __str__(self) -> str:
        return f"{self.decision}: {self.by}, {self.at:%Y-%m-%d}: {self.reason}"


_ABOUT = ("workload", "namespace", "direction", "protocol", "port", "peer")
_ENTITIES = {
    Entity.NODE: PeerKind.NODE,
    Entity.CLUSTER: PeerKind.UNKNOWN,
    Entity.WORLD: PeerKind.EXTERNAL,
}
"""The peers an entity stands for in the rules that are recommended."""

_network = cache(ip_network)


def _is(selector: PeerSelector, edge: Edge) -> bool:
    peer = edge.peer
    if selector.workload is not None:
        return (peer.namespace, peer.workload_kind, peer.workload) == tuple(selector.workload)
    if selector.namespace is not None:
        return peer.namespace == selector.namespace
    if selector.cidr is not None:
        return peer.ip is not None and ip_address(peer.ip) in _network(selector.cidr)
    return selector.entity is not None and peer.kind == _ENTITIES[selector.entity]


_ENTRY: TypeAdapter[Decision] = TypeAdapter(Decision)


def read_decisions(file: str | Path) -> list[Decision]:
    """The decisions in a file, sorted by what they are about.

    Raises
    ------
    PolicyError: as :func:`portforge.policy.read_policies`: the place of the first problem, and
        all of them in ``problems``.
    """
    path = Path(file)
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError:
        raise PolicyError("is not text", place=str(path), remedy="write it as UTF-8") from None
    except OSError as wrong:
        raise PolicyError(
            f"cannot be read: {(wrong.strerror or str(wrong)).lower()}",
            place=str(path),
            remedy="check the path and its permissions",
        ) from wrong
    found: dict[tuple[Any, ...], Decision] = {}
    problems = list(_read(path, text, found))
    if problems:
        raise PolicyError(
            problems[0].problem + (f" (and {len(problems) - 1} more)" if problems[1:] else ""),
            place=problems[0].place,
            remedy=problems[0].remedy,
            problems=tuple(map(str, problems)) if problems[1:] else (),
        )
    return [found[key] for key in sorted(found)]


def _read(path: Path, text: str, found: dict[tuple[Any, ...], Decision]) -> Iterator[Problem]:
    """Fills ``found``; yields what is wrong."""
    try:
        every = list(documents(text))
    except MalformedError as wrong:
        yield Problem(path, wrong.line, "", wrong.problem, wrong.remedy)
        return
    for document in every:
        if not isinstance(document.data, list):
            yield Problem(
                path, document.line(()), "", "is not a list of decisions",
                f"begin each with a dash; its fields: {_FIELDS}",
            )  # fmt: skip
            continue
        for index, entry in enumerate(document.data):
            yield from _entry(path, document, index, entry, found)


def _entry(
    path: Path,
    document: Document,
    index: int,
    entry: object,
    found: dict[tuple[Any, ...], Decision],
) -> Iterator[Problem]:
    try:
        one = _ENTRY.validate_python(entry)
    except ValidationError as wrong:
        for error in wrong.errors(include_url=False):
            at = (index, *error["loc"])
            problem, remedy = sentence(error)
            if error["type"] == "extra_forbidden":
                remedy = f"known here: {_FIELDS}"
            yield Problem(path, document.line(at), field_text(at), problem, remedy)
        return
    other = found.setdefault(one.key, one)
    if other is not one:
        what = "repeats" if other.decision == one.decision else "contradicts"
        yield Problem(
            path, document.line((index,)), field_text((index,)),
            f"{what} the decision of {other.by} about the same", "keep one of them",
        )  # fmt: skip
