"""Who with whom: the workload map, callers left, servers right. Same flows, same picture."""

from __future__ import annotations

import math
from collections import defaultdict

import pandas as pd
import plotly.graph_objects as go

from portforge.figures.edges import LOST, OUTSIDE, UNKNOWN, Edge, edges
from portforge.figures.style import COLOURS, MEANING, VERDICTS, dress, no_traffic
from portforge.schema import Verdict

TITLE = "Who with whom"
POINTS = 12
HEAD = POINTS * 2 // 3
"""Points of a drawn curve, and the one with the arrow: two thirds of the way."""

HALO = ", ".join(["0 0 3px white"] * 4)

Place = tuple[float, float]


def workload_map(flows: pd.DataFrame) -> go.Figure:
    """Workloads, nodes and the outside as points; connections as arrows from who opened them.

    An arrow is labelled with its port, as wide as the logarithm of its connections, and coloured
    by verdict. Loopback and unused listeners are not shown.

    Parameters
    ----------
    flows: rows of contract 1.

    Examples
    --------
    >>> import pandas as pd
    >>> flows = pd.DataFrame({"namespace": "shop", "workload_kind": "Deployment",
    ...     "workload": ["web"], "direction": "egress", "protocol": "TCP", "port": 6379,
    ...     "target_port": None, "peer_ip": "10.0.0.5", "peer_kind": "workload",
    ...     "peer_namespace": "shop", "peer_workload_kind": "StatefulSet",
    ...     "peer_workload": "redis", "verdict": "allowed", "connections": 23})
    >>> figure = workload_map(flows)
    >>> list(figure.data[-1].text)
    ['shop/redis', 'shop/web']
    """
    drawn = edges(flows)
    if not drawn:
        return no_traffic(TITLE)
    places = layout(drawn)
    figure = go.Figure()
    bends: dict[frozenset[str], int] = defaultdict(int)
    named: set[str] = set()
    ordered = sorted(drawn, key=lambda e: (VERDICTS.index(e.verdict), e))
    for number, edge in enumerate(ordered):
        pair = frozenset((edge.source, edge.target))
        figure.add_trace(
            _arrow(edge, places, bends[pair], HEAD - 2 - number % 3, edge.verdict not in named)
        )
        bends[pair] += 1
        named.add(edge.verdict)
    figure.add_trace(_points(places, drawn))
    columns = [x for x, _ in places.values()]
    rows = max(columns.count(x) for x in columns)
    dress(figure, f"{TITLE}: connections from the side that opened them", height=200 + 110 * rows)
    figure.update_xaxes(visible=False, range=[min(columns) - 0.45, max(columns) + 0.45])
    return figure.update_yaxes(visible=False, range=[-0.75, rows - 0.25])


def layout(drawn: list[Edge]) -> dict[str, Place]:
    """A place for each node: its column is its distance from whoever is called by nobody.

    Only allowed connections say who stands behind whom: a scanner does not. Within a column the
    order follows the callers' heights, then the name.
    """
    names = sorted({n for e in drawn for n in (e.source, e.target)})
    behind: dict[str, set[str]] = defaultdict(set)
    callers: dict[str, set[str]] = defaultdict(set)
    special = {n for n in names if _special(n)}
    for edge in drawn:
        if edge.verdict == Verdict.ALLOWED and edge.source != edge.target:
            behind[edge.source].add(edge.target)
            if edge.source not in special:
                callers[edge.target].add(edge.source)
    workloads = [n for n in names if n not in special]
    frontier = [n for n in workloads if not callers[n]] or workloads[:1]
    column = dict.fromkeys(frontier, 0)
    while frontier:
        after = {t for s in frontier for t in behind[s] if t not in column and t not in special}
        column.update({t: 1 + min(column[s] for s in frontier if t in behind[s]) for t in after})
        frontier = sorted(after)
    last = max(column.values(), default=0)
    for name in workloads:  # only inside a cycle that nobody outside it calls
        column.setdefault(name, max(1, last))
    for name in special:  # left of those it calls; right of all when it calls nobody
        column[name] = min((column[t] - 1 for t in behind[name] if t in column), default=last + 1)

    places: dict[str, Place] = {}
    deepest = max(sum(1 for n in names if column[n] == level) for level in set(column.values()))
    for level in sorted(set(column.values())):
        members = [n for n in names if column[n] == level]
        height = {
            n: _mean([places[c][1] for c in sorted(callers[n]) if c in places]) for n in names
        }
        members.sort(key=lambda n: (-height[n], n))
        gap = deepest / len(members)
        for i, name in enumerate(members):
            places[name] = (float(level), deepest - gap * (i + 0.5) - 0.5)
    return dict(sorted(places.items()))


def _special(name: str) -> bool:
    return name in (OUTSIDE, UNKNOWN, LOST) or name.startswith("node")


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _arrow(edge: Edge, places: dict[str, Place], bend: int, label: int, legend: bool) -> go.Scatter:
    """A quadratic Bézier curve; each further edge of the same pair bends further, by turns.

    ``label`` is the point that carries the text: neighbours differ, so that texts rarely meet.
    """
    (x0, y0), (x1, y1) = places[edge.source], places[edge.target]
    side = (bend + 2) // 2 * (-1 if bend % 2 else 1)
    away = 0.16 * side * (1 if (x0, y0) <= (x1, y1) else -1)
    if x0 == x1:  # same column: bow out to the side, past those between
        middle = (x0 + 0.35 * side + 0.12 * abs(y1 - y0), (y0 + y1) / 2)
    else:
        length = math.hypot(x1 - x0, y1 - y0)
        middle = (
            (x0 + x1) / 2 - away * (y1 - y0) / length,
            (y0 + y1) / 2 + away * (x1 - x0) / length * 1.6,
        )
    steps = [i / (POINTS - 1) for i in range(POINTS)]
    curve = [
        tuple(
            (1 - t) ** 2 * a + 2 * t * (1 - t) * m + t**2 * b
            for a, m, b in ((x0, middle[0], x1), (y0, middle[1], y1))
        )
        for t in steps
    ]
    colour = COLOURS[edge.verdict]
    return go.Scatter(
        x=[x for x, _ in curve],
        y=[y for _, y in curve],
        mode="lines+markers+text",
        line={"color": colour, "width": 1 + math.log10(1 + edge.connections)},
        marker={
            "color": colour,
            "symbol": "arrow",
            "angleref": "previous",
            "size": [13 if i == HEAD else 0 for i in range(POINTS)],
            "opacity": 1,
        },
        text=[edge.ports if i == label else "" for i in range(POINTS)],
        textposition="top center",
        textfont={"size": 11, "color": colour, "shadow": HALO},
        name=MEANING[edge.verdict],
        legendgroup=edge.verdict,
        showlegend=legend,
        hovertemplate=(
            f"{edge.source} → {edge.target}<br>{edge.ports}: {edge.connections:,} connections, "
            f"{MEANING[edge.verdict]}<extra></extra>"
        ),
    )


def _points(places: dict[str, Place], drawn: list[Edge]) -> go.Scatter:
    opened: dict[str, int] = defaultdict(int)
    received: dict[str, int] = defaultdict(int)
    for edge in drawn:
        opened[edge.source] += edge.connections
        received[edge.target] += edge.connections
    special = [_special(n) for n in places]
    return go.Scatter(
        x=[x for x, _ in places.values()],
        y=[y for _, y in places.values()],
        mode="markers+text",
        text=list(places),
        textposition="bottom center",
        textfont={"size": 13, "color": "#222", "shadow": HALO},
        marker={
            "size": 22,
            "color": ["#B8C1CC" if s else "#24506E" for s in special],
            "symbol": ["square" if s else "circle" for s in special],
            "line": {"color": "white", "width": 2},
        },
        customdata=[(opened[n], received[n]) for n in places],
        hovertemplate="%{text}<br>opened %{customdata[0]:,}<br>received %{customdata[1]:,}"
        "<extra></extra>",
        showlegend=False,
    )
