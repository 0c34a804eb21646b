"""What a capture tells so far, for the next recorder: until when, and which losses.

Not the rows: those are the spool's (:mod:`portforge_recorder.spool`).
"""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

__all__ = ["Mark", "Told"]


class Told(NamedTuple):
    """Until when the capture tells, and the kernel's loss counters as of then."""

    at: datetime
    losses: list[int]


class Mark:
    """What the capture tells so far, on disk: for the next recorder.

    Written before a drain's rows are, with their epoch and with what holds if they do not get
    there: whichever moment this process dies at, no loss is told twice or not at all.
    """

    def __init__(self, capture: Path, cluster: str, node: str, folder: Path) -> None:
        self.path = capture / ".spool" / cluster / f"{node}.drained.json"
        self._programs = folder.name
        self.durable = Told(datetime.now(UTC), [])
        """As of the last rows that are on disk."""

    def read(self, epoch: int | None, reasons: int) -> Told:
        """What rows up to ``epoch`` tell; now and zeros where these programs are new."""
        self.durable = Told(datetime.now(UTC), [0] * reasons)
        with suppress(FileNotFoundError, ValueError, KeyError):
            mark = json.loads(self.path.read_text())
            if mark["programs"] == self._programs:
                at, losses = mark["after" if mark["epoch"] == epoch else "before"]
                self.durable = Told(datetime.fromisoformat(at), list(losses))
        return self.durable

    def write(self, epoch: int, after: Told) -> None:
        """Replace the mark in one step; a full disk keeps the old one."""
        mark = {
            "programs": self._programs,
            "epoch": epoch,
            "before": (self.durable.at.isoformat(), self.durable.losses),
            "after": (after.at.isoformat(), after.losses),
        }
        new = self.path.with_suffix(".new")
        with suppress(OSError):
            new.write_text(json.dumps(mark))
            new.replace(self.path)
