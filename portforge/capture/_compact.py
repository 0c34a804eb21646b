"""Compact a capture: few files instead of many, and a rollup for each ended day. Reads no window.

It may be killed at any moment: a merged file counts from its rename on, whole, and from then on
readers pass over what it holds (``_merged``); only then are those files removed. Days that have
not ended, and everything that only a recorder writes, are not touched.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from portforge.capture._files import Files, find_files
from portforge.capture._merged import MERGED, REPLACES_KEY, merged_in
from portforge.capture._rollups import rollup_of, rollup_path, sources, with_sources
from portforge.capture._sums import Sums
from portforge.capture._write import Step, remove, write_whole
from portforge.engines import EngineError
from portforge.engines._duckdb import DuckDB
from portforge.engines._expressions import DAYS_SCHEMA
from portforge.errors import CaptureError, WriteError
from portforge.schema import FLOW_SCHEMA, LOSS_PREFIX, LOSS_SCHEMA, SORT_COLUMNS
from portforge.store import store_url

__all__ = ["Compacted", "Day", "compact"]

_GRACE = timedelta(hours=1)
"""So long after midnight a recorder may still write files of the day before."""
_FULL = 2_000_000
"""A file with so many rows is not merged again."""
_MOST = 8_000_000
"""Rows in a merged file, unless a single file has more."""
_GROUP = 262_144
_TEMPORARY = re.compile(rf"\.({MERGED.pattern}|rollup\.parquet)\.tmp")


@dataclass(frozen=True)
class Day:
    """One cluster's ended day: its files before and after, in number and bytes, and its rollup."""

    cluster: str
    date: str
    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int | None
    """None in a dry run, where something would be merged."""
    rollup: str
    """``written``, ``kept``, ``none`` without flow records; in a dry run ``missing`` where it would
    be written."""


@dataclass(frozen=True)
class Compacted:
    """What was done, or in a dry run would be: ``days`` in order, and the days left alone."""

    days: tuple[Day, ...]
    left: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def compact(
    path: str | Path,
    *,
    now: datetime | None = None,
    dry_run: bool = False,
    step: Step = lambda name: None,  # noqa: ARG005
) -> Compacted:
    """Merge the small files of ended days in the capture ``path``, and keep their daily sums.

    Flow records and losses stay as they are, row for row; what is asked of the capture has the
    same answer before, after and at every moment between.

    Parameters
    ----------
    now: a day has ended when its midnight is an hour before this.
    dry_run: only say what would be done.
    step: called after each step that another process can see.

    Raises
    ------
    CaptureError: not a folder with a capture, impossible rows, or another compact works on it.
    WriteError: the disk is full or does not let us; the capture is whole.
    """
    if url := store_url(path):
        raise CaptureError(
            "only a folder can be compacted, not an object store",
            place=url,
            remedy="open it as it is: days are copied once; or compact a folder and copy that",
        )
    files = find_files(Path(path))
    if dry_run:
        return _all(files, now, True, step)
    try:
        with _alone(files.root):
            # Again: between the first look and the lock, another may have worked.
            return _all(find_files(files.root), now, False, step)
    except OSError as wrong:
        raise WriteError(
            f"cannot be compacted ({wrong.strerror or wrong})",
            place=str(wrong.filename or files.root),
            remedy="make room or correct the permissions; no row was lost, and it can be repeated",
        ) from wrong


def _all(files: Files, now: datetime | None, dry_run: bool, step: Step) -> Compacted:
    today = ((now or datetime.now(UTC)) - _GRACE).astimezone(UTC).date()
    every = {Path(file).parent for file in (*files.flows, *files.losses, *files.merged)}
    ended = {folder for folder in every if _date(folder) < today}
    done = [_one(files.root, folder, dry_run, step) for folder in sorted(ended)]
    left = sorted(str(folder.relative_to(files.root)) for folder in every - ended)
    return Compacted(tuple(done), tuple(left))


def _one(root: Path, folder: Path, dry_run: bool, step: Step) -> Day:
    before = find_files(root, _names(root, folder), may_be_empty=True)
    flows, losses = (sorted(map(Path, some)) for some in (before.flows, before.losses))
    groups = [*_groups(flows), *_groups(losses)]
    everything = [*flows, *losses, *map(Path, before.merged)]
    size = sum(path.stat().st_size for path in everything)
    after = len(flows) + len(losses) - sum(len(group) - 1 for group in groups)
    fits = not flows or rollup_of(root, folder, flows, DAYS_SCHEMA) is not None
    rollup = ("kept" if flows else "none") if fits and not groups else "missing"
    size_after: int | None = size
    if not dry_run:
        _tidy(root, folder, [path.name for path in map(Path, before.merged)], step)
        for group in groups:
            _merge(folder, group, step)
        now = find_files(root, _names(root, folder), may_be_empty=True)
        if rollup == "missing":
            _roll_up(root, folder, sorted(map(Path, now.flows)), step)
            rollup = "written"
        size_after = sum(Path(path).stat().st_size for path in (*now.flows, *now.losses))
    elif groups or before.merged:
        size_after = None
    cluster = folder.parent.name.removeprefix("cluster=")
    day = _date(folder).isoformat()
    return Day(cluster, day, len(everything), after, size, size_after, rollup)


def _groups(files: list[Path]) -> list[list[Path]]:
    """The files to merge with each other: two or more small ones, up to a number of rows."""
    groups: list[list[Path]] = [[]]
    rows = 0
    for path in files:
        own = pq.read_metadata(path).num_rows
        if own >= _FULL:
            continue
        if groups[-1] and rows + own > _MOST:
            groups.append([])
            rows = 0
        groups[-1].append(path)
        rows += own
    return [group for group in groups if len(group) > 1]


def _merge(folder: Path, files: list[Path], step: Step) -> None:
    """One file with the rows of all; then remove those."""
    names = {path.name for path in files}
    names |= {name for older in merged_in(files).values() for name in older}
    is_loss = files[0].name.startswith(LOSS_PREFIX)
    digest = hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:16]
    target = folder / f"{LOSS_PREFIX if is_loss else ''}merged-{digest}.parquet"
    schema = LOSS_SCHEMA if is_loss else FLOW_SCHEMA
    marked = schema.with_metadata(
        {**(schema.metadata or {}), REPLACES_KEY: json.dumps(sorted(names)).encode()}
    )
    first = () if is_loss else SORT_COLUMNS
    order = ", ".join(f'"{name}"' for name in dict.fromkeys((*first, *schema.names)))
    columns = ", ".join(f'"{name}"' for name in schema.names)
    with _engine(files) as engine:
        sorted_rows = engine.connection.sql(f"SELECT {columns} FROM flow_rows ORDER BY {order}")  # noqa: S608
        rows = write_whole(target, marked, sorted_rows.to_arrow_reader(_GROUP), step)
    expected = sum(pq.read_metadata(path).num_rows for path in files)
    if rows != expected:
        target.unlink()
        raise CaptureError(
            f"{rows} of {expected} rows came out of the merge",
            place=str(folder),
            remedy="nothing was removed; tell us of this",
        )
    remove(folder, {path.name for path in files} - {target.name}, step)


def _roll_up(root: Path, folder: Path, flows: list[Path], step: Step) -> None:
    made_of = sources(flows)
    with _engine(flows) as engine:
        Sums(engine, str(folder))  # refuses impossible rows
        kept = engine.ask("SELECT * FROM days ORDER BY ALL").cast(DAYS_SCHEMA)
    schema = with_sources(DAYS_SCHEMA, made_of)
    write_whole(rollup_path(root, folder), schema, kept.to_batches(), step)


@contextmanager
def _engine(files: list[Path]) -> Iterator[DuckDB]:
    """DuckDB with the rows of the files as ``flow_rows``."""
    engine = DuckDB()
    try:
        engine.scan("flow_rows", [str(path) for path in files])
        yield engine
    except (EngineError, duckdb.Error) as wrong:
        text = str(wrong)
        place = next((str(path) for path in files if str(path) in text), str(files[0].parent))
        raise CaptureError(
            f"damaged rows ({text.splitlines()[0]})",
            place=place,
            remedy="remove the file; the other files of the capture stay usable",
        ) from None
    finally:
        engine.connection.close()


def _tidy(root: Path, folder: Path, merged: list[str], step: Step) -> None:
    """Finish what a killed compact began. Temporaries with names of a recorder are its own."""
    for place in (folder, rollup_path(root, folder).parent):
        for path in place.glob(".*.tmp"):
            if _TEMPORARY.fullmatch(path.name):
                path.unlink(missing_ok=True)
    if merged:
        remove(folder, merged, step)


def _names(root: Path, folder: Path) -> list[str]:
    return [
        path.relative_to(root).as_posix()
        for path in folder.glob("*.parquet")
        if not path.name.startswith(".")
    ]


def _date(folder: Path) -> date:
    return date.fromisoformat(folder.name.removeprefix("date="))


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Hold the capture's lock; the kernel lets go of it when this process ends, however."""
    handle = os.open(root / ".compact.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CaptureError(
                "another portforge compact works on it",
                place=str(root),
                remedy="wait until it ends",
            ) from None
        yield
    finally:
        with suppress(OSError):
            os.close(handle)
