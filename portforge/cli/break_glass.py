"""``portforge break-glass``: lift enforcement in a cluster, at once and on the record."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from portforge.cli._cluster import cluster_options, lasting, open_cluster

if TYPE_CHECKING:
    from portforge.kube.reports import BreakGlass

EPILOG = """\b
Examples:
  portforge break-glass --reason "checkout is down, INC-4711"
  portforge break-glass --reason "node-b loses packets" --node node-b --expires-in 2h
  portforge break-glass --list
  portforge break-glass --end break-glass-x7k2p
  portforge break-glass --end --all

\b
It asks nothing. Every policy there is judged in Audit until the object is removed or expires:
nothing is denied, everything goes on being recorded. Needs the role portforge-responder.
Exit codes: 0 done; 5 the cluster refuses, has no such object, or cannot be reached.
"""


@click.command(epilog=EPILOG, short_help="Lift enforcement in a cluster, now.")
@click.option("--reason", help="Why; kept in the object and in the API server's audit log.")
@click.option("--node", "nodes", multiple=True, help="Only on this node. May be repeated.")
@click.option("--expires-in", type=lasting, metavar="2h", help="Ends by itself after this time.")
@click.option("--list", "listing", is_flag=True, help="Show what is lifted, by whom and why.")
@click.option("--end", is_flag=True, help="Enforce again: give NAMES, or --all.")
@click.option("--all", "everything", is_flag=True, help="With --end: everything.")
@click.option("--json", "as_json", is_flag=True, help="With --list: for programs.")
@click.argument("names", nargs=-1)
@cluster_options
def command(
    reason: str | None,
    nodes: tuple[str, ...],
    expires_in: timedelta | None,
    listing: bool,
    end: bool,
    everything: bool,
    as_json: bool,
    names: tuple[str, ...],
    kubeconfig: Path | None,
    context: str | None,
) -> None:
    """Lift enforcement on every node, or on some, with one command; --end NAMES takes it back."""
    from portforge.kube.client import username
    from portforge.kube.reports import (
        end_break_glass,
        list_break_glass,
        start_break_glass,
    )

    if sum((bool(reason), listing, end)) != 1:
        raise click.UsageError("give one of --reason TEXT, --list, --end")
    if end and bool(names) is everything:
        raise click.UsageError("--end needs NAMES or --all")
    if (names or everything) and not end:
        raise click.UsageError("NAMES and --all are for --end")
    api = open_cluster(kubeconfig, context)
    now = datetime.now(UTC).replace(microsecond=0)
    if reason:
        until = now + expires_in if expires_in else None
        made = start_break_glass(api, reason, username(api), nodes, until)
        click.echo(_told(made, now))
        click.echo(f"Enforce again with: portforge break-glass --end {made.name}")
    elif listing:
        _list(list_break_glass(api), now, as_json)
    else:
        for name in names or [found.name for found in list_break_glass(api)]:
            end_break_glass(api, name)
            click.echo(f"{name}: ended, nodes enforce again")


def _told(found: BreakGlass, now: datetime) -> str:
    where = "every node" if found.nodes is None else ", ".join(found.nodes)
    until = "until it is ended"
    if found.expires_at is not None:
        until = f"until {found.expires_at:%Y-%m-%d %H:%M:%S} UTC"
    state = "expired" if found.over(now) else f"enforcement lifted on {where} {until}"
    return f"{found.name}: {state}, by {found.by}: {found.reason}"


def _list(found: list[BreakGlass], now: datetime, as_json: bool) -> None:
    if as_json:
        rows = [
            {
                "name": each.name,
                "reason": each.reason,
                "by": each.by,
                "nodes": each.nodes,
                "expiresAt": each.expires_at and f"{each.expires_at:%Y-%m-%dT%H:%M:%SZ}",
                "over": each.over(now),
            }
            for each in found
        ]
        click.echo(json.dumps({"schema": 1, "breakGlass": rows}, indent=2, ensure_ascii=False))
        return
    for each in found:
        click.echo(_told(each, now))
    if not found:
        click.echo("nothing is lifted")
