"""What the programs cost the traffic of pods: the same traffic on nodes with and without them.

Every arm is a node of its own with a client pod and a server pod, all standing at once; each
round makes every kind of traffic on every arm, in short turns right after one another.
``no programs, again`` is a second node without programs: how far its ratio lies from 1 is the
noise. A speed is operations per second of processor time of both pods (``cpu.stat`` of their
cgroups), which does not count what other processes or other virtual machines took. Softirqs are
in it where they run in the pods' processes, as they do between veths. Run as root::

    python tests/bench/overhead.py
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from portforge.apply import libbpf
from portforge.demo.pods import Node, Pod
from portforge.policy import PortPolicy
from portforge_recorder.load import CGROUP_PROGRAMS, TRACEPOINTS
from tests.bench.traffic import PORTS
from tests.kernel.bed import Bed, make_bed
from tests.kernel.enforcing import policy, rule

BARE = "no programs"
ARMS = (BARE, "no programs, again", "recording", "enforcing 30 rules")
UNITS = {
    "tcp_rr": ("TCP, 1 byte there and back", "round trips/s", 1.0),
    "tcp_bulk": ("TCP, as many bytes as go", "MB/s", 1e6),
    "tcp_crr": ("TCP, connect and close", "connections/s", 1.0),
    "udp_rr": ("UDP, 1 byte there and back", "round trips/s", 1.0),
}
PER = {"tcp_rr": "round trip", "tcp_bulk": "MB", "tcp_crr": "connection", "udp_rr": "round trip"}
STATS = Path("/proc/sys/kernel/bpf_stats_enabled")
_TRAFFIC = str(Path(__file__).with_name("traffic.py"))


class Pair:
    """A client and a server in two pods of a node; the programs' pins where it has any."""

    def __init__(self, node: Node, cores: tuple[int, int], bed: Bed | None) -> None:
        self.bed = bed
        self.server = node.pod("t", "Deployment", "server")
        self.client = node.pod("t", "Deployment", "client")
        serving = _start(self.server, "serve", str(cores[0]))
        assert serving.stdout
        assert serving.stdout.readline() == "ready\n"
        self._asking = _start(self.client, "ask", str(cores[1]), self.server.address)

    def ask(self, kind: str, seconds: float = 0) -> Any:
        """What the client says to one order."""
        assert self._asking.stdin
        assert self._asking.stdout
        self._asking.stdin.write(json.dumps({"kind": kind, "seconds": seconds}) + "\n")
        self._asking.stdin.flush()
        line = self._asking.stdout.readline()
        if not line:
            raise SystemExit(f"the client died during {kind}")
        return json.loads(line)

    def work(self, kind: str, seconds: float, wall: bool) -> tuple[float, float]:
        """Operations, and the seconds they took: of processor time, or by the clock."""
        before = self._used()
        everything, done, took = self.ask(kind, seconds)
        return (done, took) if wall else (everything, self._used() - before)

    def _used(self) -> float:
        """Seconds of processor time that the two pods have had."""
        used = 0
        for pod in (self.server, self.client):
            used += int((pod.cgroup_path / "cpu.stat").read_text().split()[1])
        return used / 1e6


def _start(pod: Pod, *words: str) -> subprocess.Popen[str]:
    return pod.run(
        [sys.executable, "-I", "-S", "-u", _TRAFFIC, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def policies() -> list[PortPolicy]:
    """30 rules for each of the two pods, 15 TCP and 15 UDP, each with a workload and a CIDR."""

    def rules(peer: str) -> list[dict[str, Any]]:
        who = {"namespace": "t", "kind": "Deployment", "name": peer}
        peers = ({"workload": who}, {"cidr": "192.0.2.0/24"})
        return [
            rule(protocol, port, peers=peers)
            for protocol in ("TCP", "UDP")
            for port in range(7001, 7016)
        ]

    return [
        policy("client", egress=rules("server")),
        policy("server", ingress=rules("client")),
    ]


@contextmanager
def arms(cores: tuple[int, int]) -> Iterator[dict[str, Pair]]:
    """All arms, standing at once; each does what it says, which is tried before."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pairs = {}
        for number, arm in enumerate(ARMS):
            node = stack.enter_context(Node(f"bench-{os.getpid()}-{number}"))
            bed = None
            if not arm.startswith(BARE):
                own = folder / str(number)
                own.mkdir()
                bed = stack.enter_context(make_bed(own, node))
            pairs[arm] = Pair(node, cores, bed)
            if bed and arm.startswith("enforcing"):
                bed.enforce(*policies())
            wanted = "PermissionError" if arm.startswith("enforcing") else "ConnectionRefusedError"
            if (got := pairs[arm].ask("refused")) != wanted:
                raise SystemExit(f"{arm}: a port without a rule gave {got}, not {wanted}")
            if bed and not bed.flows():
                raise SystemExit(f"{arm}: nothing was recorded")
        yield pairs


def measure(
    pairs: dict[str, Pair], rounds: int, turns: int, seconds: float, wall: bool
) -> dict[str, dict[str, list[float]]]:
    """Speeds by kind and arm, one per round. The arm that begins changes from turn to turn."""
    speeds: dict[str, dict[str, list[float]]] = {k: {a: [] for a in ARMS} for k in PORTS}
    for number in range(rounds):
        for kind in PORTS:
            sums = dict.fromkeys(ARMS, (0.0, 0.0))
            for turn in range(turns):
                first = (number + turn) % len(ARMS)
                for arm in ARMS[first:] + ARMS[:first]:
                    done, took = pairs[arm].work(kind, seconds, wall)
                    sums[arm] = (sums[arm][0] + done, sums[arm][1] + took)
            for arm, (done, took) in sums.items():
                speeds[kind][arm].append(done / took)
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return speeds


def show(speeds: dict[str, dict[str, list[float]]]) -> None:
    """One table for each kind of traffic."""
    for kind, by_arm in speeds.items():
        title, unit, scale = UNITS[kind]
        print(f"\n### {title}\n")
        print(f"| arm | {unit}, median | of no programs: min – median – max | µs per {PER[kind]} |")
        print("|---|---:|---:|---:|")
        bare = median(by_arm[BARE])
        for arm, found in by_arm.items():
            ratios = [a / b for a, b in zip(found, by_arm[BARE], strict=True)]
            middle = median(ratios)
            more = scale * 1e6 / bare * (1 / middle - 1)
            print(
                f"| {arm} | {median(found) / scale:,.0f} | "
                + ("1 | |" if arm == BARE else f"{_spread(ratios)} | {more:+.2f} |")
            )


def _spread(ratios: list[float]) -> str:
    return f"{min(ratios):.3f} – {median(ratios):.3f} – {max(ratios):.3f}"


@contextmanager
def kernel_statistics() -> Iterator[None]:
    """The kernel times every run of every program meanwhile."""
    before = STATS.read_text()
    STATS.write_text("1")
    try:
        yield
    finally:
        STATS.write_text(before)


def run_times(pins: Path) -> dict[str, tuple[int, int]]:
    """Runs and nanoseconds of every program since it was loaded."""
    found = {}
    for name in (*CGROUP_PROGRAMS, *TRACEPOINTS):
        with libbpf.opened(pins / "programs" / name) as fd:
            lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines)
        found[name] = (int(fields["run_cnt"]), int(fields["run_time_ns"]))
    return found


def show_run_times(pairs: dict[str, Pair], seconds: float) -> None:
    """Per kind and arm: how often each program ran for one operation, and how long a run took."""
    print("\n### Time in each program, by the kernel's own statistics\n")
    print("| traffic | arm | program | runs per operation | ns per run |")
    print("|---|---|---|---:|---:|")
    with kernel_statistics():
        for kind in PORTS:
            for arm, pair in pairs.items():
                if not pair.bed:
                    continue
                before = run_times(pair.bed.maps.folder)
                operations = pair.ask(kind, seconds)[0] / UNITS[kind][2]
                for name, (runs, ns) in run_times(pair.bed.maps.folder).items():
                    runs, ns = runs - before[name][0], ns - before[name][1]
                    # What ran a few times belongs to the start of the measurement.
                    if runs > 100 and runs / operations > 0.01:
                        each = f"{runs / operations:.2f} | {ns / runs:.0f}"
                        print(f"| {kind} per {PER[kind]} | {arm} | `{name}` | {each} |")


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=11, help="rounds, at least 7 (default 11)")
    parser.add_argument("--turns", type=int, default=5, help="of each arm in a round (default 5)")
    parser.add_argument("--seconds", type=float, default=0.1, help="of a turn (default 0.1)")
    parser.add_argument(
        "--wall", action="store_true", help="speeds by the clock, not by processor time"
    )
    parser.add_argument(
        "--cores",
        default="1,1",
        help="of server and client (default 1,1: on one core what counts is processor time, "
        "not how fast a virtual machine wakes an idle core)",
    )
    asked = parser.parse_args()
    if asked.rounds < 7:
        parser.error("--rounds: fewer than 7 say nothing")
    server, client = (int(core) for core in asked.cores.split(","))
    with arms((server, client)) as pairs:
        print(
            f"{asked.rounds} rounds of {asked.turns} turns of {asked.seconds} s, "
            f"cores {server} and {client}, "
            f"{'by the clock' if asked.wall else 'by processor time of both pods'}"
        )
        show(measure(pairs, asked.rounds, asked.turns, asked.seconds, asked.wall))
        show_run_times(pairs, max(asked.seconds, 0.5))


if __name__ == "__main__":
    main()
