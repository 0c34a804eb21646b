"""Which ports: a heat map of workload and port, coloured by what became of the connections."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from portforge.figures.style import COLOURS, MEANING, dress, no_traffic, plain, workload_names
from portforge.schema import Direction, Protocol, Verdict

STATES: tuple[str, ...] = (
    Verdict.DENIED,
    Verdict.AUDITED,
    Verdict.ALLOWED,
    Verdict.LISTENING,
    Verdict.REFUSED,
    Verdict.FAILED,
)
"""What colours a cell that saw several verdicts: the first of these. Hovering shows them all."""

ANSWERED = (Verdict.DENIED, Verdict.AUDITED, Verdict.ALLOWED, Verdict.LISTENING)


def port_matrix(
    flows: pd.DataFrame, *, direction: str = Direction.INGRESS, most_tried: int = 8
) -> go.Figure:
    """Workloads by ports: open and used, open and unused, tried and closed, denied.

    Parameters
    ----------
    flows: rows of contract 1.
    direction: ``ingress`` (ports the workloads serve) or ``egress`` (ports they call).
    most_tried: columns for ports where nobody answered (a scan leaves a thousand); those with
        the fewest attempts are folded into one. Ports in use come first and are never folded.

    Examples
    --------
    >>> import pandas as pd
    >>> flows = pd.DataFrame({"namespace": "shop", "workload_kind": "Deployment",
    ...     "workload": ["web", "web"], "direction": "ingress", "protocol": "TCP",
    ...     "port": [80, 23], "verdict": ["allowed", "refused"], "connections": [101, 1]})
    >>> figure = port_matrix(flows)
    >>> list(figure.data[0].x), [list(row) for row in figure.data[0].text]
    (['TCP 80', 'TCP 23'], [['101', '1']])
    """
    title = "Which ports: " + ("served" if direction == Direction.INGRESS else "called")
    rows = plain(flows)
    rows = rows[(rows["direction"] == direction) & rows["protocol"].isin(["TCP", "UDP"])]
    if rows.empty:
        return no_traffic(title)
    rows = rows.assign(name=workload_names(rows), column=_columns(rows, most_tried))
    counted = rows.groupby(["name", "column", "verdict"])["connections"].sum()

    names = sorted(rows["name"].unique(), reverse=True)
    order = rows.sort_values(["protocol", "port"])["column"].drop_duplicates()
    used = set(rows.loc[rows["verdict"].isin(ANSWERED), "column"])
    columns = sorted(order, key=lambda c: (c not in used, c.startswith("other")))
    present = [s for s in STATES if s in counted.index.get_level_values("verdict")]
    state: dict[tuple[str, str], int] = {}
    total: dict[tuple[str, str], str] = {}
    hover: dict[tuple[str, str], str] = {}
    for name, column in {(n, c) for n, c, _ in counted.index}:
        seen = counted.loc[(name, column)]
        place = (name, column)
        state[place] = next(i for i, s in enumerate(present) if s in seen.index)
        total[place] = f"{seen.sum():,}" if seen.sum() else "–"
        hover[place] = "<br>".join(f"{MEANING[str(v)]}: {n:,}" for v, n in seen.items())

    figure = go.Figure(
        go.Heatmap(
            x=columns,
            y=names,
            z=[[state.get((n, c)) for c in columns] for n in names],
            text=[[total.get((n, c), "") for c in columns] for n in names],
            customdata=[[hover.get((n, c), "") for c in columns] for n in names],
            texttemplate="%{text}",
            hovertemplate="%{y}<br>%{x}<br>%{customdata}<extra></extra>",
            hoverongaps=False,
            xgap=3,
            ygap=3,
            zmin=-0.5,
            zmax=len(present) - 0.5,
            colorscale=_steps([COLOURS[s] for s in present]),
            colorbar={
                "tickvals": list(range(len(present))),
                "ticktext": [MEANING[s] for s in present],
                "thickness": 14,
                "outlinewidth": 0,
            },
        )
    )
    dress(figure, f"{title}, with connections", height=150 + 38 * len(names))
    figure.update_xaxes(type="category", side="bottom", showgrid=False, automargin=True)
    return figure.update_yaxes(type="category", showgrid=False, automargin=True)


def _columns(rows: pd.DataFrame, most_tried: int) -> pd.Series[str]:
    """The column of each row: ``TCP 80``, or for folded ports ``other TCP (990)``."""
    columns = rows["protocol"] + " " + rows["port"].astype(str)
    answered = set(columns[rows["verdict"].isin(ANSWERED)])
    tried = rows["connections"].groupby(columns).sum()
    ranked = sorted(set(columns) - answered, key=lambda c: (-tried[c], len(c), c))
    if len(ranked) <= most_tried:
        return columns
    folded = set(ranked[max(0, most_tried - 1) :])
    label = {
        p: f"other {p} ({sum(c.startswith(p) for c in folded):,})"
        for p in (Protocol.TCP, Protocol.UDP)
    }
    return columns.where(~columns.isin(folded), rows["protocol"].map(label))


def _steps(colours: list[str]) -> list[list[float | str]]:
    """A colour scale of flat steps."""
    n = len(colours)
    return [[edge, c] for i, c in enumerate(colours) for edge in (i / n, (i + 1) / n)]
