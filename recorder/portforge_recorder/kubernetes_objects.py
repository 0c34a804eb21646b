"""What is kept of a Kubernetes object: little tuples, thousands of which fit in a few MB. Pure.

Plain JSON in, as the API server sends it. Not for what the objects mean together
(:mod:`portforge_recorder.kubernetes`).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from sys import intern
from typing import Any, NamedTuple

__all__ = ["KeptNode", "KeptOwned", "KeptPod", "KeptPort", "KeptService", "KeptSlice", "Owner"]

_Json = dict[str, Any]

_TUNNELS = (
    "projectcalico.org/IPv4IPIPTunnelAddr",
    "projectcalico.org/IPv4VXLANTunnelAddr",
    "projectcalico.org/IPv6VXLANTunnelAddr",
    "network.cilium.io/ipv4-cilium-host",
    "network.cilium.io/ipv6-cilium-host",
)
"""Annotations of a Node with one more address that its traffic to pods may come from."""


class Owner(NamedTuple):
    """The controller in an object's ownerReferences. ``group`` is empty for the core group."""

    group: str
    kind: str
    name: str
    uid: str


class KeptPod(NamedTuple):
    """A pod that has a node. ``uid`` is the kubelet's, which for a static pod is a hash."""

    uid: str
    namespace: str
    name: str
    node: str
    owner: Owner | None
    addresses: tuple[str, ...]
    host_network: bool
    since: datetime | None
    until: datetime | None
    """When its last container ended, once all have and none starts again."""
    ended: bool
    """Succeeded or Failed: it holds no address any more."""


class KeptOwned(NamedTuple):
    """A ReplicaSet or a Job."""

    namespace: str
    name: str
    owner: Owner | None


class KeptPort(NamedTuple):
    """A port of a Service. ``target`` is None where the Service gives a name."""

    name: str
    protocol: str
    port: int
    target: int | None
    node_port: int


class KeptService(NamedTuple):
    """A Service; ``entrances`` are its external and its load balancer's addresses."""

    namespace: str
    name: str
    addresses: tuple[str, ...]
    entrances: tuple[str, ...]
    ports: tuple[KeptPort, ...]


class KeptSlice(NamedTuple):
    """An EndpointSlice: of which Service, (name, protocol) to port, and UIDs of the pods."""

    namespace: str
    service: str
    ports: tuple[tuple[str, str, int], ...]
    pods: tuple[str, ...]


class KeptNode(NamedTuple):
    """A Node, its addresses and its pods' ranges."""

    name: str
    addresses: tuple[str, ...]
    ranges: tuple[str, ...]


def owner(item: _Json) -> Owner | None:
    """The controller among the owners.

    >>> owner({"metadata": {"ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet",
    ...     "name": "web-5d", "uid": "u", "controller": True}]}})
    Owner(group='apps', kind='ReplicaSet', name='web-5d', uid='u')
    """
    for reference in item["metadata"].get("ownerReferences") or ():
        if reference.get("controller"):
            group, _, _ = reference["apiVersion"].rpartition("/")
            return Owner(
                intern(group), intern(reference["kind"]), intern(reference["name"]),
                intern(reference["uid"]),
            )  # fmt: skip
    return None


def pod(item: _Json) -> KeptPod | None:
    """A Pod; None while it has no node."""
    meta, spec, status = item["metadata"], item["spec"], item.get("status") or {}
    node = spec.get("nodeName")
    if not node:
        return None
    annotations = meta.get("annotations") or {}
    static = "kubernetes.io/config.mirror" in annotations
    ips = [a["ip"] for a in status.get("podIPs") or ()] or [status.get("podIP")]
    ended = status.get("phase") in ("Succeeded", "Failed")
    return KeptPod(
        uid=annotations["kubernetes.io/config.hash"] if static else meta["uid"],
        namespace=intern(meta["namespace"]),
        name=meta["name"],
        node=intern(node),
        owner=owner(item),
        addresses=_addresses(ips),
        host_network=bool(spec.get("hostNetwork")),
        since=_time(status.get("startTime") or meta.get("creationTimestamp")),
        until=_last_container(status) if ended or meta.get("deletionTimestamp") else None,
        ended=ended,
    )


def owned(item: _Json) -> KeptOwned:
    """A ReplicaSet or a Job, of which metadata are enough."""
    meta = item["metadata"]
    return KeptOwned(intern(meta["namespace"]), intern(meta["name"]), owner(item))


def service(item: _Json) -> KeptService:
    """A Service of any type; a headless one and an ExternalName have no address."""
    meta, spec = item["metadata"], item["spec"]
    balancer = (item.get("status") or {}).get("loadBalancer") or {}
    own = spec.get("clusterIPs") or [spec.get("clusterIP")]
    ports = (
        KeptPort(
            p.get("name", ""),
            p.get("protocol", "TCP"),
            p["port"],
            target if isinstance(target := p.get("targetPort", p["port"]), int) else None,
            p.get("nodePort", 0),
        )
        for p in spec.get("ports") or ()
    )
    return KeptService(
        meta["namespace"],
        meta["name"],
        _addresses(a for a in own if a != "None"),
        _addresses(
            [
                *(spec.get("externalIPs") or ()),
                *(i.get("ip") for i in balancer.get("ingress") or ()),
            ]
        ),
        tuple(ports),
    )


def endpoint_slice(item: _Json) -> KeptSlice | None:
    """An EndpointSlice; None when it belongs to no Service."""
    meta = item["metadata"]
    of = (meta.get("labels") or {}).get("kubernetes.io/service-name")
    if not of:
        return None
    targets = (e.get("targetRef") or {} for e in item.get("endpoints") or ())
    ports = item.get("ports") or ()
    return KeptSlice(
        intern(meta["namespace"]),
        intern(of),
        tuple(
            (p.get("name") or "", p.get("protocol") or "TCP", p["port"])
            for p in ports
            if p.get("port")
        ),
        tuple(sorted({t["uid"] for t in targets if t.get("kind") == "Pod" and t.get("uid")})),
    )


def node(item: _Json) -> KeptNode:
    """A Node with every address its traffic may come from.

    Probes come from the bridge, which has the first address of the pods' range; with flannel,
    traffic to pods of other nodes comes from the range's address zero.
    """
    meta, spec, status = item["metadata"], item.get("spec") or {}, item.get("status") or {}
    ranges = [ip_network(c) for c in spec.get("podCIDRs") or filter(None, [spec.get("podCIDR")])]
    told = [
        a["address"]
        for a in status.get("addresses") or ()
        if a["type"] in ("InternalIP", "ExternalIP")
    ]
    annotations = meta.get("annotations") or {}
    bridges = [str(r.network_address + i) for r in ranges for i in (1, 0) if r.num_addresses > 2]
    tunnels = [annotations[name] for name in _TUNNELS if annotations.get(name)]
    return KeptNode(
        meta["name"], _addresses([*told, *bridges, *tunnels]), tuple(str(r) for r in ranges)
    )


def closed_namespace(item: _Json) -> str | None:
    """The name of a Namespace whose pods are denied until they are known."""
    labels = item["metadata"].get("labels") or {}
    closed = labels.get("portforge.dev/default-deny") == "until-known"
    return item["metadata"]["name"] if closed else None


def _addresses(texts: Any) -> tuple[str, ...]:
    """Canonical, each once, in the order given."""
    parsed = (ip_address(text) for text in texts if text)
    return tuple(dict.fromkeys(str(getattr(a, "ipv4_mapped", None) or a) for a in parsed))


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text).astimezone(UTC) if text else None


def _last_container(status: _Json) -> datetime | None:
    """When the last container ended, up to the full second; None while one may run."""
    times: list[datetime] = []
    for container in status.get("containerStatuses") or ():
        ended = (container.get("state") or {}).get("terminated") or {}
        time = _time(ended.get("finishedAt"))
        if time is None:
            return None
        times.append(time)
    return max(times) + timedelta(seconds=1) if times else None
