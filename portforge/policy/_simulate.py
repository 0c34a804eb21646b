"""What policies would have done to recorded flows: the oracle asked about every distinct flow.

Frame in, :class:`Simulation` out. Reads no capture and changes nothing. ``_tally`` counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

import pandas as pd

from portforge.errors import CaptureError
from portforge.policy import _tally as tally
from portforge.policy._judge import Judgement, judge
from portforge.policy._model import Mode, PortPolicy
from portforge.policy._tally import DECISIONS, KEY, WORKLOAD
from portforge.schema import Peer, PeerKind, Verdict, Workload

__all__ = ["DECISIONS", "Simulation", "decide", "records", "simulate"]

_NEEDED = [*KEY, "verdict", "connections", "first_seen"]
_ADDED = ["decision", "decided_by", "reason", "nearest"]


@dataclass(frozen=True)
class Simulation:
    """The outcome.

    Attributes
    ----------
    frame: what was judged, with ``decision``, ``decided_by`` (rule id, null where no rule did),
        ``nearest`` (the rule for the port where it was not it that decided) and ``reason``.
        Listeners without traffic are no flows: their decision is null.
    workloads: connections by decision, one row for each workload seen or with a policy; of the
        allowed, of the denied or audited, and of the uncertain those that had been answered when
        recorded (``allowed_answered`` and so on); ``broken``: something answered is denied or
        audited, be it a connection that was open already and is not counted.
    rules: the same counts for each rule: what it allowed, and what came to its port and was
        denied or uncertain because of the peer; ``used``: it allowed something.
    causes: one row for each workload, direction and reason for which something is denied, audited
        or uncertain: the ``rule`` that came nearest, how many records and connections, of these
        how many had been answered, and the first example.
    denied: the first flow of each distinct (workload, direction, port, peer) denied or
        audited, oldest first.
    mode: what was judged as, None where each policy's own mode was.
    """

    frame: pd.DataFrame = field(repr=False)
    workloads: pd.DataFrame
    rules: pd.DataFrame = field(repr=False)
    causes: pd.DataFrame = field(repr=False)
    denied: pd.DataFrame = field(repr=False)
    mode: Mode | None = None

    @property
    def counts(self) -> dict[str, int]:
        """Connections by decision, over everything."""
        return {decision: int(self.workloads[decision].sum()) for decision in DECISIONS}

    @property
    def flows(self) -> dict[str, int]:
        """Rows of the capture by decision, over everything."""
        rows = self.frame["rows"] if "rows" in self.frame else self.frame["decision"].notna()
        return {d: int(rows[self.frame["decision"] == d].sum()) for d in DECISIONS}

    @property
    def any_denied(self) -> bool:
        """Whether any flow would be denied, be it with no connection counted."""
        return bool((self.frame["decision"] == "denied").any())

    def examples(self, most: int = 3) -> pd.DataFrame:
        """The first ``most`` causes of each workload: what had worked first, then the costliest."""
        first = self.causes.groupby(WORKLOAD, dropna=False, sort=False).head(most)
        return first.sort_values(WORKLOAD, kind="stable", ignore_index=True)

    def to_json(self, examples: int = 10) -> str:
        """The summary and each workload's first ``examples`` causes, as JSON with sorted keys."""
        content = {
            "schema": 1,
            "mode": None if self.mode is None else str(self.mode),
            "connections": self.counts,
            "flows": self.flows,
            "workloads": records(self.workloads),
            "rules": records(self.rules),
            "causes": records(self.examples(examples)),
            "causes_total": len(self.causes),
            "denied": records(self.denied.head(examples)),
            "denied_distinct": len(self.denied),
        }
        return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)

    def _repr_html_(self) -> str:
        parts = [self.workloads.to_html(index=False, escape=True)]
        if len(self.causes):
            parts.append(self.examples().to_html(index=False, escape=True, na_rep="–"))
        return "\n".join(parts)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as JSON data, instants in ISO form."""
    text = frame.to_json(orient="records", date_format="iso", date_unit="us")
    return cast(list[dict[str, Any]], json.loads(text))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _judged(row: dict[str, Any], by_workload: dict[Workload, PortPolicy], now: Any) -> Judgement:
    owner = Workload(*(_text(row[name]) or "" for name in WORKLOAD))
    peer = Peer(
        _text(row["peer_ip"]),
        PeerKind(row["peer_kind"]),
        _text(row["peer_namespace"]),
        _text(row["peer_workload_kind"]),
        _text(row["peer_workload"]),
    )
    return judge(
        by_workload.get(owner),
        row["direction"],
        row["protocol"],
        int(row["port"]),
        peer,
        _text(row["node"]),
        now=now,
    )


def decide(
    flows: pd.DataFrame, policies: Iterable[PortPolicy], now: datetime | None
) -> pd.DataFrame:
    """``flows`` with the columns of the judgement; each distinct key is judged once.

    Raises
    ------
    CaptureError: ``flows`` lacks columns of contract 1.
    """
    place = "node" if "own_node" not in flows.columns else "own_node"
    missing = [name for name in [*_NEEDED, place] if name not in flows.columns]
    if missing:
        raise CaptureError(
            f"flows lack the columns {', '.join(missing)}",
            remedy="give the frame that Capture.flows() or Capture.aggregated() returns",
        )
    flows = flows.reset_index(drop=True)
    key = flows[[*KEY, place]].astype(object)
    if place == "own_node":  # an edge has no node of its own, but says whether the peer is it
        key["node"] = key["peer_workload"].where(key.pop("own_node").astype(bool), None)
    group = key.groupby([*KEY, "node"], dropna=False, sort=False).ngroup()
    distinct = key.loc[~group.duplicated()].to_dict("records")
    by_workload = {policy.workload: policy for policy in policies}
    judged = [_judged({str(k): v for k, v in row.items()}, by_workload, now) for row in distinct]
    table = pd.DataFrame(judged, columns=_ADDED, dtype="str").reindex(group)
    table.loc[(flows["verdict"] == Verdict.LISTENING).to_numpy(), _ADDED] = None
    return flows.assign(**{name: table[name].to_numpy() for name in _ADDED}).astype(
        dict.fromkeys(_ADDED, "str")
    )


def simulate(
    policies: Iterable[PortPolicy],
    flows: pd.DataFrame,
    *,
    mode_override: Mode | None = None,
    now: datetime | None = None,
) -> Simulation:
    """Judge recorded ``flows`` by ``policies``.

    Parameters
    ----------
    policies: linted, one for each workload; a workload without one is allowed everything.
    flows: rows of contract 1, as ``Capture.flows()`` gives them, or the edges of
        ``Capture.aggregated()``: these give the same counts and causes, and are far fewer.
    mode_override: judge as if every policy were in this mode.
    now: see :func:`portforge.policy.judge`.

    Raises
    ------
    CaptureError: ``flows`` lacks columns of contract 1.
    """
    known = list(policies)
    if mode_override is not None:
        known = [policy.model_copy(update={"mode": mode_override}) for policy in known]
    frame = decide(flows, known, now)
    return Simulation(
        frame=frame,
        workloads=tally.by_workload(frame, known),
        rules=tally.by_rule(frame, known),
        causes=tally.causes(frame),
        denied=tally.denials(frame),
        mode=mode_override,
    )
