"""Files that are whole or not there: temporary name, fsync, rename, fsync. Whatever their rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["Step", "remove", "write_whole"]

Step = Callable[[str], None]
"""Called after each step that another process can see, with its name."""


def write_whole(
    path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch], step: Step
) -> int:
    """Write ``path``; returns how many rows. Raises OSError, and then leaves nothing behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    rows = 0
    try:
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for batch in batches:
                writer.write_table(pa.Table.from_batches([batch]).cast(schema))
                rows += batch.num_rows
        _fsync(temporary)
        step(f"written {temporary.name}")
        temporary.rename(path)
        step(f"renamed {path.name}")
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _fsync(path.parent)
    return rows


def remove(folder: Path, names: Iterable[str], step: Step) -> None:
    """Remove files one by one. Raises OSError."""
    for name in sorted(names):
        (folder / name).unlink(missing_ok=True)
        step(f"removed {name}")
    _fsync(folder)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
