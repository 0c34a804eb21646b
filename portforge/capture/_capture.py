"""The object an analyst holds: ask a capture for flows, losses, its window, or with SQL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa

from portforge.capture._files import Files, find_files
from portforge.capture._remote import mirror
from portforge.capture._rhythms import rhythms
from portforge.capture._rollups import rollup_of
from portforge.capture._rows import check_losses
from portforge.capture._times import Instant, Window, instant, iso
from portforge.engines import Engine, EngineError, open_engine
from portforge.engines._duckdb import DuckDB, scan
from portforge.errors import CaptureError
from portforge.schema import COLUMNS, LOSS_SCHEMA, SORT_COLUMNS
from portforge.store import store_url

__all__ = ["Capture", "open_capture"]

Names = str | Sequence[str] | None

_FLOW_COLUMNS = (*(column.name for column in COLUMNS), "cluster", "date")
_ORDER = ", ".join(dict.fromkeys((*SORT_COLUMNS, *_FLOW_COLUMNS)))
"""Every column, so that equal captures give equal frames."""


def open_capture(
    path: str | Path, since: Instant = None, until: Instant = None, engine: str = "duckdb"
) -> Capture:
    """Open the capture in the folder or object store ``path`` and check all of it.

    A URL (``s3://bucket/prefix``, or another that pyarrow knows) is copied into a cache first;
    later only its new files are. The standard AWS variables say how to get in.

    Parameters
    ----------
    since, until: of an object store, copy and open only the days that this window needs. A
        folder is always opened as a whole. The questions cut to the minute.
    engine: what sums up, by its name: see :mod:`portforge.engines`.

    Raises
    ------
    CaptureError: not a capture, empty, another schema version, a truncated or foreign file,
        or rows that cannot be true; names the file and the remedy. Or the store refuses, or there
        is no such engine.
    HostError: the engine needs something that is not installed.
    """
    runs = None if engine == "duckdb" else open_engine(engine)
    url = store_url(path)
    if url:
        return Capture(find_files(*mirror(url, since, until)), runs)
    while True:
        before = _listed(Path(path))
        try:
            return Capture(find_files(Path(path)), runs)
        except CaptureError:
            if _listed(Path(path)) == before:
                raise
            # Files were merged or came meanwhile: what is there now?


def _listed(path: Path) -> set[str]:
    return {str(file) for file in path.rglob("*.parquet")}


class Capture:
    """A checked capture. Make one with :func:`open_capture`."""

    def __init__(self, files: Files, engine: Engine | None = None) -> None:
        # Ibis takes half a second, and not every command opens a capture.
        from portforge.capture._sums import Sums

        self.files = files
        self._used: tuple[str, ...] = ()
        own = DuckDB()
        self._db = own.connection
        try:
            self._views()
            if engine is not None:
                engine.scan("flow_rows", files.flows)
            self._sums = Sums(engine or own, str(files.root), *self._rollups(engine or own))
            check_losses(self._db)
        except (duckdb.Error, EngineError) as wrong:
            raise self._damaged(wrong) from None
        _ = self._extent

    def _views(self) -> None:
        self._db.execute(f"CREATE VIEW flow_rows AS {scan(self.files.flows)}")
        columns = ", ".join(_FLOW_COLUMNS)
        self._db.execute(f"CREATE VIEW flows AS SELECT {columns} FROM flow_rows")  # noqa: S608
        loss_names = ", ".join(f'"{name}"' for name in LOSS_SCHEMA.names)
        if self.files.losses:
            self._db.execute(f"CREATE VIEW loss_rows AS {scan(self.files.losses)}")
        else:
            self._db.execute(
                "CREATE VIEW loss_rows AS SELECT '' AS node, TIMESTAMPTZ 'epoch' AS interval_start,"
                " TIMESTAMPTZ 'epoch' AS interval_end, '' AS reason, 0::BIGINT AS \"count\","
                " '' AS cluster, DATE '1970-01-01' AS date, '' AS filename WHERE false"
            )
        self._db.execute(
            f"CREATE VIEW losses AS SELECT {loss_names}, cluster, date FROM loss_rows"  # noqa: S608
        )

    def _rollups(self, engine: Engine) -> tuple[str | None, bool]:
        """The view of the rows that no rollup holds, and whether there are rollups."""
        from portforge.engines._expressions import DAYS_SCHEMA

        used: list[str] = []
        fresh: list[str] = []
        for folder, files in self.files.folders().items():
            rollup = rollup_of(self.files.root, folder, files, DAYS_SCHEMA)
            if rollup is None:
                fresh += map(str, files)
            else:
                used.append(str(rollup))
        self._used = tuple(used)
        if not used:
            return "flow_rows", False
        engine.scan("rollup_rows", used)
        if fresh:
            engine.scan("fresh_rows", fresh)
        return "fresh_rows" if fresh else None, True

    def __repr__(self) -> str:
        window = self.window()
        return (
            f"Capture({str(self.files.root)!r}, {self.rows} rows, "
            f"{iso(window.start)} to {iso(window.end)})"
        )

    @cached_property
    def _extent(self) -> Window:
        """The first and the last instant."""
        first, last = self._sums.first, self._sums.last
        if first is None or last is None:
            raise CaptureError(
                "the capture holds no rows",
                place=str(self.files.root),
                remedy="record some traffic first",
            )
        return Window(first, last)

    @property
    def rows(self) -> int:
        """Number of flow records."""
        return self._sums.rows

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
        start, end = self._extent
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
        return self._summed(self._sums.aggregated, since, until)

    def pods(self, since: Instant = None, until: Instant = None) -> pd.DataFrame:
        """One row per pod: its workload, node, and when it was first and last seen."""
        return self._summed(self._sums.pods, since, until)

    def _summed(
        self, ask: Callable[[Window], pa.Table], since: Instant, until: Instant
    ) -> pd.DataFrame:
        try:
            return _to_pandas(ask(self.window(since, until)))
        except EngineError as wrong:
            raise self._damaged(wrong) from None

    def _damaged(self, wrong: Exception) -> CaptureError:
        text = str(wrong)
        files = (*self.files.flows, *self.files.losses, *self._used)
        return CaptureError(
            f"damaged rows ({text.splitlines()[0]})",
            place=next((file for file in files if file in text), str(self.files.root)),
            remedy="remove the file; the other files of the capture stay usable",
        )

    def rhythms(
        self, asked: pd.DataFrame, tolerance: float, since: Instant = None, until: Instant = None
    ) -> pd.DataFrame:
        """How regular the calls to the peers in ``asked`` are: see ``capture/_rhythms.py``."""
        try:
            return _to_pandas(rhythms(self._db, asked, tolerance, *self._where(since, until)))
        except duckdb.Error as wrong:
            raise self._damaged(wrong) from None

    def _where(self, since: Instant, until: Instant) -> tuple[str, list[object]]:
        window = self.window(since, until)
        return "last_seen >= ? AND first_seen <= ?", [window.start, window.end]

    def _frame(self, query: str, values: Sequence[object]) -> pd.DataFrame:
        try:
            answer = self._db.sql(query, params=list(values))
            return _to_pandas(answer.to_arrow_table()) if answer is not None else pd.DataFrame()
        except duckdb.IOException as wrong:
            gone = [
                file for file in (*self.files.flows, *self.files.losses) if not Path(file).exists()
            ]
            if not gone:
                raise
            raise CaptureError(
                "the file went away since the capture was opened",
                place=gone[0],
                remedy="open the capture again; portforge compact may have merged it",
            ) from wrong


def _to_pandas(table: pa.Table) -> pd.DataFrame:
    """To pandas, with integers that may be null kept integers."""
    nullable = {pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype()}
    frame: pd.DataFrame = table.to_pandas()
    for field in table.schema:
        if field.type in nullable and (field.name in _MAY_BE_NULL or table[field.name].null_count):
            frame[field.name] = table[field.name].to_pandas(types_mapper=nullable.get)
    return frame


_MAY_BE_NULL = {"target_port", "rtt_us"}
