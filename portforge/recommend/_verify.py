"""Whether policies would break what a capture shows to work. For CI: a yes or no, with examples."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

import pandas as pd

from portforge.capture import Capture
from portforge.errors import CaptureError
from portforge.policy import Mode, PortPolicy, simulate
from portforge.recommend._decisions import Decision
from portforge.recommend._edges import peer_text
from portforge.recommend._needed import ANSWERED, kept_out
from portforge.recommend._options import Options
from portforge.schema import Peer

__all__ = ["Verification", "verify"]

_WORKLOAD = ["namespace", "workload_kind", "workload"]
_PEER = ["peer_ip", "peer_kind", "peer_namespace", "peer_workload_kind", "peer_workload"]
_CAUSE = [*_WORKLOAD, "direction", "reason"]
_COLUMNS = [*_CAUSE, "records", "connections", "first_seen", "protocol", "port", "peer", "node"]


@dataclass(frozen=True)
class Verification:
    """The answer.

    Attributes
    ----------
    denied, uncertain, left_out: one row for each workload, direction and cause (no rule for the
        port, or the peer is not in a rule), with the first example and how many records and
        connections it stands for. ``left_out`` was answered and is denied, too, but is a scan,
        UDP nobody answered, or decided against: see :func:`portforge.recommend.kept_out`.
    records: answered records by decision.
    judged: workloads with a policy that were seen.
    unrestricted: workloads seen that have no policy, as ``namespace/kind/name``.
    """

    denied: pd.DataFrame
    uncertain: pd.DataFrame = field(repr=False)
    left_out: pd.DataFrame = field(repr=False)
    records: dict[str, int]
    judged: int
    unrestricted: tuple[str, ...]

    def holds(self, *, strict: bool = False) -> bool:
        """Whether nothing answered is denied and, if ``strict``, nothing is uncertain."""
        return self.denied.empty and not (strict and len(self.uncertain))

    def to_json(self, *, strict: bool = False) -> str:
        """All of it, as JSON with sorted keys."""
        content = {
            "schema": 1,
            "holds": self.holds(strict=strict),
            "strict": strict,
            "records": self.records,
            "judged": self.judged,
            "unrestricted": list(self.unrestricted),
            **{name: _records(getattr(self, name)) for name in ("denied", "uncertain", "left_out")},
        }
        return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)

    def _repr_html_(self) -> str:
        return self.denied.to_html(index=False, escape=True)


def verify(
    policies: Iterable[PortPolicy],
    capture: Capture,
    *,
    since: str | datetime | None = None,
    until: str | datetime | None = None,
    now: datetime | None = None,
    options: Options | None = None,
    decisions: Sequence[Decision] = (),
) -> Verification:
    """Judge what was answered in the capture, as if every policy were in Enforce.

    Parameters
    ----------
    since, until: as in :meth:`portforge.capture.Capture.flows`.
    now: see :func:`portforge.policy.judge`.
    options: thresholds of the scan detection.
    decisions: the analyst's: what never may be learned may be denied, what must be learned may
        not, be it part of a scan.

    Raises
    ------
    CaptureError: nothing in the window, or no workload of the policies was seen in it.
    """
    known = list(policies)
    flows = capture.flows(since, until)
    flows = flows[flows["verdict"].isin(ANSWERED)].reset_index(drop=True)
    seen = set(flows[_WORKLOAD].dropna().itertuples(index=False, name=None))
    mine = {tuple(policy.workload) for policy in known}
    if not seen & mine:
        raise CaptureError(
            "no answered connection of a workload that has one of the policies, nothing to verify",
            place=str(capture.files.root),
            remedy="check that policies and capture are of the same cluster, or widen the window",
        )
    frame = simulate(known, flows, mode_override=Mode.ENFORCE, now=now).frame
    aside = kept_out(frame, capture.aggregated(since, until), options, decisions).notna()
    denied = frame["decision"] == "denied"
    parts = {
        "denied": denied & ~aside,
        "uncertain": frame["decision"] == "uncertain",
        "left_out": denied & aside,
    }
    return Verification(
        **{name: _causes(frame[chosen]) for name, chosen in parts.items()},
        records={
            "allowed": int((frame["decision"] == "allowed").sum()),
            **{name: int(chosen.sum()) for name, chosen in parts.items()},
        },
        judged=len(seen & mine),
        unrestricted=tuple("/".join(owner) for owner in sorted(seen - mine)),
    )


def _causes(rows: pd.DataFrame) -> pd.DataFrame:
    """One row for each cause, with its first example; the costliest first."""
    peers = [
        peer_text(Peer(*(value if isinstance(value, str) else None for value in row)))  # type: ignore[arg-type]
        for row in rows[_PEER].itertuples(index=False, name=None)
    ]
    order = rows.assign(peer=peers).sort_values(
        ["first_seen", *_CAUSE, "protocol", "port", "peer", "node"], kind="stable"
    )
    grouped = order.groupby(_CAUSE, sort=True, dropna=False)
    sums = grouped["connections"].agg(records="size", connections="sum").reset_index()
    first = order.drop_duplicates(_CAUSE).drop(columns="connections")
    found = sums.merge(first, on=_CAUSE, how="left")[_COLUMNS]
    return found.sort_values("connections", ascending=False, kind="stable", ignore_index=True)


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    text = frame.to_json(orient="records", date_format="iso", date_unit="us")
    return cast(list[dict[str, Any]], json.loads(text))
