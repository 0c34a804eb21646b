"""What it costs the recorder to empty the flow maps, and the node to take a new policy.

Fills the kernel's flow map from user space with rows of a made-up cluster (200 pods here, 2000
addresses in all), then does what the recorder does every interval. Run as root::

    python tests/bench/drain.py
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np

from portforge.apply import libbpf
from portforge.apply.compile import compile_policies
from portforge.apply.inventory import Inventory, Pod
from portforge.apply.layout import FLOW, FLOW_KEY, LISTENER, LISTENER_KEY, packed_address
from portforge.apply.node import NodeMaps, Rows
from portforge.demo.pods import Node
from portforge.policy import PortPolicy
from portforge.schema import Workload
from portforge_recorder.attribute import attribute
from portforge_recorder.writer import Writer, loss_table
from tests.kernel.bed import Bed, make_bed
from tests.kernel.enforcing import policy, rule

PODS, ADDRESSES, FIRST_CGROUP = 200, 2000, 1 << 40
Times = dict[str, list[float]]
Result = TypeVar("Result")


def cluster() -> tuple[Inventory, dict[int, str]]:
    """The made-up cluster, and the names of its cgroups."""
    uids = [f"{n:08x}-0000-4000-8000-000000000000" for n in range(ADDRESSES)]
    pods = tuple(
        Pod(
            uid,
            f"ns-{n % 20}",
            f"app-{n // 5}-{n}",
            Workload(f"ns-{n % 20}", "Deployment", f"app-{n // 5}"),
            "bench" if n < PODS else "other",
            (f"10.77.{n // 250}.{n % 250}",),
        )
        for n, uid in enumerate(uids)
    )
    names = {FIRST_CGROUP + n: f"pod{uid}" for n, uid in enumerate(uids[:PODS])}
    return Inventory("bench", "bench", pods, cidrs=("10.77.0.0/16",)), names


def rows(count: int, seed: int = 20) -> tuple[Rows, Rows]:
    """``count`` flows that differ; three peers of four are pods of the cluster."""
    chance = np.random.default_rng(seed)
    keys, values = np.zeros(count, FLOW_KEY), np.zeros(count, FLOW)
    number = np.arange(count)
    keys["cgroup"] = FIRST_CGROUP + number % PODS
    inside = [f"10.77.{n // 250}.{n % 250}" for n in range(ADDRESSES)]
    outside = [f"198.51.{n // 250}.{n % 250}" for n in range(ADDRESSES // 3)]
    peers = np.frombuffer(b"".join(packed_address(a) for a in inside + outside), "u1")
    peers = peers.reshape(-1, 16)
    keys["peer"] = peers[(number // PODS * 7 + number % 13) % len(peers)]
    # A port for each turn through pods and peers keeps keys apart.
    keys["port"] = 1024 + number // PODS
    keys["protocol"] = chance.choice([6, 17], count)
    keys["direction"] = chance.integers(0, 2, count)
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    values["connections"] = chance.integers(1, 100, count)
    values["bytes_sent"] = chance.integers(0, 1 << 30, count)
    values["bytes_received"] = chance.integers(0, 1 << 30, count)
    values["first_ns"], values["last_ns"] = now - int(5e9), now
    values["rtt_us"] = chance.integers(10, 1000, count)
    return keys, values


def fill(maps: NodeMaps, keys: Rows, values: Rows) -> None:
    """Put rows into the map that the programs write."""
    fd = maps.fd(f"flows_{maps.config()['active']}")
    for key, value in zip(keys, values, strict=True):
        libbpf.update(fd, key.tobytes(), value.tobytes())


def timed(times: Times, what: str, work: Callable[[], Result]) -> Result:
    """Do it and note the milliseconds it took."""
    start = time.perf_counter()
    done = work()
    times.setdefault(what, []).append((time.perf_counter() - start) * 1e3)
    return done


def drain_once(maps: NodeMaps, writer: Writer, count: int, times: Times) -> None:
    """One interval of the recorder, step by step."""
    fill(maps, *rows(count))
    inventory, names = cluster()
    listeners = (np.zeros(0, LISTENER_KEY), np.zeros(0, LISTENER))
    boot = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    clock = (time.time_ns() - boot) // 1000
    start = time.perf_counter()
    drained = timed(times, "read: swap the maps, `drain()`", maps.drain)
    table, nobody = timed(
        times,
        "resolve: `attribute()`",
        lambda: attribute(
            *(drained.keys, drained.values, listeners, names, inventory, {}, clock, boot, "bench"),
            told=lambda *_: None,
        ),
    )
    none = loss_table("bench", [])
    timed(times, "keep: `Writer.add()`, on disk", lambda: writer.add(table, none, drained.epoch))
    timed(times, "clear: `drained()`", maps.drained)  # reads the keys once more
    times.setdefault("one interval in all", []).append((time.perf_counter() - start) * 1e3)
    timed(times, "Parquet, once in five minutes: `rotate()`", writer.rotate)
    if (table.num_rows, nobody) != (count, 0) or maps.drain().keys.size:
        raise SystemExit(f"{table.num_rows} rows of {count}, {nobody} of nobody, or not cleared")
    maps.drained()
    if writer.problem:
        raise writer.problem
    delete_both_ways(maps, count, times)


def delete_both_ways(maps: NodeMaps, count: int, times: Times) -> None:
    """The deletion that is part of clearing, in batches and with a call for each key."""
    keys, values = rows(count)
    name, size = f"flows_{maps.config()['active']}", FLOW_KEY.itemsize
    every = keys.tobytes()
    fill(maps, keys, values)
    timed(times, "deletion alone, in batches", lambda: libbpf.clear(maps.fd(name), every, size))

    def one_by_one() -> None:
        for start in range(0, len(every), size):
            libbpf.delete(maps.fd(name), every[start : start + size])

    fill(maps, keys, values)
    timed(times, "deletion alone, key by key (not done)", one_by_one)


def policies(ports: int, shift: int) -> list[PortPolicy]:
    """A policy of ``ports`` rules, each with a workload as its peer."""
    who = {"workload": {"namespace": "t", "kind": "Deployment", "name": "peer"}}
    rules = [rule("TCP", 10000 + 2 * n + shift, peers=(who,)) for n in range(ports)]
    return [policy("web", ingress=rules)]


def swap_once(bed: Bed, count: int, shift: int, times: Times) -> None:
    """A new policy for a pod that has one: what the enforcer does, step by step, but its files."""
    maps, inventory, now = bed.maps, bed.source().inventory(), datetime.now(UTC)
    new = policies(count, shift)
    cgroup = int(maps.read("pods")[0][0])
    compiled = timed(
        times, "compile, `compile_policies()`", lambda: compile_policies(new, inventory, now)
    )
    entries = next(iter(compiled.values()))
    number = timed(times, "write the entries, `write_policy()`", lambda: maps.write_policy(entries))

    timed(times, "point the pod at them, `assign()`", lambda: maps.assign(cgroup, number, entries))
    timed(times, "void old verdicts and wait for programs, `rejudge()`", maps.rejudge)
    timed(times, "such a wait alone, `wait_for_programs()`", libbpf.wait_for_programs)
    kept = [(number, len(entries.rule_ids))]
    timed(times, "delete the old entries, `remove_policies()`", lambda: maps.remove_policies(kept))


def show(what: str, found: dict[int, Times]) -> None:
    """Medians with the largest in brackets; a column for each size."""
    print(f"\n| ms, median (largest) | {' | '.join(f'{n:,} {what}' for n in found)} |")
    print("|---|" + "---:|" * len(found))
    for step in next(iter(found.values())):
        cells = [f"{median(t[step]):.1f} ({max(t[step]):.1f})" for t in found.values()]
        print(f"| {step} | {' | '.join(cells)} |")


@contextmanager
def bed(folder: Path) -> Iterator[Bed]:
    """A node with one pod of a workload ``web`` and one of its peer."""
    with Node(f"bench-{os.getpid()}") as node, make_bed(folder, node) as ready:
        node.pod("t", "Deployment", "web")
        node.pod("t", "Deployment", "peer")
        yield ready


def numbers(text: str) -> list[int]:
    """``1000,10000`` as numbers."""
    return [int(n) for n in text.split(",")]


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n\n")[0])
    parser.add_argument("--flows", type=numbers, default=[1000, 10000, 50000], metavar="N,N")
    parser.add_argument("--rules", type=numbers, default=[10, 1000], metavar="N,N")
    parser.add_argument("--repeats", type=int, default=7, help="of each size (default 7)")
    asked = parser.parse_args()
    drains: dict[int, Times] = {}
    swaps: dict[int, Times] = {}
    with tempfile.TemporaryDirectory() as folder, bed(Path(folder)) as ready:
        ready.flows()
        for count in asked.flows:
            with_writer = Writer(Path(folder) / f"capture-{count}", "bench", "bench")
            for _ in range(asked.repeats):
                drain_once(ready.maps, with_writer, count, drains.setdefault(count, {}))
            with_writer.close()
        for count in asked.rules:
            for n in range(asked.repeats):
                swap_once(ready, count, n % 2, swaps.setdefault(count, {}))
    show("flows", drains)
    show("rules", swaps)


if __name__ == "__main__":
    main()
