"""``portforge drift``: what to add to policies in force and what to remove. Changes nothing."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from portforge.cli._cluster import cluster_options, open_cluster
from portforge.cli._engine import engine_option

if TYPE_CHECKING:
    from portforge.policy import PortPolicy

EPILOG = """\b
Examples:
  portforge drift policies/ capture/
  portforge drift policies/ capture/ --unused-days 90 --decisions decisions.yaml
  portforge drift --cluster -n shop capture/
  portforge drift policies/ capture/ --json | jq '.missing[].add'

\b
Signs: + add, - remove, ~ remove peers, ! expires, ? for your information.
Exit codes: 0 nothing to do; 1 an input cannot be used, or no workload of the policies is
in the capture; 3 something to add, to remove, or about to expire; 5 the cluster refuses.
"""


@click.command(epilog=EPILOG, short_help="Say what policies in force lack, and what nobody uses.")
@click.argument(
    "places",
    nargs=-1,
    required=True,
    metavar="[POLICIES] CAPTURE",
    type=click.Path(path_type=Path),
)
@click.option("--since", help="ISO timestamp, or a duration before the capture's end: 30m, 2h, 7d.")
@click.option("--until", help="As --since.")
@click.option(
    "--unused-days",
    type=click.IntRange(min=1),
    default=30,
    show_default=True,
    help="Not used for so long: unused. Longer than the longest cycle, such as a monthly job.",
)
@click.option(
    "--decisions",
    type=click.Path(path_type=Path),
    help="YAML file of what must be learned, and what never may.",
)
@engine_option
@click.option("--cluster", is_flag=True, help="Take the policies from the cluster, not a file.")
@click.option("-n", "--namespace", help="With --cluster: of this namespace only.")
@cluster_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def command(
    places: tuple[Path, ...],
    since: str | None,
    until: str | None,
    unused_days: int,
    decisions: Path | None,
    engine: str,
    cluster: bool,
    namespace: str | None,
    kubeconfig: Path | None,
    context: str | None,
    as_json: bool,
) -> None:
    """Compare policies in force (POLICIES: file or folder) with what a CAPTURE shows.

    A rule is unused only where capture and approval are as old as --unused-days and its workload
    was seen. Rules are judged as if every policy were in Enforce. A proposed expiresAt is a
    proposal: write it into the policy and approve that.
    """
    from portforge.capture import open_capture
    from portforge.policy import read_policies
    from portforge.recommend import drift, read_decisions

    if len(places) != (1 if cluster else 2):
        raise click.UsageError("give POLICIES and CAPTURE, or --cluster and CAPTURE")
    policies = _live(kubeconfig, context, namespace) if cluster else read_policies(places[0])
    found = drift(
        policies,
        open_capture(places[-1], since, until, engine),
        since=since,
        until=until,
        unused_days=unused_days,
        decisions=read_decisions(decisions) if decisions else (),
        now=datetime.now(UTC),
    )
    click.echo(found.to_json() if as_json else str(found))
    sys.exit(3 if found else 0)


def _live(kubeconfig: Path | None, context: str | None, namespace: str | None) -> list[PortPolicy]:
    """The cluster's policies; those that cannot be read are named."""
    from portforge.kube.policies import list_policies

    lives = list_policies(open_cluster(kubeconfig, context), namespace)
    for live in lives:
        if live.problem:
            click.echo(f"left out: {live.problem}", err=True)
    return [live.policy for live in lives if live.policy is not None]
