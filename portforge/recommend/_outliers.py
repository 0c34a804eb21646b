"""Find what no rule found: learned connections unlike all the others, and in what. Keeps none out.

scikit-learn's isolation forest (Liu, Ting, Zhou: Isolation Forest, ICDM 2008) cuts the items by
random features at random places; who stands alone after few cuts is an outlier. It is chosen
over the local outlier factor because the features are of mixed kinds with no common distance,
because a group of a few odd items hides its members from a factor of near neighbours, and because
its cost grows with the number of items, not of pairs.

How much a feature has to do with it is asked directly: the item is scored again with that one
feature at the median of all items; what the score loses is the feature's part (occlusion:
Zeiler, Fergus: Visualizing and Understanding Convolutional Networks, 2014). Where two features
are odd enough each alone, neither loses much.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from portforge.capture import Window
from portforge.recommend._edges import Edge, Party, party
from portforge.recommend._hours import all_hours
from portforge.recommend._lifecycle import JOBS
from portforge.recommend._options import Options
from portforge.recommend._sensitive import sensitive_name
from portforge.schema import Direction, PeerKind, Workload

__all__ = ["FEATURES", "find_outliers"]

_SCORE = 0.6
"""The least score of an outlier: near 1 stands alone, all near 0.5 is no distinct anomaly, and
0.6 is the contour that Liu and others draw around the data (their figure 3)."""

_LEAST = 50
"""Of fewer items the quarters, and what is usual, rest on a dozen items each."""

_TREES, _SEED = 200, 0
_SHOWN = 3
_TENFOLD = 1.0
"""Ten times as much, as a difference of logarithms."""
_PORTS = 8
"""More ports than that with one peer are one service whose port changes (passive FTP, RPC)."""

Floats = npt.NDArray[np.float64]
_Item = tuple[Workload, str, str, int, Party]


@dataclass(frozen=True)
class _About:
    """What an item's numbers are compared with."""

    edges: list[Edge]
    window: Window
    since: float
    pods: int
    others_at_peer: int
    others_at_port: int

    @property
    def job(self) -> bool:
        owner = self.edges[0].workload
        return owner is not None and owner.kind in JOBS

    @property
    def sent(self) -> int:
        return sum(edge.bytes_sent for edge in self.edges)

    @property
    def received(self) -> int:
        return sum(edge.bytes_received for edge in self.edges)

    @property
    def connections(self) -> int:
        return max(1, sum(edge.connections for edge in self.edges))

    @property
    def hours(self) -> int:
        return len(all_hours(edge.hours for edge in self.edges))

    @property
    def first_seen(self) -> float:
        return min(edge.first_seen for edge in self.edges).timestamp()


@dataclass(frozen=True)
class _Feature:
    """How an item's number is got, and how it is shown. Sizes and counts are logarithms.

    The forest knows no distance and cuts between 20 and 21 as gladly as between 20 and 20,000. So
    it sees numbers in steps (of about three times, for sizes and counts), and an outlier must
    differ from the median by ``much`` in something.
    """

    value: Callable[[_About], float]
    show: Callable[[float], str]
    step: float = 0.5
    much: float = float("inf")


def _log(value: float) -> float:
    return float(np.log10(1 + value))


def _number(value: float) -> str:
    return f"{10**value - 1:.3g}"


def _size(value: float) -> str:
    size = 10**value - 1
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} TiB"


def _pods(about: _About) -> int:
    return len({pod for edge in about.edges for pod in edge.pods})


def _port_class(about: _About) -> float:
    edge = about.edges[0]
    if sensitive_name(edge.protocol, edge.port, edge.target_port):
        return 1
    return 0 if edge.port < 1024 else 2 if edge.port < 32768 else 3


FEATURES: Mapping[str, _Feature] = {
    "bytes per connection": _Feature(
        lambda a: _log((a.sent + a.received) / a.connections), _size, much=_TENFOLD
    ),
    "sent for each byte received": _Feature(
        lambda a: float(np.log10((a.sent + 1) / (a.received + 1))),
        lambda v: f"{10**v:.3g}",
        much=_TENFOLD,
    ),
    "connections in an active hour": _Feature(
        lambda a: _log(a.connections / a.hours), _number, much=_TENFOLD
    ),
    "active hours": _Feature(lambda a: _log(a.hours), _number),
    "share of pods": _Feature(
        # Each run of a job is another pod: all of them is what one of them is.
        lambda a: 1.0 if a.job else _pods(a) / max(1, a.pods),
        lambda v: f"{v:.0%}",
        step=0.25,
    ),
    "late by": _Feature(
        lambda a: (a.first_seen - a.since) / max(1.0, a.window.hours * 3600),
        lambda v: f"{v:.0%} of the window",
        step=0.2,
        much=0.5,
    ),
    "workloads with that peer there": _Feature(lambda a: _log(a.others_at_peer), _number),
    "workloads with that port": _Feature(lambda a: _log(a.others_at_port), _number),
    "port": _Feature(
        _port_class,
        lambda v: ("well-known", "sensitive", "registered", "ephemeral")[round(v)],
    ),
    "peer": _Feature(
        lambda a: float(any(e.peer.kind == PeerKind.EXTERNAL for e in a.edges)),
        lambda v: "outside" if v else "inside",
    ),
    "direction": _Feature(
        lambda a: float(a.edges[0].direction == Direction.EGRESS),
        lambda v: "egress" if v else "ingress",
    ),
}


def find_outliers(
    learned: Iterable[Edge], pods: pd.DataFrame, window: Window, options: Options
) -> dict[Edge, str]:
    """The learned edges that are outliers, each with its score and its oddest features.

    Parameters
    ----------
    pods: as ``Capture.pods()`` gives them.
    options: at most ``outlier_share`` of the items are outliers, or one; none where it is 0, and
        none among fewer than 50 items.
    """
    items = _items(learned)
    if len(items) < _LEAST or not options.outlier_share:
        return {}
    most = max(1, int(options.outlier_share * len(items)))
    from sklearn.ensemble import IsolationForest
    from sklearn.preprocessing import RobustScaler

    table = _table(items, _count(pods), window)
    # The forest itself does not care for the scale of a feature; the median is zero after it.
    steps = np.array([feature.step for feature in FEATURES.values()])
    coarse = np.round(table / steps) * steps
    scaler = RobustScaler().fit(coarse)
    scaled: Floats = scaler.transform(coarse)
    forest = IsolationForest(n_estimators=_TREES, random_state=_SEED).fit(scaled)
    score: Floats = -forest.score_samples(scaled)
    much = [feature.much for feature in FEATURES.values()]
    medians: Floats = np.median(table, axis=0)
    far = (np.abs(table - medians) >= much).any(axis=1) & (score >= _fence(score))
    oddest = [n for n in np.argsort(-score, kind="stable") if far[n]][:most]
    found: dict[Edge, str] = {}
    for n, edges in enumerate(items.values()):
        if n not in oddest:
            continue
        # Row j of the copies has feature j at the median, which the scaler put at zero.
        copies = np.tile(scaled[n], (len(FEATURES), 1))
        np.fill_diagonal(copies, 0.0)
        parts = score[n] + forest.score_samples(copies)
        found.update(dict.fromkeys(edges, _reason(table[n], medians, score[n], parts)))
    return found


def _fence(score: Floats) -> float:
    """Tukey's fence for outside values (Exploratory Data Analysis, 1977), and never under 0.6."""
    low, high = np.percentile(score, [25, 75])
    return float(max(_SCORE, high + 1.5 * (high - low)))


def _items(learned: Iterable[Edge]) -> dict[_Item, list[Edge]]:
    """Edges by workload, direction, port and peer, sorted: the forest draws by position.

    Strangers who come in are one peer; outside addresses that go by one name are one; the many
    ports of a pair whose ports change are one.
    """
    found: defaultdict[tuple[Any, ...], list[Edge]] = defaultdict(list)
    for edge in learned:
        peer = party(edge.peer)
        if edge.workload is None or peer is None:
            continue
        if edge.peer.kind == PeerKind.EXTERNAL:
            incoming = edge.direction == Direction.INGRESS
            named = len(edge.peer_names) == 1
            peer = ("outside",) if incoming else edge.peer_names if named else peer
        found[edge.workload, str(edge.direction), str(edge.protocol), peer].append(edge)
    items: defaultdict[_Item, list[Edge]] = defaultdict(list)
    for (workload, direction, protocol, peer), edges in found.items():
        first = min(edge.port for edge in edges)
        many = len({edge.port for edge in edges}) > _PORTS
        for edge in edges:
            port = first if many else edge.port
            items[workload, direction, protocol, port, peer].append(edge)
    return dict(sorted(items.items()))


def _count(pods: pd.DataFrame) -> dict[Workload, int]:
    names = pods[["namespace", "workload_kind", "workload", "pod"]].drop_duplicates()
    counts: Counter[Workload] = Counter()
    for *owner, _ in names.itertuples(index=False, name=None):
        counts[Workload(*owner)] += 1
    return counts


def _table(
    items: Mapping[_Item, list[Edge]], pods: Mapping[Workload, int], window: Window
) -> Floats:
    since: dict[Workload, float] = {}
    at_peer: defaultdict[tuple[object, ...], set[Workload]] = defaultdict(set)
    at_port: defaultdict[tuple[object, ...], set[Workload]] = defaultdict(set)
    for (workload, *port, peer), edges in items.items():
        first = min(edge.first_seen for edge in edges).timestamp()
        since[workload] = min(first, since.get(workload, first))
        at_peer[*port, peer].add(workload)
        at_port[tuple(port)].add(workload)
    rows = [
        _About(
            edges,
            window,
            since[workload],
            pods.get(workload, 0),
            len(at_peer[*port, peer]) - 1,
            len(at_port[tuple(port)]) - 1,
        )
        for (workload, *port, peer), edges in items.items()
    ]
    return np.array([[one.value(about) for one in FEATURES.values()] for about in rows])


def _reason(values: Floats, medians: Floats, score: float, parts: Floats) -> str:
    order = [int(j) for j in np.argsort(-parts, kind="stable")[:_SHOWN] if parts[j] > 0]
    names = list(FEATURES)
    shown = [
        f"{names[j]} {FEATURES[names[j]].show(values[j])} "
        f"(median {FEATURES[names[j]].show(medians[j])}): {parts[j]:+.3f}"
        for j in order
    ]
    return f"unlike the other connections, score {score:.2f}; " + "; ".join(shown)
