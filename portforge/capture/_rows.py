"""What is said of rows that cannot be true; the check of the losses. Flow records: ``_sums``.

A single impossible row refuses the capture: whoever wrote it may have written others that only
look possible.
"""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

import duckdb

from portforge.errors import CaptureError
from portforge.schema import LossReason

__all__ = ["check_losses", "impossible"]


def check_losses(connection: duckdb.DuckDBPyConnection) -> None:
    """Refuse the view ``loss_rows`` where a row is impossible.

    Raises
    ------
    CaptureError: names the file, what is wrong, and in how many of its rows.
    """
    reasons = ", ".join(f"'{reason}'" for reason in LossReason)
    checks = {
        "interval_end is before interval_start": "interval_end < interval_start",
        "count is negative": '"count" < 0',
        "unknown reason": f"reason NOT IN ({reasons})",
    }
    for name in ("node", "interval_start", "interval_end", "count"):
        checks[f"{name} is null"] = f'"{name}" IS NULL'
    counts = ", ".join(f"count(*) FILTER ({test})" for test in checks.values())
    bad = " OR ".join(f"({test})" for test in checks.values())
    query = f"SELECT filename, {counts} FROM loss_rows WHERE {bad} GROUP BY ALL ORDER BY filename"  # noqa: S608
    found = connection.execute(query).fetchone()
    if found is not None:
        file, *numbers = found
        raise impossible(str(file), dict(zip(checks, numbers, strict=True)))


def impossible(file: str, problems: dict[str, int]) -> CaptureError:
    """What is said of a file with rows that cannot be true, by how many of them."""
    told = "; ".join(
        f"{name} in {number} {'row' if number == 1 else 'rows'}"
        for name, number in problems.items()
        if number
    )
    return CaptureError(
        f"impossible rows: {told}",
        place=unquote(urlsplit(file).path) if file.startswith("file:") else file,
        remedy="do not trust this file: remove it, or record again",
    )
