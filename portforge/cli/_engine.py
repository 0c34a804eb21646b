"""The option that says which engine sums up a capture."""

from __future__ import annotations

import click

__all__ = ["engine_option"]

engine_option = click.option(
    "--engine", default="duckdb", show_default=True, help="What sums up; another: spark."
)
