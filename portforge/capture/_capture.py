"""The object an analyst holds: ask a capture for flows, losses, its window, or with SQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa

from portforge.capture._files import Files, find_files
from portforge.capture._remote import mirror
from portforge.capture._rows import check_losses, check_rows
from portforge.capture._times import Instant, Window, instant, iso
from portforge.errors import CaptureError
from portforge.schema import COLUMNS, LOSS_SCHEMA, SORT_COLUMNS
from portforge.store import store_url

__all__ = ["Capture", "open_capture"]

Names = str | Sequence[str] | None

_FLOW_COLUMNS = (*(column.name for column in COLUMNS), "cluster", "date")
_ORDER = ", ".join(dict.fromkeys((*SORT_COLUMNS, *_FLOW_COLUMNS)))
"""Every column, so that equal captures give equal frames."""
_EDGE = (
    "namespace, workload_kind, workload, direction, protocol, port, target_port, peer_ip, "
    "peer_kind, peer_namespace, peer_workload_kind, peer_workload, verdict, own_node"
)


def open_capture(path: str | Path, since: Instant = None, until: Instant = None) -> Capture:
    """Open the capture in the folder or object store ``path`` and check all of it.

    A URL (``s3://bucket/prefix``, or another that pyarrow knows) is copied into a cache first;
    later only its new files are. The standard AWS variables say how to get in.

    Parameters
    ----------
    since, until: of an object store, copy and open only the days that this window needs. A
        folder is always opened as a whole. The questions cut to the minute.

    Raises
    ------
    CaptureError: not a capture, empty, another schema version, a truncated or foreign file,
        or rows that cannot be true; names the file and the remedy. Or the store refuses.
    """
    url = store_url(path)
    return Capture(find_files(*mirror(url, since, until)) if url else find_files(Path(path)))


class Capture:
    """A checked capture. Make one with :func:`open_capture`."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self._db = duckdb.connect()
        self._db.execute("SET TimeZone = 'UTC'")
        try:
            self._views()
            check_rows(self._db)
            check_losses(self._db)
            _ = self._extent
        except duckdb.Error as wrong:
            raise _damaged(files, wrong) from None

    def _views(self) -> None:
        self._db.execute(f"CREATE VIEW flow_rows AS {_scan(files=self.files.flows)}")
        columns = ", ".join(_FLOW_COLUMNS)
        self._db.execute(f"CREATE VIEW flows AS SELECT {columns} FROM flow_rows")  # noqa: S608
        loss_names = ", ".join(f'"{name}"' for name in LOSS_SCHEMA.names)
        if self.files.losses:
            self._db.execute(f"CREATE VIEW loss_rows AS {_scan(files=self.files.losses)}")
        else:
            self._db.execute(
                "CREATE VIEW loss_rows AS SELECT '' AS node, TIMESTAMPTZ 'epoch' AS interval_start,"
                " TIMESTAMPTZ 'epoch' AS interval_end, '' AS reason, 0::BIGINT AS \"count\","
                " '' AS cluster, DATE '1970-01-01' AS date, '' AS filename WHERE false"
            )
        self._db.execute(
            f"CREATE VIEW losses AS SELECT {loss_names}, cluster, date FROM loss_rows"  # noqa: S608
        )

    def __repr__(self) -> str:
        window = self.window()
        return (
            f"Capture({str(self.files.root)!r}, {self.rows} rows, "
            f"{iso(window.start)} to {iso(window.end)})"
        )

    @cached_property
    def _extent(self) -> tuple[int, int, int]:
        """Rows, first and last instant in µs since the epoch."""
        rows, first, last = self._db.execute(
            "SELECT count(*), epoch_us(min(first_seen)), epoch_us(max(last_seen)) FROM flows"
        ).fetchall()[0]
        if not rows:
            raise CaptureError(
                "the capture holds no rows",
                place=str(self.files.root),
                remedy="record some traffic first",
            )
        return rows, first, last

    @property
    def rows(self) -> int:
        """Number of flow records."""
        return self._extent[0]

    @cached_property
    def clusters(self) -> tuple[str, ...]:
        """Names of the clusters recorded."""
        found = self._db.execute("SELECT DISTINCT cluster FROM flows ORDER BY 1").fetchall()
        return tuple(str(name) for (name,) in found)

    def window(self, since: Instant = None, until: Instant = None) -> Window:
        """From the first to the last event, cut to ``since`` and ``until``.

        Raises
        ------
        CaptureError: a time that cannot be read, or nothing was recorded between the two.
        """
        start, end = (
            datetime.fromtimestamp(us // 1_000_000, UTC).replace(microsecond=us % 1_000_000)
            for us in self._extent[1:]
        )
        left = max(start, instant(since, end) or start)
        right = min(end, instant(until, end) or end)
        if left > right:
            raise CaptureError(
                f"nothing was recorded from {iso(left)} until {iso(right)}",
                place=str(self.files.root),
                remedy=f"the capture runs from {iso(start)} to {iso(end)}",
            )
        return Window(left, right)

    def flows(
        self,
        since: Instant = None,
        until: Instant = None,
        namespace: Names = None,
        workload: Names = None,
    ) -> pd.DataFrame:
        """The flow records as a DataFrame, in a fixed order: contract 1, ``cluster``, ``date``.

        Parameters
        ----------
        since, until: instants, ISO text, or durations before the capture's end (``2h``). A row
            belongs to the window when its interval touches it.
        namespace, workload: names to keep; all when None.
        """
        test, values = self._where(since, until)
        for column, names in (("namespace", namespace), ("workload", workload)):
            if names is not None:
                test += f" AND list_contains(?, {column})"
                values.append([names] if isinstance(names, str) else list(names))
        return self._frame(f"SELECT * FROM flows WHERE {test} ORDER BY {_ORDER}", values)  # noqa: S608

    def losses(self, since: Instant = None, until: Instant = None) -> pd.DataFrame:
        """What the capture knows it does not know: one row per node, interval and reason."""
        test = "true"
        values: Sequence[object] = ()
        if since is not None or until is not None:  # else also losses outside the flows' window
            test = "interval_end >= ? AND interval_start <= ?"
            values = self.window(since, until)
        order = 'interval_start, interval_end, cluster, node, reason, "count"'
        return self._frame(f"SELECT * FROM losses WHERE {test} ORDER BY {order}", values)  # noqa: S608

    def sql(self, query: str) -> pd.DataFrame:
        """The answer to a DuckDB query over the views ``flows`` and ``losses``.

        Raises
        ------
        CaptureError: the query is wrong; carries DuckDB's own sentence.
        """
        try:
            return self._frame(query, [])
        except duckdb.Error as wrong:
            raise CaptureError(
                str(wrong).splitlines()[0], place="sql", remedy="the views are flows and losses"
            ) from None

    def aggregated(self, since: Instant = None, until: Instant = None) -> pd.DataFrame:
        """One row per edge: workload, direction, protocol, port, peer and verdict.

        Beside the sums: ``hours`` (sorted hours since the epoch in which it was seen), ``pods``
        and ``peer_names`` (sorted lists), and ``own_node`` (the peer is the pod's own node).
        """
        test, values = self._where(since, until)
        return self._frame(
            f"""
            WITH chosen AS (
                SELECT *, peer_kind = 'node' AND peer_workload IS NOT DISTINCT FROM node AS own_node
                FROM flows WHERE {test}
            )
            SELECT {_EDGE},
                count(*) AS rows,
                sum(connections)::BIGINT AS connections,
                sum(bytes_sent)::BIGINT AS bytes_sent,
                sum(bytes_received)::BIGINT AS bytes_received,
                min(first_seen) AS first_seen,
                max(last_seen) AS last_seen,
                list_sort(list_distinct(flatten(list(range(
                    epoch_us(first_seen) // 3600000000, epoch_us(last_seen) // 3600000000 + 1
                ))))) AS hours,
                list_sort(list_distinct(list(pod) FILTER (pod IS NOT NULL))) AS pods,
                list_sort(list_distinct(list(peer_name) FILTER (peer_name IS NOT NULL)))
                    AS peer_names
            FROM chosen GROUP BY {_EDGE} ORDER BY {_EDGE}
            """,  # noqa: S608
            values,
        )

    def pods(self, since: Instant = None, until: Instant = None) -> pd.DataFrame:
        """One row per pod: its workload, node, and when it was first and last seen."""
        test, values = self._where(since, until)
        keys = "namespace, workload_kind, workload, pod, node"
        return self._frame(
            f"SELECT {keys}, min(first_seen) AS first_seen, max(last_seen) AS last_seen "  # noqa: S608
            f"FROM flows WHERE workload IS NOT NULL AND pod IS NOT NULL AND {test} "
            f"GROUP BY {keys} ORDER BY {keys}",
            values,
        )

    def _where(self, since: Instant, until: Instant) -> tuple[str, list[object]]:
        window = self.window(since, until)
        return "last_seen >= ? AND first_seen <= ?", [window.start, window.end]

    def _frame(self, query: str, values: Sequence[object]) -> pd.DataFrame:
        answer = self._db.sql(query, params=list(values))
        return _to_pandas(answer.to_arrow_table()) if answer is not None else pd.DataFrame()


def _scan(files: tuple[str, ...]) -> str:
    names = ", ".join("'" + name.replace("'", "''") + "'" for name in files)
    return (
        f"SELECT * FROM read_parquet([{names}], filename = true, hive_partitioning = true, "  # noqa: S608
        "hive_types = {'cluster': VARCHAR, 'date': DATE})"
    )


def _to_pandas(table: pa.Table) -> pd.DataFrame:
    """To pandas, with integers that may be null kept integers."""
    nullable = {pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype()}
    frame: pd.DataFrame = table.to_pandas()
    for field in table.schema:
        if field.type in nullable and (field.name in _MAY_BE_NULL or table[field.name].null_count):
            frame[field.name] = table[field.name].to_pandas(types_mapper=nullable.get)
    return frame


_MAY_BE_NULL = {"target_port", "rtt_us"}


def _damaged(files: Files, wrong: duckdb.Error) -> CaptureError:
    text = str(wrong)
    place = next((f for f in (*files.flows, *files.losses) if f in text), str(files.root))
    return CaptureError(
        f"damaged rows ({text.splitlines()[0]})",
        place=place,
        remedy="remove the file; the other files of the capture stay usable",
    )
