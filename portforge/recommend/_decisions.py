"""The decisions file: what the analyst said must be learned, and what never may. Reading only.

A file is a YAML list. It is read as strictly as policies are: an unknown field, a field written
twice, or two decisions that contradict each other are refused, with file and line.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from functools import cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from portforge.errors import PolicyError
from portforge.policy import Entity, PeerSelector
from portforge.policy._model import Instant, Model, Port, Who, WorkloadField
from portforge.policy._places import Document, MalformedError, documents
from portforge.policy._read import Problem
from portforge.policy._wording import field_text, sentence
from portforge.recommend._edges import Edge
from portforge.schema import Direction, PeerKind, Protocol, Workload

__all__ = ["Decision", "Verb", "read_decisions"]

_FIELDS = "workload, direction, protocol, port, peer, decision, by, reason, at"
_EXAMPLE = "write namespace/Kind/name, as in shop/Deployment/web"


class Verb(StrEnum):
    """What to do with all that a decision matches."""

    LEARN = "learn"
    NEVER = "never"


def _workload(value: object) -> object:
    if not isinstance(value, str):
        return value
    parts = value.split("/")
    if len(parts) != 3:
        raise ValueError(f"{value!r} is not a workload: {_EXAMPLE}")
    return Workload(*parts)


def _peer(value: object) -> object:
    """``shop/Deployment/web``, a CIDR or one address, ``Node``, ``Cluster`` or ``World``."""
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
    try:
        ip_network(value, strict=False)
    except ValueError:
        raise ValueError(
            f"{value!r} is not a peer: write namespace/Kind/name, an address, a CIDR, "
            "Node, Cluster or World"
        ) from None
    return {"cidr": value}


class Decision(Model):
    """One entry. ``peer`` None: whoever it is. The words are those of rules and evidence."""

    workload: Annotated[WorkloadField, BeforeValidator(_workload)]
    direction: Direction
    protocol: Literal[Protocol.TCP, Protocol.UDP]
    port: Port
    peer: Annotated[PeerSelector | None, BeforeValidator(_peer)] = None
    decision: Verb
    by: Who
    reason: Who
    at: Instant

    @property
    def key(self) -> tuple[Any, ...]:
        """What it is about; two decisions about the same contradict or repeat each other."""
        peer = "" if self.peer is None else str(self.peer)
        return (*self.workload, str(self.direction), str(self.protocol), self.port, peer)

    def matches(self, edge: Edge) -> bool:
        """Whether the edge is what was decided about."""
        return (
            edge.workload == self.workload
            and edge.direction == self.direction
            and edge.protocol == self.protocol
            and edge.port == self.port
            and (self.peer is None or _is(self.peer, edge))
        )

    def __str__(self) -> str:
        return f"{self.decision}: {self.by}, {self.at:%Y-%m-%d}: {self.reason}"


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
