"""Open a capture and ask it: an engine inside, pandas outside. Learns nothing.

``_files`` finds the files and checks what they say they are, ``_sums`` adds up the rows and
checks that they can be true, ``_rows`` checks the losses and says what is impossible, ``_remote``
keeps a copy of what lies in an object store, ``_times`` reads instants and durations,
``_capture`` asks the questions. ``_compact`` is what writes: it merges small files (``_merged``)
and keeps the sums of ended days (``_rollups``).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from portforge.capture._capture import Capture, open_capture
from portforge.capture._times import Window, parse_time

if TYPE_CHECKING:
    from portforge.capture._compact import Compacted, compact

__all__ = ["Capture", "Compacted", "Window", "compact", "open_capture", "parse_time"]


def __getattr__(name: str) -> object:
    """What only ``portforge compact`` needs, when it is asked for: it brings Ibis."""
    if name in {"Compacted", "compact"}:
        return getattr(import_module("portforge.capture._compact"), name)
    raise AttributeError(name)
