"""The DaemonSet's main process: identity, policies, the recorder, the report and HTTP, together.

The recorder's loop runs in the main thread and decides; every other thread only tells or serves,
and may fail without ending what is enforced.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pythonjsonlogger.json import JsonFormatter

from portforge import __version__
from portforge.apply import libbpf
from portforge.apply.node import find_pins
from portforge.apply.state import State
from portforge.errors import PortforgeError
from portforge_recorder.agent import Drain, Recorder, Tick
from portforge_recorder.canary import STALE, Canary
from portforge_recorder.in_force import MOST_DENIALS
from portforge_recorder.kubernetes import KubernetesSource
from portforge_recorder.lease import Lease
from portforge_recorder.load import CGROUP_PROGRAMS
from portforge_recorder.metrics import Metrics
from portforge_recorder.policies import ClusterPolicies
from portforge_recorder.remembered import RememberedSource
from portforge_recorder.report import Aggregator, Reporter, policy_entries, stamp
from portforge_recorder.serve import Readers, Server
from portforge_recorder.ship import Shipper

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

__all__ = ["Agent", "Settings", "log_as_json"]

_HOUSEKEEPING_SECONDS = 2.0
_KERNEL_SECONDS = 30.0
_KEEP_SECONDS = 60.0
_SETTLE_SECONDS = 3.0
_LOST_SECONDS = 10.0
"""A watch that fails for so long makes the API server lost."""
_log = logging.getLogger("portforge")


@dataclass(frozen=True)
class Settings:
    """What the agent is told when it starts."""

    node: str
    cluster: str
    kubepods: Path
    capture: Path
    state: Path
    namespace: str
    listen: tuple[str, int] = ("", 9464)
    pod_uid: str | None = None
    interval: float = 10.0
    rotate: float = 300.0
    trial_denials: int = MOST_DENIALS
    ship: str | None = None
    keep_hours: float = 0


def log_as_json(level: str = "INFO") -> None:
    """One JSON object a line on stdout: time, level, event, and the event's own fields."""
    handler = logging.StreamHandler(sys.stdout)
    formatter = JsonFormatter(
        ["asctime", "levelname", "message", "name"],
        rename_fields={
            "asctime": "time",
            "levelname": "level",
            "message": "event",
            "name": "logger",
        },
        datefmt="%Y-%m-%dT%H:%M:%SZ",
    )
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def tell(event: str, **fields: Any) -> None:
    """One event of the log; what refuses or fails is a warning."""
    bad = fields.get("problem") is not None
    _log.log(logging.WARNING if bad else logging.INFO, event, extra=fields)


class Agent:
    """One node's agent. ``run`` until SIGTERM.

    Parameters
    ----------
    api: the API server's client; the agent starts and goes on without an answer from it.
    settings: see :class:`Settings`.
    """

    def __init__(self, api: ApiClient, settings: Settings) -> None:
        self.settings, self._api = settings, api
        self.metrics = Metrics()
        self.state = State(settings.node, settings.state)
        self.source = RememberedSource(
            KubernetesSource(api, settings.node, settings.cluster, wait=0), self.state
        )
        self.policies = ClusterPolicies(
            api, settings.node, self.state, most_denials=settings.trial_denials, tell=tell
        )
        self.recorder = Recorder(
            self.source,
            settings.capture,
            settings.kubepods,
            interval=settings.interval,
            settle=_SETTLE_SECONDS,
            max_seconds=settings.rotate,
            state_folder=settings.state,
            snapshot=False,
            adopt_only=True,
            on_tick=self._ticked,
            on_drain=self._drained,
            look=self.policies.look,
        )
        self.server = Server(
            settings.listen,
            self.metrics.registry,
            self.alive,
            self.ready,
            settings.capture,
            Readers(api, settings.namespace),
        )
        self.canary = Canary(self.server.server_port)
        self.shipper = settings.ship and Shipper(
            settings.ship,
            settings.capture,
            settings.node,
            self.state,
            self.metrics,
            settings.keep_hours,
        )
        self._tick: Tick | None = None
        self._tick_at = time.monotonic()
        self._told: dict[str, str] = {}
        self._stop = threading.Event()
        self._lost_since: float | None = None
        self._lost = False
        self._programs = ""

    def run(self) -> None:
        """Start everything, record until told to stop, flush, stop everything.

        Raises
        ------
        PortforgeError: this node cannot be recorded; it says why.
        """
        s = self.settings
        tell(
            "start",
            version=__version__,
            node=s.node,
            cluster=s.cluster,
            kubepods=str(s.kubepods),
            port=self.server.server_port,
        )
        self.recorder.handle_signals()
        with ExitStack() as last:
            self.server.start()
            last.callback(self.server.stop)
            self.policies.start()
            last.callback(self.policies.stop)
            last.callback(self.source.source.stop)
            if not self.source.wait():
                tell("going on without the API server", problem="it has not answered")
            reporter = Reporter(self._api, s.node, self.report)
            aggregator = Aggregator(self._api, Lease(self._api, s.namespace, s.node))
            for loop in (reporter, aggregator):
                loop.start()
                last.callback(loop.stop)
            if self.shipper:
                self.shipper.start()
                last.callback(self.shipper.stop)
            if s.pod_uid:
                self.canary.start()
                last.callback(self.canary.stop)
            house = threading.Thread(target=self._keep_house, name="house", daemon=True)
            house.start()
            last.callback(self._stop.set)
            try:
                self.recorder.run()
            except PortforgeError as problem:
                tell("stopped", problem=str(problem))
                raise
            tell("stopped")

    def alive(self) -> list[str]:
        """Why the loop is taken for dead; empty while it lives."""
        silent, most = time.monotonic() - self._tick_at, 3 * self.settings.interval + 30
        return [f"no drain for {silent:.0f} s"] if silent > most else []

    def ready(self) -> list[str]:
        """Why the agent is not ready; what is enforced does not depend on it."""
        problems = []
        try:
            links = find_pins(self.settings.node) / "links"
            for name in CGROUP_PROGRAMS:
                with libbpf.opened(links / name) as link:
                    if not libbpf.link_attached(link):
                        problems.append(f"{name} is not attached")
        except (PortforgeError, OSError) as problem:
            problems.append(str(problem))
        if self._tick is None:
            problems.append("nothing has been drained yet")
        if not self.source.synced:
            problems.append("the cluster's pods are not known yet")
        if self.settings.pod_uid and self.canary.stale(datetime.now(UTC)):
            minutes = STALE.total_seconds() / 60
            problems.append(f"the canary was not recorded for {minutes:.0f} minutes")
        return problems

    def report(self) -> dict[str, Any]:
        """The status of this node's NodeReport, without the heartbeat."""
        inventory, tick, decision = self.source.last, self._tick, self.policies.decision
        pods = Counter(
            p.workload
            for p in (inventory.pods if inventory else ())
            if p.node == self.settings.node and p.workload and not p.host_network and not p.until
        )
        unapplied = self.policies.problem or (tick.unapplied if tick else None)
        watchers = self.policies.watchers.values()
        return {
            "agent": __version__,
            "programs": self._programs,
            "canary": stamp(self.canary.seen) if self.canary.seen else None,
            "synced": self.source.synced and all(w.synced for w in watchers),
            "losses": self.metrics.losses_so_far(),
            "breakGlass": decision.break_glass.name if decision.break_glass else None,
            "policies": policy_entries(
                decision, self.policies.counts, pods, str(unapplied) if unapplied else ""
            ),
        }

    def _drained(self, drain: Drain) -> None:
        self.policies.count(drain.flows)
        self.metrics.drained(drain)
        inventory = self.source.last
        own = (
            next((p.name for p in inventory.pods if p.uid == self.settings.pod_uid), None)
            if (inventory)
            else None
        )
        self.canary.listen(drain.flows, own)
        losses = Counter[str]()
        for row in drain.losses.to_pylist():
            losses[row["reason"]] += row["count"]
        if losses:
            tell("losses", losses=dict(sorted(losses.items())))
        if drain.heard.dropped:
            tell("names missed", dns_answers_dropped=drain.heard.dropped)

    def _ticked(self, tick: Tick) -> None:
        if self._tick is None:
            self._programs = find_pins(self.settings.node).name
            tell("adopted", programs=self._programs, pods=tick.pods)
        self._tick, self._tick_at = tick, time.monotonic()
        self.metrics.ticked(tick)
        self._problem("recorder", tick.problem)

    def _problem(self, where: str, problem: PortforgeError | None) -> None:
        """Told once, and once when it is over."""
        text, before = str(problem or ""), self._told.get(where, "")
        if text and text != before:
            tell("problem", where=where, problem=text)
        elif before and not text:
            tell("problem is over", where=where, was=before)
        self._told[where] = text

    def _keep_house(self) -> None:
        kernel_due = keep_due = 0.0
        while not self._stop.wait(_HOUSEKEEPING_SECONDS):
            now = time.monotonic()
            try:
                self._watch_watchers()
                self.metrics.decided(self.policies.decision)
                self.metrics.canary.set(self.canary.age(datetime.now(UTC)).total_seconds())
                self._problem("policies", self.policies.problem)
                self._problem("ship", self.shipper.problem if self.shipper else None)
                if now >= kernel_due and self._programs:
                    kernel_due = now + _KERNEL_SECONDS
                    self.metrics.kernel(find_pins(self.settings.node))
                if now >= keep_due:
                    self.source.keep()
                    keep_due = now + _KEEP_SECONDS
            except PortforgeError as problem:
                _log.warning("%s", problem)
            except Exception:
                _log.exception("housekeeping failed; it goes on")

    def _watch_watchers(self) -> None:
        watchers = {**self.source.source.watchers, **self.policies.watchers}
        for name, watcher in watchers.items():
            self.metrics.watched(name, watcher.synced, watcher.age)
        problem = next((w.problem for w in watchers.values() if w.problem), None)
        if problem is None:
            if self._lost:
                tell("API server back")
            self._lost, self._lost_since = False, None
            return
        self._lost_since = self._lost_since or time.monotonic()
        if not self._lost and time.monotonic() - self._lost_since > _LOST_SECONDS:
            self._lost = True
            tell("API server lost", problem=str(problem))
