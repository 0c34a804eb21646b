"""Splits in time: learn from what was recorded until an instant, test on the rest. Learns nothing.

The records of one drain interval that an origin falls into are test records: their end was not
known then. So no training record holds anything of the time after the origin.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from portforge.errors import CaptureError

__all__ = ["RollingOrigin", "origins"]

Indices = npt.NDArray[np.intp]


def origins(start: datetime, end: datetime, count: int) -> list[datetime]:
    """``count`` instants that cut a window into equal parts, without its ends.

    >>> from datetime import UTC
    >>> day = datetime(2026, 1, 1, tzinfo=UTC)
    >>> [t.hour for t in origins(day, day + timedelta(days=1), 3)]
    [6, 12, 18]
    """
    if count < 1:
        raise ValueError(f"at least one origin is needed, not {count}")
    return [start + (end - start) * i / (count + 1) for i in range(1, count + 1)]


@dataclass(frozen=True)
class RollingOrigin:
    """A splitter for scikit-learn's ``cross_validate`` over a frame of flows.

    Split ``i`` trains on all records that ended by its origin and tests on those that ended
    later. The origins cut the frame's window into equal parts.

    Parameters
    ----------
    n_splits: number of origins.
    horizon: test only on records begun at most so long after the origin; on all when None.

    Examples
    --------
    >>> at = pd.to_datetime(["2026-01-01", "2026-01-02", "2026-01-03"], utc=True)
    >>> flows = pd.DataFrame({"first_seen": at, "last_seen": at})
    >>> [(train.tolist(), test.tolist()) for train, test in RollingOrigin(2).split(flows)]
    [([0], [1, 2]), ([0, 1], [2])]
    """

    n_splits: int = 5
    horizon: timedelta | None = None

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:  # noqa: ARG002, N803
        """The number of splits."""
        return self.n_splits

    def split(
        self,
        X: pd.DataFrame,  # noqa: N803
        y: Any = None,  # noqa: ARG002
        groups: Any = None,  # noqa: ARG002
    ) -> Iterator[tuple[Indices, Indices]]:
        """Positions of the training and of the test records, origin by origin.

        Raises
        ------
        CaptureError: a part has no records.
        """
        if X.empty:
            raise CaptureError("no records to split", place="DataFrame", remedy="widen the window")
        first, last = X["first_seen"], X["last_seen"]
        for t in origins(first.min(), last.max(), self.n_splits):
            known = (last <= t).to_numpy()
            later = ~known
            if self.horizon is not None:
                later &= (first <= t + self.horizon).to_numpy()
            for part, name in ((known, "until"), (later, "after")):
                if not part.any():
                    raise CaptureError(
                        f"no record {name} {t.isoformat()}",
                        place="DataFrame",
                        remedy="use fewer splits, a longer horizon, or record for longer",
                    )
            yield np.flatnonzero(known), np.flatnonzero(later)
