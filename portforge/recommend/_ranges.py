"""Propose one range for ports that change, where they look like one. It is a guess.

Applications take such ports from a configured range (passive FTP, RTP) or from the operating
system's (RPC, bind to port 0). Which one it is shows in how densely it was used. A range that is
not worth its price, or would cross what the analyst marked, is not proposed: its ports are listed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from math import ceil

from portforge.policy._model import MOST_RULES
from portforge.recommend._edges import Edge
from portforge.recommend._findings import Left
from portforge.recommend._marks import Around
from portforge.recommend._options import Options
from portforge.recommend._price import NAMED_COST, members, worth
from portforge.recommend._rules import Learned, learn_range, learn_rules
from portforge.schema import Direction, Protocol

__all__ = ["likely_range", "propose_ranges"]

_IANA = (49152, 65535)
_LINUX_LAST = 60999
_FIRST, _LAST = 1024, 65535
_DENSE = 32
"""A configured range shows when one of so many of its ports was seen; fewer is a system's."""
_Key = tuple[Direction, Protocol]


def propose_ranges(
    changes: list[Left],
    stays: Iterable[Edge],
    never: Iterable[tuple[Direction, Protocol, int]],
    options: Options,
    around: Around | None = None,
) -> tuple[list[Learned], list[Left]]:
    """Rules for the ports of one workload that change, and ``changes`` with what came of them.

    Parameters
    ----------
    changes: what :func:`portforge.recommend._dynamic.split_dynamic` found.
    stays: the learned edges on ports that stay: rules of their own, which no range may overlap.
    never: ports the analyst ruled out for some peer; no range may hold them.
    """
    around = around or Around()
    if not options.propose_ranges:
        return [], changes
    taken: defaultdict[_Key, set[int]] = defaultdict(set)
    for edge in stays:
        taken[edge.direction, edge.protocol].add(edge.port)
    for direction, protocol, port in never:
        taken[direction, protocol].add(port)
    groups: defaultdict[_Key, list[Left]] = defaultdict(list)
    for one in changes:
        groups[one.edge.direction, one.edge.protocol].append(one)
    rules: list[Learned] = []
    said: list[Left] = []
    for key, group in groups.items():
        edges = [one.edge for one in group]
        ports = {edge.port for edge in edges}
        if likely_range(ports, taken[key], options) is None:
            said += group
            continue
        what = f"{len(ports)} different ports between {min(ports)} and {max(ports)}: "
        rule, why_not = _range(edges, taken[key], options, around)
        if not rule and not why_not:
            said += group
            continue
        if rule is not None:
            rules.append(rule)
            what += (
                f"the range {rule.rule.ports} is proposed, {rule.over_grant[-1]}; it is a guess, "
                "compare it with the application's own setting before enforcing"
            )
            said += [replace(one, reason=what, learned=True) for one in group]
            continue
        room = _room(key, rules, taken)
        if len(ports) > room:
            what += f"{why_not}; a list has room for {room} of them: add a range by hand"
            said += [replace(one, reason=what) for one in group]
            continue
        listed = learn_rules(edges, frozenset(), options, around)
        rules += [replace(one, reasons=(*one.reasons, f"one by one: {why_not}")) for one in listed]
        what += f"listed one by one, {why_not}; the next session may use another"
        said += [replace(one, reason=what, learned=True) for one in group]
    return rules, said


def _room(key: _Key, rules: list[Learned], taken: dict[_Key, set[int]]) -> int:
    """How many more rules the direction may have, TCP 53 beside UDP 53 included."""
    own = sum(len(ports) for (direction, _), ports in taken.items() if direction == key[0])
    return MOST_RULES - 1 - own - sum(rule.direction == key[0] for rule in rules)


def _range(
    edges: list[Edge], taken: set[int], options: Options, around: Around
) -> tuple[Learned | None, str]:
    """The range, or why there is none; no reason where it is none to be listed, either."""
    workload, protocol = edges[0].workload, edges[0].protocol
    assert workload is not None  # noqa: S101  rules are made of workloads' edges
    ports = {edge.port for edge in edges}
    found = likely_range(ports, taken | around.marks.ports(workload, protocol), options)
    if found is None:
        return None, "a port within is marked sensitive"
    rule = learn_range(*found, edges, options, around)
    if rule is None or (mark := around.marks.crossed(workload, protocol, found, rule.rule.peers)):
        return None, f"a range would cross what is {mark}" if rule else "the peers were lost"
    named = found[1] - found[0] + 1 > _DENSE * len(ports)
    if named and _anybody(rule):
        return None, ""
    peers = len(rule.rule.peers or ())
    pairs = len({(edge.port, edge.peer) for edge in edges})
    admitted = sum(
        members(peer.namespace, edges, around.workloads) if peer.namespace else 1
        for peer in rule.rule.peers or ()
    )
    cost = NAMED_COST if named else (found[1] - found[0] + 1) * admitted - pairs
    if not worth(cost, pairs - peers, options.price):
        return None, f"the range {rule.rule.ports} is not worth the price of {options.price}"
    return rule, ""


def _anybody(rule: Learned) -> bool:
    """A whole ephemeral range is never opened to peers that cannot be listed."""
    peers = rule.rule.peers
    return peers is None or any(peer.entity or peer.namespace for peer in peers)


def likely_range(ports: set[int], taken: set[int], options: Options) -> tuple[int, int] | None:
    """First and last port of the range that these came from; None where they look like none.

    Seen ends fall short of the real ones by the mean gap between seen ports, and people
    configure round numbers: both are added, up to the next port that is ``taken``.

    >>> likely_range({40002, 40017, 40040, 40058, 40079, 40096}, set(), Options())
    (39980, 40110)
    >>> likely_range({49200, 53000, 56000, 60000, 65000}, set(), Options())
    (49152, 65535)
    >>> likely_range({2000, 9000, 40000, 65000}, set(), Options())
    """
    low, high = min(ports), max(ports)
    if len(ports) < 2 or any(low <= port <= high for port in taken):
        return None
    span = high - low + 1
    gap = (span - 1) / (len(ports) - 1) - 1
    unit = 10
    while unit * 10 <= span / 5:
        unit *= 10
    # The round number nearest to where the end is expected, but outside of what was seen.
    first, last = round((low - gap) / unit) * unit, round((high + gap) / unit) * unit
    first = max(_FIRST, first if first <= low else low // unit * unit)
    last = min(_LAST, last if last >= high else ceil(high / unit) * unit)
    if last - first + 1 > _DENSE * len(ports):
        systems = [_IANA, (options.ephemeral_port, _LINUX_LAST)]
        fits = [s for s in systems if s[0] <= low and high <= s[1] and 2 * span > s[1] - s[0]]
        if not fits:
            return None
        first, last = fits[0]
    below = [port for port in taken if port < low]
    above = [port for port in taken if port > high]
    return max([first, *(port + 1 for port in below)]), min([last, *(port - 1 for port in above)])
