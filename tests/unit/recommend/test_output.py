"""What is written, what the command prints, and what it refuses."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from flow_rows import row, write_capture

from portforge.capture import open_capture
from portforge.cli import recommend as recommend_cli
from portforge.cli import schema as schema_cli
from portforge.errors import PortforgeError, WriteError
from portforge.policy import approve, read_policies, to_yaml
from portforge.recommend import Recommendation, recommend

ROWS = [
    row("web", "ingress", "TCP", 80, "client"),
    row("web", "egress", "TCP", 6379, "redis", at=1),
    row("web", "egress", "TCP", 443, "192.0.2.1", verdict="failed"),
    row("redis", "ingress", "TCP", 6379, "web", at=1),
]


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    return write_capture(tmp_path / "capture", ROWS)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def make(capture: Path) -> Recommendation:
    return recommend(open_capture(capture))


def test_the_folder_holds_policies_evidence_findings_and_report(
    tmp_path: Path, capture: Path
) -> None:
    result = make(capture)
    result.write(tmp_path / "deep" / "out")
    out = tmp_path / "deep" / "out"
    assert sorted(content(out)) == [
        "evidence.parquet",
        "findings.parquet",
        "policies/shop/deployment-redis.yaml",
        "policies/shop/deployment-web.yaml",
        "report.json",
    ]
    assert read_policies(out / "policies") == result.policies
    evidence = pd.read_parquet(out / "evidence.parquet")
    assert evidence[["policy", "rule"]].values.tolist() == [
        ["deployment-redis", "in-tcp-6379"],
        ["deployment-web", "in-tcp-80"],
        ["deployment-web", "out-tcp-6379"],
    ]
    report = json.loads((out / "report.json").read_text())
    assert report["schema"] == 1
    assert report["window"]["start"] == "2026-03-02T08:00:00Z"
    assert report["workloads"][0].items() >= {"workload": "redis", "rules": 1}.items()
    assert report["findings"]["failed"]["count"] == 1
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out"]


def test_the_same_capture_gives_the_same_bytes(tmp_path: Path, capture: Path) -> None:
    make(capture).write(tmp_path / "a")
    backwards = write_capture(tmp_path / "capture2", ROWS[::-1])
    make(backwards).write(tmp_path / "b")
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_an_earlier_recommendation_is_replaced_anything_else_is_not(
    tmp_path: Path, capture: Path
) -> None:
    result, out = make(capture), tmp_path / "out"
    out.mkdir()
    result.write(out)
    result.write(out)
    (out / "notes.txt").touch()
    before = content(out)
    with pytest.raises(WriteError, match="left untouched"):
        result.write(out)
    assert content(out) == before
    with pytest.raises(WriteError, match="is not a folder"):
        result.write(out / "notes.txt")


@pytest.mark.parametrize(
    "touch",
    [
        lambda file: file.write_text(approve_text(file)),
        lambda file: file.with_name("own.yaml").touch(),
        lambda file: file.unlink(),
    ],
    ids=["approved", "added", "removed"],
)
def test_what_the_analyst_did_to_policies_is_not_replaced_unasked(
    tmp_path: Path, capture: Path, touch: Callable[[Path], object]
) -> None:
    result, out = make(capture), tmp_path / "out"
    result.write(out)
    touch(out / "policies" / "shop" / "deployment-web.yaml")
    before = content(out)
    with pytest.raises(WriteError, match="--replace"):
        result.write(out)
    assert content(out) == before
    result.write(out, replace=True)
    result.write(out)


def approve_text(file: Path) -> str:
    (policy,) = read_policies(file)
    return to_yaml(approve(policy, "Ana", datetime(2026, 1, 1, tzinfo=UTC)))


def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path, capture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, out = make(capture), tmp_path / "out"
    result.write(out)
    before = content(out)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match="No space left"):
        result.write(out)
    assert content(out) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["capture", "out"]


def test_command_prints_rules_evidence_and_findings(tmp_path: Path, capture: Path) -> None:
    arguments = [str(capture), "-o", str(tmp_path / "out")]
    done = CliRunner(env={"COLUMNS": "200"}).invoke(recommend_cli.command, arguments)
    assert done.exit_code == 0, done.output
    for text in ("shop/Deployment/web", "out-tcp-6379", "10 conn", "insufficient", "failed"):
        assert text in done.output
    done = CliRunner().invoke(recommend_cli.command, [*arguments, "--json", "--workload", "web"])
    assert [w["workload"] for w in json.loads(done.stdout)["workloads"]] == ["web"]


def test_command_on_a_bad_capture_writes_nothing(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        recommend_cli.command, [str(tmp_path / "no"), "-o", str(tmp_path / "out")]
    )
    assert isinstance(done.exception, PortforgeError)
    assert list(tmp_path.iterdir()) == []


def test_schema_prints_contract_1() -> None:
    done = CliRunner(env={"COLUMNS": "160"}).invoke(schema_cli.command, [])
    assert "retransmits" in done.output
    answer = json.loads(CliRunner().invoke(schema_cli.command, ["--json"]).stdout)
    assert answer["schema"] == 1
    assert answer["columns"][2] == {
        "name": "node",
        "type": "string",
        "nullable": False,
        "unit": "",
        "meaning": "the node that recorded it",
    }


def test_a_recommendation_shows_itself(capture: Path) -> None:
    result = make(capture)
    assert repr(result) == "Recommendation(2 policies, 3 rules, 1 findings)"
    assert "out-tcp-6379" in result._repr_html_()
