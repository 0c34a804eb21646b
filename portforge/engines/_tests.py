"""What makes a flow record impossible, as Ibis conditions. Does not say what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Container
from enum import StrEnum

import ibis.expr.types as ir

from portforge.schema import COLUMNS, Direction, PeerKind, Protocol, Verdict

__all__ = ["TESTS", "conditions"]

Test = Callable[[ir.Table], ir.BooleanValue]


def _not_a_port(name: str) -> Test:
    return lambda rows: ~rows[name].between(0, 65535)


def _negative(name: str) -> Test:
    return lambda rows: rows[name] < 0


def _unknown(name: str, known: type[StrEnum]) -> Test:
    words = [word.value for word in known]
    return lambda rows: rows[name].notin(words)


def _null(name: str) -> Test:
    return lambda rows: rows[name].isnull()


_KNOWN = {"verdict": Verdict, "direction": Direction, "protocol": Protocol, "peer_kind": PeerKind}
_COUNTERS = ("connections", "bytes_sent", "bytes_received", "retransmits")

_ALL: list[tuple[str, str, Test]] = [
    *((f"{name} is outside 0–65535", name, _not_a_port(name)) for name in ("port", "target_port")),
    ("last_seen is before first_seen", "last_seen", lambda rows: rows.last_seen < rows.first_seen),
    ("rtt_us is negative", "rtt_us", _negative("rtt_us")),
    *((f"unknown {name}", name, _unknown(name, known)) for name, known in _KNOWN.items()),
    *((f"{name} is negative", name, _negative(name)) for name in _COUNTERS),
    *((f"{c.name} is null", c.name, _null(c.name)) for c in COLUMNS if not c.nullable),
]

TESTS: dict[str, Test] = {what: test for what, _, test in _ALL}
"""By what is wrong: true for an impossible row; null, as SQL has it, where it cannot be said."""


def conditions(columns: Container[str], *, others: bool) -> list[Test]:
    """The tests that look at one of ``columns``; with ``others``, those that do not."""
    return [test for _, column, test in _ALL if (column in columns) != others]
