"""Which recorded rows policies should allow: what was answered, without what is kept out. Pure.

A scan that hit an open port, and UDP that nobody answered, have the verdict ``allowed`` in a
capture. Policies that deny them break nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import pandas as pd

from portforge.capture import Capture
from portforge.recommend._beacons import find_beacons
from portforge.recommend._decide import decide
from portforge.recommend._decisions import Decision
from portforge.recommend._edges import Edge, edges_of
from portforge.recommend._options import Options
from portforge.recommend._sort import sort_edges
from portforge.schema import Verdict

__all__ = ["ANSWERED", "KEPT_OUT", "kept_out"]

ANSWERED = (Verdict.ALLOWED, Verdict.AUDITED)
KEPT_OUT = ("beacon", "first_time", "never", "one_sided", "port_zero", "scan", "unanswered")
"""The findings that are reason enough to deny what was answered."""

_EDGE = ["namespace", "workload_kind", "workload", "direction", "protocol", "port", "target_port"]
_PEER = ["peer_ip", "peer_kind", "peer_namespace", "peer_workload_kind", "peer_workload"]
_KEY = [*_EDGE, *_PEER, "verdict"]


def kept_out(
    flows: pd.DataFrame,
    aggregated: pd.DataFrame,
    options: Options | None = None,
    decisions: Sequence[Decision] = (),
    *,
    capture: Capture | None = None,
    since: str | datetime | None = None,
    until: str | datetime | None = None,
) -> pd.Series[str]:
    """For each row of ``flows`` the finding that keeps it out of learning, null where none does.

    Parameters
    ----------
    flows: rows of contract 1.
    aggregated: ``Capture.aggregated()`` of all that is known; a scan shows only as a whole.
    options: thresholds of the scan detection.
    decisions: the analyst's; what must be learned is not kept out, what never may is.
    capture, since, until: what ``aggregated`` was asked of; without it no rhythm is known, and
        nothing is kept out as a beacon.
    """
    edges = edges_of(aggregated)
    beacons = {} if capture is None else find_beacons(capture, edges, since, until)
    left = decide(*sort_edges(edges, options or Options(), beacons), decisions).left
    out = [one for one in left if one.kind in KEPT_OUT and one.edge.answered and not one.learned]
    # Not learned, and decided about: whatever it is a finding of, somebody said never.
    why = {_key(one.edge): "never" if one.decision else one.kind for one in out}
    plain = flows[_KEY].astype(object)
    plain = plain.where(plain.notna(), None)
    # A hostNetwork workload has no namespace; edges write that as an empty one.
    plain["namespace"] = plain["namespace"].map(lambda name: name or "")
    found = [why.get(key) for key in plain.itertuples(index=False, name=None)]
    return pd.Series(found, index=flows.index, dtype="str")


def _key(edge: Edge) -> tuple[object, ...]:
    service = (str(edge.direction), str(edge.protocol), edge.port, edge.target_port)
    return (*(edge.workload or ()), *service, *edge.peer, str(edge.verdict))
