"""The DaemonSet's main process against a real API server and a real kernel, no kubelet: test pods
of the light bed stand as objects in the API. What it enforces, says, and goes on with alone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from localcluster.control import ControlPlane

from portforge.apply.node import NodeMaps
from portforge.capture import open_capture
from portforge.demo.pods import Node, Pod
from portforge.kube.client import connect
from portforge.kube.policies import to_object
from portforge.policy import Mode, PortPolicy, approve
from portforge.schema import Workload
from portforge_recorder.lease import Lease
from portforge_recorder.load import load, remove, versions
from portforge_recorder.snapshot import register
from tests.kernel.puppet import Puppet

from .people import GROUP, Person, install_crds, kubectl, person

OPEN, SHUT = 7100, 7201
SHOP = f"{GROUP}/namespaces/shop/portpolicies"
WEB = f"{SHOP}/statefulset-web"
INTERVAL = 0.5


AGENT = (Path(sys.executable).with_name("portforge"), "agent")


def words(command: Iterable[object], options: Mapping[str, object]) -> list[str]:
    """A command line."""
    return [str(w) for part in (command, *options.items()) for w in part]


def until(what: str, true: Callable[[], object], seconds: float = 20) -> None:
    """Wait until it is so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.1)


class Place:
    """A node with three pods, the API server that knows them, and an agent."""

    def __init__(self, plane: ControlPlane, node: Node, folder: Path) -> None:
        self.plane, self.node, self.folder = plane, node, folder
        self.admin: Person = person(plane, "admin", "system:masters")
        self.process: subprocess.Popen[bytes] | None = None
        self.log = folder / "log"
        made = self.admin.create("/api/v1/nodes", {"metadata": {"name": node.name}})
        assert made.code == 201, made.message
        self.own = self.pod("portforge-system", "agent")
        self.web, self.other = self.pod("shop", "web"), self.pod("shop", "other")
        self.inside, self.outside = Puppet(self.web, OPEN, SHUT), Puppet(self.other)

    def pod(self, namespace: str, name: str) -> Pod:
        """A pod in the API, and on the node under the UID that the API gave it."""
        owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": name, "uid": "1"}
        pod = {
            "metadata": {"name": f"{name}-0", "ownerReferences": [owner | {"controller": True}]},
            "spec": {
                "nodeName": self.node.name,
                "automountServiceAccountToken": False,
                "containers": [{"name": name, "image": "localhost/none"}],
            },
        }
        path = f"/api/v1/namespaces/{namespace}/pods"
        made = self.admin.create(path, pod)
        assert made.code == 201, made.message
        here = self.node.pod(
            namespace, "StatefulSet", name, name=f"{name}-0", uid=made.body["metadata"]["uid"]
        )
        status = {"phase": "Running", "podIP": here.address, "podIPs": [{"ip": here.address}]}
        said = self.admin.merge(f"{path}/{name}-0/status", {"status": status})
        assert said.code == 200, said.message
        return here

    # ---- the agent

    def start(self) -> None:
        """Start the agent in the cgroup of its own pod."""
        self.log.write_bytes(b"")
        options = {
            "--node": self.node.name,
            "--pod-uid": self.own.uid,
            "--namespace": "portforge-system",
            "--kubepods": self.node.kubepods,
            "--capture": self.folder / "capture",
            "--state": self.folder / "state",
            "--kubeconfig": self.plane.kubeconfig,
            "--listen": "127.0.0.1:0",
            "--interval": INTERVAL,
            "--rotate": 2,
            "--trial-denials": 5,
        }
        procs = self.own.cgroup / "cgroup.procs"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                words(AGENT, options),
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=lambda: procs.write_text(str(os.getpid())) and None,
            )

    def end(self, number: int = signal.SIGTERM) -> int:
        """End it by a signal; its exit code."""
        assert self.process
        self.process.send_signal(number)
        return self.process.wait(30)

    def events(self, event: str) -> list[dict[str, Any]]:
        """What the agent logged under this name."""
        lines = self.log.read_text().splitlines()
        return [said for line in lines if (said := json.loads(line))["event"] == event]

    def http(self, path: str, **headers: str) -> tuple[int, bytes]:
        """The agent's answer."""
        port = self.events("start")[-1]["port"]
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                return answer.status, answer.read()
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, refused.read()

    def metric(self, name: str) -> float:
        """One sample, with its labels as the exposition has them."""
        for line in self.http("/metrics")[1].decode().splitlines():
            if line.startswith(f"portforge_{name} "):
                return float(line.rpartition(" ")[2])
        raise AssertionError(f"no metric {name}")

    # ---- what is in force

    def wants(self, mode: Mode = Mode.ENFORCE, port: int = OPEN, **more: Any) -> dict[str, Any]:
        """The object that lets only ``port`` in to web, approved."""
        policy = PortPolicy.model_validate(
            {
                "namespace": "shop",
                "name": "statefulset-web",
                "workload": Workload("shop", "StatefulSet", "web"),
                "mode": mode,
                "author": "ana",
                "ingress": [{"id": f"in-tcp-{port}", "protocol": "TCP", "port": port}],
                **more,
            }
        )
        return to_object(approve(policy, "ben", datetime.now(UTC)))

    def put(self, body: dict[str, Any]) -> None:
        """Make it so in the API."""
        said = self.admin.apply(WEB, body)
        assert said.code in (200, 201), said.message

    def knock(self, port: int = SHUT) -> str:
        """What a connection to web comes to."""
        return self.outside.connect(self.web.address, port, timeout=0.3)

    def denied(self, port: int = SHUT) -> bool:
        return self.knock(port) != "ok"

    def said(self) -> dict[str, Any]:
        """What the node's report says of the policy; empty when nothing."""
        report = self.admin.get(f"{GROUP}/nodereports/{self.node.name}")
        status = report.body.get("status") if report.code == 200 else None
        return dict(((status or {}).get("policies") or [{}])[0])

    def condition(self, kind: str) -> tuple[str, str]:
        """Status and reason of a condition of the policy."""
        conditions = (self.admin.get(WEB).body.get("status") or {}).get("conditions") or ()
        return next(((c["status"], c["reason"]) for c in conditions if c["type"] == kind), ("", ""))


@pytest.fixture(scope="module")
def place(api_server: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    install_crds(api_server)
    for namespace in ("shop", "portforge-system"):
        kubectl(api_server, "create", "namespace", namespace)
        kubectl(api_server, "create", "serviceaccount", "default", "-n", namespace)
    kubectl(api_server, "create", "serviceaccount", "portforge-reader", "-n", "portforge-system")
    folder = tmp_path_factory.mktemp("agent")
    with Node(f"agent-{os.getpid()}") as node:
        try:
            ready = Place(api_server, node, folder)
            with NodeMaps(load(node.name, node.kubepods)) as maps:
                register(maps, node.kubepods)
            yield ready
        finally:
            for pins in versions(node.name):
                remove(pins)


@pytest.fixture
def running(place: Place) -> Iterator[Place]:
    """An agent that knows the cluster; no policy, no break-glass."""
    place.start()
    try:
        until("the agent is ready", lambda: place.events("adopted"))
        until("the pods are known", lambda: place.http("/readyz")[0] == 200)
        yield place
    finally:
        if place.process and place.process.poll() is None:
            place.end()
        for path in (WEB, f"{GROUP}/breakglasses/night"):
            place.admin.delete(path)


def test_an_approved_policy_is_enforced_and_everybody_says_so(running: Place) -> None:
    place = running
    assert not place.denied()

    place.put(place.wants())

    until("denied", place.denied, 5)
    assert place.knock(OPEN) == "ok"
    until("the report says so", lambda: place.said().get("state") == "Active", 5)
    assert place.said()["mode"] == "Enforce"
    assert place.said()["pods"] == 1
    until("the policy is Ready", lambda: place.condition("Ready") == ("True", "Applied"))
    assert place.condition("Enforced")[0] == "True"
    assert place.condition("Degraded")[0] == "False"
    until("denials are counted", lambda: place.admin.get(WEB).body["status"]["denied"] > 0, 40)
    (event,) = place.events("policy put in force")
    assert (event["by"], event["author"], event["mode"]) == ("ben", "ana", "Enforce")
    assert event["digest"].startswith("sha256:")
    until("metrics", lambda: place.metric('policies{mode="Enforce"}') == 1)

    place.admin.delete(WEB)

    until("lifted", lambda: not place.denied(), 5)
    assert place.events("policy removed")


def test_enforce_without_an_approval_that_holds_is_audit(running: Place) -> None:
    place = running
    wanted = place.wants()
    wanted["spec"]["ingress"][0]["port"] = OPEN + 1

    place.put(wanted)

    until("refused", lambda: place.said().get("state") == "Unapproved")
    assert place.said()["mode"] == "Audit"
    assert not place.denied()
    until("Degraded", lambda: place.condition("Degraded") == ("True", "Unapproved"))
    assert place.condition("Ready") == ("False", "Unapproved")
    assert place.metric("policies_not_in_force") == 1


def test_break_glass_lifts_and_its_end_puts_back(running: Place) -> None:
    place = running
    place.put(place.wants())
    until("denied", place.denied, 5)
    spec = {"reason": "cannot log in", "by": "rita"}

    place.admin.create(f"{GROUP}/breakglasses", GLASS | {"spec": spec})

    until("lifted", lambda: not place.denied(), 5)
    until("reported", lambda: place.said().get("state") == "BreakGlass", 5)
    assert place.events("break-glass begun")[0]["by"] == "rita"
    until("the metric", lambda: place.metric("break_glass") == 1)

    place.admin.delete(f"{GROUP}/breakglasses/night")

    until("denied again", place.denied, 5)
    until("reported", lambda: place.said().get("state") == "Active", 5)


GLASS = {
    "apiVersion": "portforge.dev/v1alpha1",
    "kind": "BreakGlass",
    "metadata": {"name": "night"},
}


def test_too_many_denials_end_a_trial(running: Place) -> None:
    place = running
    soon = datetime.now(UTC) + timedelta(minutes=10)
    place.put(place.wants(confirm_before=soon))
    until("on trial", lambda: place.said().get("state") == "OnTrial", 5)
    time.sleep(3 * INTERVAL)

    until("rolled back", lambda: not place.denied(), 30)

    until("reported", lambda: place.said().get("state") == "RolledBack", 5)
    assert "connections on trial" in place.said()["problem"]
    until("Degraded", lambda: place.condition("Degraded") == ("True", "RolledBack"))


def test_alone_a_node_goes_on_ends_a_trial_by_itself_and_survives_a_restart(
    running: Place,
) -> None:
    place = running
    place.put(place.wants(port=OPEN))
    until("the first version", lambda: place.said().get("state") == "Active", 5)
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=12)
    place.put(place.wants(port=SHUT, confirm_before=soon))
    until("the second version, on trial", lambda: place.said().get("state") == "OnTrial", 5)
    until("in force", lambda: place.denied(OPEN) and not place.denied(SHUT), 5)
    # The inventory is written once a minute, the first time at once.
    until("remembered", lambda: list(place.folder.glob("state/*/inventory.json")))

    place.plane.processes.stop("api-server", signal.SIGKILL)
    try:
        assert datetime.now(UTC) < soon, "too slow: the trial ended before the API server did"
        until("the first version again", lambda: place.denied(SHUT), 30)
        assert datetime.now(UTC) >= soon
        until("and not more", lambda: not place.denied(OPEN), 5)
        assert place.events("policy rolled back")
        until("lost", lambda: place.events("API server lost"))

        place.end(signal.SIGKILL)
        assert place.denied(SHUT)
        place.start()

        until("it records", lambda: place.events("adopted"), 40)
        assert place.denied(SHUT)
        assert not place.denied(OPEN)
        assert place.http("/readyz")[0] == 503
        assert place.http("/healthz")[0] == 200
        assert place.events("going on without the API server")
        assert place.http("/capture/", **{"X-Portforge-Token": "x"})[0] == 503
    finally:
        place.plane.start_api_server()
    until("ready again", lambda: place.http("/readyz")[0] == 200, 60)
    until("reported", lambda: place.said().get("state") == "RolledBack", 30)

    place.put(place.wants(port=SHUT))  # confirmed, late

    until("the second version", lambda: place.denied(OPEN) and not place.denied(SHUT), 10)


def test_the_canary_is_recorded_and_the_capture_is_served(running: Place) -> None:
    place = running
    # Long before three minutes; the first sings after two seconds.
    path = f"{GROUP}/nodereports/{place.node.name}"
    until("the canary", lambda: place.admin.get(path).body["status"].get("canary"), 40)
    assert place.metric("canary_age_seconds") < 60
    place.knock(OPEN)
    capture = place.folder / "capture"
    until("a file", lambda: [f for f in capture.rglob("*.parquet") if f.name[0] != "_"], 20)

    assert place.http("/capture/")[0] == 401
    other = token(place, "default")
    assert place.http("/capture/", **{"X-Portforge-Token": other})[0] == 403
    wrong = token(place, "portforge-reader", "--audience=else")
    assert place.http("/capture/", **{"X-Portforge-Token": wrong})[0] == 401
    reader = {"X-Portforge-Token": token(place, "portforge-reader")}
    status, listing = place.http("/capture/", **reader)
    assert status == 200
    file = next(f for f in json.loads(listing)["files"] if "_loss" not in f["path"])
    status, data = place.http(f"/capture/{file['path']}", **reader)
    assert (status, len(data)) == (200, file["size"])
    assert data == (capture / file["path"]).read_bytes()
    status, part = place.http(f"/capture/{file['path']}", Range="bytes=4-9", **reader)
    assert (status, part) == (206, data[4:10])
    for trick in ("v1/../state", "../state/x.parquet", "%2e%2e/x.parquet", ".spool/x.parquet"):
        assert place.http(f"/capture/{trick}", **reader)[0] == 404

    assert place.end() == 0

    flows = open_capture(capture).flows()
    own = flows[(flows.pod == "agent-0") & (flows.peer_kind == "loopback")]
    assert len(own)


def token(place: Place, account: str, audience: str = "--audience=portforge") -> str:
    return kubectl(
        place.plane, "create", "token", account, "-n", "portforge-system", audience
    ).strip()


def test_without_the_programs_it_says_what_did_not_run(place: Place, tmp_path: Path) -> None:
    done = subprocess.run(
        words(
            AGENT,
            {
                "--node": "nobody",
                "--kubepods": place.node.kubepods,
                "--listen": "127.0.0.1:0",
                "--capture": tmp_path / "c",
                "--state": tmp_path / "s",
                "--kubeconfig": place.plane.kubeconfig,
            },
        ),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert done.returncode == 4
    assert "programs of this version are not loaded" in done.stderr
    assert "portforge load" in done.stderr


def test_one_agent_at_a_time_holds_the_lease(place: Place) -> None:
    api = connect(place.plane.kubeconfig)
    one, other = (Lease(api, "shop", holder, seconds=2) for holder in ("node-a", "node-b"))

    assert one.tick()
    assert not other.tick()
    assert one.tick()
    time.sleep(1.5)
    assert not other.tick(), "it was renewed: the wait begins anew"
    until("the other takes it from one that is silent", other.tick, 5)
    assert not one.tick()
    other.release()
    assert one.tick()
