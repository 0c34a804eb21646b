"""Whether policies would break what a capture shows to work. For CI: a yes or no, with examples."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import pandas as pd

from portforge.capture import Capture
from portforge.errors import CaptureError
from portforge.policy import Mode, PortPolicy
from portforge.policy._simulate import decide, records
from portforge.policy._tally import PEER, WORKLOAD, causes
from portforge.recommend._decisions import Decision
from portforge.recommend._edges import peer_text
from portforge.recommend._needed import ANSWERED, kept_out
from portforge.recommend._options import Options
from portforge.schema import Peer

__all__ = ["Verification", "verify"]

_UNDECIDED = ("beacon", "first_time")
_CAUSE = [*WORKLOAD, "direction", "rule", "reason"]
_COLUMNS = [*_CAUSE, "records", "connections", "first_seen", "protocol", "port", "peer"]


@dataclass(frozen=True)
class Verification:
    """The answer.

    Attributes
    ----------
    denied, uncertain, left_out: one row for each workload, direction and cause (no rule for the
        port, the peer is not in a rule, the rule has expired), with the ``rule`` that came
        nearest, the first example, and how many records and connections it stands for.
        ``left_out`` was answered and is denied, too, but is kept out of learning: see
        :func:`portforge.recommend.kept_out`.
    records: answered records by decision.
    judged: workloads with a policy that were seen and restricted.
    unrestricted: workloads seen that nothing restricts, as ``namespace/kind/name``.
    expired: of these, the ones whose policy has expired.
    unseen: workloads of policies that had nothing answered in the window: nothing is known of
        what these policies would break.
    """

    denied: pd.DataFrame
    uncertain: pd.DataFrame = field(repr=False)
    left_out: pd.DataFrame = field(repr=False)
    records: dict[str, int]
    judged: int
    unrestricted: tuple[str, ...]
    expired: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()

    def holds(self, *, strict: bool = False) -> bool:
        """Whether nothing answered is denied.

        ``strict``: nor is anything uncertain, or denied that waits for the analyst's decision,
        because it may as well be a new need: a first contact, a beacon.
        """
        undecided = self.left_out["finding"].isin(_UNDECIDED).any()
        return self.denied.empty and not (strict and (len(self.uncertain) or undecided))

    def to_json(self, *, strict: bool = False) -> str:
        """All of it, as JSON with sorted keys."""
        content = {
            "schema": 1,
            "holds": self.holds(strict=strict),
            "strict": strict,
            "records": self.records,
            "judged": self.judged,
            **{name: list(getattr(self, name)) for name in ("unrestricted", "expired", "unseen")},
            **{name: records(getattr(self, name)) for name in ("denied", "uncertain", "left_out")},
        }
        return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)

    def _repr_html_(self) -> str:
        told = ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in self.records.items())
        held = "holds" if self.holds() else "does not hold"
        parts = [f"<p>{held}: {self.judged} workloads judged; answered records: {told}</p>"]
        for name in ("denied", "uncertain", "left_out"):
            causes: pd.DataFrame = getattr(self, name)
            if len(causes):
                table = causes.to_html(index=False, escape=True, na_rep="–")
                parts.append(f"<p>{name.replace('_', ' ')}</p>{table}")
        return "".join(parts)


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
    known = [policy.model_copy(update={"mode": Mode.ENFORCE}) for policy in policies]
    every = capture.aggregated(since, until)
    edges = every[every["verdict"].isin(ANSWERED)]
    seen = set(edges[WORKLOAD].dropna().itertuples(index=False, name=None))
    mine = {tuple(policy.workload) for policy in known}
    if not seen & mine:
        raise CaptureError(
            "no answered connection of a workload that has one of the policies, nothing to verify",
            place=str(capture.files.root),
            remedy="check that policies and capture are of the same cluster, or widen the window",
        )
    gone = {
        tuple(policy.workload)
        for policy in known
        if policy.expires_at is not None and now is not None and policy.expires_at <= now
    }
    frame = decide(edges, known, now)
    frame["finding"] = kept_out(
        frame, every, options, decisions, capture=capture, since=since, until=until
    )
    aside = frame["finding"].notna()
    denied = frame["decision"] == "denied"
    parts = {
        "denied": denied & ~aside,
        "uncertain": frame["decision"] == "uncertain",
        "left_out": denied & aside,
    }
    rows = frame["rows"]
    return Verification(
        **{
            name: _causes(frame[chosen], ["finding"] if name == "left_out" else [])
            for name, chosen in parts.items()
        },
        records={
            "allowed": int(rows[frame["decision"] == "allowed"].sum()),
            **{name: int(rows[chosen].sum()) for name, chosen in parts.items()},
        },
        judged=len((seen & mine) - gone),
        unrestricted=_names((seen - mine) | (seen & gone)),
        expired=_names(seen & gone),
        unseen=_names(mine - seen),
    )


def _names(workloads: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple("/".join(owner) for owner in sorted(workloads))


def _causes(rows: pd.DataFrame, beside: list[str]) -> pd.DataFrame:
    """One row for each cause, with its first example; the costliest first."""
    found = causes(rows, beside=beside)
    peers = [
        peer_text(Peer(*(value if isinstance(value, str) else None for value in row)))  # type: ignore[arg-type]
        for row in found[PEER].itertuples(index=False, name=None)
    ]
    return found.assign(peer=pd.Series(peers, dtype="str"))[[*_COLUMNS, *beside]]
