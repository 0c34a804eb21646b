"""``portforge compact``: the same capture in fewer files, at every moment; sums that are kept."""

from __future__ import annotations

import fcntl
import json
import resource
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from flow_rows import loss, row, write_file
from pandas.testing import assert_frame_equal

from portforge.capture import compact, open_capture
from portforge.cli import portforge
from portforge.errors import CaptureError, WriteError
from portforge.schema import LOSS_PREFIX, LOSS_SCHEMA

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
DAYS = ("2026-03-02", "2026-03-03", "2026-03-04")
INSIDE = Path(__file__).with_name("compact_inside.py")


def make(folder: Path, days: tuple[str, ...] = DAYS) -> Path:
    """Two nodes and two files each a day, with losses; rows over midnight; one row stands twice."""
    for number, day in enumerate(days):
        for part in range(4):
            at = 24 * number + 4 * part
            rows = [
                row("web", "ingress", "TCP", 80, "client", at=at, pod=f"web-{part % 2}"),
                row("web", "egress", "TCP", 5432, "db", at=at + 1, lasts=3 * 3600),
                row("web", "egress", "UDP", 53, None, at=at, rtt_us=part or None),
            ]
            name = f"node-{'ab'[part % 2]}-20260302T080000Z-{number}{part}.parquet"
            write_file(folder, name, [*rows, rows[0]], day=day)
        lost = [loss("flows_overflowed", 7, at=24 * number)]
        for node in "ab":
            name = f"{LOSS_PREFIX}node-{node}-20260302T080000Z-{number}.parquet"
            write_file(folder, name, lost, schema=LOSS_SCHEMA, day=day)
    return folder


class Answers:
    """What a capture says; compared as a whole."""

    WINDOWS = ((None, None), ("30h", "3h"), ("2026-03-03", "2026-03-03T23:59:59"))

    def __init__(self, folder: Path, windows: int = len(WINDOWS)) -> None:
        capture = open_capture(folder)
        self.windows, self.frames = windows, [capture.flows(), capture.losses()]
        for window in self.WINDOWS[:windows]:
            self.frames += [capture.aggregated(*window), capture.pods(*window)]

    def check(self, folder: Path) -> None:
        """The capture in ``folder`` says the same."""
        for one, other in zip(self.frames, Answers(folder, self.windows).frames, strict=True):
            assert_frame_equal(one, other)


def names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.parquet"))


def test_ended_days_become_one_file_and_the_answers_stay(tmp_path: Path) -> None:
    folder = make(tmp_path)
    today = folder / "v1/cluster=demo/date=2026-03-04"
    before, untouched = Answers(folder), {p: p.read_bytes() for p in today.iterdir()}
    spool = folder / ".spool/demo/node-a/00000001-20260302T080000Z.journal"
    unfinished = folder / "v1/cluster=demo/date=2026-03-02/.node-a-20260302T080000Z-9.parquet.tmp"
    for path in (spool, unfinished):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"the recorder's")
    done = compact(folder, now=NOW)
    assert [(d.date, d.files_before, d.files_after, d.rollup) for d in done.days] == [
        ("2026-03-02", 6, 2, "written"),
        ("2026-03-03", 6, 2, "written"),
    ]
    assert done.left == ("v1/cluster=demo/date=2026-03-04",)
    assert len(names(folder / "v1/cluster=demo/date=2026-03-02")) == 2
    assert names(folder / "rollup") == [
        f"v1/cluster=demo/date={day}/rollup.parquet" for day in DAYS[:2]
    ]
    before.check(folder)
    assert {p: p.read_bytes() for p in today.iterdir()} == untouched
    assert spool.read_bytes() == unfinished.read_bytes() == b"the recorder's"
    again = names(folder)
    assert {d.rollup for d in compact(folder, now=NOW).days} == {"kept"}
    assert names(folder) == again
    shutil.rmtree(folder / "rollup")
    before.check(folder)


def test_days_with_a_rollup_are_not_read_again(tmp_path: Path) -> None:
    """Their pages are destroyed, their footers left: who reads a row of them would fail."""
    folder = make(tmp_path)
    compact(folder, now=NOW)
    before = open_capture(folder)
    edges, pods, late = before.aggregated(), before.pods(), before.aggregated("2026-03-03")
    for path in sorted((folder / "v1").rglob("date=2026-03-0[23]/merged-*.parquet")):
        whole = path.read_bytes()
        footer = int.from_bytes(whole[-8:-4], "little") + 8
        path.write_bytes(b"\xff" * (len(whole) - footer) + whole[-footer:])
    after = open_capture(folder)
    assert_frame_equal(after.aggregated(), edges)
    assert_frame_equal(after.pods(), pods)
    shutil.rmtree(folder / "rollup")
    with pytest.raises(CaptureError, match="damaged rows"):
        open_capture(folder)
    assert len(late) < len(edges) or not late.equals(edges)


@pytest.mark.parametrize("change", ["more", "less", "other"])
def test_a_rollup_counts_only_while_its_files_are_the_same(change: str, tmp_path: Path) -> None:
    folder = make(tmp_path)
    compact(folder, now=NOW)
    day = folder / "v1/cluster=demo/date=2026-03-02"
    late = [row("late", "ingress", "TCP", 81, "client")]
    (merged,) = day.glob("merged-*")
    if change == "more":
        write_file(folder, "node-c-20260302T080000Z-1.parquet", late)
    elif change == "less":
        merged.unlink()
    else:
        merged.unlink()
        write_file(folder, "node-c-20260302T080000Z-1.parquet", late)
    with_rollups = Answers(folder)
    shutil.move(folder / "rollup", tmp_path / "away")
    with_rollups.check(folder)
    assert ("late" in set(with_rollups.frames[2]["workload"])) is (change != "less")
    shutil.rmtree(tmp_path / "away")
    assert compact(folder, now=NOW).days[0].rollup == ("none" if change == "less" else "written")
    with_rollups.check(folder)


def test_damaged_rollups_are_as_none(tmp_path: Path) -> None:
    folder = make(tmp_path)
    before = Answers(folder)
    compact(folder, now=NOW)
    one, other = sorted((folder / "rollup").rglob("*.parquet"))
    one.write_bytes(one.read_bytes()[:-20])
    other.write_bytes(b"")
    before.check(folder)
    assert [d.rollup for d in compact(folder, now=NOW).days] == ["written", "written"]


def test_killed_at_every_step_no_row_is_lost_or_doubled(tmp_path: Path) -> None:
    folder = make(tmp_path / "capture", DAYS[:1])
    before = Answers(folder, windows=1)
    ran = subprocess.run(
        [sys.executable, INSIDE, folder, tmp_path],
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(ran.stdout)
    *killed, ended = told
    assert ended["code"] == 0
    # Losses and flows: written, renamed, each removed; the rollup: written, renamed.
    assert [len(one["steps"]) for one in killed] == list(range(1, 2 + 2 + 4 + 2 + 2 + 1))
    kinds = {step.split()[0] for step in ended["steps"]}
    assert kinds == {"written", "renamed", "removed"}
    for one in told:
        copy = Path(one["folder"])
        before.check(copy)
        compact(copy, now=NOW)
        before.check(copy)
        assert names(copy) == names(Path(ended["folder"])), one["steps"]
        assert not list(copy.rglob("*.tmp")), one["steps"]


def test_readers_see_the_same_rows_at_every_step(tmp_path: Path) -> None:
    folder = make(tmp_path, DAYS[:1])
    before = Answers(folder, windows=1)
    seen = []

    def step(name: str) -> None:
        seen.append(name)
        before.check(folder)

    compact(folder, now=NOW, step=step)
    assert len(seen) > 8


def test_a_file_that_comes_back_after_the_merge_is_passed_over(tmp_path: Path) -> None:
    """A recorder that was killed before it marked its journal done writes its file again."""
    folder = make(tmp_path)
    before = Answers(folder)
    first = next((folder / "v1/cluster=demo/date=2026-03-02").glob("node-a-*"))
    whole = first.read_bytes()
    compact(folder, now=NOW)
    assert not first.exists()
    first.write_bytes(whole)
    before.check(folder)
    compact(folder, now=NOW)
    assert not first.exists()
    before.check(folder)


def test_late_files_are_merged_into_what_was_merged(tmp_path: Path) -> None:
    folder = make(tmp_path)
    first = next((folder / "v1/cluster=demo/date=2026-03-02").glob("node-a-*"))
    whole = first.read_bytes()
    compact(folder, now=NOW)
    late = [row("late", "ingress", "TCP", 81, "client")]
    write_file(folder, "node-c-20260302T080000Z-1.parquet", late)
    before = Answers(folder)
    done = compact(folder, now=NOW)
    assert (done.days[0].files_before, done.days[0].files_after) == (3, 2)
    before.check(folder)
    first.write_bytes(whole)
    before.check(folder)


def test_merged_here_and_there(tmp_path: Path) -> None:
    """Of two merged files, one that holds all of the other counts; else nobody can say."""
    there, here = make(tmp_path / "there"), make(tmp_path / "here")
    before = Answers(there)
    day = "v1/cluster=demo/date=2026-03-02"
    for path in (here / day).glob("node-b-*"):
        path.unlink()
    compact(there, now=NOW)
    compact(here, now=NOW)
    (whole,) = (there / day).glob("merged-*")
    shutil.copy(whole, here / day)
    before.check(here)
    write_file(here, "node-c-20260302T080000Z-1.parquet", [row("x", "ingress", "TCP", 81, "y")])
    whole_name = here / day / whole.name
    whole_name.unlink()
    compact(here, now=NOW)
    shutil.copy(whole, here / day)
    with pytest.raises(CaptureError, match=r"merged-.* and merged-.* both hold the rows of node-a"):
        open_capture(here)


def test_a_full_disk_leaves_the_capture_whole(tmp_path: Path) -> None:
    folder = make(tmp_path)
    before, files = Answers(folder), names(folder)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, old[1]))
    try:
        with pytest.raises(WriteError, match="no row was lost"):
            compact(folder, now=NOW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert names(folder) == files
    assert not list(folder.rglob("*.tmp"))
    before.check(folder)


def test_two_at_once_exclude_each_other(tmp_path: Path) -> None:
    folder = make(tmp_path)
    files = names(folder)
    with (folder / ".compact.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(CaptureError, match="another portforge compact works on it"):
            compact(folder, now=NOW)
    assert names(folder) == files
    assert len(compact(folder, now=NOW).days) == 2


def test_the_day_before_is_left_alone_for_an_hour(tmp_path: Path) -> None:
    folder = make(tmp_path)
    midnight = datetime(2026, 3, 4, tzinfo=UTC)
    assert len(compact(folder, now=midnight + timedelta(minutes=59), dry_run=True).days) == 1
    assert len(compact(folder, now=midnight + timedelta(minutes=61), dry_run=True).days) == 2


def test_impossible_rows_are_told_and_nothing_is_kept_of_them(tmp_path: Path) -> None:
    write_file(tmp_path, "n-1-1.parquet", [row("web", "ingress", "TCP", 70000, "client")])
    with pytest.raises(CaptureError, match="port is outside"):
        compact(tmp_path, now=NOW)
    assert not (tmp_path / "rollup").exists()


def test_an_object_store_is_refused() -> None:
    with pytest.raises(CaptureError, match="only a folder can be compacted"):
        compact("s3://captures/shop")


def test_the_command_line(tmp_path: Path) -> None:
    folder = make(tmp_path)
    files = names(folder)
    dry = CliRunner().invoke(portforge, ["compact", str(folder), "--dry-run", "--json"])
    told = json.loads(dry.output)
    assert told["dry_run"]
    assert names(folder) == files
    assert [day["date"] for day in told["days"]] == list(DAYS)
    assert {day["rollup"] for day in told["days"]} == {"missing"}
    done = CliRunner().invoke(portforge, ["compact", str(folder)])
    assert "3 ended days: 18 files merged into 6" in done.output
    assert "3 daily sums written, 0 kept" in done.output
    size = sum(p.stat().st_size for p in (folder / "v1").rglob("*.parquet"))
    assert f"{size:,} after" in done.output
    assert pd.DataFrame(told["days"])["files_after"].sum() == 6
