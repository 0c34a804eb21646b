"""Rows that are not in a Parquet file yet, on disk: survives SIGKILL and a power cut.

A spool is a folder of journals. A journal is a sequence of frames, one per drain: a header with
length, checksum and the kernel's drain epoch, then the rows and the losses as Arrow IPC
streams. A torn last frame is ignored, so an append happened entirely or not at all. Knows
nothing of Parquet (:mod:`portforge_recorder.writer`).

States of a journal, by its name::

    00000007-20261125T120000Z.journal      rows that are in no Parquet file, or not surely
    00000007-20261125T120000Z-41.done      its rows are in Parquet files; the last epoch was 41

The journal's number and start are in the names of the Parquet files made of it. So a recorder
that was killed between writing Parquet and marking the journal done finds the files there and
does not write the rows twice.
"""

from __future__ import annotations

import fcntl
import os
import re
import struct
import zlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from portforge.errors import WriteError
from portforge.schema import FLOW_SCHEMA, LOSS_SCHEMA

__all__ = ["Journal", "Recovered", "Spool", "fsync_folder"]

# magic, CRC-32 of all that follows, epoch, length of the two Arrow streams
_HEADER = struct.Struct("<4sIQQ")
_MAGIC = b"PFJ1"
_NAME = re.compile(r"(?P<number>\d{8})-(?P<start>\d{8}T\d{6}Z)(?:-(?P<epoch>\d+)\.done|\.journal)")


@dataclass(frozen=True, order=True)
class Journal:
    """One journal: its number, growing for ever, and its start as compact UTC."""

    number: int
    start: str
    path: Path


class Recovered(NamedTuple):
    """What a journal holds: rows, losses, and the epoch of its last whole frame."""

    flows: pa.Table
    losses: pa.Table
    epoch: int | None


class Spool:
    """The journals in ``folder``; one process at a time.

    Raises WriteError when the folder cannot be made or another process uses it. Of the other
    methods, those that write raise OSError as the system gave it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file: int | None = None
        self._size = 0
        self._current: Journal | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise WriteError(
                f"cannot keep a spool ({error.strerror})",
                place=str(folder),
                remedy="check the path, its permissions and the space left",
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise WriteError(
                "another recorder of this node writes this capture",
                place=str(folder),
                remedy="stop it, or record into another folder",
            ) from error
        marks = [(j.number, epoch) for j, epoch in self._scan() if epoch is not None]
        self._next = max((j.number for j, _ in self._scan()), default=0) + 1
        self.epoch: int | None = max(marks)[1] if marks else None
        """Of the last append that is surely on disk."""
        for journal in self.journals():
            epoch = self.recover(journal).epoch
            self.epoch = epoch if epoch is not None else self.epoch

    def append(self, flows: pa.Table, losses: pa.Table, epoch: int, now: datetime) -> None:
        """Add what one drain brought; on return it is on disk.

        On OSError nothing of it is there, and it may be tried again.

        Parameters
        ----------
        flows, losses: tables with ``FLOW_SCHEMA`` and ``LOSS_SCHEMA``; either may be empty.
        epoch: the kernel's epoch that was drained.
        now: when; names the journal where this begins one.
        """
        body = b""
        if flows.num_rows or losses.num_rows:
            body = _stream(flows, FLOW_SCHEMA) + _stream(losses, LOSS_SCHEMA)
        rest = struct.pack("<QQ", epoch, len(body)) + body
        frame = _MAGIC + struct.pack("<I", zlib.crc32(rest)) + rest
        file = self._open(now)
        try:
            _write_all(file, frame)
            os.fsync(file)
        except OSError:
            try:
                os.ftruncate(file, self._size)
            except OSError:
                self.rotate()  # its torn tail is ignored; the next append begins a new one
            raise
        self._size += len(frame)
        self.epoch = epoch

    def rotate(self) -> None:
        """End the current journal; the next append begins another."""
        if self._file is not None:
            os.close(self._file)
        self._file = self._current = None

    def journals(self) -> list[Journal]:
        """Journals that are ended and not done, oldest first."""
        return sorted(j for j, epoch in self._scan() if epoch is None and j != self._current)

    def recover(self, journal: Journal) -> Recovered:
        """The rows of a journal up to its end or its torn tail."""
        data = pa.py_buffer(journal.path.read_bytes())
        flows: list[pa.Table] = [FLOW_SCHEMA.empty_table()]
        losses: list[pa.Table] = [LOSS_SCHEMA.empty_table()]
        epoch: int | None = None
        at = 0
        while at + _HEADER.size <= data.size:
            magic, crc, frame_epoch, length = _HEADER.unpack(data[at : at + _HEADER.size])
            end = at + _HEADER.size + length
            if magic != _MAGIC or end > data.size or zlib.crc32(data[at + 8 : end]) != crc:
                break
            if length:
                source = pa.BufferReader(data[at + _HEADER.size : end])
                flows.append(pa.ipc.open_stream(source).read_all())
                losses.append(pa.ipc.open_stream(source).read_all())
            epoch, at = frame_epoch, end
        return Recovered(pa.concat_tables(flows), pa.concat_tables(losses), epoch)

    def done(self, journal: Journal, epoch: int | None) -> None:
        """The journal's rows are in Parquet: remember its last epoch, drop the rest.

        Needs no space on the disk, so that a full one can be left behind.
        """
        older = [j for j, mark in self._scan() if mark is not None and j.number < journal.number]
        if epoch is None:
            journal.path.unlink()
        else:
            mark = self.folder / f"{journal.path.stem}-{epoch}.done"
            journal.path.rename(mark)
            fsync_folder(self.folder)
            os.truncate(mark, 0)
            for other in older:
                other.path.unlink()
        fsync_folder(self.folder)

    def close(self) -> None:
        """End the current journal and let another process have the folder."""
        self.rotate()
        os.close(self._lock)

    def _open(self, now: datetime) -> int:
        if self._file is None:
            start = f"{now:%Y%m%dT%H%M%SZ}"
            path = self.folder / f"{self._next:08d}-{start}.journal"
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._file = os.open(path, flags, 0o600)
            self._current = Journal(self._next, start, path)
            self._next, self._size = self._next + 1, 0
            fsync_folder(self.folder)
        return self._file

    def _scan(self) -> list[tuple[Journal, int | None]]:
        """Every journal, with its last epoch when it is done."""
        found = [(_NAME.fullmatch(path.name), path) for path in self.folder.iterdir()]
        return [
            (Journal(int(m["number"]), m["start"], path), int(m["epoch"]) if m["epoch"] else None)
            for m, path in found
            if m
        ]


def fsync_folder(folder: Path) -> None:
    """Make names just given or taken in ``folder`` last."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _stream(table: pa.Table, schema: pa.Schema) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as stream:
        # One chunk: a stream may not replace a dictionary between the columns of one batch.
        stream.write_table(table.unify_dictionaries().combine_chunks())
    return bytes(sink.getvalue())


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
