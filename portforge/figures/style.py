"""What all figures share: colours, order and layout, the empty figure, names. No data here."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from portforge.schema import Verdict

VERDICTS: tuple[str, ...] = (
    Verdict.ALLOWED,
    Verdict.AUDITED,
    Verdict.DENIED,
    Verdict.REFUSED,
    Verdict.FAILED,
    Verdict.LISTENING,
)
"""Order of legends and stacks."""

COLOURS: dict[str, str] = {
    Verdict.ALLOWED: "#009E73",
    Verdict.AUDITED: "#E69F00",
    Verdict.DENIED: "#D55E00",
    Verdict.REFUSED: "#CC79A7",
    Verdict.FAILED: "#7F7F7F",
    Verdict.LISTENING: "#56B4E9",
}
"""Told apart with every kind of colour vision (Okabe and Ito, 2008)."""

MEANING: dict[str, str] = {
    Verdict.ALLOWED: "allowed",
    Verdict.AUDITED: "audited (would be denied)",
    Verdict.DENIED: "denied",
    Verdict.REFUSED: "refused (nobody listened)",
    Verdict.FAILED: "failed (never answered)",
    Verdict.LISTENING: "listening (unused)",
}


def plain(flows: pd.DataFrame) -> pd.DataFrame:
    """A copy whose text columns are plain strings: grouping categories would invent groups."""
    text = [c for c in flows.columns if isinstance(flows[c].dtype, pd.CategoricalDtype)]
    return flows.assign(**{c: flows[c].astype(object) for c in text}).reset_index(drop=True)


def workload_names(flows: pd.DataFrame) -> pd.Series[str]:
    """``namespace/workload`` of each row; the kind is added only where the name needs it."""
    whole = flows["namespace"].fillna("") + "/" + flows["workload"].fillna("")
    kinds = flows["workload_kind"].groupby(whole).transform("nunique")
    names = whole.where(kinds <= 1, whole + " (" + flows["workload_kind"].fillna("") + ")")
    node = flows["workload_kind"] == "Node"
    names = names.where(~node, "node " + flows["workload"].fillna(""))
    return names.where(flows["workload"].notna(), "not attributed")


def no_traffic(title: str) -> go.Figure:
    """The figure of an empty frame: it says so, instead of showing empty axes."""
    figure = go.Figure()
    figure.add_annotation(
        text="no traffic", showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper", font_size=22
    )
    dress(figure, title, height=220)
    return figure.update_xaxes(visible=False).update_yaxes(visible=False)


def dress(figure: go.Figure, title: str, *, height: int) -> go.Figure:
    """Title, template and margins alike in all figures."""
    return figure.update_layout(
        template="plotly_white",
        title={"text": title, "x": 0, "xanchor": "left", "xref": "container", "pad": {"l": 12}},
        height=height,
        margin={"l": 12, "r": 12, "t": 64, "b": 12},
        font={"family": "Inter, Segoe UI, Helvetica, Arial, sans-serif", "size": 13},
        hoverlabel={"align": "left"},
    )
