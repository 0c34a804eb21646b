"""The coverage figure shows what was seen, what is estimated, and the checklist, as reported."""

from __future__ import annotations

import pandas as pd
import pytest

from portforge.figures import coverage_overview
from portforge.recommend import PortPolicyRecommender
from portforge.synth import SOCK_SHOP, cluster

WORKLOAD = ["namespace", "workload_kind", "workload"]


@pytest.fixture(scope="module")
def learned() -> PortPolicyRecommender:
    made = cluster(SOCK_SHOP, seed=5, days=3)
    return PortPolicyRecommender().fit(made.flows)


@pytest.fixture(scope="module")
def figure(learned):
    return coverage_overview(learned.coverage_, learned.lifecycle_)


def points(figure, name, axis):
    return sorted(x for t in figure.data if t.name == name and t.xaxis == axis for x in t.x)


def test_points_and_rings_are_the_reported_numbers(learned, figure):
    for direction in ("ingress", "egress"):
        rows = learned.coverage_[learned.coverage_["direction"] == direction]
        for what, axis in (("ports", "x"), ("peers", "x2")):
            there = rows[rows[what] > 0]
            assert points(figure, f"{direction}, seen", axis) == sorted(there[what])
            both = there[[f"chao2_{what}", f"chao2_{what}_days"]].astype("float64").max(axis=1)
            rings = points(figure, f"{direction}, estimated at least", axis)
            assert rings == sorted(both.dropna())
            assert len(rings) > 3


def test_every_workload_is_a_line_with_its_status(learned, figure):
    labels = figure.layout.yaxis.ticktext
    known = learned.coverage_.drop_duplicates(WORKLOAD)
    assert len(labels) == len(known)
    for name, status in zip(known["workload"], known["status"], strict=True):
        assert any(f"/{name} " in label and f">{status}<" in label for label in labels)


def test_the_checklist_says_what_the_report_says_and_why(learned, figure):
    heat = next(t for t in figure.data if t.type == "heatmap")
    cells = [mark for row in heat.text for mark in row if mark]
    assert len(cells) == len(learned.lifecycle_)
    counts = learned.lifecycle_["answer"].value_counts()
    for mark, answer in (("✓", "yes"), ("✗", "no"), ("?", "unknown")):
        assert cells.count(mark) == counts.get(answer, 0)
    missing = [text for row in heat.customdata for text in row if text.startswith("no: missing")]
    assert missing


def test_ready_comes_first_and_order_of_rows_does_not_matter(learned, figure):
    coverage, lifecycle = learned.coverage_, learned.lifecycle_
    one = coverage["workload"] == "carts"
    ready = coverage.assign(status=coverage["status"].where(~one, "ready"))
    assert "/carts " in coverage_overview(ready, lifecycle).layout.yaxis.ticktext[-1]
    again = coverage_overview(coverage.iloc[::-1], lifecycle.iloc[::-1])
    texts = [list(f.layout.yaxis.ticktext) for f in (figure, again)]
    assert texts[0] == texts[1]
    assert (
        next(t for t in again.data if t.type == "heatmap").z
        == next(t for t in figure.data if t.type == "heatmap").z
    )


def test_many_ports_make_the_axis_logarithmic(learned):
    coverage = learned.coverage_
    assert coverage_overview(coverage, learned.lifecycle_).layout.xaxis.type != "log"
    many = coverage.assign(ports=coverage["ports"].clip(lower=1) * 1000)
    assert coverage_overview(many, learned.lifecycle_).layout.xaxis.type == "log"


def test_an_empty_frame_says_no_traffic(learned):
    (note,) = coverage_overview(learned.coverage_.iloc[:0], learned.lifecycle_).layout.annotations
    assert note.text == "no traffic"


def test_frames_are_not_changed(learned):
    before = learned.coverage_.copy(deep=True), learned.lifecycle_.copy(deep=True)
    coverage_overview(learned.coverage_, learned.lifecycle_)
    pd.testing.assert_frame_equal(learned.coverage_, before[0])
    pd.testing.assert_frame_equal(learned.lifecycle_, before[1])
