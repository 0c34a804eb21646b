"""The commands that touch this node, as an engineer types them, against the real kernel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from portforge.policy import Mode, PortPolicy, write_policies

from .bed import Bed
from .enforcing import policy, rule
from .talk import start, stop

PORTFORGE = Path(sys.executable).with_name("portforge")
SERVER = """
import socket
s = socket.create_server(("", 7100))
print("ready", flush=True)
while True:
    c, _ = s.accept()
    c.close()
"""


class Terminal:
    """Runs ``portforge`` with this node's inventory and state."""

    def __init__(self, bed: Bed) -> None:
        self.folder = bed.folder
        inventory = bed.folder / "inventory.yaml"
        bed.node.write_inventory(inventory)
        self.environment = {
            **os.environ,
            "PORTFORGE_INVENTORY": str(inventory),
            "PORTFORGE_STATE": str(bed.folder / "state"),
        }

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(PORTFORGE), *words],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def modes(self) -> dict[str, str | None]:
        done = self("status", "--json")
        assert done.returncode == 0, done.stderr
        return {pod["workload"]: pod["mode"] for pod in json.loads(done.stdout)["pods"]}

    def policies(self, *policies: PortPolicy) -> str:
        write_policies(policies, self.folder / "policies")
        return str(self.folder / "policies")


@pytest.fixture
def terminal(bed: Bed) -> Terminal:
    bed.node.pod("t", "Deployment", "caller")
    return Terminal(bed)


def test_audit_then_enforce_then_rollback(bed: Bed, terminal: Terminal) -> None:
    server = bed.node.pod("t", "Deployment", "server")
    caller = next(p for p in bed.node.pods if p.workload.name == "caller")
    process = start(server, SERVER)
    connect = f"import socket; socket.create_connection(('{server.address}', 7100), 2)"
    try:
        folder = terminal.policies(policy("caller", Mode.AUDIT, egress=[rule("TCP", 7300)]))
        assert (
            terminal("approve", folder, "--by", "t", "--insufficient-evidence-accepted").returncode
            == 0
        )
        assert terminal("apply", folder).returncode == 0
        assert terminal.modes()["Deployment/caller"] == "Audit"
        caller.python(connect)
        assert terminal("apply", folder, "--mode", "enforce").returncode == 0
        assert terminal.modes()["Deployment/caller"] == "Enforce"
        with pytest.raises(subprocess.CalledProcessError):
            caller.python(connect)
        assert terminal("rollback").returncode == 0
        assert terminal.modes()["Deployment/caller"] == "Audit"
        assert terminal("rollback").returncode == 0
        assert terminal.modes()["Deployment/caller"] is None
        caller.python(connect)
        empty = terminal("rollback")
        assert empty.returncode == 1
        assert "nothing to roll back to" in empty.stderr
    finally:
        stop(process)


def test_what_is_not_approved_or_was_changed_is_refused(terminal: Terminal) -> None:
    folder = terminal.policies(policy("caller", Mode.ENFORCE, egress=[rule("TCP", 7300)]))
    refused = terminal("apply", folder)
    assert refused.returncode == 1
    assert "approve" in refused.stderr
    assert terminal.modes()["Deployment/caller"] is None
    terminal("approve", folder, "--by", "t", "--insufficient-evidence-accepted")
    assert terminal("apply", folder).returncode == 0
    (file,) = Path(folder).rglob("*.yaml")
    file.write_text(file.read_text().replace("7300", "7301"))
    refused = terminal("apply", folder)
    assert refused.returncode == 1
    assert "was changed after t approved it" in refused.stderr
    assert terminal.modes()["Deployment/caller"] == "Enforce"


def test_everything_is_lifted_without_an_inventory(bed: Bed, terminal: Terminal) -> None:
    folder = terminal.policies(policy("caller", Mode.ENFORCE, egress=[rule("TCP", 7300)]))
    terminal("approve", folder, "--by", "t", "--insufficient-evidence-accepted")
    assert terminal("apply", folder).returncode == 0
    assert terminal.modes()["Deployment/caller"] == "Enforce"
    unreadable = dict(terminal.environment, PORTFORGE_INVENTORY="/nowhere.yaml")
    done = subprocess.run(
        [str(PORTFORGE), "rollback", "--node", bed.node.name, "--all"],
        env=unreadable,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert terminal.modes()["Deployment/caller"] is None
    assert not len(bed.maps.read("rules")[0])


def test_a_node_without_a_recorder_says_what_to_start(terminal: Terminal) -> None:
    inventory = Path(terminal.environment["PORTFORGE_INVENTORY"])
    other = inventory.with_name("other.yaml")
    other.write_text("cluster: c\nnode: nobody-home\nnodes: [{name: nobody-home, addresses: []}]\n")
    done = terminal("status", "--inventory", str(other))
    assert done.returncode == 4
    assert "portforge record" in done.stderr


def test_doctor_finds_this_host_able_and_leaves_nothing() -> None:
    done = subprocess.run(
        [str(PORTFORGE), "doctor", "--json"], capture_output=True, text=True, check=False
    )
    report = json.loads(done.stdout)
    assert report["able"], report
    assert not [name for name in report["pinned"] if name.startswith("doctor")]
