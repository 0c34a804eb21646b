"""The recorder as a process: it may be ended at any moment, and the kernel goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from portforge.apply.node import NodeMaps, find_pins
from portforge.apply.state import State
from portforge.capture import open_capture
from portforge.demo.pods import Node, Pod
from portforge.policy import Mode, PortPolicy, Rule, approve
from portforge.schema import Protocol, Workload
from portforge_recorder.load import remove, versions

from .talk import TCP_CLIENT, TCP_SERVER, TRY, UDP_CLIENT, UDP_SERVER, UNREADABLE, client, start

INSIDE = Path(__file__).with_name("recorder_inside.py")
PACED = TCP_CLIENT.replace("    c.close()", "    c.close(); time.sleep(float(sys.argv[7]))")
PACED = PACED.replace("import socket, sys", "import socket, sys, time")


class Place:
    """A node with two pods, and recorders that are started on it."""

    def __init__(self, node: Node, folder: Path) -> None:
        self.node, self.folder, self.capture = node, folder, folder / "capture"
        self.asks = node.pod("t", "Deployment", "asks")
        self.answers = node.pod("t", "Deployment", "answers")
        node.write_inventory(folder / "inventory.yaml")
        self.ticks = folder / "ticks"
        self.running: list[subprocess.Popen[str]] = []

    def recorder(
        self,
        interval: float,
        die: str | None = None,
        capture: Path | None = None,
        flows: int = 65536,
    ) -> subprocess.Popen[str]:
        """Start one; returns before it records."""
        self.ticks.write_text("")
        words = [
            self.folder / "inventory.yaml",
            capture or self.capture,
            self.node.kubepods,
            self.folder / "state",
            interval,
            self.ticks,
            flows,
            *([die] if die else []),
        ]
        process = subprocess.Popen(
            [sys.executable, str(INSIDE), *map(str, words)], stderr=subprocess.PIPE, text=True
        )
        self.running.append(process)
        return process

    def told(self) -> list[dict[str, Any]]:
        """What the last recorder said at each drain."""
        return [json.loads(line) for line in self.ticks.read_text().splitlines()]

    def enforce(self) -> None:
        """Only TCP 7000 may come in to ``answers``."""
        policy = PortPolicy(
            namespace="t",
            name="deployment-answers",
            workload=Workload("t", "Deployment", "answers"),
            mode=Mode.ENFORCE,
            ingress=(Rule(id="in-tcp-7000", protocol=Protocol.TCP, port=7000),),
        )
        State(self.node.name, self.folder / "state").change(
            [approve(policy, "tester", datetime.now(UTC))]
        )

    def knock(self, port: int) -> str:
        """What a connection from ``asks`` to ``answers`` comes to."""
        return client(self.asks, TRY, self.answers.address, port, "tcp", 0.2)

    def total(self, pod: Pod, direction: str, port: int, verdict: str = "allowed") -> list[int]:
        """Connections, bytes sent and received of ``pod`` in the capture."""
        flows = open_capture(self.capture).flows()
        mine = (flows.pod == pod.name) & (flows.direction == direction) & (flows.port == port)
        columns = ["connections", "bytes_sent", "bytes_received"]
        return [int(n) for n in flows[mine & (flows.verdict == verdict)][columns].sum()]

    def losses(self) -> pd.DataFrame:
        """Loss rows, without what other nodes on this machine did."""
        lost = open_capture(self.capture).losses()
        return lost[lost.reason != "unplaced"]


@contextmanager
def make_place(name: str, folder: Path) -> Iterator[Place]:
    """A place whose recorders end and whose pins go, also after a failure."""
    with Node(f"{name}-{os.getpid()}") as node:
        ready = Place(node, folder)
        try:
            yield ready
        finally:
            for process in ready.running:
                process.kill()
                process.communicate(timeout=10)
            for pins in versions(node.name):
                remove(pins)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with make_place("agent", tmp_path) as ready:
        yield ready


def until(holds: Callable[[], object], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def end(process: subprocess.Popen[str]) -> None:
    """SIGTERM, and it must end well and soon."""
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=5) == 0


def links(node: Node) -> dict[str, int]:
    """Link ids by the name of their pin."""
    found: dict[str, int] = {}
    for pin in sorted((find_pins(node.name) / "links").iterdir()):
        said = subprocess.check_output(["bpftool", "-j", "link", "show", "pinned", str(pin)])
        found[pin.name] = json.loads(said)["id"]
    return found


def test_sigterm_flushes_everything_into_a_readable_capture(place: Place) -> None:
    start(place.answers, TCP_SERVER, "::", 7000, 3, 5, "client")
    process = place.recorder(interval=60)
    until(place.told)
    start(place.answers, UDP_SERVER, "0.0.0.0", 53, 7)
    client(place.asks, TCP_CLIENT, place.answers.address, 7000, 23, 3, 5, "client")
    client(place.asks, UDP_CLIENT, place.answers.address, 53, 101, 1, 11, 7, 0)
    time.sleep(0.1)
    end(process)
    assert place.total(place.asks, "egress", 7000) == [23, 69, 115]
    assert place.total(place.answers, "ingress", 7000) == [23, 115, 69]
    assert place.total(place.asks, "egress", 53) == [101, 1111, 707]
    assert place.total(place.answers, "ingress", 53) == [101, 707, 1111]
    flows = open_capture(place.capture).flows()
    listening = flows[flows.verdict == "listening"]
    assert {(p, n) for p, n in zip(listening.protocol, listening.port, strict=True)} == {
        ("TCP", 7000),
        ("UDP", 53),
    }
    assert place.losses().empty
    assert not list(place.capture.rglob("*.tmp"))


def test_killed_mid_traffic_it_loses_nothing_and_enforcement_goes_on(place: Place) -> None:
    start(place.answers, TCP_SERVER, "::", 7000, 3, 5, "client")
    start(place.answers, TCP_SERVER, "::", 7001, 0, 1, "server")
    place.enforce()
    process = place.recorder(interval=0.1)
    until(place.told)
    before = links(place.node)
    traffic = place.asks.run(
        place.asks.python_command(
            PACED, place.answers.address, "7000", "10007", "3", "5", "client", "0.0002"
        )
    )
    until(lambda: sum(t["connections"] for t in place.told()) > 500)
    process.kill()
    process.wait()
    died = time.monotonic()
    assert traffic.poll() is None
    assert place.knock(7001) == "TIMEOUT"
    client(place.asks, TCP_CLIENT, place.answers.address, 7000, 101, 3, 5, "client")
    time.sleep(max(0.0, 1.3 - (time.monotonic() - died)))

    process = place.recorder(interval=0.1)
    until(place.told)
    assert links(place.node) == before
    assert place.knock(7001) == "TIMEOUT"
    client(place.asks, TCP_CLIENT, place.answers.address, 7000, 23, 3, 5, "client")
    assert traffic.wait(timeout=90) == 0
    time.sleep(0.1)
    end(process)
    n = 10007 + 101 + 23
    assert place.total(place.asks, "egress", 7000) == [n, 3 * n, 5 * n]
    assert place.total(place.answers, "ingress", 7000) == [n, 5 * n, 3 * n]
    assert place.total(place.answers, "ingress", 7001, "denied") == [2, 0, 0]
    lost = place.losses()
    assert lost["reason"].tolist() == ["recorder_down"]
    down = lost["interval_end"] - lost["interval_start"]
    assert down.min() >= pd.Timedelta(seconds=1.3)
    assert lost["count"].tolist() == [int(down.iloc[0].total_seconds())]


def test_killed_at_any_step_of_a_drain_it_neither_loses_nor_doubles(place: Place) -> None:
    start(place.answers, TCP_SERVER, "::", 7000, 3, 5, "client")
    n = 0

    def ask() -> int:
        client(place.asks, TCP_CLIENT, place.answers.address, 7000, 23, 3, 5, "client")
        client(place.asks, UNREADABLE, place.answers.address6)
        return 23

    for die in ("before writing", "before clearing", "half cleared", "after clearing"):
        process = place.recorder(interval=0.3, die=die)
        # The first waits for traffic; the others die of what the one before them left.
        if not n:
            until(place.told)
            n += ask()
        assert process.wait(timeout=10) == -signal.SIGKILL
        n += ask()
    process = place.recorder(interval=0.1)
    until(lambda: len(place.told()) > 2)
    end(process)
    assert place.total(place.asks, "egress", 7000) == [n, 3 * n, 5 * n]
    assert place.total(place.answers, "ingress", 7000) == [n, 5 * n, 3 * n]
    assert place.losses().groupby("reason")["count"].sum()["unparsed"] == n // 23


def test_another_version_takes_over_what_the_old_one_counted_and_enforces(place: Place) -> None:
    start(place.answers, TCP_SERVER, "::", 7000, 3, 5, "client")
    start(place.answers, TCP_SERVER, "::", 7001, 0, 1, "server")
    place.enforce()
    process = place.recorder(interval=60)
    until(place.told)
    old = versions(place.node.name)
    client(place.asks, TCP_CLIENT, place.answers.address, 7000, 23, 3, 5, "client")
    process.kill()
    process.wait()
    # As after a clock that was set back: the new programs would number their intervals lower.
    with NodeMaps(old[0]) as before:
        before.configure(epoch=before.config()["epoch"] + 1000)
        ahead = before.config()["epoch"]
    traffic = place.asks.run(
        place.asks.python_command(
            PACED, place.answers.address, "7000", "701", "3", "5", "client", "0.005"
        )
    )
    process = place.recorder(interval=60, flows=32768)
    until(lambda: len(versions(place.node.name)) == 2)
    while len(versions(place.node.name)) == 2:
        assert place.knock(7001) == "TIMEOUT"
    (new,) = versions(place.node.name)
    assert [new] != old
    with NodeMaps(new) as after:
        # What was drained last of the old had number ahead + 2.
        assert after.config()["epoch"] > ahead + 2
    assert traffic.wait(timeout=90) == 0
    assert place.knock(7001) == "TIMEOUT"
    time.sleep(0.1)
    end(process)
    n = 23 + 701
    for pod, direction in ((place.asks, "egress"), (place.answers, "ingress")):
        # The one connection that may be open at the very moment may be counted by both.
        assert place.total(pod, direction, 7000)[0] - n in (0, 1)
    assert place.losses().empty


def test_a_disk_that_takes_nothing_stops_neither_enforcement_nor_counting(place: Place) -> None:
    start(place.answers, TCP_SERVER, "::", 7000, 3, 5, "client")
    start(place.answers, TCP_SERVER, "::", 7001, 0, 1, "server")
    place.enforce()
    place.capture.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place.capture)], check=True
    )
    try:
        process = place.recorder(interval=0.1)
        until(place.told)
        (place.capture / "full").touch()
        fill = ["dd", "if=/dev/zero", f"of={place.capture / 'full'}", "bs=4096"]
        assert b"No space left" in subprocess.run(fill, capture_output=True, check=False).stderr
        client(place.asks, TCP_CLIENT, place.answers.address, 7000, 23, 3, 5, "client")
        until(lambda: place.told()[-1]["problem"])
        assert "No space left" in place.told()[-1]["problem"]
        assert place.knock(7001) == "TIMEOUT"
        assert place.knock(7000) == "OK"
        (place.capture / "full").unlink()
        until(lambda: not place.told()[-1]["problem"])
        end(process)
        assert place.total(place.asks, "egress", 7000)[0] == 24
        assert place.total(place.answers, "ingress", 7001, "denied") == [1, 0, 0]
        assert place.losses().empty
    finally:
        for one in place.running:
            one.kill()
            one.wait()
        subprocess.run(["umount", str(place.capture)], check=True)

    # And where the capture cannot be at all, the recorder says so; what was enforced stays.
    (place.folder / "file").write_text("")
    process = place.recorder(interval=0.1, capture=place.folder / "file")
    _, said = process.communicate(timeout=10)
    assert process.returncode == 2
    assert str(place.folder / "file") in said
    assert "Traceback" not in said
    assert place.knock(7001) == "TIMEOUT"
    assert place.knock(7000) == "OK"
