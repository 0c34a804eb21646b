"""Opening a capture: what comes out, and what is refused with which sentence."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flow_rows import START, loss, row, write_capture, write_file

from portforge.capture import Window, open_capture
from portforge.errors import CaptureError
from portforge.schema import COLUMNS, FLOW_SCHEMA

WEB = row("web", "ingress", "TCP", 80, "client")
REDIS = row("web", "egress", "TCP", 6379, "redis", at=30, target_port=6380)


def test_flows_come_out_as_contract_1_with_cluster_and_date(tmp_path: Path) -> None:
    flows = open_capture(write_capture(tmp_path, [WEB, REDIS])).flows()
    assert list(flows.columns) == [c.name for c in COLUMNS] + ["cluster", "date"]
    assert list(flows["direction"]) == ["egress", "ingress"]
    assert list(flows["cluster"]) == ["demo", "demo"]
    assert flows["target_port"].tolist()[0] == 6380
    assert str(flows["target_port"].dtype) == "Int32"
    assert flows["first_seen"][1] == START
    assert str(flows["date"][0]) == "2026-03-03"


def test_window_runs_from_first_to_last_event(tmp_path: Path) -> None:
    capture = open_capture(write_capture(tmp_path, [WEB, REDIS]))
    end = START + timedelta(hours=30, seconds=5)
    assert capture.window() == Window(START, end)
    assert capture.window(since="2h").start == end - timedelta(hours=2)
    assert "2 rows" in repr(capture)


@pytest.mark.parametrize(
    ("chosen", "ports"),
    [
        ({"since": "2h"}, [6379]),
        ({"until": START + timedelta(hours=1)}, [80]),
        ({"since": "2026-03-02T10:00:00", "until": "2026-03-04"}, [6379]),
        ({"namespace": "other"}, []),
        ({"workload": ["web"], "namespace": "shop"}, [6379, 80]),
    ],
)
def test_flows_of_a_window_and_a_workload(
    tmp_path: Path, chosen: dict[str, object], ports: list[int]
) -> None:
    capture = open_capture(write_capture(tmp_path, [WEB, REDIS]))
    assert capture.flows(**chosen)["port"].tolist() == ports  # type: ignore[arg-type]


def test_losses_and_sql(tmp_path: Path) -> None:
    capture = open_capture(write_capture(tmp_path, [WEB], [loss("flows_overflowed", 7)]))
    assert capture.losses()["count"].tolist() == [7]
    assert capture.sql("SELECT sum(connections) AS n FROM flows")["n"].tolist() == [10]
    with pytest.raises(CaptureError, match=r"sql: .*nothing"):
        capture.sql("SELECT nothing FROM flows")


def test_no_losses_is_an_empty_frame(tmp_path: Path) -> None:
    assert open_capture(write_capture(tmp_path, [WEB])).losses().empty


def test_aggregated_keeps_hours_pods_and_the_own_node(tmp_path: Path) -> None:
    rows = [
        row("web", "ingress", "TCP", 80, "client", pod=f"web-{i % 2}", at=i, lasts=10)
        for i in range(4)
    ]
    rows += [row("web", "ingress", "TCP", 80, "node-a"), row("web", "ingress", "TCP", 80, "node-b")]
    edges = open_capture(write_capture(tmp_path, rows)).aggregated()
    client = edges[edges["peer_workload"] == "client"].iloc[0]
    assert client["connections"] == 40
    assert len(client["hours"]) == 4
    assert list(client["pods"]) == ["web-0", "web-1"]
    assert edges.set_index("peer_workload")["own_node"].to_dict() == {
        "client": False,
        "node-a": True,
        "node-b": False,
    }


def test_the_v1_folder_itself_may_be_given(tmp_path: Path) -> None:
    assert open_capture(write_capture(tmp_path, [WEB]) / "v1").rows == 1


def test_unfinished_files_of_the_recorder_are_passed_over(tmp_path: Path) -> None:
    write_capture(tmp_path, [WEB])
    (tmp_path / "v1/cluster=demo/date=2026-03-02/.half.parquet").write_bytes(b"PAR1")
    assert open_capture(tmp_path).rows == 1


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="no such folder; check the path"):
        open_capture(tmp_path / "nowhere")


def test_a_file_a_foreign_folder_and_empty_ones(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="the folder is empty; record some traffic"):
        open_capture(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(CaptureError, match="a file, not a capture"):
        open_capture(tmp_path / "notes.txt")
    with pytest.raises(CaptureError, match="not a capture: it holds no v1/ folder"):
        open_capture(tmp_path)
    (tmp_path / "v1").mkdir()
    with pytest.raises(CaptureError, match="holds no flow files"):
        open_capture(tmp_path)
    write_file(tmp_path, "node-a-0-0.parquet", [])
    with pytest.raises(CaptureError, match="holds no rows"):
        open_capture(tmp_path)


def test_another_schema_version(tmp_path: Path) -> None:
    (tmp_path / "v7").mkdir()
    with pytest.raises(CaptureError, match="schema version 7; this program reads 1"):
        open_capture(tmp_path)
    newer = FLOW_SCHEMA.with_metadata({b"portforge.schema": b"2"})
    write_file(tmp_path, "node-a-0-0.parquet", [WEB], schema=newer)
    with pytest.raises(CaptureError, match=r"node-a-0-0\.parquet: schema version 2"):
        open_capture(tmp_path)


def test_truncated_and_foreign_files(tmp_path: Path) -> None:
    file = write_file(tmp_path, "node-a-0-0.parquet", [WEB])
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CaptureError, match=r"node-a-0-0\.parquet: truncated or not Parquet"):
        open_capture(tmp_path)
    pq.write_table(pa.table({"a": [1]}), file)
    with pytest.raises(CaptureError, match="foreign Parquet file"):
        open_capture(tmp_path)


def test_damaged_pages_under_a_whole_footer(tmp_path: Path) -> None:
    rows = [row("web", "ingress", "TCP", 80, "client", connections=i) for i in range(5000)]
    file = write_file(tmp_path, "node-a-0-0.parquet", rows)
    whole = bytearray(file.read_bytes())
    whole[4 : len(whole) // 2] = b"\xff" * (len(whole) // 2 - 4)
    file.write_bytes(bytes(whole))
    with pytest.raises(CaptureError, match="remove the file"):
        open_capture(tmp_path)


def test_a_file_in_the_wrong_place_or_with_other_columns(tmp_path: Path) -> None:
    write_capture(tmp_path, [WEB])
    stray = tmp_path / "v1" / "stray.parquet"
    pq.write_table(pa.table({"a": [1]}), stray)
    with pytest.raises(CaptureError, match=r"stray\.parquet: the file does not stand at v1/"):
        open_capture(tmp_path)
    stray.unlink()
    fewer = pa.schema([f for f in FLOW_SCHEMA if f.name != "verdict"], FLOW_SCHEMA.metadata)
    write_file(tmp_path, "b.parquet", [WEB], schema=fewer)
    with pytest.raises(CaptureError, match=r"b\.parquet: .*no column verdict"):
        open_capture(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"port": 70000}, "port is outside 0–65535 in 1 row;"),
        ({"verdict": "maybe"}, "unknown verdict in 1 row;"),
        ({"direction": "sideways"}, "unknown direction in 1 row;"),
        ({"protocol": "QUIC"}, "unknown protocol in 1 row;"),
        ({"peer_kind": "alien"}, "unknown peer_kind in 1 row;"),
        ({"last_seen": START}, "last_seen is before first_seen in 1 row;"),
        ({"connections": -1}, "connections is negative in 1 row;"),
    ],
)
def test_impossible_rows_are_refused_with_file_and_count(
    tmp_path: Path, wrong: dict[str, object], sentence: str
) -> None:
    write_capture(tmp_path, [WEB, REDIS | wrong])
    with pytest.raises(CaptureError, match=sentence) as caught:
        open_capture(tmp_path)
    assert "node-a-20260302T080000Z-0.parquet: impossible rows" in str(caught.value)
    assert "record again" in str(caught.value)


def test_an_impossible_loss_is_refused(tmp_path: Path) -> None:
    write_capture(tmp_path, [WEB], [loss("gremlins", 1)])
    with pytest.raises(CaptureError, match="unknown reason in 1 row"):
        open_capture(tmp_path)


def test_a_window_outside_the_capture_and_a_time_that_is_none(tmp_path: Path) -> None:
    capture = open_capture(write_capture(tmp_path, [WEB]))
    with pytest.raises(CaptureError, match="nothing was recorded"):
        capture.flows(since="2027-01-01")
    with pytest.raises(CaptureError, match="'yesterday' is not a time"):
        capture.flows(since="yesterday")
