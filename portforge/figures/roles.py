"""Who does what, by role: a heat map of workloads and ports, with what one member does alone."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from portforge.figures.style import COLOURS, dress, no_traffic, plain, workload_names
from portforge.schema import Verdict

STATES: dict[str, tuple[str, str]] = {
    "shared": ("as others of its role", COLOURS[Verdict.ALLOWED]),
    "alone": ("alone in its role", COLOURS[Verdict.DENIED]),
    "missing": ("not done, but by all others", COLOURS[Verdict.AUDITED]),
}
"""What each state of a cell means, and its colour; in the order of the scale."""


def role_matrix(profile: pd.DataFrame) -> go.Figure:
    """Workloads by ports served and called, the members of a role side by side.

    Parameters
    ----------
    profile: ``profile`` of :func:`portforge.recommend.roles`: ``namespace``, ``workload_kind``,
        ``workload``, ``role``, ``door``, ``state``. A role of one member has only ``shared``.

    Examples
    --------
    >>> import pandas as pd
    >>> profile = pd.DataFrame({"namespace": "shop", "workload_kind": "Deployment",
    ...     "workload": ["a", "b", "b"], "role": "serves TCP 80",
    ...     "door": ["serves TCP 80", "serves TCP 80", "calls TCP 22"],
    ...     "state": ["shared", "shared", "alone"]})
    >>> figure = role_matrix(profile)
    >>> list(figure.data[0].x), [list(row) for row in figure.data[0].z]
    (['serves TCP 80', 'calls TCP 22'], [[0, 1], [0, None]])
    """
    title = "Roles: who serves and calls which ports"
    if profile.empty:
        return no_traffic(title)
    rows = plain(profile)
    rows = rows.assign(name=workload_names(rows))
    order = rows.sort_values(["role", "name"], kind="stable")["name"].drop_duplicates()
    names = [*order][::-1]  # the first row of a heat map is at the bottom
    role = dict(zip(rows["name"], rows["role"], strict=True))
    doors = sorted(rows["door"].unique(), key=_door_order)
    states = list(STATES)
    number = rows["state"].map(states.index)
    cells = dict(zip(zip(rows["name"], rows["door"], strict=True), number, strict=True))
    meaning = [text for text, _ in STATES.values()]
    colours = [colour for _, colour in STATES.values()]
    figure = go.Figure(
        go.Heatmap(
            x=doors,
            y=names,
            z=[[cells.get((name, door)) for door in doors] for name in names],
            customdata=[
                [
                    f"{role[name]}<br>{meaning[cells[name, door]]}" if (name, door) in cells else ""
                    for door in doors
                ]
                for name in names
            ],
            hovertemplate="%{y}<br>%{x}<br>%{customdata}<extra></extra>",
            hoverongaps=False,
            xgap=3,
            ygap=3,
            zmin=-0.5,
            zmax=len(states) - 0.5,
            colorscale=[
                [edge, colour]
                for n, colour in enumerate(colours)
                for edge in (n / len(colours), (n + 1) / len(colours))
            ],
            colorbar={
                "tickvals": list(range(len(states))),
                "ticktext": meaning,
                "thickness": 14,
                "outlinewidth": 0,
            },
        )
    )
    dress(figure, title, height=150 + 30 * len(names))
    figure.update_xaxes(type="category", side="bottom", showgrid=False, automargin=True)
    return figure.update_yaxes(type="category", showgrid=False, automargin=True)


def _door_order(door: str) -> tuple[bool, str, int]:
    """Served before called, then by protocol and port: ``calls TCP 40000-41000``."""
    verb, protocol, ports = door.split(" ")
    return verb != "serves", protocol, int(ports.partition("-")[0])
