"""Who is who, as a real API server tells it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kubernetes.client import ApiClient
from localcluster.control import ControlPlane

from portforge.apply.inventory import Inventory, Pod, ServicePort
from portforge.errors import ClusterError
from portforge.kube.client import connect, request
from portforge.schema import PeerKind, Workload
from portforge_recorder.kubernetes import KubernetesSource

CONTAINERS = [{"name": "main", "image": "localhost/none:1"}]


class Cluster:
    """Makes objects at the API server, as controllers and kubelets would."""

    def __init__(self, api: ApiClient) -> None:
        self.api = api
        self.account("default")

    def account(self, namespace: str) -> None:
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        deadline = time.monotonic() + 20
        while True:  # the API server makes its first namespaces a little later
            try:
                self.make(path, {"metadata": {"name": "default"}})
            except ClusterError as problem:
                if problem.status == 409:
                    return
                if problem.status != 404 or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    def make(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return request(self.api, "POST", path, body=body)

    def node(self, name: str, address: str, pods: str) -> None:
        self.make("/api/v1/nodes", {"metadata": {"name": name}, "spec": {"podCIDRs": [pods],
                  "podCIDR": pods}})  # fmt: skip
        self.status(f"/api/v1/nodes/{name}", {"addresses": [
            {"type": "InternalIP", "address": address},
            {"type": "Hostname", "address": name}]})  # fmt: skip

    def owned(self, path: str, name: str, owner: dict[str, str] | None = None) -> dict[str, str]:
        """A ReplicaSet or Job; a reference to it."""
        group, version, kinds = path.split("/")[2], path.split("/")[3], path.split("/")[-1]
        template = {"metadata": {"labels": {"a": name}}, "spec": {"containers": CONTAINERS}}
        spec: dict[str, Any] = {"template": template}
        if kinds == "jobs":
            template["spec"]["restartPolicy"] = "Never"  # type: ignore[index]
        else:
            spec["selector"] = {"matchLabels": {"a": name}}
        made = self.make(path, {"metadata": {"name": name, "ownerReferences": references(owner)},
                         "spec": spec})  # fmt: skip
        kind = {"jobs": "Job", "replicasets": "ReplicaSet"}[kinds]
        return {"apiVersion": f"{group}/{version}", "kind": kind, "name": name,
                "uid": made["metadata"]["uid"]}  # fmt: skip

    def pod(self, name: str, node: str, address: str = "", owner: dict[str, str] | None = None,
            namespace: str = "default", annotations: dict[str, str] | None = None,
            **spec: Any) -> str:  # fmt: skip
        path = f"/api/v1/namespaces/{namespace}/pods"
        made = self.make(path, {
            "metadata": {"name": name, "ownerReferences": references(owner),
                         "annotations": annotations or {}},
            "spec": {"nodeName": node, "containers": CONTAINERS, **spec}})  # fmt: skip
        if address:
            self.run(name, address, namespace)
        return str(made["metadata"]["uid"])

    def run(self, name: str, address: str, namespace: str = "default", **more: Any) -> None:
        self.status(f"/api/v1/namespaces/{namespace}/pods/{name}", {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "startTime": datetime.now(UTC).isoformat(timespec="seconds"), **more})  # fmt: skip

    def status(self, path: str, status: dict[str, Any]) -> None:
        request(self.api, "PATCH", f"{path}/status", body={"status": status},
                headers={"Content-Type": "application/merge-patch+json"})  # fmt: skip

    def delete(self, path: str) -> None:
        request(self.api, "DELETE", path, params={"gracePeriodSeconds": "0"})


def references(owner: dict[str, str] | None) -> list[dict[str, Any]]:
    return [{**owner, "controller": True}] if owner else []


@pytest.fixture(scope="module")
def cluster(api_server: ControlPlane) -> Cluster:
    made = Cluster(connect(api_server.kubeconfig))
    made.node("node-a", "10.90.0.1", "10.244.0.0/24")
    made.node("node-b", "10.90.0.2", "10.244.1.0/24")
    return made


@pytest.fixture(scope="module")
def source(cluster: Cluster) -> Iterator[KubernetesSource]:
    with KubernetesSource(cluster.api, "node-a", "test") as made:
        yield made


def eventually(
    source: KubernetesSource, holds: Callable[[Inventory], object], seconds: float = 10
) -> Inventory:
    """The inventory once ``holds`` does."""
    deadline = time.monotonic() + seconds
    while not holds(inventory := source.inventory()):
        assert time.monotonic() < deadline, inventory.pods
        time.sleep(0.02)
    return inventory


def named(inventory: Inventory, name: str) -> Pod | None:
    return next((p for p in reversed(inventory.pods) if p.name == name), None)


def running(name: str) -> Callable[[Inventory], object]:
    return lambda i: (pod := named(i, name)) and (pod.addresses or pod.host_network)


def gone(name: str) -> Callable[[Inventory], object]:
    return lambda i: (pod := named(i, name)) is None or pod.until


REPLICASETS = "/apis/apps/v1/namespaces/default/replicasets"
JOBS = "/apis/batch/v1/namespaces/default/jobs"


def reference(api_version: str, kind: str, name: str) -> dict[str, str]:
    return {"apiVersion": api_version, "kind": kind, "name": name, "uid": f"uid-of-{name}"}


def test_the_owner_is_the_top_of_the_chain(cluster, source):
    web = reference("apps/v1", "Deployment", "web")
    rollout = reference("argoproj.io/v1alpha1", "Rollout", "canary")
    nightly = reference("batch/v1", "CronJob", "nightly")
    owners = {
        "web": (cluster.owned(REPLICASETS, "web-1", web), ("Deployment", "web")),
        "canary": (cluster.owned(REPLICASETS, "canary-1", rollout), ("Rollout", "canary")),
        "bare": (cluster.owned(REPLICASETS, "bare-1"), ("ReplicaSet", "bare-1")),
        "nightly": (cluster.owned(JOBS, "nightly-1", nightly), ("CronJob", "nightly")),
        "once": (cluster.owned(JOBS, "once"), ("Job", "once")),
        "db": (reference("apps/v1", "StatefulSet", "db"), ("StatefulSet", "db")),
        "pg": (reference("postgresql.cnpg.io/v1", "Cluster", "pg"), ("Cluster", "pg")),
        "alone": (None, ("Pod", "alone-x")),
    }
    for i, (name, (owner, _)) in enumerate(owners.items()):
        cluster.pod(f"{name}-x", "node-b", f"10.244.1.{10 + i}", owner)
    for i, (name, (_, top)) in enumerate(owners.items()):
        inventory = eventually(source, running(f"{name}-x"))
        expected = Workload("default", *top)
        eventually(source, lambda inv, n=name, e=expected: named(inv, f"{n}-x").workload == e)
        assert source.inventory().peer(f"10.244.1.{10 + i}")[1:] == (
            PeerKind.WORKLOAD,
            *expected,
        )
    assert inventory.cluster == "test"


def test_an_owner_that_is_not_known_is_not_guessed(cluster, source):
    nobody = reference("apps/v1", "ReplicaSet", "never-seen")
    cluster.pod("orphan", "node-a", "10.244.0.40", nobody)
    inventory = eventually(source, running("orphan"))
    assert named(inventory, "orphan").workload is None
    assert inventory.peer("10.244.0.40").kind is PeerKind.UNKNOWN
    assert "10.244.0.40" in inventory.known_addresses


def test_a_pod_keeps_its_workload_when_its_replicaset_goes_first(cluster, source):
    owner = cluster.owned(REPLICASETS, "old-1", reference("apps/v1", "Deployment", "old"))
    cluster.pod("old-x", "node-a", "10.244.0.41", owner)
    eventually(source, lambda i: running("old-x")(i) and named(i, "old-x").workload)
    request(cluster.api, "DELETE", f"{REPLICASETS}/old-1",
            body={"propagationPolicy": "Orphan"})  # fmt: skip
    request(cluster.api, "PATCH", f"{REPLICASETS}/old-1", body={"metadata": {"finalizers": None}},
            headers={"Content-Type": "application/merge-patch+json"})  # fmt: skip
    time.sleep(0.5)
    cluster.pod("another", "node-a", "10.244.0.42")
    inventory = eventually(source, running("another"))
    assert named(inventory, "old-x").workload == Workload("default", "Deployment", "old")


def test_a_static_pod_and_one_in_the_nodes_network(cluster, source):
    uid = request(cluster.api, "GET", "/api/v1/nodes/node-a")["metadata"]["uid"]
    owner = {"apiVersion": "v1", "kind": "Node", "name": "node-a", "uid": uid}
    digest = "0123456789abcdef0123456789abcdef"
    cluster.pod("etcd-node-a", "node-a", "10.90.0.1", owner, hostNetwork=True, annotations={
        "kubernetes.io/config.mirror": digest, "kubernetes.io/config.hash": digest})  # fmt: skip
    inventory = eventually(source, running("etcd-node-a"))
    pod = named(inventory, "etcd-node-a")
    assert (pod.uid, pod.workload) == (digest, Workload("default", "Pod", "etcd"))
    assert pod.host_network
    assert inventory.peer("10.90.0.1").kind is PeerKind.NODE


def test_nodes_ranges_and_namespaces(cluster, source):
    cluster.make("/api/v1/namespaces", {"metadata": {"name": "closed", "labels": {
        "portforge.dev/default-deny": "until-known"}}})  # fmt: skip
    cluster.make("/api/v1/namespaces", {"metadata": {"name": "open"}})
    inventory = eventually(source, lambda i: i.closed_namespaces)
    assert inventory.closed_namespaces == {"closed"}
    assert {n.name: n.addresses for n in inventory.nodes} == {
        "node-a": ("10.90.0.1", "10.244.0.1", "10.244.0.0"),
        "node-b": ("10.90.0.2", "10.244.1.1", "10.244.1.0"),
    }
    assert inventory.peer("10.244.1.1").workload == "node-b"
    assert inventory.cidrs == ("10.96.0.0/16", "10.244.0.0/23")
    assert inventory.peer("10.96.200.1").kind is PeerKind.UNKNOWN
    assert inventory.peer("10.90.0.9").kind is PeerKind.EXTERNAL


def test_services(cluster, source):
    owner = reference("apps/v1", "StatefulSet", "shop")
    uid = cluster.pod("shop-0", "node-a", "10.244.0.50", owner)
    services = "/api/v1/namespaces/default/services"
    ports = [
        {"name": "web", "port": 80, "targetPort": "http", "nodePort": 30080},
        {"name": "more", "port": 81, "targetPort": 8181, "nodePort": 30081},
        {"name": "never", "port": 82, "targetPort": "nobody", "nodePort": 30082},
    ]
    made = cluster.make(services, {"metadata": {"name": "shop"}, "spec": {
        "type": "LoadBalancer", "ports": ports,
        "externalIPs": ["192.0.2.7", "10.90.0.2"]}})  # fmt: skip
    cluster.status(f"{services}/shop", {"loadBalancer": {"ingress": [{"ip": "192.0.2.8"},
                   {"hostname": "lb.example"}]}})  # fmt: skip
    cluster.make(services, {"metadata": {"name": "headless"}, "spec": {
        "clusterIP": "None", "ports": [{"port": 80}]}})  # fmt: skip
    cluster.make(services, {"metadata": {"name": "away"}, "spec": {
        "type": "ExternalName", "externalName": "db.example"}})  # fmt: skip
    cluster.make("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", {
        "metadata": {"name": "shop-1", "labels": {"kubernetes.io/service-name": "shop"}},
        "addressType": "IPv4", "ports": [{"name": "web", "port": 8080}],
        "endpoints": [{"addresses": ["10.244.0.50"], "targetRef": {
            "kind": "Pod", "namespace": "default", "name": "shop-0", "uid": uid}}]})  # fmt: skip

    def shop(i: Inventory) -> Any:
        return next((s for s in i.services if s.name == "shop"), None)

    inventory = eventually(
        source, lambda i: (s := shop(i)) and s.workload and len(s.addresses) == 3
        and any(s.name == "away" for s in i.services)
    )  # fmt: skip
    address = made["spec"]["clusterIP"]
    assert shop(inventory).addresses == (address, "192.0.2.7", "192.0.2.8")
    assert shop(inventory).workload == Workload("default", "StatefulSet", "shop")
    assert shop(inventory).ports == (
        ServicePort("TCP", 80, 8080, 30080),
        ServicePort("TCP", 81, 8181, 30081),
    )
    assert inventory.target_port(address, "TCP", 80) == 8080
    assert inventory.target_port("10.90.0.1", "TCP", 30081) == 8181
    assert inventory.target_port("10.90.0.1", "TCP", 22) is None
    assert inventory.peer("10.90.0.2").kind is PeerKind.NODE
    by_name = {s.name: s for s in inventory.services}
    assert by_name["headless"].addresses == by_name["away"].addresses == ()


def test_an_address_passes_from_pod_to_pod(cluster, source):
    jobs = [reference("example.dev/v1", "Batch", n) for n in ("first", "second")]
    cluster.pod("first-x", "node-b", "10.244.1.60", jobs[0])
    eventually(source, running("first-x"))
    during = datetime.now(UTC) + timedelta(seconds=1)
    time.sleep(8)
    cluster.delete("/api/v1/namespaces/default/pods/first-x")
    eventually(source, gone("first-x"))
    assert source.inventory().peer("10.244.1.60").kind is PeerKind.UNKNOWN
    time.sleep(2)
    cluster.pod("second-x", "node-b", "10.244.1.60", jobs[1])
    inventory = eventually(source, running("second-x"))
    after = datetime.now(UTC) + timedelta(seconds=2)
    assert inventory.peer("10.244.1.60").workload == "second"
    assert inventory.peer_at("10.244.1.60", during, during).workload == "first"
    assert inventory.peer_at("10.244.1.60", after, after).workload == "second"
    assert inventory.peer_at("10.244.1.60", during, after).kind is PeerKind.UNKNOWN


def test_a_pod_that_ended_has_no_address(cluster, source):
    cluster.pod("done", "node-a", "10.244.0.70")
    eventually(source, running("done"))
    finished = datetime.now(UTC).replace(microsecond=0)
    cluster.run("done", "10.244.0.70", phase="Succeeded", containerStatuses=[{
        "name": "main", "image": "i", "imageID": "", "ready": False, "restartCount": 0,
        "state": {"terminated": {"exitCode": 0, "finishedAt": finished.isoformat()}}}])  # fmt: skip
    inventory = eventually(source, gone("done"))
    assert inventory.peer("10.244.0.70").kind is PeerKind.UNKNOWN
    assert named(inventory, "done").until == finished + timedelta(seconds=1)
    assert inventory.peer_at("10.244.0.70", finished, finished).workload == "done"


def test_the_same_inventory_while_nothing_changes(source):
    deadline = time.monotonic() + 5
    while source.inventory() is not source.inventory():
        assert time.monotonic() < deadline


def test_an_api_server_that_goes_away(api_server, cluster, source):
    before = eventually(source, lambda i: i.pods)
    assert source.age < 35
    assert not source.stale
    api_server.processes.stop("api-server")
    time.sleep(3)
    assert source.inventory() is before
    assert any(w.problem for w in source.watchers.values())
    assert source.age >= 2
    with (
        KubernetesSource(cluster.api, "node-a", "test", wait=1) as late,
        pytest.raises(ClusterError, match=r"not known yet: .*pods.*cannot be reached"),
    ):
        late.inventory()
    api_server.start_api_server()
    cluster.pod("back", "node-a", "10.244.0.80")
    eventually(source, running("back"), 40)
    assert source.inventory().peer("10.244.0.80").workload == "back"
