"""How long a new pod passes unjudged: from its cgroup's making until its first refusal.

A recorder runs its own loop. For each pod a process waits for the cgroup to appear, enters it and
tries a forbidden connection again and again, so it is earlier than any container can be. Nothing
leaves the machine: there is no route. Run as root::

    python -m tests.bench.new_pod
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from portforge.apply.inventory import Inventory
from portforge.apply.inventory import Pod as Known
from portforge.apply.node import NodeMaps, find_pins
from portforge.apply.state import State
from portforge.demo.cgroups import pod_path
from portforge.demo.pods import Node
from portforge.errors import HostError
from portforge.policy import approve
from portforge.schema import Workload
from portforge_recorder.agent import Recorder
from portforge_recorder.identity import StaticSource
from tests.kernel.enforcing import policy, rule

FORBIDDEN, ALLOWED = 7201, 7100
ARMS = ("expected", "not expected", "not expected, until-known")
# Until an attempt is refused (or, where it is refused at first, until it is not).
INSIDE = """
import errno, json, os, socket, sys, time
procs, port, wanted = sys.argv[1], int(sys.argv[2]), sys.argv[3]
print("ready", flush=True)
while True:
    try:
        with open(procs, "w") as f:
            f.write(str(os.getpid()))
        break
    except OSError:
        pass
tries, first = 0, time.clock_gettime_ns(time.CLOCK_BOOTTIME)
while True:
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    with socket.socket() as s:
        s.setblocking(False)
        refused = s.connect_ex(("203.0.113.1", port)) == errno.EPERM
    if refused == (wanted == "refused") or before - first > 10e9:
        break
    tries += 1
print(json.dumps([first, before, tries]), flush=True)
"""


@dataclass(frozen=True)
class Seen:
    """One pod. Milliseconds are from the making of its cgroup."""

    first_try: float
    changed: float
    tries: int
    """Attempts before the one that went the other way."""


class Source:
    """An inventory that the benchmark changes; read by the recorder as any other."""

    def __init__(self, node: Node, path: Path) -> None:
        self._node, self._path = node, path
        self.more: tuple[Known, ...] = ()
        self.closed: frozenset[str] = frozenset()
        self.refresh()

    def refresh(self) -> None:
        """Know the pods as they are now."""
        self._node.write_inventory(self._path)
        now = StaticSource(self._path).inventory()
        pods = tuple(p for p in self.more if p.uid not in {k.uid for k in now.pods})
        self._inventory = replace(now, pods=(*now.pods, *pods), closed_namespaces=self.closed)

    def inventory(self) -> Inventory:
        """What is known."""
        return self._inventory


def coming(node: Node) -> Known:
    """The next pod of the workload ``web``."""
    number = next(copy.copy(node._hosts))
    name = f"{node.id}/t/Deployment/web/{number}"
    uid = str(uuid.uuid5(uuid.NAMESPACE_DNS, name))
    return Known(uid, "t", "web", Workload("t", "Deployment", "web"), node.name)


@contextmanager
def recording(node: Node, source: Source, folder: Path) -> Iterator[NodeMaps]:
    """A recorder with a policy in force, and a second look at its maps."""
    State(node.name, folder / "state").change(
        [approve(policy("web", egress=[rule("TCP", ALLOWED)]), "bench", datetime.now(UTC))]
    )
    recorder = Recorder(
        source, folder / "capture", node.kubepods, state_folder=folder / "state", unload=True
    )
    thread = threading.Thread(target=recorder.run)
    thread.start()
    try:
        until = time.monotonic() + 120
        while True:
            try:
                pins = find_pins(node.name)
                break
            except HostError:
                if time.monotonic() > until or not thread.is_alive():
                    raise
                time.sleep(0.1)
        with NodeMaps(pins) as maps:
            while not maps.config()["ready"]:
                time.sleep(0.1)
            yield maps
    finally:
        recorder.stop.set()
        thread.join()


def wait_for(maps: NodeMaps, pod: Known, expected: bool, closed: bool) -> None:
    """Until the recorder's loop has done what it was told."""
    until = time.monotonic() + 60
    key = pod.uid.encode()
    while ((maps.get("expected", key) is not None), maps.config()["closed"]) != (expected, closed):
        if time.monotonic() > until:
            raise RuntimeError("the recorder does not follow")
        time.sleep(0.02)


def one_pod(node: Node, maps: NodeMaps, source: Source, arm: str) -> Seen:
    """Make a pod and watch it from inside."""
    pod = coming(node)
    source.more = (pod,) if arm == "expected" else ()
    source.closed = frozenset({"t"} if arm.endswith("until-known") else ())
    source.refresh()
    wait_for(maps, pod, bool(source.more), bool(source.closed))
    cgroup = node.root / pod_path(node.driver, "burstable", pod.uid)
    waits_to_pass = bool(source.closed)
    with node.run(
        [
            sys.executable,
            "-I",
            "-c",
            INSIDE,
            str(cgroup / "cgroup.procs"),
            str(ALLOWED if waits_to_pass else FORBIDDEN),
            "passed" if waits_to_pass else "refused",
        ],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        process.stdout.readline()
        time.sleep(random.uniform(0.1, 0.4))  # anywhere between two looks
        made = node.pod("t", "Deployment", "web")
        source.refresh()
        first, changed, tries = json.loads(process.stdout.readline())
    born = int(maps.get("pod_names", cgroup.stat().st_ino)["born_ns"])
    made.stop()
    return Seen((first - born) / 1e6, (changed - born) / 1e6, tries)


def spread(values: list[float], digits: int) -> str:
    """Least, median, largest."""
    return " – ".join(f"{v:,.{digits}f}" for v in (min(values), median(values), max(values)))


def main() -> None:
    """Print the table of docs/measured.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=21, help="of each kind")
    pods = parser.parse_args().pods
    seen: dict[str, list[Seen]] = {arm: [] for arm in ARMS}
    with (
        tempfile.TemporaryDirectory() as folder,
        Node(f"new-pod-{os.getpid()}") as node,
    ):
        source = Source(node, Path(folder) / "inventory.yaml")
        with recording(node, source, Path(folder)) as maps:
            for _ in range(pods):
                for arm in ARMS:
                    seen[arm].append(one_pod(node, maps, source, arm))
    print(f"{pods} pods of each kind; least – median – largest.\n")
    print("| the pod is | first attempt after, ms | attempts the other way | until, ms |")
    print("|---|---:|---:|---:|")
    for arm, found in seen.items():
        first = spread([s.first_try for s in found], 2)
        tries = spread([float(s.tries) for s in found], 0)
        until = spread([s.changed for s in found], 2)
        print(f"| {arm} | {first} | {tries} | {until} |")


if __name__ == "__main__":
    main()
