"""A range for ports that change: when one is proposed, what it says, and when none is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from flow_rows import Row, row, write_capture

from portforge.capture import open_capture
from portforge.cli import portforge
from portforge.policy import PortPolicy, Rule, lint, read_policies
from portforge.recommend import Options, Recommendation, read_decisions, recommend
from portforge.recommend._ranges import likely_range

PASSIVE = [40002 + 5 * n for n in range(20)]


def sessions(ports: list[int], direction: str = "ingress", peer: str = "up") -> list[Row]:
    return [row("ftp", direction, "TCP", port, peer, connections=1) for port in ports]


def learn(folder: Path, rows: list[Row], **options: Any) -> Recommendation:
    decisions = options.pop("decisions", ())
    capture = open_capture(write_capture(folder, rows))
    return recommend(capture, options=Options(**options), decisions=decisions)


def policy(result: Recommendation, name: str = "ftp") -> PortPolicy:
    return next(p for p in result.policies if p.workload.name == name)


def ids(rules: tuple[Rule, ...] | None) -> list[str]:
    return [rule.id for rule in rules or ()]


def report(result: Recommendation) -> dict[str, Any]:
    return next(w for w in result.report["workloads"] if w["workload"] == "ftp")


@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_both_ends_get_one_range_with_its_price_and_stay_dynamic(
    tmp_path: Path, direction: str
) -> None:
    result = learn(tmp_path, sessions(PASSIVE, direction))
    (rule,) = policy(result).rules(direction) or ()
    assert (rule.port, rule.end_port) == (40000, 40100)
    assert [str(peer) for peer in rule.peers or ()] == ["shop/Deployment/up"]
    evidence = result.evidence.set_index("rule").loc[rule.id]
    assert evidence["over_grant"] == "101 ports admitted, 20 seen"
    assert "proposed range" in evidence["reason"]
    assert report(result)["status"] == "dynamic"
    assert "20 different ports between 40002 and 40097: the range" in report(result)["reasons"][0]
    found = result.findings[result.findings["kind"] == "dynamic_ports"]
    assert found["ports"].tolist() == [20]


def test_the_range_is_a_policy_like_any_other(tmp_path: Path) -> None:
    rows = [*sessions(PASSIVE), row("ftp", "ingress", "TCP", 21, "up")]
    result = learn(tmp_path / "capture", rows)
    assert lint(result.policies) == []
    result.write(tmp_path / "review")
    (file,) = (tmp_path / "review" / "policies").rglob("*.yaml")
    assert "endPort: 40100" in file.read_text()
    (read,) = read_policies(tmp_path / "review" / "policies")
    assert ids(read.ingress) == ["in-tcp-21", "in-tcp-40000-40100"]


def test_proposals_can_be_switched_off(tmp_path: Path) -> None:
    result = learn(tmp_path / "capture", sessions(PASSIVE), propose_ranges=False)
    assert policy(result).ingress == ()
    assert "add a range by hand" in report(result)["reasons"][0]
    arguments = ["recommend", str(tmp_path / "capture"), "-o", str(tmp_path / "out"), "--no-ranges"]
    assert CliRunner().invoke(portforge, arguments).exit_code == 0
    (read,) = read_policies(tmp_path / "out" / "policies")
    assert read.ingress == ()


def test_no_range_over_a_port_that_has_its_own_rule(tmp_path: Path) -> None:
    fixed = row("ftp", "ingress", "TCP", 40050, "grpc", connections=500)
    result = learn(tmp_path, [*sessions(PASSIVE), fixed])
    assert ids(policy(result).ingress) == ["in-tcp-40050"]
    assert report(result)["status"] == "dynamic"


def test_no_range_over_a_port_the_analyst_ruled_out(tmp_path: Path) -> None:
    (tmp_path / "decisions.yaml").write_text(
        "- {workload: shop/Deployment/ftp, direction: ingress, protocol: TCP, port: 40060,\n"
        "   decision: never, by: ann, reason: admin port, at: 2026-03-01T00:00:00Z}\n"
    )
    decisions = read_decisions(tmp_path / "decisions.yaml")
    result = learn(tmp_path / "capture", sessions(PASSIVE), decisions=decisions)
    assert policy(result).ingress == ()


def test_an_ephemeral_range_is_only_opened_to_peers_that_are_listed(tmp_path: Path) -> None:
    ports = [49152 + 1000 * n for n in range(16)]
    listed = learn(tmp_path / "listed", sessions(ports, "egress"))
    assert ids(policy(listed).egress) == ["out-tcp-49152-65535"]
    assert "16384 ports admitted, 16 seen" in set(listed.evidence["over_grant"])
    rows = [r for n in range(9) for r in sessions(ports, "egress", f"{11 * n + 1}.0.2.9")]
    anybody = learn(tmp_path / "anybody", rows)
    assert policy(anybody).egress == ()


@pytest.mark.parametrize(
    ("ports", "taken", "found"),
    [
        (range(40000, 40030), set(), (40000, 40030)),
        (range(40000, 40030), {39999, 40030}, (40000, 40029)),
        (range(40003, 40095, 7), {40098}, (40000, 40097)),
        (range(32800, 60900, 2000), set(), (32768, 60999)),
        (range(1100, 65000, 1000), set(), None),
        (range(50000, 53000, 300), set(), None),
        ([65530, 65532, 65535], set(), (65530, 65535)),
        ([40000], set(), None),
    ],
)
def test_what_looks_like_a_range(
    ports: list[int], taken: set[int], found: tuple[int, int] | None
) -> None:
    assert likely_range(set(ports), taken, Options()) == found
