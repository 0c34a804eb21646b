"""``portforge simulate``: policies against a capture. The judging is in portforge.policy."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

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


def _cell(value: object) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return value if isinstance(value, str) else "–"


def _table(frame: pd.DataFrame, title: str) -> Table:
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    for name in frame.columns:
        numeric = frame[name].dtype.kind in "iu"
        heading = str(name).replace("_", " ")
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for row in frame.astype(object).itertuples(index=False, name=None):
        table.add_row(*map(_cell, row))
    return table


def _examples(denied: pd.DataFrame) -> pd.DataFrame:
    def peer(row: pd.Series[str]) -> str:
        known = [row[n] for n in ("peer_namespace", "peer_workload") if isinstance(row[n], str)]
        ip = row["peer_ip"] if isinstance(row["peer_ip"], str) else "lost"
        return f"{'/'.join(known)} ({ip})" if known else f"{row['peer_kind']} ({ip})"

    first = denied.head(_EXAMPLES).copy()
    first["peer"] = [peer(row) for _, row in first.iterrows()]
    first["when"] = first["first_seen"].dt.strftime("%Y-%m-%d %H:%M:%SZ")
    shown = ["when", "namespace", "workload", "direction", "protocol", "port", "peer"]
    return first[[*shown, "verdict", "decision", "reason"]].rename(columns={"verdict": "was"})


def _show(simulation: Simulation) -> None:
    console = Console(highlight=False, markup=False)
    workloads = simulation.workloads.rename(columns={"denied_answered": "of these answered"})
    console.print(_table(workloads, "Connections by what the policies would have done"))
    unused = simulation.rules.loc[simulation.rules["connections"] == 0]
    if len(unused):
        console.print()
        console.print(_table(unused.drop(columns="connections"), "Rules nothing used"))
    if len(simulation.denied):
        console.print()
        more = len(simulation.denied) - _EXAMPLES
        title = "First denied" + (f" (and {more} more)" if more > 0 else "")
        console.print(_table(_examples(simulation.denied), title))
    console.print()
    told = ", ".join(f"{n:,} {decision}" for decision, n in simulation.counts.items())
    console.print(f"connections: {told}", soft_wrap=True)
    told = ", ".join(f"{n:,} {decision}" for decision, n in simulation.flows.items())
    console.print(f"flow records: {told}", soft_wrap=True)


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
@click.pass_context
def command(
    ctx: click.Context,
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
    ctx.exit(3 if fail_on_denied and simulation.any_denied else 0)
