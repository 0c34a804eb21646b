"""What changed between two sets of policies, in meaning: not in spelling, order or comments.

Rules are the same rule when they open the same ports of the same protocol and direction, or,
failing that, when they have the same id. Approval is not compared.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from portforge.policy._model import Mode, PortPolicy, Rule
from portforge.policy._yaml import instant_text
from portforge.schema import Direction, Workload

__all__ = ["Change", "Diff", "diff"]

Effect = Literal["opens", "closes", "changes", "none"]
_STRENGTH = {Mode.RECORD: 0, Mode.AUDIT: 1, Mode.ENFORCE: 2}
_SIGN = {"opens": "+", "closes": "-", "changes": "~", "none": " "}


@dataclass(frozen=True)
class Change:
    """One change: what it was, what it is now, and whether it opens or closes something."""

    namespace: str
    workload_kind: str
    workload: str
    direction: str | None
    rule: str | None
    what: str
    before: str | None
    after: str | None
    effect: Effect

    def __str__(self) -> str:
        place = " ".join(p for p in (self.direction, self.rule) if p)
        values = {
            (False, True): f": {self.after}",
            (True, False): f": {self.before}",
            (True, True): f": {self.before} → {self.after}",
        }.get((self.before is not None, self.after is not None), "")
        return f"{_SIGN[self.effect]} {place + ' ' if place else ''}{self.what}{values}"


@dataclass(frozen=True)
class Diff:
    """Every change, by workload, direction and port. False where there is none."""

    changes: tuple[Change, ...]

    def __bool__(self) -> bool:
        return bool(self.changes)

    @property
    def counts(self) -> dict[str, int]:
        """How many changes open, close, change otherwise, or have no effect."""
        return {e: sum(c.effect == e for c in self.changes) for e in _SIGN}

    def __str__(self) -> str:
        lines: list[str] = []
        owner: tuple[str, ...] = ()
        for change in self.changes:
            here = (change.namespace, change.workload_kind, change.workload)
            if here != owner:
                lines.append("/".join(here))
                owner = here
            lines.append(f"  {change}")
        return "\n".join(lines) or "no difference in meaning"

    def to_json(self) -> str:
        """All changes and their counts, as JSON with sorted keys."""
        content = {"schema": 1, "changes": [asdict(c) for c in self.changes], "counts": self.counts}
        return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)


class _Writer:
    """Makes changes of one workload."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload

    def __call__(
        self,
        what: str,
        effect: Effect,
        before: object = None,
        after: object = None,
        *,
        direction: str | None = None,
        rule: str | None = None,
    ) -> Change:
        told = [None if v is None else str(v) for v in (before, after)]
        return Change(*self.workload, direction, rule, what, told[0], told[1], effect)


def _ports(rule: Rule) -> tuple[str, int, int]:
    return (rule.protocol, rule.port, rule.last_port)


def _pairs(
    old: tuple[Rule, ...], new: tuple[Rule, ...]
) -> Iterator[tuple[Rule | None, Rule | None]]:
    """Old and new version of each rule; None where it is not there."""
    was, now = {_ports(r): r for r in old}, {_ports(r): r for r in new}
    lost = {r.id: r for ports, r in was.items() if ports not in now}
    found = {r.id: r for ports, r in now.items() if ports not in was}
    pairs: list[tuple[Rule | None, Rule | None]] = [
        (r, now[ports]) for ports, r in was.items() if ports in now
    ]
    pairs += [(lost.get(i), found.get(i)) for i in dict.fromkeys([*lost, *found])]
    yield from sorted(pairs, key=lambda pair: _ports(pair[1] or pair[0]))  # type: ignore[arg-type]


def _expiry(old: PortPolicy | Rule, new: PortPolicy | Rule) -> tuple[str | None, str | None]:
    return (
        None if old.expires_at is None else instant_text(old.expires_at),
        None if new.expires_at is None else instant_text(new.expires_at),
    )


def _ports_effect(old: Rule, new: Rule) -> Effect:
    if old.protocol == new.protocol:
        if new.port <= old.port and new.last_port >= old.last_port:
            return "opens"
        if new.port >= old.port and new.last_port <= old.last_port:
            return "closes"
    return "changes"


def _rule(say: _Writer, direction: str, old: Rule, new: Rule) -> Iterator[Change]:
    at = {"direction": direction, "rule": new.id}
    if _ports(old) != _ports(new):
        before, after = f"{old.protocol} {old.ports}", f"{new.protocol} {new.ports}"
        yield say("ports changed", _ports_effect(old, new), before, after, **at)
    if old.peers is None and new.peers is not None:
        yield say("peers restricted", "closes", "any peer", ", ".join(map(str, new.peers)), **at)
    elif old.peers is not None and new.peers is None:
        yield say("peers opened", "opens", ", ".join(map(str, old.peers)), "any peer", **at)
    elif old.peers is not None and new.peers is not None:
        for peer in new.peers:
            if peer not in old.peers:
                yield say("peer added", "opens", None, peer, **at)
        for peer in old.peers:
            if peer not in new.peers:
                yield say("peer removed", "closes", peer, **at)
    before_expiry, after_expiry = _expiry(old, new)
    if before_expiry != after_expiry:
        was, now = old.expires_at, new.expires_at
        longer = now is None or (was is not None and now > was)
        effect: Effect = "opens" if longer else "closes"
        yield say("expiry changed", effect, before_expiry or "never", after_expiry or "never", **at)
    if old.id != new.id:
        yield say("id changed", "none", old.id, new.id, **at)


def _direction(say: _Writer, old: PortPolicy, new: PortPolicy, direction: str) -> Iterator[Change]:
    was, now = old.rules(direction), new.rules(direction)
    if was is None and now is not None:
        text = "; ".join(f"{r.id} {r}" for r in now) or "nothing allowed"
        yield say("restricted", "closes", "everything", text, direction=direction)
    elif was is not None and now is None:
        text = "; ".join(f"{r.id} {r}" for r in was) or "nothing allowed"
        yield say("no longer restricted", "opens", text, "everything", direction=direction)
    for before, after in _pairs(was, now) if was is not None and now is not None else ():
        if before is None and after is not None:
            yield say("rule added", "opens", None, after, direction=direction, rule=after.id)
        elif after is None and before is not None:
            yield say("rule removed", "closes", before, direction=direction, rule=before.id)
        elif before is not None and after is not None:
            yield from _rule(say, direction, before, after)


def _policy(old: PortPolicy, new: PortPolicy) -> Iterator[Change]:
    say = _Writer(new.workload)
    if old.name != new.name:
        yield say("policy renamed", "none", old.name, new.name)
    if old.mode != new.mode:
        stronger = _STRENGTH[new.mode] > _STRENGTH[old.mode]
        yield say("mode changed", "closes" if stronger else "opens", old.mode, new.mode)
    if old.established != new.established:
        yield say("established changed", "changes", old.established, new.established)
    before, after = _expiry(old, new)
    if before != after:
        was, now = old.expires_at, new.expires_at
        longer = now is None or (was is not None and now > was)
        effect: Effect = "closes" if longer else "opens"
        yield say("expiry changed", effect, before or "never", after or "never")
    if old.author != new.author:
        yield say("author changed", "none", old.author or "unknown", new.author or "unknown")
    if old.confirm_before != new.confirm_before:
        was, now = old.confirm_before, new.confirm_before
        yield say("trial changed", "none", *((w and instant_text(w)) or "none" for w in (was, now)))
    for direction in Direction:
        yield from _direction(say, old, new, direction)


def diff(old: Iterable[PortPolicy], new: Iterable[PortPolicy]) -> Diff:
    """What changed from ``old`` to ``new``, workload by workload.

    >>> from portforge.schema import Workload
    >>> web = PortPolicy(namespace="shop", name="deployment-web",
    ...     workload=Workload("shop", "Deployment", "web"),
    ...     ingress=[Rule(id="in-tcp-80", protocol="TCP", port=80)])
    >>> print(diff([web], [web.model_copy(update={"ingress": ()})]))
    shop/Deployment/web
      - ingress in-tcp-80 rule removed: TCP 80 any peer
    """
    was, now = {p.workload: p for p in old}, {p.workload: p for p in new}
    changes: list[Change] = []
    for workload in sorted({*was, *now}):
        before, after = was.get(workload), now.get(workload)
        say = _Writer(workload)
        if before is not None and after is not None:
            changes += _policy(before, after)
        elif after is not None:
            changes.append(say("policy added", "closes", None, _summary(after)))
        elif before is not None:
            changes.append(say("policy removed", "opens", _summary(before)))
    return Diff(tuple(changes))


def _summary(policy: PortPolicy) -> str:
    parts = [str(policy.mode)]
    for direction in Direction:
        rules = policy.rules(direction)
        parts.append(f"{direction} " + ("unrestricted" if rules is None else f"{len(rules)} rules"))
    return ", ".join(parts)
