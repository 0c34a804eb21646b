"""Rollups: the daily sums of one folder of a capture, kept beside it. Which may be used; no sums.

A rollup names the files it was made of with their sizes. It is used while the folder holds exactly
those; else the flow records are read, as if it were not there. It can always be removed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["SOURCES_KEY", "Source", "rollup_of", "rollup_path", "sources", "with_sources"]

SOURCES_KEY = b"portforge.rollup"
"""Key in a rollup's metadata: a JSON list of [name, size in bytes] of the files it sums up."""

Source = tuple[str, int]
_FOLDER = Path("rollup") / "v1"


def rollup_path(root: Path, folder: Path) -> Path:
    """Where the rollup of ``…/cluster=<name>/date=<day>`` stands in the capture ``root``."""
    return root / _FOLDER / folder.parent.name / folder.name / "rollup.parquet"


def sources(files: Iterable[Path]) -> list[Source]:
    """What a rollup of these files is made of; raises OSError."""
    return sorted((path.name, path.stat().st_size) for path in files)


def with_sources(schema: pa.Schema, made_of: list[Source]) -> pa.Schema:
    """``schema`` as that of a rollup."""
    return schema.with_metadata({SOURCES_KEY: json.dumps(made_of).encode()})


def rollup_of(root: Path, folder: Path, files: list[Path], schema: pa.Schema) -> Path | None:
    """The rollup of exactly these files of a folder, or None."""
    path = rollup_path(root, folder)
    try:
        if not os.path.lexists(path):
            return None
        found = pq.read_schema(path)
        made_of = json.loads((found.metadata or {}).get(SOURCES_KEY, b"null"))
        same = made_of == [list(one) for one in sources(files)]
    except (pa.ArrowException, OSError, ValueError):
        return None
    return path if same and found.equals(schema) else None
