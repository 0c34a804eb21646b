"""The backtest tells what would have broken, to which workload, and when it stops."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from flow_rows import START, row, write_capture

from portforge.capture import Capture, open_capture
from portforge.errors import CaptureError
from portforge.recommend import backtest, backtest_workloads

SHOP = Path(__file__).parents[3] / "datasets/shop"
DAYS = 8
ROWS = [
    *(row("web", "ingress", "TCP", 80, "client", at=at) for at in range(0, 24 * DAYS, 4)),
    *(row("redis", "ingress", "TCP", 6379, "web", at=at) for at in range(0, 24 * DAYS, 4)),
    # A weekly report by mail, first seen on day 5.
    row("web", "egress", "TCP", 587, "192.0.2.25", at=24 * 5, connections=3),
    # A workload that is new on day 6.
    *(row("cart", "ingress", "TCP", 8080, "web", at=24 * 6 + at) for at in range(0, 48, 4)),
    # A scan of redis on day 7 that also finds its open port; and syslog nobody answers.
    *(
        row("redis", "ingress", "TCP", port, "scanner", at=24 * 7, verdict="refused")
        for port in range(1000, 1030)
    ),
    row(
        *("redis", "ingress", "TCP", 6379, "scanner"),
        **{"at": 24 * 7, "connections": 1, "bytes_sent": 0, "bytes_received": 0},
    ),
    row("web", "egress", "UDP", 514, "192.0.2.9", at=24 * 7, bytes_received=0),
]
DAILY = [START + timedelta(days=n) for n in range(1, DAYS)]


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Capture:
    return open_capture(write_capture(tmp_path_factory.mktemp("capture"), ROWS))


@pytest.fixture(scope="module")
def daily(capture: Capture) -> pd.DataFrame:
    return backtest(capture, steps=DAILY)


def test_the_curve_flattens_when_the_weekly_job_was_seen(daily: pd.DataFrame) -> None:
    assert daily["trained_until"].tolist() == DAILY
    assert daily["trained_hours"].tolist() == [24 * n for n in range(1, DAYS)]
    # The origin on day 5 is before the job's record ended: not known then.
    assert daily["denied"].tolist() == [3, 3, 3, 3, 3, 0, 0]
    assert daily["broken"].tolist() == [1, 1, 1, 1, 1, 0, 0]
    assert daily["judged"].tolist() == [2, 2, 2, 2, 2, 2, 3]
    assert daily["unjudged"].tolist() == [1, 1, 1, 1, 1, 1, 0]
    assert (daily["ready_broken"] <= daily["broken"]).all()
    assert daily["answered"].is_monotonic_decreasing or daily["judged"].is_monotonic_increasing
    assert (daily["uncertain"] == 0).all()


def test_the_table_says_what_broke_and_when(capture: Capture) -> None:
    table = backtest_workloads(capture, steps=DAILY)
    broken = table[table["broken"]]
    assert set(broken["workload"]) == {"web"}
    assert broken["first_denied"].iloc[0] == "egress: no rule for TCP 587, peer 192.0.2.25"
    assert broken["first_denied_at"].iloc[0] == START + timedelta(days=5)
    cart = table[table["workload"] == "cart"]
    assert cart["status"].isna().tolist() == [True] * 6 + [False]
    assert cart["denied"].sum() == 0
    assert not table[table["workload"] == "redis"]["broken"].any(), "the scan is not needed"


def test_a_connection_that_was_open_already_can_break_a_workload(tmp_path: Path) -> None:
    rows = [*ROWS, row("redis", "ingress", "TCP", 6380, "web", at=100, connections=0)]
    first = backtest_workloads(open_capture(write_capture(tmp_path, rows)), steps=DAILY[:1])
    redis = first[first["workload"] == "redis"].iloc[0]
    assert redis["broken"]
    assert redis["denied"] == 0


def test_a_minute_is_enough_to_run_it() -> None:
    capture = open_capture(SHOP)
    found = backtest(capture, steps=4)
    assert len(found) == 4
    assert found["trained_until"].is_monotonic_increasing
    assert (found["judged"] > 0).all()
    assert found["broken"].iloc[-1] == 0
    pd.testing.assert_frame_equal(found, backtest(open_capture(SHOP), steps=4))


def test_an_origin_before_anything_was_learned_has_a_row(tmp_path: Path) -> None:
    rows = [row(None, "ingress", "TCP", 80, "client"), *ROWS[1:3]]
    found = backtest(open_capture(write_capture(tmp_path, rows)), steps=[START])
    assert found[["judged", "broken", "unjudged", "answered"]].to_numpy().tolist() == [[0, 0, 1, 0]]
    with pytest.raises(CaptureError, match="within the capture"):
        backtest(open_capture(tmp_path), steps=[datetime(2020, 1, 1, tzinfo=UTC)])
