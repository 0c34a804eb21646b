"""``capture pull`` and ``compact``: nothing comes twice or is asked for again, all is there."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

from flow_rows import row, write_file
from pandas.testing import assert_frame_equal

from portforge.capture import compact, open_capture
from portforge.kube.capture import Listed, missing
from portforge_recorder.files import listing

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)


def add(agent: Path, number: int) -> None:
    some = [row("web", "ingress", "TCP", 80 + number, "client", at=number)]
    write_file(agent, f"node-a-20260302T0{number}0000Z-00000{number}.parquet", some)


def pull(agent: Path, folder: Path) -> list[str]:
    """What a pull brings, and bring it: by the agent's own listing."""
    files = [Listed(f["path"], f["size"], None) for f in listing(agent)]
    wanted = missing(files, folder, None, None)
    for file in wanted:
        (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(agent / file.path, folder / file.path)
    return [file.path.rpartition("/")[2] for file in wanted]


def check(agent: Path, folder: Path) -> None:
    assert_frame_equal(open_capture(folder).flows(), open_capture(agent).flows())


def test_compacted_where_it_was_pulled_to(tmp_path: Path) -> None:
    agent, folder = tmp_path / "agent", tmp_path / "here"
    for number in range(3):
        add(agent, number)
    assert len(pull(agent, folder)) == 3
    compact(folder, now=NOW)
    assert pull(agent, folder) == []
    add(agent, 3)
    assert pull(agent, folder) == ["node-a-20260302T030000Z-000003.parquet"]
    check(agent, folder)
    compact(folder, now=NOW)
    assert pull(agent, folder) == []
    check(agent, folder)


def test_compacted_where_it_was_recorded(tmp_path: Path) -> None:
    """The merged file comes, once; the files that are here already are passed over."""
    agent, folder = tmp_path / "agent", tmp_path / "here"
    for number in range(3):
        add(agent, number)
    pull(agent, folder)
    compact(agent, now=NOW)
    (merged,) = pull(agent, folder)
    assert merged.startswith("merged-")
    assert pull(agent, folder) == []
    check(agent, folder)
    compact(folder, now=NOW)
    assert pull(agent, folder) == []
    check(agent, folder)
