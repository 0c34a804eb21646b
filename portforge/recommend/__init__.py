"""From what workloads did to the policy they need, with the evidence. Applies and approves nothing.

The way through: ``_edges`` (the capture's sums as objects) → ``_scans`` and ``_sort`` (what may be
learned, and what is left out and why) → ``_decide`` (the analyst's decisions overrule that) →
``_dynamic``, ``_ranges``, ``_rules`` and ``_peers`` (at the ``_price``, and across none of the
``_marks``) → ``_phases`` and ``_evidence`` → ``_seen``, ``_coverage``, ``_lifecycle``, ``_missing``
and ``_status`` (how far to trust it) → ``_report`` and ``_recommendation`` (the result and its
files). All but the first and the last are functions of their arguments.

Around it: ``_estimator`` and ``_split`` (the same for scikit-learn), ``_backtest`` (what policies
learned earlier would have broken later), ``_verify`` (what any policies would break), ``_drift``
(what policies in force lack, and what nobody uses), ``_needed`` (what policies should allow),
``_roles`` (which workloads behave alike).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from portforge.recommend._backtest import backtest, backtest_workloads
from portforge.recommend._decisions import Decision, read_decisions
from portforge.recommend._drift import Drift, drift
from portforge.recommend._findings import KINDS
from portforge.recommend._needed import kept_out
from portforge.recommend._options import Options
from portforge.recommend._recommend import recommend
from portforge.recommend._recommendation import Recommendation
from portforge.recommend._roles import Roles, roles
from portforge.recommend._split import RollingOrigin
from portforge.recommend._verify import Verification, verify

if TYPE_CHECKING:
    from portforge.recommend._estimator import PortPolicyRecommender

__all__ = [
    "KINDS",
    "Decision",
    "Drift",
    "Options",
    "PortPolicyRecommender",
    "Recommendation",
    "Roles",
    "RollingOrigin",
    "Verification",
    "backtest",
    "backtest_workloads",
    "drift",
    "kept_out",
    "read_decisions",
    "recommend",
    "roles",
    "verify",
]


def __getattr__(name: str) -> Any:
    # scikit-learn takes a second to import, and the command line does not need it.
    if name == "PortPolicyRecommender":
        from portforge.recommend._estimator import PortPolicyRecommender

        return PortPolicyRecommender
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
