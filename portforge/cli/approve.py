"""``portforge approve``: writes approvals into policy files. The digest is portforge.policy's."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from portforge.policy import PortPolicy
    from portforge.policy._report import Readiness

EPILOG = """\b
Examples:
  portforge approve policies/ --by "Ana Lima"
  portforge approve policies/ --by "Ana Lima" --insufficient-evidence-accepted

\b
The status of each workload is read from the report.json beside the policies, which
portforge recommend wrote. A workload that is not ready, or not in a report, is refused
without the flag, and then nothing is approved. Approvals that hold already are kept.
Exit codes: 0 approved; 1 refused, or the files cannot be used.
"""


def _readiness(policies: list[PortPolicy], report: Path | None) -> dict[tuple[str, str], Readiness]:
    from portforge.policy._report import Readiness, read_report

    known = {} if report is None else read_report(report)
    where = "no report.json was found" if report is None else f"not in {report}"
    unknown = Readiness("unknown", (where,))
    return {(p.namespace, p.name): known.get(p.workload, unknown) for p in policies}


def _holds(policy: PortPolicy) -> bool:
    from portforge.policy import digest

    return policy.approval is not None and policy.approval.digest == digest(policy)


@click.command(epilog=EPILOG, short_help="Approve policies as they stand.")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--by", required=True, metavar="NAME", help="Who approves.")
@click.option(
    "--insufficient-evidence-accepted",
    "accepted",
    is_flag=True,
    help="Approve workloads, too, whose evidence is not enough.",
)
@click.option("--report", type=click.Path(path_type=Path), help="The report.json to go by.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def command(path: Path, by: str, accepted: bool, report: Path | None, as_json: bool) -> None:
    """Approve the policies in PATH (a file or a folder) as they stand, in the name of NAME.

    Writes who, when, and a digest of the policy into each file, all files or none. Any later
    change but that of the mode needs a new approval.
    """
    from portforge.errors import ApprovalError
    from portforge.policy import approve
    from portforge.policy._read import load, sound
    from portforge.policy._report import find_report
    from portforge.policy._write import replace_files, with_approvals

    if not by.strip():
        raise click.BadParameter("give a name", param_hint="--by")
    loaded = sound(load(path))
    readiness = _readiness(loaded.policies, report or find_report(path))
    short = {name: r for name, r in readiness.items() if not r.ready}
    if short and not accepted:
        told = "; ".join(f"{'/'.join(n)} is {_told(r)}" for n, r in short.items())
        raise ApprovalError(
            f"not enough evidence, nothing was approved: {told}",
            place=str(path),
            remedy="record longer, or say --insufficient-evidence-accepted",
        )
    now = datetime.now(UTC).replace(microsecond=0)
    texts: dict[Path, str] = {}
    approved: list[tuple[PortPolicy, bool]] = []
    for file, before in loaded.files.items():
        after = [p if _holds(p) else approve(p, by, now) for p in before]
        approved += [(p, p is old) for p, old in zip(after, before, strict=True)]
        if after != before:
            texts[file] = with_approvals(loaded.texts[file], before, after)
    replace_files(texts)
    _report(approved, readiness, as_json)


def _told(readiness: Readiness) -> str:
    reasons = ", ".join(readiness.reasons)
    return f"{readiness.status} ({reasons})" if reasons else readiness.status


def _report(
    approved: list[tuple[PortPolicy, bool]],
    readiness: dict[tuple[str, str], Readiness],
    as_json: bool,
) -> None:
    from portforge.policy._yaml import canonical

    if as_json:
        rows = [
            {
                "namespace": p.namespace,
                "name": p.name,
                "status": readiness[p.namespace, p.name].status,
                "kept": kept,
                "approval": canonical(p)["spec"]["approval"],
            }
            for p, kept in approved
        ]
        click.echo(json.dumps({"schema": 1, "approved": rows}, indent=2, ensure_ascii=False))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("policy", "evidence", "approved by", "digest"):
        table.add_column(heading, overflow="fold")
    for p, kept in approved:
        if p.approval is not None:
            by = f"{p.approval.by} (already)" if kept else p.approval.by
            status = readiness[p.namespace, p.name].status
            table.add_row(f"{p.namespace}/{p.name}", status, by, p.approval.digest[:19] + "…")
    console = Console(highlight=False, markup=False)
    console.print(table)
    short = {name: r for name, r in readiness.items() if not r.ready}
    if short:
        console.print(f"INSUFFICIENT EVIDENCE ACCEPTED for {len(short)}:", style="bold yellow")
        for name, r in short.items():
            console.print(f"  {'/'.join(name)}: {_told(r)}", soft_wrap=True)
