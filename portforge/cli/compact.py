"""``portforge compact``: few files instead of many, and the daily sums of ended days kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from portforge.capture import Compacted

EPILOG = """\b
Examples:
  portforge compact capture --dry-run
  portforge compact capture
  portforge compact capture --json | jq '.days[] | select(.rollup == "written")'

\b
It can be broken off at any moment, repeated, and run while others read. A recorder may go on
writing. Do not run it on the folder of an agent that ships to an object store: an agent ships its
own files, not what they were merged into.
Exit codes: 0 done; 1 the capture cannot be used, or the disk is full (no row is lost).
"""


@click.command(epilog=EPILOG)
@click.argument("capture", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Say what would be done; change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def command(capture: Path, dry_run: bool, as_json: bool) -> None:
    """Merge the small files of ended days in CAPTURE, and keep the sums of each day beside them.

    No record is changed or lost. A day that was summed up is not read again by recommend, but for
    the two ends of a window that cut through it.
    """
    from portforge.capture import compact

    done = compact(capture, dry_run=dry_run)
    if as_json:
        click.echo(json.dumps({"dry_run": dry_run, **done.to_dict()}, indent=2))
    else:
        _show(done, dry_run)


def _show(done: Compacted, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    before = sum(day.files_before for day in done.days)
    after = sum(day.files_after for day in done.days)
    click.echo(f"{len(done.days)} ended days: {before} files {would}merged into {after}")
    sizes = [(day.bytes_before, day.bytes_after) for day in done.days]
    if all(size is not None for _, size in sizes):
        old, new = sum(one for one, _ in sizes), sum(one or 0 for _, one in sizes)
        click.echo(f"{old:,} bytes before, {new:,} after")
    rollups = [day.rollup for day in done.days if day.rollup != "none"]
    kept = rollups.count("kept")
    click.echo(f"{len(rollups) - kept} daily sums {would}written, {kept} kept")
    for folder in done.left:
        click.echo(f"left alone, not ended: {folder}")
