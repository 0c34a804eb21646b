"""Find the files of a capture and check what they say they are. Reads footers, not rows."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from portforge.capture._merged import merged_in, passed_over
from portforge.errors import CaptureError
from portforge.schema import FLOW_SCHEMA, LOSS_PREFIX, LOSS_SCHEMA, SCHEMA_VERSION, VERSION_KEY

__all__ = ["Files", "find_files"]

_LAYOUT = "v1/cluster=<name>/date=<YYYY-MM-DD>/<file>.parquet"
_OTHER_VERSION = re.compile(r"v\d+")


@dataclass(frozen=True)
class Files:
    """The files of one capture, sorted: ``flows`` hold flow records, ``losses`` what was lost.

    ``merged`` are there too, but their rows stand in another file of the same folder.
    """

    root: Path
    flows: tuple[str, ...]
    losses: tuple[str, ...]
    merged: tuple[str, ...] = ()

    def folders(self) -> dict[Path, list[Path]]:
        """The flow files by their folder, one for each cluster and day."""
        found: defaultdict[Path, list[Path]] = defaultdict(list)
        for file in map(Path, self.flows):
            found[file.parent].append(file)
        return dict(found)


def find_files(
    path: Path, only: Iterable[str] | None = None, *, may_be_empty: bool = False
) -> Files:
    """The files below ``path``, each with a footer that keeps contract 1.

    Names that begin with a dot are the recorder's unfinished files and are passed over, and so are
    files that a merged file holds. ``only`` names the files to take, where not all are meant.

    Raises
    ------
    CaptureError: no capture, empty, another schema version, a truncated or foreign file.
    """
    root = path.parent if path.name == "v1" and not (path / "v1").exists() else path
    base = root / f"v{SCHEMA_VERSION}"
    try:
        _check_root(root, base)
        found = sorted(
            p
            for p in (base.rglob("*.parquet") if only is None else map(root.joinpath, only))
            if not any(part.startswith(".") for part in p.relative_to(base).parts)
        )
    except OSError as wrong:
        raise _unreadable(root, wrong) from None
    flows: list[str] = []
    losses: list[str] = []
    for file in found:
        _check_place(file, base)
    over = _passed_over(found)
    for file in found:
        if file in over:
            continue
        is_loss = file.name.startswith(LOSS_PREFIX)
        _check_footer(file, LOSS_SCHEMA if is_loss else FLOW_SCHEMA)
        (losses if is_loss else flows).append(str(file))
    if not flows and not may_be_empty:
        raise CaptureError(
            "the capture holds no flow files", place=str(root), remedy="record some traffic first"
        )
    return Files(root, tuple(flows), tuple(losses), tuple(str(p) for p in found if p in over))


def _passed_over(found: list[Path]) -> set[Path]:
    folders: defaultdict[Path, list[Path]] = defaultdict(list)
    for file in found:
        folders[file.parent].append(file)
    over = set()
    for folder, files in folders.items():
        names = passed_over(merged_in(files), folder)
        over |= {file for file in files if file.name in names}
    return over


def _check_root(root: Path, base: Path) -> None:
    if not root.exists():
        raise CaptureError("no such folder", place=str(root), remedy="check the path")
    if not root.is_dir():
        raise CaptureError(
            "a file, not a capture", place=str(root), remedy="give the folder that holds v1/"
        )
    if base.is_dir():
        return
    inside = sorted(p.name for p in root.iterdir())
    others = [name for name in inside if _OTHER_VERSION.fullmatch(name)]
    if others:
        raise CaptureError(
            f"the capture has schema version {', '.join(o[1:] for o in others)}; "
            f"this program reads {SCHEMA_VERSION}",
            place=str(root),
            remedy="use the portforge release that recorded it",
        )
    raise CaptureError(
        "the folder is empty" if not inside else "not a capture: it holds no v1/ folder",
        place=str(root),
        remedy="record some traffic first" if not inside else "give the folder that holds v1/",
    )


def _check_place(file: Path, base: Path) -> None:
    parts = file.relative_to(base).parts
    if len(parts) == 3 and parts[0].startswith("cluster=") and parts[1].startswith("date="):
        try:
            date.fromisoformat(parts[1].removeprefix("date="))
        except ValueError:
            pass
        else:
            return
    raise CaptureError(
        f"the file does not stand at {_LAYOUT}",
        place=str(file),
        remedy="move it out of the capture",
    )


def _check_footer(file: Path, schema: pa.Schema) -> None:
    try:
        found = pq.read_schema(file)
    except pa.ArrowException as wrong:
        raise CaptureError(
            f"truncated or not Parquet ({_first_line(wrong)})",
            place=str(file),
            remedy="remove the file; the other files of the capture stay usable",
        ) from None
    except OSError as wrong:
        raise _unreadable(file, wrong) from None
    version = (found.metadata or {}).get(VERSION_KEY)
    if version is None:
        raise CaptureError(
            "a foreign Parquet file: no portforge schema version in its metadata",
            place=str(file),
            remedy="move it out of the capture",
        )
    if version != str(SCHEMA_VERSION).encode():
        raise CaptureError(
            f"schema version {version.decode(errors='replace')}; "
            f"this program reads {SCHEMA_VERSION}",
            place=str(file),
            remedy="use the portforge release that recorded it",
        )
    _check_columns(file, found, schema)


def _check_columns(file: Path, found: pa.Schema, schema: pa.Schema) -> None:
    problems = [f"no column {name}" for name in schema.names if name not in found.names]
    problems += [f"unknown column {name}" for name in found.names if name not in schema.names]
    problems += [
        f"column {field.name} is {found.field(field.name).type}, not {field.type}"
        for field in schema
        if found.names.count(field.name) == 1
        and _plain(found.field(field.name).type) != _plain(field.type)
    ]
    if problems:
        raise CaptureError(
            f"does not keep schema version {SCHEMA_VERSION}: {', '.join(problems)}",
            place=str(file),
            remedy="`portforge schema` prints the columns; rewrite or remove the file",
        )


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type without its encoding: other writers may not dictionary-encode."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.string() if pa.types.is_large_string(kind) else kind


def _unreadable(place: Path, wrong: OSError) -> CaptureError:
    return CaptureError(
        f"cannot be read ({wrong.strerror or _first_line(wrong)})",
        place=str(place),
        remedy="check the permissions",
    )


def _first_line(wrong: BaseException) -> str:
    return (str(wrong).splitlines() or [type(wrong).__name__])[0].rstrip(".")
