"""Argo CD's health checks, run by a real Lua interpreter on objects as the cluster has them."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from portforge_recorder.aggregate import aggregate

ARGOCD = Path(__file__).parents[2] / "deploy/argocd"
LUA = next((p for p in map(shutil.which, ("lua5.4", "lua5.3", "lua5.1", "lua")) if p), None)


def table(value):
    """A Python value as Lua source; None is left out as Argo CD leaves out what is absent."""
    if isinstance(value, dict):
        fields = (f"[{json.dumps(k)}]={table(v)}" for k, v in value.items() if v is not None)
        return "{" + ", ".join(fields) + "}"
    if isinstance(value, list):
        return "{" + ", ".join(map(table, value)) + "}"
    return json.dumps(value, ensure_ascii=False)


def health(check, obj):
    assert LUA, "apt-get install lua5.4"
    source = (ARGOCD / check).read_text()
    program = (
        f"local obj = {table(obj)}\n"
        f"local hs = (function()\n{source}\nend)()\n"
        'io.write(hs.status, "\\n", hs.message)'
    )
    done = subprocess.run([LUA, "-"], input=program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    status, message = done.stdout.split("\n", 1)
    assert message
    return status, message


def policy(mode="Enforce", *, generation=3, observed=3, confirm=None, **conditions):
    return {
        "metadata": {"namespace": "shop", "name": "deployment-cart", "generation": generation},
        "spec": {"mode": mode, "confirmBefore": confirm},
        "status": {
            "observedGeneration": observed,
            "nodes": 3,
            "appliedNodes": 3,
            "conditions": [
                {"type": kind, "status": status, "message": message}
                for kind, (status, message) in conditions.items()
            ],
        },
    }


GOOD = ("True", "")
BAD = ("False", "node-b does not enforce it yet")


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (policy(Ready=GOOD, Enforced=GOOD), "Healthy"),
        (policy("Audit", Ready=GOOD, Enforced=BAD), "Healthy"),
        (policy("Record", Ready=GOOD), "Healthy"),
        (policy(Ready=GOOD, Enforced=BAD), "Progressing"),
        (policy(Ready=BAD, Enforced=BAD, Degraded=("False", "")), "Progressing"),
        (policy(Ready=GOOD), "Progressing"),
        (policy(observed=2, Ready=GOOD, Enforced=GOOD), "Progressing"),
        (policy(Ready=GOOD, Enforced=GOOD, Degraded=("True", "node-b: unapproved")), "Degraded"),
        (policy(observed=2, Degraded=("True", "of the version before")), "Progressing"),
        (policy(confirm="2026-01-01T00:00:00Z", Ready=GOOD, Enforced=GOOD), "Suspended"),
        (policy(confirm="2026-01-01T00:00:00Z", observed=2, Ready=GOOD), "Suspended"),
        (policy(confirm="2026-01-01T00:00:00Z", Degraded=("True", "rolled back")), "Degraded"),
        ({"metadata": {"generation": 1}, "spec": {"mode": "Audit"}}, "Progressing"),
        ({"metadata": {}, "status": {}}, "Progressing"),
    ],
)
def test_health_of_a_policy(obj, expected):
    assert health("portpolicy-health.lua", obj)[0] == expected


def test_the_reason_is_passed_on():
    bad = policy(Enforced=GOOD, Degraded=("True", "node-b: the digest does not hold"))
    assert health("portpolicy-health.lua", bad)[1] == "node-b: the digest does not hold"
    assert health("portpolicy-health.lua", policy(Enforced=GOOD))[1] == "3 of 3 nodes"


def report(**status):
    whole = {
        "agent": "0.1.0",
        "heartbeat": "2026-01-01T00:00:00Z",
        "canary": "2026-01-01T00:00:00Z",
        "synced": True,
        "losses": 0,
        "breakGlass": None,
        "policies": [],
    }
    return {"metadata": {"name": "node-a"}, "status": {**whole, **status}}


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (report(), "Healthy"),
        (report(breakGlass="outage-17"), "Suspended"),
        (report(synced=False), "Progressing"),
        (report(canary=None), "Progressing"),
        ({"metadata": {"name": "node-a"}}, "Progressing"),
        (
            report(policies=[{"namespace": "shop", "name": "a", "problem": "no approval"}]),
            "Degraded",
        ),
        (report(policies=[{"namespace": "shop", "name": "a", "problem": ""}]), "Healthy"),
    ],
)
def test_health_of_a_report(obj, expected):
    assert health("nodereport-health.lua", obj)[0] == expected


def test_the_patch_for_argocd_cm_holds_these_checks(tmp_path):
    written = tmp_path / "cm.yaml"
    subprocess.run([str(ARGOCD / "render"), str(written)], check=True)
    assert written.read_text() == (ARGOCD / "argocd-cm.yaml").read_text(), (
        "run deploy/argocd/render"
    )
    data = YAML(typ="safe").load(written)["data"]
    for kind in ("PortPolicy", "NodeReport"):
        source = data[f"resource.customizations.health.portforge.dev_{kind}"]
        assert source == (ARGOCD / f"{kind.lower()}-health.lua").read_text()


def test_the_applications_do_not_prune_policies():
    chart, policies = YAML(typ="safe").load_all(ARGOCD / "application.yaml")
    assert chart["spec"]["source"]["path"] == "deploy/helm/portforge"
    assert policies["spec"]["syncPolicy"]["automated"]["prune"] is False


@pytest.mark.parametrize(
    ("state", "mode", "problem", "expected"),
    [
        ("Active", "Enforce", "", "Healthy"),
        ("Unapproved", "Audit", "the digest does not hold", "Degraded"),
        ("BreakGlass", "Audit", "break-glass outage", "Degraded"),
        ("Active", "Audit", "", "Progressing"),
    ],
)
def test_health_of_a_status_as_the_agents_write_it(state, mode, problem, expected):
    now = datetime(2026, 1, 1, tzinfo=UTC)
    asked = {
        "metadata": {"namespace": "shop", "name": "deployment-cart", "generation": 2},
        "spec": {"mode": "Enforce"},
    }
    entry = {"namespace": "shop", "name": "deployment-cart", "generation": 2, "pods": 1}
    entry |= {"state": state, "mode": mode, "problem": problem}
    said = {"heartbeat": now.isoformat(), "policies": [entry]}
    reports = [{"metadata": {"name": "node-a"}, "status": said}]
    asked["status"] = aggregate([asked], reports, now)["shop/deployment-cart"]
    assert health("portpolicy-health.lua", asked)[0] == expected
