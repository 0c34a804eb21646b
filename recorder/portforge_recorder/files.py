"""Which files of a capture may be read from outside, and which part of one. No HTTP here."""

from __future__ import annotations

import os
import re
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from portforge.schema import SCHEMA_VERSION

__all__ = ["byte_range", "listing", "opened"]

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=:+-]*")


def _fit(name: str) -> bool:
    """Whether ``name`` is that of a finished file: no dot files, no way out of the folder.

    >>> _fit("v1/cluster=c/date=2026-11-25/n-20261125T120000Z-1.parquet")
    True
    >>> [_fit(n) for n in ("v1/../x.parquet", "/v1/x.parquet", ".spool/x.parquet", "v1/.x.parquet")]
    [False, False, False, False]
    """
    parts = name.split("/")
    return (
        parts[0] == f"v{SCHEMA_VERSION}"
        and name.endswith(".parquet")
        and all(_PART.fullmatch(p) for p in parts)
    )


def listing(capture: Path) -> list[dict[str, Any]]:
    """Every finished file below ``capture``: path, size in bytes, time of its last change."""
    found = []
    for file in sorted((capture / f"v{SCHEMA_VERSION}").rglob("*.parquet")):
        name = file.relative_to(capture).as_posix()
        try:
            about = file.lstat()
        except OSError:
            continue
        if _fit(name) and stat.S_ISREG(about.st_mode):
            changed = datetime.fromtimestamp(about.st_mtime, UTC)
            modified = changed.isoformat(timespec="seconds").replace("+00:00", "Z")
            found.append({"path": name, "size": about.st_size, "modified": modified})
    return found


def opened(capture: Path, name: str) -> BinaryIO:
    """The finished file ``name``, open; OSError for anything else, also for what lies outside.

    Folder by folder without following a symbolic link, so nothing can be swapped meanwhile.
    """
    if not _fit(name):
        raise FileNotFoundError(name)
    *folders, last = name.split("/")
    place = os.open(capture, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for folder in folders:
            inside = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=place)
            os.close(place)
            place = inside
        fd = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=place)
    finally:
        os.close(place)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FileNotFoundError(name)
    return os.fdopen(fd, "rb")


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Begin and end (exclusive) that a Range header asks for (RFC 9110, 14.2); None for all.

    Several ranges at once are answered with all of it, as the RFC allows.

    Raises
    ------
    ValueError: nothing of it is there.

    >>> byte_range("bytes=2-5", 10), byte_range("bytes=8-", 10), byte_range("bytes=-3", 10)
    ((2, 6), (8, 10), (7, 10))
    """
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None or not any(found.groups()):
        return None
    first, last = found.groups()
    if not first:
        begin, end = max(size - int(last), 0), size
    else:
        begin, end = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < begin:
            return None
    if begin >= end:
        raise ValueError(header)
    return begin, end
