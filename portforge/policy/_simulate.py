"""What policies would have done to recorded flows: the oracle asked about every distinct flow.

Frame in, :class:`Simulation` out. Reads no capture and changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

import pandas as pd

from portforge.errors import CaptureError
from portforge.policy._judge import Decision, Judgement, judge
from portforge.policy._model import Mode, PortPolicy
from portforge.schema import Direction, Peer, PeerKind, Verdict, Workload

__all__ = ["DECISIONS", "Simulation", "simulate"]

DECISIONS: tuple[Decision, ...] = ("allowed", "denied", "audited", "uncertain")

_WORKLOAD = ["namespace", "workload_kind", "workload"]
_PEER = ["peer_ip", "peer_kind", "peer_namespace", "peer_workload_kind", "peer_workload"]
_KEY = [*_WORKLOAD, "node", "direction", "protocol", "port", *_PEER]
_NEEDED = [*_KEY, "verdict", "connections", "first_seen"]
_EXAMPLE = ["first_seen", *_WORKLOAD, "direction", "protocol", "port", *_PEER, "verdict"]


@dataclass(frozen=True)
class Simulation:
    """The outcome.

    Attributes
    ----------
    frame: the flows with ``decision``, ``decided_by`` (rule id, null where no rule did) and
        ``reason``. Listeners without traffic are no flows: their decision is null.
    workloads: connections by decision, one row for each workload seen or with a policy, and
        ``denied_answered``: those denied or audited that had been answered when recorded.
    rules: connections each rule allowed; 0 where a rule was not used.
    denied: the first flow of each distinct (workload, direction, port, peer) denied or
        audited, oldest first.
    mode: what was judged as, None where each policy's own mode was.
    """

    frame: pd.DataFrame = field(repr=False)
    workloads: pd.DataFrame
    rules: pd.DataFrame = field(repr=False)
    denied: pd.DataFrame = field(repr=False)
    mode: Mode | None = None

    @property
    def counts(self) -> dict[str, int]:
        """Connections by decision, over everything."""
        return {decision: int(self.workloads[decision].sum()) for decision in DECISIONS}

    @property
    def flows(self) -> dict[str, int]:
        """Rows of the capture by decision, over everything."""
        found = self.frame["decision"].value_counts()
        return {decision: int(found.get(decision, 0)) for decision in DECISIONS}

    @property
    def any_denied(self) -> bool:
        """Whether any flow would be denied, be it with no connection counted."""
        return bool((self.frame["decision"] == "denied").any())

    def to_json(self, examples: int = 10) -> str:
        """The summary and the first ``examples`` denials, as JSON with sorted keys."""
        content = {
            "schema": 1,
            "mode": None if self.mode is None else str(self.mode),
            "connections": self.counts,
            "flows": self.flows,
            "workloads": _records(self.workloads),
            "rules": _records(self.rules),
            "denied": _records(self.denied.head(examples)),
            "denied_distinct": len(self.denied),
        }
        return json.dumps(content, indent=2, sort_keys=True)

    def _repr_html_(self) -> str:
        return self.workloads.to_html(index=False, escape=True)


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    text = frame.to_json(orient="records", date_format="iso", date_unit="us")
    return cast(list[dict[str, Any]], json.loads(text))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _judged(row: dict[str, Any], by_workload: dict[Workload, PortPolicy], now: Any) -> Judgement:
    owner = Workload(*(_text(row[name]) or "" for name in _WORKLOAD))
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


def _decide(
    flows: pd.DataFrame, policies: Iterable[PortPolicy], now: datetime | None
) -> pd.DataFrame:
    """``flows`` with decision, decided_by and reason; each distinct key is judged once."""
    key = flows[_KEY].astype(object)
    group = key.groupby(_KEY, dropna=False, sort=False).ngroup()
    distinct = key.loc[~group.duplicated()]
    by_workload = {policy.workload: policy for policy in policies}
    judged = [
        _judged(dict(zip(_KEY, row, strict=True)), by_workload, now)
        for row in distinct.itertuples(index=False, name=None)
    ]
    columns = ["decision", "decided_by", "reason"]
    table = pd.DataFrame(judged, columns=columns, dtype="str").reindex(group)
    table.loc[(flows["verdict"] == Verdict.LISTENING).to_numpy(), columns] = None
    return flows.assign(**{name: table[name].to_numpy() for name in columns}).astype(
        dict.fromkeys(columns, "str")
    )


def _workloads(frame: pd.DataFrame, policies: list[PortPolicy]) -> pd.DataFrame:
    seen = frame.loc[frame["decision"].notna()]
    count = seen["connections"].astype("int64")
    parts = {d: count.where(seen["decision"] == d, 0) for d in DECISIONS}
    against = seen["decision"].isin(["denied", "audited"])
    answered = seen["verdict"].isin([Verdict.ALLOWED, Verdict.AUDITED])
    parts["denied_answered"] = count.where(against & answered, 0)  # type: ignore[index]
    keys = [seen[name].astype(object) for name in _WORKLOAD]
    total = pd.DataFrame(parts).groupby(keys, dropna=False).sum().reset_index()
    names = {tuple(policy.workload): policy.name for policy in policies}
    idle = pd.DataFrame(sorted(names), columns=_WORKLOAD, dtype=object)
    merged = idle.merge(total, how="outer", on=_WORKLOAD)
    merged[list(parts)] = merged[list(parts)].fillna(0).astype("int64")
    owners = zip(*(merged[name] for name in _WORKLOAD), strict=True)
    merged.insert(3, "policy", [names.get(owner) for owner in owners])
    merged = merged.astype(dict.fromkeys([*_WORKLOAD, "policy"], "str"))
    return merged.sort_values(_WORKLOAD, ignore_index=True)


def _rules(frame: pd.DataFrame, policies: list[PortPolicy]) -> pd.DataFrame:
    decided = frame.loc[frame["decided_by"].notna()]
    keys = [decided[name].astype(object) for name in (*_WORKLOAD, "decided_by")]
    used = decided["connections"].groupby(keys).sum().to_dict()
    rows = [
        (p.namespace, p.name, str(direction), rule.id, int(used.get((*p.workload, rule.id), 0)))
        for p in sorted(policies, key=lambda p: p.workload)
        for direction in Direction
        for rule in p.rules(direction) or ()
    ]
    return pd.DataFrame(rows, columns=["namespace", "policy", "direction", "rule", "connections"])


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
    flows: rows of contract 1, as ``Capture.flows()`` gives them.
    mode_override: judge as if every policy were in this mode.
    now: see :func:`portforge.policy.judge`.

    Raises
    ------
    CaptureError: ``flows`` lacks columns of contract 1.
    """
    missing = [name for name in _NEEDED if name not in flows.columns]
    if missing:
        raise CaptureError(
            f"flows lack the columns {', '.join(missing)}",
            remedy="give the frame that Capture.flows() returns",
        )
    known = list(policies)
    if mode_override is not None:
        known = [policy.model_copy(update={"mode": mode_override}) for policy in known]
    frame = _decide(flows.reset_index(drop=True), known, now)
    against = frame.loc[frame["decision"].isin(["denied", "audited"])]
    order = against.sort_values(["first_seen", *_KEY], kind="stable")
    first = order.loc[~order.astype(dict.fromkeys(_KEY, object)).duplicated(_KEY)]
    return Simulation(
        frame=frame,
        workloads=_workloads(frame, known),
        rules=_rules(frame, known),
        denied=first[[*_EXAMPLE, "decision", "reason"]].reset_index(drop=True),
        mode=mode_override,
    )
