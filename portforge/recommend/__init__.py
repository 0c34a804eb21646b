"""From what workloads did to the policy they need, with the evidence. Applies and approves nothing.

The way through: ``_edges`` (the capture's sums as objects) → ``_scans`` and ``_sort`` (what may be
learned, and what is left out and why) → ``_dynamic`` → ``_rules`` → ``_coverage`` and ``_status``
(how far to trust it) → ``_recommendation`` (the result and its files). All but the first and the
last are functions of their arguments.
"""

from __future__ import annotations

from portforge.recommend._findings import KINDS
from portforge.recommend._options import Options
from portforge.recommend._recommend import recommend
from portforge.recommend._recommendation import Recommendation

__all__ = ["KINDS", "Options", "Recommendation", "recommend"]
