"""Every metric of the agent, defined once. Serving them is :mod:`portforge_recorder.serve`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from portforge import __version__
from portforge.apply import layout, libbpf
from portforge.apply.node import NodeMaps
from portforge.errors import PortforgeError
from portforge.policy import Mode
from portforge.schema import LossReason, Verdict
from portforge_recorder.agent import Drain, Tick
from portforge_recorder.in_force import Decision

__all__ = ["Metrics"]

_MAPS = ("pods", "pod_names", "addresses", "listeners", "rules", "peers")
"""Maps that can fill up, beside the flow maps: those are emptied at every drain."""
_STATS = Path("/proc/sys/kernel/bpf_stats_enabled")
_DRAIN_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """A registry of its own; no metric of the process or of Python."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._lost = 0

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"portforge_{name}", text, labels, registry=self.registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"portforge_{name}", text, labels, registry=self.registry)

        self.info = gauge(
            "agent_info", "Version of the agent and its programs", "version", "programs"
        )
        self.events = counter("events", "Connections, flows and attempts that the kernel counted")
        self.rows = counter("rows", "Rows written into the capture")
        self.connections = counter("connections", "Connections by verdict", "verdict")
        self.losses = counter("losses", "What the capture lacks; see the loss record", "reason")
        self.answers = counter(
            "dns_answers",
            "DNS answers to pods; dropped: the ring was full",
            "outcome",
        )
        self.drain = Histogram(
            "portforge_drain_seconds",
            "Reading, attributing and writing one interval",
            registry=self.registry,
            buckets=_DRAIN_BUCKETS,
        )
        self.entries = gauge("map_entries", "Entries of a kernel map", "map")
        self.capacity = gauge("map_capacity", "Entries that a kernel map takes", "map")
        self.ns_per_run = gauge(
            "program_ns_per_run", "Mean; only where kernel.bpf_stats_enabled is 1", "program"
        )
        self.runs = gauge(
            "program_runs_total", "Runs; only where kernel.bpf_stats_enabled is 1", "program"
        )
        self.synced = gauge("watch_synced", "Whether a collection was read", "resource")
        self.age = gauge(
            "watch_age_seconds", "Since the API server's last word about it", "resource"
        )
        self.policies = gauge("policies", "Policies by the mode in force here", "mode")
        self.pods = gauge("policy_pods", "Pods by the mode in force, as the kernel has it", "mode")
        self.not_in_force = gauge(
            "policies_not_in_force", "Policies that ask for Enforce and do not get it here"
        )
        self.canary = gauge("canary_age_seconds", "Since the canary was recorded")
        self.break_glass = gauge("break_glass", "1 while a BreakGlass lifts enforcement here")
        self.shipped = counter("ship_files", "Files brought into the object store")
        self.ship_pending = gauge("ship_pending_files", "Files that the object store lacks")
        self.ship_age = gauge("ship_age_seconds", "Of the oldest file that the object store lacks")
        for outcome in ("read", "unreadable", "dropped"):
            self.answers.labels(outcome)
        for reason in LossReason:
            self.losses.labels(reason.value)
        for verdict in Verdict:
            self.connections.labels(verdict.value)

    def drained(self, drain: Drain) -> None:
        """One drain was written."""
        self.drain.observe(drain.seconds)
        self.rows.inc(drain.flows.num_rows)
        counted = drain.flows.select(["verdict", "connections"])
        counted = counted.set_column(0, "verdict", counted.column(0).cast(pa.string()))
        for row in counted.group_by("verdict").aggregate([("connections", "sum")]).to_pylist():
            self.connections.labels(row["verdict"]).inc(row["connections_sum"])
        heard = drain.heard
        self.answers.labels("read").inc(heard.read - heard.unreadable)
        self.answers.labels("unreadable").inc(heard.unreadable)
        self.answers.labels("dropped").inc(heard.dropped)
        for row in drain.losses.to_pylist():
            self.losses.labels(row["reason"]).inc(row["count"])
            if row["reason"] != LossReason.RECORDER_DOWN:
                self._lost += row["count"]

    def ticked(self, tick: Tick) -> None:
        """One drain was counted."""
        self.events.inc(tick.connections)

    def decided(self, decision: Decision) -> None:
        """What is in force was decided."""
        for mode in Mode:
            self.policies.labels(mode.value).set(sum(s.mode is mode for s in decision.states))
        self.not_in_force.set(sum(s.short_of_enforce for s in decision.states))
        self.break_glass.set(decision.break_glass is not None)

    def watched(self, resource: str, synced: bool, age: float) -> None:
        """How a watch stands."""
        self.synced.labels(resource).set(synced)
        self.age.labels(resource).set(age)

    def kernel(self, folder: Path) -> None:
        """Read how full the maps are, and what the programs cost where the kernel counts it.

        Counting costs some 20 ns a run: it is for whoever runs the node to switch on.
        """
        self.info.clear()
        self.info.labels(__version__, folder.name).set(1)
        with suppress(PortforgeError, OSError), NodeMaps(folder) as maps:
            for name in _MAPS:
                keys, values = maps.read(name)
                self.entries.labels(name).set(len(keys))
                self.capacity.labels(name).set(libbpf.map_capacity(maps.fd(name)))
                if name == "pods":
                    self._pods(values)
        with suppress(OSError):
            self._programs(folder / "programs", _STATS.read_text().strip() == "1")

    def _pods(self, values: np.ndarray) -> None:
        for mode in layout.Mode:
            under = (values["policy"] > 0) & (values["mode"] == mode)
            self.pods.labels(mode.name.capitalize()).set(int(under.sum()))

    def _programs(self, programs: Path, counted: bool) -> None:
        self.ns_per_run.clear()
        self.runs.clear()
        for pin in sorted(programs.iterdir()) if counted else ():
            with libbpf.opened(pin) as fd:
                spent, runs = libbpf.program_runs(fd)
            self.runs.labels(pin.name).set(runs)
            if runs:
                self.ns_per_run.labels(pin.name).set(spent / runs)

    def losses_so_far(self) -> int:
        """What was lost since the agent started; not the seconds that no recorder ran."""
        return self._lost
