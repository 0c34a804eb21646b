"""A drift as text: one line for each thing to do, with its evidence. Decides nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from portforge.capture._times import iso
from portforge.recommend._drift_frames import REMOVE

if TYPE_CHECKING:
    from portforge.recommend._drift import Drift

__all__ = ["text"]

_SHOWN = 10


def text(found: Drift) -> str:
    """``+`` add, ``-`` remove, ``~`` narrow, ``!`` expires, ``?`` for your information."""
    lines = []
    for policy in _rows(found.workloads):
        own = {
            name: [row for row in _rows(getattr(found, name)) if _of(row, policy)]
            for name in ("missing", "rules", "expiry", "since_approval", "denied")
        }
        lines.append(_heading(policy, own["rules"], found.unused_days))
        lines += [_missing(row) for row in own["missing"]]
        for row in own["rules"]:
            lines += _rule(row)
        lines += [_expiry(row) for row in own["expiry"]]
        allowed = [row for row in own["since_approval"] if row["decision"] == "allowed"]
        lines += _some("new since approval, allowed", allowed)
        lines += _some("denied when recorded, not proposed", own["denied"])
    if found.unrestricted:
        lines.append("No policy, so allowed everything: " + ", ".join(found.unrestricted))
    if found.losses:
        lost = ", ".join(f"{count:,} {reason}" for reason, count in found.losses.items())
        lines.append(f"Lost meanwhile, and maybe a use of a rule: {lost}")
    told = ", ".join(f"{count} {what}" for what, count in found.to_do.items() if count)
    lines.append(
        f"Window {iso(found.window.start)} to {iso(found.window.end)} "
        f"({found.window.hours / 24:.1f} days): {told or 'nothing to do'}"
    )
    return "\n".join(lines)


def _heading(policy: dict[str, Any], rules: list[dict[str, Any]], days: int) -> str:
    name = "/".join(policy[part] for part in ("namespace", "workload_kind", "workload"))
    told = [f"{policy['used']} of {policy['rules']} rules used in {days} days"]
    standby = [row["rule"] for row in rules if row["state"] == "standby"]
    told += [f"{name} stands by for long DNS answers" for name in standby]
    if pd.isna(policy["last_seen"]):
        told = ["not seen; if it is gone, remove the policy"]
    if policy["approval"] == "changed":
        told.append("changed since its approval")
    return f"{name} ({policy['mode']}): {', '.join(told)}"


def _missing(row: dict[str, Any]) -> str:
    more = [text for text in (row["reason"], row["over_grant"]) if text]
    more += ["new since approval"] if row["since_approval"] else []
    return (
        f"  + {row['direction']} {row['what']} {row['rule']}: {row['protocol']} {row['ports']} "
        f"{row['peers']}; {'; '.join([_evidence(row), *more])}"
    )


def _rule(row: dict[str, Any]) -> list[str]:
    place = f"{row['direction']} {row['rule']}"
    lines = []
    if row["state"] in REMOVE:
        line = f"  - {place} ({row['protocol']} {row['ports']} {row['peers']}): {row['why']}"
        if not pd.isna(row["proposed_expires_at"]):
            line += f"; remove, or let it expire: expiresAt {iso(row['proposed_expires_at'])}"
        lines.append(line)
    elif row["unused_peers"]:
        lines.append(f"  ~ {place}: remove peers, nobody of them came: {row['unused_peers']}")
    if row["narrower"]:
        lines.append(f"  ? {place} ({row['peers']}): used only for {row['narrower']}")
    if row["why"] and row["state"] not in (*REMOVE, "expired", "standby"):
        lines.append(f"  ? {place}: {row['why']}")
    return lines


def _expiry(row: dict[str, Any]) -> str:
    what = "the policy" if pd.isna(row["rule"]) else f"{row['direction']} {row['rule']}"
    verb = "expired" if row["state"] == "expired" else "expires"
    return f"  ! {what} {verb} at {iso(row['expires_at'])}; {row['proposal']}"


def _some(what: str, rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        f"  ? {what}: {row['direction']} {row['protocol']} {row['port']} {row['peer']}; "
        f"{_evidence(row)}"
        for row in rows[:_SHOWN]
    ]
    more = len(rows) - _SHOWN
    return [*lines, f"  ? {what}: {more} more"] if more > 0 else lines


def _evidence(row: dict[str, Any]) -> str:
    if not row["hours"]:
        return "not seen"
    return (
        f"{row['connections']:,} connections, {row['hours']} h on {row['days']} d, "
        f"{row['pods']} pods, {iso(row['first_seen'])} to {iso(row['last_seen'])}"
    )


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(k): v for k, v in row.items()} for row in frame.to_dict("records")]


def _of(row: dict[str, Any], policy: dict[str, Any]) -> bool:
    return (row["namespace"], row["policy"]) == (policy["namespace"], policy["policy"])
