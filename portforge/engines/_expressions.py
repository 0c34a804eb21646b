"""The heavy questions, each one Ibis expression over contract 1. Runs nothing, knows no engine.

``daily`` is the only one that reads every flow record, and reads it once: it adds up, keeps in
which hours something was seen, and counts the rows that cannot be true. ``aggregated`` and
``pods`` ask its answer, which is small and can be kept (a rollup). All integers are signed 64-bit.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir
import pyarrow as pa

from portforge.engines._tests import TESTS, Test, conditions
from portforge.schema import COLUMNS, PeerKind

__all__ = [
    "DAYS_SCHEMA",
    "EDGE",
    "aggregated",
    "daily",
    "days",
    "extent",
    "flow_rows",
    "pods",
    "problems",
    "rollups",
    "within",
]

EDGE = (
    *("namespace", "workload_kind", "workload", "direction", "protocol", "port", "target_port"),
    *("peer_ip", "peer_kind", "peer_namespace", "peer_workload_kind", "peer_workload", "verdict"),
    "own_node",
)
"""What makes an edge. ``own_node``: the peer is the pod's own node."""

_KEYS = (*(name for name in EDGE if name != "own_node"), "node", "pod", "peer_name")
_SUMS = ("connections", "bytes_sent", "bytes_received")
_HOUR, _DAY_HOURS = 3_600_000_000, 24
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INSTANT = dt.Timestamp("UTC", 6)
_KINDS = {
    pa.int32(): dt.int32,
    pa.int64(): dt.int64,
    pa.timestamp("us", tz="UTC"): _INSTANT,
}

_text, _instant = pa.string(), pa.timestamp("us", tz="UTC")
DAYS_SCHEMA: pa.Schema = pa.schema(
    [
        *(pa.field(n, pa.int32() if n in {"port", "target_port"} else _text) for n in _KEYS),
        pa.field("day", pa.int64(), metadata={"meaning": "day of first_seen, since the epoch"}),
        pa.field("long_until", pa.int64(), metadata={"meaning": "last hour of rows over 24 hours"}),
        pa.field("rows", pa.int64(), metadata={"meaning": "flow records added up"}),
        *(pa.field(name, pa.int64()) for name in _SUMS),
        pa.field("first_seen", _instant),
        pa.field("last_seen", _instant),
        pa.field("hours", pa.int64(), metadata={"meaning": "bit n: seen in hour n of the day"}),
        pa.field("wrong", pa.int64(), metadata={"meaning": "rows that cannot be true"}),
    ]
)
"""The answer to ``daily``. A row that goes past midnight sets bits above 23."""


def flow_rows(name: str = "flow_rows") -> ir.Table:
    """Contract 1 as a table of the engine, with the file of each row."""
    return ibis.table({**{c.name: _kind(c.type) for c in COLUMNS}, "filename": dt.string}, name)


def days(name: str = "days") -> ir.Table:
    """The kept answer of :func:`daily` as a table of the engine."""
    return ibis.table({field.name: _kind(field.type) for field in DAYS_SCHEMA}, name)


def rollups(name: str = "rollup_rows") -> ir.Table:
    """The answers of :func:`daily` that were kept in files."""
    kinds = {field.name: _kind(field.type) for field in DAYS_SCHEMA}
    return ibis.table({**kinds, "filename": dt.string}, name).select(*kinds)


def daily(rows: ir.Table, microseconds: str) -> ir.Table:
    """One row per edge, pod, node, name of the peer, and day.

    Parameters
    ----------
    rows: as :func:`flow_rows`.
    microseconds: the engine's SQL function from an instant to microseconds since the epoch.
    """
    rows = rows.mutate(
        first_hour=_hour(rows.first_seen, microseconds),
        last_hour=_hour(rows.last_seen, microseconds),
    )
    rows = rows.mutate(day=rows.first_hour // _DAY_HOURS, more=rows.last_hour - rows.first_hour)
    short = rows.more.between(0, _DAY_HOURS - 1)
    one = ibis.literal(1, "int8").cast("int64")  # without the cast, 32 bits of an engine's choice
    seen = ((one << (rows.more + 1)) - 1) << (rows.first_hour - rows.day * _DAY_HOURS)
    rows = rows.mutate(
        long_until=ibis.ifelse(short, ibis.null("int64"), rows.last_hour),
        seen=ibis.ifelse(short, seen, 0),
        is_wrong=_any(rows, conditions(_KEYS, others=True)).cast("int8"),
    )
    found = rows.group_by(*_KEYS, "day", "long_until").aggregate(
        rows=rows.count(),
        **{name: _total(rows[name]) for name in _SUMS},
        first_seen=rows.first_seen.min(),
        last_seen=rows.last_seen.max(),
        hours=_bit_or(rows.seen),
        wrong=_total(rows.is_wrong.cast("int64")),
    )
    # What the keys say is the same for all rows added up, and looked at once.
    return found.mutate(
        wrong=ibis.ifelse(_any(found, conditions(_KEYS, others=False)), found["rows"], found.wrong)
    )


def _any(rows: ir.Table, tests: list[Test]) -> ir.BooleanValue:
    return ibis.or_(*(test(rows) for test in tests)).fill_null(False)


def extent(days: ir.Table) -> ir.Table:
    """Rows, impossible rows, and the first and last instant of all."""
    return days.aggregate(
        rows=_total(days["rows"]),
        wrong=_total(days.wrong),
        first_seen=days.first_seen.min(),
        last_seen=days.last_seen.max(),
    )


def problems(rows: ir.Table) -> ir.Table:
    """Of the first file with impossible rows: how many are wrong in each way."""
    tests = {name: test(rows).fill_null(False) for name, test in TESTS.items()}
    wrong = rows.filter(ibis.or_(*tests.values()))
    return (
        wrong.group_by("filename")
        .aggregate(
            **{
                f"wrong_{number}": _total(test(wrong).fill_null(False).cast("int8").cast("int64"))
                for number, test in enumerate(TESTS.values())
            }
        )
        .order_by("filename")
        .limit(1)
    )


def within(
    days: ir.Table,
    rows: ir.Table,
    microseconds: str,
    start: datetime | None,
    end: datetime | None,
) -> ir.Table:
    """The daily sums of the rows that touch the window: kept days, and rows at its two ends.

    Parameters
    ----------
    start, end: None where nothing lies before, or after.
    """
    first = None if start is None else -((_EPOCH - start) // timedelta(days=1))
    last = None if end is None else (end - _EPOCH) // timedelta(days=1)
    parts: list[ir.Table] = []
    if first is not None and last is not None and first >= last:
        return daily(rows.filter(rows.last_seen >= start, rows.first_seen <= end), microseconds)
    inner = days
    if first is not None:
        edge = _EPOCH + timedelta(days=first)
        parts.append(rows.filter(rows.last_seen >= start, rows.first_seen < edge))
        inner = inner.filter(inner.day >= first)
    if last is not None:
        edge = _EPOCH + timedelta(days=last)
        parts.append(rows.filter(rows.first_seen >= edge, rows.first_seen <= end))
        inner = inner.filter(inner.day < last)
    return inner.union(*(daily(part, microseconds) for part in parts)) if parts else inner


def aggregated(days: ir.Table, microseconds: str) -> ir.Table:
    """One row per edge, in a fixed order; columns as ``Capture.aggregated`` tells, but ``seen``.

    ``seen`` says when, in a list without an order: see ``_hours``, which makes hours of it.
    """
    own = (days.peer_kind == PeerKind.NODE.value) & days.peer_workload.identical_to(days.node)
    long = days.long_until.notnull()
    days = days.mutate(
        own_node=own,
        seen=ibis.struct(
            {
                "day": days.day,
                "bits": days.hours,
                "first": ibis.ifelse(long, _hour(days.first_seen, microseconds), None),
                "last": days.long_until,
            }
        ),
    )
    lists = {"seen": days.seen.collect()}
    for name in ("pods", "peer_names"):
        column = days[name.removesuffix("s")]
        lists[name] = ibis.ifelse(column.count() > 0, _distinct(column), None)
    edges = days.group_by(*EDGE).aggregate(**_sums(days), **lists)
    return edges.order_by(*EDGE)


def pods(days: ir.Table) -> ir.Table:
    """One row per pod: its workload, node, and when it was first and last seen."""
    keys = ("namespace", "workload_kind", "workload", "pod", "node")
    known = days.filter(days.workload.notnull(), days.pod.notnull())
    found = known.group_by(*keys).aggregate(
        first_seen=known.first_seen.min(), last_seen=known.last_seen.max()
    )
    return found.order_by(*keys)


def _kind(kind: pa.DataType) -> dt.DataType:
    """Without Ibis's own translation, which asks for a package that only its backends bring."""
    return _KINDS.get(kind, dt.string)


def _sums(table: ir.Table) -> dict[str, ir.Scalar]:
    return {
        **{name: _total(table[name]) for name in ("rows", *_SUMS)},
        "first_seen": table.first_seen.min(),
        "last_seen": table.last_seen.max(),
    }


def _hour(moment: ir.Value, microseconds: str) -> ir.IntegerValue:
    """Hours since the epoch. A quotient of doubles, exact: both are far below 2⁵³."""
    return _of_engine(ibis.udf.scalar, microseconds, _INSTANT, dt.int64)(moment) // _HOUR


def _distinct(column: ir.Value) -> ir.ArrayScalar:
    """All of a group once, sorted."""
    # Ibis's own ``unique`` thinks of nulls among the items, at length; there are none.
    items = column.collect()
    return _of_engine(ibis.udf.scalar, "array_distinct", items.type(), items.type())(items).sort()


def _bit_or(column: ir.Value) -> ir.IntegerScalar:
    """Ibis has it, but not for Spark."""
    return _of_engine(ibis.udf.agg, "bit_or", dt.int64, dt.int64)(column)


def _total(column: ir.Value) -> ir.IntegerScalar:
    """A sum of 64 bits: an engine that would widen it must refuse instead."""
    wide = _of_engine(ibis.udf.agg, "sum", dt.int64, dt.Decimal(38, 0))
    return wide(column).cast("int64")


def _of_engine(
    kind: type[ibis.udf.scalar] | type[ibis.udf.agg],
    name: str,
    takes: dt.DataType,
    gives: dt.DataType,
) -> Callable[[ir.Value], Any]:
    """A function that the engines have under the same name, and Ibis does not know as such."""

    def only_named(x: object) -> None:
        """Its body is the engine's."""

    found: Callable[[ir.Value], Any] = kind.builtin(
        only_named, name=name, signature=((takes,), gives)
    )
    return found
