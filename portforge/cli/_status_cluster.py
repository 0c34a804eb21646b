"""``portforge status --cluster``: policies as asked, nodes as they report, what is lifted."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from portforge.cli._cluster import open_cluster, short_age
from portforge.cli.confirm import trial_text
from portforge.kube._refused import RefusedError
from portforge.kube.policies import Live, list_policies
from portforge.kube.reports import BreakGlass, NodeReport, list_break_glass, list_reports
from portforge.policy import Mode

_LATE = 60  # seconds without a heartbeat, four of them missed
_T = TypeVar("_T")


def cluster_status(
    kubeconfig: Path | None, context: str | None, namespace: str | None, as_json: bool
) -> None:
    """Ask and print. Who may read policies but not nodes is shown the policies."""
    api = open_cluster(kubeconfig, context)
    unknown: list[str] = []

    def allowed(read: Callable[[], list[_T]]) -> list[_T]:
        try:
            return read()
        except RefusedError as no:
            if not no.is_about_rights:
                raise
            unknown.append(f"not shown: {no}")
            return []

    policies = list_policies(api, namespace)
    reports = allowed(lambda: list_reports(api))
    lifted = allowed(lambda: list_break_glass(api))
    now = datetime.now(UTC)
    if as_json:
        click.echo(json.dumps(as_data(policies, reports, lifted), indent=2, ensure_ascii=False))
        for sentence in unknown:
            click.echo(sentence, err=True)
        return
    show(policies, reports, lifted, now, Console(highlight=False, markup=False))
    for sentence in unknown:
        click.echo(sentence)


def as_data(
    policies: Sequence[Live], reports: Sequence[NodeReport], lifted: Sequence[BreakGlass]
) -> dict[str, Any]:
    """For programs."""
    return {
        "schema": 1,
        "policies": [_policy_data(live) for live in policies],
        "nodes": [_plain(report) for report in reports],
        "breakGlass": [_plain(found) for found in lifted],
    }


def _policy_data(live: Live) -> dict[str, Any]:
    spec, status = live.data.get("spec") or {}, live.status
    return {
        "namespace": live.data["metadata"]["namespace"],
        "name": live.data["metadata"]["name"],
        "mode": str(live.policy.mode) if live.policy else spec.get("mode"),
        "author": spec.get("author"),
        "approvedBy": (spec.get("approval") or {}).get("by"),
        "confirmBefore": spec.get("confirmBefore"),
        "generation": live.data["metadata"].get("generation"),
        "observedGeneration": status.get("observedGeneration"),
        "nodes": status.get("nodes"),
        "appliedNodes": status.get("appliedNodes"),
        "denied": status.get("denied"),
        "audited": status.get("audited"),
        "conditions": status.get("conditions") or [],
        "problem": live.problem or None,
    }


def _plain(record: NodeReport | BreakGlass) -> dict[str, Any]:
    def plain(value: object) -> object:
        return f"{value:%Y-%m-%dT%H:%M:%SZ}" if isinstance(value, datetime) else value

    return {_camel(key): plain(value) for key, value in asdict(record).items()}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def show(
    policies: Sequence[Live],
    reports: Sequence[NodeReport],
    lifted: Sequence[BreakGlass],
    now: datetime,
    console: Console,
) -> None:
    """Print tables, then one line for everything that is not as it should be."""
    for found in lifted:
        if not found.over(now):
            where = "every node" if found.nodes is None else ", ".join(found.nodes)
            console.print(
                f"BREAK-GLASS {found.name}: enforcement is lifted on {where}, by {found.by}: "
                f"{found.reason}",
                style="bold red",
            )
    console.print(_policies(policies))
    console.print(_nodes(reports, now))
    for live in policies:
        for sentence in _policy_remarks(live, now):
            console.print(f"{live.name}: {sentence}", style="yellow")
    said: dict[str, list[str]] = {}
    for report in reports:
        for sentence in _node_remarks(report, now):
            said.setdefault(sentence, []).append(report.node)
    for sentence, nodes in said.items():
        console.print(f"{_named(nodes)}: {sentence}", style="yellow")


def _named(nodes: Sequence[str]) -> str:
    """``a, b, c and 40 more nodes``: what many nodes say is said once."""
    more = f" and {len(nodes) - 3} more nodes" if len(nodes) > 3 else ""
    return ", ".join(nodes[:3]) + more


def _policies(policies: Sequence[Live]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("policy", "mode", "nodes", "denied", "audited", "state", "author", "approved"):
        table.add_column(heading, overflow="fold")
    for live in policies:
        data = _policy_data(live)
        counts = [data[k] for k in ("appliedNodes", "nodes", "denied", "audited")]
        applied, nodes, denied, audited = ("–" if c is None else f"{c:,}" for c in counts)
        true = [c["type"] for c in data["conditions"] if c.get("status") == "True"]
        table.add_row(
            live.name,
            data["mode"] or Mode.AUDIT,
            f"{applied}/{nodes}",
            denied,
            audited,
            ", ".join(true) or "not reported",
            data["author"] or "–",
            data["approvedBy"] or "–",
        )
    return table


def _nodes(reports: Sequence[NodeReport], now: datetime) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("node", "agent", "heard", "canary", "lost", "policies", "break-glass"):
        table.add_column(heading, overflow="fold")
    for report in reports:
        table.add_row(
            report.node,
            " ".join((report.agent, report.programs)),
            short_age(report.heartbeat, now),
            short_age(report.canary, now),
            f"{report.losses:,}",
            str(len(report.policies)),
            report.break_glass or "–",
        )
    return table


def _policy_remarks(live: Live, now: datetime) -> list[str]:
    remarks = [live.problem] if live.problem else []
    if trial := trial_text(live, now):
        remarks.append(trial)
    for condition in live.status.get("conditions") or ():
        bad = condition.get("status") == ("True" if condition["type"] == "Degraded" else "False")
        if condition["type"] == "Enforced" and live.policy and live.policy.mode is not Mode.ENFORCE:
            continue  # nobody asked for it
        if bad and condition.get("message"):
            remarks.append(f"{condition['type']} {condition['status']}: {condition['message']}")
    seen = live.status.get("observedGeneration")
    if seen is not None and seen != live.data["metadata"].get("generation"):
        remarks.append("the status is of an earlier version")
    return remarks


def _node_remarks(report: NodeReport, now: datetime) -> list[str]:
    remarks = []
    heard = report.heartbeat
    if heard is None or (now - heard).total_seconds() > _LATE:
        remarks.append(
            f"not heard of for {short_age(heard, now)}; it goes on with what it last knew"
            if heard
            else "its agent was never heard of"
        )
    if not report.synced:
        remarks.append("its agent does not see the API server's latest")
    for p in report.policies:
        if p.state not in ("Active", "OnTrial"):
            why = f": {p.problem}" if p.problem else ""
            remarks.append(f"{p.namespace}/{p.name} is {p.state}, in {p.mode}{why}")
    return remarks
