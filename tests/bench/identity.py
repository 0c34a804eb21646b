"""What it costs a node to know who is who: one KubernetesSource at a large cluster's API server.

A real etcd and kube-apiserver hold nodes, ReplicaSets and pods of a usual size (about 6 KB). A
fresh process reads them with the recorder's KubernetesSource, another with the Kubernetes client's
own SharedInformer (pods only). Both go through the same changes of pods. Run as::

    PYTHONPATH=deploy python tests/bench/identity.py --pods 5000 --nodes 200
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

import psutil
from kubernetes.client import ApiClient, CoreV1Api
from kubernetes.informer import SharedInformer

from portforge.kube.client import connect, request, send
from portforge_recorder.kubernetes import KubernetesSource

MERGE = {"Content-Type": "application/merge-patch+json"}
PODS_PER_OWNER = 5
CHANGES = 100


def filled(pods: int, nodes: int, api: ApiClient) -> None:
    """Make the objects, as controllers and kubelets would."""
    spaces = [f"team-{i}" for i in range(10)]
    for space in spaces:
        request(api, "POST", "/api/v1/namespaces", body={"metadata": {"name": space}})
        request(api, "POST", f"/api/v1/namespaces/{space}/serviceaccounts",
                body={"metadata": {"name": "default"}})  # fmt: skip

    def node(i: int) -> None:
        cidr = f"10.{128 + i // 256}.{i % 256}.0/24"
        request(api, "POST", "/api/v1/nodes", body={
            "metadata": {"name": f"node-{i}"},
            "spec": {"podCIDR": cidr, "podCIDRs": [cidr]}})  # fmt: skip
        addresses = [{"type": "InternalIP", "address": f"10.9.{i // 256}.{i % 256}"}]
        request(api, "PATCH", f"/api/v1/nodes/node-{i}/status", headers=MERGE,
                body={"status": {"addresses": addresses}})  # fmt: skip

    def owner(i: int) -> dict[str, Any]:
        name, space = f"service-{i}-6d4cf56db6", spaces[i % len(spaces)]
        labels = {"app": f"service-{i}"}
        made = request(api, "POST", f"/apis/apps/v1/namespaces/{space}/replicasets", body={
            "metadata": {"name": name, "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "Deployment", "name": f"service-{i}",
                "uid": f"deployment-{i}", "controller": True}]},
            "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": {
                "metadata": {"labels": labels}, "spec": pod_spec("")}}})  # fmt: skip
        return {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name,
                "uid": made["metadata"]["uid"], "controller": True}  # fmt: skip

    def pod(i: int, owners: list[dict[str, Any]]) -> None:
        ours = i // PODS_PER_OWNER
        space = spaces[ours % len(spaces)]
        path = f"/api/v1/namespaces/{space}/pods"
        request(api, "POST", path, body={
            "metadata": {"name": f"pod-{i}", "labels": {"app": f"service-{ours}"},
                         "ownerReferences": [owners[ours]]},
            "spec": pod_spec(f"node-{i % nodes}")})  # fmt: skip
        address = f"10.{128 + i % nodes // 256}.{i % nodes % 256}.{2 + i // nodes}"
        request(api, "PATCH", f"{path}/pod-{i}/status", headers=MERGE, body={
            "status": pod_status(address)})  # fmt: skip

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(node, range(nodes)))
        owners = list(pool.map(owner, range(-(-pods // PODS_PER_OWNER))))
        list(pool.map(lambda i: pod(i, owners), range(pods)))


def pod_spec(node: str) -> dict[str, Any]:
    probe = {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 10}
    container = {
        "image": "registry.example/team/service:1.2.3",
        "env": [{"name": f"SETTING_{i}", "value": f"value-of-setting-{i}"} for i in range(15)],
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": probe,
        "livenessProbe": probe,
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
        "volumeMounts": [{"name": "settings", "mountPath": "/etc/settings"}],
    }
    return {
        "containers": [{"name": "main", **container}, {"name": "proxy", **container, "ports": []}],
        "volumes": [{"name": "settings", "configMap": {"name": "settings"}}],
        **({"nodeName": node} if node else {}),
    }


def pod_status(address: str) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    kinds = ("Initialized", "Ready", "ContainersReady", "PodScheduled")
    return {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "hostIP": "10.9.0.1",
        "startTime": now,
        "conditions": [{"type": k, "status": "True", "lastTransitionTime": now} for k in kinds],
        "containerStatuses": [
            {
                "name": name, "image": "registry.example/team/service:1.2.3", "ready": True,
                "imageID": "sha256:" + "0" * 64, "containerID": "containerd://" + "0" * 64,
                "restartCount": 0, "started": True, "state": {"running": {"startedAt": now}},
            }
            for name in ("main", "proxy")
        ],
    }  # fmt: skip


def change(api: ApiClient, pods: int, stop: Event) -> float:
    """A hundred pods a second get another address."""

    def one(i: int) -> None:
        space = f"team-{i // PODS_PER_OWNER % 10}"
        address = f"10.250.{i // 200 % 250}.{i % 200 + 1}"
        request(api, "PATCH", f"/api/v1/namespaces/{space}/pods/pod-{i % pods}/status",
                headers=MERGE,
                body={"status": {"podIP": address, "podIPs": [{"ip": address}]}})  # fmt: skip

    begun, i = time.monotonic(), 0
    with ThreadPoolExecutor(12) as pool:
        while not stop.wait(0.1):
            due = int((time.monotonic() - begun) * CHANGES)
            list(pool.map(lambda n: one(n * 37 % pods), range(i, due)))
            i = due
    return i / (time.monotonic() - begun)


def requests_served(api: ApiClient) -> int:
    text = send(api, "GET", "/metrics", headers={"Accept": "text/plain"}).data.decode()
    found = re.findall(
        r'^apiserver_request_total\{.*verb="(?:LIST|WATCH)".*\} (\S+)', text, re.MULTILINE
    )
    return int(sum(map(float, found)))


def rss() -> float:
    return float(psutil.Process().memory_info().rss) / 2**20


def peak() -> float:
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


def measure(what: str, kubeconfig: Path, pods: int) -> None:
    """In a process of its own: read everything, then say what a second of changes costs."""
    logging.basicConfig(level=logging.WARNING)
    api = connect(kubeconfig)
    request(api, "GET", "/version")
    before, begun, work = rss(), time.monotonic(), time.process_time()
    told: dict[str, float] = {"before": before}
    source = None
    if what == "source":
        source = KubernetesSource(api, "node-0", "bench", wait=120)
        inventory = source.inventory()
        assert len(inventory.pods) == pods
        assert all(p.workload and p.workload.kind == "Deployment" for p in inventory.pods)
    else:
        informer = SharedInformer(CoreV1Api(api).list_pod_for_all_namespaces)
        informer.start()
        while len(informer.cache.list()) < pods:
            time.sleep(0.05)
    told |= {"synced": time.monotonic() - begun, "cpu": time.process_time() - work}
    told |= {"after": rss(), "peak": peak()}
    if source:
        told["received"] = sum(w.received for w in source.watchers.values()) / 2**20
        times = []
        for _ in range(5):
            source._inventory = None
            begun = time.perf_counter()
            source.inventory()
            times.append(time.perf_counter() - begun)
        told["inventory"] = sorted(times)[2]
    print(json.dumps(told), flush=True)
    for line in sys.stdin:
        seconds, asking = json.loads(line)
        begun, work = time.monotonic(), time.process_time()
        while (left := begun + seconds - time.monotonic()) > 0:
            time.sleep(min(0.2, left))
            if asking and source:
                source.inventory()
        spent = (time.process_time() - work) / (time.monotonic() - begun)
        print(json.dumps({"cpu": spent, "rss": rss()}), flush=True)
    os._exit(0)


def run(what: str, kubeconfig: Path, pods: int, seconds: float) -> dict[str, float]:
    api = connect(kubeconfig)
    count = requests_served(api)
    command = [sys.executable, __file__, "--measure", what, "--kubeconfig", str(kubeconfig),
               "--pods", str(pods)]  # fmt: skip
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin
        assert child.stdout

        def ask(*question: object) -> dict[str, float]:
            print(json.dumps(question), file=child.stdin, flush=True)
            return dict(json.loads(child.stdout.readline()))  # type: ignore[union-attr]

        told: dict[str, float] = json.loads(child.stdout.readline())
        # A watch is counted when it ends, so these are the lists.
        told["requests"] = requests_served(api) - count
        stop = Event()
        with ThreadPoolExecutor(1) as pool:
            changing = pool.submit(change, api, pods, stop)
            time.sleep(2)
            told["watching"] = ask(seconds, False)["cpu"]
            told |= {"asking": (last := ask(seconds, True))["cpu"], "later": last["rss"]}
            stop.set()
            told["rate"] = changing.result()
        child.stdin.close()
    return told


def table(ours: dict[str, float], theirs: dict[str, float]) -> Iterator[str]:
    rows = (
        ("time until synced, s", "synced", "{:.1f}"),
        ("processor time for it, s", "cpu", "{:.1f}"),
        ("RSS before, MiB", "before", "{:.0f}"),
        ("RSS when synced, MiB", "after", "{:.0f}"),
        ("largest RSS, MiB", "peak", "{:.0f}"),
        ("RSS after the changes, MiB", "later", "{:.0f}"),
        ("received, unpacked, MiB", "received", "{:.1f}"),
        ("lists at the API server", "requests", "{:.0f}"),
        ("`inventory()` made anew, ms", "inventory", "{:.1f}"),
        ("changes of pods a second", "rate", "{:.0f}"),
        ("processor meanwhile, %", "watching", "{:.1f}"),
        ("the same with `inventory()` five times a second, %", "asking", "{:.1f}"),
    )
    yield "| | KubernetesSource | SharedInformer, pods only |"
    yield "|---|---:|---:|"
    scale = {"inventory": 1000, "watching": 100, "asking": 100}
    for label, key, form in rows:
        cells = [
            form.format(told[key] * scale.get(key, 1)) if key in told else ""
            for told in (ours, theirs)
        ]
        yield f"| {label} | {cells[0]} | {cells[1]} |"
    grown = [told["after"] - told["before"] for told in (ours, theirs)]
    ratio = grown[1] / max(grown[0], 0.1)
    yield f"| memory for what it knows, MiB | {grown[0]:.0f} | {grown[1]:.0f} ({ratio:.1f} times) |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=5000)
    parser.add_argument("--nodes", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--measure", choices=["source", "informer"])
    parser.add_argument("--kubeconfig", type=Path)
    asked = parser.parse_args()
    if asked.measure:
        measure(asked.measure, asked.kubeconfig, asked.pods)
        return
    from localcluster.control import ControlPlane

    with tempfile.TemporaryDirectory(prefix="portforge-identity-") as folder:
        plane = ControlPlane(Path(folder) / "plane")
        try:
            plane.start()
            begun = time.monotonic()
            filled(asked.pods, asked.nodes, connect(plane.kubeconfig))
            print(f"  (filled in {time.monotonic() - begun:.0f} s)", file=sys.stderr)
            results = [
                run(what, plane.kubeconfig, asked.pods, asked.seconds)
                for what in ("source", "informer")
            ]
        finally:
            plane.stop()
    print(f"{asked.pods} pods on {asked.nodes} nodes\n")
    print("\n".join(table(*results)))


if __name__ == "__main__":
    main()
