"""What an engine must answer, in plain Python over rows; and rows made to trip one. Tests only."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
from hypothesis import strategies as st

from portforge.schema import Direction, PeerKind, Protocol, Verdict

Row = dict[str, Any]
Window = tuple[datetime | None, datetime | None]

_EDGE = (
    *("namespace", "workload_kind", "workload", "direction", "protocol", "port", "target_port"),
    *("peer_ip", "peer_kind", "peer_namespace", "peer_workload_kind", "peer_workload", "verdict"),
)
_SUMS = ("connections", "bytes_sent", "bytes_received")
HOUR = timedelta(hours=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MIDNIGHT = datetime(2026, 3, 3, tzinfo=UTC)


def aggregated(rows: list[Row], start: datetime, end: datetime) -> list[Row]:
    """The edges of the rows that touch the window, in their order."""
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        if row["last_seen"] >= start and row["first_seen"] <= end:
            own = row["peer_kind"] == "node" and row["peer_workload"] == row["node"]
            groups[(*(row[name] for name in _EDGE), own)].append(row)
    return [
        {
            **dict(zip((*_EDGE, "own_node"), key, strict=True)),
            "rows": len(some),
            **{name: sum(row[name] for row in some) for name in _SUMS},
            "first_seen": min(row["first_seen"] for row in some),
            "last_seen": max(row["last_seen"] for row in some),
            "hours": sorted({hour for row in some for hour in _hours(row)}),
            "pods": sorted({row["pod"] for row in some if row["pod"] is not None}),
            "peer_names": sorted({r["peer_name"] for r in some if r["peer_name"] is not None}),
        }
        for key, some in sorted(groups.items(), key=lambda item: _order(item[0]))
    ]


def pods(rows: list[Row], start: datetime, end: datetime) -> list[Row]:
    """The pods of the rows that touch the window, in their order."""
    names = ("namespace", "workload_kind", "workload", "pod", "node")
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        known = row["workload"] is not None and row["pod"] is not None
        if known and row["last_seen"] >= start and row["first_seen"] <= end:
            groups[tuple(row[name] for name in names)].append(row)
    return [
        {
            **dict(zip(names, key, strict=True)),
            "first_seen": min(row["first_seen"] for row in some),
            "last_seen": max(row["last_seen"] for row in some),
        }
        for key, some in sorted(groups.items(), key=lambda item: _order(item[0]))
    ]


def as_rows(frame: pd.DataFrame) -> list[Row]:
    """A frame of the library in plain Python; a list that is null is an empty one."""
    return [
        {str(name): _plain(name, value) for name, value in row.items()}
        for row in frame.to_dict("records")
    ]


def _plain(name: Any, value: Any) -> Any:
    if name in {"hours", "pods", "peer_names"}:
        return [] if value is None else list(value)
    if value is None or (not isinstance(value, list) and pd.isna(value)):
        return None
    if isinstance(value, pd.Timestamp):
        return value.to_pydatetime()
    return value


def _hours(row: Row) -> range:
    return range((row["first_seen"] - _EPOCH) // HOUR, (row["last_seen"] - _EPOCH) // HOUR + 1)


def _order(key: tuple[Any, ...]) -> list[tuple[bool, Any]]:
    """Nulls last; text by code points, which is the order of its bytes."""
    return [(part is None, 0 if part is None else part) for part in key]


_names = st.sampled_from([None, "a", "b", "A", "ä", "a\u0308", "名前", "🐱", "", "'"])
_some = st.sampled_from(["a", "ä", "🐱"])
_counts = st.one_of(st.integers(0, 3), st.sampled_from([2**31, 2**53 + 1, 2**57]))
_microseconds = st.sampled_from([0, 1, 3_599_999_999, 3_600_000_000, 3_600_000_001])
_lengths = st.one_of(
    st.integers(0, 5_000_000),
    st.integers(0, 49).map(lambda hours: hours * 3_600_000_000),
    st.integers(0, 200 * 3_600_000_000),
)


@st.composite
def _row(draw: st.DrawFn) -> Row:
    hours = draw(st.integers(-30, 30))
    first = MIDNIGHT + hours * HOUR + timedelta(microseconds=draw(_microseconds))
    return {
        "first_seen": first,
        "last_seen": first + timedelta(microseconds=draw(_lengths)),
        "node": draw(_some),
        **{
            name: draw(_names)
            for name in ("namespace", "workload_kind", "workload", "pod", "peer_ip", "peer_name")
        },
        "direction": draw(st.sampled_from(list(Direction))).value,
        "protocol": draw(st.sampled_from(list(Protocol)[:2])).value,
        "port": draw(st.sampled_from([0, 80, 65535])),
        "target_port": draw(st.sampled_from([None, 80])),
        "peer_kind": draw(st.sampled_from([PeerKind.NODE, PeerKind.UNKNOWN])).value,
        "peer_namespace": draw(_names),
        "peer_workload_kind": draw(st.sampled_from([None, "Node"])),
        "peer_workload": draw(st.one_of(st.none(), _some)),
        "verdict": draw(st.sampled_from(list(Verdict)[:2])).value,
        **{name: draw(_counts) for name in (*_SUMS, "retransmits")},
        "rtt_us": draw(st.sampled_from([None, 0, 2**40])),
        "rule": draw(st.sampled_from([None, "in-tcp-80"])),
    }


@st.composite
def rows(draw: st.DrawFn, least: int = 1, most: int = 8) -> list[Row]:
    """Rows that share edges, days and hours; some stand there twice."""
    some = draw(st.lists(_row(), min_size=least, max_size=most))
    twice = draw(st.lists(st.sampled_from(some), max_size=most))
    times = draw(st.lists(_row(), max_size=3))
    # The same edge at other times.
    moved = [
        {**one, "first_seen": other["first_seen"], "last_seen": other["last_seen"]}
        for one, other in zip(some, times, strict=False)
    ]
    return [*some, *twice, *moved]


def windows(rows: list[Row]) -> st.SearchStrategy[Window]:
    """None, the rows' own instants, and a microsecond beside them."""
    instants = sorted({row[name] for row in rows for name in ("first_seen", "last_seen")})
    step = timedelta(microseconds=1)
    near = sorted({i + d for i in [*instants, MIDNIGHT] for d in (-step, 0 * step, step)})
    some = st.one_of(st.none(), st.sampled_from(near))
    return st.tuples(some, some)
