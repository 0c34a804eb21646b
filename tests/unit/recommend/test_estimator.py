"""The recommender is a scikit-learn estimator, and says the same as recommend."""

from __future__ import annotations

import inspect
from dataclasses import fields
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest
from flow_rows import START, loss, row, write_capture
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_validate

from portforge.capture import Capture, open_capture
from portforge.errors import CaptureError, PolicyError
from portforge.policy import to_yaml
from portforge.recommend import (
    Options,
    PortPolicyRecommender,
    RollingOrigin,
    read_decisions,
    recommend,
)

SHOP = Path(__file__).parents[3] / "datasets/shop"
HOURS = range(0, 96, 2)
ROWS = [
    *(row("web", "ingress", "TCP", 80, "client", at=at) for at in HOURS),
    *(row("web", "egress", "TCP", 6379, "redis", at=at) for at in HOURS),
    *(row("redis", "ingress", "TCP", 6379, "web", at=at) for at in HOURS),
    row("web", "egress", "TCP", 587, "192.0.2.25", at=60, connections=40),
    row("web", "ingress", "TCP", 22, "client", at=61, verdict="refused"),
]


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Capture:
    return open_capture(write_capture(tmp_path_factory.mktemp("capture"), ROWS))


@pytest.mark.parametrize("shop", [False, True])
def test_a_frame_a_capture_and_recommend_say_the_same(capture: Capture, shop: bool) -> None:
    source = open_capture(SHOP) if shop else capture
    said = recommend(source)
    for flows in (source, source.flows().sample(frac=1, random_state=7)):
        learned = PortPolicyRecommender().fit(flows)
        assert [*map(to_yaml, learned.policies_)] == [*map(to_yaml, said.policies)]
        pd.testing.assert_frame_equal(learned.evidence_, said.evidence)
        pd.testing.assert_frame_equal(learned.findings_, said.findings)
        assert learned.report_["rows"] == said.report["rows"]
        assert learned.report_["window"] == said.report["window"]


def test_losses_come_with_a_capture_and_not_with_a_frame(tmp_path: Path) -> None:
    capture = open_capture(write_capture(tmp_path, ROWS, [loss("flows_overflowed", 7)]))
    assert PortPolicyRecommender().fit(capture).report_["losses"]["total"] == 7
    assert PortPolicyRecommender().fit(capture.flows()).report_["losses"]["total"] == 0


def test_its_parameters_are_the_options_and_it_can_be_cloned(capture: Capture) -> None:
    names = {field.name: field.default for field in fields(Options)}
    parameters = inspect.signature(PortPolicyRecommender).parameters
    assert {n: p.default for n, p in parameters.items() if n in names} == names
    assert set(parameters) - set(names) == {"namespaces", "workloads", "decisions"}
    one = PortPolicyRecommender(workloads=["web"], enough_hours=1).fit(capture)
    other = clone(one)
    assert other.get_params() == one.get_params()
    assert not hasattr(other, "policies_")
    assert [p.name for p in other.fit(capture).policies_] == ["deployment-web"]
    with pytest.raises(NotFittedError):
        clone(one).score(capture)


def test_options_reach_the_recommendation(capture: Capture) -> None:
    strict = PortPolicyRecommender(enough_hours=1000).fit(capture)
    assert set(strict.coverage_["status"]) == {"insufficient"}
    found = PortPolicyRecommender().fit(capture).coverage_
    own = found[(found["workload"] == "redis") & (found["direction"] == "ingress")]
    assert own[["ports", "hours"]].to_numpy().tolist() == [[1, len(HOURS)]]


def test_score_is_the_share_of_answered_connections_allowed(capture: Capture) -> None:
    flows = capture.flows()
    day = flows[flows["last_seen"] < START + timedelta(days=1)]
    rest = flows.drop(day.index)
    learned = PortPolicyRecommender().fit(day)
    assert learned.score(flows) == 1 - 40 / (3 * 10 * len(HOURS) + 40)
    assert learned.score(day) == 1
    assert PortPolicyRecommender().fit(rest).score(flows) == 1


def test_score_counts_what_was_open_already_and_not_what_nothing_restricts(
    capture: Capture,
) -> None:
    flows = capture.flows()
    redis = PortPolicyRecommender(workloads=["redis"]).fit(flows)
    new = flows.assign(port=6380, connections=0)
    assert redis.score(new[new["workload"] == "redis"]) == 0
    assert pd.isna(redis.score(new[new["workload"] == "web"]))


def test_cross_validate_in_time_order(capture: Capture) -> None:
    flows = capture.flows().sample(frac=1, random_state=7)
    found = cross_validate(
        PortPolicyRecommender(), flows, cv=RollingOrigin(3), error_score="raise"
    )["test_score"]
    assert found[0] < 1
    assert found[1] < found[0], "less of the rest was known"
    assert found[2] == 1
    search = GridSearchCV(
        PortPolicyRecommender(), {"price": [0, 256]}, cv=RollingOrigin(2), error_score="raise"
    )
    assert hasattr(search.fit(flows).best_estimator_, "policies_")


def test_decisions_are_learned_cloned_and_scored(capture: Capture, tmp_path: Path) -> None:
    file = tmp_path / "decisions.yaml"
    file.write_text(
        "- {workload: shop/Deployment/web, direction: egress, protocol: TCP, port: 587,\n"
        "   decision: never, by: Ana, reason: no mail, at: 2026-03-01T00:00:00Z}\n"
    )
    plain = PortPolicyRecommender().fit(capture)
    assert set(plain.evidence_["port"]) == {80, 587, 6379}
    for given in (file, str(file), read_decisions(file)):
        one = clone(PortPolicyRecommender(decisions=given))
        assert one.get_params()["decisions"] == given
        assert set(one.fit(capture).evidence_["port"]) == {80, 6379}
        assert one.report_["decisions"][0]["edges"] == 1
        # What never may be is not missed, nor counted where it is allowed.
        assert one.score(capture) == 1
        assert one.set_params(decisions=()).score(capture) < 1
    found = cross_validate(
        PortPolicyRecommender(decisions=file), capture.flows(), cv=RollingOrigin(3),
        error_score="raise",
    )["test_score"]  # fmt: skip
    assert found.tolist() == [1, 1, 1]
    with pytest.raises(PolicyError, match="no such file"):
        PortPolicyRecommender(decisions=tmp_path / "no.yaml").fit(capture)


def test_no_training_record_reaches_beyond_the_origin(capture: Capture) -> None:
    flows = capture.flows().sample(frac=1, random_state=7)
    flows.loc[flows.index[0], "last_seen"] = flows["last_seen"].max()
    splitter = RollingOrigin(4)
    parts = list(splitter.split(flows))
    assert len(parts) == splitter.get_n_splits() == 4
    for train, test in parts:
        assert sorted([*train, *test]) == list(range(len(flows)))
        assert flows.iloc[train]["last_seen"].max() < flows.iloc[test]["last_seen"].min()
    near = list(RollingOrigin(4, timedelta(hours=6)).split(flows))
    for (_, test), (_, some) in zip(parts, near, strict=True):
        assert set(some) < set(test)


def test_a_split_without_records_says_what_to_do(capture: Capture) -> None:
    flows = capture.flows()
    with pytest.raises(CaptureError, match="longer horizon"):
        list(RollingOrigin(3, timedelta(minutes=-60 * 24)).split(flows.iloc[[0, -1]]))
    with pytest.raises(CaptureError, match="no records"):
        list(RollingOrigin().split(flows.iloc[:0]))
    with pytest.raises(ValueError, match="at least one"):
        list(RollingOrigin(0).split(flows))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: f.drop(columns="peer_ip"), "lacks the columns peer_ip"),
        (lambda f: f.iloc[:0], "no rows"),
        (lambda f: f.assign(port=70000), "port is outside"),
        (lambda f: f.assign(connections="many"), "not of its type"),
    ],
)
def test_a_frame_is_checked_as_a_capture_is(capture: Capture, change, says: str) -> None:
    with pytest.raises(CaptureError, match=says):
        PortPolicyRecommender().fit(change(capture.flows()))


def test_categories_and_missing_partition_columns_are_fine(capture: Capture) -> None:
    flows = capture.flows().drop(columns=["cluster", "date"])
    flows = flows.astype({"namespace": "category", "peer_ip": "category"})
    learned = PortPolicyRecommender().fit(flows)
    assert learned.policies_ == recommend(capture).policies
    assert learned.report_["cluster"] == "unknown"
