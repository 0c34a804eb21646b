"""How right recommended policies are, on made-up clusters whose needs are known.

Learns from the first days of each cluster and replays the rest: ours, and the baselines of
``learners``. Prints tables; writes nothing::

    python tests/bench/recommendation.py            # ten minutes on two shared cores
    python tests/bench/recommendation.py --quick    # a minute
    python tests/bench/recommendation.py --promise  # only what is offered as ready, and breaks

One row is one way to learn; a cell is the median over all clusters and seeds, and min–max. With
``--promise`` a cell is the sum over all clusters: workloads offered, and of these broken later.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

from portforge.schema import Workload
from portforge.synth import ONLINE_BOUTIQUE, SOCK_SHOP, Graph, cluster, random_graph
from tests.bench.clusters import Case, Seen, block_of, named
from tests.bench.learners import METHODS, Learned, Learner, nothing_new, ours

HORIZONS = (1, 7, 30)
GRAPHS: tuple[Graph | None, ...] = (None, SOCK_SHOP, ONLINE_BOUTIQUE)
"""None: a random one, another for each seed."""


def measure(case: Case, learn: Learner, days: float) -> dict[str, float]:
    """One cluster, one way, one training time."""
    train, rest = case.firsts(days)
    made = learn(case, days, train)
    refused: defaultdict[Workload, float] = defaultdict(lambda: np.inf)
    missing: set[int] = set()
    for n, seen in enumerate(case.seen):
        if seen.truth < 0 or made.admits(seen):
            continue
        missing.add(seen.truth)
        refused[seen.workload] = min(refused[seen.workload], rest[n] - days * 86400)
    known = case.until <= days * 86400
    day = (case.at // 86400).astype(int)
    used = pd.DataFrame({"truth": case.made.needed[known], "day": day[known]}).query("truth >= 0")
    twice = {int(n) for n, count in used.groupby("truth")["day"].nunique().items() if count >= 2}  # type: ignore[call-overload]
    every = {int(n) for n in case.made.needed.unique() if n >= 0}
    admitted, extra = _granted(case, made, ranges=True)
    listed, too_many = _granted(case, made, ranges=False)
    bad = {
        (*s.door, s.port, named(s.peer) or s.peer.ip)
        for n, s in enumerate(case.seen)
        if s.what in ("scan", "background")
        and np.isfinite(train[n])
        and s.workload in made.restricted
        and not case.needs(s.door, s.port, _unit(case, s))
        and made.admits(s)
    }
    return {
        "recall 2d": 1 - len(missing & twice) / len(twice) if twice else np.nan,
        "recall all": 1 - len(missing & every) / len(every),
        "over-grant": extra / admitted if admitted else np.nan,
        "over-grant listed": too_many / listed if listed else np.nan,
        "scans": len(bad),
        **{f"broken {d}": sum(at <= d * 86400 for at in refused.values()) for d in HORIZONS},
        "policies": len(made.restricted),
        "ready": len(made.ready),
        "ready broken": sum(refused[w] < np.inf for w in made.ready),
    }


def _unit(case: Case, seen: Seen) -> Any:
    return named(seen.peer) or block_of(seen.peer.ip or "0.0.0.0", case.blocks)


def _granted(case: Case, made: Learned, ranges: bool) -> tuple[int, int]:
    """Port-peers admitted, and those of them nobody needs; with ranges of ports or without.

    A range of a thousand ports that are needed makes the share of all others small.
    """
    admitted = extra = 0
    for door, openings in made.openings.items():
        if door[0] not in made.restricted:
            continue
        for one in openings:
            if one.last > one.first and not ranges:
                continue
            for unit in one.units(case.workloads, case.blocks):
                ports = range(one.first, one.last + 1)
                admitted += len(ports)
                extra += sum(not case.needs(door, port, unit) for port in ports)
    return admitted, extra


def cell(values: list[float], percent: bool) -> str:
    known = [v for v in values if not np.isnan(v)]
    if not known:
        return "–"
    three = (min(known), median(known), max(known))
    low, middle, high = (f"{100 * v:.1f}" if percent else f"{v:g}" for v in three)
    return middle if low == high else f"{middle} ({low}–{high})"


COLUMNS = {
    "recall 2d": "recall of ≥ 2 days, %",
    "recall all": "recall of all, %",
    "over-grant": "over-grant, %",
    "over-grant listed": "of single ports, %",
    "scans": "scan port-peers learned",
    **{f"broken {d}": f"broken after {d} d" for d in HORIZONS},
    "policies": "policies",
    "ready": "ready",
    "ready broken": "broken among ready",
}


PROMISES: dict[str, Learner] = {
    "portforge": ours,
    **{f"nothing new for {k} h": nothing_new(k) for k in (24, 72, 120, 168, 240, 312)},
}
"""What offers some workloads and not others."""


@dataclass(frozen=True)
class Plan:
    """Which clusters, and for how many days learned."""

    trained: tuple[int, ...] = (1, 3, 7)
    days: int = 37
    seeds: range = range(1, 4)
    size: int = 14
    graphs: tuple[Graph | None, ...] = GRAPHS

    def cases(self) -> Iterator[Case]:
        """The clusters, one after the other; says on stderr how far it is."""
        begun, made, total = time.monotonic(), 0, len(self.graphs) * len(self.seeds)
        for graph in self.graphs:
            for seed in self.seeds:
                chosen = graph or random_graph(self.size, seed=seed)
                yield Case(cluster(chosen, seed=seed, days=self.days))
                made += 1
                spent = time.monotonic() - begun
                print(f"{made}/{total} clusters, {spent:.0f} s", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description="How right recommended policies are.")
    parser.add_argument("--quick", action="store_true", help="2 small clusters, 15 days")
    parser.add_argument("--promise", action="store_true", help="only ready, and broken of these")
    parser.add_argument("--seeds", type=int, default=3, help="seeds for each graph")
    parser.add_argument("--first-seed", type=int, default=1, help="the lowest seed")
    parser.add_argument("--workloads", type=int, default=14, help="size of the random graphs")
    asked = parser.parse_args()
    seeds = range(asked.first_seed, asked.first_seed + asked.seeds)
    plan = Plan(seeds=seeds, size=asked.workloads)
    if asked.promise:
        plan = replace(plan, trained=(7, 10, 14, 21), days=44)
    if asked.quick:
        seeds = range(asked.first_seed, asked.first_seed + 1)
        plan = replace(plan, trained=(3, 7), days=15, seeds=seeds, size=8, graphs=GRAPHS[:2])
    methods = PROMISES if asked.promise else METHODS
    found: defaultdict[tuple[int, str], list[dict[str, float]]] = defaultdict(list)
    for case in plan.cases():
        for t in plan.trained:
            for name, learn in methods.items():
                found[t, name].append(measure(case, learn, t))
    graphs, chosen = len(plan.graphs), f"{len(plan.seeds)} from {plan.seeds[0]}"
    total = graphs * len(plan.seeds)
    print(f"{total} clusters ({graphs} graphs; seeds: {chosen}) of {plan.days} days.\n")
    (_promises if asked.promise else _tables)(plan.trained, list(methods), found)


Found = dict[tuple[int, str], list[dict[str, float]]]


def _tables(trained: tuple[int, ...], methods: list[str], found: Found) -> None:
    for t in trained:
        print(f"Trained on {t} day{'s' if t > 1 else ''}:\n")
        print("| learned by | " + " | ".join(COLUMNS.values()) + " |")
        print("|---|" + "---:|" * len(COLUMNS))
        for name in methods:
            cells = [
                cell([one[c] for one in found[t, name]], c.startswith(("recall", "over")))
                for c in COLUMNS
            ]
            print(f"| {name} | " + " | ".join(cells) + " |")
        print()


def _promises(trained: tuple[int, ...], methods: list[str], found: Found) -> None:
    print("| offered by | " + " | ".join(f"{t} days: ready, broken" for t in trained) + " |")
    print("|---|" + "---:|" * len(trained))
    for name in methods:
        sums = [
            [int(sum(one[c] for one in found[t, name])) for c in ("ready", "ready broken")]
            for t in trained
        ]
        print(f"| {name} | " + " | ".join(f"{ready}, {broken}" for ready, broken in sums) + " |")
    policies = [int(sum(one["policies"] for one in found[t, methods[0]])) for t in trained]
    print("| workloads | " + " | ".join(map(str, policies)) + " |")


if __name__ == "__main__":
    main()
