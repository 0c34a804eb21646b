"""Judged flows counted: by workload, by rule, by cause, with the first examples. Judges nothing.

Rows are flow records, or edges that stand for ``rows`` of them. Columns added by the judging:
``decision``, ``decided_by``, ``nearest`` and ``reason``.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from portforge.policy._judge import Decision
from portforge.policy._model import PortPolicy
from portforge.schema import Direction, Verdict

__all__ = [
    "AGAINST",
    "DECISIONS",
    "KEY",
    "PEER",
    "WORKLOAD",
    "answered",
    "by_rule",
    "by_workload",
    "causes",
    "denials",
]

DECISIONS: tuple[Decision, ...] = ("allowed", "denied", "audited", "uncertain")
AGAINST: tuple[Decision, ...] = ("denied", "audited")

WORKLOAD = ["namespace", "workload_kind", "workload"]
PEER = ["peer_ip", "peer_kind", "peer_namespace", "peer_workload_kind", "peer_workload"]
SERVICE = ["direction", "protocol", "port"]
KEY = [*WORKLOAD, *SERVICE, *PEER]
"""What a distinct flow is: workload, direction, port and peer."""

_CAUSE = [*WORKLOAD, "direction", "decision", "rule", "reason"]
_EXAMPLE = ["first_seen", "protocol", "port", *PEER, "verdict"]


def answered(frame: pd.DataFrame) -> pd.Series[bool]:
    """Whether the connection had worked when it was recorded."""
    return frame["verdict"].astype(object).isin([Verdict.ALLOWED, Verdict.AUDITED])


def _records(frame: pd.DataFrame) -> pd.Series[int]:
    if "rows" in frame.columns:
        return frame["rows"].astype("int64")
    return pd.Series(1, index=frame.index, dtype="int64")


def _plain(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """With plain text: grouping categories would invent groups, and sort them by their codes."""
    text = [c for c in columns if frame[c].dtype != "int32" and frame[c].dtype != "int64"]
    return frame.astype(dict.fromkeys(text, object))


def _counts(frame: pd.DataFrame) -> pd.DataFrame:
    """For each row its connections in the column of its decision; of these, those answered."""
    count = frame["connections"].astype("int64")
    worked = answered(frame)
    of = {decision: frame["decision"] == decision for decision in DECISIONS}
    against = of["denied"] | of["audited"]
    return pd.DataFrame(
        {d: count.where(chosen, 0) for d, chosen in of.items()}
        | {
            "allowed_answered": count.where(of["allowed"] & worked, 0),
            "denied_answered": count.where(against & worked, 0),
            "uncertain_answered": count.where(of["uncertain"] & worked, 0),
        }
    ).astype("int64")


def by_workload(frame: pd.DataFrame, policies: Sequence[PortPolicy]) -> pd.DataFrame:
    """One row for each workload seen or with a policy; see :class:`Simulation`."""
    seen = frame.loc[frame["decision"].notna()]
    counts = _counts(seen)
    broken = (seen["decision"].isin(AGAINST) & answered(seen)).astype("int64")
    keys = [seen[name].astype(object) for name in WORKLOAD]
    total = counts.assign(broken=broken).groupby(keys, dropna=False).sum().reset_index()
    names = {tuple(policy.workload): policy.name for policy in policies}
    idle = pd.DataFrame(sorted(names), columns=WORKLOAD, dtype=object)
    merged = idle.merge(total, how="outer", on=WORKLOAD)
    added = [*counts.columns, "broken"]
    merged[added] = merged[added].fillna(0).astype("int64")
    merged["broken"] = merged["broken"] > 0
    owners = zip(*(merged[name] for name in WORKLOAD), strict=True)
    merged.insert(3, "policy", [names.get(owner) for owner in owners])
    merged = merged.astype(dict.fromkeys([*WORKLOAD, "policy"], "str"))
    return merged.sort_values(WORKLOAD, ignore_index=True)


def by_rule(frame: pd.DataFrame, policies: Sequence[PortPolicy]) -> pd.DataFrame:
    """One row for each rule: what it allowed, and what came to its port and was not; see above."""
    met = frame["decided_by"].fillna(frame["nearest"])
    chosen = frame.loc[met.notna()]
    counts = _counts(chosen).assign(used=(chosen["decided_by"].notna()).astype("int64"))
    keys = [chosen[name].astype(object) for name in WORKLOAD] + [met[met.notna()].astype(object)]
    total = counts.groupby(keys).sum()
    known = dict(zip(total.index, total.to_numpy().tolist(), strict=True))
    nothing = [0] * total.shape[1]
    rows = [
        (p.namespace, p.name, str(direction), rule.id, *known.get((*p.workload, rule.id), nothing))
        for p in sorted(policies, key=lambda p: p.workload)
        for direction in Direction
        for rule in p.rules(direction) or ()
    ]
    found = pd.DataFrame(rows, columns=["namespace", "policy", "direction", "rule", *total.columns])
    return found.astype({"used": bool})


def causes(
    frame: pd.DataFrame,
    decisions: Sequence[str] = DECISIONS[1:],
    beside: Sequence[str] = (),
) -> pd.DataFrame:
    """One row for each workload, direction and reason of the decisions, the costliest first.

    ``decisions`` in the order in which they are wanted; the columns ``beside`` tell causes apart,
    too.

    Columns: ``rule`` (the nearest, null where the port has none); how many ``records`` and
    ``connections``, and how many ``connections_answered`` of these; whether any had worked
    (``answered``, be it of no counted connection); and the first example, one that had worked
    where there is one.
    """
    cause = [*_CAUSE, *beside]
    rows = frame.loc[frame["decision"].isin(list(decisions))]
    rows = rows.assign(
        rule=rows["nearest"],
        records=_records(rows),
        answered=answered(rows),
        connections=rows["connections"].astype("int64"),
    )
    rows["connections_answered"] = rows["connections"].where(rows["answered"], 0)
    rows = _plain(rows, [*cause, "protocol", *PEER, "verdict"])
    sums = {"records": "sum", "connections": "sum", "connections_answered": "sum"}
    grouped = rows.groupby(cause, sort=True, dropna=False)
    total = grouped.agg({**sums, "answered": "any"}).reset_index()
    order = rows.assign(attempt=~rows["answered"]).sort_values(
        [*cause, "attempt", "first_seen", "protocol", "port", *PEER, "verdict"], kind="stable"
    )
    first = order.drop_duplicates(cause)[[*cause, *_EXAMPLE]]
    found = total.merge(first, on=cause, how="left")
    found["place"] = found["decision"].map({d: place for place, d in enumerate(decisions)})
    costliest = ["answered", "connections_answered", "connections"]
    found = found.sort_values(
        ["place", *costliest], ascending=[True, False, False, False], kind="stable"
    ).drop(columns="place")
    text = [*cause, "protocol", *PEER, "verdict"]
    return found.astype(dict.fromkeys(text, "str")).reset_index(drop=True)


def denials(frame: pd.DataFrame) -> pd.DataFrame:
    """The first flow of each distinct (workload, direction, port, peer) denied or audited."""
    against = frame.loc[frame["decision"].isin(AGAINST)]
    plain = _plain(against, KEY)
    order = plain.sort_values(["first_seen", *KEY], kind="stable")
    first = against.loc[order.index[~order.duplicated(KEY)]]
    columns = ["first_seen", *KEY, "verdict", "decision", "nearest", "reason"]
    return first[columns].rename(columns={"nearest": "rule"}).reset_index(drop=True)
