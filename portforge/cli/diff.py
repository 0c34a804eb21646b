"""``portforge diff``: prints what changed in meaning. The comparison is in portforge.policy."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

EPILOG = """\b
Examples:
  portforge diff policies.old/ policies/
  portforge diff old.yaml new.yaml --json

\b
Signs: + opens something, - closes something, ~ changes otherwise, blank: no effect.
Exit codes: 0 no difference; 1 a side cannot be read; 3 a difference was found.
"""
_STYLES = {"+": "red", "-": "green", "~": "yellow"}


@click.command(epilog=EPILOG, short_help="Compare two sets of policies.")
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def command(old: Path, new: Path, as_json: bool) -> None:
    """Say what changed in meaning from OLD to NEW (files or folders of policies).

    Order, spelling, comments and approvals are not compared. What opens is red, what closes
    is green.
    """
    from portforge.policy import diff, read_policies

    found = diff(read_policies(old), read_policies(new))
    if as_json:
        click.echo(found.to_json())
    else:
        console = Console(highlight=False, soft_wrap=True)
        for line in str(found).splitlines():
            console.print(Text(line, style=_STYLES.get(line.strip()[:1], "")))
        if found:
            told = ", ".join(f"{n} {effect}" for effect, n in found.counts.items() if n)
            click.echo(f"{len(found.changes)} change(s): {told}")
    sys.exit(3 if found else 0)
