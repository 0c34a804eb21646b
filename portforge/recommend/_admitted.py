"""Say of what was kept out where a rule lets it pass all the same, as a wider one does. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from portforge.policy import PortPolicy, judge
from portforge.recommend._findings import Left

__all__ = ["say_admitted"]

_ATTACKS = frozenset({"scan", "beacon", "first_time", "one_sided"})


def say_admitted(left: Iterable[Left], policy: PortPolicy) -> list[Left]:
    """The findings of one workload; those its own policy would allow say by which rule."""
    return [replace(one, reason=one.reason + _but(one, policy)) for one in left]


def _but(one: Left, policy: PortPolicy) -> str:
    edge = one.edge
    if one.kind not in _ATTACKS or one.learned or not edge.answered:
        return ""
    said = judge(policy, str(edge.direction), str(edge.protocol), edge.port, edge.peer, None)
    if said.rule is None or said.verdict != "allowed":
        return ""
    return f"; yet {said.rule} lets it pass, as it is wider than what was learned"
