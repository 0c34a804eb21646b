"""Parquet files as contract 1 says, on a good disk, a full one, and after SIGKILL."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from portforge.errors import WriteError
from portforge.schema import FLOW_SCHEMA, LOSS_SCHEMA, VERSION_KEY, LossReason
from portforge_recorder.attribute import canonical
from portforge_recorder.writer import Writer, loss_table

DAY_NS = 86_400 * 10**9
NO_LOSS = LOSS_SCHEMA.empty_table()


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 25, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def flow_files(capture: Path) -> list[Path]:
    return sorted(p for p in capture.rglob("*.parquet") if not p.name.startswith("_loss-"))


def loss_files(capture: Path) -> list[Path]:
    return sorted(capture.rglob("_loss-*.parquet"))


def connections(capture: Path) -> list[int]:
    found: list[int] = []
    for path in flow_files(capture):
        found += pq.ParquetFile(path).read(["connections"]).column(0).to_pylist()
    return sorted(found)


def test_files_keep_the_contract(tmp_path: Path, rows, clock: Clock) -> None:
    writer = Writer(tmp_path, "demo", "node-a", now=clock)
    losses = loss_table("node-a", [(LossReason.UNPLACED, clock.now, clock.now, 3)])
    writer.add(rows(40, 40), NO_LOSS, 1)
    writer.add(rows(40), losses, 2)
    assert flow_files(tmp_path) == []
    written = writer.flush()
    folder = tmp_path / "v1/cluster=demo/date=2026-11-25"
    assert written == [
        folder / "node-a-20261125T120000Z-000001.parquet",
        folder / "_loss-node-a-20261125T120000Z-000001.parquet",
    ]
    flows = pq.ParquetFile(written[0])
    assert flows.schema_arrow.equals(FLOW_SCHEMA, check_metadata=True)
    assert flows.metadata.metadata[VERSION_KEY] == b"1"
    assert not {"cluster", "date"} & set(flows.schema_arrow.names)
    table = flows.read()
    assert table.equals(canonical(pa.concat_tables([rows(40, 40), rows(40)])))
    group = flows.metadata.row_group(0)
    assert {group.column(i).compression for i in range(group.num_columns)} == {"ZSTD"}
    assert [s.column_index for s in group.sorting_columns][:2] == [3, 4]
    found = pq.ParquetFile(written[1])
    assert found.schema_arrow.equals(LOSS_SCHEMA, check_metadata=True)
    assert found.read().to_pylist() == losses.to_pylist()
    # a plain reader of the folder finds the partition keys in the path
    both = pq.read_table(tmp_path / "v1")
    assert set(both.column("cluster").to_pylist()) == {"demo"}
    assert both.num_rows == 80
    assert writer.flush() == []
    writer.close()


def test_rotates_by_rows_and_by_time(tmp_path: Path, rows, clock: Clock) -> None:
    writer = Writer(tmp_path, "demo", "node-a", max_rows=10, max_seconds=60, now=clock)
    writer.add(rows(9), NO_LOSS, 1)
    assert len(flow_files(tmp_path)) == 0
    writer.add(rows(1, 100), NO_LOSS, 2)
    assert len(flow_files(tmp_path)) == 1
    clock.wait(59)
    writer.add(rows(1, 200), NO_LOSS, 3)
    clock.wait(59)
    writer.add(rows(1, 300), NO_LOSS, 4)
    assert len(flow_files(tmp_path)) == 1
    clock.wait(1)
    writer.add(rows(0), NO_LOSS, 5)
    names = [p.name for p in flow_files(tmp_path)]
    assert names == [
        "node-a-20261125T120000Z-000001.parquet",
        "node-a-20261125T120059Z-000002.parquet",
    ]
    clock.wait(-3600)  # the clock is set back: rows still get written
    writer.add(rows(1, 400), NO_LOSS, 6)
    clock.wait(-60)
    writer.add(rows(0), NO_LOSS, 7)
    assert len(flow_files(tmp_path)) == 3
    assert connections(tmp_path) == [*range(9), 100, 200, 300, 400]
    writer.close()


def test_rows_of_two_days_go_to_two_folders(tmp_path: Path, rows, clock: Clock) -> None:
    writer = Writer(tmp_path, "demo", "node-a", now=clock)
    writer.add(rows(3), NO_LOSS, 1)
    writer.add(rows(2, 10, first_ns=DAY_NS), NO_LOSS, 2)
    paths = writer.close()
    assert [p.parent.name for p in paths] == ["date=2026-11-25", "date=2026-11-26"]
    assert [pq.ParquetFile(p).metadata.num_rows for p in paths] == [3, 2]


def test_a_restart_takes_up_the_spool(tmp_path: Path, rows, clock: Clock) -> None:
    writer = Writer(tmp_path, "demo", "node-a", now=clock)
    writer.add(rows(3), NO_LOSS, 41)
    writer.spool.close()  # as if killed
    again = Writer(tmp_path, "demo", "node-a", now=clock)
    assert again.epoch == 41
    assert connections(tmp_path) == [0, 1, 2]
    again.close()
    third = Writer(tmp_path, "demo", "node-a", now=clock)
    assert third.epoch == 41
    third.close()
    assert connections(tmp_path) == [0, 1, 2]


def test_killed_between_parquet_and_done_writes_nothing_twice(
    tmp_path: Path, rows, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Writer(tmp_path, "demo", "node-a", now=clock)
    losses = loss_table("node-a", [(LossReason.UNPLACED, clock.now, clock.now, 3)])
    writer.add(rows(3), losses, 1)
    writer.add(rows(3, 10, first_ns=DAY_NS), NO_LOSS, 2)

    class KilledError(BaseException): ...

    def killed(*_: object) -> None:
        raise KilledError

    monkeypatch.setattr(writer.spool, "done", killed)
    with pytest.raises(KilledError):
        writer.flush()
    writer.spool.close()
    late = flow_files(tmp_path)[1]
    late.unlink()  # killed between the two files
    temporary = late.with_name(f".{late.name}.tmp")
    temporary.write_bytes(b"half")
    other = late.with_name(late.name.replace("node-a", ".node-a-2") + ".tmp")
    other.write_bytes(b"of another node")

    again = Writer(tmp_path, "demo", "node-a", now=clock)
    assert connections(tmp_path) == [0, 1, 2, 10, 11, 12]
    assert len(loss_files(tmp_path)) == 1
    assert not temporary.exists()
    assert other.exists()
    assert again.close() == []


def test_a_full_disk(tiny_disk: Path, rows, clock: Clock) -> None:
    capture = tiny_disk / "capture"
    writer = Writer(capture, "demo", "node-a", max_seconds=60, max_held_rows=1000, now=clock)
    ballast = tiny_disk / "ballast"
    with pytest.raises(OSError, match="No space"):
        ballast.write_bytes(bytes(2**20))

    clock.wait(10)
    writer.add(rows(600), NO_LOSS, 1)
    assert writer.problem is not None
    assert "No space left" in str(writer.problem)
    assert (writer.epoch, writer.held_rows) == (None, 600)
    losses = loss_table("node-a", [(LossReason.UNPLACED, clock.now, clock.now, 3)])
    for epoch in (2, 3):
        writer.add(rows(500, 1000 * epoch), losses, epoch)
    assert writer.held_rows == 600
    with pytest.raises(WriteError, match="600 rows are in memory only"):
        writer.flush()
    assert list(capture.rglob("*.parquet")) == []

    ballast.unlink()
    writer.add(rows(1, 9000), NO_LOSS, 4)
    assert writer.held_rows == 0
    assert writer.epoch == 4
    writer.flush()
    assert writer.problem is None
    assert connections(capture) == [*range(600), 9000]
    counted = {
        r["reason"]: r["count"]
        for p in loss_files(capture)
        for r in pq.ParquetFile(p).read().to_pylist()
    }
    assert counted == {"write_failed": 1000, "unplaced": 6}
    writer.close()


def test_a_disk_that_fills_up_while_parquet_is_written(tiny_disk: Path, rows, clock: Clock) -> None:
    capture = tiny_disk / "capture"
    writer = Writer(capture, "demo", "node-a", max_seconds=60, now=clock)
    writer.add(rows(800), NO_LOSS, 1)
    assert writer.problem is None
    ballast = tiny_disk / "ballast"
    with pytest.raises(OSError, match="No space"):
        ballast.write_bytes(bytes(2**20))
    with pytest.raises(WriteError, match="No space left"):
        writer.flush()
    assert [p for p in capture.rglob("*") if "parquet" in p.name] == []
    ballast.unlink()
    clock.wait(59)
    writer.add(rows(0), NO_LOSS, 2)
    assert writer.problem is not None
    clock.wait(1)
    writer.add(rows(0), NO_LOSS, 3)
    assert writer.problem is None
    assert connections(capture) == list(range(800))
    writer.close()


def test_one_drain_larger_than_the_bound(tiny_disk: Path, rows, clock: Clock) -> None:
    capture = tiny_disk / "capture"
    writer = Writer(capture, "demo", "node-a", max_held_rows=1000, now=clock)
    writer.add(rows(5000), NO_LOSS, 1)
    assert (writer.held_rows, writer.epoch) == (0, None)
    assert writer.problem is not None
    writer.add(rows(2), NO_LOSS, 2)
    writer.close()
    assert connections(capture) == [0, 1]
    (path,) = loss_files(capture)
    assert pq.ParquetFile(path).read().to_pylist()[0]["count"] == 5000


@pytest.mark.parametrize(
    ("cluster", "node"), [("a/b", "n"), ("c", ".."), ("c", "_loss-x"), ("", "n")]
)
def test_names_that_cannot_stand_in_a_path(tmp_path: Path, cluster: str, node: str) -> None:
    with pytest.raises(WriteError, match="cannot stand in a path"):
        Writer(tmp_path, cluster, node)


def test_a_capture_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "capture").write_text("")
    with pytest.raises(WriteError, match=r"Not a directory|File exists"):
        Writer(tmp_path / "capture", "demo", "node-a")


KILLED = """
import sys
from datetime import UTC, datetime
from pathlib import Path
import pyarrow as pa
from portforge.schema import FLOW_SCHEMA, LOSS_SCHEMA
from portforge_recorder.writer import Writer
writer = Writer(Path(sys.argv[1]), "demo", "node-a", max_rows=35)
now = datetime.now(UTC)
row = dict(first_seen=now, last_seen=now, node="n", direction="egress", protocol="TCP", port=1,
    peer_kind="external", verdict="allowed", bytes_sent=0, bytes_received=0, retransmits=0)
epoch = writer.epoch or 0
while True:
    epoch += 1
    table = pa.Table.from_pylist([row | {"connections": epoch}] * 10, schema=FLOW_SCHEMA)
    writer.add(table, LOSS_SCHEMA.empty_table(), epoch)
    print(epoch, flush=True)
"""


def test_sigkill_again_and_again_loses_and_doubles_nothing(tmp_path: Path) -> None:
    said = 0
    for lines in (1, 3, 4, 9, 17, 26):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, tmp_path], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout
        for _ in range(lines):
            said = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        said = max([said, *(int(word) for word in process.stdout.read().split())])
        process.wait()
        process.stdout.close()
    writer = Writer(tmp_path, "demo", "node-a")
    assert writer.epoch in (said, said + 1)
    assert connections(tmp_path) == [e for e in range(1, writer.epoch + 1) for _ in range(10)]
    pattern = re.compile(r"node-a-\d{8}T\d{6}Z-\d{6}\.parquet")
    assert all(pattern.fullmatch(p.name) for p in flow_files(tmp_path))
    writer.close()
