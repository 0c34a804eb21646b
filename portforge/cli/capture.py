"""``portforge capture pull``: bring a cluster's capture here. The asking is portforge.kube's."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from portforge.cli._cluster import cluster_options, open_cluster

if TYPE_CHECKING:
    from portforge.kube.capture import Agent, Listed, Pull

EPILOG = """\b
Examples:
  portforge capture pull -n portforge -o capture
  portforge capture pull -n portforge -o capture --since 2d
"""

PULL = """\b
Examples:
  portforge capture pull -n portforge -o capture
  portforge capture pull -n portforge -o capture --since 2d --node node-a
  portforge recommend capture -o review

\b
Files that are here already are not asked for again, so it can be broken off and repeated.
--since and --until take whole files: cut to the minute where the capture is read.
It needs two rights in that namespace: get pods/proxy, and create serviceaccounts/token for
portforge-reader: the role portforge-capture there.
Exit codes: 0 all here; 3 a node was away and its files are missing; 5 the cluster refuses.
"""


@click.group(epilog=EPILOG, short_help="Bring a cluster's capture here.")
def command() -> None:
    """Bring what the agents of a cluster recorded to this machine."""


@command.command(epilog=PULL)
@click.option("-n", "--namespace", default="portforge", show_default=True, help="Of the release.")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Capture folder."
)
@click.option("--since", help="Not older than this: 2026-01-31T08:00:00Z, or 30m, 2h, 7d ago.")
@click.option("--until", help="Not newer than this.")
@click.option("--node", "nodes", multiple=True, help="Only this node. May be repeated.")
@cluster_options
def pull(
    namespace: str,
    output: Path,
    since: str | None,
    until: str | None,
    nodes: tuple[str, ...],
    kubeconfig: Path | None,
    context: str | None,
) -> None:
    """Download what is missing in the folder of -o."""
    from portforge.capture import open_capture, parse_time
    from portforge.errors import CaptureError, ClusterError
    from portforge.kube.capture import Pull, agents, missing

    now = datetime.now(UTC)
    first, last = (parse_time(text, now) if text else None for text in (since, until))
    api = open_cluster(kubeconfig, context)
    found = agents(api, namespace)
    away = [f"{node}: no agent is there" for node in nodes if node not in {a.node for a in found}]
    asked = [agent for agent in found if not nodes or agent.node in nodes]
    pulling = Pull(api, namespace)
    wanted: list[tuple[Agent, Listed]] = []
    here: set[str] = set()
    for agent in asked:
        try:
            files = pulling.files(agent)
        except ClusterError as wrong:
            if pulling.refused(wrong):
                raise
            away.append(f"{agent.node}: {agent.problem or wrong.problem}")
            continue
        # Nodes may share a volume: each file once.
        fresh = [f for f in missing(files, output, first, last) if f.path not in here]
        here |= {f.path for f in files}
        wanted += [(agent, file) for file in fresh]
    got, size = _fetch(pulling, wanted, output, away)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(f"{got} files ({size:,} bytes) pulled from {len(asked)} nodes into {output}")
    try:
        console.print(repr(open_capture(output)))
    except CaptureError as wrong:
        console.print(f"{wrong}", style="yellow")
    for sentence in sorted(away):
        console.print(f"away: {sentence}", style="yellow")
    raise click.exceptions.Exit(3 if away else 0)


def _fetch(
    pulling: Pull, wanted: list[tuple[Agent, Listed]], output: Path, away: list[str]
) -> tuple[int, int]:
    """How many files and bytes came. A node that goes away meanwhile is put on ``away``."""
    from portforge.errors import ClusterError
    from portforge.kube.capture import gone

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    got = size = 0
    lost: set[str] = set()
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("capture", total=sum(file.size for _, file in wanted))
        for agent, file in wanted:
            if agent.node in lost:
                continue
            progress.update(task, description=agent.node)
            try:
                pulling.fetch(agent, file, output, lambda n: progress.advance(task, n))
            except ClusterError as wrong:
                if gone(wrong):  # the agent made room meanwhile: what is old goes first
                    continue
                if pulling.refused(wrong):
                    raise
                lost.add(agent.node)
                away.append(f"{agent.node}: {wrong.problem}")
                continue
            got, size = got + 1, size + file.size
    return got, size
