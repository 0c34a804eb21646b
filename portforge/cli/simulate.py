"""``portforge simulate``: policies against a capture. The judging is in portforge.policy."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from portforge.cli._engine import engine_option

EPILOG = """\b
Examples:
  portforge simulate policies/ capture/
  portforge simulate policies/ capture/ --since 7d --answered-only --fail-on-denied
  portforge simulate new/ capture/ --against policies/
  portforge simulate policies/ capture/ --mode audit --json

\b
Scans, refused and failed connections are in a capture too, and a good policy denies
them: with --answered-only only what had worked when it was recorded is judged.
Exit codes: 0 done; 1 an input cannot be used; 3 with --fail-on-denied, something was denied
(with --against: something newly so).
"""


@click.command(epilog=EPILOG, short_help="Say what policies would have done to a capture.")
@click.argument("policies", type=click.Path(path_type=Path))
@click.argument("capture", type=click.Path(path_type=Path))
@click.option("--since", help="ISO timestamp, or a duration before the capture's end: 30m, 2h, 7d.")
@click.option("--until", help="As --since.")
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="OTHER",
    help="Show only what changes when POLICIES take the place of these.",
)
@click.option("--answered-only", is_flag=True, help="Judge only what was allowed or audited.")
@click.option(
    "--mode",
    type=click.Choice(["enforce", "audit", "own"]),
    default="enforce",
    show_default=True,
    help="Judge as if every policy were in this mode; own: each in its own.",
)
@click.option(
    "--examples",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Causes to show for each workload.",
)
@click.option("--fail-on-denied", is_flag=True, help="Exit with 3 when a flow would be denied.")
@engine_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def command(
    policies: Path,
    capture: Path,
    since: str | None,
    until: str | None,
    against: Path | None,
    answered_only: bool,
    mode: str,
    examples: int,
    fail_on_denied: bool,
    engine: str,
    as_json: bool,
) -> None:
    """Say what the POLICIES (file or folder) would have done to the flows of a CAPTURE.

    Nothing is applied. Every flow is allowed, denied (audited with --mode audit) or uncertain:
    uncertain where the rule for the port names peers and the record lost who the peer was. Told
    for each workload and for each rule, with the first examples of each cause.
    """
    from portforge.capture import open_capture
    from portforge.cli._what_if import show_changes, show_simulation
    from portforge.policy import Mode, compare, read_policies, simulate

    known = read_policies(policies)
    other = None if against is None else read_policies(against)
    flows = open_capture(capture, since, until, engine).aggregated(since, until)
    if answered_only:
        flows = flows.loc[flows["verdict"].isin(["allowed", "audited"])]
    override = None if mode == "own" else Mode(mode.capitalize())
    now = datetime.now(UTC)
    if other is None:
        simulation = simulate(known, flows, mode_override=override, now=now)
        denied = simulation.any_denied
        if as_json:
            click.echo(simulation.to_json(examples))
        else:
            show_simulation(simulation, examples)
    else:
        comparison = compare(known, other, flows, mode_override=override, now=now)
        denied = comparison.any_denied
        if as_json:
            click.echo(comparison.to_json(examples))
        else:
            show_changes(comparison, examples)
    sys.exit(3 if fail_on_denied and denied else 0)
