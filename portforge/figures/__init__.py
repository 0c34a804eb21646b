"""Plotly figure factories: a DataFrame of flows in, a ``go.Figure`` out. Nothing is computed here
that a decision rests on; that is ``portforge.recommend`` and ``portforge.policy``.

``activity_timeline`` shows when, ``workload_map`` who with whom, ``port_matrix`` which ports;
``backtest_curve`` what a policy learned by then would have broken since; ``what_if_bars`` what
policies would have allowed and denied; ``coverage_overview`` how much of each workload was seen;
``role_matrix`` which workloads do the same, and who differs.
"""

from portforge.figures.backtest import backtest_curve
from portforge.figures.coverage import coverage_overview
from portforge.figures.map import workload_map
from portforge.figures.matrix import port_matrix
from portforge.figures.roles import role_matrix
from portforge.figures.timeline import activity_timeline
from portforge.figures.what_if import what_if_bars

__all__ = [
    "activity_timeline",
    "backtest_curve",
    "coverage_overview",
    "port_matrix",
    "role_matrix",
    "what_if_bars",
    "workload_map",
]
