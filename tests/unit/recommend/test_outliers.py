"""What no rule found, scikit-learn may: learned connections unlike the others, and in what."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from flow_rows import Row, row, write_capture

from portforge.capture import open_capture
from portforge.policy import to_yaml
from portforge.recommend import Options, Recommendation, read_decisions, recommend

ELSEWHERE = "192.0.2.66"


def ordinary(services: int = 16) -> list[Row]:
    """A chain of services, each called by the one before, each asking DNS and one API outside."""
    rng = np.random.default_rng(5)
    rows = []
    for n in range(services):
        me, following = f"app-{n}", f"app-{n + 1}"
        calls = [
            (me, "egress", "TCP", 8080, following),
            (following, "ingress", "TCP", 8080, me),
            (me, "egress", "UDP", 53, "coredns"),
            ("coredns", "ingress", "UDP", 53, me),
            (me, "egress", "TCP", 443, f"203.0.113.{n % 4}"),
        ]
        for hour in range(0, 60, 3):
            for who, direction, protocol, port, peer in calls:
                rows.append(
                    row(
                        who,
                        direction,
                        protocol,
                        port,
                        peer,
                        at=hour + n / 60,
                        pod=f"{who}-{hour % 2}",
                        connections=int(rng.integers(3, 40)),
                        bytes_sent=int(rng.integers(2_000, 90_000)),
                        bytes_received=int(rng.integers(2_000, 90_000)),
                    )
                )
    return rows


def learn(folder: Path, *rows: Row, services: int = 16, **other: object) -> Recommendation:
    capture = open_capture(write_capture(folder, [*ordinary(services), *rows]))
    return recommend(capture, **other)  # type: ignore[arg-type]


def outliers(result: Recommendation) -> pd.DataFrame:
    return result.findings[result.findings["kind"] == "outlier"]


THEFT = [
    row(
        "app-3",
        "egress",
        "TCP",
        443,
        ELSEWHERE,
        at=at,
        pod="app-3-1",
        connections=5,
        bytes_sent=2_000_000_000,
        bytes_received=40_000,
    )
    for at in (49, 50)
]


def test_gigabytes_to_an_address_nobody_knows_are_found_and_said_why(tmp_path: Path) -> None:
    result = learn(tmp_path, *THEFT)
    (found,) = outliers(result).to_dict("records")
    assert (found["workload"], found["peer"], found["severity"]) == ("app-3", ELSEWHERE, "medium")
    score = float(re.findall(r"score ([\d.]+)", found["reason"])[0])
    parts = [float(part) for part in re.findall(r": \+([\d.]+)", found["reason"])]
    assert 0.6 < score < 1
    assert parts == sorted(parts, reverse=True)
    assert 0 < len(parts) <= 3
    assert all(part < score for part in parts)
    for text in ("bytes per connection 381 MiB (median", "active hours 2 (median 20)"):
        assert text in found["reason"]


def test_it_is_learned_all_the_same_and_holds_nothing_back(tmp_path: Path) -> None:
    found = learn(tmp_path / "a", *THEFT)
    unasked = learn(tmp_path / "b", *THEFT, options=Options(outlier_share=0))
    assert outliers(unasked).empty
    assert [to_yaml(p) for p in found.policies] == [to_yaml(p) for p in unasked.policies]
    assert any(ELSEWHERE in to_yaml(p) for p in found.policies)
    assert found.report["workloads"] == unasked.report["workloads"]


def test_what_the_analyst_decided_to_learn_is_not_asked_again(tmp_path: Path) -> None:
    decisions = tmp_path / "decisions.yaml"
    decisions.write_text(
        "- {workload: shop/Deployment/app-3, direction: egress, protocol: TCP, port: 443,\n"
        f"   peer: {ELSEWHERE}, decision: learn, by: Ana, reason: the new mirror,\n"
        "   at: 2026-03-09T00:00:00Z}\n"
    )
    result = learn(tmp_path / "a", *THEFT, decisions=read_decisions(decisions))
    assert outliers(result).empty


USUAL = {"bytes_sent": 30_000, "bytes_received": 50_000}


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([], id="nothing odd"),
        pytest.param(
            [
                row("app-3", "egress", "TCP", 8080, "app-4", at=at, pod="app-3-2", connections=9)
                for at in (40, 45, 50)
            ],
            id="a new replica",
        ),
        pytest.param(
            [
                row(
                    "report",
                    "egress",
                    "TCP",
                    8080,
                    "app-4",
                    at=at,
                    workload_kind="CronJob",
                    **USUAL,
                )
                for at in (18, 42)
            ],
            id="a nightly job",
        ),
        pytest.param(
            [
                row("ftp", "ingress", "TCP", port, "app-2", at=port % 50, **USUAL)
                for port in range(40000, 40060)
            ],
            id="a port that changes",
        ),
    ],
)
def test_ordinary_connections_are_no_outliers(tmp_path: Path, rows: list[Row]) -> None:
    assert outliers(learn(tmp_path, *rows)).empty


def test_a_small_capture_has_no_outliers(tmp_path: Path) -> None:
    few = [one for one in THEFT if one["workload"] == "app-3"]
    assert outliers(learn(tmp_path / "few", *few, services=9)).empty  # 46 connections
    assert len(outliers(learn(tmp_path / "more", *few, services=10))) == 1  # 51


def test_the_order_of_the_records_changes_nothing(tmp_path: Path) -> None:
    rows = [*ordinary(), *THEFT]
    one, other = (
        recommend(open_capture(write_capture(tmp_path / name, some)))
        for name, some in (("a", rows), ("b", rows[::-1]))
    )
    assert len(outliers(one)) == 1
    pd.testing.assert_frame_equal(one.findings, other.findings)


def test_scikit_learn_is_loaded_only_when_it_is_needed() -> None:
    code = "import sys, portforge.recommend, portforge.cli; assert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
