"""The same rows and verdicts where kube-proxy writes iptables rules: a second, smaller cluster.

The other tests of this folder run on nftables; a load balancer at the socket is played in
tests/kernel/test_socket_load_balancer.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusterdemo.shop import image as shop_image
from localcluster import images
from localcluster.cluster import Cluster

from .pods import Room, all_open, call, daemonset, deployment, listen, rule, service, ways
from .release import Release
from .rows import pulled

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(900),  # with the installation, on a machine that is shared
]
NS, PORT = "other", 8081


@pytest.fixture(scope="module")
def room(built: Path) -> Iterator[Room]:  # noqa: ARG001
    """A server on the first node and clients on both, in a cluster of its own."""
    cluster = Cluster("ipt", 6, size=2, proxy_mode="iptables")
    try:
        cluster.up()
        cluster.load(*images.portforge(), shop_image())
        release = Release(cluster)
        release.install()
        room = Room(release, NS)
        room.open()
        room.apply(deployment("server", listen(PORT), cluster.nodes[0]))
        room.apply(service("server", "server", (80, PORT)))
        room.stand("deployment/server")
        ask = call("server.other.svc.cluster.local:80")
        room.apply(daemonset("client", ask), daemonset("stranger", ["sleep", "infinity"]))
        room.stand("daemonset/client", "daemonset/stranger")
        yield room
    finally:
        cluster.down()


def test_rows_and_verdicts_with_iptables(room: Room, tmp_path: Path) -> None:
    one, two = (node.name for node in room.cluster.nodes)
    began = time.time() - 5
    time.sleep(5)
    rows = pulled(room.release, tmp_path / "capture", began)
    server = {"peer_namespace": NS, "peer_workload_kind": "Deployment", "peer_workload": "server"}
    for node in (one, two):
        rows.of(
            node=node, namespace=NS, workload_kind="DaemonSet", workload="client", port=80,
            direction="egress", peer_kind="service", target_port=PORT, verdict="allowed", **server,
        )  # fmt: skip
    rows.of(
        node=one, namespace=NS, workload="server", direction="ingress", port=PORT,
        peer_kind="workload", peer_workload_kind="DaemonSet", peer_workload="client",
    )  # fmt: skip
    client = rule("in-8081", "TCP", PORT, (NS, "DaemonSet", "client"))
    room.enforce(tmp_path, Deployment_server={"ingress": [client]}, DaemonSet_stranger={"egress": [
        rule("dns", "UDP", 53, ("kube-system", "Deployment", "coredns")),
        rule("dns-tcp", "TCP", 53, ("kube-system", "Deployment", "coredns")),
        rule("out-80", "TCP", 80, (NS, "Deployment", "server")),
    ]})  # fmt: skip
    direct, through = f"{room.address('server')}:{PORT}", "server.other.svc.cluster.local:80"
    for pod in room.pods("client").values():
        assert all_open(room.knock(pod, direct, through))
    for pod in room.pods("stranger").values():
        assert ways(room.knock(pod, through)) == "TimeoutError", "out it may, in it may not"
        assert ways(room.knock(pod, direct)) == "PermissionError"
