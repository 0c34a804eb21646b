"""When: connections for each time bin, by verdict, ingress above egress."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from portforge.figures.style import COLOURS, MEANING, VERDICTS, dress, no_traffic, plain
from portforge.schema import Direction

TITLE = "When: connections opened"
BINS = ("1s", "5s", "15s", "1min", "5min", "15min", "1h", "6h", "1D", "7D")
DIRECTIONS = (Direction.INGRESS, Direction.EGRESS)


def activity_timeline(flows: pd.DataFrame, *, most_bins: int = 90) -> go.Figure:
    """Connections opened in each time bin, one trace for each direction and verdict.

    A row counts in the bin of its ``first_seen``: what a drain interval holds is not spread.

    Parameters
    ----------
    flows: rows of contract 1.
    most_bins: the bin width is the smallest usual one that needs no more bins than this.

    Examples
    --------
    >>> import pandas as pd
    >>> at = pd.to_datetime(["2026-11-01 10:00:00", "2026-11-01 10:00:30"], utc=True)
    >>> flows = pd.DataFrame({"first_seen": at, "last_seen": at, "direction": "ingress",
    ...                       "verdict": ["allowed", "refused"], "connections": [23, 2]})
    >>> [(t.name, sum(t.y)) for t in activity_timeline(flows).data]
    [('allowed', 23), ('refused (nobody listened)', 2)]
    """
    opened = plain(flows)
    opened = opened[opened["connections"] > 0]
    if opened.empty:
        return no_traffic(TITLE)
    width = bin_width(opened["first_seen"].max() - opened["first_seen"].min(), most_bins)
    opened = opened.assign(bin=opened["first_seen"].dt.floor(width))
    counted = opened.groupby(["direction", "verdict", "bin"])["connections"].sum()
    shown = [d for d in DIRECTIONS if d in counted.index.get_level_values(0)]

    figure = make_subplots(
        rows=len(shown), cols=1, shared_xaxes=True, vertical_spacing=0.12, subplot_titles=shown
    )
    span = pd.Timedelta(width)
    seen = set(zip(opened["direction"], opened["verdict"], strict=True))
    named: set[str] = set()
    for row, direction in enumerate(shown, start=1):
        for verdict in VERDICTS:
            if (direction, verdict) not in seen:
                continue
            bars = counted.loc[(direction, verdict)]
            figure.add_trace(
                go.Bar(
                    x=(bars.index + span / 2).tolist(),
                    y=bars.tolist(),
                    width=span.total_seconds() * 1000,
                    name=MEANING[verdict],
                    legendgroup=verdict,
                    showlegend=verdict not in named,
                    marker={"color": COLOURS[verdict], "line": {"width": 0}},
                    hovertemplate="%{x|%Y-%m-%d %H:%M:%S} UTC<br>%{y:,} connections",
                ),
                row=row,
                col=1,
            )
            named.add(verdict)
    dress(figure, f"{TITLE} in each {width}", height=140 + 170 * len(shown))
    figure.update_layout(barmode="stack", showlegend=True)
    figure.update_yaxes(rangemode="tozero")
    return figure.update_xaxes(title_text="UTC", row=len(shown), col=1)


def bin_width(span: pd.Timedelta, most_bins: int) -> str:
    """The smallest usual bin that covers a span in at most so many bins.

    >>> bin_width(pd.Timedelta("80s"), 90), bin_width(pd.Timedelta("7D"), 90)
    ('1s', '6h')
    """
    for width in BINS:
        if span / pd.Timedelta(width) <= most_bins:
            return width
    return BINS[-1]
