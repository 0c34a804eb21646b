"""``portforge demo``: the whole loop on a small real application, checked as it goes."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.console import Console

EPILOG = """\b
Examples:
  portforge demo
  portforge demo --seconds 60 --output out/long
  portforge demo --dataset datasets/shop

\b
Exit codes: 0 everything went as promised; 1 something did not; 130 interrupted, cleaned up.
"""
DATASET = Path(__file__).parents[2] / "datasets" / "shop"


@click.command(epilog=EPILOG)
@click.option(
    "-o",
    "--output",
    default="out/demo",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where capture, policies and the notebook go.",
)
@click.option("--seconds", default=30.0, show_default=True, help="How long to watch.")
@click.option(
    "--dataset",
    type=click.Path(path_type=Path),
    help="Only record the application, into this folder: how the shipped capture was made.",
)
def command(output: Path, seconds: float, dataset: Path | None) -> None:
    """Record a real application, learn its policies, enforce them, roll back.

    Needs root and BPF. Without them it says so, and does what is possible on the capture shipped
    in datasets/.
    """
    if seconds <= 0:
        raise click.UsageError("--seconds must be more than 0")
    # In a log, wide enough for the tables.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
    lacking = _lacking()
    if lacking and dataset:
        console.print(f"Recording is not possible here: {lacking}", markup=False)
        sys.exit(4)
    from portforge.demo.story import Story, record_dataset, tell_without_kernel

    if dataset:
        record_dataset(dataset, console, seconds)
    elif lacking:
        console.print(f"Recording and enforcing are not possible here: {lacking}", markup=False)
        console.print(f"So the steps that need neither, on the shipped capture {DATASET}:")
        tell_without_kernel(output, console, DATASET)
    else:
        sys.exit(0 if Story(console, output.absolute(), seconds).tell() else 1)


def _lacking() -> str:
    """Why this host cannot record, or nothing."""
    try:
        from portforge.demo.servers import require
        from portforge_recorder.doctor import examine
    except ImportError as missing:
        return f"{missing.name} is missing; pip install 'portforge[node]'"
    for check in examine():
        if not check.good and "without" not in check.needed_for:
            return f"{check.name}: {check.answer}"
    require()
    return ""
