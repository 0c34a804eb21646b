"""Merged files: which files of a day one takes the place of. Reads footers; writes nothing.

A merged file names in its metadata all files whose rows it holds. From the moment it has its
final name, readers pass over those, so they can be removed one by one, and may come back (from a
pull, from a recorder that starts again) without doubling a row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from portforge.errors import CaptureError
from portforge.schema import LOSS_PREFIX

__all__ = ["MERGED", "REPLACES_KEY", "merged_in", "passed_over"]

REPLACES_KEY = b"portforge.replaces"
"""Key in the metadata of a merged file: a JSON list of the names of the files it holds."""

MERGED = re.compile(rf"({LOSS_PREFIX})?merged-[0-9a-f]{{16}}\.parquet")
"""The names of merged files."""


def merged_in(names: Iterable[Path]) -> dict[str, frozenset[str]]:
    """The merged files among the files of one folder, and the names each replaces.

    Raises
    ------
    CaptureError: a file with such a name is truncated, or was not made by ``portforge compact``.
    """
    return {path.name: _replaces(path) for path in names if MERGED.fullmatch(path.name)}


def passed_over(merged: Mapping[str, frozenset[str]], place: Path) -> frozenset[str]:
    """The names in the folder ``place`` whose rows another file there holds.

    Raises
    ------
    CaptureError: two merged files hold rows of the same file, and each more than the other.
    """
    over = {name for names in merged.values() for name in names}
    over |= {
        name
        for name, names in merged.items()
        for other, more in merged.items()
        # Of two that hold the same, the first by name stays.
        if names < more or (names == more and other < name)
    }
    left = sorted(set(merged) - over)
    for number, one in enumerate(left):
        for other in left[number + 1 :]:
            if both := merged[one] & merged[other]:
                raise CaptureError(
                    f"{one} and {other} both hold the rows of {min(both)}",
                    place=str(place),
                    remedy="remove one of them and bring its files again: a capture is compacted "
                    "where it was recorded or where it was pulled to, not in both places",
                )
    return frozenset(over)


def _replaces(path: Path) -> frozenset[str]:
    try:
        metadata = pq.read_schema(path).metadata or {}
        names = json.loads(metadata[REPLACES_KEY])
        return frozenset(map(str, names))
    except (pa.ArrowException, KeyError, ValueError, TypeError) as wrong:
        raise CaptureError(
            "truncated, or not a merged file of portforge compact",
            place=str(path),
            remedy="remove the file if the files that it was made of are there",
        ) from wrong
    except OSError as wrong:
        raise CaptureError(
            f"cannot be read ({wrong.strerror or wrong})",
            place=str(path),
            remedy="check the permissions",
        ) from None
