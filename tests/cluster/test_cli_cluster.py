"""What people type against a cluster, said to a real API server with the chart's own roles.

ana writes, ben approves, rita is on call, vic only looks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from localcluster.binaries import BINARIES
from localcluster.control import ControlPlane

from portforge.capture import open_capture
from portforge.cli import main

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/portforge"
ROLES = {
    "ana": "analyst",
    "ben": "approver",
    "bea": "approver",
    "rita": "responder",
    "vic": "viewer",
}

CART = """\
apiVersion: portforge.dev/v1alpha1
kind: PortPolicy
metadata: {namespace: shop, name: deployment-cart}
spec:
  workload: {kind: Deployment, name: cart}
  ingress:
  - id: in-tcp-7070
    protocol: TCP
    port: 7070
"""
WEB = CART.replace("cart", "web").replace("7070", "80")

Run = Callable[..., subprocess.CompletedProcess[str]]


def kubectl(plane: ControlPlane, *words: str, give: str | None = None) -> str:
    command = [str(BINARIES / "kubectl"), f"--kubeconfig={plane.kubeconfig}", *words]
    done = subprocess.run(command, input=give, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def plane(api_server: ControlPlane) -> ControlPlane:
    """The API server with the chart's kinds, roles and admission policies, and a user of each."""
    kubectl(api_server, "create", "namespace", "shop")
    kubectl(api_server, "create", "namespace", "portforge")
    kubectl(api_server, "apply", "--server-side", "-f", str(CHART / "crds"))
    made = subprocess.run(
        [
            *(BINARIES / "helm", "template", "portforge", CHART, "-n", "portforge"),
            *("-s", "templates/rbac.yaml", "-s", "templates/admission.yaml"),
            *("-s", "templates/serviceaccounts.yaml"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    kubectl(api_server, "apply", "--server-side", "-f", "-", give=made.stdout)
    for user, role in ROLES.items():
        kubectl(
            api_server,
            *("create", "clusterrolebinding", f"test-{user}"),
            *(f"--clusterrole=portforge-{role}", f"--user={user}"),
        )
    kubectl(
        api_server,
        *("create", "rolebinding", "test-capture", "-n", "portforge"),
        *("--role=portforge-capture", "--user=ana"),
    )
    kubectl(api_server, "wait", "--for=condition=Established", "crd", "--all")
    until_admission_is_awake(api_server)
    return api_server


def until_admission_is_awake(plane: ControlPlane) -> None:
    """An admission policy takes some seconds until it says no."""
    bad = CART.replace("deployment-cart", "probe").replace("spec:\n", "spec:\n  author: nobody\n")
    command = [BINARIES / "kubectl", f"--kubeconfig={plane.kubeconfig}", "apply", "-f", "-"]
    for _ in range(60):
        done = subprocess.run(
            [*command, "--dry-run=server"], input=bad, capture_output=True, text=True, check=False
        )
        if "spec.author" in done.stderr:
            return
        time.sleep(0.5)
    pytest.fail("the admission policies never refused anything")


@pytest.fixture
def as_user(plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line as a user of the cluster, in this process: a start takes a second."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(user: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
        given = [*map(str, words)]
        if "--kubeconfig" not in given:
            given += ["--kubeconfig", str(plane.pki.kubeconfig(user))]
        monkeypatch.setattr(sys, "argv", ["portforge", *given])
        out, err = StringIO(), StringIO()
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as end:
            main()
        return subprocess.CompletedProcess(given, end.value.code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(autouse=True)
def clean(plane: ControlPlane) -> Iterator[None]:
    yield
    kubectl(plane, "delete", "portpolicies", "--all", "-n", "shop")
    kubectl(plane, "delete", "breakglasses", "--all")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "cart.yaml").write_text(CART)
    (folder / "web.yaml").write_text(WEB)
    return folder


def spec(plane: ControlPlane, name: str) -> dict[str, Any]:
    return json.loads(kubectl(plane, "get", "pp", "-n", "shop", name, "-o", "json"))["spec"]


def owners(plane: ControlPlane, name: str) -> dict[str, set[str]]:
    """Which fields of the spec each field manager owns."""
    got = kubectl(plane, "get", "pp", "-n", "shop", name, "-o", "json", "--show-managed-fields")
    entries = json.loads(got)["metadata"]["managedFields"]
    return {
        e["manager"]: {k[2:] for k in e["fieldsV1"].get("f:spec", {}) if k.startswith("f:")}
        for e in entries
        if "subresource" not in e
    }


def test_the_analyst_applies_in_audit_and_is_stamped_as_the_author(plane, as_user, files):
    first = as_user("ana", "apply", files, "--cluster")
    assert first.returncode == 0, first.stderr
    assert "shop/deployment-cart: created, in Audit, by ana" in first.stdout
    assert spec(plane, "deployment-cart")["author"] == "ana"
    assert spec(plane, "deployment-cart")["mode"] == "Audit"
    again = as_user("ana", "apply", files, "--cluster")
    assert again.stdout.count("unchanged, stays in Audit, by ana") == 2


def test_a_dry_run_changes_nothing(plane, as_user, files):
    done = as_user("ana", "apply", files, "--cluster", "--dry-run")
    assert done.stdout.count("(dry run)") == 2, done.stderr
    assert kubectl(plane, "get", "pp", "-A", "-o", "name") == ""


def test_enforce_is_refused_for_the_analyst_and_done_by_the_approver(plane, as_user, files):
    as_user("ana", "apply", files, "--cluster")
    refused = as_user("ana", "apply", files, "--cluster", "--mode", "enforce")
    assert refused.returncode == 5
    assert "ana may not enforce" in refused.stderr
    assert "portforge-approver" in refused.stderr
    assert "0 of 2 policies applied" in refused.stdout
    done = as_user("ben", "apply", files, "--cluster", "--mode", "enforce")
    assert done.returncode == 0, done.stderr
    assert "deployment-cart: changed, Audit → Enforce, by ana, approved by ben" in done.stdout
    now = spec(plane, "deployment-cart")
    assert (now["mode"], now["author"], now["approval"]["by"]) == ("Enforce", "ana", "ben")
    mine = owners(plane, "deployment-cart")
    assert mine["portforge-approval"] == {"mode", "approval"}
    assert not mine["portforge"] & {"mode", "approval", "confirmBefore"}


def test_the_approver_alone_is_told_that_it_takes_two(as_user, files):
    refused = as_user("ben", "apply", files, "--cluster", "--mode", "enforce")
    assert refused.returncode == 5
    assert "ben wrote this policy and cannot approve it" in refused.stderr


def test_an_analyst_applying_again_does_not_lift_what_is_enforced(plane, as_user, files):
    as_user("ana", "apply", files, "--cluster")
    as_user("ben", "apply", files, "--cluster", "--mode", "enforce")
    same = as_user("ana", "apply", files, "--cluster")
    assert same.stdout.count("unchanged, stays in Enforce, by ana") == 2, same.stderr
    (files / "cart.yaml").write_text(CART.replace("7070", "7071"))
    other = as_user("ana", "apply", files, "--cluster")
    assert other.returncode == 5
    assert "ana may not enforce" in other.stderr
    lifted = as_user("ana", "apply", files, "--cluster", "--mode", "audit")
    assert lifted.returncode == 5
    assert spec(plane, "deployment-cart")["mode"] == "Enforce"
    assert spec(plane, "deployment-cart")["ingress"][0]["port"] == 7070


def test_the_way_of_a_change_rollback_apply_approve(plane, as_user, files):
    as_user("ana", "apply", files, "--cluster")
    as_user("ben", "apply", files, "--cluster", "--mode", "enforce")
    refused = as_user("ana", "rollback", "--cluster", "-n", "shop", "deployment-cart")
    assert refused.returncode == 5
    back = as_user("ben", "rollback", "--cluster", "-n", "shop", "deployment-cart")
    assert back.stdout == "shop/deployment-cart: Enforce → Audit\n", back.stderr
    assert "approval" not in spec(plane, "deployment-cart")
    (files / "cart.yaml").write_text(CART.replace("7070", "7071"))
    assert as_user("ana", "apply", files, "--cluster").returncode == 0
    done = as_user("ben", "apply", files, "--cluster", "--mode", "enforce")
    assert done.returncode == 0, done.stderr
    assert spec(plane, "deployment-cart")["ingress"][0]["port"] == 7071


def test_a_trial_is_shown_and_confirmed_by_the_approver(plane, as_user, files):
    as_user("ana", "apply", files, "--cluster")
    words = ("--cluster", "--mode", "enforce", "--confirm-within", "10m")
    trial = as_user("ben", "apply", files, *words)
    assert "On trial until" in trial.stdout, trial.stderr
    assert "confirmBefore" in spec(plane, "deployment-cart")
    shown = as_user("vic", "confirm")
    assert "shop/deployment-cart: on trial until" in shown.stdout
    assert "2 on trial" in shown.stdout
    assert as_user("ana", "confirm", "--all").returncode == 5
    one = as_user("ben", "confirm", "deployment-web")
    assert one.stdout == "shop/deployment-web: confirmed, stays in Enforce\n", one.stderr
    rest = as_user("ben", "confirm", "-n", "shop", "--all")
    assert rest.stdout == "shop/deployment-cart: confirmed, stays in Enforce\n"
    now = spec(plane, "deployment-cart")
    assert "confirmBefore" not in now
    assert now["mode"] == "Enforce"
    assert as_user("ben", "confirm", "deployment-web").returncode == 1


def test_a_trial_that_ended_cannot_be_confirmed(as_user, files):
    as_user("ana", "apply", files, "--cluster")
    words = ("--cluster", "--mode", "enforce", "--confirm-within", "1s")
    as_user("ben", "apply", files, *words)
    time.sleep(1.2)
    late = as_user("ben", "confirm", "--all")
    assert late.returncode == 1
    assert "the nodes went back; apply it again" in late.stderr


def test_another_field_manager_is_named_and_can_be_overruled(plane, as_user, files):
    as_user("ana", "apply", files, "--cluster")
    kubectl(
        plane,
        *("patch", "pp", "-n", "shop", "deployment-cart", "--type=merge"),
        *("--field-manager=argocd-controller",),
        *("-p", json.dumps({"spec": {"established": "Keep", "author": "admin"}})),
    )
    conflict = as_user("ana", "apply", files, "--cluster")
    assert conflict.returncode == 5
    assert "argocd-controller owns" in conflict.stderr
    assert "--force-conflicts" in conflict.stderr
    assert as_user("ana", "apply", files, "--cluster", "--force-conflicts").returncode == 0
    assert spec(plane, "deployment-cart")["established"] == "Rejudge"


def test_what_would_cut_dns_is_not_enforced_unless_said_aloud(as_user, files):
    egress = """\
  egress:
  - id: out-tcp-5432
    protocol: TCP
    port: 5432
    peers:
    - workload: {namespace: shop, kind: StatefulSet, name: postgres}
"""
    (files / "cart.yaml").write_text(CART + egress)
    as_user("ana", "apply", files, "--cluster")
    stopped = as_user("ben", "apply", files, "--cluster", "--mode", "enforce")
    assert stopped.returncode == 3
    assert "no egress rule allows UDP 53 and TCP 53" in stopped.stderr
    forced = as_user("ben", "apply", files, "--cluster", "--mode", "enforce", "--force")
    assert forced.returncode == 0, forced.stderr
    assert "OVERRIDDEN with --force: shop/deployment-cart" in forced.stderr


def test_a_capture_says_who_needs_the_cluster_s_dns(as_user, tmp_path):
    """What the shipped capture saw is checked against Services of the real API server."""
    seen = open_capture(ROOT / "datasets/shop").sql(
        "SELECT namespace, workload_kind, workload, peer_ip FROM flows "
        "WHERE direction = 'egress' AND port = 53 AND peer_kind IN ('service', 'workload')"
    )
    namespace, kind, name, address = (str(v) for v in seen.iloc[0])
    policy = CART.replace("{kind: Deployment, name: cart}", f"{{kind: {kind}, name: {name}}}")
    policy = policy.replace("namespace: shop", f"namespace: {namespace}") + "  egress: []\n"
    file = tmp_path / "policy.yaml"
    file.write_text(policy)
    words = ("--cluster", "--mode", "enforce", "--capture", ROOT / "datasets/shop")
    stopped = as_user("ben", "apply", file, *words)
    assert stopped.returncode == 3, stopped.stderr
    assert f"it was seen to ask {address}" in stopped.stderr
    assert "not checked" not in stopped.stderr  # an approver may read what it compares with


def test_when_one_fails_all_are_left_as_they_were(plane, as_user, files):
    (files / "web.yaml").write_text(WEB.replace("namespace: shop", "namespace: nowhere"))
    failed = as_user("ana", "apply", files, "--cluster")
    assert failed.returncode == 5
    assert "nowhere/deployment-web" in failed.stderr
    assert "0 of 2 policies applied, 2 not." in failed.stdout
    assert kubectl(plane, "get", "pp", "-A", "-o", "name") == ""


def test_an_approver_who_changes_what_is_enforced_hears_that_the_approval_is_gone(as_user, files):
    as_user("ana", "apply", files, "--cluster")
    as_user("ben", "apply", files, "--cluster", "--mode", "enforce")
    (files / "cart.yaml").write_text(CART.replace("7070", "7071"))
    changed = as_user("bea", "apply", files, "--cluster")
    assert changed.returncode == 0, changed.stderr
    assert "the approval no longer holds" in changed.stdout
    done = as_user("ben", "apply", files, "--cluster", "--mode", "enforce")
    assert "by bea, approved by ben" in done.stdout, done.stderr


def test_status_shows_policies_and_nodes(as_user, files):
    as_user("ana", "apply", files, "--cluster")
    told = as_user("vic", "status", "--cluster", "-n", "shop")
    assert told.returncode == 0, told.stderr
    assert "shop/deployment-cart" in told.stdout
    data = json.loads(as_user("vic", "status", "--cluster", "--json").stdout)
    assert [p["name"] for p in data["policies"]] == ["deployment-cart", "deployment-web"]
    assert data["policies"][0]["mode"] == "Audit"


def test_breaking_the_glass_takes_one_command_and_leaves_a_name(as_user):
    refused = as_user("ana", "break-glass", "--reason", "I am curious")
    assert refused.returncode == 5
    assert "ana may not create breakglasses.portforge.dev" in refused.stderr
    begun = time.monotonic()
    done = as_user("rita", "break-glass", "--reason", "checkout is down", "--expires-in", "2h")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begun < 10
    assert "enforcement lifted on every node until" in done.stdout
    one = as_user("rita", "break-glass", "--reason", "losses", "--node", "node-b")
    name = one.stdout.partition(":")[0]
    listed = as_user("vic", "break-glass", "--list").stdout
    assert "by rita: checkout is down" in listed
    assert "on node-b until it is ended" in listed
    assert "BREAK-GLASS" in as_user("vic", "status", "--cluster").stdout
    assert as_user("rita", "break-glass", "--end", name).returncode == 0
    assert as_user("rita", "break-glass", "--end", "--all").returncode == 0
    assert as_user("vic", "break-glass", "--list").stdout == "nothing is lifted\n"


def test_the_kubectl_plug_in_means_the_cluster(plane, files, monkeypatch):
    plugin = ROOT / "deploy/kubectl/kubectl-portforge"
    monkeypatch.setenv("PORTFORGE_PYTHON", sys.executable)
    monkeypatch.setenv("PATH", f"{plugin.parent}:{BINARIES}:{os.environ['PATH']}")

    def kubectl_portforge(user: str, *words: str | Path) -> str:
        environment = {**os.environ, "KUBECONFIG": str(plane.pki.kubeconfig(user))}
        done = subprocess.run(
            [BINARIES / "kubectl", "portforge", *words],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    kubectl_portforge("ana", "apply", files, "-n", "shop")
    told = kubectl_portforge("vic", "status", "-n", "shop", "--json")
    assert len(json.loads(told)["policies"]) == 2


def test_what_is_wrong_is_said_in_a_sentence(plane, as_user, tmp_path):
    stranger = as_user("eve", "status", "--cluster")
    assert stranger.returncode == 5
    assert "eve may not list portpolicies.portforge.dev" in stranger.stderr
    nowhere = as_user("ana", "status", "--cluster", "--kubeconfig", tmp_path / "none")
    assert nowhere.returncode == 5
    assert "kubeconfig" in nowhere.stderr
    dead = tmp_path / "dead.kubeconfig"
    text = plane.pki.kubeconfig("ana").read_text()
    dead.write_text(text.replace(f":{plane.port}", ":1"))
    away = as_user("ana", "status", "--cluster", "--kubeconfig", dead)
    assert away.returncode == 5
    assert "cannot be reached" in away.stderr


def test_drift_asks_the_cluster_for_the_policies_in_force(as_user, files):
    as_user("ana", "apply", files, "--cluster")
    shop = ROOT / "datasets/shop"
    done = as_user("vic", "drift", shop, "--cluster", "-n", "shop", "--json")
    assert done.returncode == 3, done.stderr
    found = json.loads(done.stdout)
    assert [(w["workload"], w["rules"]) for w in found["workloads"]] == [("cart", 1), ("web", 1)]
    assert {one["workload"] for one in found["missing"]} == {"web"}, "cart is not in that capture"
    assert all(one["add"]["id"] == one["rule"] for one in found["missing"])
