"""Short scans that hit open ports are kept out; small calls that are needed are not."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from flow_rows import Row, row, write_capture

from portforge.capture import open_capture
from portforge.recommend import Recommendation, recommend

TINY = {"connections": 1, "bytes_sent": 0, "bytes_received": 40}


def both(source: str, target: str, port: int, **other: object) -> list[Row]:
    """A call as both ends record it."""
    return [
        row(source, "egress", "TCP", port, target, **other),
        row(target, "ingress", "TCP", port, source, **other),
    ]


def learn(folder: Path, *rows: Row) -> Recommendation:
    real = [row("web", "ingress", "TCP", 80, "client"), row("ftp", "ingress", "TCP", 21, "up")]
    return recommend(open_capture(write_capture(folder, [*real, *rows])))


def rules(result: Recommendation, workload: str) -> dict[str, list[str]]:
    found = next(p for p in result.policies if p.workload.name == workload)
    every = (*(found.ingress or ()), *(found.egress or ()))
    return {r.id: [str(p) for p in r.peers or ()] for r in every}


def kept_out(result: Recommendation) -> pd.DataFrame:
    return result.findings[result.findings["kind"] == "one_sided"]


def test_a_few_tiny_answers_are_kept_out_at_both_ends_with_the_reason(tmp_path: Path) -> None:
    knocks = [*both("debug", "ftp", 21, **TINY), *both("debug", "ftp", 40007, **TINY)]
    result = learn(tmp_path, *knocks)
    assert rules(result, "ftp") == {"in-tcp-21": ["shop/Deployment/up"]}
    assert rules(result, "debug") == {}
    assert sorted(kept_out(result)["port"]) == [21, 21, 40007, 40007]
    assert set(kept_out(result)["connections"]) == {1}
    assert "decide learn" in kept_out(result)["reason"].iloc[0]


@pytest.mark.parametrize(
    "calls",
    [
        pytest.param([{"at": h, "pod": f"p-{h % 2}"} for h in range(3)], id="two pods, 3 hours"),
        pytest.param([{"at": h} for h in range(0, 30, 5)], id="one pod, 6 hours on two days"),
        pytest.param([{"connections": 360}], id="a health check every ten seconds, one hour"),
        pytest.param([{"connections": 0}], id="open since before the recorder"),
        pytest.param([{}, {"bytes_sent": 900, "at": 1}], id="with a real call among them"),
    ],
)
def test_small_calls_that_come_back_are_learned(tmp_path: Path, calls: list[Row]) -> None:
    result = learn(tmp_path, *(row("job", "egress", "TCP", 80, "web", **TINY | c) for c in calls))
    assert rules(result, "job") == {"out-tcp-80": ["shop/Deployment/web"]}
    assert kept_out(result).empty


def test_who_has_another_need_there_is_learned_whole(tmp_path: Path) -> None:
    result = learn(tmp_path, *both("app", "web", 80), *both("app", "web", 9000, **TINY))
    assert list(rules(result, "app")) == ["out-tcp-80", "out-tcp-9000"]


def test_a_service_whose_regular_clients_say_as_little_is_used(tmp_path: Path) -> None:
    regular = [r for h in range(6) for r in both("timer", "tick", 7000, at=h, **TINY)]
    result = learn(tmp_path, *regular, *both("late", "tick", 7000, at=2, **TINY))
    assert rules(result, "tick") == {
        "in-tcp-7000": ["shop/Deployment/late", "shop/Deployment/timer"]
    }


def test_health_checks_do_not_make_a_service_small_where_others_really_call(tmp_path: Path) -> None:
    checks = [r for h in range(6) for r in both("checker", "web", 80, at=h, **TINY)]
    result = learn(tmp_path, *checks, *both("debug", "web", 80, **TINY))
    assert rules(result, "web")["in-tcp-80"] == [
        "shop/Deployment/checker",
        "shop/Deployment/client",
    ]


def test_nodes_unknown_pods_and_the_outside_are_not_judged_by_size(tmp_path: Path) -> None:
    result = learn(
        tmp_path,
        row("web", "ingress", "TCP", 81, "node-b", **TINY),
        row("web", "ingress", "TCP", 82, "10.77.0.99", peer_kind="unknown", **TINY),
        row("web", "egress", "TCP", 83, "192.0.2.1", **TINY),
    )
    assert list(rules(result, "web")) == ["in-tcp-80", "in-tcp-81", "in-tcp-82", "out-tcp-83"]


def test_a_service_port_is_that_of_the_pod_behind_it(tmp_path: Path) -> None:
    through = {"peer_kind": "service", "target_port": 80}
    regular = [
        row("timer", "egress", "TCP", 8080, "tick", at=h, **through, **TINY) for h in range(6)
    ]
    result = learn(tmp_path, *regular, row("tick", "ingress", "TCP", 80, "late", **TINY))
    assert rules(result, "tick") == {"in-tcp-80": ["shop/Deployment/late"]}


def test_it_holds_back_ready_until_the_analyst_decides(tmp_path: Path) -> None:
    hours = [row("web", "ingress", "TCP", 80, "client", at=h) for h in range(30)]
    result = learn(tmp_path, *hours, row("web", "ingress", "TCP", 80, "debug", **TINY))
    report = next(w for w in result.report["workloads"] if w["workload"] == "web")
    (said,) = [r for r in report["reasons"] if r.startswith("kept out")]
    assert "TCP 80 from shop/Deployment/debug" in said
