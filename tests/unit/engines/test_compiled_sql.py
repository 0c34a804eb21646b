"""The SQL of every question, per dialect, is what ``sql/`` holds: a change there is seen in review.

``PORTFORGE_WRITE_SNAPSHOTS=1 pytest tests/unit/engines/test_compiled_sql.py`` writes it again.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from portforge.engines._compile import to_sql
from portforge.engines._expressions import (
    aggregated,
    daily,
    days,
    extent,
    flow_rows,
    pods,
    problems,
    within,
)
from portforge.errors import CaptureError

SQL = Path(__file__).with_name("sql")
MICROSECONDS = {"duckdb": "epoch_us", "pyspark": "unix_micros"}
START, END = datetime(2026, 3, 2, 8, 0, 0, 1, tzinfo=UTC), datetime(2026, 3, 5, 8, 30, tzinfo=UTC)
QUESTIONS = {
    "daily": lambda us: daily(flow_rows(), us),
    "problems": lambda us: problems(flow_rows()),  # noqa: ARG005
    "extent": lambda us: extent(days()),  # noqa: ARG005
    "aggregated": lambda us: aggregated(days(), us),
    "pods": lambda us: pods(days()),  # noqa: ARG005
    "pods_within": lambda us: pods(within(days(), flow_rows(), us, START, END)),
}


@pytest.mark.parametrize("dialect", MICROSECONDS)
@pytest.mark.parametrize("question", QUESTIONS)
def test_the_sql_is_the_one_that_was_reviewed(question: str, dialect: str) -> None:
    made = to_sql(QUESTIONS[question](MICROSECONDS[dialect]), dialect) + "\n"
    known = SQL / f"{question}.{dialect}.sql"
    if os.environ.get("PORTFORGE_WRITE_SNAPSHOTS") == "1":
        known.write_text(made)
    assert made == known.read_text()


def test_an_unknown_dialect() -> None:
    with pytest.raises(CaptureError, match="no SQL compiler for the dialect 'cobol'"):
        to_sql(days(), "cobol")
