"""What the nodes say (NodeReport) and what is lifted (BreakGlass), as the cluster has them.

Reads and writes objects; prints nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from portforge.kube._refused import GROUP, ask

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

__all__ = [
    "BreakGlass",
    "NodeReport",
    "PolicyOnNode",
    "end_break_glass",
    "list_break_glass",
    "list_reports",
    "start_break_glass",
]


@dataclass(frozen=True)
class PolicyOnNode:
    """What one node does with one policy: the mode in force, and why when it is not as asked."""

    namespace: str
    name: str
    mode: str
    state: str
    pods: int
    denied: int
    audited: int
    problem: str


@dataclass(frozen=True)
class NodeReport:
    """One node's own word. Moments are None where the agent never had that to say."""

    node: str
    agent: str
    programs: str
    heartbeat: datetime | None
    canary: datetime | None
    synced: bool
    losses: int
    break_glass: str | None
    policies: tuple[PolicyOnNode, ...]


@dataclass(frozen=True)
class BreakGlass:
    """Enforcement lifted on ``nodes`` (None: on all), by whom, why, until when."""

    name: str
    reason: str
    by: str
    nodes: tuple[str, ...] | None
    expires_at: datetime | None

    def over(self, now: datetime) -> bool:
        """Whether it has expired; the object stays until somebody removes it."""
        return self.expires_at is not None and self.expires_at <= now


def moment(text: object) -> datetime | None:
    """A Kubernetes time; None for nothing and for what is none.

    >>> moment("2026-01-01T00:00:00Z")
    datetime.datetime(2026, 1, 1, 0, 0, tzinfo=datetime.timezone.utc)
    """
    try:
        read = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return read.astimezone(UTC) if read.tzinfo else None


def node_report(data: Mapping[str, Any]) -> NodeReport:
    """The report in an object of the API server."""
    status = data.get("status") or {}
    return NodeReport(
        node=str(data["metadata"]["name"]),
        agent=str(status.get("agent", "")),
        programs=str(status.get("programs", "")),
        heartbeat=moment(status.get("heartbeat")),
        canary=moment(status.get("canary")),
        synced=bool(status.get("synced", False)),
        losses=int(status.get("losses", 0)),
        break_glass=status.get("breakGlass") or None,
        policies=tuple(
            PolicyOnNode(
                namespace=str(p.get("namespace", "")),
                name=str(p.get("name", "")),
                mode=str(p.get("mode", "")),
                state=str(p.get("state", "")),
                pods=int(p.get("pods", 0)),
                denied=int(p.get("denied", 0)),
                audited=int(p.get("audited", 0)),
                problem=str(p.get("problem", "")),
            )
            for p in status.get("policies") or ()
        ),
    )


def list_reports(api: ApiClient) -> list[NodeReport]:
    """Every node's report, sorted by node."""
    answer = ask(api, "GET", f"{GROUP}/nodereports", place="nodereports")
    return sorted(map(node_report, answer["items"]), key=lambda report: report.node)


def _break_glass(data: Mapping[str, Any]) -> BreakGlass:
    spec = data.get("spec") or {}
    nodes = spec.get("nodes")
    return BreakGlass(
        str(data["metadata"]["name"]),
        str(spec.get("reason", "")),
        str(spec.get("by", "")),
        None if nodes is None else tuple(nodes),
        moment(spec.get("expiresAt")),
    )


def list_break_glass(api: ApiClient) -> list[BreakGlass]:
    """Every BreakGlass, also those that have expired, sorted by name."""
    answer = ask(api, "GET", f"{GROUP}/breakglasses", place="breakglasses")
    return sorted(map(_break_glass, answer["items"]), key=lambda found: found.name)


def start_break_glass(
    api: ApiClient,
    reason: str,
    by: str,
    nodes: Iterable[str] = (),
    expires_at: datetime | None = None,
) -> BreakGlass:
    """Lift enforcement on ``nodes``, or everywhere when there are none named."""
    spec: dict[str, Any] = {"reason": reason, "by": by}
    if named := sorted(set(nodes)):
        spec["nodes"] = named
    if expires_at is not None:
        spec["expiresAt"] = expires_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    body = {
        "apiVersion": "portforge.dev/v1alpha1",
        "kind": "BreakGlass",
        "metadata": {"generateName": "break-glass-"},
        "spec": spec,
    }
    return _break_glass(ask(api, "POST", f"{GROUP}/breakglasses", place="break-glass", body=body))


def end_break_glass(api: ApiClient, name: str) -> None:
    """Remove one BreakGlass: what it lifted is in force again within seconds."""
    ask(api, "DELETE", f"{GROUP}/breakglasses/{quote(name, safe='')}", place=name)
