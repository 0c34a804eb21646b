"""Faults on a real cluster of three nodes, under load: what must not open stays shut, what is
allowed is not dropped, and a change is in force on every node afterwards.

Prints a table of what was met and writes it to out/faults.md. Time limits are generous: nothing
here measures speed to judge it.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import pytest
from localcluster.control import ControlPlane

from portforge.capture import open_capture

from .outcome import Row
from .release import NAMESPACE, until
from .standing import Standing

TRIAL = 40

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(900),  # with the installation, on a machine that is shared
]


@pytest.fixture(autouse=True)
def in_audit(standing: Standing) -> None:
    """Each test begins with the echo policy in Audit: what converges is the change to Enforce."""
    standing.switch("Audit")
    standing.converge("Audit", time.time())


def test_agent_killed(standing: Standing) -> None:
    """kill -9 of an agent: the kernel enforces and counts on; a new one adopts what is there."""
    node = standing.quiet

    def kill(row: Row) -> None:
        pid, at = standing.agent_pid(node), time.time()
        assert pid
        os.kill(pid, signal.SIGKILL)
        row.converged = standing.converge("Enforce")
        until("another agent", lambda: standing.agent_pid(node) not in (None, pid), 120)
        row.agent = standing.agents_ready(at)

    began = time.time()
    row = standing.during("agent killed (kill -9)", kill, least=20)
    standing.held(row)
    # The kernel went on counting: the client of nobody's node is in the rows of its own node, and
    # no stretch without rows is left untold.
    time.sleep(10)
    capture = open_capture(standing.cluster.folder / "host" / "capture")
    rows, told = capture.sql("FROM flows"), capture.losses()
    rows = rows[(rows["node"] == node.name) & (rows["workload"] == "warmer")]
    rows = rows[rows["last_seen"].map(datetime.timestamp) >= began].sort_values("first_seen")
    told = told[told["interval_end"].map(datetime.timestamp) >= began]
    gap = (rows["first_seen"] - rows["last_seen"].cummax().shift()).max()
    assert gap.total_seconds() < 5 or "recorder_down" in set(told["reason"])


def test_agent_pod_deleted(standing: Standing) -> None:
    """The pod goes and another comes; its init container adopts the programs."""
    node = standing.quiet

    def delete(row: Row) -> None:
        name, at = standing.agent(node), time.time()
        standing.kubectl("-n", NAMESPACE, "delete", "pod", name)
        row.agent = standing.agents_ready(at)
        row.converged = standing.converge("Enforce")

    standing.held(standing.during("agent's pod deleted", delete))


def test_node_cut_from_the_api_server(standing: Standing) -> None:
    """The others follow the change at once; the cut node goes on as before, then follows."""
    node, cut = standing.quiet, standing.cluster.network.cut

    def apart(row: Row) -> None:
        cut(node.number)
        try:
            changed = standing.switch("Enforce")
            standing.converge("Enforce", changed, without=node)
            time.sleep(15)
            own = next(iter(set(standing.echoes()) - set(standing.echoes(without=node))))
            met = [p.said for p in standing.probes(time.time() - 5) if p.target == own]
            assert met
            assert set(met) == {"open"}, "a node that heard of no change goes on"
        finally:
            cut(node.number, off=False)
        row.converged = standing.converge("Enforce", time.time())

    row = standing.during("node cut from the API server, policy changed", apart)
    until_nodes_ready(standing)
    standing.held(row)


def until_nodes_ready(standing: Standing) -> None:
    """So that the next fault begins with a whole cluster."""
    standing.kubectl("wait", "--for=condition=Ready", "nodes", "--all", "--timeout=120s")
    standing.agents_ready(0)


@contextmanager
def no_control_plane(plane: ControlPlane) -> Iterator[None]:
    """Without API server, and so without controllers: one that only lost its API server would
    take every node for dead as soon as it is back, and empty the Services."""
    for name in ("scheduler", "controller-manager", "api-server"):
        plane.processes.stop(name)
    try:
        yield
    finally:
        plane.start_api_server()
        plane.start_controllers()


def test_api_server_stopped(standing: Standing) -> None:
    """20 s without a control plane; a change right after it came back."""
    plane = standing.cluster.plane

    def stop(row: Row) -> None:
        with no_control_plane(plane):
            time.sleep(20)
        row.converged = standing.converge("Enforce")

    row = standing.during("API server stopped for 20 s", stop)
    until_nodes_ready(standing)
    standing.held(row)


def test_etcd_stopped(standing: Standing) -> None:
    """The API server answers with errors for 10 s."""
    plane = standing.cluster.plane

    def stop(row: Row) -> None:
        plane.processes.stop("etcd")
        try:
            time.sleep(10)
        finally:
            plane.start_etcd()
        standing.kubectl("get", "namespaces")
        row.converged = standing.converge("Enforce")

    row = standing.during("etcd stopped for 10 s", stop)
    until_nodes_ready(standing)
    standing.held(row)


def test_kubelet_restarted(standing: Standing) -> None:
    """5 s without a kubelet; a change meanwhile."""
    node = standing.quiet

    def restart(row: Row) -> None:
        node.processes.stop("kubelet")
        try:
            row.converged = standing.converge("Enforce")
            time.sleep(5)
        finally:
            node.start_kubelet()

    row = standing.during("kubelet restarted, policy changed meanwhile", restart, least=20)
    until_nodes_ready(standing)
    standing.held(row)


def test_containerd_restarted(standing: Standing) -> None:
    """5 s without containerd; a change meanwhile."""
    node = standing.quiet

    def restart(row: Row) -> None:
        node.processes.stop("containerd")
        try:
            row.converged = standing.converge("Enforce")
            time.sleep(5)
        finally:
            node.start_containerd()

    row = standing.during("containerd restarted, policy changed meanwhile", restart, least=20)
    until_nodes_ready(standing)
    standing.held(row)


def test_trial_ends_without_an_api_server(standing: Standing) -> None:
    """Nobody confirms, and nobody could: each node goes back by itself at the deadline."""
    plane = standing.cluster.plane
    policy = ("-n", "shop", "get", "portpolicy", "daemonset-echo", "-o", "json")

    def stop(row: Row) -> None:
        at = time.time()
        words = ("--mode=enforce", f"--confirm-within={TRIAL}s", "--force-conflicts")
        standing.apply("ben", *words, only="daemonset-echo")
        standing.converge("Enforce", at)
        spec = json.loads(standing.kubectl(*policy))["spec"]
        deadline = datetime.fromisoformat(spec["confirmBefore"]).timestamp()
        assert time.time() < deadline - 5, "too slow a machine for this trial"
        with no_control_plane(plane):
            time.sleep(deadline - time.time() + 10)
            back = time.time()
        met = [p for p in standing.probes(deadline) if p.said == "open"]
        opened = [min(p.at for p in met if p.target == echo) for echo in standing.echoes()]
        row.converged = max(opened) - deadline
        assert max(opened) < back, "it went back before anybody told it to"

    row = standing.during("trial ends while the API server is away", stop)
    until_nodes_ready(standing)
    standing.held(row)


def test_node_drained(standing: Standing) -> None:
    """Pods move to other nodes and others' policies follow their addresses."""
    name = standing.quiet.name

    def drain(row: Row) -> None:
        flags = ("--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=120s")
        standing.kubectl("drain", name, *flags)
        standing.kubectl("-n", "shop", "rollout", "status", "deployment/web", "--timeout=120s")
        standing.kubectl("uncordon", name)
        row.converged = standing.converge("Enforce")

    row = standing.during("node drained and uncordoned", drain, least=20)
    standing.held(row)
    # The pods that came are under the policy too.
    standing.probe()
    time.sleep(3)
    assert all(p.said != "open" for p in standing.probes(0))
