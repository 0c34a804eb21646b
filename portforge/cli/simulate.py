"""``portforge simulate``: policies against a capture. The judging is in portforge.policy."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    import pandas as pd

    from portforge.policy import Simulation

EPILOG = """\b
Examples:
  portforge simulate policies/ capture/
  portforge simulate policies/ capture/ --fail-on-denied --answered-only
  portforge simulate policies/ capture/ --mode audit --json

\b
Scans, refused and failed connections are in a capture too, and a good policy denies
them: with --answered-only only what had worked when it was recorded is judged.
Exit codes: 0 done; 1 an input cannot be used; 3 with --fail-on-denied, something was denied.
"""
_EXAMPLES = 10
DECISIONS = ("allowed", "denied", "audited", "uncertain")


def _name(row: pd.Series[str], *columns: str) -> str:
    known = [row[column] for column in columns if isinstance(row[column], str)]
    return "/".join(known)


def _workloads(frame: pd.DataFrame) -> Table:
    title = "Connections by what the policies would do; of those not allowed, how many had worked"
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    table.add_column("workload", overflow="fold", min_width=30)
    table.add_column("policy")
    shown = [name for name in DECISIONS if name in ("allowed", "denied") or frame[name].any()]
    for heading in (*shown, "had worked"):
        table.add_column(heading, justify="right")
    for _, row in frame.iterrows():
        owner = _name(row, "namespace", "workload_kind", "workload") or "not known"
        has = "yes" if isinstance(row["policy"], str) else "none"
        counts = (f"{row[name]:,}" for name in (*shown, "denied_answered"))
        table.add_row(owner, has, *counts)
    return table


def _example(row: pd.Series[Any]) -> str:
    """One denied flow on one line, so that it can be searched and copied."""
    peer = _name(row, "peer_namespace", "peer_workload") or row["peer_kind"]
    ip = row["peer_ip"] if isinstance(row["peer_ip"], str) else "address lost"
    arrow = "from" if row["direction"] == "ingress" else "to"
    return (
        f"  {row['first_seen']:%Y-%m-%d %H:%M:%SZ} {_name(row, 'namespace', 'workload')} "
        f"{row['direction']} {row['protocol']} {row['port']} {arrow} {peer} ({ip}): "
        f"{row['decision']}, {row['reason']} (was {row['verdict']})"
    )


def _show(simulation: Simulation) -> None:
    console = Console(highlight=False, markup=False)
    console.print(_workloads(simulation.workloads))
    unused = simulation.rules.loc[simulation.rules["connections"] == 0]
    if len(unused):
        console.print(f"\n{len(unused)} rule(s) nothing used:")
        for _, row in unused.iterrows():
            console.print(f"  {row['namespace']}/{row['policy']} {row['rule']}", soft_wrap=True)
    denied = simulation.denied
    if len(denied):
        # What had worked comes first: that is what would break.
        attempt = ~denied["verdict"].isin(["allowed", "audited"])
        first = denied.loc[attempt.sort_values(kind="stable").index].head(_EXAMPLES)
        more = len(denied) - len(first)
        heading = "Would be denied" if simulation.any_denied else "Would be audited"
        console.print(f"\n{heading}, what had worked first{f' ({more} more)' if more else ''}:")
        for _, row in first.iterrows():
            console.print(_example(row), soft_wrap=True)
    for what, counts in (
        ("\nconnections", simulation.counts),
        ("flow records", simulation.flows),
    ):
        told = ", ".join(f"{n:,} {decision}" for decision, n in counts.items())
        console.print(f"{what}: {told}", soft_wrap=True)


@click.command(epilog=EPILOG, short_help="Say what policies would have done to a capture.")
@click.argument("policies", type=click.Path(path_type=Path))
@click.argument("capture", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.option("--fail-on-denied", is_flag=True, help="Exit with 3 when a flow would be denied.")
@click.option("--answered-only", is_flag=True, help="Judge only what was allowed or audited.")
@click.option(
    "--mode",
    type=click.Choice(["enforce", "audit"]),
    default="enforce",
    show_default=True,
    help="Judge as if every policy were in this mode.",
)
def command(
    policies: Path,
    capture: Path,
    as_json: bool,
    fail_on_denied: bool,
    answered_only: bool,
    mode: str,
) -> None:
    """Say what the POLICIES (file or folder) would have done to the flows of a CAPTURE.

    Nothing is applied. Every flow is allowed, denied (audited with --mode audit) or uncertain:
    uncertain where the rule for the port names peers and the record lost who the peer was.
    """
    from portforge.capture import open_capture
    from portforge.policy import Mode, read_policies, simulate

    known = read_policies(policies)
    flows = open_capture(capture).flows()
    if answered_only:
        flows = flows.loc[flows["verdict"].isin(["allowed", "audited"])]
    simulation = simulate(
        known, flows, mode_override=Mode(mode.capitalize()), now=datetime.now(UTC)
    )
    if as_json:
        click.echo(simulation.to_json(_EXAMPLES))
    else:
        _show(simulation)
    sys.exit(3 if fail_on_denied and simulation.any_denied else 0)
