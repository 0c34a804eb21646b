"""Are answered attacks kept out or found, and is anything else? On made-up clusters, as a table.

Each cluster is learned from twice for each number of days: with a beacon, an intruder and an
exfiltration, and without any, both with and without regular calls that are needed. Writes nothing::

    python tests/bench/attacks.py            # five minutes on two shared cores
    python tests/bench/attacks.py --quick    # a minute

``found`` is the finding meant for the attack; ``learned`` says that the policies let it pass,
whatever was found. A finding about anything but its attack is false; where regular calls are
needed, a beacon is false only where it is kept out: that a clock is regular is true.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable

import pandas as pd

from portforge.policy import Mode, simulate
from portforge.recommend import Recommendation, recommend
from portforge.recommend._frame import FrameCapture
from portforge.synth import (
    ONLINE_BOUTIQUE,
    SOCK_SHOP,
    Graph,
    Synthetic,
    cluster,
    random_graph,
)

DETECTORS = {"beacon": "beacon", "first_time": "intruder", "outlier": "exfiltration"}
"""The kind of finding, and the attack it is meant for."""


def marked(made: Synthetic, attack: str) -> set[tuple[str, int, str]]:
    """Workload, port and peer of an attack, as findings name them."""
    rows = made.flows[made.what == attack]
    peer = rows["peer_workload"].where(rows["peer_workload"].notna(), rows["peer_ip"])
    return set(zip(rows["workload"], rows["port"], peer, strict=True))


def found(learned: Recommendation, kind: str) -> Iterable[tuple[tuple[str, int, str], bool]]:
    """What is found of a kind, and whether it is kept out."""
    for one in learned.findings[learned.findings["kind"] == kind].to_dict("records"):
        peer = str(one["peer"]).rpartition("/")[2].partition(" ")[0]
        kept = kind == "first_time" or "; kept out" in str(one["reason"])
        yield (str(one["workload"]), int(one["port"]), peer), kept


def lets_pass(learned: Recommendation, made: Synthetic, attack: str) -> bool:
    """Whether the policies, enforced, allow any of it."""
    rows = made.flows[made.what == attack]
    judged = simulate(learned.policies, rows, mode_override=Mode.ENFORCE).frame
    return bool((judged["decision"] == "allowed").any())


def count(made: Synthetic, counts: Counter[str]) -> None:
    """Add what one cluster shows."""
    learned = recommend(FrameCapture(made.flows, made.losses))
    for kind, attack in DETECTORS.items():
        real = marked(made, attack)
        named = dict(found(learned, kind))
        counts[f"{kind} planted"] += bool(real)
        counts[f"{kind} found"] += bool(real & set(named))
        counts[f"{kind} learned"] += lets_pass(learned, made, attack)
        others = {one: kept for one, kept in named.items() if one not in real}
        counts[f"{kind} false"] += len(others)
        counts[f"{kind} false kept out"] += sum(others.values())
    counts["clusters"] += 1


def main() -> None:
    parser = argparse.ArgumentParser(description="Are attacks told from what is needed?")
    parser.add_argument("--quick", action="store_true", help="1 seed, 7 days")
    parser.add_argument("--seeds", type=int, default=3, help="seeds for each graph")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    asked = parser.parse_args()
    seeds = range(asked.first, asked.first + (1 if asked.quick else asked.seeds))
    plans: list[Graph | None] = [None, SOCK_SHOP, ONLINE_BOUTIQUE]  # None: a random one
    rows = []
    begun = time.monotonic()
    for days in (7,) if asked.quick else (3, 7, 14):
        for regular in (False, True):
            for attacks in (0, 1):
                counts: Counter[str] = Counter()
                for plan in plans:
                    for seed in seeds:
                        graph = plan or random_graph(12, seed=seed)
                        made = cluster(
                            graph,
                            seed=seed,
                            days=days,
                            beacons=attacks,
                            intruders=attacks,
                            exfiltrations=attacks,
                            regular_calls=regular,
                        )
                        count(made, counts)
                rows += [
                    {
                        "days": days,
                        "regular calls": "yes" if regular else "no",
                        "attacks": "yes" if attacks else "no",
                        "finding": kind,
                        "clusters": counts["clusters"],
                        **{
                            name: counts[f"{kind} {name}"]
                            for name in ("planted", "found", "learned", "false", "false kept out")
                        },
                    }
                    for kind in DETECTORS
                ]
                print(f"{days} days, {time.monotonic() - begun:.0f} s", file=sys.stderr)
    table = pd.DataFrame(rows)
    print("| " + " | ".join(table) + " |")
    print("|---:|---|---|---|" + "---:|" * (len(table.columns) - 4))
    for row in table.itertuples(index=False, name=None):
        print("| " + " | ".join(map(str, row)) + " |")


if __name__ == "__main__":
    main()
