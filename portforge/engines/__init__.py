"""Engines: where the heavy aggregation runs. Finds them; what is asked stands in ``_expressions``.

The questions are Ibis expressions over contract 1, compiled to the SQL of the engine's dialect and
run by the engine itself. ``duckdb`` is embedded and the default; ``spark`` is for captures that
outgrow the machine. Another engine is a class that keeps :class:`Engine`, named by an entry point
of the group ``portforge.engines`` in any installed distribution. Files and windows: see
:mod:`portforge.capture`.
"""

from __future__ import annotations

from portforge.engines._engine import Engine, EngineError, engine_names, open_engine

__all__ = ["Engine", "EngineError", "engine_names", "open_engine"]
