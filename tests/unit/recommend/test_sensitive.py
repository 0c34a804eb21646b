"""What the analyst marked as sensitive: no generalisation crosses it, and the rule says so."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flow_rows import Row, row, write_capture

from portforge.capture import open_capture
from portforge.errors import PolicyError
from portforge.recommend import (
    Decision,
    Options,
    Recommendation,
    drift,
    read_decisions,
    recommend,
)

SPREAD = [f"203.0.113.{128 + 37 * n % 64}" for n in range(20)]
PASSIVE = [40002 + 5 * n for n in range(20)]


def mark(**about: Any) -> Decision:
    said = {"by": "Ana", "reason": "card data", "at": datetime(2026, 3, 3, tzinfo=UTC)}
    return Decision(decision="sensitive", **about, **said)  # type: ignore[arg-type]


def learn(folder: Path, rows: list[Row], *marks: Decision, **options: Any) -> Recommendation:
    capture = open_capture(write_capture(folder, rows))
    return recommend(capture, decisions=marks, options=Options(**options))


def rules(result: Recommendation, workload: str = "web") -> dict[str, list[str] | None]:
    policy = next(p for p in result.policies if p.workload.name == workload)
    every = (*(policy.ingress or ()), *(policy.egress or ()))
    return {r.id: None if r.peers is None else [str(p) for p in r.peers] for r in every}


def reason(result: Recommendation, rule: str) -> str:
    return str(result.evidence.set_index("rule").loc[rule, "reason"])


def calls(addresses: list[str]) -> list[Row]:
    return [row("web", "egress", "TCP", 443, ip, at=n) for n, ip in enumerate(addresses)]


WEB = "shop/Deployment/web"


@pytest.mark.parametrize(
    "about",
    [
        {"workload": WEB},
        {"namespace": "shop"},
        {"port": 443},
        {"port": 443, "protocol": "TCP"},
        {"peer": "World"},
        {"peer": "203.0.113.130"},
        {"workload": WEB, "port": 443, "peer": "203.0.112.0/20"},
    ],
)
def test_outside_addresses_stay_a_list(tmp_path: Path, about: dict[str, Any]) -> None:
    result = learn(tmp_path, calls(SPREAD), mark(**about))
    assert rules(result)["out-tcp-443"] == sorted(f"{ip}/32" for ip in SPREAD)
    assert reason(result, "out-tcp-443") == (
        "not opened to 203.0.113.128/26: sensitive: Ana, 2026-03-03: card data"
    )
    assert result.report["decisions"][0]["decision"] == "sensitive"


@pytest.mark.parametrize(
    "about",
    [
        {"workload": "shop/Deployment/db"},
        {"namespace": "bank"},
        {"port": 5432},
        {"port": 443, "protocol": "UDP"},
        {"peer": "198.51.100.0/24"},
        {"peer": "shop/Deployment/db"},
        {"workload": "shop/Deployment/db", "peer": "World"},
    ],
)
def test_a_mark_elsewhere_changes_nothing(tmp_path: Path, about: dict[str, Any]) -> None:
    assert rules(learn(tmp_path, calls(SPREAD), mark(**about)))["out-tcp-443"] == [
        "203.0.113.128/26"
    ]


def test_neither_nodes_nor_the_cluster_nor_the_world_are_opened(tmp_path: Path) -> None:
    rows = [
        row("web", "ingress", "TCP", 80, "node-b"),
        row("web", "ingress", "TCP", 81, "10.9.9.9", peer_kind="unknown"),
        *(row("web", "ingress", "TCP", 82, f"{11 + 13 * n}.0.2.1", at=n) for n in range(9)),
        row("web", "ingress", "UDP", 53, "client"),
        row("web", "ingress", "TCP", 53, None, verdict="listening", connections=0,
            bytes_sent=0, bytes_received=0),
    ]  # fmt: skip
    open_ = rules(learn(tmp_path / "open", rows))
    assert open_ == {
        "in-tcp-53": ["shop/Deployment/client"],
        "in-tcp-80": ["Node"],
        "in-tcp-81": ["Cluster"],
        "in-tcp-82": ["World"],
        "in-udp-53": ["shop/Deployment/client"],
    }
    shut = learn(tmp_path / "shut", rows, mark(workload=WEB))
    assert shut.evidence["unobserved_port_peers"].tolist() == [0] * 4
    assert rules(shut) == {
        "in-tcp-80": ["10.77.0.2/32"],
        "in-tcp-81": ["10.9.9.9/32"],
        "in-tcp-82": [f"{11 + 13 * n}.0.2.1/32" for n in range(9)],
        "in-udp-53": ["shop/Deployment/client"],
    }


def test_a_workload_is_not_let_in_elsewhere_as_part_of_the_cluster(tmp_path: Path) -> None:
    rows = [row("web", "ingress", "TCP", 81, "10.9.9.9", peer_kind="unknown")]
    assert rules(learn(tmp_path / "1", rows, mark(workload="shop/Deployment/db"))) == {
        "in-tcp-81": ["10.9.9.9/32"]
    }
    rows = [row("web", "egress", "UDP", 53, "dns")]
    assert list(rules(learn(tmp_path / "2", rows, mark(peer="shop/Deployment/dns")))) == [
        "out-udp-53"
    ]


CLIENTS = [
    row("web", "ingress", "TCP", 80, f"client-{n}", peer_namespace="team-b") for n in range(40)
]


@pytest.mark.parametrize(
    "about",
    [
        {"workload": WEB},
        {"namespace": "shop"},
        {"port": 80},
        {"workload": "team-b/Deployment/vault"},
        {"namespace": "team-b"},
        {"peer": "team-b/Deployment/vault"},
        {"peer": "team-b/*"},
        {"peer": "Cluster"},
        {"peer": "10.77.0.0/16"},
        {"workload": WEB, "peer": "team-b/*", "port": 80},
    ],
)
def test_a_namespace_is_not_opened_where_that_crosses_a_mark(
    tmp_path: Path, about: dict[str, Any]
) -> None:
    result = learn(tmp_path, CLIENTS, mark(**about))
    assert rules(result)["in-tcp-80"] == sorted(f"team-b/Deployment/client-{n}" for n in range(40))
    assert reason(result, "in-tcp-80") == (
        "not opened to team-b/*: sensitive: Ana, 2026-03-03: card data"
    )
    assert result.evidence["unobserved_port_peers"].tolist() == [0]


@pytest.mark.parametrize(
    "about",
    [
        {"workload": "team-c/Deployment/vault"},
        {"namespace": "team-c"},
        {"port": 443},
        {"peer": "team-c/*"},
        {"peer": "World"},
        {"peer": "Node"},
        {"workload": "shop/Deployment/db", "peer": "team-b/*"},
    ],
)
def test_a_namespace_is_opened_where_the_mark_is_elsewhere(
    tmp_path: Path, about: dict[str, Any]
) -> None:
    assert rules(learn(tmp_path, CLIENTS, mark(**about)))["in-tcp-80"] == ["team-b/*"]


def test_a_marked_namespace_is_let_in_nowhere_as_part_of_the_cluster(tmp_path: Path) -> None:
    rows = [row("web", "ingress", "TCP", 81, "10.9.9.9", peer_kind="unknown")]
    assert rules(learn(tmp_path / "1", rows, mark(peer="bank/*"))) == {"in-tcp-81": ["10.9.9.9/32"]}
    outside = rules(learn(tmp_path / "2", calls(SPREAD), mark(peer="bank/*")))
    assert outside["out-tcp-443"] == ["203.0.113.128/26"]


def test_a_range_does_not_hold_a_marked_port_and_its_ports_are_listed(tmp_path: Path) -> None:
    rows = [row("web", "ingress", "TCP", port, "up", connections=1) for port in PASSIVE]
    assert list(rules(learn(tmp_path / "1", rows))) == ["in-tcp-40000-40100"]
    within = learn(tmp_path / "2", rows, mark(port=40050))
    assert list(rules(within)) == [f"in-tcp-{port}" for port in PASSIVE]
    assert "one by one: a port within is marked sensitive" in reason(within, "in-tcp-40002")
    beside = learn(tmp_path / "3", rows, mark(port=40099))
    assert list(rules(beside)) == ["in-tcp-40000-40098"]
    peer = learn(tmp_path / "4", rows, mark(peer="shop/Deployment/up"))
    assert list(rules(peer)) == [f"in-tcp-{port}" for port in PASSIVE]
    assert "a range would cross what is sensitive: Ana" in reason(peer, "in-tcp-40002")


def test_a_lost_peer_opens_no_marked_port_to_anybody(tmp_path: Path) -> None:
    rows = [row("web", "ingress", "TCP", 80, None), row("web", "ingress", "TCP", 81, None)]
    result = learn(tmp_path, rows, mark(port=80))
    assert rules(result) == {"in-tcp-81": None}
    found = result.findings[result.findings["kind"] == "lost_peer"].set_index("port")["reason"]
    assert found[80] == (
        "the peer was lost, and any peer is not let in: sensitive: Ana, 2026-03-03: card data"
    )


def test_a_list_too_long_for_a_rule_says_so(tmp_path: Path) -> None:
    rows = [row("web", "ingress", "TCP", 80, f"client-{n}") for n in range(260)]
    result = learn(tmp_path, rows, mark(port=80))
    assert len(rules(result)["in-tcp-80"] or ()) == 256
    assert "not opened to Cluster: sensitive" in reason(result, "in-tcp-80")
    assert "4 more peers were seen than the 256" in reason(result, "in-tcp-80")


def test_drift_proposes_nothing_that_crosses_a_mark(tmp_path: Path) -> None:
    capture = open_capture(write_capture(tmp_path, calls(SPREAD)))
    (policy,) = recommend(capture).policies
    shut = policy.model_copy(update={"egress": ()})
    (whole,) = drift([shut], capture).missing["peers"]
    (listed,) = drift([shut], capture, decisions=[mark(port=443)]).missing["peers"]
    assert whole == "203.0.113.128/26"
    assert listed.split(", ") == sorted(f"{ip}/32" for ip in SPREAD)


ENTRY = "- {decision: sensitive, by: Ana, reason: cards, at: 2026-03-03T10:00:00Z, %s}\n"


def test_marks_stand_in_the_decisions_file_beside_the_others(tmp_path: Path) -> None:
    file = tmp_path / "decisions.yaml"
    file.write_text(
        ENTRY % "namespace: shop"
        + ENTRY % "port: 5432"
        + ENTRY % f"workload: {WEB}, peer: 10.0.0.0/8"
        + "- {decision: never, by: Ana, reason: old, at: 2026-03-03T10:00:00Z,\n"
        f"   workload: {WEB}, direction: ingress, protocol: TCP, port: 5432}}\n"
    )
    found = read_decisions(file)
    assert [str(one.decision) for one in found] == ["never", *["sensitive"] * 3]
    rows = [row("web", "ingress", "TCP", port, "client") for port in (80, 5432)]
    report = learn(tmp_path / "capture", rows, *found).report["decisions"]
    assert [(one["decision"], one["edges"]) for one in report] == [
        ("never", 1), ("sensitive", 1), ("sensitive", 2), ("sensitive", 2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (ENTRY % "protocol: TCP", "marks nothing; name a workload, a namespace, a port or a peer"),
        (ENTRY % "port: 1, direction: egress", "a mark has no direction; leave it out"),
        (ENTRY % f"namespace: shop, workload: {WEB}", "leave the namespace out"),
        (ENTRY % "port: 5" + ENTRY % "port: 5", ":2: [1]: repeats the decision of Ana"),
        (ENTRY.replace("sensitive", "never") % "port: 5", "lacks workload, direction, protocol"),
        (ENTRY % "namespace: Shop!", "[0].namespace: 'Shop!' is not a name that can be used"),
    ],
)  # fmt: skip
def test_a_wrong_mark_is_refused_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "d.yaml").write_text(text)
    with pytest.raises(PolicyError) as wrong:
        read_decisions(tmp_path / "d.yaml")
    assert says in str(wrong.value)
