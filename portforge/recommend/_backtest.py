"""The rolling-origin backtest: what policies learned until an instant would have broken later.

Changes nothing and writes nothing. All records of the capture are held in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import pandas as pd

from portforge.capture import Capture
from portforge.errors import CaptureError
from portforge.policy import Mode, PortPolicy
from portforge.policy._simulate import decide
from portforge.recommend._decisions import Decision
from portforge.recommend._frame import FrameCapture
from portforge.recommend._needed import ANSWERED, kept_out
from portforge.recommend._options import Options
from portforge.recommend._recommend import recommend
from portforge.recommend._split import origins

__all__ = ["backtest", "backtest_workloads"]

_WORKLOAD = ["namespace", "workload_kind", "workload"]
_TIMES = ["trained_until", "rest_until"]
_INSTANT = "datetime64[us, UTC]"


def backtest(
    capture: Capture,
    *,
    steps: int | Sequence[datetime] = 8,
    options: Options | None = None,
    decisions: Sequence[Decision] = (),
) -> pd.DataFrame:
    """One row for each origin: what its policies, enforced, would have denied of the rest.

    At each origin policies are learned from the records that ended by then, and asked about all
    later ones. A denial counts where the connection had been answered and is not one that the
    whole capture shows as a scan or as unanswered UDP.

    Parameters
    ----------
    steps: how many origins, at equal distances; or the origins, with time zone.
    options: thresholds of the recommendation.
    decisions: the analyst's: what never may be learned is not needed later, either.

    Returns
    -------
    Columns: ``trained_until``, ``rest_until`` (instants); ``trained_hours``; ``judged``, workloads
    with a policy that had answered connections in the rest; ``broken``, those denied one;
    ``ready`` and ``ready_broken``, of these the ones whose status was ready; ``unjudged``,
    workloads in the rest that had no policy yet; ``answered``, connections judged; ``denied``
    and ``uncertain``, of these. Records with no connection opened can break a workload, too.

    Raises
    ------
    CaptureError: as :func:`portforge.recommend.recommend`, or an origin outside the window.
    """
    table = backtest_workloads(capture, steps=steps, options=options, decisions=decisions)
    start = capture.window().start
    rows = []
    for t in _instants(capture, steps):
        own = table[table["trained_until"] == t]
        had = own[own["status"].notna()]
        ready = had["status"] == "ready"
        rows.append(
            {
                "trained_until": t,
                "rest_until": capture.window().end,
                "trained_hours": round((t - start).total_seconds() / 3600, 4),
                "judged": len(had),
                "broken": int(had["broken"].sum()),
                "ready": int(ready.sum()),
                "ready_broken": int((ready & had["broken"]).sum()),
                "unjudged": len(own) - len(had),
                **{name: int(had[name].sum()) for name in ("answered", "denied", "uncertain")},
            }
        )
    return pd.DataFrame(rows).astype(dict.fromkeys(_TIMES, _INSTANT))


def backtest_workloads(
    capture: Capture,
    *,
    steps: int | Sequence[datetime] = 8,
    options: Options | None = None,
    decisions: Sequence[Decision] = (),
) -> pd.DataFrame:
    """The backtest by origin and workload; see :func:`backtest`.

    ``status`` is what the recommendation said at the origin, null where the workload had no
    policy yet: nothing of it is denied then. ``first_denied`` says what broke it first, and when.
    """
    # Outliers change no policy; looking for them takes as long as learning does.
    options = replace(options or Options(), outlier_share=0.0)
    flows, losses = capture.flows(), capture.losses()
    aside = kept_out(flows, capture.aggregated(), options, decisions, capture=capture)
    # What came once and late may be needed all the same: its denials count against us.
    out = aside.notna() & (aside != "first_time")
    subject = flows[_WORKLOAD].notna().all(axis=1) & (flows["workload_kind"] != "Node")
    needed = (
        subject
        & flows["verdict"].isin(ANSWERED)
        & flows["protocol"].isin(["TCP", "UDP"])
        & (flows["peer_kind"] != "loopback")
        & ~out
    )
    rows: list[dict[str, Any]] = []
    for t in _instants(capture, steps):
        known = flows["last_seen"] <= t
        policies: list[PortPolicy] = []
        status: dict[tuple[Any, ...], str] = {}
        if (known & subject).any():
            lost = losses[losses["interval_end"] <= t]
            made = recommend(FrameCapture(flows[known], lost), options=options, decisions=decisions)
            policies = [p.model_copy(update={"mode": Mode.ENFORCE}) for p in made.policies]
            status = {
                tuple(one[name] for name in _WORKLOAD): one["status"]
                for one in made.report["workloads"]
            }
        rest = decide(flows[~known & needed], policies, None)
        rows += [{"trained_until": t} | one for one in _by_workload(rest, status)]
    columns = ["trained_until", *_WORKLOAD, "status", "answered", "denied", "uncertain", "broken"]
    columns += ["first_denied_at", "first_denied"]
    text = [*_WORKLOAD, "status", "first_denied"]
    return (
        pd.DataFrame(rows, columns=columns)
        .astype(dict.fromkeys(["trained_until", "first_denied_at"], _INSTANT))
        .astype(dict.fromkeys(text, "str"))
    )


def _by_workload(rest: pd.DataFrame, status: dict[tuple[Any, ...], str]) -> list[dict[str, Any]]:
    rows = []
    for owner, own in rest.groupby(_WORKLOAD):
        count = own["connections"]
        denied = own[own["decision"] == "denied"].sort_values("first_seen", kind="stable")
        first = None if denied.empty else denied.iloc[0]
        rows.append(
            dict(zip(_WORKLOAD, owner, strict=True))
            | {
                "status": status.get(cast(tuple[Any, ...], owner)),
                "answered": int(count.sum()),
                "denied": int(count[own["decision"] == "denied"].sum()),
                "uncertain": int(count[own["decision"] == "uncertain"].sum()),
                "broken": first is not None,
                "first_denied_at": None if first is None else first["first_seen"],
                "first_denied": None
                if first is None
                else f"{first['direction']}: {first['reason']}, peer {_peer(first)}",
            }
        )
    return rows


def _peer(row: pd.Series[Any]) -> str:
    parts = [row["peer_namespace"], row["peer_workload"]]
    known = "/".join(part for part in parts if isinstance(part, str))
    return known or (row["peer_ip"] if isinstance(row["peer_ip"], str) else "lost")


def _instants(capture: Capture, steps: int | Sequence[datetime]) -> list[datetime]:
    window = capture.window()
    if isinstance(steps, int):
        return origins(window.start, window.end, steps)
    for t in steps:
        if t.tzinfo is None or not window.start <= t < window.end:
            raise CaptureError(
                f"{t.isoformat()} is no instant with a time zone within the capture",
                place=str(capture.files.root),
                remedy=f"choose one from {window.start.isoformat()} to {window.end.isoformat()}",
            )
    return sorted(t.astimezone(UTC) for t in steps)
