"""How ``portforge simulate`` prints its answers. Judges nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    import pandas as pd

    from portforge.policy import Comparison, Simulation

_WORKLOAD = ["namespace", "workload_kind", "workload"]
_DECISIONS = ("allowed", "denied", "audited", "uncertain")
_HEADINGS = {
    "denied": "Would be denied",
    "audited": "Would be audited",
    "uncertain": "Uncertain, the record lost who the peer was",
}
_RULES = 20


def _name(row: pd.Series[Any], *columns: str) -> str:
    known = [row[column] for column in columns if isinstance(row[column], str)]
    return "/".join(known)


def _peer(row: pd.Series[Any]) -> str:
    peer = _name(row, "peer_namespace", "peer_workload") or row["peer_kind"]
    return f"{peer} ({row['peer_ip'] if isinstance(row['peer_ip'], str) else 'address lost'})"


def _worked(connections: int, answered: int) -> str:
    """How many, and how many of them had worked."""
    if answered == connections and connections > 1:
        told = "all had worked"
    elif answered:
        told = f"{answered:,} had worked" if connections > 1 else "had worked"
    else:
        told = "none had worked"
    noun = "connection" if connections == 1 else "connections"
    return f"{connections:,} {noun}, {told}"


def _cause(row: pd.Series[Any]) -> str:
    """One cause on one line, with its first example, so that it can be searched and copied."""
    arrow = "from" if row["direction"] == "ingress" else "to"
    counted = _worked(row["connections"], row["connections_answered"])
    if row["answered"] and not row["connections_answered"]:
        counted = "open already when recorded, had worked"
    was = ""
    if "decision_before" in row.index:
        was = f" (before: {row['decision_before']}, {row['reason_before']})"
    return (
        f"{row['direction']} {row['decision']}, {row['reason']}{was}: {counted}; "
        f"first {row['first_seen']:%Y-%m-%d %H:%M:%SZ} {row['protocol']} {row['port']} "
        f"{arrow} {_peer(row)}, was {row['verdict']}"
    )


def _more(rest: pd.DataFrame) -> str:
    worked = int(rest["answered"].sum())
    return f"    {len(rest)} more, {worked or 'none'} of which had worked"


def _workloads(frame: pd.DataFrame) -> Table:
    title = "Connections by what the policies would do; of those not allowed, how many had worked"
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    table.add_column("workload", overflow="fold", min_width=30)
    table.add_column("policy")
    shown = [name for name in _DECISIONS if name in ("allowed", "denied") or frame[name].any()]
    for heading in (*shown, "had worked"):
        table.add_column(heading, justify="right")
    for _, row in frame.iterrows():
        owner = _name(row, *_WORKLOAD) or "not known"
        has = "yes" if isinstance(row["policy"], str) else "none"
        counts = [f"{row[name]:,}" for name in shown]
        worked = row["denied_answered"] + row["uncertain_answered"]
        table.add_row(owner, has, *counts, f"{worked:,}")
    return table


def _rules(console: Console, rules: pd.DataFrame) -> None:
    """Rules whose port was met by somebody they do not name; then those nothing used."""
    met = rules[["denied", "audited", "uncertain"]].sum(axis=1)
    strict = rules.loc[met.sort_values(ascending=False, kind="stable").index]
    strict = strict[strict[["denied", "audited", "uncertain"]].any(axis=1)]
    if len(strict):
        more = len(strict) - _RULES
        console.print(
            f"\nRules whose port others tried as well{f' ({more} more)' if more > 0 else ''}:"
        )
        for _, row in strict.head(_RULES).iterrows():
            told = ", ".join(f"{row[d]:,} {d}" for d in _DECISIONS if row[d] or d == "allowed")
            worked = row["denied_answered"] + row["uncertain_answered"]
            console.print(
                f"  {row['namespace']}/{row['policy']} {row['rule']}: {told}; "
                f"of those not allowed {worked:,} had worked",
                soft_wrap=True,
            )
    unused = rules.loc[~rules["used"]]
    if len(unused):
        console.print(f"\n{len(unused)} rule(s) nothing used:")
        for _, row in unused.iterrows():
            console.print(f"  {row['namespace']}/{row['policy']} {row['rule']}", soft_wrap=True)


def _by_workload(console: Console, causes: pd.DataFrame, examples: int) -> None:
    """The first causes of each workload; workloads with the worst cause first."""
    for owner, own in causes.groupby(_WORKLOAD, dropna=False, sort=False):
        name = "/".join(part for part in owner if isinstance(part, str)) or "not known"
        console.print(f"  {name}", soft_wrap=True)
        for _, row in own.head(examples).iterrows():
            console.print(f"    {_cause(row)}", soft_wrap=True)
        if len(own) > examples:
            console.print(_more(own.iloc[examples:]), soft_wrap=True)


def show_simulation(simulation: Simulation, examples: int) -> None:
    """Tables of workloads and rules, the causes of each workload, and the sums."""
    console = Console(highlight=False, markup=False)
    console.print(_workloads(simulation.workloads))
    _rules(console, simulation.rules)
    for decision, heading in _HEADINGS.items():
        causes = simulation.causes[simulation.causes["decision"] == decision]
        if len(causes):
            console.print(f"\n{heading}, what had worked first:")
            _by_workload(console, causes, examples)
    for what, counts in (
        ("\nconnections", simulation.counts),
        ("flow records", simulation.flows),
    ):
        told = ", ".join(f"{n:,} {decision}" for decision, n in counts.items())
        console.print(f"{what}: {told}", soft_wrap=True)


def show_changes(comparison: Comparison, examples: int) -> None:
    """What is newly denied, audited, uncertain and allowed, workload by workload."""
    console = Console(highlight=False, markup=False)
    for decision in ("denied", "audited", "uncertain", "allowed"):
        changes = comparison.changes[comparison.changes["decision"] == decision]
        if changes.empty:
            continue
        counts = changes["connections"], changes["connections_answered"]
        count = _worked(*(int(one.sum()) for one in counts))
        console.print(f"Newly {decision}: {count}")
        _by_workload(console, changes, examples)
    told = ", ".join(f"{n:,} newly {decision}" for decision, n in comparison.counts.items())
    console.print(f"connections: {told}, {comparison.unchanged:,} as before", soft_wrap=True)
