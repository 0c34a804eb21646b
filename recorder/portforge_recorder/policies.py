"""The cluster's policies on this node: watch the objects, keep them on disk, put in force what
:mod:`portforge_recorder.in_force` decides. Writes nothing to the API server (``report`` does).

The recorder's loop calls :meth:`ClusterPolicies.look` and reconciles when its answer changes.
What was seen, confirmed and rolled back is in the state folder: a node whose API server is away
goes on with it, also after a restart.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from portforge.apply.state import State
from portforge.errors import PortforgeError
from portforge.kube.watch import Watcher
from portforge.policy import PortPolicy
from portforge.schema import Verdict, Workload
from portforge_recorder.in_force import (
    MOST_DENIALS,
    Attempt,
    Decision,
    PolicyState,
    StateName,
    decide,
)
from portforge_recorder.memory import Memory, glass, name_of, slim

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

__all__ = ["GROUP", "ClusterPolicies", "Counts", "Tell"]

GROUP = "/apis/portforge.dev/v1alpha1"
_AT_LEAST_EVERY = 30.0
"""Seconds after which it is decided again though nothing happened: the clock may have been set."""

Tell = Callable[..., None]
"""``tell(event, **fields)``: one line of the log."""

_EVENTS = {
    StateName.ACTIVE: "policy put in force",
    StateName.ON_TRIAL: "policy put in force",
    StateName.ROLLED_BACK: "policy rolled back",
    StateName.UNAPPROVED: "policy refused",
    StateName.INVALID: "policy refused",
    StateName.BREAK_GLASS: "policy lifted by break-glass",
    StateName.EXPIRED: "policy expired",
}


@dataclass(frozen=True)
class Counts:
    """Connections by workload since the agent started."""

    denied: Mapping[Workload, int] = field(default_factory=dict)
    audited: Mapping[Workload, int] = field(default_factory=dict)

    def plus(self, flows: pa.Table) -> Counts:
        """With the rows of one drain."""
        denied, audited = Counter(self.denied), Counter(self.audited)
        verdict = flows.column("verdict").cast(pa.string())
        rows = flows.filter(pc.is_in(verdict, pa.array([Verdict.DENIED, Verdict.AUDITED])))
        names = ("namespace", "workload_kind", "workload", "verdict")
        columns = [rows.column(n).cast(pa.string()).to_pylist() for n in names]
        for space, kind, name, what, number in zip(
            *columns, rows.column("connections").to_pylist(), strict=True
        ):
            if space and kind and name:
                into = denied if what == Verdict.DENIED else audited
                into[Workload(space, kind, name)] += number
        return Counts(denied, audited)


@dataclass
class _Trial:
    """Denials since a trial began; None before its first whole drain interval."""

    attempt: Attempt
    denied: int | None = None


class ClusterPolicies:
    """Follows PortPolicies and BreakGlasses for one node.

    Parameters
    ----------
    api: the API server's client.
    node: this node's name.
    state: where the recorder reads what is in force.
    most_denials: so many denials of one policy on this node end its trial.
    tell: takes events for the log.
    """

    def __init__(
        self,
        api: ApiClient,
        node: str,
        state: State,
        *,
        most_denials: int = MOST_DENIALS,
        tell: Tell = lambda *_, **__: None,
    ) -> None:
        self.node, self.state = node, state
        self.decision = Decision((), (), {}, {})
        self.counts = Counts()
        self.problem: PortforgeError | None = None
        """Why the last decision is not on disk, and so not in force."""
        self.watchers = {
            "portpolicies": Watcher(api, f"{GROUP}/portpolicies", slim),
            "breakglasses": Watcher(api, f"{GROUP}/breakglasses", slim),
        }
        self._most_denials, self._tell = most_denials, tell
        self._memory = Memory.read(state)
        self._trials: dict[str, _Trial] = {}
        self._seen: object = None
        self._again = float("-inf")
        self._deadline: datetime | None = None
        self._version = 0

    def start(self) -> None:
        """Begin to watch."""
        for watcher in self.watchers.values():
            watcher.start()

    def stop(self) -> None:
        """End watching."""
        for watcher in self.watchers.values():
            watcher.stop()

    def count(self, flows: pa.Table) -> None:
        """Take the rows of one drain into the counts, and into those of running trials."""
        before, self.counts = self.counts, self.counts.plus(flows)
        running = {s.key: s for s in self.decision.states if s.state is StateName.ON_TRIAL}
        self._trials = {k: t for k, t in self._trials.items() if k in running}
        for key, said in running.items():
            attempt = self._memory.attempt(key)
            trial = self._trials.get(key)
            if trial is None or trial.attempt != attempt:
                # What this drain brought may have been denied by what was in force before.
                self._trials[key] = _Trial(attempt, 0)
            elif said.workload is not None:
                fresh = self.counts.denied.get(said.workload, 0)
                trial.denied = (trial.denied or 0) + fresh - before.denied.get(said.workload, 0)

    def look(self) -> int:
        """Decide again where something may have changed; the number of changes until now."""
        now = datetime.now(UTC)
        seen = (
            [(w.changed, w.synced) for w in self.watchers.values()],
            {k: t.denied for k, t in self._trials.items()},
        )
        over = self._deadline is not None and now >= self._deadline
        if seen == self._seen and not over and time.monotonic() < self._again:
            return self._version
        self._again = time.monotonic() + (1.0 if self.problem else _AT_LEAST_EVERY)
        try:
            self._decide(now)
            self.problem, self._seen = None, seen
        except PortforgeError as problem:
            self.problem = problem
        return self._version

    def _decide(self, now: datetime) -> None:
        policies, glasses = self.watchers["portpolicies"], self.watchers["breakglasses"]
        if policies.synced:
            self._memory.see(policies.items().values())
        if glasses.synced:
            self._memory.glasses = {name_of(o): o for o in glasses.items().values()}
        memory = self._memory
        memory.known |= policies.synced and glasses.synced
        if not memory.known:
            return  # what is in force stays until this node was told anything
        decision = decide(
            memory.seen(),
            memory.confirmed,
            memory.rolled_back,
            map(glass, memory.glasses.values()),
            self.node,
            now,
            {k: t.denied or 0 for k, t in self._trials.items()},
            self._most_denials,
        )
        memory.confirmed, memory.rolled_back = decision.confirmed, decision.rolled_back
        # First what to remember: dying between the two, the next start decides the same.
        memory.write(self.state)
        if self.state.put(decision.policies):
            self._version += 1
        self._deadline = _next_deadline(decision, memory, now)
        before, self.decision = self.decision, decision
        self._tell_changes(before, decision)

    def _tell_changes(self, before: Decision, after: Decision) -> None:
        old = {s.key: s for s in before.states}
        in_force = {p.workload: p for p in after.policies}
        for said in after.states:
            if old.pop(said.key, None) != said:
                policy = in_force.get(said.workload) if said.workload and said.digest else None
                self._tell(_EVENTS[said.state], **_fields(said, policy))
        for gone in old.values():
            self._tell("policy removed", policy=gone.key, digest=gone.digest)
        if before.break_glass != after.break_glass:
            if before.break_glass:
                self._tell("break-glass ended", break_glass=before.break_glass.name)
            if after.break_glass:
                g = after.break_glass
                self._tell("break-glass begun", break_glass=g.name, by=g.by, reason=g.reason)


def _fields(said: PolicyState, policy: PortPolicy | None) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "policy": said.key,
        "generation": said.generation,
        "state": str(said.state),
        "mode": str(said.mode),
        "digest": said.digest,
        "author": policy.author if policy else None,
        "by": policy.approval.by if policy and policy.approval else None,
        "problem": said.problem or None,
    }
    if said.state is StateName.ON_TRIAL and policy and policy.confirm_before:
        fields["confirm_before"] = f"{policy.confirm_before:%Y-%m-%dT%H:%M:%SZ}"
    return {k: v for k, v in fields.items() if v is not None}


def _next_deadline(decision: Decision, memory: Memory, now: datetime) -> datetime | None:
    """When the clock alone changes what is in force."""
    moments: list[datetime | None] = [glass(o).expires_at for o in memory.glasses.values()]
    for seen in memory.seen():
        if seen.policy:
            moments += [seen.policy.confirm_before, seen.policy.expires_at]
    moments += [p.expires_at for p in decision.policies]
    return min((m for m in moments if m is not None and m > now), default=None)
