"""Figures show what the flows say: every verdict, each connection once, the same each time."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import pytest
from shop_flows import SCANNED, shop_capture

from portforge import figures
from portforge.capture import open_capture
from portforge.figures.edges import LOST, OUTSIDE, edges
from portforge.figures.style import COLOURS, MEANING
from portforge.schema import Verdict

FACTORIES = [figures.activity_timeline, figures.workload_map, figures.port_matrix]


@pytest.fixture(scope="module")
def flows(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    folder: Path = tmp_path_factory.mktemp("capture")
    return open_capture(shop_capture(folder)).flows()


@pytest.mark.parametrize("factory", FACTORIES)
def test_an_empty_frame_says_no_traffic(factory, flows):
    figure = factory(flows.iloc[:0])
    assert isinstance(figure, go.Figure)
    assert [a.text for a in figure.layout.annotations] == ["no traffic"]


@pytest.mark.parametrize("factory", FACTORIES)
def test_the_same_flows_in_any_order_give_the_same_figure(factory, flows):
    shuffled = flows.sample(frac=1, random_state=7)
    assert factory(flows).to_json() == factory(shuffled).to_json()


@pytest.mark.parametrize("factory", FACTORIES)
def test_the_frame_is_not_changed(factory, flows):
    before = flows.copy(deep=True)
    factory(flows)
    pd.testing.assert_frame_equal(flows, before)


def test_every_verdict_has_a_colour_and_a_meaning():
    assert set(COLOURS) == set(MEANING) == set(Verdict)


def test_the_timeline_counts_every_connection_once_per_side(flows):
    figure = figures.activity_timeline(flows)
    assert sum(sum(trace.y) for trace in figure.data) == flows["connections"].sum()
    assert [a.text for a in figure.layout.annotations] == ["ingress", "egress"]
    assert figure.layout.title.text.endswith("each 1s")


def test_the_map_counts_a_call_seen_at_both_ends_once(flows):
    found = {(e.source, e.target, e.ports): e for e in edges(flows)}
    assert found["shop/client", "shop/web", "TCP 80"].connections == 12 * 23
    assert found["shop/app", "shop/redis", "TCP 6379"].connections == 12 * 11  # through a Service


def test_the_map_shows_the_scan_as_one_arrow_and_what_is_not_a_workload(flows):
    found = edges(flows)
    scan = [e for e in found if e.source == "shop/scanner"]
    assert [(e.ports, e.verdict, e.connections) for e in scan] == [
        (f"TCP ×{len(SCANNED)}", "refused", len(SCANNED))
    ]
    ends = {n for e in found for n in (e.source, e.target)}
    assert {OUTSIDE, LOST, "node node-a"} <= ends


def test_the_map_places_callers_left_of_servers(flows):
    points = figures.workload_map(flows).data[-1]
    x = dict(zip(points.text, points.x, strict=True))
    assert x["shop/client"] < x["shop/web"] < x["shop/app"] < x["shop/redis"]
    assert len(set(zip(points.x, points.y, strict=True))) == len(points.text)


def test_the_matrix_folds_the_scan_but_no_port_in_use(flows):
    heat = figures.port_matrix(flows, most_tried=4).data[0]
    used = {"TCP 22", "TCP 80", "TCP 8000", "TCP 6379", "TCP 5432", "UDP 53", "TCP 9229"}
    assert set(heat.x[: len(used)]) == used
    assert len(heat.x) == len(used) + 4
    assert heat.x[-1].startswith("other TCP (")
    unused = heat.text[list(heat.y).index("shop/app")][list(heat.x).index("TCP 9229")]
    assert unused == "–"


def test_the_matrix_of_egress_shows_what_workloads_call(flows):
    heat = figures.port_matrix(flows, direction="egress").data[0]
    assert "TCP 443" in heat.x
    assert "shop/job" in heat.y
