"""Simulation: the oracle over a frame, counted."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from flow_rows import row, write_capture

from portforge.capture import open_capture
from portforge.errors import CaptureError
from portforge.policy import Mode, PeerSelector, PortPolicy, judge, simulate
from portforge.recommend import recommend
from portforge.schema import FLOW_SCHEMA, Peer, Workload

SHOP = Path(__file__).parents[3] / "datasets/shop"


def policy(name: str, **fields: Any) -> PortPolicy:
    base = {
        "namespace": "shop",
        "name": f"deployment-{name}",
        "workload": Workload("shop", "Deployment", name),
        "mode": Mode.AUDIT,
    }
    return PortPolicy.model_validate(base | fields)


FRONT = {"workload": {"namespace": "shop", "kind": "Deployment", "name": "front"}}
CART = policy(
    "cart",
    ingress=[
        {"id": "in-tcp-7070", "protocol": "TCP", "port": 7070, "peers": [FRONT]},
        {"id": "in-tcp-9", "protocol": "TCP", "port": 9},
    ],
)
ROWS = [
    row("cart", "ingress", "TCP", 7070, "front"),
    row("cart", "ingress", "TCP", 7070, "front", at=1, connections=5),
    row("cart", "ingress", "TCP", 7070, "web", at=2, connections=3),
    row("cart", "ingress", "TCP", 22, "192.0.2.9", at=1, verdict="refused", connections=101),
    row("cart", "ingress", "TCP", 22, "192.0.2.9", at=3, verdict="refused", connections=1),
    row("cart", "ingress", "TCP", 7070, None, connections=7),
    row("cart", "ingress", "TCP", 8080, None, verdict="listening", connections=0),
    row("cart", "ingress", "TCP", 8080, "node-a"),
    row("cart", "egress", "UDP", 53, "dns"),
    row("front", "egress", "TCP", 7070, "cart"),
    row(None, "egress", "TCP", 7070, "cart"),
]


def frame(rows: list[dict[str, Any]], *, categories: bool = True) -> pd.DataFrame:
    table = pa.Table.from_pylist(rows, schema=FLOW_SCHEMA)
    return table.to_pandas() if categories else pd.DataFrame(rows)


@pytest.mark.parametrize("categories", [True, False])
def test_counts(categories: bool) -> None:
    found = simulate([CART], frame(ROWS, categories=categories), mode_override=Mode.ENFORCE)
    assert found.counts == {"allowed": 55, "denied": 105, "audited": 0, "uncertain": 7}
    assert found.flows == {"allowed": 6, "denied": 3, "audited": 0, "uncertain": 1}
    assert found.any_denied
    assert found.frame["decision"].isna().tolist().count(True) == 1
    cart = found.workloads.set_index("workload").loc["cart"]
    assert (cart["denied"], cart["denied_answered"], cart["policy"]) == (105, 3, "deployment-cart")
    rules = found.rules.set_index("rule")
    assert rules["allowed"].to_dict() == {"in-tcp-7070": 15, "in-tcp-9": 0}
    assert rules["used"].to_dict() == {"in-tcp-7070": True, "in-tcp-9": False}
    assert len(found.workloads) == 3


def test_the_first_of_each_denial_in_order_of_time() -> None:
    found = simulate([CART], frame(ROWS), mode_override=Mode.ENFORCE)
    assert found.denied["port"].tolist() == [22, 7070]
    assert found.denied["reason"].tolist() == ["no rule for TCP 22", "peer not in rule in-tcp-7070"]
    assert found.denied["first_seen"].is_monotonic_increasing


def test_denied_and_uncertain_count_at_the_rule_whose_port_matched() -> None:
    found = simulate([CART], frame(ROWS), mode_override=Mode.ENFORCE)
    rule = found.rules.set_index("rule").loc["in-tcp-7070"]
    assert (rule["denied"], rule["denied_answered"]) == (3, 3)
    assert (rule["uncertain"], rule["uncertain_answered"]) == (7, 7)
    assert found.causes["rule"].fillna("none").tolist() == ["in-tcp-7070", "none", "in-tcp-7070"]


def test_each_cause_with_its_first_example_what_had_worked_first() -> None:
    rows = [
        row("cart", "ingress", "TCP", 7070, "web", at=1, verdict="failed", connections=50),
        row("cart", "ingress", "TCP", 7070, "web", at=2, connections=2),
        *ROWS[3:5],
        row("front", "egress", "TCP", 1, "192.0.2.1", connections=0),
    ]
    found = simulate([CART, policy("front", egress=[])], frame(rows), mode_override=Mode.ENFORCE)
    shown = ["workload", "reason", "records", "connections", "connections_answered", "verdict"]
    assert found.causes[shown].to_numpy().tolist() == [
        ["cart", "peer not in rule in-tcp-7070", 2, 52, 2, "allowed"],
        ["front", "no rule for TCP 1", 1, 0, 0, "allowed"],
        ["cart", "no rule for TCP 22", 2, 102, 0, "refused"],
    ]
    assert found.causes["first_seen"].iloc[0] == rows[1]["first_seen"], "the first that had worked"
    assert found.examples(1)["workload"].tolist() == ["cart", "front"]
    workloads = found.workloads.set_index("workload")
    assert workloads["broken"].all(), "of front a connection that was open already"
    assert workloads.loc["front", "denied"] == 0
    assert "no rule for TCP 1<" in found._repr_html_()


def test_a_connection_open_before_the_record_uses_its_rule() -> None:
    found = simulate([CART], frame([row("cart", "ingress", "TCP", 9, "web", connections=0)]))
    assert found.rules.set_index("rule").loc["in-tcp-9", "used"]


def test_edges_give_what_records_give(tmp_path: Path) -> None:
    rows = [*ROWS, row("cart", "ingress", "TCP", 9999, "node-b", at=5)]
    capture = open_capture(write_capture(tmp_path / "capture", rows))
    policies = [CART, policy("front", egress=[])]
    options = {"mode_override": Mode.ENFORCE}
    slow, quick = (
        simulate(policies, flows, **options) for flows in (capture.flows(), capture.aggregated())
    )
    assert slow.to_json(100) == quick.to_json(100)
    assert slow.flows == quick.flows
    assert slow.counts["denied"] == 125


@pytest.mark.parametrize("window", [(None, None), ("30s", None), (None, "20s")], ids=str)
def test_counts_are_those_of_one_flow_after_the_other(window: tuple[str | None, ...]) -> None:
    capture = open_capture(SHOP)
    whole = recommend(capture).policies
    # Less than the recommendation: every second rule goes, the others name somebody else.
    stranger = (PeerSelector(cidr="192.0.2.0/24"),)
    policies = [
        policy.model_copy(
            update={
                side: tuple(
                    rule.model_copy(update={"peers": stranger if number % 4 else rule.peers})
                    for number, rule in enumerate(policy.rules(side) or ())
                    if number % 2 == 0
                )
                for side in ("ingress", "egress")
            }
        )
        for policy in whole
    ]
    found = simulate(policies, capture.aggregated(*window), mode_override=Mode.ENFORCE)
    by_workload: Counter[tuple[str, ...]] = Counter()
    by_rule: Counter[tuple[str, ...]] = Counter()
    known = {p.workload: p.model_copy(update={"mode": Mode.ENFORCE}) for p in policies}
    for one in capture.flows(*window).astype(object).to_dict("records"):
        if one["verdict"] == "listening" or not isinstance(one["workload"], str):
            continue
        owner = Workload(one["namespace"], one["workload_kind"], one["workload"])
        names = ("peer_ip", "peer_kind", "peer_namespace", "peer_workload_kind", "peer_workload")
        peer = Peer(*(one[n] if isinstance(one[n], str) else None for n in names))
        given = (one["direction"], one["protocol"], one["port"], peer, one["node"])
        said = judge(known.get(owner), *given)
        by_workload[*owner, said.verdict] += one["connections"]
        by_rule[owner.slug, said.rule or said.nearest or "", said.verdict] += one["connections"]
    for decision in ("allowed", "denied", "uncertain"):
        for table, counted, key in (
            (found.workloads, by_workload, ["namespace", "workload_kind", "workload"]),
            (found.rules, by_rule, ["policy", "rule"]),
        ):
            told = table.dropna(subset=key).set_index(key)[decision]
            assert {k: n for k, n in told.items() if n} == {
                k[:-1]: n for k, n in counted.items() if k[-1] == decision and n and k[-2]
            }
    assert found.counts["denied"] > 0
    assert window[0] or found.rules["denied"].any()


def test_the_policys_own_mode_unless_told_otherwise() -> None:
    assert simulate([CART], frame(ROWS)).counts["audited"] == 105
    assert not simulate([CART], frame(ROWS)).any_denied


def test_json_is_plain_and_deterministic() -> None:
    one, two = (simulate([CART], frame(rows)).to_json() for rows in (ROWS, list(ROWS)))
    assert one == two
    content = json.loads(one)
    assert content["schema"] == 1
    assert content["denied_distinct"] == 2
    assert content["causes_total"] == 3
    assert content["denied"][0]["first_seen"] == "2026-03-02T09:00:00.000000Z"


def test_nothing_recorded() -> None:
    found = simulate([CART], frame(ROWS).iloc[:0])
    assert sum(found.counts.values()) == 0
    assert found.workloads["workload"].tolist() == ["cart"]
    assert not found.any_denied
    assert "cart" in found._repr_html_()


def test_expired_policies_restrict_nothing() -> None:
    ended = CART.model_copy(update={"expires_at": datetime(2026, 1, 1, tzinfo=UTC)})
    now = datetime(2026, 6, 1, tzinfo=UTC)
    assert simulate([ended], frame(ROWS), now=now).counts["audited"] == 0


def test_any_index_will_do() -> None:
    shuffled = frame(ROWS).set_index(pd.Index([1] * len(ROWS)))
    assert simulate([CART], shuffled).counts == simulate([CART], frame(ROWS)).counts


def test_a_frame_that_is_no_capture() -> None:
    with pytest.raises(CaptureError, match="flows lack the columns namespace, "):
        simulate([CART], pd.DataFrame({"port": [1]}))
