"""The chart against a real API server without nodes: installed, changed, cleaned up, removed.

What needs nodes (the hook's Job, helm test) is tested where the whole cluster is.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from localcluster.binaries import BINARIES

from portforge.errors import ClusterError
from portforge.kube.agents import clean_nodes, cleaning_patch, examine
from portforge.kube.client import connect, request

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/portforge"
DAEMONSET = "/apis/apps/v1/namespaces/portforge/daemonsets/portforge"


@pytest.fixture(scope="module")
def run(api_server):
    """Run helm or kubectl as the administrator; gives its output."""

    def call(program, *words, given=None, fails=False):
        done = subprocess.run(
            [str(BINARIES / program), *words],
            env={**os.environ, "KUBECONFIG": str(api_server.kubeconfig)},
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
        assert (done.returncode != 0) is fails, done.stdout + done.stderr
        return done.stdout + done.stderr

    return call


@pytest.fixture(scope="module")
def installed(run):
    told = run(
        *("helm", "install", "portforge", str(CHART), "-n", "portforge", "--create-namespace"),
        *("--set", "clusterName=lab", "--set", "monitoring.dashboard.enabled=true"),
        *("--set", "admission.allowSelfApproval=true", "--wait=hookOnly"),
    )
    assert "portforge capture pull -n portforge" in told
    return run


@pytest.fixture(scope="module")
def api(api_server):
    return connect(api_server.kubeconfig)


def test_the_api_server_takes_every_object(installed, api):
    template = request(api, "GET", DAEMONSET)["spec"]["template"]["spec"]
    assert [c["name"] for c in template["initContainers"]] == ["loader"]
    kinds = installed("kubectl", "get", "crd", "-o", "name")
    for kind in ("portpolicies", "nodereports", "breakglasses"):
        assert f"{kind}.portforge.dev" in kinds


def test_an_upgrade_is_taken(installed, api):
    installed(
        *("helm", "upgrade", "portforge", str(CHART), "-n", "portforge", "--reuse-values"),
        *("--set", "agent.logLevel=debug", "--wait=hookOnly"),
    )
    (agent,) = request(api, "GET", DAEMONSET)["spec"]["template"]["spec"]["containers"]
    env = {e["name"]: e.get("value") for e in agent["env"]}
    assert (env["PORTFORGE_LOG_LEVEL"], env["PORTFORGE_CLUSTER"]) == ("debug", "lab")


@pytest.mark.usefixtures("installed")
def test_the_cleaning_patch_keeps_volumes_and_capabilities(api):
    before = request(api, "GET", DAEMONSET)["spec"]["template"]["spec"]
    after = request(
        api,
        "PATCH",
        DAEMONSET,
        params={"dryRun": "All"},
        headers={"Content-Type": "application/strategic-merge-patch+json"},
        body=cleaning_patch(datetime.now(UTC), "/var/lib/portforge/state"),
    )["spec"]["template"]["spec"]
    (old,), (new,) = before["initContainers"], after["initContainers"]
    assert new["args"][:2] == ["doctor", "--clean=$(PORTFORGE_NODE)"]
    assert {k: v for k, v in new.items() if k != "args"} == {
        k: v for k, v in old.items() if k != "args"
    }
    (agent,) = after["containers"]
    assert not {"args", "livenessProbe", "readinessProbe", "startupProbe"} & set(agent)
    assert agent["command"][0] == "/usr/bin/python3"
    assert after["volumes"] == before["volumes"]


@pytest.mark.usefixtures("installed")
def test_no_agent_and_no_daemonset_are_said(api):
    with pytest.raises(ClusterError, match="no agent runs here"):
        examine(api, "portforge")
    with pytest.raises(ClusterError, match="not found"):
        clean_nodes(api, "portforge", "other", None, 1, print)


def told_by(run, words, given):
    """What it says, whether or not it is refused."""
    try:
        return run(*words, given=given)
    except AssertionError as refused:
        return str(refused)


def test_kustomize_is_taken_and_audit_only_refuses_enforce(installed):
    for overlay in ("dev", "audit-only"):
        folder = ROOT / "deploy/kustomize/overlays" / overlay
        installed(
            *("kubectl", "apply", "--server-side", "--force-conflicts", "--dry-run=server"),
            *("-k", str(folder)),
        )
    rules = ROOT / "deploy/kustomize/overlays/audit-only/admission.yaml"
    installed("kubectl", "apply", "-f", str(rules))

    def policy(mode):
        return json.dumps(
            {
                "apiVersion": "portforge.dev/v1alpha1",
                "kind": "PortPolicy",
                "metadata": {"namespace": "default", "name": "deployment-cart"},
                "spec": {
                    "workload": {"kind": "Deployment", "name": "cart"},
                    "mode": mode,
                    "author": "admin",
                    "ingress": [],
                    "approval": {
                        "by": "admin",
                        "at": "2026-01-01T00:00:00Z",
                        "digest": "sha256:" + "0" * 64,
                    },
                },
            }
        )

    words = ("kubectl", "create", "--dry-run=server", "-f", "-")
    until = time.monotonic() + 30  # the API server compiles a new admission policy in the back
    while True:
        told = told_by(installed, words, policy("Enforce"))
        if "audit-only" in told or time.monotonic() > until:
            break
        time.sleep(0.5)
    assert "this cluster is audit-only; mode Enforce is not admitted here" in told
    assert "audit-only" not in told_by(installed, words, policy("Audit"))
    installed("kubectl", "delete", "-f", str(rules))


def test_what_is_uninstalled_is_gone_but_the_crds(installed):
    installed("helm", "uninstall", "portforge", "-n", "portforge", "--no-hooks")
    left = installed(
        *("kubectl", "get", "-A", "-l", "app.kubernetes.io/part-of=portforge", "-o", "name"),
        "ds,svc,cm,sa,role,rolebinding,clusterrole,clusterrolebinding,"
        "validatingadmissionpolicy,validatingadmissionpolicybinding",
    )
    assert not [line for line in left.splitlines() if "/" in line], left
    assert "portpolicies.portforge.dev" in installed("kubectl", "get", "crd", "-o", "name")
