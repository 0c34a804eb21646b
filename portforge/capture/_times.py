"""Instants, durations and windows of a capture. UTC only; never reads the clock."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from portforge.errors import CaptureError

__all__ = ["Instant", "Window", "instant", "iso", "parse_time"]

Instant = str | datetime | None
"""A time as callers give it: text, UTC where it has no zone, or none."""

_DURATION = re.compile(r"(?P<count>\d+(?:\.\d+)?)\s*(?P<unit>s|m|h|d|w)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class Window(NamedTuple):
    """From the first to the last event; both instants in UTC.

    >>> Window(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)).hours
    24.0
    """

    start: datetime
    end: datetime

    @property
    def hours(self) -> float:
        """The length in hours."""
        return (self.end - self.start).total_seconds() / 3600


def iso(instant: datetime) -> str:
    """ISO 8601 in UTC with a ``Z``.

    >>> iso(datetime(2026, 1, 1, 12, tzinfo=UTC))
    '2026-01-01T12:00:00Z'
    """
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def parse_time(text: str, end: datetime) -> datetime:
    """An ISO timestamp, or a duration (``90s 30m 2h 7d 1w``) before the end of the capture.

    Durations count back from the capture's last event, not from now, so that the same command
    gives the same answer tomorrow. A timestamp without an offset is UTC.

    Raises
    ------
    CaptureError: the text is neither.

    >>> end = datetime(2026, 1, 2, tzinfo=UTC)
    >>> iso(parse_time("2h", end))
    '2026-01-01T22:00:00Z'
    >>> iso(parse_time("2026-01-01T10:00:00+02:00", end))
    '2026-01-01T08:00:00Z'
    """
    if match := _DURATION.fullmatch(text.strip()):
        seconds = float(match["count"]) * _SECONDS[match["unit"]]
        try:
            return end - timedelta(seconds=seconds)
        except OverflowError:
            raise _not_a_time(text) from None
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise _not_a_time(text) from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def instant(value: Instant, end: datetime) -> datetime | None:
    """``value`` as an instant; text as :func:`parse_time` reads it."""
    if isinstance(value, str):
        return parse_time(value, end)
    if value is not None and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    return value


def _not_a_time(text: str) -> CaptureError:
    return CaptureError(
        f"{text!r} is not a time",
        remedy="write an ISO timestamp (2026-01-31T08:00:00Z) or a duration (30m, 2h, 7d)",
    )
