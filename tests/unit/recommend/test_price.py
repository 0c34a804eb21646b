"""One price for every generalisation: what it buys, what it costs, and what is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from flow_rows import Row, row, write_capture

from portforge.capture import open_capture
from portforge.cli import portforge
from portforge.policy import read_policies, to_yaml
from portforge.recommend import Options, PortPolicyRecommender, Recommendation, recommend
from portforge.recommend._frame import FrameCapture
from portforge.synth import cluster, random_graph

SHOP = Path(__file__).parents[3] / "datasets/shop"
EVERYTHING = 1 << 40
SPREAD = [f"203.0.113.{128 + 37 * n % 64}" for n in range(20)]
SCATTERED = [f"{11 + 13 * n}.0.2.{n + 1}" for n in range(9)]
PASSIVE = [40002 + 5 * n for n in range(20)]


def learn(folder: Path, rows: list[Row], **options: Any) -> Recommendation:
    return recommend(open_capture(write_capture(folder, rows)), options=Options(**options))


def granted(result: Recommendation, workload: str = "web") -> dict[str, tuple[list[str], int]]:
    """Peers of each rule, and how many port-peers it admits that were not seen."""
    policy = next(p for p in result.policies if p.workload.name == workload)
    count = result.evidence.set_index(["workload", "rule"])["unobserved_port_peers"]
    return {
        rule.id: ([str(p) for p in rule.peers or ()], int(count.loc[(workload, rule.id)]))
        for rule in (*(policy.ingress or ()), *(policy.egress or ()))
    }


def calls(addresses: list[str]) -> list[Row]:
    return [row("web", "egress", "TCP", 443, ip, at=n) for n, ip in enumerate(addresses)]


@pytest.mark.parametrize(
    ("price", "peers", "count"),
    [
        (0, sorted(SPREAD), 0),
        (107, sorted(SPREAD), 0),  # 19 saved are not worth a name for outside
        (108, ["203.0.113.128/26"], 44),
        (256, ["203.0.113.128/26"], 44),
        (EVERYTHING, ["203.0.113.128/26"], 44),
    ],
)
def test_addresses_become_blocks_at_a_price(
    tmp_path: Path, price: int, peers: list[str], count: int
) -> None:
    (found,) = granted(learn(tmp_path, calls(SPREAD), price=price)).values()
    assert ([peer.removesuffix("/32") for peer in found[0]], found[1]) == (peers, count)


def test_scattered_addresses_become_the_world_which_counts_as_all_of_ipv4(tmp_path: Path) -> None:
    exact = granted(learn(tmp_path / "8", calls(SCATTERED[:8])))["out-tcp-443"]
    assert (len(exact[0]), exact[1]) == (8, 0)
    world = granted(learn(tmp_path / "9", calls(SCATTERED)))["out-tcp-443"]
    assert world == (["World"], 2**32 - 9)
    dear = granted(learn(tmp_path / "dear", calls(SCATTERED[:2]), price=2048))["out-tcp-443"]
    assert dear == (["World"], 2**32 - 2)


@pytest.mark.parametrize(
    ("price", "rules", "count"), [(0, 20, 0), (4, 20, 0), (5, 1, 81), (EVERYTHING, 1, 81)]
)
def test_ports_become_a_range_at_a_price_else_they_are_listed(
    tmp_path: Path, price: int, rules: int, count: int
) -> None:
    rows = [row("ftp", "ingress", "TCP", port, "up", connections=1) for port in PASSIVE]
    result = learn(tmp_path, rows, price=price)
    found = granted(result, "ftp")
    assert (len(found), sum(n for _, n in found.values())) == (rules, count)
    report = next(w for w in result.report["workloads"] if w["workload"] == "ftp")
    assert report["status"] == "dynamic"
    if rules > 1:
        assert "listed one by one, the range 40000-40100 is not worth" in report["reasons"][0]


def clients(count: int, namespaces: int = 1) -> list[Row]:
    """Callers of web, spread over ``team-0``, ``team-1`` and so on."""
    return [
        row("web", "ingress", "TCP", 80, f"client-{n}", peer_namespace=f"team-{n % namespaces}")
        for n in range(count)
    ]


@pytest.mark.parametrize(
    ("price", "count", "wide"),
    [
        (256, 32, False),
        (256, 33, True),
        (1024, 8, False),
        (1024, 9, True),
        (8191, 2, False),
        (8192, 2, True),
        (EVERYTHING, 1, False),  # nothing is saved
        (0, 200, False),
    ],
)
def test_workloads_become_their_namespace_at_a_price(
    tmp_path: Path, price: int, count: int, wide: bool
) -> None:
    result = learn(tmp_path, clients(count), price=price)
    peers, unseen = granted(result)["in-tcp-80"]
    listed = sorted(f"team-0/Deployment/client-{n}" for n in range(count))
    assert (sorted(peers), unseen) == ((["team-0/*"] if wide else listed), 0)


def test_a_namespace_says_whom_it_admits_and_counts_who_is_known_there(tmp_path: Path) -> None:
    others = [
        row("a", "ingress", "TCP", 81, "client-1", namespace="team-0"),
        # Met as a peer only, and twice.
        row("db", "ingress", "TCP", 5432, "b", peer_namespace="team-0"),
        row("db", "egress", "TCP", 99, "b", peer_namespace="team-0", peer_kind="service"),
        row("db", "egress", "TCP", 98, "elsewhere", peer_namespace="team-1"),
        row("db", "egress", "TCP", 97, "10.96.0.9", peer_namespace="team-0", peer_kind="service"),
    ]  # fmt: skip
    result = learn(tmp_path, [*clients(40), *others])
    assert granted(result)["in-tcp-80"] == (["team-0/*"], 2)
    evidence = result.evidence.set_index(["workload", "rule"]).loc[("web", "in-tcp-80")]
    assert evidence["over_grant"] == "team-0/* for 40 of the 42 workloads known in team-0"
    assert evidence["reason"] == "40 workloads of team-0: too many to list"


def test_the_services_of_a_namespace_are_in_it_and_those_of_another_are_listed(
    tmp_path: Path,
) -> None:
    shared = {"peer_kind": "service", "peer_workload": None, "peer_workload_kind": None}
    rows = [
        *(row("web", "egress", "TCP", 80, f"backend-{n}") for n in range(33)),
        row("web", "egress", "TCP", 80, "10.96.0.5", **shared, peer_namespace="shop"),
        row("web", "egress", "TCP", 80, "10.96.0.6", **shared, peer_namespace="bank"),
    ]
    result = learn(tmp_path, rows)
    # Nobody but web itself was not called.
    assert granted(result)["out-tcp-80"] == (["shop/*", "10.96.0.6/32"], 1)
    assert "10.96.0.5" not in str(result.evidence["reason"][0])


def test_the_cluster_comes_after_namespaces_for_what_still_is_too_long(tmp_path: Path) -> None:
    """257 selectors are not listed: workloads of small namespaces, and namespaces."""
    few = granted(learn(tmp_path / "few", clients(256, 10)))["in-tcp-80"]
    assert (len(few[0]), few[1]) == (256, 0)
    many = granted(learn(tmp_path / "many", clients(257, 10)))["in-tcp-80"]
    assert many == (["Cluster"], 65536 - 257)
    big = granted(learn(tmp_path / "big", clients(330, 10)))["in-tcp-80"]
    assert big == ([f"team-{n}/*" for n in range(10)], 0)
    mixed = [
        *clients(257, 10)[1:],
        *(row("web", "ingress", "TCP", 80, f"c-{n}") for n in range(33)),
    ]
    both = granted(learn(tmp_path / "both", mixed))["in-tcp-80"]
    assert both == (["Cluster"], 65536 - 289)
    peers, unseen = granted(learn(tmp_path / "room", mixed[1:]))["in-tcp-80"]
    assert (len(peers), peers[-1], unseen) == (256, "shop/*", 1)
    dear = granted(learn(tmp_path / "dear", clients(2, 2), price=65536))["in-tcp-80"]
    assert dear == (["Cluster"], 65536 - 2)


def test_a_range_for_a_namespace_costs_what_the_namespace_holds(tmp_path: Path) -> None:
    """Each port for each workload known there: 34 with ftp itself."""
    rows = [
        row("ftp", "ingress", "TCP", port, f"up-{(n + i) % 33}", connections=1)
        for n, port in enumerate(PASSIVE)
        for i in range(33)
    ]
    open_ = granted(learn(tmp_path / "open", rows), "ftp")
    assert open_ == {"in-tcp-40000-40100": (["shop/*"], 101 * 34 - 20 * 33)}
    others = [row("db", "ingress", "TCP", 5432, f"other-{n}") for n in range(1700)]
    listed = granted(learn(tmp_path / "listed", [*rows, *others]), "ftp")
    assert list(listed) == [f"in-tcp-{port}" for port in PASSIVE]


def test_what_has_no_room_in_a_rule_is_said(tmp_path: Path) -> None:
    rows = [row("web", "ingress", "TCP", 80, f"client-{n}", connections=n + 1) for n in range(300)]
    result = learn(tmp_path, rows, price=0)
    peers, count = granted(result)["in-tcp-80"]
    assert (len(peers), count) == (256, 0)
    assert {f"shop/Deployment/client-{n}" for n in range(44, 300)} == set(peers), "the most used"
    assert "44 more peers were seen than the 256" in result.evidence["reason"][0]
    report = result.report["workloads"][0]
    assert "in-tcp-80 has no room for 44 peers that were seen" in report["reasons"]


def test_ports_without_room_for_a_list_are_left_out_and_said(tmp_path: Path) -> None:
    rows = [row("ftp", "ingress", "TCP", 40000 + n, "up", connections=1) for n in range(200)]
    result = learn(tmp_path, rows, price=0)
    assert granted(result, "ftp") == {}
    assert "a list has room for 127 of them" in result.report["workloads"][0]["reasons"][0]


def test_at_price_0_nodes_and_unknown_addresses_are_listed(tmp_path: Path) -> None:
    unknown = {"peer_kind": "unknown"}
    rows = [
        row("web", "ingress", "TCP", 80, "node-b"),
        row("web", "ingress", "TCP", 81, "10.9.9.9", **unknown),
        row("web", "egress", "UDP", 53, "dns"),
    ]
    assert granted(learn(tmp_path / "0", rows, price=0)) == {
        "in-tcp-80": (["10.77.0.2/32"], 0),
        "in-tcp-81": (["10.9.9.9/32"], 0),
        "out-udp-53": (["shop/Deployment/dns"], 0),
    }
    assert granted(learn(tmp_path / "1", rows, price=1)) == {
        "in-tcp-80": (["Node"], 1),  # node-a, where web runs
        "in-tcp-81": (["Cluster"], 65535),
        "out-tcp-53": (["shop/Deployment/dns"], 1),
        "out-udp-53": (["shop/Deployment/dns"], 0),
    }


def test_a_lost_peer_is_any_peer_and_counts_as_such(tmp_path: Path) -> None:
    result = learn(tmp_path, [row("web", "ingress", "TCP", 80, None)], price=0)
    assert result.evidence["unobserved_port_peers"].tolist() == [2**32 + 2**16]


@pytest.mark.parametrize("seed", [1, 2])
def test_at_price_0_nothing_unseen_is_granted_and_a_higher_one_lists_no_more(seed: int) -> None:
    made = cluster(random_graph(6, seed=seed), seed=seed, days=3)
    capture = FrameCapture(made.flows, made.losses)
    selectors = 1 << 62
    for price in (0, 64, 256, EVERYTHING):
        learned = PortPolicyRecommender(price=price).fit(capture)
        total = int(learned.evidence_["unobserved_port_peers"].sum())
        assert (total == 0) == (price == 0)
        count = sum(
            len(rule.peers or ())
            for policy in learned.policies_
            for rule in (*(policy.ingress or ()), *(policy.egress or ()))
            if rule.id.split("-")[1:] != ["tcp", "53"]  # added beside UDP 53
            and not 40000 <= rule.port <= 41000  # listed only where there is room
        )
        assert count <= selectors
        selectors = count


def test_the_default_learns_of_the_shop_what_it_always_did() -> None:
    result = recommend(open_capture(SHOP))
    assert "World" not in (text := "".join(map(to_yaml, result.policies)))
    assert "Cluster" not in text
    over = result.evidence.set_index("rule")["unobserved_port_peers"]
    assert over[over > 0].to_dict() == {"in-tcp-53": 4, "out-tcp-53": 1}


def test_the_command_takes_the_price_and_prints_the_over_grant(tmp_path: Path) -> None:
    write_capture(tmp_path / "capture", calls(SPREAD))
    run = CliRunner(env={"COLUMNS": "200"})
    base = ["recommend", str(tmp_path / "capture"), "-o"]
    done = run.invoke(portforge, [*base, str(tmp_path / "a")])
    assert "over-grant" in done.output
    assert " 44 " in done.output
    assert run.invoke(portforge, [*base, str(tmp_path / "b"), "--price", "0"]).exit_code == 0
    (policy,) = read_policies(tmp_path / "b" / "policies")
    assert len((policy.egress or ())[0].peers or ()) == 20
    assert run.invoke(portforge, [*base, str(tmp_path / "c"), "--price", "-1"]).exit_code == 2
