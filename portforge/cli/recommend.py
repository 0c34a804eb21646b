"""``portforge recommend``: a capture in, policies and their evidence out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from portforge.capture import open_capture
from portforge.cli._engine import engine_option
from portforge.recommend import KINDS, Options, Recommendation, read_decisions, recommend

_COLOURS = {
    "ready": "green",
    "learning": "yellow",
    "dynamic": "magenta",
    "insufficient": "red",
    "high": "green",
    "medium": "yellow",
    "low": "red",
}
_SEVERITY = {"high": "bold red", "medium": "yellow", "low": "cyan", "info": "dim"}
_SHOWN_FINDINGS = 8
# Nothing to decide here: one line for all of a kind.
_QUIET = ("own_node", "loopback", "unjudged_protocol", "ephemeral_socket", "port_zero")


@click.command(
    epilog="""\b
Examples:
  portforge recommend capture -o review
  portforge recommend capture -o review --since 7d --namespace shop
  portforge recommend capture -o review --json | jq '.workloads[].status'

\b
Exit codes: 0 written; 1 the capture cannot be used, or the folder is not ours to replace.
"""
)
@click.argument("capture", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder for policies/, evidence.parquet, findings.parquet and report.json.",
)
@click.option("--since", help="ISO timestamp, or a duration before the capture's end: 30m, 2h, 7d.")
@click.option("--until", help="As --since.")
@click.option("--namespace", "namespaces", multiple=True, help="Only this one; may be repeated.")
@click.option("--workload", "workloads", multiple=True, help="Only this name; may be repeated.")
@click.option(
    "--decisions",
    type=click.Path(path_type=Path),
    help="YAML file of what must be learned, what never may, and what is sensitive.",
)
@engine_option
@click.option(
    "--price",
    type=click.IntRange(min=0),
    default=Options.price,
    show_default=True,
    help="Unobserved port-peers that one saved selector may cost; 0 generalises nothing.",
)
@click.option("--no-ranges", is_flag=True, help="Propose no port ranges for dynamic workloads.")
@click.option(
    "--replace", is_flag=True, help="Replace policies that were approved or edited there, too."
)
@click.option("--json", "as_json", is_flag=True, help="Print report.json instead of tables.")
def command(
    capture: Path,
    output: Path,
    since: str | None,
    until: str | None,
    namespaces: tuple[str, ...],
    workloads: tuple[str, ...],
    decisions: Path | None,
    engine: str,
    price: int,
    no_ranges: bool,
    replace: bool,
    as_json: bool,
) -> None:
    """Recommend one policy for each workload in CAPTURE, in Audit, with the evidence.

    Only answered connections are learned. What was refused, failed, scanned or never used is a
    finding, and is shown with the reason. An existing output folder is replaced when it holds an
    earlier recommendation that nobody touched, and only then.
    """
    with Console(stderr=True).status("opening the capture") as status:
        result = recommend(
            open_capture(capture, since, until, engine),
            since=since,
            until=until,
            namespaces=namespaces or None,
            workloads=workloads or None,
            options=Options(price=price, propose_ranges=not no_ranges),
            decisions=read_decisions(decisions) if decisions else (),
            progress=status.update,
        )
        status.update(f"writing {output}")
        result.write(output, replace=replace)
    if as_json:
        click.echo(json.dumps(result.report, indent=2, ensure_ascii=False))
    else:
        show(result, Console(highlight=False))
        click.echo(f"Written to {output}. Review, then: portforge approve {output}/policies")


def show(result: Recommendation, console: Console) -> None:
    """Print the rules with their evidence, then what was left out and why."""
    for workload in result.report["workloads"]:
        _show_workload(workload, result.evidence, console)
    _show_findings(result.findings, result.report, console)


def _show_workload(workload: dict[str, Any], evidence: pd.DataFrame, console: Console) -> None:
    name = f"{workload['namespace']}/{workload['workload_kind']}/{workload['workload']}"
    console.print(f"\n[bold]{escape(name)}[/bold]  {_coloured(workload['status'])}")
    own = evidence[
        (evidence["namespace"] == workload["namespace"])
        & (evidence["policy"] == workload["policy"])
    ]
    if own.empty:
        console.print("  no rules: nothing it did or received needs one")
    else:
        table = Table(box=None)
        table.add_column("rule", no_wrap=True)
        table.add_column("peers", overflow="fold")
        table.add_column("evidence")
        table.add_column("over-grant", justify="right")
        table.add_column("confidence")
        table.add_column("why so")
        for row in own.to_dict("records"):
            why = "; ".join(text for text in (row["reason"], row["over_grant"]) if text)
            over = f"{row['unobserved_port_peers']:,}"
            cells = (str(row["rule"]), str(row["peers"]), _evidence(row), over)
            table.add_row(*map(escape, cells), _coloured(row["confidence"]), escape(why))
        console.print(table)
    told = tuple(f"{rule}: " for rule in own["rule"])
    notes = [note for note in workload["notes"] if not note.startswith(told)]
    for reason in (*workload["reasons"], *notes):
        console.print(f"  - {escape(reason)}", soft_wrap=True)


def _evidence(row: dict[Any, Any]) -> str:
    if not row["hours"]:
        return "not seen"
    phase = row["phase"] + (f" ({row['period']})" if isinstance(row["period"], str) else "")
    return (
        f"{row['connections']} conn, {_size(row['bytes'])}, {row['hours']} h on {row['days']} d, "
        f"{row['pods']} of {row['pods_total']} pods; {phase}"
    )


def _size(number: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}"
        number /= 1024
    return f"{number:.0f} TiB"


def _coloured(word: str) -> str:
    colour = _COLOURS.get(word)
    return f"[{colour}]{word}[/{colour}]" if colour else word


def _show_findings(findings: pd.DataFrame, report: dict[str, Any], console: Console) -> None:
    console.print("\n[bold]Left out, or worth a look[/bold]")
    table = Table("severity", "what", "workload", "where", "peer", "connections", "why", box=None)
    # The frame is sorted by severity, then kind.
    for (severity, what), some in findings.groupby(["severity", "kind"], sort=False):
        level, kind = f"[{_SEVERITY[str(severity)]}]{severity}[/]", str(what)
        if kind in _QUIET:
            total = str(some["connections"].sum())
            table.add_row(level, kind, f"{len(some)} findings", "", "", total, KINDS[kind])
            continue
        for row in some.head(_SHOWN_FINDINGS).to_dict("records"):
            port = row["port"]
            where = f"{row['direction']} {_or(row['protocol'])}".rstrip()
            where += f" {row['ports']} ports" if pd.isna(port) else f" {port}"
            cells = (_or(row["workload"]), where, _or(row["peer"]), str(row["connections"]))
            why = "; ".join(text for text in (row["reason"], _or(row["decision"])) if text)
            table.add_row(level, kind, *map(escape, cells), escape(why))
        if len(some) > _SHOWN_FINDINGS:
            more = f"… {len(some) - _SHOWN_FINDINGS} more"
            table.add_row(level, kind, more, "", "", "", "see findings.parquet")
    console.print(table if table.row_count else "  nothing")
    for reason, count in report["losses"]["by_reason"].items():
        console.print(f"  lost: {count} {reason}")
    if rest := report["rhythms"]["not_looked_at"]:
        console.print(f"  too many records to look for beacons at {rest} more outside peers")
    window = report["window"]
    console.print(f"\nWindow {window['start']} to {window['end']} ({window['hours']:g} h).")


def _or(value: object) -> str:
    return value if isinstance(value, str) else ""
