"""Simulation: the oracle over a frame, counted."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from flow_rows import row

from portforge.errors import CaptureError
from portforge.policy import Mode, PortPolicy, simulate
from portforge.schema import FLOW_SCHEMA, Workload


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
    assert found.rules.set_index("rule")["connections"].to_dict() == {
        "in-tcp-7070": 15,
        "in-tcp-9": 0,
    }
    assert len(found.workloads) == 3


def test_the_first_of_each_denial_in_order_of_time() -> None:
    found = simulate([CART], frame(ROWS), mode_override=Mode.ENFORCE)
    assert found.denied["port"].tolist() == [22, 7070]
    assert found.denied["reason"].tolist() == ["no rule for TCP 22", "peer not in rule in-tcp-7070"]
    assert found.denied["first_seen"].is_monotonic_increasing


def test_the_policys_own_mode_unless_told_otherwise() -> None:
    assert simulate([CART], frame(ROWS)).counts["audited"] == 105
    assert not simulate([CART], frame(ROWS)).any_denied


def test_json_is_plain_and_deterministic() -> None:
    one, two = (simulate([CART], frame(rows)).to_json() for rows in (ROWS, list(ROWS)))
    assert one == two
    content = json.loads(one)
    assert content["schema"] == 1
    assert content["denied_distinct"] == 2
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
