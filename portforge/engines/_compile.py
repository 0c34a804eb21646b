"""From an expression to the SQL of a dialect, with Ibis's compilers alone: no backend of Ibis."""

from __future__ import annotations

from importlib import import_module

import ibis.expr.types as ir
from sqlglot import Dialect, exp

from portforge.errors import CaptureError

__all__ = ["to_sql"]


def to_sql(expression: ir.Table, dialect: str) -> str:
    """The query as the engine's own text.

    Raises
    ------
    CaptureError: Ibis has no compiler of that name.
    """
    name = f"ibis.backends.sql.compilers.{dialect}"
    try:
        compiler = import_module(name).compiler
    except ModuleNotFoundError as wrong:
        if wrong.name != name:
            raise
        raise CaptureError(
            f"no SQL compiler for the dialect {dialect!r}",
            remedy="tell whoever made the engine: it must be a dialect of Ibis",
        ) from None
    tree = compiler.to_sqlglot(expression)
    if dialect == "duckdb":
        tree = tree.transform(_new_lambda, compiler.dialect)
    return str(tree.sql(dialect=compiler.dialect, pretty=True))


def _new_lambda(node: exp.Expression, dialect: type[Dialect]) -> exp.Expression:
    """``LAMBDA x : …``: DuckDB 2 refuses the arrow that Ibis 12 writes."""
    if not isinstance(node, exp.Lambda):
        return node
    names = ", ".join(name.sql(dialect) for name in node.expressions)
    return exp.Var(this=f"LAMBDA {names} : {node.this.sql(dialect)}")
