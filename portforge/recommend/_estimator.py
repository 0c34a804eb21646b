"""The recommender in scikit-learn's manner, for cross-validation. Thin: ``recommend`` learns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Self

import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from portforge.capture import Capture
from portforge.policy import Mode, PortPolicy
from portforge.policy._simulate import decide
from portforge.recommend._decisions import Decision, read_decisions
from portforge.recommend._frame import FrameCapture
from portforge.recommend._needed import ANSWERED, kept_out
from portforge.recommend._options import Options
from portforge.recommend._recommend import recommend

__all__ = ["PortPolicyRecommender"]

_WORKLOAD = ["namespace", "workload_kind", "workload"]


class PortPolicyRecommender(BaseEstimator):  # type: ignore[misc]
    """Learns one policy for each workload.

    Parameters
    ----------
    namespaces, workloads: as in :func:`portforge.recommend.recommend`.
    decisions: what the analyst decided: a decisions file, or what ``read_decisions`` gave. Learning
        obeys them, and so does ``score``. A file is read anew by each of the two.
    price, …: the thresholds of :class:`portforge.recommend.Options`, by the same names.

    Attributes
    ----------
    policies_: the policies, in Audit.
    evidence_, findings_: one row for each rule; one for each thing left out or worth a look.
    coverage_: one row for each workload and direction: ``status``; ``hours``, ``days``, ``ports``
        and ``peers`` seen; coverage and richness of ports (``sample_coverage``,
        ``chao2_ports``) and of peers (``peer_coverage``, ``chao2_peers``), by hours, and by
        days with ``_days`` at the end of the name.
    lifecycle_: one row for each workload and item of the checklist: ``answer``, ``missing``.
    report_: what ``report.json`` holds.
    """

    def __init__(
        self,
        *,
        namespaces: Sequence[str] | None = None,
        workloads: Sequence[str] | None = None,
        decisions: str | Path | Sequence[Decision] = (),
        price: int = Options.price,
        scan_ports: int = Options.scan_ports,
        scan_targets: int = Options.scan_targets,
        scan_share: float = Options.scan_share,
        probe_bytes: int = Options.probe_bytes,
        ephemeral_port: int = Options.ephemeral_port,
        dynamic_ephemeral: int = Options.dynamic_ephemeral,
        dynamic_ports: int = Options.dynamic_ports,
        propose_ranges: bool = Options.propose_ranges,
        stable_factor: int = Options.stable_factor,
        outlier_share: float = Options.outlier_share,
        enough_hours: float = Options.enough_hours,
        ready_hours: float = Options.ready_hours,
        enough_coverage: float = Options.enough_coverage,
        enough_draws: int = Options.enough_draws,
    ) -> None:
        self.namespaces = namespaces
        self.workloads = workloads
        self.decisions = decisions
        self.price = price
        self.scan_ports = scan_ports
        self.scan_targets = scan_targets
        self.scan_share = scan_share
        self.probe_bytes = probe_bytes
        self.ephemeral_port = ephemeral_port
        self.dynamic_ephemeral = dynamic_ephemeral
        self.dynamic_ports = dynamic_ports
        self.propose_ranges = propose_ranges
        self.stable_factor = stable_factor
        self.outlier_share = outlier_share
        self.enough_hours = enough_hours
        self.ready_hours = ready_hours
        self.enough_coverage = enough_coverage
        self.enough_draws = enough_draws

    def fit(self, flows: pd.DataFrame | Capture, y: Any = None) -> Self:  # noqa: ARG002
        """Learn from a capture, or from a frame that ``Capture.flows()`` gave.

        A frame says nothing of losses; a capture does.

        Raises
        ------
        CaptureError: as :func:`portforge.recommend.recommend`, or the frame is not one of flows.
        PolicyError: the decisions file cannot be used.
        """
        made = recommend(
            _capture(flows),
            namespaces=self.namespaces,
            workloads=self.workloads,
            options=self._options(),
            decisions=self._decisions(),
        )
        self.policies_: list[PortPolicy] = made.policies
        self.evidence_, self.findings_, self.report_ = made.evidence, made.findings, made.report
        self.coverage_, self.lifecycle_ = _coverage(made.report), _lifecycle(made.report)
        return self

    def score(self, flows: pd.DataFrame | Capture, y: Any = None) -> float:  # noqa: ARG002
        """The share of answered connections that the learned policies, enforced, allow.

        Counted are the TCP and UDP connections of workloads that have a learned policy: what
        nothing restricts would be allowed whatever was learned. Scans and unanswered UDP within
        ``flows`` are not counted, nor is what a decision says is never learned. A record with no
        connection opened is one that was open already, and counts as one. Uncertain is not
        allowed. NaN where nothing can be counted.
        """
        check_is_fitted(self, "policies_")
        capture = _capture(flows)
        rows = capture.flows()
        enforced = [p.model_copy(update={"mode": Mode.ENFORCE}) for p in self.policies_]
        judged = decide(rows, enforced, None)
        restricted = {tuple(policy.workload) for policy in self.policies_}
        owners = judged[_WORKLOAD].itertuples(index=False, name=None)
        sums, said = capture.aggregated(), self._decisions()
        out = kept_out(judged, sums, self._options(), said, capture=capture)
        counted = (
            judged["verdict"].isin(ANSWERED)
            & judged["protocol"].isin(["TCP", "UDP"])
            & (judged["peer_kind"] != "loopback")
            & pd.Series([owner in restricted for owner in owners], index=judged.index)
            & out.isna()
        )
        weight = judged["connections"].clip(lower=1)[counted]
        if weight.empty:
            return float("nan")
        return float(weight[judged["decision"] == "allowed"].sum() / weight.sum())

    def _options(self) -> Options:
        return Options(**{field.name: getattr(self, field.name) for field in fields(Options)})

    def _decisions(self) -> Sequence[Decision]:
        if isinstance(self.decisions, str | Path):
            return read_decisions(self.decisions)
        return self.decisions


def _capture(flows: pd.DataFrame | Capture) -> Capture:
    return flows if isinstance(flows, Capture) else FrameCapture(flows)


def _coverage(report: dict[str, Any]) -> pd.DataFrame:
    rows = [
        {name: one[name] for name in (*_WORKLOAD, "policy", "status")}
        | {"direction": direction}
        | found
        for one in report["workloads"]
        for direction, found in one["coverage"].items()
    ]
    return pd.DataFrame(rows)


def _lifecycle(report: dict[str, Any]) -> pd.DataFrame:
    rows = [
        {name: one[name] for name in (*_WORKLOAD, "policy", "status")} | {"item": item} | found
        for one in report["workloads"]
        for item, found in one["lifecycle"].items()
    ]
    return pd.DataFrame(rows)
