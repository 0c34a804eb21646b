"""``portforge doctor``: what this host can and cannot do, and why."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click
from rich.console import Console

EPILOG = """\b
Examples:
  portforge doctor
  portforge doctor --json | jq '.checks[] | select(.good | not)'
  portforge doctor --clean node-a

\b
Reading captures, recommending, simulating and approving work on any host with Python.
Exit codes: 0 this host can record and enforce; 4 it cannot.
"""


@click.command(epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--clean", metavar="NODE", help="Take everything of NODE out of the kernel.")
def command(as_json: bool, clean: str | None) -> None:
    """Try what recording and enforcing need, one by one. Leaves nothing behind."""
    console = Console(highlight=False, markup=False)
    try:
        from portforge_recorder import doctor, load
        from portforge_recorder.only import only_recorder
    except ImportError as missing:
        console.print(f"✗ node agent: {missing.name} is missing; pip install 'portforge[node]'")
        sys.exit(4)
    if clean:
        with only_recorder(clean):  # one that runs would record nothing and not know
            pins = load.versions(clean)
            for folder in pins:
                load.remove(folder)
        console.print(f"{len(pins)} sets of programs removed: {clean} enforces nothing now.")
        return
    checks = []
    for check in doctor.examine():
        checks.append(check)
        if not as_json:
            console.print(f"{'✓' if check.good else '✗'} {check.name}: {check.answer}")
            if not check.good:
                console.print(f"    needed for: {check.needed_for}")
    pinned = [p.name for p in doctor.leftovers()]
    able = all(c.good for c in checks if "without" not in c.needed_for)
    if as_json:
        report = {"schema": 1, "able": able, "checks": [asdict(c) for c in checks]}
        click.echo(json.dumps({**report, "pinned": pinned}, indent=2))
    else:
        console.print(f"pinned here: {', '.join(pinned) or 'nothing'}")
    sys.exit(0 if able else 4)
