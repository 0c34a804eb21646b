"""The bars are the simulation's counts, what would break on top, and small parts stay visible."""

from __future__ import annotations

import pandas as pd
import pytest

from portforge.figures import what_if_bars
from portforge.figures.what_if import LEAST

COUNTS = {
    "web": (100_000, 3, 0, 0, 100_000, 3, 0, True),
    "cart": (50, 200, 0, 5, 50, 0, 5, False),
    "held": (10, 0, 0, 0, 10, 0, 0, True),
    "idle": (0, 0, 0, 0, 0, 0, 0, False),
    "api": (7, 0, 0, 0, 7, 0, 0, False),
}
COLUMNS = [
    *("allowed", "denied", "audited", "uncertain"),
    *("allowed_answered", "denied_answered", "uncertain_answered", "broken"),
]


@pytest.fixture
def workloads() -> pd.DataFrame:
    frame = pd.DataFrame.from_dict(COUNTS, orient="index", columns=COLUMNS)
    frame = frame.rename_axis("workload").reset_index()
    return frame.assign(namespace="shop", workload_kind="Deployment")


def bars(figure, name):
    """Counts of one legend entry, by panel and workload."""
    found = [t for t in figure.data if t.type == "bar" and t.name == name]
    return [dict(zip(t.y, t.customdata, strict=True)) for t in found]


def test_counts_of_both_panels(workloads):
    figure = what_if_bars(workloads)
    worked, tried = bars(figure, "denied")
    assert (worked["shop/web"], worked["shop/cart"]) == (3, 0)
    assert (tried["shop/web"], tried["shop/cart"]) == (0, 200)
    worked, tried = bars(figure, "uncertain, the peer was not recorded")
    assert (worked["shop/cart"], tried["shop/cart"]) == (5, 0)
    assert bars(figure, "allowed")[0]["shop/web"] == 100_000


def test_what_would_break_is_on_top(workloads):
    order = list(what_if_bars(workloads).data[0].y)
    assert order[::-1] == ["shop/web", "shop/held", "shop/cart", "shop/api", "shop/idle"]


def test_a_small_part_is_seen_and_a_bar_is_never_longer_than_one(workloads):
    figure = what_if_bars(workloads)
    panels = [[t for t in figure.data if t.type == "bar" and t.xaxis == x] for x in ("x", "x2")]
    for traces in panels:
        sums = [sum(widths) for widths in zip(*(t.x for t in traces), strict=True)]
        assert all(total == pytest.approx(1) or total == 0 for total in sums)
    denied = next(t for t in panels[0] if t.name == "denied")
    width = dict(zip(denied.y, denied.x, strict=True))
    assert LEAST * 0.9 < width["shop/web"] < 0.05
    assert width["shop/held"] > 0, "a connection that was open already"
    told = next(t for t in figure.data if t.type == "scatter")
    text = dict(zip(told.y, told.text, strict=True))
    assert text["shop/web"] == "<b>3 denied</b> of 100,003"
    assert text["shop/held"] == "<b>denied, open already</b> of 10"
    assert text["shop/idle"] == "none"


def test_audited_is_called_so(workloads):
    audit = workloads.assign(audited=workloads["denied"], denied=0)
    assert bars(what_if_bars(audit), "audited")[0]["shop/web"] == 3


def test_uncertain_is_in_the_legend_only_where_there_is_some(workloads):
    none = workloads.assign(uncertain=0, uncertain_answered=0)
    names = {t.name for t in what_if_bars(none).data if t.type == "bar"}
    assert names == {"allowed", "denied"}


def test_every_row_has_the_same_room(workloads):
    many = pd.concat([workloads.assign(namespace=f"n{i}") for i in range(12)])
    few, lots = what_if_bars(workloads), what_if_bars(many)
    assert lots.layout.height - few.layout.height == 24 * 55
    assert len(set(lots.data[0].y)) == 60


def test_order_does_not_matter_and_the_frame_is_not_changed(workloads):
    before = workloads.copy(deep=True)
    assert what_if_bars(workloads).to_json() == what_if_bars(workloads.iloc[::-1]).to_json()
    pd.testing.assert_frame_equal(workloads, before)


def test_an_empty_frame_says_no_traffic(workloads):
    (note,) = what_if_bars(workloads.iloc[:0]).layout.annotations
    assert note.text == "no traffic"
