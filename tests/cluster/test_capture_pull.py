"""The capture comes through a real API server's pod proxy, from the agent's own HTTP server.

The pods are objects only: no kubelet runs here. Behind their address listens the real server.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from localcluster.binaries import BINARIES
from localcluster.control import ControlPlane
from prometheus_client import CollectorRegistry

from portforge.capture import open_capture
from portforge.kube.client import connect
from portforge_recorder.serve import Readers, Server

ROOT = Path(__file__).parents[2]
PORTFORGE = Path(sys.executable).with_name("portforge")
TOKEN = (
    "--verb=create",
    "--resource=serviceaccounts/token",
    "--resource-name=portforge-reader",
)
ROLE = ("--verb=get,list", "--resource=pods", "--resource=pods/proxy")


def kubectl(plane: ControlPlane, *words: str, give: str | None = None) -> None:
    command = [str(BINARIES / "kubectl"), f"--kubeconfig={plane.kubeconfig}", *words]
    done = subprocess.run(command, input=give, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def own_address() -> str:
    """An address of this machine that the API server takes for a pod's: not a loopback one."""
    told = subprocess.run(
        ["ip", "-j", "-4", "addr", "show", "scope", "global"],
        capture_output=True,
        text=True,
        check=True,
    )
    return str(json.loads(told.stdout)[0]["addr_info"][0]["local"])


def agent_pod(plane: ControlPlane, node: str, address: str | None) -> None:
    labels = {"app.kubernetes.io/name": "portforge", "app.kubernetes.io/component": "agent"}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"agent-{node}", "namespace": "portforge", "labels": labels},
        "spec": {"nodeName": node, "containers": [{"name": "agent", "image": "agent"}]},
    }
    kubectl(plane, "create", "-f", "-", give=json.dumps(pod))
    if address:
        status = {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }
        kubectl(
            plane,
            *("patch", "pod", "-n", "portforge", f"agent-{node}"),
            *("--subresource=status", "--type=merge", "-p", json.dumps({"status": status})),
        )


@pytest.fixture(scope="module")
def plane(api_server: ControlPlane) -> ControlPlane:
    for words in (
        ("create", "namespace", "portforge"),
        ("create", "serviceaccount", "default", "-n", "portforge"),
        ("create", "serviceaccount", "portforge-reader", "-n", "portforge"),
        ("create", "role", "pull", "-n", "portforge", *ROLE),
        ("create", "role", "token", "-n", "portforge", *TOKEN),
        ("create", "rolebinding", "pull", "-n", "portforge", "--role=pull", "--user=ana"),
        ("create", "rolebinding", "pull-bob", "-n", "portforge", "--role=pull", "--user=bob"),
        ("create", "rolebinding", "token", "-n", "portforge", "--role=token", "--user=ana"),
    ):
        kubectl(api_server, *words)
    agent_pod(api_server, "node-a", own_address())
    return api_server


@pytest.fixture
def serving(plane: ControlPlane, tmp_path: Path) -> Iterator[Path]:
    """The capture of node-a's agent, served until the test ends."""
    capture = tmp_path / "agent"
    shutil.copytree(ROOT / "datasets/shop/v1", capture / "v1")
    readers = Readers(connect(plane.kubeconfig), "portforge")
    server = Server(
        (own_address(), 9464), CollectorRegistry(), lambda: [], lambda: [], capture, readers
    )
    server.start()
    yield capture
    server.stop()


def pull(plane: ControlPlane, user: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "KUBECONFIG": str(plane.pki.kubeconfig(user)), "COLUMNS": "200"}
    done = subprocess.run(
        [PORTFORGE, "capture", "pull", *words],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_what_is_missing_comes_once_and_whole(plane, serving, tmp_path):
    here = tmp_path / "capture"
    first = pull(plane, "ana", "-o", here)
    assert first.returncode == 0, first.stdout + first.stderr
    assert files(here) == files(serving)
    assert open_capture(here).rows == open_capture(serving).rows
    again = pull(plane, "ana", "-o", here)
    assert "0 files (0 bytes) pulled" in again.stdout
    cut = next(here.rglob("*.parquet"))
    cut.write_bytes(cut.read_bytes()[:100])
    mended = pull(plane, "ana", "-o", here)
    assert "1 files" in mended.stdout
    assert files(here) == files(serving)


def test_only_the_time_asked_for(plane, serving, tmp_path):  # noqa: ARG001
    none = pull(plane, "ana", "-o", tmp_path / "capture", "--until", "2020-01-01")
    assert "0 files (0 bytes) pulled" in none.stdout


def test_a_node_that_is_away_is_said(plane, serving, tmp_path):
    agent_pod(plane, "node-b", None)
    try:
        done = pull(plane, "ana", "-o", tmp_path / "capture")
    finally:
        kubectl(plane, "delete", "pod", "-n", "portforge", "agent-node-b", "--force")
    assert done.returncode == 3
    assert "away: node-b: its agent is Pending" in done.stdout
    assert files(tmp_path / "capture") == files(serving)
    asked = pull(plane, "ana", "-o", tmp_path / "capture", "--node", "node-x")
    assert "away: node-x: no agent is there" in asked.stdout


def test_an_agent_that_does_not_answer_is_away(plane, tmp_path):
    done = pull(plane, "ana", "-o", tmp_path / "capture")
    assert done.returncode == 3
    assert "away: node-a" in done.stdout


def test_whoever_may_not_is_told_which_right_is_missing(plane, serving, tmp_path):  # noqa: ARG001
    bob = pull(plane, "bob", "-o", tmp_path / "capture")
    assert bob.returncode == 5
    assert "bob may not create serviceaccounts/token in namespace portforge" in bob.stderr
    eve = pull(plane, "eve", "-o", tmp_path / "capture")
    assert "eve may not list pods in namespace portforge" in eve.stderr
    assert not (tmp_path / "capture").exists()
