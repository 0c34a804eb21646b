"""The journal: an append happened entirely or not at all, whatever ends the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from portforge.errors import WriteError
from portforge.schema import FLOW_SCHEMA, LOSS_SCHEMA, LossReason
from portforge_recorder.spool import Spool
from portforge_recorder.writer import loss_table

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
NO_LOSS = LOSS_SCHEMA.empty_table()


@pytest.fixture
def losses() -> pa.Table:
    return loss_table("node-a", [(LossReason.UNPLACED, NOW, NOW, 3)])


def connections(table: pa.Table) -> list[int]:
    return sorted(table.column("connections").to_pylist())


def test_comes_back_after_a_restart(tmp_path: Path, rows, losses) -> None:
    spool = Spool(tmp_path)
    assert spool.epoch is None
    spool.append(rows(3), NO_LOSS, 1, NOW)
    spool.append(FLOW_SCHEMA.empty_table(), NO_LOSS, 2, NOW)
    spool.append(rows(2, 10), losses, 3, NOW)
    assert spool.journals() == []
    spool.close()

    again = Spool(tmp_path)
    (journal,) = again.journals()
    flows, found, epoch = again.recover(journal)
    assert (again.epoch, epoch, journal.number, journal.start) == (3, 3, 1, "20261125T120000Z")
    assert connections(flows) == [0, 1, 2, 10, 11]
    assert flows.schema.equals(FLOW_SCHEMA, check_metadata=True)
    assert found.to_pylist() == losses.to_pylist()
    again.done(journal, epoch)
    assert again.journals() == []
    again.close()

    third = Spool(tmp_path)
    assert third.epoch == 3
    third.append(rows(1), NO_LOSS, 4, NOW)
    third.rotate()
    assert [j.number for j in third.journals()] == [2]
    third.done(third.journals()[0], 4)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "00000002-20261125T120000Z-4.done",
        "lock",
    ]
    third.close()


def test_torn_at_every_byte_of_the_last_frame(tmp_path: Path, rows, losses) -> None:
    spool = Spool(tmp_path / "a")
    spool.append(rows(2), losses, 7, NOW)
    (path,) = (tmp_path / "a").glob("*.journal")
    whole = path.stat().st_size
    spool.append(rows(1, 10), losses, 8, NOW)
    spool.rotate()
    (journal,) = spool.journals()
    data = path.read_bytes()
    for length in range(whole, len(data)):
        path.write_bytes(data[:length])
        flows, found, epoch = spool.recover(journal)
        assert (connections(flows), found.num_rows, epoch) == ([0, 1], 1, 7)
    path.write_bytes(data)
    assert spool.recover(journal).epoch == 8
    spool.close()


def test_a_tail_of_zeros_or_rubbish_is_torn_too(tmp_path: Path, rows) -> None:
    """As a power cut leaves it: the length is there, the data is not."""
    spool = Spool(tmp_path)
    spool.append(rows(2), NO_LOSS, 7, NOW)
    (path,) = tmp_path.glob("*.journal")
    whole = path.stat().st_size
    spool.append(rows(1, 10), NO_LOSS, 8, NOW)
    spool.rotate()
    (journal,) = spool.journals()
    data = path.read_bytes()
    for at in range(whole, len(data), 97):
        for tail in (bytes(len(data) - at), b"\xa5" * (len(data) - at)):
            path.write_bytes(data[:at] + tail)
            flows, _, epoch = spool.recover(journal)
            if path.read_bytes() != data:
                assert (connections(flows), epoch) == ([0, 1], 7)
    spool.close()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    with pytest.raises(WriteError, match="another recorder"):
        Spool(tmp_path)
    spool.close()
    Spool(tmp_path).close()


def test_a_failed_append_leaves_nothing(tiny_disk: Path, rows) -> None:
    spool = Spool(tiny_disk / "spool")
    spool.append(rows(5), NO_LOSS, 1, NOW)
    with pytest.raises(OSError, match="No space left"):
        spool.append(rows(5000, 100), NO_LOSS, 2, NOW)
    assert spool.epoch == 1
    spool.append(rows(5, 50), NO_LOSS, 2, NOW)
    spool.rotate()
    flows, _, epoch = spool.recover(spool.journals()[0])
    assert (connections(flows), epoch) == ([0, 1, 2, 3, 4, 50, 51, 52, 53, 54], 2)
    spool.close()


KILLED = """
import sys
from datetime import UTC, datetime
from pathlib import Path
import pyarrow as pa
from portforge.schema import FLOW_SCHEMA, LOSS_SCHEMA
from portforge_recorder.spool import Spool
spool = Spool(Path(sys.argv[1]))
now = datetime.now(UTC)
row = dict(first_seen=now, last_seen=now, node="n", direction="egress", protocol="TCP", port=1,
    peer_kind="external", verdict="allowed", bytes_sent=0, bytes_received=0, retransmits=0)
epoch = 0
while True:
    epoch += 1
    table = pa.Table.from_pylist([row | {"connections": epoch}] * 20, schema=FLOW_SCHEMA)
    spool.append(table, LOSS_SCHEMA.empty_table(), epoch, now)
    print(epoch, flush=True)
"""


@pytest.mark.parametrize("after", [1, 7, 30])
def test_sigkill_loses_at_most_the_append_under_way(tmp_path: Path, after: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, tmp_path], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    for _ in range(after):
        process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    said = after + len(process.stdout.read().split())
    process.wait()
    process.stdout.close()

    spool = Spool(tmp_path)
    (journal,) = spool.journals()
    flows, _, epoch = spool.recover(journal)
    assert epoch in (said, said + 1)
    assert connections(flows) == [e for e in range(1, epoch + 1) for _ in range(20)]
    spool.close()
