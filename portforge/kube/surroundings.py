"""What of the cluster the safety check needs to know. What it means is portforge.policy's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from portforge.errors import ClusterError
from portforge.kube._refused import RefusedError, ask
from portforge.policy._safety import Seen, Surroundings
from portforge.schema import Peer, PeerKind, Workload

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

__all__ = ["look_around"]

_SERVICE = "/api/v1/namespaces/kube-system/services"
_SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
_SQL = """
SELECT DISTINCT namespace, workload_kind, workload, protocol, port, peer_ip, peer_kind,
       peer_namespace, peer_workload_kind, peer_workload
FROM flows WHERE direction = 'egress' AND workload IS NOT NULL AND verdict <> 'listening'
"""


def look_around(api: ApiClient, capture: Path | None) -> tuple[Surroundings, list[str]]:
    """The surroundings, and what could not be found out about them, one sentence each.

    Parameters
    ----------
    capture: where given, what it saw decides who needs DNS and the API server.
    """
    unknown: list[str] = []
    services = _items(api, _SERVICE, {"labelSelector": "k8s-app=kube-dns"}, "DNS", unknown)
    dns = tuple(
        address
        for service in services
        for address in service["spec"].get("clusterIPs") or ()
        if address != "None"
    )
    if services and not dns:
        unknown.append("the cluster's DNS Service has no address")
    recorders = _recorders(api, unknown)
    seen: dict[Workload, Seen] = {}
    if capture is not None:
        seen = _seen(capture, dns, _api_servers(api, unknown))
    return Surroundings(dns, recorders=recorders, seen=seen), unknown


def _items(
    api: ApiClient, path: str, params: Mapping[str, str], what: str, unknown: list[str]
) -> list[dict[str, Any]]:
    try:
        return list(ask(api, "GET", path, params=params, place=what)["items"])
    except RefusedError as no:
        unknown.append(f"not checked against the cluster's {what}: {no.problem}")
        return []


def _recorders(api: ApiClient, unknown: list[str]) -> frozenset[Workload]:
    found = _items(
        api,
        "/apis/apps/v1/daemonsets",
        {"labelSelector": "app.kubernetes.io/name=portforge"},
        "recorder",
        unknown,
    )
    return frozenset(
        Workload(d["metadata"]["namespace"], "DaemonSet", d["metadata"]["name"]) for d in found
    )


def _api_servers(api: ApiClient, unknown: list[str]) -> frozenset[tuple[str, int]]:
    """Address and port of the API server: as a Service, and as what is behind it."""
    found: set[tuple[str, int]] = set()
    try:
        path = "/api/v1/namespaces/default/services/kubernetes"
        spec = ask(api, "GET", path, place="Service default/kubernetes")["spec"]
        found |= {(a, p["port"]) for a in spec.get("clusterIPs") or () for p in spec["ports"]}
    except ClusterError as no:
        unknown.append(f"not checked against the API server: {no.problem}")
        return frozenset()
    label = {"labelSelector": "kubernetes.io/service-name=kubernetes"}
    for part in _items(api, _SLICES, label, "API server's own addresses", unknown):
        found |= {
            (address, port["port"])
            for endpoint in part.get("endpoints") or ()
            for address in endpoint["addresses"]
            for port in part.get("ports") or ()
        }
    return frozenset(found)


def _seen(
    capture: Path, dns: Iterable[str], api_servers: frozenset[tuple[str, int]]
) -> dict[Workload, Seen]:
    from portforge.capture import open_capture

    names: dict[Workload, set[Peer]] = defaultdict(set)
    servers: dict[Workload, set[tuple[Peer, int]]] = defaultdict(set)
    workloads: set[Workload] = set()
    known = set(dns)
    rows: list[dict[str, Any]] = open_capture(capture).sql(_SQL).to_dict("records")  # type: ignore[assignment]
    for row in rows:
        kept: dict[str, Any] = {k: None if v != v else v for k, v in row.items()}
        workload = Workload(kept["namespace"], kept["workload_kind"], kept["workload"])
        workloads.add(workload)
        if kept["peer_ip"] is None:
            continue
        peer = Peer(
            kept["peer_ip"],
            PeerKind(kept["peer_kind"]),
            kept["peer_namespace"],
            kept["peer_workload_kind"],
            kept["peer_workload"],
        )
        # Another cluster's DNS, or a resolver outside, is nobody's lifeline here.
        inside = peer.ip in known or peer.kind in (PeerKind.SERVICE, PeerKind.WORKLOAD)
        if kept["port"] == 53 and inside:
            names[workload].add(peer)
        if kept["protocol"] == "TCP" and (peer.ip, kept["port"]) in api_servers:
            servers[workload].add((peer, int(kept["port"])))
    return {w: Seen(frozenset(names[w]), frozenset(servers[w])) for w in workloads}
