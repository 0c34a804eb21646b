"""The commands lint, diff, explain, approve and simulate, as they are typed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner, Result
from flow_rows import row, write_capture
from test_policy_explain import EVIDENCE, WEB
from test_policy_yaml import CONTRACT

from portforge.cli import portforge
from portforge.errors import ApprovalError, CaptureError, PolicyError, WriteError
from portforge.policy import Mode, digest, read_policies, to_yaml, verify_approval, write_policies

NOW = datetime(2026, 11, 25, tzinfo=UTC)


def run(*words: object) -> Result:
    return CliRunner().invoke(portforge, [str(w) for w in words], catch_exceptions=True)


def ok(*words: object, code: int = 0) -> str:
    result = run(*words)
    assert result.exit_code == code, (result.output, result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What recommend writes: policies, and a report beside them."""
    write_policies([WEB], tmp_path / "policies")
    report(tmp_path, "ready")
    return tmp_path


def report(folder: Path, status: str, **fields: Any) -> None:
    entry = {"namespace": "shop", "workload_kind": "Deployment", "workload": "web", "rules": 2}
    entry |= {"status": status, "reasons": ["one hour recorded"] if status != "ready" else []}
    content = {"schema": 1, "workloads": [entry], "findings": {}} | fields
    (folder / "report.json").write_text(json.dumps(content))


@pytest.mark.parametrize("command", ["lint", "diff", "explain", "approve", "simulate"])
def test_help_has_examples(command: str) -> None:
    assert f"  portforge {command} policies" in ok(command, "--help")


# lint


def test_lint_finds_nothing(folder: Path) -> None:
    assert "1 policies, no problem found" in ok("lint", folder)
    assert json.loads(ok("lint", folder, "--json")) == {
        "schema": 1,
        "files": 1,
        "policies": 1,
        "problems": [],
    }


def test_lint_finds_problems(folder: Path) -> None:
    file = folder / "policies" / "bad.yaml"
    file.write_text(CONTRACT.replace("10.0.0.0/8", "10.1.0.0/8"))
    place = f"{file}:14: spec.ingress[0].peers[1].cidr"
    assert ok("lint", folder, code=3).startswith(f"{place}: '10.1.0.0/8' has bits set")
    (problem,) = json.loads(ok("lint", folder, "--json", code=3))["problems"]
    assert problem == {
        "file": str(file),
        "line": 14,
        "field": "spec.ingress[0].peers[1].cidr",
        "problem": "'10.1.0.0/8' has bits set after its prefix",
        "remedy": "write 10.0.0.0/8",
    }


def test_lint_finds_a_wrong_digest_that_reading_lets_pass(tmp_path: Path) -> None:
    file = tmp_path / "cart.yaml"
    file.write_text(CONTRACT)
    assert len(read_policies(file)) == 1
    told = ok("lint", file, code=3)
    assert told.startswith(f"{file}:28: spec.approval.digest: was changed after Ana Lima approved")
    assert "run portforge approve" in told


def test_lint_of_nothing(tmp_path: Path) -> None:
    assert isinstance(run("lint", tmp_path / "nowhere").exception, PolicyError)


def test_exit_codes_of_the_program_itself(folder: Path) -> None:
    program = [sys.executable, "-c", "from portforge.cli import main; main()"]
    missing = subprocess.run(
        [*program, "lint", str(folder / "no")], capture_output=True, text=True, check=False
    )
    assert missing.returncode == 1
    assert missing.stderr == (f"portforge: {folder}/no: no such file or folder; check the path\n")
    assert subprocess.run([*program, "lint", str(folder)], check=False).returncode == 0
    (folder / "bad.yaml").write_text("a: 1")
    assert subprocess.run([*program, "lint", str(folder)], check=False).returncode == 3


# diff


def test_diff(folder: Path) -> None:
    new = folder / "new"
    write_policies([WEB.model_copy(update={"mode": Mode.AUDIT, "egress": None})], new)
    old = folder / "policies"
    assert "no difference in meaning" in ok("diff", old, old)
    told = ok("diff", old, new, code=3)
    assert "  + mode changed: Enforce → Audit\n" in told
    assert "2 change(s): 2 opens" in told
    assert json.loads(ok("diff", old, new, "--json", code=3))["counts"]["opens"] == 2


# explain


def test_explain(folder: Path) -> None:
    pd.DataFrame([EVIDENCE]).to_parquet(folder / "evidence.parquet")
    told = ok("explain", folder / "policies", "--evidence", folder / "evidence.parquet")
    assert "    seen: 10,007 connections" in told
    content = json.loads(ok("explain", folder / "policies", "--json"))
    assert content["policies"][0]["policy"] == "shop/deployment-web"
    for name, expected in (("no", "no such file"), ("report.json", "is not a Parquet file")):
        wrong = run("explain", folder, "--evidence", folder / name).exception
        assert isinstance(wrong, CaptureError)
        assert f"{folder}/{name}: {expected}; " in str(wrong)


# approve


def test_approve_what_is_ready(folder: Path) -> None:
    told = ok("approve", folder / "policies", "--by", "Ana Lima")
    assert "Ana Lima" in told
    assert "INSUFFICIENT" not in told
    (policy,) = read_policies(folder)
    verify_approval(policy, NOW)
    file = folder / "policies/shop/deployment-web.yaml"
    assert file.read_text() == to_yaml(policy)
    assert [p.name for p in file.parent.iterdir()] == [file.name]


def test_an_approval_that_holds_is_kept(folder: Path) -> None:
    ok("approve", folder / "policies", "--by", "ana")
    before = (folder / "policies/shop/deployment-web.yaml").read_bytes()
    assert "ana (already)" in ok("approve", folder / "policies", "--by", "bob")
    assert (folder / "policies/shop/deployment-web.yaml").read_bytes() == before


@pytest.mark.parametrize("status", ["learning", "dynamic", "insufficient", "absent", "no report"])
def test_insufficient_evidence_is_refused_or_accepted_aloud(folder: Path, status: str) -> None:
    if status == "absent":
        report(folder, "ready", workloads=[])
    elif status == "no report":
        (folder / "report.json").unlink()
    else:
        report(folder, status)
    told = "unknown" if status in ("absent", "no report") else f"{status} (one hour recorded)"
    file = folder / "policies/shop/deployment-web.yaml"
    before = file.read_bytes()
    wrong = run("approve", file, "--by", "ana").exception
    assert isinstance(wrong, ApprovalError)
    assert f"shop/deployment-web is {told}" in str(wrong)
    assert "--insufficient-evidence-accepted" in str(wrong)
    assert file.read_bytes() == before
    aloud = ok("approve", file, "--by", "ana", "--insufficient-evidence-accepted")
    assert f"INSUFFICIENT EVIDENCE ACCEPTED for 1:\n  shop/deployment-web: {told}" in aloud
    verify_approval(read_policies(file)[0], NOW)


def test_comments_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "cart.yaml"
    file.write_text(CONTRACT.replace("    port: 7070\n", "    port: 7070  # ticket 12\n"))
    (before,) = read_policies(file)
    ok("approve", file, "--by", "on", "--insufficient-evidence-accepted")
    (after,) = read_policies(file)
    verify_approval(after.model_copy(update={"expires_at": before.expires_at}), NOW)
    assert after.approval is not None
    assert after.approval.by == "on"
    changed = [
        (old, new)
        for old, new in zip(
            CONTRACT.replace("port: 7070\n", "port: 7070  # ticket 12\n").splitlines(),
            file.read_text().splitlines(),
            strict=True,
        )
        if old != new
    ]
    assert [new.strip().split(":")[0] for _, new in changed] == ["by", "at", "digest"]


def test_json_of_an_approval(folder: Path) -> None:
    content = json.loads(ok("approve", folder / "policies", "--by", "ana", "--json"))
    (one,) = content["approved"]
    assert one["status"] == "ready"
    assert one["approval"]["digest"] == digest(WEB)


def test_a_report_of_something_else(folder: Path) -> None:
    (folder / "report.json").write_text("[]")
    wrong = run("approve", folder / "policies", "--by", "ana").exception
    assert isinstance(wrong, PolicyError)
    assert "is not a report of portforge recommend" in str(wrong)
    wrong = run("approve", folder, "--by", "ana", "--report", folder / "no").exception
    assert "no: cannot be read: no such file" in str(wrong)


def test_a_full_disk_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = folder / "policies/shop/deployment-web.yaml"
    write_policies(
        [WEB.model_copy(update={"name": "b", "workload": WEB.workload._replace(name="b")})],
        folder / "policies",
    )
    report(folder, "ready")
    before = {f: f.read_bytes() for f in file.parent.iterdir()}

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    wrong = run(
        "approve", folder / "policies", "--by", "ana", "--insufficient-evidence-accepted"
    ).exception
    assert isinstance(wrong, WriteError)
    assert "cannot be written: no space left on device; check free space" in str(wrong)
    assert {f: f.read_bytes() for f in file.parent.iterdir()} == before


def test_nobody_approves_nothing(folder: Path) -> None:
    assert run("approve", folder, "--by", " ").exit_code == 2


# simulate


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    rows = [
        row("web", "ingress", "TCP", 90, "front", connections=23),
        row("web", "ingress", "TCP", 22, "192.0.2.9", verdict="refused", connections=101),
    ]
    return write_capture(tmp_path / "capture", rows)


def test_simulate(folder: Path, capture: Path) -> None:
    told = ok("simulate", folder / "policies", capture)
    assert "connections: 23 allowed, 101 denied, 0 audited, 0 uncertain" in told
    assert "1 rule(s) nothing used:\n  shop/deployment-web in-tcp-80\n" in told
    assert (
        "\n  shop/Deployment/web\n"
        "    ingress denied, no rule for TCP 22: 101 connections, none had worked; "
        "first 2026-03-02 08:00:00Z TCP 22 from external (192.0.2.9), was refused\n"
    ) in told
    content = json.loads(ok("simulate", folder / "policies", capture, "--json"))
    assert content["connections"]["denied"] == 101
    assert content["mode"] == "Enforce"
    assert [(c["reason"], c["connections"]) for c in content["causes"]] == [
        ("no rule for TCP 22", 101)
    ]


def test_simulate_a_window(folder: Path, capture: Path) -> None:
    late = row("web", "ingress", "TCP", 443, "front", at=30, connections=7)
    write_capture(capture, [late])
    args = ("simulate", folder / "policies", capture)
    assert "23 allowed, 108 denied" in ok(*args)
    assert "0 allowed, 7 denied" in ok(*args, "--since", "1h")
    assert "23 allowed, 101 denied" in ok(*args, "--until", "2026-03-02T09:00:00Z")
    wrong = run(*args, "--since", "2027-01-01T00:00:00Z").exception
    assert isinstance(wrong, CaptureError)


def test_simulate_in_each_policys_own_mode(folder: Path, capture: Path) -> None:
    for mode, told in (
        ("Record", "124 allowed, 0 denied, 0 audited"),
        ("Audit", "23 allowed, 0 denied, 101 audited"),
    ):
        mine = folder / f"own-{mode}"
        shutil.copytree(folder / "policies", mine)
        for file in mine.rglob("*.yaml"):
            file.write_text(re.sub(r"mode: \w+", f"mode: {mode}", file.read_text()))
        assert told in ok("simulate", mine, capture, "--mode", "own")
        assert "23 allowed, 101 denied" in ok("simulate", mine, capture), "as if enforced"


def test_simulate_against_other_policies(folder: Path, capture: Path) -> None:
    none = folder / "closed"
    shutil.copytree(folder / "policies", none)
    for file in none.rglob("*.yaml"):
        text = file.read_text()
        assert "port: 90" in text
        file.write_text(text.replace("port: 90", "port: 91").replace("tcp-90", "tcp-91"))
    policies = folder / "policies"
    told = ok("simulate", none, capture, "--against", policies)
    assert told == (
        "Newly denied: 23 connections, all had worked\n"
        "  shop/Deployment/web\n"
        "    ingress denied, no rule for TCP 90 (before: allowed, any peer): 23 connections, "
        "all had worked; first 2026-03-02 08:00:00Z TCP 90 from shop/front "
        "(10.77.1.54), was allowed\n"
        "connections: 23 newly denied, 0 newly audited, 0 newly uncertain, 0 newly allowed, "
        "101 as before\n"
    )
    gate = ("--fail-on-denied",)
    ok("simulate", none, capture, "--against", policies, *gate, code=3)
    assert "Newly allowed: 23" in ok("simulate", policies, capture, "--against", none, *gate)
    same = json.loads(ok("simulate", policies, capture, "--against", policies, "--json"))
    assert same["changes"] == []
    assert same["connections"]["unchanged"] == 124


def test_simulate_as_a_gate(folder: Path, capture: Path) -> None:
    gate = ("simulate", folder / "policies", capture, "--fail-on-denied")
    ok(*gate, code=3)
    ok(*gate, "--answered-only")
    ok(*gate, "--mode", "audit")


@pytest.mark.parametrize("command", ["simulate", "verify", "drift", "roles"])
def test_an_engine_that_is_not_there(folder: Path, capture: Path, command: str) -> None:
    policies = () if command == "roles" else (folder / "policies",)
    args = (command, *policies, capture, "--engine")
    assert run(*args, "duckdb").exit_code in (0, 3)
    assert "no engine 'nowhere'" in str(run(*args, "nowhere").exception)


def test_simulate_without_a_capture(folder: Path) -> None:
    wrong = run("simulate", folder / "policies", folder / "nowhere").exception
    assert isinstance(wrong, CaptureError)
