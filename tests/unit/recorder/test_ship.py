"""Shipping the capture to a real S3 server: all of it, once, whatever goes away meanwhile."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flow_rows import loss, row, write_capture, write_file
from pandas.testing import assert_frame_equal
from s3_server import Door, S3Server

from portforge.apply.state import State
from portforge.capture import open_capture
from portforge.schema import LOSS_PREFIX
from portforge.store import open_store
from portforge_recorder.metrics import Metrics
from portforge_recorder.ship import Shipper

URL = "s3://captures/prod/eu"
pytestmark = pytest.mark.usefixtures("s3")
ROWS = [row("web", "ingress", "TCP", 80, "client", at=24 * day) for day in range(3)]


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    return write_capture(tmp_path / "capture", ROWS, [loss("flows_overflowed", 7)])


def shipper(capture: Path, **options) -> Shipper:
    state = State("node-a", capture.parent / "state")
    return Shipper(URL, capture, "node-a", state, Metrics(), **options)


def names(capture: Path) -> list[str]:
    return sorted(p.relative_to(capture).as_posix() for p in capture.rglob("*.parquet"))


def stored() -> list[str]:
    return [f.path for f in open_store(URL).list()]


def value(ship: Shipper, name: str) -> float | None:
    return ship._metrics.registry.get_sample_value(f"portforge_{name}")


def test_what_was_shipped_is_the_capture(capture: Path) -> None:
    ship = shipper(capture)
    assert ship.once(), ship.problem
    assert stored() == names(capture)
    assert len(stored()) == 4
    assert value(ship, "ship_files_total") == 4
    assert value(ship, "ship_pending_files") == value(ship, "ship_age_seconds") == 0
    there, here = open_capture(URL), open_capture(capture)
    assert_frame_equal(there.flows(), here.flows())
    assert_frame_equal(there.losses(), here.losses())


def test_only_finished_files_of_this_node(capture: Path) -> None:
    ours = names(capture)
    for other in ("node-a-b-20260302T080000Z-0", "node-b-20260302T080000Z-0"):
        write_file(capture, f"{other}.parquet", ROWS[:1])
        write_file(capture, f"{LOSS_PREFIX}{other}.parquet", ROWS[:1])
    write_file(capture, ".node-a-20260302T080000Z-1.parquet", ROWS[:1])
    assert shipper(capture).once()
    assert stored() == ours


def test_a_restart_ships_only_what_is_new(capture: Path) -> None:
    assert shipper(capture).once()
    write_file(capture, "node-a-20260303T080000Z-1.parquet", ROWS[1:2], day="2026-03-03")
    again = shipper(capture)
    assert again.once()
    assert value(again, "ship_files_total") == 1
    assert stored() == names(capture)


def test_what_the_store_lost_or_has_in_part_is_brought_again(s3: S3Server, capture: Path) -> None:
    assert shipper(capture).once()
    s3.empty()
    first, *_ = names(capture)
    open_store(URL).put(first, b"PAR1")
    again = shipper(capture)
    assert again.once()
    assert value(again, "ship_files_total") == 4
    assert {f.path: f.size for f in open_store(URL).list()} == {
        n: (capture / n).stat().st_size for n in names(capture)
    }


def test_without_its_memory_it_asks_the_store(capture: Path) -> None:
    assert shipper(capture).once()
    (capture.parent / "state/node-a/shipped.json").write_text("{ torn")
    again = shipper(capture)
    assert again.once()
    assert value(again, "ship_files_total") == 0


def test_the_store_away_and_back(
    s3: S3Server, capture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recording goes on meanwhile; one problem, with the same words each time; nothing is lost."""
    door = Door(s3)
    monkeypatch.setenv("AWS_ENDPOINT_URL", door.url)
    door.open()
    ship = shipper(capture, every=0.2, keep_hours=1e6)
    ship.start()
    try:
        wait_for(lambda: value(ship, "ship_pending_files") == 0 and stored() == names(capture))
        door.shut()
        write_file(capture, "node-a-20260304T080000Z-1.parquet", ROWS[2:], day="2026-03-04")
        wait_for(lambda: ship.problem is not None)
        assert "the store does not answer" in str(ship.problem)
        assert value(ship, "ship_pending_files") == 1
        said = str(ship.problem)
        write_file(capture, "node-a-20260305T080000Z-2.parquet", ROWS[2:], day="2026-03-05")
        wait_for(lambda: value(ship, "ship_pending_files") == 2)
        assert str(ship.problem) == said
        door.open()
        wait_for(lambda: ship.problem is None)
        assert stored() == names(capture)
        assert value(ship, "ship_pending_files") == 0
        write_file(capture, "node-a-20260306T080000Z-3.parquet", ROWS[2:], day="2026-03-06")
    finally:
        ship.stop(30)
        left = stored()
        door.shut()
    assert left == names(capture), "the last file of an agent that ends"


def test_files_are_removed_once_shipped_and_old(
    capture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = names(capture)
    old, *young = everything
    hours_ago = (datetime.now(UTC) - timedelta(hours=3)).timestamp()
    os.utime(capture / old, (hours_ago, hours_ago))
    with monkeypatch.context() as away:
        away.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        unshipped = shipper(capture, keep_hours=2)
        assert not unshipped.once()
        assert names(capture) == everything, "never before the store has it"
        assert value(unshipped, "ship_age_seconds") > 3 * 3600 - 60
    assert shipper(capture, keep_hours=2).once()
    assert names(capture) == young
    assert stored() == everything


@pytest.mark.parametrize(
    ("url", "sentence"),
    [("s3://nowhere/x", "no such bucket"), (URL, "refuses these credentials")],
)
def test_what_is_wrong_is_said(s3: S3Server, capture: Path, url: str, sentence: str) -> None:
    if url == URL:
        s3.demand_known_keys()
    ship = Shipper(url, capture, "node-a", State("node-a", capture.parent), Metrics())
    assert not ship.once()
    assert sentence in str(ship.problem)


def wait_for(true, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)
