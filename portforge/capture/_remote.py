"""Keep a copy of a capture in an object store: bytes come once, later only new files. No rows here.

DuckDB and the checks of footers work on the copy, as on any folder. It is below
``$XDG_CACHE_HOME/portforge/captures``; removing it costs nothing but the next download.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

from portforge.capture._times import Instant, instant
from portforge.errors import CaptureError
from portforge.store import Store, Stored, open_store

__all__ = ["mirror"]

_PLACE = re.compile(r"v1/cluster=[^/]+/date=(\d{4}-\d\d-\d\d)/[^/]+\.parquet")
_DAY = timedelta(days=1)


def mirror(url: str, since: Instant = None, until: Instant = None) -> tuple[Path, list[str]]:
    """Copy what is missing; the folder of the copy, and the files in it that are the capture.

    Parameters
    ----------
    since, until: only days that can hold rows of this window, and always the newest: durations
        count from the capture's end. The day before belongs to it: a row that began there may
        reach into the window.

    Raises
    ------
    CaptureError: the store cannot be read, or holds no capture there.
    """
    store = open_store(url)
    listed = store.list()
    files: defaultdict[date, list[Stored]] = defaultdict(list)
    for file in listed:
        files[_day(store, file)].append(file)
    if not files:
        raise CaptureError(
            "no capture there: no files below v1/",
            place=url,
            remedy="give the prefix that the agents ship to (capture.objectStore.url)",
        )
    newest = max(files)
    midnight = datetime.combine(newest, time(), UTC)
    begin, end = instant(since, midnight), instant(until, midnight + 2 * _DAY)
    first = begin.astimezone(UTC).date() - _DAY if begin else date.min
    last = end.astimezone(UTC).date() if end else newest
    wanted = [f for d in sorted(files) if first <= d <= last or d == newest for f in files[d]]
    root = _cache(url)
    try:
        _forget(root, {f.path for f in listed})
        missing = [f for f in wanted if not _here(root, f)]
        with ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(_fetch, store, root, f.path) for f in missing]:
                done.result()
    except OSError as wrong:
        raise CaptureError(
            f"the copy of {url} cannot be written ({wrong.strerror or wrong})",
            place=str(root),
            remedy="make room, or set XDG_CACHE_HOME to another folder",
        ) from None
    return root, [f.path for f in wanted]


def _day(store: Store, file: Stored) -> date:
    found = _PLACE.fullmatch(file.path)
    try:
        if found:
            return date.fromisoformat(found[1])
    except ValueError:
        pass
    raise CaptureError(
        "the file does not stand at v1/cluster=<name>/date=<YYYY-MM-DD>/<file>.parquet",
        place=f"{store.url}/{file.path}",
        remedy="move it out of the capture",
    )


def _cache(url: str) -> Path:
    """One folder for each store and URL: the same URL may mean another store elsewhere."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    name = hashlib.sha256(f"{endpoint} {url}".encode()).hexdigest()[:16]
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "portforge" / "captures" / name


def _here(root: Path, file: Stored) -> bool:
    path = root / file.path
    return path.is_file() and path.stat().st_size == file.size


def _forget(root: Path, there: set[str]) -> None:
    for path in root.rglob("*.parquet"):
        if path.relative_to(root).as_posix() not in there:
            path.unlink(missing_ok=True)


def _fetch(store: Store, root: Path, name: str) -> None:
    data = store.get(name)
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as new:
        try:
            new.write(data)
            new.close()
            Path(new.name).replace(path)
        except BaseException:
            Path(new.name).unlink(missing_ok=True)
            raise
