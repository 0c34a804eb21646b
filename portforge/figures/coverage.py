"""How much of each workload was seen: ports and peers beside their estimates, and the checklist.

The estimates are lower bounds and optimistic: read them beside ``backtest_curve``.
"""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from portforge.figures.style import COLOURS, dress, no_traffic, workload_names
from portforge.schema import Direction, Verdict

TITLE = "Coverage: what was seen, what the estimate says there is, and what it has gone through"
STATUSES = ("ready", "learning", "insufficient", "dynamic")
ITEMS = {
    "restart": "restart",
    "daily_cycle": "day<br>or run",
    "cron_cycle": "day<br>or run",
    "weekend": "weekend",
    "weekly_cycle": "week",
    "losses": "no<br>losses",
    "replicas": "replicas",
}
"""The checklist's items as columns; a workload has one of ``daily_cycle`` and ``cron_cycle``."""

_WORKLOAD = ["namespace", "workload_kind", "workload"]
_SIDES = {
    str(Direction.INGRESS): ("ingress", COLOURS[Verdict.LISTENING], 0.16),
    str(Direction.EGRESS): ("egress", COLOURS[Verdict.AUDITED], -0.16),
}
_MARKS = {"yes": "✓", "no": "✗", "unknown": "?"}
_SHADES = ("#CDEBDF", "#F6C9AE", "#DDDDDD")
_TINTS = {
    "ready": COLOURS[Verdict.ALLOWED],
    "learning": "#9A6700",
    "insufficient": COLOURS[Verdict.FAILED],
    "dynamic": "#A3437D",
}
_ROW = 28
_MANY = 40
"""From so many ports or peers on the axis is logarithmic."""


def coverage_overview(coverage: pd.DataFrame, lifecycle: pd.DataFrame) -> go.Figure:
    """One line for each workload, the ones that are ready first.

    A point is what was seen, a ring what Chao2 says there is at least (the larger of the
    estimates by hours and by days). A ring around the point: nothing more is expected. No ring:
    there is no basis for an estimate.

    Parameters
    ----------
    coverage, lifecycle: ``coverage_`` and ``lifecycle_`` of ``PortPolicyRecommender``.

    Examples
    --------
    >>> import pandas as pd
    >>> who = {"namespace": "shop", "workload_kind": "Deployment", "workload": ["web"],
    ...        "status": "learning"}
    >>> seen = pd.DataFrame(who | {"direction": "ingress", "ports": 2, "chao2_ports": 2.0,
    ...     "chao2_ports_days": 3.5, "peers": 4, "chao2_peers": 4.0, "chao2_peers_days": None})
    >>> life = pd.DataFrame(who | {"item": "restart", "answer": "no", "missing": "a restart"})
    >>> seen_trace, estimated = coverage_overview(seen, life).data[1:3]
    >>> list(seen_trace.x), list(estimated.x)
    ([2], [3.5])
    """
    if coverage.empty:
        return no_traffic(TITLE)
    known = coverage.drop_duplicates(_WORKLOAD)[[*_WORKLOAD, "status"]].reset_index(drop=True)
    known["name"] = workload_names(known)
    known["place"] = known["status"].map({s: n for n, s in enumerate(STATUSES)})
    known = known.sort_values(["place", "name"], ascending=False, ignore_index=True)
    known["y"] = range(len(known))
    figure = make_subplots(
        cols=3,
        shared_yaxes=True,
        column_widths=[0.3, 0.3, 0.4],
        horizontal_spacing=0.03,
        subplot_titles=["ports", "peers, on each port", "checklist"],
    )
    rows = coverage.merge(known[[*_WORKLOAD, "y"]], on=_WORKLOAD)
    for column, what in enumerate(("ports", "peers"), start=1):
        _dumbbells(figure, rows, what, column)
    _checklist(figure, lifecycle.merge(known[[*_WORKLOAD, "y"]], on=_WORKLOAD), known)
    dress(figure, TITLE, height=200 + _ROW * len(known))
    figure.update_layout(
        margin={"t": 100, "b": 100},
        legend={"orientation": "h", "x": 0, "y": -45 / (_ROW * len(known)), "yanchor": "top"},
    )
    labels = [
        f"{name}  <span style='color:{_TINTS.get(status, 'black')}'><b>{status}</b></span>"
        for name, status in zip(known["name"], known["status"], strict=True)
    ]
    figure.update_yaxes(
        tickvals=known["y"].tolist(),
        ticktext=labels,
        range=[-0.6, len(known) - 0.4],
        automargin=True,
        zeroline=False,
        ticks="outside",
        tickcolor="rgba(0,0,0,0)",
    )
    return figure


def _dumbbells(figure: go.Figure, rows: pd.DataFrame, what: str, column: int) -> None:
    """What was seen, what is estimated, and a line between the two."""
    estimate = rows[[f"chao2_{what}", f"chao2_{what}_days"]].astype("float64").max(axis=1)
    most = pd.concat([estimate, rows[what].astype("float64")]).max()
    for direction, (label, colour, shift) in _SIDES.items():
        own = rows[(rows["direction"] == direction) & (rows[what] > 0)]
        y = (own["y"] + shift).tolist()
        seen, guess = own[what], estimate[own.index]
        ends = [
            point
            for a, b, place in zip(seen, guess.fillna(seen), y, strict=True)
            for point in ((a, place), (b, place), (None, None))
        ]
        common = {"legendgroup": label, "hoverlabel": {"align": "left"}}
        figure.add_trace(
            go.Scatter(
                x=[x for x, _ in ends],
                y=[place for _, place in ends],
                mode="lines",
                line={"color": colour, "width": 2},
                hoverinfo="skip",
                showlegend=False,
                legendgroup=label,
            ),
            row=1,
            col=column,
        )
        for values, symbol, size, name in (
            (seen, "circle", 6, f"{label}, seen"),
            (guess, "circle-open", 11, f"{label}, estimated at least"),
        ):
            drawn = values.notna().to_numpy()
            figure.add_trace(
                go.Scatter(
                    x=values[drawn].tolist(),
                    y=[place for place, there in zip(y, drawn, strict=True) if there],
                    mode="markers",
                    marker={
                        "color": colour,
                        "symbol": symbol,
                        "size": size,
                        "line": {"width": 1.5, "color": colour},
                    },
                    name=name,
                    showlegend=column == 1,
                    hovertemplate=f"{name}: %{{x:,}} {what}<extra></extra>",
                    **common,
                ),
                row=1,
                col=column,
            )
    log = most > _MANY
    axis: dict[str, str | int] = {"type": "log", "dtick": 1} if log else {"rangemode": "tozero"}
    if most < 10:
        axis["dtick"] = 1
    figure.update_xaxes(row=1, col=column, **axis)


def _checklist(figure: go.Figure, rows: pd.DataFrame, known: pd.DataFrame) -> None:
    columns = [c for c in dict.fromkeys(ITEMS.values()) if c in set(rows["item"].map(ITEMS))]
    answers = list(_MARKS)
    z: list[list[int | None]] = [[None] * len(columns) for _ in range(len(known))]
    text = [[""] * len(columns) for _ in range(len(known))]
    why = [[""] * len(columns) for _ in range(len(known))]
    for item, answer, missing, y in zip(
        rows["item"], rows["answer"], rows["missing"], rows["y"], strict=True
    ):
        place = columns.index(ITEMS[item])
        z[y][place] = answers.index(answer)
        text[y][place] = _MARKS[answer]
        why[y][place] = f"{answer}{': missing ' + missing if missing else ''}"
    figure.add_trace(
        go.Heatmap(
            x=columns,
            y=known["y"].tolist(),
            z=z,
            text=text,
            customdata=why,
            texttemplate="%{text}",
            hovertemplate="%{x}: %{customdata}<extra></extra>",
            hoverongaps=False,
            xgap=3,
            ygap=3,
            zmin=-0.5,
            zmax=len(answers) - 0.5,
            colorscale=[
                [edge, shade]
                for n, shade in enumerate(_SHADES)
                for edge in (n / len(_SHADES), (n + 1) / len(_SHADES))
            ],
            showscale=False,
        ),
        row=1,
        col=3,
    )
    figure.update_xaxes(
        type="category", showgrid=False, tickangle=0, tickfont_size=11, row=1, col=3
    )
