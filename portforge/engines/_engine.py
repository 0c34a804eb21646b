"""What an engine must do, and how one is found by its name. Imports none that is not asked."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol, runtime_checkable

import pyarrow as pa

from portforge.errors import CaptureError

__all__ = ["GROUP", "Engine", "EngineError", "engine_names", "open_engine"]

GROUP = "portforge.engines"
"""The group of entry points that name engines."""


class EngineError(Exception):
    """The engine could not do it; the text is the engine's own."""


@runtime_checkable
class Engine(Protocol):
    """What runs SQL over Parquet files. Made by calling the entry point without arguments.

    ``dialect`` is the name of the Ibis compiler whose SQL it speaks, ``microseconds`` that of its
    SQL function from an instant to microseconds since the epoch. Every method raises
    :class:`EngineError` where the engine fails, and OverflowError where a sum of integers passes
    64 bits: it never wraps and never widens. The time zone is UTC.
    """

    dialect: str
    microseconds: str

    def scan(self, view: str, files: Sequence[str]) -> None:
        """Make ``view``: the rows of the Parquet files, and a column ``filename``."""
        ...

    def keep(self, table: str, sql: str) -> None:
        """Run ``sql`` once and keep the answer under the name ``table``."""
        ...

    def ask(self, sql: str) -> pa.Table:
        """The answer to ``sql``, its rows in the order that the query gives."""
        ...


def engine_names() -> list[str]:
    """The names of the engines installed here.

    >>> "duckdb" in engine_names()
    True
    """
    return sorted({point.name for point in entry_points(group=GROUP)})


def open_engine(name: str) -> Engine:
    """The engine ``name``, ready to run.

    Raises
    ------
    CaptureError: no such engine, or two distributions bring one of that name.
    HostError: what it needs is not installed.
    """
    found = {
        (p.value, p.dist.name if p.dist else ""): p for p in entry_points(group=GROUP, name=name)
    }
    if not found:
        raise CaptureError(
            f"no engine {name!r}",
            remedy=f"installed are: {', '.join(engine_names()) or 'none; install portforge again'}",
        )
    if len(found) > 1:
        owners = ", ".join(sorted(owner for _, owner in found))
        raise CaptureError(
            f"{len(found)} engines are called {name!r}",
            place=owners,
            remedy="uninstall all but one",
        )
    return _load(next(iter(found.values())))


def _load(point: EntryPoint) -> Engine:
    place = f"entry point {point.name} = {point.value}"
    try:
        engine = point.load()()
    except (ImportError, AttributeError) as wrong:
        raise CaptureError(
            f"the engine cannot be loaded ({wrong})",
            place=place,
            remedy="install what it needs, or choose another engine",
        ) from wrong
    if not isinstance(engine, Engine):
        raise CaptureError(
            "not an engine: it lacks what portforge.engines.Engine asks for",
            place=place,
            remedy="tell whoever made it; or choose another engine",
        )
    return engine
