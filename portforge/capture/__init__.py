"""Open a capture and ask it: DuckDB inside, pandas outside. Reads only; judges and learns nothing.

``_files`` finds the files and checks what they say they are, ``_rows`` checks that the rows can
be true, ``_remote`` keeps a copy of what lies in an object store, ``_times`` reads instants and
durations, ``_capture`` asks the questions.
"""

from __future__ import annotations

from portforge.capture._capture import Capture, open_capture
from portforge.capture._times import Window, parse_time

__all__ = ["Capture", "Window", "open_capture", "parse_time"]
