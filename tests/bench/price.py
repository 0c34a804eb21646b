"""What the price of generalising buys, on made-up clusters whose needs are known.

Learns from the first seven days of 15 at several prices and replays the rest, as
``recommendation.py`` does. Prints one table; writes nothing::

    python tests/bench/price.py            # 3 graphs, 2 seeds: a minute or two
    python tests/bench/price.py --quick    # one graph, one seed

A cell is the median over all clusters, and min–max.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import numpy as np

from portforge.recommend import PortPolicyRecommender
from portforge.synth import ONLINE_BOUTIQUE, SOCK_SHOP, Graph, cluster, random_graph
from tests.bench.clusters import Case
from tests.bench.learners import Learned, ours
from tests.bench.recommendation import cell, measure

PRICES = (0, 16, 64, 256, 1024, 4096, 65536)
DAYS, TRAINED = 15, 7
COLUMNS = {
    "recall 2d": "recall of ≥ 2 days, %",
    "recall all": "recall of all, %",
    "over-grant": "over-grant, %",
    "scans": "scan port-peers learned",
    "broken 7": "broken after 7 d",
    "selectors": "selectors",
    "World": "rules open to World",
    "unobserved": "unobserved port-peers, without World",
}


def at(price: int, case: Case) -> dict[str, float]:
    """The measures of one cluster at one price."""
    recommender = PortPolicyRecommender(price=price)

    def learn(some: Case, days: float, train: np.ndarray) -> Learned:
        return ours(some, days, train, recommender)

    found = measure(case, learn, TRAINED)
    evidence = recommender.evidence_.set_index(["namespace", "policy", "rule"])
    unobserved = evidence["unobserved_port_peers"].to_dict()
    found |= {"selectors": 0, "World": 0, "unobserved": 0}
    for policy in recommender.policies_:
        for rule in (*(policy.ingress or ()), *(policy.egress or ())):
            world = any(str(peer) == "World" for peer in rule.peers or ())
            found["selectors"] += len(rule.peers or ())
            found["World"] += world
            if not world:
                found["unobserved"] += unobserved[policy.namespace, policy.name, rule.id]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="What the price of generalising buys.")
    parser.add_argument("--quick", action="store_true", help="one small cluster")
    quick = parser.parse_args().quick
    plans: list[Graph | None] = [None] if quick else [None, SOCK_SHOP, ONLINE_BOUTIQUE]
    seeds = (1,) if quick else (1, 2)
    found: defaultdict[int, list[dict[str, float]]] = defaultdict(list)
    for plan in plans:
        for seed in seeds:
            case = Case(cluster(plan or random_graph(8, seed=seed), seed=seed, days=DAYS))
            for price in PRICES:
                found[price].append(at(price, case))
    print(f"{len(plans) * len(seeds)} clusters of {DAYS} days, trained on {TRAINED}.\n")
    print("| price | " + " | ".join(COLUMNS.values()) + " |")
    print("|---:|" + "---:|" * len(COLUMNS))
    for price, every in found.items():
        cells = [cell([one[c] for one in every], c.startswith(("rec", "over"))) for c in COLUMNS]
        print(f"| {price:,} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
