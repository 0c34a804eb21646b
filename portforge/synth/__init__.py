"""Made-up clusters whose true needs are known: to measure recommenders, and to try things out.

``cluster`` plays a ``Graph`` (one of two published applications, or a random one) over days, with
what surrounds an application in a real cluster, and with what must not be learned. It draws no
conclusions: what a recommender makes of it is measured in ``tests/bench/recommendation.py``.
"""

from __future__ import annotations

from portforge.synth._cluster import Synthetic, cluster
from portforge.synth._graph import Call, Graph, Member, Outside, random_graph
from portforge.synth._published import ONLINE_BOUTIQUE, SOCK_SHOP

__all__ = [
    "ONLINE_BOUTIQUE",
    "SOCK_SHOP",
    "Call",
    "Graph",
    "Member",
    "Outside",
    "Synthetic",
    "cluster",
    "random_graph",
]
