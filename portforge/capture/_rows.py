"""Check that the rows of a capture can be true. One pass in DuckDB; which rows mean what: not here.

A single impossible row refuses the capture: whoever wrote it may have written others that only
look possible.
"""

from __future__ import annotations

import duckdb

from portforge.errors import CaptureError
from portforge.schema import COLUMNS, Direction, LossReason, PeerKind, Protocol, Verdict

__all__ = ["check_losses", "check_rows"]


def check_rows(connection: duckdb.DuckDBPyConnection) -> None:
    """Refuse the view ``flow_rows`` where a row is impossible.

    Raises
    ------
    CaptureError: names the file, what is wrong, and in how many of its rows.
    """
    checks = {
        "port is outside 0–65535": "port NOT BETWEEN 0 AND 65535",
        "target_port is outside 0–65535": "target_port NOT BETWEEN 0 AND 65535",
        "last_seen is before first_seen": "last_seen < first_seen",
        "rtt_us is negative": "rtt_us < 0",
        **_unknown("verdict", Verdict),
        **_unknown("direction", Direction),
        **_unknown("protocol", Protocol),
        **_unknown("peer_kind", PeerKind),
    }
    for counter in ("connections", "bytes_sent", "bytes_received", "retransmits"):
        checks[f"{counter} is negative"] = f"{counter} < 0"
    for column in COLUMNS:
        if not column.nullable:
            checks[f"{column.name} is null"] = f"{column.name} IS NULL"
    _check(connection, "flow_rows", checks)


def check_losses(connection: duckdb.DuckDBPyConnection) -> None:
    """Refuse the view ``loss_rows`` where a row is impossible.

    Raises
    ------
    CaptureError: as :func:`check_rows`.
    """
    checks = {
        "interval_end is before interval_start": "interval_end < interval_start",
        "count is negative": '"count" < 0',
        **_unknown("reason", LossReason),
    }
    for name in ("node", "interval_start", "interval_end", "count"):
        checks[f"{name} is null"] = f'"{name}" IS NULL'
    _check(connection, "loss_rows", checks)


def _unknown(
    column: str, known: type[Direction | LossReason | PeerKind | Protocol | Verdict]
) -> dict[str, str]:
    words = ", ".join(f"'{word}'" for word in known)
    return {f"unknown {column}": f"{column} NOT IN ({words})"}


def _check(connection: duckdb.DuckDBPyConnection, view: str, checks: dict[str, str]) -> None:
    counts = ", ".join(f"count(*) FILTER ({test})" for test in checks.values())
    bad = " OR ".join(f"({test})" for test in checks.values())
    query = f"SELECT filename, {counts} FROM {view} WHERE {bad} GROUP BY ALL ORDER BY filename"  # noqa: S608
    found = connection.execute(query).fetchone()
    if found is None:
        return
    file, *numbers = found
    problems = [
        f"{name} in {number} {'row' if number == 1 else 'rows'}"
        for name, number in zip(checks, numbers, strict=True)
        if number
    ]
    raise CaptureError(
        f"impossible rows: {'; '.join(problems)}",
        place=str(file),
        remedy="do not trust this file: remove it, or record again",
    )
