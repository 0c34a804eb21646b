"""What is in force on a node: a pure function of the objects last seen, what was confirmed, what
was rolled back here, break-glass, and the clock (docs/design/004). Reads no API, disk or kernel.

Watching, keeping and putting it in force is :mod:`portforge_recorder.policies`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from portforge.errors import ApprovalError
from portforge.policy import Mode, PortPolicy, digest, verify_approval
from portforge.schema import Workload

__all__ = [
    "Attempt",
    "Confirmed",
    "Decision",
    "Glass",
    "PolicyState",
    "Seen",
    "StateName",
    "decide",
    "glass_for",
]

MOST_DENIALS = 50
"""Denied connections on one node that end a trial; a SYN that is sent again counts once."""


class StateName(StrEnum):
    """What a node says of a policy in its report."""

    ACTIVE = "Active"
    ON_TRIAL = "OnTrial"
    ROLLED_BACK = "RolledBack"
    UNAPPROVED = "Unapproved"
    BREAK_GLASS = "BreakGlass"
    EXPIRED = "Expired"
    INVALID = "Invalid"


@dataclass(frozen=True)
class Seen:
    """A PortPolicy object as last seen.

    ``policy`` is what the object says or, where ``problem`` tells why that cannot be used, what
    it said last that could be; ``policy_generation`` is the generation that said it.
    """

    namespace: str
    name: str
    uid: str
    generation: int
    created: str
    policy: PortPolicy | None
    policy_generation: int
    problem: str = ""

    @property
    def key(self) -> str:
        """``namespace/name``."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class Glass:
    """A BreakGlass object. No ``nodes``: every node."""

    name: str
    nodes: tuple[str, ...] = ()
    expires_at: datetime | None = None
    by: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Attempt:
    """One version of one object: what a rollback ends. The next generation is a new attempt."""

    uid: str
    generation: int
    why: str = field(default="", compare=False)


@dataclass(frozen=True)
class Confirmed:
    """The version that was last in force without a trial."""

    uid: str
    policy: PortPolicy


@dataclass(frozen=True)
class PolicyState:
    """What a node says of one object; ``mode`` and ``digest`` are of what is in force."""

    namespace: str
    name: str
    generation: int
    state: StateName
    problem: str = ""
    asked: Mode | None = None
    mode: Mode = Mode.RECORD
    digest: str = ""
    workload: Workload | None = None

    @property
    def key(self) -> str:
        """``namespace/name``."""
        return f"{self.namespace}/{self.name}"

    @property
    def short_of_enforce(self) -> bool:
        """Enforce was asked for, and this node does not."""
        return self.asked is Mode.ENFORCE and self.mode is not Mode.ENFORCE


@dataclass(frozen=True)
class Decision:
    """What to put in force, what to say of every object, and what to keep for the next time."""

    policies: tuple[PortPolicy, ...]
    states: tuple[PolicyState, ...]
    confirmed: dict[str, Confirmed]
    rolled_back: dict[str, Attempt]
    break_glass: Glass | None = None


def glass_for(glasses: Iterable[Glass], node: str, now: datetime) -> Glass | None:
    """The first BreakGlass, by name, that speaks of ``node`` and has not expired."""
    for glass in sorted(glasses, key=lambda g: g.name):
        if glass.expires_at is not None and glass.expires_at <= now:
            continue
        if not glass.nodes or node in glass.nodes:
            return glass
    return None


def decide(
    objects: Iterable[Seen],
    confirmed: Mapping[str, Confirmed],
    rolled_back: Mapping[str, Attempt],
    break_glasses: Iterable[Glass],
    node: str,
    now: datetime,
    denials: Mapping[str, int] | None = None,
    most_denials: int = MOST_DENIALS,
) -> Decision:
    """What is in force on ``node`` at ``now``.

    Parameters
    ----------
    objects: every PortPolicy as last seen.
    confirmed, rolled_back: of the decision before, by ``namespace/name``.
    break_glasses: every BreakGlass as last seen.
    denials: connections denied since the present trial began, by ``namespace/name``.
    most_denials: so many of them end a trial.
    """
    glass = glass_for(break_glasses, node, now)
    policies: list[PortPolicy] = []
    states: list[PolicyState] = []
    kept: dict[str, Confirmed] = {}
    ended: dict[str, Attempt] = {}
    taken: dict[Workload, str] = {}
    judged: list[tuple[Seen, _Verdict]] = []
    for seen in objects:
        key = seen.key
        before = confirmed.get(key)
        if before is not None and before.uid != seen.uid:
            before = None  # of an object that was deleted and made again
        if before is not None:
            kept[key] = before
        attempt = Attempt(seen.uid, seen.policy_generation)
        verdict = _judge(
            seen.policy,
            attempt,
            before,
            rolled_back.get(key),
            now,
            (denials or {}).get(key, 0),
            most_denials,
        )
        if verdict.state is StateName.ROLLED_BACK:
            ended[key] = replace(attempt, why=verdict.why)
        judged.append((seen, verdict))
    for seen, verdict in sorted(judged, key=_precedence):
        effective, state, problem = verdict.policy, verdict.state, verdict.problem
        owner = taken.get(effective.workload) if effective else None
        if effective and owner:
            who = "/".join(effective.workload)
            effective, state = None, StateName.INVALID
            problem = f"policy {owner} speaks for {who} already: it is enforced, or older"
        elif effective:
            taken[effective.workload] = seen.key
            if state is StateName.ACTIVE and seen.policy is not None:
                kept[seen.key] = Confirmed(seen.uid, seen.policy)
        if effective and effective.mode is Mode.ENFORCE and glass:
            effective, state = _in_audit(effective), StateName.BREAK_GLASS
            problem = "; ".join(t for t in (f"break-glass {glass.name}", problem) if t)
        if seen.problem:
            state, problem = StateName.INVALID, seen.problem
        if effective:
            policies.append(effective)
        states.append(
            PolicyState(
                seen.namespace,
                seen.name,
                seen.generation,
                state,
                problem,
                asked=seen.policy.mode if seen.policy else None,
                mode=effective.mode if effective else Mode.RECORD,
                digest=digest(effective) if effective else "",
                workload=seen.policy.workload if seen.policy else None,
            )
        )
    return Decision(
        tuple(sorted(policies, key=lambda p: p.workload)),
        tuple(sorted(states, key=lambda s: s.key)),
        kept,
        ended,
        glass,
    )


@dataclass(frozen=True)
class _Verdict:
    policy: PortPolicy | None
    state: StateName
    problem: str = ""
    why: str = ""


def _precedence(judged: tuple[Seen, _Verdict]) -> tuple[bool, str, str]:
    """Who speaks for a workload: what is enforced before what is not, then the older object.

    Whoever may create policies must not push an enforced one aside with one of their own.
    """
    seen, verdict = judged
    enforced = verdict.policy is not None and verdict.policy.mode is Mode.ENFORCE
    return (not enforced, seen.created, seen.key)


def _in_audit(policy: PortPolicy) -> PortPolicy:
    return policy.model_copy(update={"mode": Mode.AUDIT})


def _expired(policy: PortPolicy, now: datetime) -> bool:
    return policy.expires_at is not None and policy.expires_at <= now


def _judge(
    policy: PortPolicy | None,
    attempt: Attempt,
    confirmed: Confirmed | None,
    rolled_back: Attempt | None,
    now: datetime,
    denied: int,
    most_denials: int,
) -> _Verdict:
    """One object by itself: rules 1 and 2 of the decision."""
    if policy is None:
        return _Verdict(None, StateName.INVALID)
    if _expired(policy, now):
        return _Verdict(None, StateName.EXPIRED, f"expired at {policy.expires_at:%Y-%m-%dT%H:%MZ}")
    if policy.mode is not Mode.ENFORCE:
        return _Verdict(policy, StateName.ACTIVE)
    try:
        verify_approval(policy, now)
    except ApprovalError as refused:
        return _Verdict(_in_audit(policy), StateName.UNAPPROVED, refused.problem)
    if policy.confirm_before is None:
        return _Verdict(policy, StateName.ACTIVE)
    if rolled_back is not None and rolled_back == attempt:
        why = rolled_back.why or "was rolled back on this node"
    elif now >= policy.confirm_before:
        why = f"was not confirmed before {policy.confirm_before:%Y-%m-%dT%H:%MZ}"
    elif denied >= most_denials:
        why = f"denied {denied} connections on trial"
    else:
        return _Verdict(policy, StateName.ON_TRIAL)
    if confirmed is not None and not _expired(confirmed.policy, now):
        what = f"{confirmed.policy.mode} as confirmed before, {digest(confirmed.policy)[:19]}…"
        return _Verdict(confirmed.policy, StateName.ROLLED_BACK, f"{why}; in force: {what}", why)
    return _Verdict(_in_audit(policy), StateName.ROLLED_BACK, f"{why}; in force: Audit", why)
