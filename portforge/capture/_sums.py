"""The sums of a capture: one pass over its rows, which also checks them, then small questions.

``portforge.engines`` says what is asked and runs it; here is when. The rows at the ends of a window
are read again, all other days never.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from portforge.capture._rows import impossible
from portforge.capture._times import Window
from portforge.engines import Engine
from portforge.engines._compile import to_sql
from portforge.engines._expressions import (
    aggregated,
    daily,
    days,
    extent,
    flow_rows,
    pods,
    problems,
    rollups,
    within,
)
from portforge.engines._hours import with_hours
from portforge.engines._tests import TESTS
from portforge.errors import CaptureError

__all__ = ["Sums"]


class Sums:
    """The daily sums of the engine's view ``flow_rows``.

    Parameters
    ----------
    fresh: the view with those rows of ``flow_rows`` that are in no rollup; None: all are.
    kept: whether there is a view ``rollup_rows``.

    Raises
    ------
    CaptureError: rows that cannot be true, or whose sum passes 64 bits.
    EngineError: the engine's own trouble.
    """

    def __init__(
        self, engine: Engine, place: str, fresh: str | None = "flow_rows", kept: bool = False
    ) -> None:
        self._engine, self._place = engine, place
        try:
            engine.keep("days", _days(engine.dialect, engine.microseconds, fresh, kept))
            self.rows, wrong, self.first, self.last = self._extent()
        except OverflowError as passed:
            self._check()
            raise self._too_much() from passed
        if wrong:
            self._check()

    def _extent(self) -> tuple[int, int, datetime | None, datetime | None]:
        (found,) = self._engine.ask(self._sql(extent(days()))).to_pylist()
        first, last = (_utc(found[name]) for name in ("first_seen", "last_seen"))
        return int(found["rows"] or 0), int(found["wrong"] or 0), first, last

    def aggregated(self, window: Window) -> pa.Table:
        """See ``Capture.aggregated``."""
        return with_hours(
            self._ask(window, lambda some: aggregated(some, self._engine.microseconds))
        )

    def pods(self, window: Window) -> pa.Table:
        """See ``Capture.pods``."""
        return self._ask(window, pods)

    def _ask(self, window: Window, question: Callable[[ir.Table], ir.Table]) -> pa.Table:
        start = window.start if self.first is None or window.start > self.first else None
        end = window.end if self.last is None or window.end < self.last else None
        some = within(days(), flow_rows(), self._engine.microseconds, start, end)
        try:
            return self._engine.ask(self._sql(question(some)))
        except OverflowError as passed:
            raise self._too_much() from passed

    def _sql(self, expression: ir.Table) -> str:
        return to_sql(expression, self._engine.dialect)

    def _too_much(self) -> CaptureError:
        return CaptureError(
            "connections or bytes of one edge add up to more than 64 bits hold",
            place=self._place,
            remedy="no network carries that: look for the file with such rows and remove it",
        )

    def _check(self) -> None:
        """Refuse the capture where rows are impossible; names the first file and what is wrong."""
        found = self._engine.ask(self._sql(problems(flow_rows()))).to_pylist()
        if not found:
            return
        raise impossible(found[0]["filename"], _counts(found[0]))


@cache
def _days(dialect: str, microseconds: str, fresh: str | None, kept: bool) -> str:
    parts = [rollups()] if kept else []
    if fresh is not None:
        parts.append(daily(flow_rows(fresh), microseconds))
    return to_sql(ibis.union(*parts) if len(parts) > 1 else parts[0], dialect)


def _counts(found: dict[str, Any]) -> dict[str, int]:
    return {name: int(found[f"wrong_{number}"]) for number, name in enumerate(TESTS)}


def _utc(moment: datetime | None) -> datetime | None:
    return moment and moment.astimezone(UTC)
