"""Open a capture and ask it: an engine inside, pandas outside. Reads only; learns nothing.

``_files`` finds the files and checks what they say they are, ``_sums`` adds up the rows and
checks that they can be true, ``_rows`` checks the losses and says what is impossible, ``_remote``
keeps a copy of what lies in an object store, ``_times`` reads instants and durations,
``_capture`` asks the questions.
"""

from __future__ import annotations

from portforge.capture._capture import Capture, open_capture
from portforge.capture._times import Window, parse_time

__all__ = ["Capture", "Window", "open_capture", "parse_time"]
