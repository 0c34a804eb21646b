"""Which finding comes first: by what it reached, from where, on which port, and if it goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from flow_rows import Row, row, write_capture

from portforge.capture import open_capture
from portforge.cli import recommend as recommend_cli
from portforge.recommend import KINDS, Recommendation, recommend
from portforge.recommend._sensitive import SENSITIVE
from portforge.recommend._severity import RULES, Fact, Level

HOURS = [row("web", "ingress", "TCP", 80, "client", at=h) for h in range(0, 40, 5)]
DECISIONS = """
- workload: shop/Deployment/web
  direction: ingress
  protocol: TCP
  port: 22
  decision: {}
  by: Ana
  reason: asked them
  at: 2026-03-04T00:00:00Z
"""


def learn(folder: Path, *rows: Row) -> Recommendation:
    return recommend(open_capture(write_capture(folder, [*HOURS, *rows])))


def levels(result: Recommendation, kind: str, workload: str = "web") -> list[str]:
    found = result.findings
    return list(found["severity"][(found["kind"] == kind) & (found["workload"] == workload)])


def knocks(peer: str, open_port: int | None = None) -> list[Row]:
    tiny = {"connections": 1, "bytes_sent": 0, "bytes_received": 0}
    rows = [
        row("web", "ingress", "TCP", p, peer, verdict="refused", **tiny) for p in range(1000, 1012)
    ]
    if open_port:
        rows.append(row("web", "ingress", "TCP", open_port, peer, **tiny))
    return rows


@pytest.mark.parametrize(
    ("rows", "level"),
    [
        pytest.param(knocks("192.0.2.9"), "low", id="from outside, nothing answered: background"),
        pytest.param(knocks("192.0.2.9", 8080), "medium", id="from outside, answered"),
        pytest.param(knocks("192.0.2.9", 5432), "high", id="from outside, let in to a database"),
        pytest.param(knocks("debug"), "high", id="from a pod"),
    ],
)
def test_a_scan_weighs_by_where_it_comes_from_and_what_it_reached(
    tmp_path: Path, rows: list[Row], level: str
) -> None:
    assert levels(learn(tmp_path, *rows), "scan") == [level]


def test_an_attempt_weighs_by_port_and_number_of_targets(tmp_path: Path) -> None:
    refused = {"verdict": "refused", "connections": 1}
    some = [row(name, "ingress", "TCP", 22, "odd", **refused) for name in ("a", "b", "web")]
    result = learn(
        tmp_path,
        row("web", "ingress", "TCP", 8081, "client", **refused),
        row("web", "ingress", "TCP", 23, "client", **refused),
        *some,
    )
    found = result.findings[result.findings["kind"] == "refused"].set_index("port")["severity"]
    assert (found[8081], found[23], set(found[22])) == ("info", "low", {"medium"})


def test_a_service_port_is_as_sensitive_as_the_port_of_the_pod_behind_it(tmp_path: Path) -> None:
    through = {"peer_kind": "service", "verdict": "failed"}
    result = learn(
        tmp_path,
        row("web", "egress", "TCP", 8080, "db", target_port=5432, **through),
        row("web", "egress", "TCP", 8081, "db", target_port=8081, **through),
    )
    assert levels(result, "failed") == ["low", "info"]


def test_what_still_goes_on_though_it_was_forbidden_comes_before_what_is_over(
    tmp_path: Path,
) -> None:
    decisions = tmp_path / "decisions.yaml"
    decisions.write_text(DECISIONS.format("never"))
    seen: dict[float, str] = {}
    for at in (2, 39):
        folder, out = tmp_path / f"capture-{at}", tmp_path / f"out-{at}"
        write_capture(folder, [*HOURS, row("web", "ingress", "TCP", 22, "ops", at=at)])
        arguments = [str(folder), "-o", str(out), "--decisions", str(decisions), "--json"]
        report = json.loads(CliRunner().invoke(recommend_cli.command, arguments).stdout)
        (seen[at],) = report["findings"]["never"]["severity"]
    assert seen == {2: "medium", 39: "high"}


def test_what_the_analyst_decided_to_learn_is_no_longer_urgent(tmp_path: Path) -> None:
    scan = knocks("debug", 22)
    decisions = tmp_path / "decisions.yaml"
    decisions.write_text(DECISIONS.format("learn"))
    folder, out = write_capture(tmp_path / "capture", [*HOURS, *scan]), tmp_path / "out"
    arguments = [str(folder), "-o", str(out), "--decisions", str(decisions), "--json"]
    report = json.loads(CliRunner().invoke(recommend_cli.command, arguments).stdout)
    assert report["findings"]["scan"]["severity"] == {"high": 1, "info": 1}


def test_findings_are_sorted_and_printed_by_severity(tmp_path: Path) -> None:
    rows = [
        row("web", "egress", "TCP", 9999, "192.0.2.1", verdict="failed"),
        row("web", "egress", "UDP", 5140, "192.0.2.1", bytes_received=0),
        *knocks("debug"),
    ]
    result = learn(tmp_path / "capture", *rows)
    order = [str(level) for level in Level]
    assert list(result.findings["severity"]) == sorted(result.findings["severity"], key=order.index)
    arguments = [str(tmp_path / "capture"), "-o", str(tmp_path / "out")]
    printed = CliRunner(env={"COLUMNS": "200"}).invoke(recommend_cli.command, arguments).output
    wanted = ("high      scan", "low       unanswered", "info      failed")
    places = [printed.index(text) for text in wanted]
    assert places == sorted(places)


def test_every_rule_is_of_a_known_kind_and_can_be_reached() -> None:
    order = [str(level) for level in Level]
    assert set(RULES) <= set(KINDS)
    for rule in RULES.values():
        assert order.index(rule.most) <= order.index(rule.start)
        assert len(rule.up) >= order.index(rule.start) - order.index(rule.most)


def test_the_list_of_sensitive_ports_names_each_once() -> None:
    assert {("TCP", p) for p in (22, 445, 3389, 5432, 6379, 2379, 10250, 2375)} <= set(SENSITIVE)
    assert all(name and 0 < port < 65536 for (_, port), name in SENSITIVE.items())
    assert not {("TCP", 80), ("TCP", 443), ("UDP", 53)} & set(SENSITIVE)


def test_the_documented_table_is_the_rules() -> None:
    page = (Path(__file__).parents[3] / "docs" / "findings.md").read_text()
    said = {}
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and cells[0] in KINDS:
            said[cells[0]] = cells[1:]

    def facts(some: tuple[Fact, ...]) -> str:
        return ", ".join(fact.__name__.strip("_").replace("_", " ") for fact in some)

    assert said == {
        kind: [str(rule.start), facts(rule.up), str(rule.most), facts(rule.down)]
        for kind, rule in RULES.items()
    }
