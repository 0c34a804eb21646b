"""The recorder: one loop that drains, attributes, writes and enforces, until it is told to stop.

It owns nothing that enforcement needs: killed, it leaves the kernel counting and enforcing.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Event

import numpy as np
import pyarrow as pa

from portforge.apply.cgroups import pod_uid
from portforge.apply.enforce import Applied, Enforcer
from portforge.apply.inventory import Inventory, Pod
from portforge.apply.layout import KERNEL_LOSSES
from portforge.apply.node import Drained, NodeMaps, Rows
from portforge.apply.state import State
from portforge.errors import HostError, PortforgeError
from portforge.schema import FLOW_SCHEMA, LossReason
from portforge_recorder.answers import Answers, Heard
from portforge_recorder.attribute import attribute
from portforge_recorder.identity import IdentitySource
from portforge_recorder.load import Sizes, detach, load, remove, versions
from portforge_recorder.mark import Mark, Told
from portforge_recorder.only import only_recorder
from portforge_recorder.snapshot import register
from portforge_recorder.writer import Writer, loss_table

__all__ = ["Drain", "Recorder", "Tick"]

_HALTED = 2
"""PF_HALTED of bpf/maps.h."""
_DRAINS_OF_REPLACED = 2
_SNAPSHOT_SECONDS = 60.0
_LISTENER_SECONDS = 60.0
_STALE_SECONDS = 60
"""Older than this, what is known of pods and Services may be wrong, and the capture says so."""
_UNKNOWN_SECONDS = 30.0
_LOOK_SECONDS = 0.2
"""How often the loop looks for pods that came; they pass unjudged until it has."""


@dataclass(frozen=True)
class Tick:
    """What one drain brought."""

    at: datetime
    rows: int
    connections: int
    losses: int
    pods: int
    problem: PortforgeError | None = None
    """What could not be written, read, put in force or registered; the gravest."""
    unapplied: PortforgeError | None = None
    """Why the kernel does not agree with the policies, where it does not."""


@dataclass(frozen=True)
class Drain:
    """What one drain wrote, for whoever counts it."""

    flows: pa.Table
    losses: pa.Table
    seconds: float
    heard: Heard


@dataclass
class Recorder:
    """One node's recorder. ``run`` until ``stop``; SIGTERM and SIGINT stop it too.

    Parameters
    ----------
    source: who is who.
    capture: folder of the capture.
    kubepods: this node's own kubepods cgroup.
    interval: seconds between drains; also how often a long connection is recorded.
    settle: seconds from the end of an interval until its rows are attributed: the API server
        hears of a new pod's address later than its peers do.
    unload: at the end take the programs out: nothing is enforced then.
    snapshot: register what the kernel did not see begin. Without it the agent needs neither
        CAP_SYS_ADMIN nor the host's processes: ``portforge load`` did it.
    adopt_only: the programs must be loaded already; nothing is compiled.
    on_drain: called with the rows of each drain, before ``on_tick``.
    look: called several times a second in the loop; when its answer changes, the policies in
        force did.
    """

    source: IdentitySource
    capture: Path
    kubepods: Path
    interval: float = 10.0
    settle: float = 0.0
    max_seconds: float = 300.0
    sizes: Sizes = field(default_factory=Sizes)
    state_folder: Path | None = None
    unload: bool = False
    snapshot: bool = True
    adopt_only: bool = False
    on_tick: Callable[[Tick], None] = lambda _: None
    on_drain: Callable[[Drain], None] = lambda _: None
    look: Callable[[], object] = lambda: None
    stop: Event = field(default_factory=Event)
    _signalled: bool = field(default=False, init=False)

    def run(self) -> None:
        """Load or adopt, then loop. Flushes at the end; what is pinned stays, unless ``unload``.

        Raises
        ------
        HostError: the host cannot do it, or another recorder of this node is running.
        PortforgeError: the inventory or the capture cannot be used.
        """
        inventory = self.source.inventory()
        with only_recorder(inventory.node):
            try:
                self._run(inventory)
            finally:
                for pins in versions(inventory.node) if self.unload else ():
                    remove(pins)

    def _run(self, inventory: Inventory) -> None:
        self._writer = Writer(
            self.capture, inventory.cluster, inventory.node, max_seconds=self.max_seconds
        )
        try:
            folder = load(inventory.node, self.kubepods, self.sizes, self.interval, self.adopt_only)
            with NodeMaps(folder) as maps, Answers(maps) as self._answers:
                self._loop(maps, inventory, folder)
        finally:
            self._writer.close()

    def handle_signals(self) -> None:
        """Let SIGTERM and SIGINT end the loop instead of the process."""

        def note(*_: object) -> None:
            # Not stop.set(): this may interrupt stop.wait(), which holds the lock that it takes.
            self._signalled = True

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, note)

    def _loop(self, maps: NodeMaps, inventory: Inventory, folder: Path) -> None:
        state = State(inventory.node, *([self.state_folder] if self.state_folder else []))
        enforcer = Enforcer(maps, state)
        if maps.config()["active"] & _HALTED:
            # A newer version was about to take over and died.
            maps.configure(active=maps.config()["active"] & 1)
        self._unregistered = self._register(maps)
        self._inventory = inventory
        self._departed: dict[str, Pod] = {}
        """Pods that the inventory no longer has and that still run or have rows to be drained."""
        self._departed_before: set[str] = set()
        """Which of them had left already at the last drain."""
        self._unread: PortforgeError | None = None
        self._unapplied: PortforgeError | None = None
        replaced = [old for old in versions(inventory.node) if old != folder]
        self._applied = Applied(0, 0, ())
        if replaced:
            # Those enforce until these do.
            self._applied = enforcer.reconcile(inventory)
        else:
            self._reconcile(enforcer)
        self._mark = Mark(self.capture, inventory.cluster, inventory.node, folder)
        self._told = self._mark.read(self._writer.epoch, len(KERNEL_LOSSES))
        self._listeners_told = 0
        for old in replaced:
            self._replace(old, maps, state)
        due = time.monotonic()
        settled: float | None = None
        """When what was counted until the last swap may be attributed."""
        snapshot_due = due + _SNAPSHOT_SECONDS
        seen: object = None
        while not self.stop.is_set():
            self._answers.listen()
            pods = maps.pod_names().keys()
            changes = self.look()
            if (self._look(), pods, changes, state.ids()) != seen:
                self._reconcile(enforcer)
                # The pods as of before: one that came meanwhile is seen next time.
                seen = (self._inventory, pods, changes, state.ids())
            if settled is None and time.monotonic() >= due:
                self._reconcile(enforcer)  # rules expire
                maps.swap()
                settled = time.monotonic() + self.settle
                due = max(due + self.interval, time.monotonic())
            if settled is not None and time.monotonic() >= settled:
                self._drain(maps, state)
                settled = None
            if time.monotonic() >= snapshot_due:
                self._unregistered = self._register(maps)
                snapshot_due += _SNAPSHOT_SECONDS
            awaited = due if settled is None else settled
            self.stop.wait(min(_LOOK_SECONDS, max(awaited - time.monotonic(), 0.0)))
            if self._signalled:
                self.stop.set()
        self._look()
        if settled is not None:
            self._drain(maps, state)
        self._drain(maps, state)

    def _replace(self, old: Path, maps: NodeMaps, state: State) -> None:
        """End programs of another version, enforcing until now; write what they counted."""
        self._take_over(old, maps)
        ours = self._mark
        self._mark = Mark(self.capture, self._inventory.cluster, self._inventory.node, old)
        self._told = self._mark.read(self._writer.epoch, len(KERNEL_LOSSES))
        try:
            with NodeMaps(old) as before:
                # The pair that an earlier recorder left, and the pair in use.
                for _ in range(_DRAINS_OF_REPLACED):
                    self._drain(before, state)
        except (PortforgeError, OSError):
            now = datetime.now(UTC)
            loss = (LossReason.PROGRAMS_REPLACED, min(self._told.at, now), now, 1)
            lost = loss_table(self._inventory.node, [loss])
            self._writer.add(FLOW_SCHEMA.empty_table(), lost, maps.config()["epoch"])
        remove(old)
        self._told = Told(datetime.now(UTC), maps.losses())
        self._mark = ours
        self._mark.durable = self._told

    def _take_over(self, old: Path, maps: NodeMaps) -> None:
        """Let the new programs count instead of the old, then detach those, which takes longer.

        What both counted until now is in the old maps. Between the two lines that matter lie
        some ten microseconds; what happens then may be counted twice. The new intervals are
        numbered after the old: one with the number of the last written would pass for it.
        """
        with suppress(PortforgeError, OSError), NodeMaps(old) as before:
            theirs = before.config()
            active = theirs["active"] & 1
            with maps.alone():
                ours = maps.config()
                last = max(ours["epoch"], theirs["epoch"] + _DRAINS_OF_REPLACED)
                maps.configure(active=1 - ours["active"], epoch=last + 1)
                before.configure(active=active | _HALTED)
            detach(old)
            before.configure(active=active)
            maps.drained()
            return
        detach(old)  # of another layout
        with maps.alone():
            maps.configure(epoch=max(maps.config()["epoch"], self._writer.epoch or 0))
        maps.drain()
        maps.drained()

    def _register(self, maps: NodeMaps) -> PortforgeError | None:
        return register(maps, self.kubepods).problem if self.snapshot else None

    def _look(self) -> Inventory:
        """Read the inventory again; keep the last one when it cannot be read."""
        try:
            inventory = self.source.inventory()
            if inventory is not self._inventory:
                now = {pod.uid for pod in inventory.pods}
                self._departed |= {p.uid: p for p in self._inventory.pods if p.uid not in now}
                for uid in now & self._departed.keys():
                    del self._departed[uid]
            self._inventory = inventory
            self._unread = None
        except PortforgeError as problem:
            self._unread = problem
        return self._inventory

    def _reconcile(self, enforcer: Enforcer) -> None:
        """Make the kernel agree; what is enforced stays when the policies cannot be read.

        A pod that still runs keeps its policy though the inventory has it no longer: the API
        server forgets a pod that is deleted by force before its containers end.
        """
        try:
            inventory = self._inventory
            if self._departed:
                names, ended = enforcer.maps.pod_names(), enforcer.maps.ended()
                alive = {pod_uid(name) for cgroup, name in names.items() if cgroup not in ended}
                kept = [p for p in self._departed.values() if p.uid in alive]
                inventory = replace(inventory, pods=(*kept, *inventory.pods))
            self._applied = enforcer.reconcile(inventory)
            self._unapplied = None
        except PortforgeError as problem:
            self._unapplied = problem
        except OSError as error:
            self._unapplied = HostError(
                f"the policies are not in force ({error.strerror or error})",
                place=str(enforcer.state.folder),
                remedy="it is tried again by itself; see: portforge doctor",
            )

    def _drain(self, maps: NodeMaps, state: State) -> None:
        begun = time.monotonic()
        drained = maps.drain()
        boot = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        now = datetime.now(UTC)
        if drained.epoch == self._writer.epoch:
            # An earlier recorder wrote this pair and died before it cleared it.
            drained = Drained(drained.epoch, drained.keys[:0], drained.values[:0])
        rules = {
            (known.policy, number): rule
            for known in state.known().values()
            for number, rule in enumerate(known.rules, start=1)
        }
        self._answers.listen()
        flows, unattributed = attribute(
            drained.keys,
            drained.values,
            self._listening(maps, boot),
            maps.pod_names(),
            replace(self._inventory, pods=(*self._departed.values(), *self._inventory.pods)),
            rules,
            (time.time_ns() - boot) // 1000,
            boot,
            self._inventory.node,
            partial(self._answers.names.of, now=boot),
        )
        told = Told(now, maps.losses())
        losses = self._losses(told, unattributed, flows.num_rows)
        self._mark.write(drained.epoch, told)
        self._writer.add(flows, losses, drained.epoch)
        maps.drained()
        self._told = told
        if self._writer.epoch == drained.epoch:
            self._mark.durable = told
        self._forget_dead(maps, boot)
        self._forget_departed(maps)
        self.on_drain(Drain(flows, losses, time.monotonic() - begun, self._answers.heard()))
        self.on_tick(
            Tick(
                now,
                flows.num_rows,
                int(drained.values["connections"].sum()),
                sum(losses.column("count").to_pylist()),
                self._applied.pods,
                self._writer.problem
                or self._unread
                or self._unapplied
                or self._unregistered
                or self._not_enforcing(maps),
                self._unapplied,
            )
        )

    def _not_enforcing(self, maps: NodeMaps) -> HostError | None:
        """What only the kernel shows: programs that are gone, pods that nobody knows."""
        if not maps.intact():
            return HostError(
                "the programs are not attached any more: nothing is recorded or enforced",
                place=str(maps.folder),
                remedy="start the recorder again; in a cluster delete this node's agent pod",
            )
        for pod in self._applied.unknown:
            if pod.seconds > _UNKNOWN_SECONDS:
                return HostError(
                    f"pod {pod.uid} is denied since {pod.seconds:.0f} s: nobody knows it",
                    place=f"{len(self._applied.unknown)} pods wait to be known",
                    remedy="is the API server away, or was the pod made without it?",
                )
        return None

    def _listening(self, maps: NodeMaps, boot: int) -> tuple[Rows, Rows]:
        """The listeners, once a minute and at the end, as of the time they were last told."""
        keys, values = maps.read("listeners")
        told = self._listeners_told
        if told and boot - told < _LISTENER_SECONDS * 1e9 and not self.stop.is_set():
            return keys[:0], values[:0]
        self._listeners_told = boot
        values = values.copy()
        values["since_ns"] = np.maximum(values["since_ns"], told or boot)
        return keys, values

    def _losses(self, told: Told, unattributed: int, rows: int) -> pa.Table:
        """Rows for what the kernel and attribution lost since the last drain."""
        # A clock that was set back must not make an interval that no reader takes.
        since, now = min(self._told.at, told.at), told.at
        found = [
            (reason, since, now, after - earlier)
            for reason, earlier, after in zip(
                KERNEL_LOSSES, self._told.losses, told.losses, strict=True
            )
            if after > earlier
        ]
        if unattributed:
            found.append((LossReason.UNATTRIBUTED, since, now, unattributed))
        if rows and getattr(self.source, "age", 0.0) > _STALE_SECONDS:
            found.append((LossReason.IDENTITY_STALE, since, now, rows))
        if now - since > timedelta(seconds=2 * self.interval + self.settle + 1):
            down = int((now - since).total_seconds())
            found.append((LossReason.RECORDER_DOWN, since, now, down))
        return loss_table(self._inventory.node, found)

    def _forget_departed(self, maps: NodeMaps) -> None:
        """Pods that ran elsewhere: their address may be another's, once their rows are written."""
        here = {pod_uid(name) for name in maps.pod_names().values()}
        for uid in self._departed_before - here:
            self._departed.pop(uid, None)
        self._departed_before = set(self._departed)

    def _forget_dead(self, maps: NodeMaps, boot: int) -> None:
        """Take pods out that ended two drains ago: their last rows are written."""
        keys, values = maps.read("pod_names")
        long_ago = boot - int(2 * self.interval * 1e9)
        dead = {
            int(k)
            for k, v in zip(keys, values, strict=True)
            if v["died_ns"] and v["died_ns"] < long_ago
        }
        if not dead:
            return
        for cgroup, name in maps.pod_names().items():
            if cgroup in dead:
                self._departed.pop(pod_uid(name) or "", None)
        self._answers.names.forget(dead)
        for cgroup in dead:
            maps.remove("pods", cgroup)
            maps.remove("pod_names", cgroup)
        for name, field_ in (("listeners", "cgroup"), ("namespaces", None)):
            keys, values = maps.read(name)
            for key, value in zip(keys, values, strict=True):
                if int(key[field_] if field_ else value) in dead:
                    maps.remove(name, key.tobytes())
