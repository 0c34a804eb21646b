"""What is learned and what is not: given these connections, these rules and these findings."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from flow_rows import Row, loss, row, write_capture

from portforge.capture import open_capture
from portforge.errors import CaptureError
from portforge.policy import Established, Mode, PortPolicy, Rule
from portforge.recommend import Recommendation, recommend


def learn(folder: Path, *rows: Row, losses: tuple[Row, ...] = ()) -> Recommendation:
    return recommend(open_capture(write_capture(folder, rows, losses)))


def policy(result: Recommendation, workload: str) -> PortPolicy:
    return next(p for p in result.policies if p.workload.name == workload)


def rules(result: Recommendation, workload: str) -> dict[str, list[str] | None]:
    found = policy(result, workload)
    every: tuple[Rule, ...] = (*(found.ingress or ()), *(found.egress or ()))
    return {r.id: None if r.peers is None else [str(p) for p in r.peers] for r in every}


def findings(result: Recommendation, kind: str) -> pd.DataFrame:
    return result.findings[result.findings["kind"] == kind]


def reason(result: Recommendation, rule: str) -> str:
    evidence = result.evidence.set_index("rule")
    return str(evidence.loc[rule, "reason"])


def test_one_rule_for_each_direction_and_port_with_all_its_peers(tmp_path: Path) -> None:
    result = learn(
        tmp_path,
        row("web", "ingress", "TCP", 80, "zulu"),
        row("web", "ingress", "TCP", 80, "alpha"),
        row("web", "egress", "TCP", 6379, "redis"),
    )
    assert rules(result, "web") == {
        "in-tcp-80": ["shop/Deployment/alpha", "shop/Deployment/zulu"],
        "out-tcp-6379": ["shop/Deployment/redis"],
    }
    web = policy(result, "web")
    assert (web.mode, web.established, web.name) == (
        Mode.AUDIT,
        Established.REJUDGE,
        "deployment-web",
    )


def test_a_direction_without_traffic_is_closed_not_unrestricted(tmp_path: Path) -> None:
    web = policy(learn(tmp_path, row("web", "ingress", "TCP", 80, "a")), "web")
    assert web.egress == ()


@pytest.mark.parametrize("verdict", ["refused", "failed", "denied"])
def test_what_did_not_come_about_is_a_finding(tmp_path: Path, verdict: str) -> None:
    result = learn(tmp_path, row("web", "egress", "TCP", 22, "db", verdict=verdict))
    assert rules(result, "web") == {}
    assert findings(result, verdict)["port"].tolist() == [22]


def test_audited_connections_are_learned(tmp_path: Path) -> None:
    result = learn(tmp_path, row("web", "egress", "TCP", 22, "db", verdict="audited"))
    assert list(rules(result, "web")) == ["out-tcp-22"]
    assert "would have denied" in reason(result, "out-tcp-22")


def test_connections_older_than_the_recorder_are_learned(tmp_path: Path) -> None:
    result = learn(tmp_path, row("web", "egress", "TCP", 5432, "db", connections=0))
    assert list(rules(result, "web")) == ["out-tcp-5432"]
    assert "before the recorder" in reason(result, "out-tcp-5432")


def test_a_listener_nobody_uses_is_a_finding(tmp_path: Path) -> None:
    quiet = {"verdict": "listening", "connections": 0, "bytes_sent": 0, "bytes_received": 0}
    result = learn(
        tmp_path,
        row("web", "ingress", "TCP", 80, "client"),
        row("web", "ingress", "TCP", 80, None, **quiet),
        row("web", "ingress", "TCP", 9999, None, **quiet),
        row("web", "ingress", "TCP", 8081, None, **quiet),
        row("web", "ingress", "TCP", 8081, "node-a"),
        row("web", "ingress", "UDP", 50000, None, **quiet),
    )
    assert list(rules(result, "web")) == ["in-tcp-80"]
    unused = findings(result, "unused_listener").set_index("port")["reason"]
    assert "nothing used" in unused[9999]
    assert "own node" in unused[8081]
    assert len(unused) == 2
    assert len(findings(result, "ephemeral_socket")) == 1


def scan(source: str, target: str, ports: range, **other: object) -> list[Row]:
    tiny = {"connections": 1, "bytes_sent": 0, "bytes_received": 0, "verdict": "refused", **other}
    return [row(target, "ingress", "TCP", port, source, **tiny) for port in ports]


def test_a_scanner_is_kept_out_even_where_it_found_an_open_port(tmp_path: Path) -> None:
    result = learn(
        tmp_path,
        *scan("mallory", "redis", range(1, 30)),
        row("redis", "ingress", "TCP", 6379, "mallory", connections=1),
        row("redis", "ingress", "TCP", 6379, "web"),
        row("mallory", "egress", "TCP", 6379, "redis", connections=1),
        row("mallory", "egress", "UDP", 53, "dns"),
    )
    assert rules(result, "redis") == {"in-tcp-6379": ["shop/Deployment/web"]}
    assert list(rules(result, "mallory")) == ["out-tcp-53", "out-udp-53"]
    found = findings(result, "scan").set_index("workload")
    assert found.loc["redis", "ports"] == 30
    assert found.loc["redis", "peer"] == "shop/Deployment/mallory"
    assert found.loc["mallory", "direction"] == "egress"
    notes = {w["workload"]: w["notes"] for w in result.report["workloads"]}
    assert any("scanner were kept out (1): TCP 6379" in note for note in notes["redis"])


def test_a_sweep_over_many_workloads_is_a_scan(tmp_path: Path) -> None:
    empty = {"connections": 1, "bytes_sent": 0, "bytes_received": 0}
    targets = [f"app{i}" for i in range(9)]
    result = learn(tmp_path, *(row(t, "ingress", "TCP", 22, "mallory", **empty) for t in targets))
    assert rules(result, "app0") == {}
    assert len(findings(result, "scan")) == 9


def test_a_busy_client_of_many_ports_is_no_scanner(tmp_path: Path) -> None:
    result = learn(tmp_path, *(row("web", "ingress", "TCP", 8000 + i, "prom") for i in range(20)))
    assert len(rules(result, "web")) == 20


def test_kubelet_tcp_probes_of_many_workloads_are_no_scan(tmp_path: Path) -> None:
    empty = {"bytes_sent": 0, "bytes_received": 0}
    result = learn(
        tmp_path, *(row(f"a{i}", "ingress", "TCP", 80, "node-a", **empty) for i in range(12))
    )
    assert findings(result, "scan").empty
    assert len(findings(result, "own_node")) == 12


def test_own_node_needs_no_rule_another_node_does(tmp_path: Path) -> None:
    result = learn(
        tmp_path,
        row("web", "ingress", "TCP", 80, "node-a"),
        row("web", "ingress", "TCP", 443, "node-b"),
        row("web", "egress", "TCP", 6443, "node-a"),
    )
    assert rules(result, "web") == {"in-tcp-443": ["Node"], "out-tcp-6443": ["Node"]}
    assert any("probes" in note for note in result.report["workloads"][0]["notes"])


def test_loopback_icmp_and_unattributed_rows_are_counted_not_learned(tmp_path: Path) -> None:
    result = learn(
        tmp_path,
        row("web", "egress", "TCP", 9000, "127.0.0.1", peer_kind="loopback"),
        row("web", "egress", "ICMP", 0, "db"),
        row(None, "egress", "TCP", 443, "192.0.2.1"),
        row(None, "egress", "TCP", 80, "192.0.2.1"),
    )
    assert rules(result, "web") == {}
    assert len(findings(result, "loopback")) == 1
    assert len(findings(result, "unjudged_protocol")) == 1
    assert findings(result, "unattributed")["connections"].tolist() == [20]
    assert result.report["rows"] == {"read": 4, "learned": 0, "unattributed": 2}


def test_udp_without_an_answer_is_a_finding(tmp_path: Path) -> None:
    result = learn(tmp_path, row("web", "egress", "UDP", 123, "192.0.2.1", bytes_received=0))
    assert rules(result, "web") == {}
    assert findings(result, "unanswered")["port"].tolist() == [123]


def test_udp_without_an_answer_is_learned_where_the_peer_received_it(tmp_path: Path) -> None:
    result = learn(
        tmp_path,
        row("web", "egress", "UDP", 8125, "statsd", bytes_received=0, target_port=9125),
        row("statsd", "ingress", "UDP", 9125, "web", bytes_sent=0),
    )
    assert rules(result, "web") == {"out-udp-8125": ["shop/Deployment/statsd"]}
    assert rules(result, "statsd") == {"in-udp-9125": ["shop/Deployment/web"]}
    assert "port 9125" in reason(result, "out-udp-8125")


def test_dns_over_tcp_stands_beside_dns_over_udp(tmp_path: Path) -> None:
    quiet = {"verdict": "listening", "connections": 0, "bytes_sent": 0, "bytes_received": 0}
    result = learn(
        tmp_path,
        row("web", "egress", "UDP", 53, "dns", peer_kind="service"),
        row("dns", "ingress", "UDP", 53, "web"),
        row("dns", "ingress", "TCP", 53, None, **quiet),
    )
    assert rules(result, "web") == {
        "out-tcp-53": ["shop/Deployment/dns"],
        "out-udp-53": ["shop/Deployment/dns"],
    }
    assert list(rules(result, "dns")) == ["in-tcp-53", "in-udp-53"]
    assert "come over TCP" in reason(result, "out-tcp-53")


def test_few_external_addresses_are_listed_many_are_the_world(tmp_path: Path) -> None:
    few = [row("web", "egress", "TCP", 443, f"192.0.2.{i}") for i in range(8)]
    many = [row("web", "egress", "TCP", 25, f"{11 * i + 1}.0.2.{i}") for i in range(9)]
    six = row("web", "ingress", "TCP", 80, "2001:db8::1")
    found = rules(result := learn(tmp_path, *few, *many, six), "web")
    assert found["out-tcp-443"] == [f"192.0.2.{i}/32" for i in range(8)]
    assert found["out-tcp-25"] == ["World"]
    assert found["in-tcp-80"] == ["2001:db8::1/128"]
    over = result.evidence.set_index("rule").loc["out-tcp-25", "over_grant"]
    assert over == "any external address for 9 addresses seen"


def test_unknown_addresses_of_the_cluster_open_it_and_say_so(tmp_path: Path) -> None:
    gone = row("web", "ingress", "TCP", 80, "10.77.0.99", peer_kind="unknown")
    result = learn(tmp_path, gone)
    assert rules(result, "web") == {"in-tcp-80": ["Cluster"]}
    assert findings(result, "unknown_peer")["peer"].tolist() == ["unknown 10.77.0.99"]


def test_a_service_without_a_workload_is_kept_by_its_address(tmp_path: Path) -> None:
    api = row("web", "egress", "TCP", 443, "10.96.0.1", peer_kind="service", target_port=6443)
    result = learn(tmp_path, api)
    assert rules(result, "web") == {"out-tcp-443": ["10.96.0.1/32"]}
    assert "6443" in reason(result, "out-tcp-443")


def test_lost_peers_do_not_open_a_rule_that_knows_some(tmp_path: Path) -> None:
    result = learn(
        tmp_path,
        row("web", "ingress", "TCP", 80, "client"),
        row("web", "ingress", "TCP", 80, None),
        row("web", "ingress", "TCP", 81, None),
    )
    assert rules(result, "web") == {"in-tcp-80": ["shop/Deployment/client"], "in-tcp-81": None}
    assert "peers may be missing" in reason(result, "in-tcp-80")
    assert "any peer" in reason(result, "in-tcp-81")


def test_ports_that_change_make_the_workload_dynamic(tmp_path: Path) -> None:
    passive = [row("ftp", "ingress", "TCP", 40000 + i, "c", connections=1) for i in range(30)]
    result = learn(
        tmp_path,
        *passive,
        row("ftp", "ingress", "TCP", 21, "c"),
        row("ftp", "ingress", "TCP", 50051, "c", connections=500),
    )
    assert list(rules(result, "ftp")) == ["in-tcp-21", "in-tcp-40000-40030", "in-tcp-50051"]
    report = result.report["workloads"][0]
    assert report["status"] == "dynamic"
    assert "30 different ports between 40000 and 40029" in report["reasons"][0]
    assert findings(result, "dynamic_ports")["ports"].tolist() == [30]


def test_losses_are_a_reason_and_in_the_report(tmp_path: Path) -> None:
    hours = [row("web", "ingress", "TCP", 80, "c", at=h) for h in range(30)]
    lost = (loss("flows_overflowed", 7), loss("recorder_down", 3))
    result = learn(tmp_path, *hours, losses=lost)
    assert result.report["losses"] == {
        "total": 10,
        "by_reason": {"flows_overflowed": 7, "recorder_down": 3},
    }
    report = result.report["workloads"][0]
    assert report["status"] == "learning"
    assert report["lifecycle"]["losses"]["answer"] == "no"
    (said,) = [reason for reason in report["reasons"] if "flows_overflowed" in reason]
    assert "lost events on its nodes (7 flows_overflowed; the last at 2026-03-02T08:00Z)" in said


def test_a_short_window_is_insufficient_a_longer_one_is_learning(tmp_path: Path) -> None:
    short = learn(tmp_path / "short", row("web", "ingress", "TCP", 80, "c"))
    assert short.report["workloads"][0]["status"] == "insufficient"
    assert set(short.evidence["confidence"]) == {"insufficient"}
    hours = [row("web", "ingress", "TCP", 80, "c", at=h) for h in range(30)]
    long = learn(tmp_path / "long", *hours)
    assert long.report["workloads"][0]["status"] == "learning"
    assert long.report["workloads"][0]["coverage"]["ingress"]["sample_coverage"] == 1.0
    assert long.evidence["confidence"].tolist() == ["high"]


def test_other_workloads_are_witnesses_also_when_one_is_asked_for(tmp_path: Path) -> None:
    capture = open_capture(
        write_capture(
            tmp_path,
            [
                row("web", "egress", "UDP", 514, "log", bytes_received=0),
                row("log", "ingress", "UDP", 514, "web", bytes_sent=0),
            ],
        )
    )
    result = recommend(capture, workloads=["web"], namespaces=["shop"])
    assert [p.workload.name for p in result.policies] == ["web"]
    assert list(rules(result, "web")) == ["out-udp-514"]
    with pytest.raises(CaptureError, match="the capture knows: shop/log, shop/web"):
        recommend(capture, workloads=["nobody"])


def test_two_clusters_are_not_mixed(tmp_path: Path) -> None:
    write_capture(tmp_path, [row("web", "ingress", "TCP", 80, "c")], cluster="a")
    write_capture(tmp_path, [row("web", "ingress", "TCP", 80, "c")], cluster="b")
    with pytest.raises(CaptureError, match="2 clusters: a, b"):
        recommend(open_capture(tmp_path))
