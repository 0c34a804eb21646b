"""The analyst's decisions: read strictly, obeyed, and shown."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from flow_rows import Row, row, write_capture

from portforge.capture import open_capture
from portforge.cli import recommend as recommend_cli
from portforge.errors import PolicyError
from portforge.recommend import Recommendation, backtest, kept_out, read_decisions, recommend

TINY = {"connections": 1, "bytes_sent": 0, "bytes_received": 0}
SCAN = [
    row("redis", "ingress", "TCP", port, "pentest", verdict="refused", **TINY)
    for port in range(1, 30)
]
OPEN = row("redis", "ingress", "TCP", 6379, "pentest", **TINY)
WEB = row("redis", "ingress", "TCP", 6379, "web")


def entry(decision: str, port: int, peer: str | None = None, **other: object) -> str:
    fields = {
        "workload": "shop/Deployment/redis",
        "direction": "ingress",
        "protocol": "TCP",
        "port": port,
        "peer": peer,
        "decision": decision,
        "by": "Ana",
        "reason": "our own test",
        "at": "2026-03-03T10:00:00Z",
        **other,
    }
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "- " + "\n  ".join(lines) + "\n"


def learn(folder: Path, rows: list[Row], *entries: str) -> Recommendation:
    (folder / "decisions.yaml").write_text("".join(entries))
    capture = open_capture(write_capture(folder / "capture", rows))
    return recommend(capture, decisions=read_decisions(folder / "decisions.yaml"))


def rules(result: Recommendation) -> dict[str, list[str]]:
    every = [r for p in result.policies for r in (*(p.ingress or ()), *(p.egress or ()))]
    return {rule.id: [str(peer) for peer in rule.peers or ()] for rule in every}


def reason(result: Recommendation, rule: str, column: str = "reason") -> str:
    return str(result.evidence.set_index("rule").loc[rule, column])


def test_learn_overrules_a_scan_and_the_finding_says_so(tmp_path: Path) -> None:
    peer = "shop/Deployment/pentest"
    assert rules(learn(tmp_path, [*SCAN, OPEN, WEB])) == {"in-tcp-6379": ["shop/Deployment/web"]}
    (more := tmp_path / "more").mkdir()
    result = learn(more, [*SCAN, OPEN, WEB], entry("learn", 6379, peer), entry("learn", 7))
    assert rules(result) == {
        "in-tcp-7": [peer],
        "in-tcp-6379": [peer, "shop/Deployment/web"],
    }
    assert reason(result, "in-tcp-7") == "decided to learn: Ana, 2026-03-03: our own test"
    scans = result.findings[result.findings["kind"] == "scan"]
    decided = scans["decision"].notna()
    assert scans.loc[decided, "decision"].tolist() == ["learn: Ana, 2026-03-03: our own test"]
    assert scans.loc[decided, "ports"].tolist() == [2]
    assert scans.loc[~decided, "ports"].tolist() == [28]


def test_never_removes_a_peer_or_a_port(tmp_path: Path) -> None:
    rows = [
        WEB,
        row("redis", "ingress", "TCP", 6379, "old"),
        row("redis", "ingress", "TCP", 22, "web"),
    ]
    result = learn(tmp_path, rows, entry("never", 6379, "shop/Deployment/old"), entry("never", 22))
    assert rules(result) == {"in-tcp-6379": ["shop/Deployment/web"]}
    never = result.findings[result.findings["kind"] == "never"]
    assert never["port"].tolist() == [22, 6379]
    assert set(never["decision"]) == {"never: Ana, 2026-03-03: our own test"}
    said = [(one["port"], one["peer"], one["edges"]) for one in result.report["decisions"]]
    assert said == [(22, None, 1), (6379, "shop/Deployment/old", 1)]


def test_never_wins_and_a_decision_about_nothing_is_counted_as_such(tmp_path: Path) -> None:
    result = learn(
        tmp_path, [WEB], entry("learn", 6379), entry("never", 6379, "shop/Deployment/web"),
        entry("learn", 9),
    )  # fmt: skip
    assert rules(result) == {}
    assert [one["edges"] for one in result.report["decisions"]] == [0, 1, 1]


def test_never_of_a_rule_that_was_only_assumed_or_is_wider(tmp_path: Path) -> None:
    out = {"workload": "shop/Deployment/web", "direction": "egress"}
    rows = [
        row("web", "egress", "UDP", 53, "dns"),
        *(row("web", "egress", "TCP", 443, f"{192 - 9 * n}.0.2.{n + 1}") for n in range(12)),
    ]
    result = learn(
        tmp_path, rows, entry("never", 53, **out), entry("never", 443, "192.0.2.1", **out)
    )
    assert rules(result) == {"out-udp-53": ["shop/Deployment/dns"], "out-tcp-443": ["World"]}
    over = reason(result, "out-tcp-443", "over_grant")
    assert over.endswith("192.0.2.1/32 may never be let in, but World is")


def test_never_of_a_namespace_or_of_somebody_in_one(tmp_path: Path) -> None:
    crowd = [
        row("redis", "ingress", "TCP", 6379, f"c-{n}", peer_namespace="team-b") for n in range(40)
    ]
    for name in ("one", "all"):
        (tmp_path / name).mkdir()
    one = learn(tmp_path / "one", [*crowd, WEB], entry("never", 6379, "team-b/Deployment/c-7"))
    assert rules(one) == {"in-tcp-6379": ["shop/Deployment/web", "team-b/*"]}
    over = reason(one, "in-tcp-6379", "over_grant")
    assert over == (
        "team-b/* for 39 of the 40 workloads known in team-b; "
        "team-b/Deployment/c-7 may never be let in, but team-b/* overlaps it"
    )
    every = learn(tmp_path / "all", [*crowd, WEB], entry("never", 6379, "team-b/*"))
    assert rules(every) == {"in-tcp-6379": ["shop/Deployment/web"]}
    assert every.report["decisions"][0]["peer"] == "team-b/*"
    assert every.report["decisions"][0]["edges"] == 40


def test_never_of_a_namespace_takes_its_workloads_out_of_what_was_only_assumed(
    tmp_path: Path,
) -> None:
    out = {"workload": "shop/Deployment/web", "direction": "egress"}
    rows = [
        row("web", "egress", "UDP", 53, "dns"),
        row("web", "egress", "UDP", 53, "coredns", peer_namespace="kube-system"),
    ]
    never = entry("never", 53, "kube-system/*", **out)
    assert rules(learn(tmp_path, rows, never)) == {
        "out-udp-53": ["kube-system/Deployment/coredns", "shop/Deployment/dns"],
        "out-tcp-53": ["shop/Deployment/dns"],
    }


def test_learn_keeps_a_port_that_changes(tmp_path: Path) -> None:
    rows = [row("redis", "ingress", "TCP", 40000 + n, "c", connections=1) for n in range(30)]
    result = learn(tmp_path, rows, entry("learn", 40007))
    assert list(rules(result)) == ["in-tcp-40007"]


@pytest.mark.parametrize(
    ("peer", "matches"),
    [("192.0.2.1", 1), ("192.0.2.0/24", 2), ("World", 2), ("Node", 0), ("Cluster", 0)],
)
def test_peers_are_written_as_in_rules(tmp_path: Path, peer: str, matches: int) -> None:
    rows = [row("redis", "ingress", "TCP", 6379, f"192.0.2.{n}") for n in (1, 2)]
    result = learn(tmp_path, rows, entry("never", 6379, peer))
    assert result.report["decisions"][0]["edges"] == matches


def test_the_backtest_does_not_ask_for_what_never_may_be(tmp_path: Path) -> None:
    rows = [
        *(row("redis", "ingress", "TCP", 6379, "web", at=h) for h in range(40)),
        row("redis", "ingress", "TCP", 22, "web", at=35),
        row("redis", "ingress", "TCP", 6379, "web", at=40),
    ]
    capture = open_capture(write_capture(tmp_path / "capture", rows))
    (tmp_path / "d.yaml").write_text(entry("never", 22))
    decisions = read_decisions(tmp_path / "d.yaml")
    assert backtest(capture, steps=1)["denied"].tolist() == [10]
    assert backtest(capture, steps=1, decisions=decisions)["denied"].tolist() == [0]
    why = kept_out(capture.flows(), capture.aggregated(), decisions=decisions)
    assert why.dropna().tolist() == ["never"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (entry("maybe", 22), ":5: [0].decision: 'maybe' is not known here"),
        (entry("learn", 0), ":4: [0].port: "),
        (entry("learn", 22, colour="red"), ":9: [0].colour: unknown field; known here: workload,"),
        (entry("learn", 22, workload="redis"), ":1: [0].workload: 'redis' is not a workload"),
        (entry("learn", 22, "nobody"), ":5: [0].peer: 'nobody' is not a peer; write namespace/"),
        (entry("learn", 22, protocol="SCTP"), ":3: [0].protocol: 'SCTP' is not known here"),
        (entry("learn", 22, at="yesterday"), ":8: [0].at: "),
        (entry("learn", 22, by=None), ":1: [0].by: required field is missing; add it"),
        (entry("learn", 22) + "  by: Bo\n", ":9: field 'by' is written twice"),
        (entry("learn", 22) + entry("never", 22), ":9: [1]: contradicts the decision of Ana"),
        (entry("learn", 22) + entry("learn", 22), ":9: [1]: repeats the decision of Ana"),
        ("a: 1\n", ":1: is not a list of decisions"),
        ("- {", "not YAML"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "d.yaml").write_text(text)
    with pytest.raises(PolicyError) as wrong:
        read_decisions(tmp_path / "d.yaml")
    assert says in str(wrong.value)


def test_every_problem_is_told_and_a_file_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "d.yaml").write_text(entry("maybe", 22) + entry("learn", 70000))
    with pytest.raises(PolicyError, match="and 1 more") as wrong:
        read_decisions(tmp_path / "d.yaml")
    assert len(wrong.value.problems) == 2
    with pytest.raises(PolicyError, match="no such file"):
        read_decisions(tmp_path / "no.yaml")
    (tmp_path / "d.yaml").write_text("")
    assert read_decisions(tmp_path / "d.yaml") == []


def test_the_command_reads_the_file(tmp_path: Path) -> None:
    capture = write_capture(tmp_path / "capture", [*SCAN, OPEN, WEB])
    (tmp_path / "d.yaml").write_text(entry("never", 6379))
    arguments = [str(capture), "-o", str(tmp_path / "out"), "--decisions", str(tmp_path / "d.yaml")]
    done = CliRunner(env={"COLUMNS": "200"}).invoke(recommend_cli.command, arguments)
    assert done.exit_code == 0, done.output
    assert "never: Ana, 2026-03-03: our own test" in done.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["decisions"][0]["reason"] == "our own test"
    findings = pd.read_parquet(tmp_path / "out" / "findings.parquet")
    assert findings["decision"].notna().sum() == 2
