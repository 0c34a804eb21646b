"""``portforge schema``: print contract 1, the columns of the flow record."""

from __future__ import annotations

import json

import click
from rich.console import Console
from rich.table import Table

from portforge.schema import COLUMNS, SCHEMA_VERSION, SORT_COLUMNS

_LAYOUT = "v1/cluster=<name>/date=<YYYY-MM-DD>/<node>-<start>-<seq>.parquet"


@click.command(epilog="Example: portforge schema --json | jq '.columns[].name'")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def command(as_json: bool) -> None:
    """Print the columns of the flow record and where its files stand."""
    columns = [
        {
            "name": column.name,
            "type": _type(column.type),
            "nullable": column.nullable,
            "unit": column.unit,
            "meaning": column.meaning,
        }
        for column in COLUMNS
    ]
    if as_json:
        answer = {
            "schema": SCHEMA_VERSION,
            "layout": _LAYOUT,
            "sorted_by": list(SORT_COLUMNS),
            "partitions": ["cluster", "date"],
            "columns": columns,
        }
        click.echo(json.dumps(answer, indent=2, ensure_ascii=False))
        return
    table = Table(
        "column", "type", "null", "meaning", title=f"flow record, schema {SCHEMA_VERSION}"
    )
    for one in columns:
        unit = f" [{one['unit']}]" if one["unit"] else ""
        null = "yes" if one["nullable"] else ""
        table.add_row(str(one["name"]), str(one["type"]), null, f"{one['meaning']}{unit}")
    console = Console(highlight=False, markup=False)
    console.print(table, markup=False)
    console.print(f"Files: {_LAYOUT}; cluster and date stand in the path only.", markup=False)


def _type(kind: object) -> str:
    """``string`` for dictionary-encoded text: the encoding is no business of the reader's."""
    text = str(kind)
    return "string" if text.startswith("dictionary<values=string") else text
