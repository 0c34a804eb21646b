"""What has become of policies in force: what to add, what to remove, what expires. Changes nothing.

Works on the capture's sums, as ``recommend`` does, so that its size does not matter.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pandas as pd

from portforge.capture import Capture, Window
from portforge.capture._times import iso
from portforge.errors import CaptureError
from portforge.policy import PortPolicy
from portforge.recommend import _drift_frames as frames
from portforge.recommend._beacons import find_beacons
from portforge.recommend._decide import decide
from portforge.recommend._decisions import Decision
from portforge.recommend._drift_missing import missing, new_since
from portforge.recommend._drift_use import Known, uses
from portforge.recommend._edges import Edge, edges_of
from portforge.recommend._marks import around_of
from portforge.recommend._options import Options
from portforge.recommend._sort import sort_edges
from portforge.schema import Workload

__all__ = ["Drift", "drift"]


@dataclass(frozen=True)
class Drift:
    """The answer; false where there is nothing to do.

    Attributes
    ----------
    rules: one row for each rule: ``state`` (used, unused, tried, standby, uncertain, kept, never,
        expired, unknown) and ``why``; how it was used; ``unused_peers``, which may go;
        ``narrower``, what a wide rule was used for, to think about; ``proposed_expires_at``.
    missing: the rules to add, or the peers to add to one; ``add`` is the whole rule as JSON.
    expiry: rules and policies (``rule`` null) that have expired or soon will, and what to do.
    since_approval: what was needed after the approval and not before, allowed or not.
    denied: what a policy in force denied and no decision learns. Nothing of it is proposed.
    workloads: one row for each policy: the counts of all that.
    unrestricted: workloads seen that have no policy, as ``namespace/kind/name``.
    losses: events lost in the window, by reason: what was lost may have used a rule.
    """

    rules: pd.DataFrame
    missing: pd.DataFrame
    expiry: pd.DataFrame = field(repr=False)
    since_approval: pd.DataFrame = field(repr=False)
    denied: pd.DataFrame = field(repr=False)
    workloads: pd.DataFrame
    unrestricted: tuple[str, ...]
    losses: dict[str, int]
    window: Window
    unused_days: int

    @property
    def to_do(self) -> dict[str, int]:
        """How much there is to add, to remove, to narrow, and to decide because it expires."""
        return {
            "add": len(self.missing),
            "remove": int(self.rules["state"].isin(frames.REMOVE).sum()),
            "narrow": int(self.rules["unused_peers"].ne("").sum()),
            "expiry": len(self.expiry),
        }

    def __bool__(self) -> bool:
        return any(self.to_do.values())

    def __str__(self) -> str:
        from portforge.recommend._drift_report import text

        return text(self)

    def to_json(self) -> str:
        """All of it, as JSON with sorted keys."""
        content = {
            "schema": 1,
            "window": {"start": iso(self.window.start), "end": iso(self.window.end)},
            "unused_days": self.unused_days,
            "to_do": self.to_do,
            "unrestricted": list(self.unrestricted),
            "losses": self.losses,
            **{name: _records(getattr(self, name)) for name in frames.COLUMNS},
        }
        for one in content["missing"]:  # type: ignore[attr-defined]
            one["add"] = json.loads(one["add"])
        return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)

    def _repr_html_(self) -> str:
        return self.rules.to_html(index=False, escape=True)


def drift(
    policies: Iterable[PortPolicy],
    capture: Capture,
    *,
    since: str | datetime | None = None,
    until: str | datetime | None = None,
    unused_days: int = 30,
    decisions: Sequence[Decision] = (),
    now: datetime | None = None,
    soon_days: int = 14,
    options: Options | None = None,
) -> Drift:
    """Compare policies in force with what a capture shows their workloads to do.

    Parameters
    ----------
    policies: as :func:`portforge.policy.read_policies` gives them; judged as if in Enforce.
    since, until: as in :meth:`portforge.capture.Capture.flows`.
    unused_days: a rule not used for so long before the window's end is unused. Choose it longer
        than the longest cycle (monthly jobs). It is known only where the capture, and the
        approval, are that old.
    decisions: the analyst's; what must be learned is missing or kept, what never may goes.
    now: the moment expiries are held against; None: the window's end.
    soon_days: what expires within so many days expires soon. A proposed expiry is so far away.
    options: thresholds, as for :func:`portforge.recommend.recommend`.

    Raises
    ------
    CaptureError: no policies, nothing in the window, or no workload of the policies in it.
    """
    known_policies = sorted(policies, key=lambda policy: policy.workload)
    options = options or Options()
    window = capture.window(since, until)
    moment = (now or window.end).astimezone(UTC)
    edges = edges_of(capture.aggregated(since, until))
    beacons = find_beacons(capture, edges, since, until)
    decided = decide(*sort_edges(edges, options, beacons), decisions)
    around = around_of(edges, (), decisions)
    known = Known(
        window,
        moment,
        timedelta(days=unused_days),
        {left.edge: left.kind for left in decided.left if not left.learned},
        decisions,
    )
    own: dict[Workload, list[Edge]] = {policy.workload: [] for policy in known_policies}
    needed: dict[Workload, list[Edge]] = {policy.workload: [] for policy in known_policies}
    for edge in edges:
        if edge.workload in own:
            own[edge.workload].append(edge)
    for edge in decided.learned:
        if edge.workload in needed:
            needed[edge.workload].append(edge)
    if not any(own.values()):
        raise CaptureError(
            "no workload of the policies is in the window, nothing to compare",
            place=str(capture.files.root),
            remedy="check that policies and capture are of the same cluster, or widen the window",
        )
    soon = timedelta(days=soon_days)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in frames.COLUMNS}
    for policy in known_policies:
        mine, wanted = own[policy.workload], needed[policy.workload]
        used = uses(policy, mine, known)
        parts = {
            "rules": [frames.rule_row(policy, use, known, soon, options) for use in used],
            "missing": [
                frames.missing_row(one) for one in missing(policy, wanted, moment, options, around)
            ],
            "expiry": frames.expiry_rows(policy, used, known, soon),
            "since_approval": [
                frames.new_row(policy, one) for one in new_since(policy, wanted, window, moment)
            ],
            "denied": [
                frames.denied_row(policy, e) for e in frames.denied_of(mine, frozenset(wanted))
            ],
        }
        for name, some in parts.items():
            rows[name] += some
        rows["workloads"].append(frames.workload_row(policy, mine, parts))
    seen = {edge.workload for edge in decided.learned if edge.workload is not None}
    lost = capture.losses(since, until).groupby("reason")["count"].sum().sort_index()
    return Drift(
        **{name: frames.frame(name, some) for name, some in rows.items()},
        unrestricted=tuple("/".join(owner) for owner in sorted(seen - set(own))),
        losses={str(reason): int(count) for reason, count in lost.items()},
        window=window,
        unused_days=unused_days,
    )


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    text = frame.to_json(orient="records", date_format="iso", date_unit="us")
    return cast(list[dict[str, Any]], json.loads(text))
