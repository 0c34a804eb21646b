"""DNS answers out of the kernel's ring into :class:`.Names`. What they say is read there."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from portforge.apply import libbpf
from portforge.apply.node import NodeMaps
from portforge_recorder.names import Names

__all__ = ["Answers", "Heard"]

_AT_ONCE = 64
_LONGEST_SECONDS = 0.05
"""Of each look, several times a second: a flood costs names, not records."""


@dataclass(frozen=True)
class Heard:
    """How many DNS answers were read, of which could not be understood, and were never read."""

    read: int = 0
    unreadable: int = 0
    dropped: int = 0


class Answers:
    """The answers that the programs of ``maps`` copy. A context manager."""

    def __init__(self, maps: NodeMaps) -> None:
        self.names = Names()
        self._maps = maps
        self._fd = libbpf.open_pin(maps.folder / "maps" / "answers")
        try:
            self._ring = libbpf.Ring(self._fd)
        except BaseException:
            os.close(self._fd)
            raise
        # What was dropped while nobody listened is not this recorder's to tell.
        self._told = Heard(dropped=self._dropped())

    def __enter__(self) -> Answers:
        return self

    def __exit__(self, *_: object) -> None:
        self._ring.close()
        os.close(self._fd)

    def listen(self) -> None:
        """Take in what waits, for a bounded time."""
        end = time.monotonic() + _LONGEST_SECONDS
        while time.monotonic() < end:
            records = self._ring.read(_AT_ONCE)
            for record in records:
                self.names.hear(record)
            if len(records) < _AT_ONCE:
                return

    def heard(self) -> Heard:
        """The counts since the last call."""
        before, names = self._told, self.names
        self._told = now = Heard(names.read, names.unreadable, self._dropped())
        return Heard(
            now.read - before.read,
            now.unreadable - before.unreadable,
            now.dropped - before.dropped,
        )

    def _dropped(self) -> int:
        return int(self._maps.get("answers_dropped", 0))
