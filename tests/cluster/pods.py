"""Pods with a purpose for tests on the real cluster: objects as Python says them, what runs in
them, rows of the capture that came of it, and addresses that are given out again.

Nothing is asserted here but that a wanted row exists.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster.cluster import Cluster
from localcluster.node import Node
from localcluster.processes import LocalClusterError

from .release import Release, until

Object = dict[str, Any]
IMAGE = "localhost/shop:1"
CLIENT = ("python3", "/opt/shop/client.py")
_CALL = """
import socket, sys, time
while True:
    for target in sys.argv[1:]:
        host, _, port = target.rpartition(":")
        try:
            with socket.create_connection((host, int(port)), 2) as s:
                s.sendall(b"x")
                s.recv(1)
        except OSError as wrong:
            print(target, wrong, flush=True)
    time.sleep(1)
"""
_KNOCK = """
import collections, json, socket, sys, threading, time
seconds, patience, targets = float(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
said = {t: collections.Counter() for t in targets}
opened = {}
def knock(target):
    host, _, port = target.rpartition(":")
    end = time.time() + seconds
    while True:
        at = time.time()
        try:
            socket.create_connection((host, int(port)), patience).close()
            how = "open"
            opened.setdefault(target, at)
        except OSError as wrong:
            how = type(wrong).__name__
        said[target][how] += 1
        if time.time() >= end:
            return
        time.sleep(0.02 if how != "TimeoutError" else 0)
threads = [threading.Thread(target=knock, args=(t,)) for t in targets]
[t.start() for t in threads]
[t.join() for t in threads]
print(json.dumps({t: {"said": said[t], "opened": opened.get(t)} for t in targets}))
"""


def call(*targets: str) -> list[str]:
    """A command: connect to each ``host:port`` once a second, for ever."""
    return ["python3", "-c", _CALL, *targets]


def knock(*targets: str, seconds: float = 0, patience: float = 1.5) -> list[str]:
    """A command: connect to each ``host:port`` again and again, then tell as JSON how it went."""
    return ["python3", "-c", _KNOCK, str(seconds), str(patience), *targets]


def listen(*ports: int) -> list[str]:
    """A command: an echo server on every port."""
    started = "".join(f"{' '.join(CLIENT)} listen --port={port} & " for port in ports)
    return ["bash", "-c", f"{started} wait"]


def container(command: list[str], name: str = "main", **more: Any) -> Object:
    """A container of the shop's image."""
    return {"name": name, "image": IMAGE, "imagePullPolicy": "Never", "command": command} | more


def pod_spec(command: list[str], node: Node | None = None, **more: Any) -> Object:
    """What a pod runs, on ``node`` where given."""
    probe = more.pop("readiness", None)
    spec = {
        "terminationGracePeriodSeconds": 0,
        "containers": [container(command, **({"readinessProbe": probe} if probe else {}))],
    }
    where = {"nodeSelector": {"kubernetes.io/hostname": node.name}} if node else {}
    return spec | where | more


def template(app: str, spec: Object) -> Object:
    """A pod's template with its label."""
    return {"metadata": {"labels": {"app": app}}, "spec": spec}


def selected(app: str, spec: Object, **more: Any) -> Object:
    """The spec of a Deployment and of its like."""
    return {"selector": {"matchLabels": {"app": app}}, "template": template(app, spec)} | more


def made(api: str, kind: str, name: str, spec: Object | None = None, **meta: Any) -> Object:
    """An object; its namespace is given when it is applied."""
    body = {"apiVersion": api, "kind": kind, "metadata": {"name": name} | meta}
    return body | ({"spec": spec} if spec is not None else {})


def deployment(app: str, command: list[str], node: Node | None = None, **more: Any) -> Object:
    """A Deployment of one pod, or of ``replicas``."""
    replicas = more.pop("replicas", 1)
    spec = selected(app, pod_spec(command, node, **more), replicas=replicas)
    return made("apps/v1", "Deployment", app, spec)


def daemonset(app: str, command: list[str], **more: Any) -> Object:
    """A DaemonSet on every node."""
    return made("apps/v1", "DaemonSet", app, selected(app, pod_spec(command, **more)))


def bare(app: str, command: list[str], node: Node | None = None, **more: Any) -> Object:
    """A pod of nobody's."""
    more = {"restartPolicy": "Never"} | more
    return made("v1", "Pod", app, pod_spec(command, node, **more), labels={"app": app})


def service(name: str, app: str | None, *ports: tuple[int, int], **more: Any) -> Object:
    """A Service with (port, target port)."""
    said = [{"name": f"p{p}", "port": p, "targetPort": t} for p, t in ports]
    select = {"selector": {"app": app}} if app else {}
    return made("v1", "Service", name, {"ports": said} | select | more)


def rule(name: str, protocol: str, port: int, *peers: tuple[str, str, str]) -> Object:
    """A rule that names workloads."""
    named = [{"workload": dict(zip(("namespace", "kind", "name"), p, strict=True))} for p in peers]
    return {"id": name, "protocol": protocol, "port": port, "peers": named}


@dataclass
class Room:
    """A namespace of the test's own."""

    release: Release
    namespace: str

    def __post_init__(self) -> None:
        self.cluster: Cluster = self.release.cluster

    def kubectl(self, *words: str, give: str | None = None) -> str:
        """In this namespace, as the administrator."""
        return str(self.cluster.kubectl("-n", self.namespace, *words, give=give))

    def open(self, **labels: str) -> None:
        """Make the namespace."""
        body = made("v1", "Namespace", self.namespace, labels=labels)
        self.cluster.kubectl("apply", "-f", "-", give=json.dumps(body))
        until("the ServiceAccount", lambda: self.kubectl("get", "serviceaccounts", "-o", "name"))

    def close(self) -> None:
        """Delete it and wait for its pods to end."""
        self.cluster.kubectl(
            *("delete", "namespace", self.namespace, "--ignore-not-found", "--timeout=120s")
        )

    def apply(self, *objects: Object) -> None:
        """Bring objects."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "-f", "-", give=json.dumps(items))

    def stand(self, *names: str, seconds: int = 180) -> None:
        """Wait for the rollout of ``kind/name``."""
        for name in names:
            self.kubectl("rollout", "status", name, f"--timeout={seconds}s")

    def read(self, kind: str, name: str = "", *words: str) -> Object:
        """An object or a list as the API server has it."""
        return dict(json.loads(self.kubectl("get", kind, *filter(None, [name]), *words, "-ojson")))

    def pods(self, app: str) -> dict[str, Object]:
        """Pods of ``app`` that are not on their way out, by node."""
        items = self.read("pods", "", "-l", f"app={app}")["items"]
        return {
            str(p["spec"].get("nodeName")): p
            for p in items
            if "deletionTimestamp" not in p["metadata"]
        }

    def pod(self, app: str) -> Object:
        """The one pod of ``app``."""
        (one,) = self.pods(app).values()
        return one

    def address(self, app: str) -> str:
        """Its address."""
        return str(self.pod(app)["status"]["podIP"])

    def run(self, pod: Object, *words: str) -> str:
        """A command in a pod."""
        return self.kubectl("exec", pod["metadata"]["name"], "--", *words)

    def knock(self, pod: Object, *targets: str, seconds: float = 0) -> dict[str, Object]:
        """How a pod's attempts ended, by target."""
        return dict(json.loads(self.run(pod, *knock(*targets, seconds=seconds))))

    def word(self, pod: str, seconds: float = 90) -> Any:
        """The JSON in the first line that a pod printed, once it has."""
        soon(f"the word of {pod}", lambda: self.kubectl("logs", pod).strip(), seconds)
        return json.loads(self.kubectl("logs", pod).splitlines()[0])

    def enforce(self, folder: Path, **policies: Object) -> None:
        """ana writes policies, ben enforces them; waits until every node has them in force.

        A policy is given as its spec, under its workload ``kind_name``.
        """
        own = folder / "policies" / self.namespace
        own.mkdir(parents=True, exist_ok=True)
        for key, spec in policies.items():
            kind, _, name = key.partition("_")
            meta = {"namespace": self.namespace, "name": key.lower().replace("_", "-")}
            body = {
                "apiVersion": "portforge.dev/v1alpha1",
                "kind": "PortPolicy",
                "metadata": meta,
                "spec": {"workload": {"kind": kind, "name": name}} | spec,
            }
            (own / f"{meta['name']}.yaml").write_text(json.dumps(body))
        for who, words in (("ana", ()), ("ben", ("--mode", "enforce"))):
            self.release.portforge(who, "apply", str(folder / "policies"), "--cluster", *words)
        until("every node to enforce", self.enforced, 90)

    def enforced(self) -> bool:
        """Is every policy here in force wherever it has pods?"""
        found = self.release.status()["policies"]
        found = [p for p in found if p["namespace"] == self.namespace]
        return bool(found) and all(
            p["mode"] == "Enforce" and p["appliedNodes"] == p["nodes"] for p in found
        )


def next_address(node: Node, address: str) -> None:
    """Let ``address``, when it is free, be the next that ``node`` gives to a pod."""
    (folder,) = (node.folder / "addresses").iterdir()
    head, _, last = address.rpartition(".")
    (folder / "last_reserved_ip.0").write_text(f"{head}.{int(last) - 1}")


def taken(node: Node, address: str) -> bool:
    """Does a pod of ``node`` hold ``address``?"""
    (folder,) = (node.folder / "addresses").iterdir()
    return bool((folder / address).exists())


def soon(what: str, check: Callable[[], Any], seconds: float = 90) -> float:
    """As :func:`until`, where an error means not yet."""

    def quietly() -> Any:
        try:
            return check()
        except (AssertionError, KeyError, ValueError, LocalClusterError):
            return None

    return until(what, quietly, seconds)


def ways(said: dict[str, Any]) -> str:
    """Every way in which attempts ended."""
    return " ".join(sorted({how for target in said.values() for how in target["said"]}))


def all_open(said: dict[str, Any]) -> bool:
    """Did no attempt fail?"""
    return ways(said) == "open"
