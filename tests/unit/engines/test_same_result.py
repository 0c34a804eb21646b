"""Every engine gives what plain Python gives: sums, hours, pods, order, and the same refusals."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sums_oracle as oracle
from flow_rows import row, write_capture, write_file
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from portforge.capture import compact, open_capture
from portforge.errors import CaptureError

LATER = datetime(2026, 4, 1, tzinfo=UTC)
ENGINES = {"duckdb": 15, "spark": 2}
"""Each with the number of examples that it has time for."""


def check(data: st.DataObject, engine: str) -> None:
    # Spark takes seconds for a question, of however many rows.
    rows = data.draw(oracle.rows(20, 40) if engine == "spark" else oracle.rows())
    windows = [data.draw(oracle.windows(rows))]
    with tempfile.TemporaryDirectory() as folder:
        answers_are_right(write(Path(folder), rows), rows, windows, engine)
        note("compacted")
        compact(folder, now=LATER)
        assert list(Path(folder).glob("rollup/**/*.parquet"))
        answers_are_right(Path(folder), rows, [] if engine == "spark" else windows, engine)


def answers_are_right(
    folder: Path, rows: list[oracle.Row], windows: list[oracle.Window], engine: str
) -> None:
    """Of the capture as a whole, and of each window."""
    capture = open_capture(folder, engine=engine)
    for since, until in [(None, None), *windows]:
        try:
            window = capture.window(since, until)
        except CaptureError:  # it ends before it begins
            continue
        note(f"{window}")
        edges = oracle.as_rows(capture.aggregated(since, until))
        assert edges == oracle.aggregated(rows, *window)
        assert oracle.as_rows(capture.pods(since, until)) == oracle.pods(rows, *window)


def write(folder: Path, rows: list[oracle.Row]) -> Path:
    """Files as the recorder would cut them: by the day of first_seen; two for each day."""
    days = defaultdict(list)
    for number, one in enumerate(rows):
        days[one["first_seen"].date().isoformat(), number % 2].append(one)
    for (day, part), some in days.items():
        write_file(folder, f"n-20260303T000000Z-{part}.parquet", some, day=day)
    return folder


@pytest.mark.timeout(900)  # Java warms up for a minute of processor time
@pytest.mark.parametrize("engine", ENGINES)
def test_any_rows_in_any_window(engine: str) -> None:
    @settings(
        max_examples=ENGINES[engine],
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        check(data, engine)

    holds()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_sum_that_just_fits_and_one_that_does_not(engine: str, tmp_path: Path) -> None:
    """Refused, not saturated: such a number is a damaged record, and a sum would hide it."""
    half = row("web", "ingress", "TCP", 80, "client", bytes_sent=2**62)
    fits = [half, {**half, "bytes_sent": 2**62 - 1}]
    capture = open_capture(write_capture(tmp_path / "fits", fits), engine=engine)
    assert capture.aggregated()["bytes_sent"].tolist() == [2**63 - 1]
    one_day = write_capture(tmp_path / "day", [half, half])
    with pytest.raises(CaptureError, match="add up to more than 64 bits hold"):
        open_capture(one_day, engine=engine)
    later = row("web", "ingress", "TCP", 80, "client", bytes_sent=2**62, at=24)
    two_days = open_capture(write_capture(tmp_path / "days", [half, later]), engine=engine)
    with pytest.raises(CaptureError, match="add up to more than 64 bits hold"):
        two_days.aggregated()


@pytest.mark.parametrize("engine", ENGINES)
def test_impossible_rows_are_refused_with_their_file(engine: str, tmp_path: Path) -> None:
    good = row("web", "ingress", "TCP", 80, "client")
    write_file(tmp_path, "a b-20260302T080000Z-0.parquet", [good])
    bad = [{**good, "port": 70000, "verdict": "maybe"}, {**good, "port": -1}, good]
    write_file(tmp_path, "c d-20260302T080000Z-0.parquet", bad)
    told = r"/c d-.*: impossible rows: port is outside 0–65535 in 2 rows; unknown verdict in 1 row;"
    with pytest.raises(CaptureError, match=told):
        open_capture(tmp_path, engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_impossible_rows_come_before_a_sum_that_passes_64_bits(engine: str, tmp_path: Path) -> None:
    huge = row("web", "ingress", "TCP", 99999, "client", bytes_sent=2**62)
    with pytest.raises(CaptureError, match="port is outside"):
        open_capture(write_capture(tmp_path, [huge, huge]), engine=engine)
