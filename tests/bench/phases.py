"""How many phases are named rightly, on made-up clusters whose calls are known.

Compares the phase of every learned call (a rule and one of its peers) with what the generator
made it. Prints one table; writes nothing::

    python tests/bench/phases.py            # 3 graphs, 3 seeds, 15 days: half a minute
    python tests/bench/phases.py --quick    # one graph, 2 seeds, 8 workloads

``unclear`` is no wrong name: it says that too little is known. A call made seldom at random has no
phase, so that it is its right one.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable
from datetime import timedelta

from portforge.capture import Capture, Window
from portforge.recommend import Options
from portforge.recommend._decide import decide
from portforge.recommend._edges import Edge, edges_of
from portforge.recommend._frame import FrameCapture
from portforge.recommend._phases import Lives, lives_of, phase_of
from portforge.recommend._rules import learn_rules
from portforge.recommend._sort import sort_edges
from portforge.schema import PeerKind
from portforge.synth import ONLINE_BOUTIQUE, SOCK_SHOP, Graph, Synthetic, cluster, random_graph
from portforge.synth._cluster import MONDAY

WHO = ["namespace", "workload_kind", "workload"]
RIGHT = {
    "steady": ("steady", ""),
    "startup": ("start-up", ""),
    "daily": ("periodic", "daily"),
    "weekly": ("periodic", "weekly"),
    "rare": ("unclear", ""),
}


def named(made: Synthetic, days: int) -> Counter[tuple[str, str]]:
    """How many calls of each kind, seen in the first days, were called what.

    The key is the kind, and ``right``, ``unclear`` or ``wrong: …``.
    """
    end = MONDAY + timedelta(days=days)
    capture: Capture = FrameCapture(made.flows[made.flows["last_seen"] <= end])
    options = Options()
    edges = edges_of(capture.aggregated())
    learned = decide(*sort_edges(edges, options), ()).learned
    lives, window = lives_of(capture.pods()), capture.window()
    kinds: dict[tuple[object, ...], set[str]] = {}
    for item in made.truth.astype(object).to_dict("records"):
        peer = item["peer_workload"]
        who = (item["peer_namespace"], peer) if isinstance(peer, str) else None
        key = (*(item[n] for n in WHO), item["direction"], item["protocol"], item["port"], who)
        kinds.setdefault(key, set()).add(item["kind"])
    calls: dict[tuple[object, ...], list[Edge]] = {}
    for edge in learned:
        peer = edge.peer
        inside = peer.kind in (PeerKind.WORKLOAD, PeerKind.SERVICE)
        who = (peer.namespace, peer.workload) if inside else None
        key = (*(edge.workload or ()), str(edge.direction), str(edge.protocol), edge.port, who)
        calls.setdefault(key, []).append(edge)
    found: Counter[tuple[str, str]] = Counter()
    for key, own in calls.items():
        known = kinds.get(key, set())
        if len(known) != 1:  # not needed, or two calls in one
            continue
        (kind,) = known
        found[kind, _answer(kind, own, lives, window, options)] += 1
    return found


def _answer(kind: str, own: list[Edge], lives: Lives, window: Window, options: Options) -> str:
    (rule,) = [r for r in learn_rules(own, frozenset(), options) if r.edges]
    workload = own[0].workload
    assert workload is not None
    phase = phase_of(workload, rule, lives, window, options.enough_hours)
    if (phase.name, phase.period) == RIGHT[kind]:
        return "right"
    text = f"{phase.name} {phase.period}".strip()
    return text if text == "unclear" else f"wrong: {text}"


def clusters(quick: bool) -> Iterable[Synthetic]:
    plans: list[Graph | None] = [None] if quick else [None, SOCK_SHOP, ONLINE_BOUTIQUE]
    for plan in plans:
        for seed in (1, 2) if quick else (1, 2, 3):
            yield cluster(plan or random_graph(8, seed=seed), seed=seed, days=15)


def main() -> None:
    parser = argparse.ArgumentParser(description="How many phases are named rightly.")
    parser.add_argument("--quick", action="store_true", help="2 small clusters")
    quick = parser.parse_args().quick
    found: dict[int, Counter[tuple[str, str]]] = {3: Counter(), 8: Counter(), 15: Counter()}
    count = 0
    for made in clusters(quick):
        count += 1
        for days, total in found.items():
            total.update(named(made, days))
    print(f"{count} clusters; calls seen by then.\n")
    print("| days | call | seen | right | unclear | wrong |")
    print("|---:|---|---:|---:|---:|---|")
    for days, total in found.items():
        for kind in RIGHT:
            own = Counter({answer: n for (k, answer), n in total.items() if k == kind})
            wrong = ", ".join(
                f"{n} {a.removeprefix('wrong: ')}" for a, n in sorted(own.items())
                if a.startswith("wrong")
            )  # fmt: skip
            right, unclear = own["right"], own["unclear"]
            print(f"| {days} | {kind} | {own.total()} | {right} | {unclear} | {wrong or 0} |")


if __name__ == "__main__":
    main()
