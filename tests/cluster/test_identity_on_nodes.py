"""Who is who in the rows of a real capture: every kind of owner, every way to a pod, from real
pods on three nodes. One set-up, many questions.

What may be denied is elsewhere (test_enforce_on_nodes.py).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from .pods import (
    CLIENT,
    IMAGE,
    Object,
    Room,
    bare,
    call,
    container,
    daemonset,
    deployment,
    listen,
    made,
    next_address,
    pod_spec,
    selected,
    service,
    soon,
    taken,
    template,
)  # fmt: skip
from .release import Release
from .rows import Rows, pulled

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(900),  # with the installation, on a machine that is shared
]
NS = "who"
HOST = "server.who.svc.cluster.local"
NAMED = "named.who.svc.cluster.local"
BACKEND, INIT, DEBUG, PROBED, DOOR = 8081, 8082, 8083, 8084, 30081
SERVER = {"peer_namespace": NS, "peer_workload_kind": "Deployment", "peer_workload": "server"}
CUSTOM = "rollouts.example.net"


def _once(port: int) -> list[str]:
    """A command: connect once. The DNS server of the cluster may not know a new Service yet."""
    ask = " ".join([*CLIENT, "connect", f"--host={HOST}", f"--port={port}"])
    return ["bash", "-c", f"until {ask} | grep '\"connected\": true'; do sleep 0.2; done"]


def _objects(room: Room) -> list[Object]:
    one, two, three = room.cluster.nodes
    ask = call(f"{HOST}:80")
    connect = _once(80)
    everywhere = call(
        f"{HOST}:80", "store.who.svc.cluster.local:8081", f"{three.address}:{DOOR}",
        "outside.who.svc.cluster.local:443", "alias.who.svc.cluster.local:80",
        "kubernetes.default.svc.cluster.local:443", f"{NAMED}:6443",
    )  # fmt: skip
    probe = {"tcpSocket": {"port": PROBED}, "periodSeconds": 1}
    store = selected("store", pod_spec(listen(BACKEND), three), serviceName="store")
    nightly = {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": {
        "spec": pod_spec(connect, two, restartPolicy="Never")}}}}  # fmt: skip
    first = container(_once(INIT), "first")
    return [
        deployment("server", listen(BACKEND, INIT, DEBUG, PROBED), one, readiness=probe),
        service("server", "server", (80, BACKEND), (INIT, INIT), (DEBUG, DEBUG)),
        made("apps/v1", "StatefulSet", "store", store),
        service("store", "store", (BACKEND, BACKEND), clusterIP="None"),
        made("v1", "Service", "door", {"type": "NodePort", "selector": {"app": "server"}, "ports": [
            {"port": 80, "targetPort": BACKEND, "nodePort": DOOR}]}),
        service("outside", None, (443, 6443)),
        service("named", None, (6443, 6443), clusterIP="None"),
        _leading("outside", "p443", room.cluster.network.server),
        _leading("named", "p6443", room.cluster.network.server),
        made("v1", "Service", "alias", {"type": "ExternalName", "externalName": HOST}),
        deployment("buyer", everywhere, two),
        deployment("starter", ["sleep", "infinity"], two, initContainers=[first]),
        deployment("left", ask, two),
        deployment("kept", ask, three),
        daemonset("every", ask),
        bare("lone", ["sleep", "infinity"], three),
        deployment("onhost", ask, two, hostNetwork=True, dnsPolicy="ClusterFirstWithHostNet"),
        made("batch/v1", "CronJob", "nightly", nightly),
        made("batch/v1", "Job", "once", {"template": {
            "spec": pod_spec(connect, three, restartPolicy="OnFailure")}}),
    ]  # fmt: skip


def _leading(name: str, port: str, address: str) -> Object:
    """What makes a Service without selector lead to an address outside."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{name}-1", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": port, "port": 6443}],
        "endpoints": [{"addresses": [address]}],
    }


def _custom(room: Room) -> None:
    """A ReplicaSet whose controller is a Rollout, as Argo makes them."""
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {
        "type": "object", "x-kubernetes-preserve-unknown-fields": True}}}  # fmt: skip
    names = {"plural": "rollouts", "singular": "rollout", "kind": "Rollout"}
    spec = {"group": "example.net", "scope": "Namespaced", "names": names, "versions": [version]}
    room.apply(made("apiextensions.k8s.io/v1", "CustomResourceDefinition", CUSTOM, spec))
    room.kubectl("wait", "--for=condition=Established", f"crd/{CUSTOM}", "--timeout=30s")
    soon("the kind to be served", lambda: _try(room, made("example.net/v1", "Rollout", "canary")))
    owner = {
        "apiVersion": "example.net/v1",
        "kind": "Rollout",
        "name": "canary",
        "uid": room.read(CUSTOM, "canary")["metadata"]["uid"],
        "controller": True,
    }
    spec = selected("canary", pod_spec(call(f"{HOST}:80")), replicas=1)
    room.apply(made("apps/v1", "ReplicaSet", "canary-5d", spec, ownerReferences=[owner]))


def _try(room: Room, item: Object) -> bool:
    try:
        room.apply(item)
    except Exception as failed:
        raise AssertionError(str(failed)) from failed
    return True


@pytest.fixture(scope="module")
def told(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Everything has happened; ``rows`` and what the tests must know of the pods."""
    room = Room(release, NS)
    static = room.cluster.nodes[2].folder / "manifests" / "static.yaml"
    try:
        room.open()
        began = time.time()
        # Those that ask only once must find who they ask.
        objects = _objects(room)
        room.apply(*objects[:2])
        room.stand("deployment/server")
        room.apply(*objects[2:])
        _custom(room)
        body = template("fixed", pod_spec(call(f"{HOST}:80")))
        body["metadata"] |= {"name": "fixed", "namespace": NS}
        static.write_text(json.dumps({"apiVersion": "v1", "kind": "Pod"} | body))
        yield _happen(room, tmp_path_factory.mktemp("identity"), began)
    finally:
        static.unlink(missing_ok=True)
        room.cluster.kubectl("delete", "crd", CUSTOM, "--ignore-not-found", "--timeout=60s")
        room.close()


def _happen(room: Room, folder: Path, began: float) -> dict[str, Any]:
    two, three = room.cluster.nodes[1:]
    said: dict[str, Any] = {}
    room.stand("statefulset/store", "daemonset/every")
    room.stand(*(f"deployment/{d}" for d in ("buyer", "starter", "left", "kept", "onhost")))
    ready = ("wait", "--for=condition=Ready", "--timeout=120s")
    room.kubectl(*ready, "pod/lone", f"pod/fixed-{three.name}")
    room.kubectl(
        *("debug", "pod/lone", f"--image={IMAGE}", "--image-pull-policy=Never", "--"),
        *call(f"{HOST}:{DEBUG}"),
    )
    room.apply(bare("blink", ["bash", "-c", f"echo x >/dev/tcp/{HOST}/80"], two))
    said["reused"] = _reuse(room)
    # A pod that its ReplicaSet gives up, and a Deployment whose pods stay when it goes.
    said["left"] = room.pod("left")["metadata"]["name"]
    said["kept"] = room.pod("kept")["metadata"]
    time.sleep(3)
    room.kubectl("label", "pod", said["left"], "app=alone", "--overwrite")
    room.kubectl("delete", "deployment", "kept", "--cascade=orphan")

    def over() -> bool:
        jobs = {j["metadata"]["name"]: j["status"] for j in room.read("jobs")["items"]}
        done = {name.partition("-")[0] for name, status in jobs.items() if status.get("succeeded")}
        return done == {"once", "nightly"}

    soon("Job and CronJob", over, 150)
    time.sleep(5)
    blink = room.read("pod", "blink")["status"]
    said["blink"] = {"ip": blink["podIP"], "state": blink["containerStatuses"][0]["state"]}
    said["rows"] = pulled(room.release, folder, began)
    return said


def _reuse(room: Room) -> str:
    """A pod of one Deployment goes, and one of another gets its address; which."""
    two = room.cluster.nodes[1]
    room.apply(deployment("before", call(f"{HOST}:80"), two))
    room.stand("deployment/before")
    address = room.address("before")
    time.sleep(3)
    room.kubectl("delete", "deployment", "before", "--cascade=foreground", "--timeout=60s")
    soon("the address to be free", lambda: not taken(two, address))
    next_address(two, address)
    room.apply(deployment("after", call(f"{HOST}:80"), two))
    room.stand("deployment/after")
    assert room.address("after") == address
    return address


@pytest.fixture(scope="module")
def rows(told: dict[str, Any]) -> Rows:
    """The allowed rows."""
    return Rows(told["rows"].frame).of(verdict="allowed")


OWNERS = [
    ("Deployment", "buyer"), ("DaemonSet", "every"), ("Pod", "lone"), ("Pod", "fixed"),
    ("Rollout", "canary"), ("CronJob", "nightly"), ("Job", "once"), ("Deployment", "starter"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name"), OWNERS, ids=lambda v: str(v))
def test_every_kind_of_owner_on_both_ends(rows: Rows, kind: str, name: str) -> None:
    """The client's row names its owner and the Service; the server's row names the client."""
    port, target = {"lone": (DEBUG, DEBUG), "starter": (INIT, INIT)}.get(name, (80, BACKEND))
    own = rows.of(namespace=NS, workload_kind=kind, workload=name, direction="egress", port=port)
    own.of(peer_kind="service", target_port=target, **SERVER)
    rows.of(
        namespace=NS, workload_kind="Deployment", workload="server", direction="ingress",
        port=target, peer_kind="workload", peer_namespace=NS, peer_workload_kind=kind,
        peer_workload=name, target_port=None,
    )  # fmt: skip
    # Nobody else is blamed for what it did.
    assert own.only("peer_workload") == {"server"}


def test_every_node_has_rows_of_the_daemonset(rows: Rows, release: Release) -> None:
    nodes = rows.of(namespace=NS, workload="every", direction="egress", port=80).only("node")
    assert nodes == {node.name for node in release.cluster.nodes}


def test_headless(rows: Rows) -> None:
    """No Service address: the peer is the StatefulSet itself, and no target port."""
    store = {"peer_workload_kind": "StatefulSet", "peer_workload": "store", "peer_namespace": NS}
    buyer = rows.of(namespace=NS, workload="buyer", direction="egress", port=BACKEND)
    buyer.of(peer_kind="workload", target_port=None, **store)
    rows.of(
        namespace=NS, workload_kind="StatefulSet", workload="store", pod="store-0",
        direction="ingress", port=BACKEND, peer_workload="buyer",
    )  # fmt: skip


def test_node_port_of_another_node(rows: Rows, release: Release) -> None:
    """The client sees the node and, behind its port, the backend's; the server sees a node."""
    three = release.cluster.nodes[2]
    node = {"peer_kind": "node", "peer_workload_kind": "Node", "peer_workload": three.name}
    rows.of(namespace=NS, workload="buyer", direction="egress", port=DOOR, target_port=BACKEND,
            **node)  # fmt: skip
    rows.of(namespace=NS, workload="server", direction="ingress", port=BACKEND, **node)


def test_service_without_selector(rows: Rows) -> None:
    """Nobody's pods stand behind it: the peer is the Service's namespace, the port is known."""
    address = rows.of(namespace=NS, workload="buyer", direction="egress", port=443)
    address.of(peer_kind="service", peer_namespace=NS, peer_workload=None, target_port=6443)


def test_external_name_leads_to_the_service(rows: Rows) -> None:
    """An alias leaves no trace of its own: the one Service was asked twice in each round."""
    buyer = rows.of(namespace=NS, workload="buyer", direction="egress")
    asked = buyer.of(port=80)
    assert asked.only("peer_ip") == asked.of(peer_kind="service", **SERVER).only("peer_ip")
    rounds = buyer.of(port=BACKEND).frame["connections"].sum()
    assert asked.frame["connections"].sum() >= 2 * rounds - 2


def test_an_outside_address_has_the_name_that_the_pod_asked_for(
    rows: Rows, release: Release
) -> None:
    """The cluster's DNS answered, through kube-proxy, often from another node."""
    server = rows.of(
        namespace=NS, workload="buyer", direction="egress", port=6443, peer_kind="external",
        peer_ip=release.cluster.network.server,
    )  # fmt: skip
    assert server.only("peer_name") == {NAMED}
    assert rows.of(namespace=NS, workload="buyer", peer_kind="service").only("peer_name") == {None}


def test_the_api_server(rows: Rows) -> None:
    buyer = rows.of(namespace=NS, workload="buyer", direction="egress", port=443)
    buyer.of(peer_kind="service", peer_namespace="default", peer_workload=None, target_port=6443)


def test_the_cluster_dns(rows: Rows) -> None:
    dns = {"peer_namespace": "kube-system", "peer_workload_kind": "Deployment"}
    for workload in ("buyer", "blink", "nightly"):
        rows.of(
            namespace=NS, workload=workload, direction="egress", protocol="UDP", port=53,
            peer_kind="service", peer_workload="coredns", target_port=53, **dns,
        )  # fmt: skip
    rows.of(
        namespace="kube-system", workload="coredns", direction="ingress", protocol="UDP", port=53,
        peer_kind="workload", peer_namespace=NS, peer_workload="buyer",
    )  # fmt: skip


def test_host_network_is_its_node(rows: Rows, release: Release) -> None:
    two = release.cluster.nodes[1]
    mine = rows.of(namespace=None, workload_kind="Node", workload=two.name, direction="egress")
    mine = Rows(mine.frame[mine.frame["pod"].fillna("").str.startswith("onhost")])
    mine.of(port=80, peer_kind="service", target_port=BACKEND, **SERVER)
    node = {"peer_kind": "node", "peer_workload": two.name}
    rows.of(namespace=NS, workload="server", direction="ingress", port=BACKEND, **node)


def test_probes_come_from_the_own_node(told: dict[str, Any], release: Release) -> None:
    probes = told["rows"].of(namespace=NS, workload="server", direction="ingress", port=PROBED)
    probes.of(verdict="allowed")
    assert probes.of(verdict="allowed").only("peer_kind") == {"node"}
    assert probes.of(verdict="allowed").only("peer_workload") == {release.cluster.nodes[0].name}


def test_a_pod_of_less_than_a_second(told: dict[str, Any], rows: Rows) -> None:
    """Its row names it, though it was gone before anybody could have asked.

    The other end names it, or nobody, where its drain came before the kubelet told the address.
    """
    ended = told["blink"]["state"]["terminated"]
    begun, over = (datetime.fromisoformat(ended[k]) for k in ("startedAt", "finishedAt"))
    assert ended["exitCode"] == 0
    assert (over - begun).total_seconds() <= 1  # both are told in whole seconds
    mine = {"namespace": NS, "workload_kind": "Pod", "workload": "blink", "direction": "egress"}
    rows.of(port=80, peer_kind="service", target_port=BACKEND, **mine, **SERVER)
    met = rows.of(namespace=NS, workload="server", peer_ip=told["blink"]["ip"], port=BACKEND)
    assert met.only("peer_workload") <= {"blink", None}
    assert met.only("peer_kind") <= {"workload", "unknown"}


def test_an_address_given_to_another_workload(rows: Rows, told: dict[str, Any]) -> None:
    """Rows of before name the first, rows of after the second, and none both."""
    met = rows.of(namespace=NS, workload="server", direction="ingress", peer_ip=told["reused"])
    before, after = met.of(peer_workload="before").frame, met.of(peer_workload="after").frame
    assert met.only("peer_workload") <= {"before", "after", None}
    assert before["last_seen"].max() < after["first_seen"].min()


def test_a_pod_that_its_owner_gave_up(rows: Rows, told: dict[str, Any]) -> None:
    """From then on it stands for itself; what it did before stays its Deployment's."""
    pod = rows.of(namespace=NS, pod=told["left"], direction="egress", port=80)
    before = pod.of(workload_kind="Deployment", workload="left").frame
    after = pod.of(workload_kind="Pod", workload=told["left"]).frame
    assert before["first_seen"].min() < after["first_seen"].min()
    rows.of(namespace=NS, workload="server", direction="ingress", peer_workload_kind="Pod",
            peer_workload=told["left"])  # fmt: skip


def test_pods_of_a_deployment_that_was_deleted_alone(rows: Rows, told: dict[str, Any]) -> None:
    """The ReplicaSet is the top of what is left."""
    (owner,) = told["kept"]["ownerReferences"]
    pod = rows.of(namespace=NS, pod=told["kept"]["name"], direction="egress", port=80)
    pod.of(workload_kind="Deployment", workload="kept")
    pod.of(workload_kind="ReplicaSet", workload=owner["name"])


def test_no_row_is_nobodys(told: dict[str, Any]) -> None:
    """Every row of a pod of ours names its workload."""
    frame = told["rows"].frame
    ours = frame[frame["namespace"] == NS]
    assert ours["workload"].notna().all()
    # Whatever has neither namespace nor workload: shown, for the reader.
    lost = frame[frame["workload"].isna()]
    print(f"\nrows without a workload: {len(lost)} of {len(frame)}")
