"""The embedded engine: DuckDB in this process. Knows files and SQL, not what is asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import duckdb
import pyarrow as pa

from portforge.engines._engine import EngineError

__all__ = ["DuckDB", "scan"]


class DuckDB:
    """An engine on a connection of its own, or on the one that is given."""

    dialect = "duckdb"
    microseconds = "epoch_us"

    def __init__(self, connection: duckdb.DuckDBPyConnection | None = None) -> None:
        self.connection = connection or duckdb.connect()
        self.connection.execute("SET TimeZone = 'UTC'")

    def scan(self, view: str, files: Sequence[str]) -> None:
        """See :class:`portforge.engines.Engine`."""
        with _translated():
            self.connection.execute(f"CREATE OR REPLACE VIEW {view} AS {scan(files)}")

    def keep(self, table: str, sql: str) -> None:
        """See :class:`portforge.engines.Engine`."""
        with _translated():
            self.connection.execute(f"CREATE OR REPLACE TABLE {table} AS {sql}")

    def ask(self, sql: str) -> pa.Table:
        """See :class:`portforge.engines.Engine`."""
        with _translated():
            return self.connection.sql(sql).to_arrow_table()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except duckdb.ConversionException as wrong:
        # The only conversions are those of sums to 64 bits.
        raise OverflowError(str(wrong).splitlines()[0]) from None
    except duckdb.Error as wrong:
        raise EngineError(str(wrong)) from None


def scan(files: Sequence[str]) -> str:
    """A query for all rows of the files; ``cluster`` and ``date`` from their paths."""
    names = ", ".join("'" + name.replace("'", "''") + "'" for name in files)
    return (
        f"SELECT * FROM read_parquet([{names}], filename = true, hive_partitioning = true, "  # noqa: S608
        "hive_types = {'cluster': VARCHAR, 'date': DATE})"
    )
