"""How urgent a finding is: high, medium, low or info, from evidence by written rules. Pure.

Each kind starts at a level; each fact of ``up`` that holds raises it by one, never above ``most``;
each of ``down`` lowers it by one. What the analyst decided to learn is ``info``. The table in
docs/findings.md says the same; a test compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from portforge.recommend._edges import Edge
from portforge.recommend._sensitive import sensitive_name
from portforge.schema import Direction, PeerKind

__all__ = ["RULES", "Fact", "Facts", "Level", "Rule", "facts_of", "severity"]


class Level(StrEnum):
    """The most urgent first."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    INFO = "info"


_UPWARDS = tuple(reversed(Level))


@dataclass(frozen=True)
class Facts:
    """What is known of one finding.

    Parameters
    ----------
    answered: a connection of it came about.
    inside: whoever opened it is inside the cluster; with ``crosses`` one end is outside.
    sensitive: one of its ports is on the list of sensitive ones.
    let_in: it was answered on one of those.
    targets: distinct workloads or addresses that its source touched in findings of this kind.
    going_on: seen in the last tenth of the window.
    learned: it is part of a rule all the same.
    """

    answered: bool
    inside: bool
    crosses: bool
    sensitive: bool
    let_in: bool
    targets: int
    going_on: bool
    learned: bool


Fact = Callable[[Facts], bool]

_MANY = 3
"""Targets of one source that are many: nobody errs three times by chance."""


def _let_in(facts: Facts) -> bool:
    return facts.let_in


def _inside(facts: Facts) -> bool:
    return facts.inside


def _crosses(facts: Facts) -> bool:
    return facts.crosses


def _sensitive(facts: Facts) -> bool:
    return facts.sensitive


def _many(facts: Facts) -> bool:
    return facts.targets >= _MANY


def _going_on(facts: Facts) -> bool:
    return facts.going_on


def _noise(facts: Facts) -> bool:
    return not facts.inside and not facts.answered


def _kept_out(facts: Facts) -> bool:
    return not facts.learned


def _learned(facts: Facts) -> bool:
    return facts.learned


@dataclass(frozen=True)
class Rule:
    """Where a kind starts, what raises and lowers it, and how high it may get."""

    start: Level
    most: Level
    up: tuple[Fact, ...] = ()
    down: tuple[Fact, ...] = ()


RULES: Mapping[str, Rule] = {
    "scan": Rule(Level.MEDIUM, Level.HIGH, (_inside, _let_in), (_noise,)),
    "beacon": Rule(Level.LOW, Level.HIGH, (_kept_out, _going_on), (_learned,)),
    "first_time": Rule(Level.MEDIUM, Level.HIGH, (_crosses, _many)),
    "one_sided": Rule(Level.LOW, Level.HIGH, (_sensitive, _many)),
    "outlier": Rule(Level.LOW, Level.MEDIUM, (_crosses, _sensitive)),
    "never": Rule(Level.LOW, Level.HIGH, (_sensitive, _going_on)),
    "denied": Rule(Level.LOW, Level.HIGH, (_sensitive, _many)),
    "refused": Rule(Level.INFO, Level.MEDIUM, (_sensitive, _many)),
    "failed": Rule(Level.INFO, Level.MEDIUM, (_sensitive, _many)),
    "unanswered": Rule(Level.LOW, Level.LOW),
    "unused_listener": Rule(Level.INFO, Level.LOW, (_sensitive,)),
    "dynamic_ports": Rule(Level.MEDIUM, Level.MEDIUM),
    "unknown_peer": Rule(Level.LOW, Level.MEDIUM, (_sensitive,)),
    "lost_peer": Rule(Level.LOW, Level.LOW),
    "unattributed": Rule(Level.LOW, Level.LOW),
}
"""By kind; every other kind is always ``info``."""

_QUIET = Rule(Level.INFO, Level.INFO)


def severity(kind: str, facts: Facts, *, to_learn: bool = False) -> Level:
    """The level of one finding.

    Parameters
    ----------
    to_learn: the analyst decided that it is learned.

    >>> knock = Facts(False, False, True, True, False, 1, True, False)
    >>> str(severity("scan", knock))
    'low'
    """
    if to_learn:
        return Level.INFO
    rule = RULES.get(kind, _QUIET)
    place = _UPWARDS.index(rule.start) + sum(fact(facts) for fact in rule.up)
    place = min(place, _UPWARDS.index(rule.most)) - sum(fact(facts) for fact in rule.down)
    return _UPWARDS[max(0, place)]


def facts_of(edges: Iterable[Edge], targets: int, going_on_since: datetime, learned: bool) -> Facts:
    """The facts about the edges of one finding."""
    edges = list(edges)
    sensitive = [e for e in edges if sensitive_name(e.protocol, e.port, e.target_port)]
    outside = [edge.peer.kind == PeerKind.EXTERNAL for edge in edges]
    return Facts(
        answered=any(edge.answered for edge in edges),
        inside=any(
            edge.direction == Direction.EGRESS or not far
            for edge, far in zip(edges, outside, strict=True)
        ),
        crosses=any(outside),
        sensitive=bool(sensitive),
        let_in=any(edge.answered for edge in sensitive),
        targets=targets,
        going_on=max(edge.last_seen for edge in edges) >= going_on_since,
        learned=learned,
    )
