"""The backtest's curve shows each origin once, for workloads and for connections."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from portforge.capture import open_capture
from portforge.figures import backtest_curve
from portforge.recommend import backtest

SHOP = Path(__file__).parents[3] / "datasets/shop"


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return backtest(open_capture(SHOP), steps=3)


def test_every_count_is_a_line_over_all_origins(frame):
    lines = {trace.name: list(trace.y) for trace in backtest_curve(frame).data}
    assert lines == {
        "with a policy": frame["judged"].tolist(),
        "of these, said to be ready": frame["ready"].tolist(),
        "of these, broken": frame["broken"].tolist(),
        "ready and broken": frame["ready_broken"].tolist(),
        "denied": frame["denied"].tolist(),
        "uncertain": frame["uncertain"].tolist(),
    }


def test_order_does_not_matter_and_the_frame_is_not_changed(frame):
    before = frame.copy(deep=True)
    assert backtest_curve(frame).to_json() == backtest_curve(frame.iloc[::-1]).to_json()
    pd.testing.assert_frame_equal(frame, before)


def test_an_empty_frame_says_no_traffic(frame):
    assert [a.text for a in backtest_curve(frame.iloc[:0]).layout.annotations] == ["no traffic"]
