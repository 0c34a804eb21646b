"""helm upgrade, helm rollback and helm uninstall on a real cluster under load: what is enforced
goes on through the first two, and nothing is left by the last.

A change of the BPF programs themselves is not made here: one checkout has one version of them.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable

import pytest
from localcluster.node import Node

from portforge.apply.pins import pin_home

from .outcome import Row
from .release import NAMESPACE, until
from .standing import Standing

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(900),  # with the installation, on a machine that is shared
]


def rolled(standing: Standing, what: str, act: Callable[[], object]) -> Row:
    """Do ``act``, which must replace every agent, under load; nothing may open, nothing be lost."""
    standing.switch("Audit")
    standing.converge("Audit", time.time())
    before = {node.name: standing.agent(node) for node in standing.cluster.nodes}

    def roll(row: Row) -> None:
        at = time.time()
        act()
        row.agent = standing.agents_ready(at)
        row.converged = standing.converge("Enforce")

    row = standing.during(what, roll)
    after = {node.name: standing.agent(node) for node in standing.cluster.nodes}
    assert not set(before.values()) & set(after.values()), "an agent was not replaced"
    standing.held(row)
    return row


def attached(node: Node) -> list[str]:
    """The programs at the node's kubepods cgroup, as the kernel lists them."""
    words = ("bpftool", "--json", "cgroup", "show", str(node.kubepods))
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return [str(program["name"]) for program in json.loads(done.stdout.strip() or "[]")]


def revisions(standing: Standing) -> list[int]:
    """The release's, oldest first."""
    told = json.loads(standing.release.helm("history", "portforge", "-o", "json"))
    return [int(r["revision"]) for r in told]


def test_upgrade_and_back(standing: Standing) -> None:
    """A changed value replaces every agent; helm rollback does it again."""
    release, flags = standing.release, ("--wait", "--timeout=240s")
    first = revisions(standing)[-1]
    values = release.values("agent.logLevel=debug")
    upgrade = ("upgrade", "portforge", "helm/portforge", *flags, *values)
    rolled(standing, "helm upgrade", lambda: release.helm(*upgrade))
    back = ("rollback", "portforge", str(first), *flags)
    rolled(standing, "helm rollback", lambda: release.helm(*back))


def test_uninstall_leaves_nothing(standing: Standing) -> None:
    """No pin, no link, no state; everybody talks freely, and policies wait for the next install."""
    release, cluster = standing.release, standing.cluster
    standing.switch("Enforce")
    standing.converge("Enforce", time.time())
    assert all(pin_home(node.name).exists() and attached(node) for node in cluster.nodes)
    until("the client to be served", standing.served, 300)
    before = standing.load()
    try:
        gone = time.time()
        release.uninstall()
        assert not [node.name for node in cluster.nodes if pin_home(node.name).exists()]
        assert not [name for node in cluster.nodes for name in attached(node)]
        state = cluster.folder / "host" / "state"
        assert not [str(path) for node in cluster.nodes for path in state.glob(f"{node.name}*")]
        words = ("-n", NAMESPACE, "get", "pods,daemonsets", "-o", "name")
        until("the last pods to end", lambda: standing.kubectl(*words) == "", 120)
        assert list((cluster.folder / "host" / "capture").rglob("*.parquet")), "the record is kept"
        standing.converge("Audit", gone)
        met = {p.target for p in standing.probes(time.time() - 10) if p.said == "open"}
        assert met >= set(standing.forbidden), "every forbidden connection opens now"
        after = standing.load()
        ok, failed = (after[name] - before[name] for name in ("ok", "failed"))
        assert ok > 0
        assert failed <= ok // 50
    finally:
        release.install()
    # The objects were kept: a new installation enforces them again.
    until("the policies to be in force again", lambda: standing.in_force("Enforce"), 120)
