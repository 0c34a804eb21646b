"""The capture on disk: rows go through the spool into Parquet files as contract 1 says.

A file under its final name is whole and will not change. Rows a full disk does not take stay
in the spool, then in memory up to a bound; what is dropped is counted as a loss. Does not know
where rows come from (:mod:`portforge_recorder.attribute`).
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from portforge.errors import WriteError
from portforge.schema import (
    FLOW_SCHEMA,
    LOSS_PREFIX,
    LOSS_SCHEMA,
    SCHEMA_VERSION,
    SORT_COLUMNS,
    LossReason,
)
from portforge_recorder.attribute import canonical
from portforge_recorder.spool import Journal, Spool, fsync_folder

__all__ = ["Writer", "loss_table"]

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class _Held(NamedTuple):
    flows: pa.Table
    losses: pa.Table
    epoch: int


_NOTHING = _Held(FLOW_SCHEMA.empty_table(), LOSS_SCHEMA.empty_table(), 0)


class _Loss(NamedTuple):
    start: datetime
    end: datetime
    amount: int


def loss_table(node: str, losses: list[tuple[LossReason, datetime, datetime, int]]) -> pa.Table:
    """Loss rows: (reason, start of the interval, its end, count) each."""
    rows = [
        {"node": node, "interval_start": start, "interval_end": end, "reason": r, "count": count}
        for r, start, end, count in losses
    ]
    return pa.Table.from_pylist(rows, schema=LOSS_SCHEMA)


class Writer:
    """Writes one node's rows into a capture; takes up what an earlier run left in the spool.

    Parameters
    ----------
    capture: folder of the capture; made when missing.
    cluster, node: whose capture; both stand in paths.
    max_rows: a file is begun anew at this many rows,
    max_seconds: or when its first rows are this old.
    max_held_rows: how many rows wait in memory while the disk takes none.
    spool: folder of the spool, on a disk that keeps; inside the capture when not given.
    now: the clock, in UTC.

    Raises WriteError when it cannot write there at all. ``problem`` is the last failure that
    was not got over yet.
    """

    def __init__(
        self,
        capture: Path,
        cluster: str,
        node: str,
        max_rows: int = 1_000_000,
        max_seconds: float = 300,
        *,
        max_held_rows: int = 500_000,
        spool: Path | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        for what, name in (("cluster", cluster), ("node", node)):
            if not _SAFE_NAME.fullmatch(name):
                raise WriteError(
                    f"the {what} name {name!r} cannot stand in a path",
                    remedy="use letters, digits, dot, dash and underscore",
                )
        self.node = node
        self.folder = Path(capture) / f"v{SCHEMA_VERSION}" / f"cluster={cluster}"
        self.max_rows, self.max_seconds, self.max_held_rows = max_rows, max_seconds, max_held_rows
        self.problem: WriteError | None = None
        self._now = now
        self._held: deque[_Held] = deque()
        self._lost: dict[str, _Loss] = {}
        self._rows = 0
        self._begun: datetime | None = None
        self._tried: datetime | None = None
        try:
            _make_folder(self.folder)
            self._remove_temporaries()
        except OSError as error:
            raise self._failure(error) from error
        self.spool = Spool(spool or Path(capture) / ".spool" / cluster / node)
        self._settle()

    @property
    def epoch(self) -> int | None:
        """The last drain epoch that is surely on disk; None when there never was one."""
        return self.spool.epoch

    @property
    def held_rows(self) -> int:
        """Rows that are in memory only, because the disk took none."""
        return sum(h.flows.num_rows for h in self._held)

    def add(self, flows: pa.Table, losses: pa.Table, epoch: int) -> None:
        """Take what one drain brought; on disk on return unless ``problem`` is set.

        Never raises for a full or failing disk: rows wait, and beyond ``max_held_rows`` they
        are dropped and counted as ``write_failed``.
        """
        self._held.append(_Held(flows, losses, epoch))
        self._store_held()
        if self.held_rows > self.max_held_rows:
            self._drop_newest()
        if self._due():
            self.rotate()

    def rotate(self) -> list[Path]:
        """End the current files; returns those written. A failure is kept in ``problem``."""
        self._store_held()
        self.spool.rotate()
        self._rows, self._begun = 0, None
        return self._settle()

    def flush(self) -> list[Path]:
        """Write everything now, for the end or for a reader; returns the files.

        Raises WriteError when something could not be written. What is in the spool is taken up
        by the next run; what is in memory only is named in the message.
        """
        written = self.rotate()
        if self.problem:
            raise self.problem
        return written

    def close(self) -> list[Path]:
        """Flush, and let another process write. Raises what flush raises, but closes."""
        try:
            return self.flush()
        finally:
            self.spool.close()

    def _due(self) -> bool:
        now = self._now()
        if self._begun and (
            self._rows >= self.max_rows
            # abs: a clock set back must not stop the rotation
            or abs((now - self._begun).total_seconds()) >= self.max_seconds
        ):
            return True
        # After a failure, not at every drain: a try reads whole journals.
        waited = abs((now - self._tried).total_seconds()) if self._tried else 0
        return waited >= self.max_seconds

    def _store_held(self) -> None:
        """Move held rows into the spool, in order, as far as the disk takes them."""
        try:
            while self._held:
                held = self._held[0]
                losses = pa.concat_tables([held.losses, self._lost_table()])
                self.spool.append(held.flows, losses, held.epoch, self._now())
                self._held.popleft()
                self._lost = {}
                self._rows += held.flows.num_rows
                self._begun = self._begun or self._now()
        except OSError as error:
            self.problem = self._failure(error)
        else:
            if not self._tried:
                self.problem = None

    def _settle(self) -> list[Path]:
        """Turn ended journals into Parquet files."""
        written: list[Path] = []
        try:
            for journal in self.spool.journals():
                written += self._convert(journal)
        except OSError as error:
            self.problem = self._failure(error)
            self._tried = self._now()
        else:
            self._tried = None
            if not self._held:
                self.problem = None
        return written

    def _convert(self, journal: Journal) -> list[Path]:
        flows, losses, epoch = self.spool.recover(journal)
        name = f"{self.node}-{journal.start}-{journal.number:06d}.parquet"
        written = []
        for date, part in _by_date(flows, "first_seen"):
            path = self.folder / f"date={date}" / name
            if not _is_there(path):
                _write_file(path, _parquet(canonical(part), sort=SORT_COLUMNS))
                written.append(path)
        for date, part in _by_date(losses, "interval_start"):
            path = self.folder / f"date={date}" / f"{LOSS_PREFIX}{name}"
            if not _is_there(path):
                part = part.sort_by(
                    [("interval_start", "ascending"), ("interval_end", "ascending")]
                )
                _write_file(path, _parquet(part.unify_dictionaries().combine_chunks(), sort=()))
                written.append(path)
        self.spool.done(journal, epoch)
        return written

    def _drop_newest(self) -> None:
        """Give up the newest held rows; their epoch stays, lest the kernel's rows come again."""
        dropped, now = self._held.pop(), self._now()
        self._lose(LossReason.WRITE_FAILED, _Loss(now, now, dropped.flows.num_rows))
        for row in dropped.losses.to_pylist():
            self._lose(
                row["reason"], _Loss(row["interval_start"], row["interval_end"], row["count"])
            )
        before = self._held.pop() if self._held else _NOTHING
        self._held.append(before._replace(epoch=dropped.epoch))

    def _lose(self, reason: str, loss: _Loss) -> None:
        """One sum per reason: what waits in memory must not grow with time."""
        was = self._lost.get(reason, loss._replace(amount=0))
        self._lost[reason] = _Loss(
            min(was.start, loss.start), max(was.end, loss.end), was.amount + loss.amount
        )

    def _lost_table(self) -> pa.Table:
        return loss_table(
            self.node, [(LossReason(r), *loss) for r, loss in sorted(self._lost.items())]
        )

    def _failure(self, error: OSError) -> WriteError:
        waiting = f"; {self.held_rows} rows are in memory only" if self._held else ""
        return WriteError(
            f"cannot write ({error.strerror or error}){waiting}",
            place=str(self.folder),
            remedy="make room or correct the permissions; it is tried again by itself",
        )

    def _remove_temporaries(self) -> None:
        ours = re.compile(
            rf"\.({LOSS_PREFIX})?{re.escape(self.node)}-\d{{8}}T\d{{6}}Z-\d+\.parquet\.tmp"
        )
        for path in self.folder.glob("date=*/.*.tmp"):
            if ours.fullmatch(path.name):
                path.unlink()


def _by_date(table: pa.Table, column: str) -> Iterator[tuple[str, pa.Table]]:
    if not table.num_rows:
        return
    # Without time zone first: the cast of one with a zone asks for a file of the system's.
    plain = table.column(column).cast(pa.int64()).cast(pa.timestamp("us"))
    dates = pc.cast(plain, pa.date32())
    for date in sorted(pc.unique(dates).to_pylist()):
        yield date.isoformat(), table.filter(pc.equal(dates, pa.scalar(date, pa.date32())))


def _parquet(table: pa.Table, sort: tuple[str, ...]) -> bytes:
    sink = pa.BufferOutputStream()
    order = [pq.SortingColumn(table.schema.names.index(name)) for name in sort] or None
    pq.write_table(table, sink, compression="zstd", use_dictionary=True, sorting_columns=order)
    return bytes(sink.getvalue())


def _is_there(path: Path) -> bool:
    """Whether an earlier run wrote it and was killed before it could mark the journal done."""
    if not path.exists():
        return False
    fsync_folder(path.parent)  # which that run may not have come to
    return True


def _write_file(path: Path, data: bytes) -> None:
    """All or nothing: temporary name, fsync, rename, fsync of the folder."""
    _make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def _make_folder(folder: Path) -> None:
    """Make ``folder`` and make its name last, and those of the parents made with it."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    fsync_folder(folder.parent)
