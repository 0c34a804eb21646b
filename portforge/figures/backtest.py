"""How soon it would have been right: what policies learned by an instant would break after it."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from portforge.figures.style import COLOURS, dress, no_traffic
from portforge.schema import Verdict

TITLE = "Backtest: what policies learned until then would have broken since"
WORKLOADS = {
    "judged": ("with a policy", COLOURS[Verdict.ALLOWED], "solid"),
    "ready": ("of these, said to be ready", COLOURS[Verdict.LISTENING], "dot"),
    "broken": ("of these, broken", COLOURS[Verdict.DENIED], "solid"),
    "ready_broken": ("ready and broken", COLOURS[Verdict.REFUSED], "dot"),
}
CONNECTIONS = {
    "denied": ("denied", COLOURS[Verdict.DENIED], "solid"),
    "uncertain": ("uncertain", COLOURS[Verdict.FAILED], "dot"),
}
HOVER = "learned until %{x|%Y-%m-%d %H:%M:%S} UTC (%{customdata[0]:,} h)"


def backtest_curve(frame: pd.DataFrame) -> go.Figure:
    """Workloads and connections against the origin: the curves of what breaks should flatten.

    Parameters
    ----------
    frame: one row for each origin, as ``portforge.recommend.backtest`` gives it.

    Examples
    --------
    >>> import pandas as pd
    >>> at = pd.to_datetime(["2026-11-01", "2026-11-02"], utc=True)
    >>> frame = pd.DataFrame({"trained_until": at, "trained_hours": [24.0, 48.0],
    ...                       "judged": 5, "broken": [2, 0], "ready": [0, 4], "ready_broken": 0,
    ...                       "answered": [900, 500], "denied": [40, 0], "uncertain": 0})
    >>> [list(trace.y) for trace in backtest_curve(frame).data if trace.name == "denied"]
    [[40, 0]]
    """
    if frame.empty:
        return no_traffic(TITLE)
    shown = frame.sort_values("trained_until", kind="stable")
    figure = make_subplots(
        rows=2,
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.14,
        subplot_titles=["workloads", "answered connections not allowed"],
    )
    units = ("%{y:,} workloads", "%{y:,} of %{customdata[1]:,} connections")
    for row, lines in enumerate((WORKLOADS, CONNECTIONS), start=1):
        for column, (name, colour, dash) in lines.items():
            figure.add_trace(
                go.Scatter(
                    x=shown["trained_until"].tolist(),
                    y=shown[column].tolist(),
                    customdata=shown[["trained_hours", "answered"]].to_numpy().tolist(),
                    name=name,
                    mode="lines+markers",
                    line={"color": colour, "dash": dash},
                    hovertemplate=f"{HOVER}<br>{units[row - 1]}",
                ),
                row=row,
                col=1,
            )
    dress(figure, TITLE, height=480)
    figure.update_yaxes(rangemode="tozero")
    return figure.update_xaxes(title_text="learned until, UTC", row=2, col=1)
