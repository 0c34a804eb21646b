"""Two sets of policies on the same recorded flows: what one decides otherwise than the other.

``diff`` says what changed in the rules; this says what of it the recorded flows would notice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

import pandas as pd

from portforge.policy import _tally as tally
from portforge.policy._model import Mode, PortPolicy
from portforge.policy._simulate import decide, records
from portforge.policy._tally import WORKLOAD

__all__ = ["CHANGES", "Comparison", "compare"]

CHANGES = ("denied", "audited", "uncertain", "allowed")
"""Where a decision may go; the worst first."""


@dataclass(frozen=True)
class Comparison:
    """What changes when ``policies`` take the place of ``before``.

    Attributes
    ----------
    changes: one row for each workload, direction, decision (the new one), ``decision_before`` and
        the reasons of both: the ``rule`` that came nearest, how many records and connections, of
        these how many had been answered, and the first example. The worst first: newly denied,
        audited, uncertain, then newly allowed; among these what had worked, then the costliest.
    workloads: one row for each workload with a change: connections newly denied, audited,
        uncertain and allowed, and ``broken``: something that had worked and passed before is now
        denied.
    unchanged: connections that both decide alike.
    mode: what was judged as, None where each policy's own mode was.
    """

    changes: pd.DataFrame
    workloads: pd.DataFrame
    unchanged: int
    mode: Mode | None = field(default=None)

    @property
    def any_denied(self) -> bool:
        """Whether any flow is newly denied, be it with no connection counted."""
        return bool((self.changes["decision"] == "denied").any())

    @property
    def counts(self) -> dict[str, int]:
        """Connections by what they newly are."""
        sums = self.changes.groupby("decision")["connections"].sum()
        return {change: int(sums.get(change, 0)) for change in CHANGES}

    def to_json(self, examples: int = 10) -> str:
        """The summary and the first ``examples`` changes of each workload and kind, as JSON."""
        first = self.changes.groupby([*WORKLOAD, "decision"], dropna=False, sort=False)
        content = {
            "schema": 1,
            "mode": None if self.mode is None else str(self.mode),
            "connections": {**self.counts, "unchanged": self.unchanged},
            "workloads": records(self.workloads),
            "changes": records(first.head(examples)),
            "changes_total": len(self.changes),
        }
        return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)

    def _repr_html_(self) -> str:
        return self.changes.to_html(index=False, escape=True, na_rep="–")


def compare(
    policies: Iterable[PortPolicy],
    before: Iterable[PortPolicy],
    flows: pd.DataFrame,
    *,
    mode_override: Mode | None = None,
    now: datetime | None = None,
) -> Comparison:
    """Judge recorded ``flows`` by ``policies`` and by those ``before``.

    Parameters
    ----------
    policies, before, flows, mode_override, now: as in :func:`portforge.policy.simulate`.

    Raises
    ------
    CaptureError: ``flows`` lacks columns of contract 1.
    """
    old, new = (
        [p if mode_override is None else p.model_copy(update={"mode": mode_override}) for p in some]
        for some in (before, policies)
    )
    frame = decide(flows, new, now)
    was = decide(flows, old, now)
    # What is gone with the new policies was a rule of the old ones: it is then the nearest.
    frame = frame.assign(
        decision_before=was["decision"],
        reason_before=was["reason"],
        rule_before=was["decided_by"].fillna(was["nearest"]),
        nearest=frame["decided_by"].fillna(frame["nearest"]),
    )
    changed = frame["decision"].notna() & (frame["decision"] != was["decision"])
    changes = tally.causes(
        frame[changed],
        CHANGES,
        beside=["decision_before", "rule_before", "reason_before"],
    )
    alike = frame["decision"].notna() & ~changed
    return Comparison(
        changes=changes,
        workloads=_workloads(changes),
        unchanged=int(frame.loc[alike, "connections"].sum()),
        mode=mode_override,
    )


def _workloads(changes: pd.DataFrame) -> pd.DataFrame:
    count = changes["connections"]
    table = pd.DataFrame({c: count.where(changes["decision"] == c, 0) for c in CHANGES})
    passed = changes["decision_before"].isin(["allowed", "audited"])
    table["broken"] = (changes["decision"] == "denied") & passed & changes["answered"]
    keys = [changes[name].astype(object) for name in WORKLOAD]
    sums = table.groupby(keys, dropna=False).agg({**dict.fromkeys(CHANGES, "sum"), "broken": "any"})
    return sums.reset_index().astype(dict.fromkeys(WORKLOAD, "str"))
