"""What enforcing a policy would cut that nobody means to cut. Pure; the cluster is asked elsewhere.

Three ways to lock oneself out: a workload without DNS, a workload without the API server it works
with, and the recorder under its own policy. The kubelet's probes are not among them: traffic from
the pod's own node to its ingress ports is always allowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from portforge.policy._judge import judge
from portforge.policy._model import Mode, PortPolicy
from portforge.schema import Direction, Peer, PeerKind, Protocol, Workload

__all__ = ["Risk", "Seen", "Surroundings", "risks"]

_DNS = 53


@dataclass(frozen=True)
class Seen:
    """Whom one workload was seen to ask: DNS servers, and the API server with its ports."""

    dns: frozenset[Peer] = frozenset()
    api_server: frozenset[tuple[Peer, int]] = frozenset()


@dataclass(frozen=True)
class Surroundings:
    """What of the cluster matters here.

    Parameters
    ----------
    dns: addresses of the cluster's DNS Service; empty where they are not known.
    dns_namespace: where the DNS server runs.
    recorders: the agents' own workloads.
    seen: what a capture saw of each workload; a workload that is not in it was not recorded.
    """

    dns: tuple[str, ...] = ()
    dns_namespace: str = "kube-system"
    recorders: frozenset[Workload] = frozenset()
    seen: Mapping[Workload, Seen] = field(default_factory=dict)


@dataclass(frozen=True)
class Risk:
    """One thing that would break, and what to do about it."""

    policy: PortPolicy
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.policy.namespace}/{self.policy.name}: {self.problem}; {self.remedy}"


def risks(
    policies: Iterable[PortPolicy], around: Surroundings, now: datetime | None = None
) -> list[Risk]:
    """What enforcing ``policies`` would cut; empty where nothing is known to break.

    >>> cart = PortPolicy(
    ...     namespace="shop", name="cart", workload=Workload("shop", "Deployment", "cart"),
    ...     egress=[{"id": "out-tcp-5432", "protocol": "TCP", "port": 5432}],
    ... )
    >>> risks([cart], Surroundings())[0].problem
    'no egress rule allows UDP 53 and TCP 53, so names are not resolved'
    """
    return [risk for policy in policies for risk in _risks(policy, around, now)]


def _risks(policy: PortPolicy, around: Surroundings, now: datetime | None) -> Iterator[Risk]:
    if policy.workload in around.recorders:
        yield Risk(
            policy,
            "this is the recorder itself: under a policy it may lose the API server",
            "leave portforge's own DaemonSet without a policy",
        )
    if policy.egress is None:
        return
    seen = around.seen.get(policy.workload)
    yield from _dns(policy, around, seen, now)
    for peer, port in sorted(seen.api_server if seen else (), key=str):
        if not _passes(policy, Protocol.TCP, port, peer, now):
            yield Risk(
                policy,
                f"{'/'.join(policy.workload)} works with the API server ({peer.ip}, port {port}), "
                "which no egress rule allows",
                f"allow TCP {port} to {peer.ip}/{128 if ':' in str(peer.ip) else 32}",
            )


def _dns(
    policy: PortPolicy, around: Surroundings, seen: Seen | None, now: datetime | None
) -> Iterator[Risk]:
    if seen is not None:
        for peer in sorted(seen.dns, key=str):
            yield from _cut(policy, around, peer, f"it was seen to ask {peer.ip}", now)
    elif _needs_names(policy):
        if around.dns:
            for address in around.dns:
                peer = Peer(address, PeerKind.SERVICE, around.dns_namespace)
                yield from _cut(policy, around, peer, "so names are not resolved", now)
        else:
            yield from _cut(policy, around, None, "so names are not resolved", now)


def _needs_names(policy: PortPolicy) -> bool:
    """Whether a rule goes to something that is usually called by name: all but bare CIDRs."""
    return any(
        rule.peers is None or any(peer.cidr is None for peer in rule.peers)
        for rule in policy.egress or ()
    )


def _cut(
    policy: PortPolicy, around: Surroundings, peer: Peer | None, why: str, now: datetime | None
) -> Iterator[Risk]:
    lacking = [
        f"{protocol} {_DNS}"
        for protocol in (Protocol.UDP, Protocol.TCP)
        if not _resolves(policy, around, protocol, peer, now)
    ]
    if lacking:
        to = f" to the cluster's DNS ({peer.ip})" if peer else ""
        yield Risk(
            policy,
            f"no egress rule allows {' and '.join(lacking)}{to}, {why}",
            f"allow {' and '.join(lacking)} to the DNS server",
        )


def _resolves(
    policy: PortPolicy,
    around: Surroundings,
    protocol: Protocol,
    peer: Peer | None,
    now: datetime | None,
) -> bool:
    if peer is not None and _passes(policy, protocol, _DNS, peer, now):
        return True
    # The Service's own address says nothing of the workload behind it: a rule that names one
    # there is taken at its word. Where nothing is known of DNS, any rule for its port is.
    for rule in policy.egress or ():
        if rule.protocol == protocol and rule.port <= _DNS <= rule.last_port:
            if peer is None:
                return True
            named = peer.workload is None and any(
                p.workload is not None and p.workload.namespace == around.dns_namespace
                for p in rule.peers or ()
            )
            if named:
                return True
    return False


def _passes(
    policy: PortPolicy, protocol: Protocol, port: int, peer: Peer, now: datetime | None
) -> bool:
    enforced = policy.model_copy(update={"mode": Mode.ENFORCE})
    verdict = judge(enforced, Direction.EGRESS, protocol, port, peer, None, now=now).verdict
    return verdict == "allowed"
