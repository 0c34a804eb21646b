"""``portforge lint``: prints what is wrong in policy files. The checks are in portforge.policy."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

EPILOG = """\b
Examples:
  portforge lint policies/
  portforge lint policies/shop/deployment-web.yaml --json

Exit codes: 0 nothing found; 1 nothing to read; 3 a problem was found.
"""


@click.command(epilog=EPILOG, short_help="Check policy files.")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def command(path: Path, as_json: bool) -> None:
    """Check the policies in PATH (a file, or all *.yaml below a folder).

    Finds unknown fields, clashing rules, overlapping ranges, bad addresses, and approvals that
    do not match what they approved; each with file, line and remedy. A policy that nobody has
    approved yet is no problem.
    """
    from portforge.policy._read import approval_problems, load

    loaded = load(path)
    problems = [*loaded.problems, *approval_problems(loaded)]
    if as_json:
        found = [
            {
                "file": str(p.file),
                "line": p.line or None,
                "field": p.field,
                "problem": p.problem,
                "remedy": p.remedy,
            }
            for p in problems
        ]
        counts = {"files": len(loaded.files), "policies": len(loaded.policies)}
        click.echo(json.dumps({"schema": 1, **counts, "problems": found}, indent=2))
    elif problems:
        for problem in problems:
            click.echo(str(problem))
        click.echo(f"{len(problems)} problem(s) in {len(loaded.files)} file(s)", err=True)
    else:
        table = Table(box=None, pad_edge=False)
        for heading in ("policy", "mode", "ingress", "egress", "approved by"):
            table.add_column(heading, overflow="fold")
        for p in loaded.policies:
            rules = ["any" if r is None else str(len(r)) for r in (p.ingress, p.egress)]
            by = p.approval.by if p.approval else "nobody"
            table.add_row(f"{p.namespace}/{p.name}", p.mode, *rules, by)
        Console(highlight=False, markup=False).print(table)
        click.echo(f"{len(loaded.policies)} policies, no problem found")
    sys.exit(3 if problems else 0)
