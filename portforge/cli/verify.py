"""``portforge verify``: for CI, whether policies would break what a capture shows to work."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from portforge.cli._engine import engine_option

if TYPE_CHECKING:
    import pandas as pd

    from portforge.recommend import Verification

EPILOG = """\b
Examples:
  portforge verify policies/ capture/
  portforge verify policies/ capture/ --since 7d --strict
  portforge verify policies/ capture/ --decisions decisions.yaml
  portforge verify policies/ capture/ --json | jq '.denied[]'

\b
Exit codes: 0 all that was answered is allowed; 1 an input cannot be used, or no workload
of the policies is in the capture; 3 something answered would be denied.
"""
_EXAMPLES = 20
_HEADINGS = {
    "denied": "Would be denied",
    "uncertain": "Uncertain, the record lost who the peer was",
    "left_out": "Denied, not held against them, for what they are a finding of",
}


def _example(row: pd.Series[Any]) -> str:
    """One cause on one line, with its first example, so that it can be searched and copied."""
    arrow = "from" if row["direction"] == "ingress" else "to"
    finding = f", {row['finding']}" if "finding" in row.index else ""
    return (
        f"  {row['namespace']}/{row['workload']} {row['direction']}: {row['reason']}; "
        f"{row['connections']:,} connections, first {row['first_seen']:%Y-%m-%d %H:%M:%SZ} "
        f"{row['protocol']} {row['port']} {arrow} {row['peer']}{finding}"
    )


def _show(found: Verification, strict: bool) -> None:
    console = Console(highlight=False, markup=False)
    for name, heading in _HEADINGS.items():
        causes: pd.DataFrame = getattr(found, name)
        if causes.empty:
            continue
        more = len(causes) - _EXAMPLES
        console.print(f"{heading}{f' ({more} more)' if more > 0 else ''}:")
        for _, row in causes.head(_EXAMPLES).iterrows():
            console.print(_example(row), soft_wrap=True)
    bare = tuple(name for name in found.unrestricted if name not in found.expired)
    for heading, named in (
        ("No policy, so allowed everything", bare),
        ("The policy has expired, so allowed everything", found.expired),
        ("Nothing answered was seen of, so not judged", found.unseen),
    ):
        if named:
            more = len(named) - _EXAMPLES
            names = ", ".join(named[:_EXAMPLES]) + (f" and {more} more" if more > 0 else "")
            console.print(f"{heading}: {names}", soft_wrap=True)
    told = ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in found.records.items())
    console.print(f"{found.judged} workloads judged; answered records: {told}", soft_wrap=True)
    console.print("holds" if found.holds(strict=strict) else "does not hold")


@click.command(epilog=EPILOG, short_help="Say whether policies would break what was seen, for CI.")
@click.argument("policies", type=click.Path(path_type=Path))
@click.argument("capture", type=click.Path(path_type=Path))
@click.option("--since", help="ISO timestamp, or a duration before the capture's end: 30m, 2h, 7d.")
@click.option("--until", help="As --since.")
@click.option(
    "--decisions",
    type=click.Path(path_type=Path),
    help="YAML file of what must be learned, and what never may.",
)
@click.option(
    "--strict",
    is_flag=True,
    help="Exit with 3 also for what is uncertain, and for denied first contacts and beacons.",
)
@engine_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def command(
    policies: Path,
    capture: Path,
    since: str | None,
    until: str | None,
    decisions: Path | None,
    strict: bool,
    engine: str,
    as_json: bool,
) -> None:
    """Say whether the POLICIES (file or folder) allow all that was answered in a CAPTURE.

    Every policy is judged as if it were in Enforce. What recommend keeps out may be denied: scans,
    UDP that nobody answered, what was decided against, first contacts with a sensitive port. Named
    are workloads that nothing restricts (no policy, or it has expired), and those of which nothing
    answered was seen.
    """
    from portforge.capture import open_capture
    from portforge.policy import read_policies
    from portforge.recommend import read_decisions, verify

    found = verify(
        read_policies(policies),
        open_capture(capture, since, until, engine),
        since=since,
        until=until,
        now=datetime.now(UTC),
        decisions=read_decisions(decisions) if decisions else (),
    )
    if as_json:
        click.echo(found.to_json(strict=strict))
    else:
        _show(found, strict)
    sys.exit(0 if found.holds(strict=strict) else 3)
