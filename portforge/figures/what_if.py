"""What policies would have done to a window: one bar for each workload. Judges nothing.

Denied connections are few beside allowed ones, and are what matters: a part that is there is
never drawn narrower than ``LEAST`` of the bar, and its number stands beside it.
"""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from portforge.figures.style import COLOURS, dress, no_traffic, workload_names
from portforge.schema import Verdict

TITLE = "What if: connections that these policies would have allowed, denied, or cannot tell"
LEAST = 0.03
GREY = "#BDBDBD"
"""Of ``uncertain``: no verdict of a record."""

_PANELS = ("had worked when recorded", "had not: refused, failed, denied")
_ROW = 24


def what_if_bars(workloads: pd.DataFrame) -> go.Figure:
    """Two bars for each workload: of what had worked, and of what had not.

    Red in the left bar is what would break; workloads with some come first. Red in the right one
    is scans and failed attempts that now meet a policy.

    Parameters
    ----------
    workloads: ``Simulation.workloads``, or some rows of it.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"namespace": "shop", "workload_kind": "Deployment",
    ...     "workload": ["web", "cart"], "allowed": [90, 50], "denied": [10, 2], "audited": 0,
    ...     "uncertain": 0, "allowed_answered": [90, 50], "denied_answered": [0, 2],
    ...     "uncertain_answered": 0, "broken": [False, True]})
    >>> list(what_if_bars(frame).data[0].y)
    ['shop/web', 'shop/cart']
    """
    if workloads.empty:
        return no_traffic(TITLE)
    rows = _rows(workloads)
    word, colour = _refused(workloads)
    parts = {
        "allowed": ("allowed", COLOURS[Verdict.ALLOWED]),
        "against": (word, colour),
        "uncertain": ("uncertain, the peer was not recorded", GREY),
    }
    figure = make_subplots(
        cols=2, shared_yaxes=True, subplot_titles=_PANELS, horizontal_spacing=0.02
    )
    for column, panel in enumerate(("worked", "tried"), start=1):
        counts = rows[[f"{panel}_{part}" for part in parts]].set_axis(list(parts), axis=1)
        # Something broken of which no connection was counted: it was open before the record.
        weight = counts.assign(against=counts["against"].clip(lower=rows[f"{panel}_least"]))
        shares = _shares(weight)
        for part, (label, shade) in parts.items():
            if part == "uncertain" and not workloads["uncertain"].any():
                continue
            figure.add_trace(
                go.Bar(
                    y=rows["name"].tolist(),
                    x=shares[part].tolist(),
                    customdata=counts[part].tolist(),
                    orientation="h",
                    name=label,
                    legendgroup=part,
                    showlegend=column == 1,
                    marker={"color": shade, "line_width": 0},
                    hovertemplate=f"%{{y}}<br>{_PANELS[column - 1]}<br>"
                    f"{label}: %{{customdata:,}}<extra></extra>",
                ),
                row=1,
                col=column,
            )
        figure.add_trace(
            go.Scatter(
                y=rows["name"].tolist(),
                x=(shares.sum(axis=1) + 0.02).tolist(),
                text=[
                    _told(word, *one) for one in weight.assign(real=counts["against"]).to_numpy()
                ],
                mode="text",
                textposition="middle right",
                hoverinfo="skip",
                showlegend=False,
            ),
            row=1,
            col=column,
        )
    dress(figure, TITLE, height=185 + _ROW * len(rows))
    figure.update_layout(
        barmode="stack",
        bargap=0.3,
        margin_t=115,
        margin_b=50,
        title_subtitle={
            "text": f"each bar is a whole; a part is drawn as {LEAST:.0%} of it at least",
            "font_size": 12,
        },
        legend={"orientation": "h", "x": 0, "y": -8 / (_ROW * len(rows)), "yanchor": "top"},
    )
    figure.update_xaxes(range=[0, 1.9], visible=False)
    return figure.update_yaxes(
        type="category",
        range=[-0.6, len(rows) - 0.4],
        automargin=True,
        showgrid=False,
        ticks="outside",
        tickcolor="rgba(0,0,0,0)",
    )


def _rows(workloads: pd.DataFrame) -> pd.DataFrame:
    """Counts by panel and part, in the order from the bottom of the figure to its top."""
    rows = pd.DataFrame({"name": workload_names(workloads)})
    against = workloads["denied"] + workloads["audited"]
    for part, total in (
        ("allowed", workloads["allowed"]),
        ("against", against),
        ("uncertain", workloads["uncertain"]),
    ):
        worked = workloads[f"{'denied' if part == 'against' else part}_answered"]
        rows[f"worked_{part}"] = worked
        rows[f"tried_{part}"] = total - worked
    rows["worked_least"] = workloads["broken"].astype("int64")
    rows["tried_least"] = 0
    order = ["worked_least", "worked_against", "worked_uncertain", "tried_against", "name"]
    return rows.sort_values(order, ascending=[True, True, True, True, False], ignore_index=True)


def _refused(workloads: pd.DataFrame) -> tuple[str, str]:
    """How to call what no rule allows, and its colour."""
    if not workloads["audited"].any():
        return "denied", COLOURS[Verdict.DENIED]
    if not workloads["denied"].any():
        return "audited", COLOURS[Verdict.AUDITED]
    return "denied or audited", COLOURS[Verdict.DENIED]


def _shares(counts: pd.DataFrame) -> pd.DataFrame:
    """Parts of one; 0 where there is nothing at all."""
    total = counts.sum(axis=1)
    share = counts.div(total.where(total > 0, 1), axis=0)
    share = share.where(counts == 0, share.clip(lower=LEAST))
    whole = share.sum(axis=1)
    return share.div(whole.where(whole > 0, 1), axis=0)


def _told(word: str, allowed: int, against: int, uncertain: int, counted: int) -> str:
    """``12 denied of 3,400``, beside the bar."""
    total = allowed + counted + uncertain
    if not (total or against):
        return "none"
    told = []
    if against:
        told.append(f"<b>{counted:,} {word}</b>" if counted else f"<b>{word}, open already</b>")
    if uncertain:
        told.append(f"{uncertain:,} uncertain")
    return f"{', '.join(told)} of {total:,}" if told else f"{total:,}"
