"""The oracle: what a policy says about one flow, in plain Python. The kernel must agree with it.

Pure, and knows no capture: ``_simulate`` asks it about many flows.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Literal, NamedTuple

from portforge.policy._model import Entity, Mode, PeerSelector, PortPolicy, Rule
from portforge.schema import Direction, Peer, PeerKind, Protocol

__all__ = ["Decision", "Judgement", "judge"]

Decision = Literal["allowed", "denied", "audited", "uncertain"]

_JUDGED = frozenset({Protocol.TCP, Protocol.UDP})
_ENTITY_KINDS = {
    Entity.NODE: frozenset({PeerKind.NODE}),
    Entity.CLUSTER: frozenset(
        {PeerKind.WORKLOAD, PeerKind.SERVICE, PeerKind.NODE, PeerKind.UNKNOWN}
    ),
    Entity.WORLD: frozenset({PeerKind.EXTERNAL}),
}


class Judgement(NamedTuple):
    """The decision, the id of the rule that made it (None: no rule did), and why.

    ``nearest`` is the rule for this port where it did not let the peer in, could not tell, or has
    expired.
    """

    verdict: Decision
    rule: str | None
    reason: str
    nearest: str | None = None


@lru_cache(maxsize=65536)
def _address(text: str) -> IPv4Address | IPv6Address:
    address = ip_address(text)
    return getattr(address, "ipv4_mapped", None) or address


@lru_cache(maxsize=4096)
def _network(text: str) -> IPv4Network | IPv6Network:
    return ip_network(text)


def _selects(selector: PeerSelector, peer: Peer) -> bool:
    named = peer.kind in (PeerKind.WORKLOAD, PeerKind.SERVICE)
    if selector.workload is not None:
        owner = (peer.namespace, peer.workload_kind, peer.workload)
        return named and owner == selector.workload
    if selector.namespace is not None:
        return named and peer.namespace == selector.namespace
    if selector.cidr is not None:
        # An address is never in a network of the other family.
        return peer.ip is not None and _address(peer.ip) in _network(selector.cidr)
    return selector.entity is not None and peer.kind in _ENTITY_KINDS[selector.entity]


def _gone(expires_at: datetime | None, now: datetime | None) -> bool:
    return expires_at is not None and now is not None and expires_at <= now


def _rule_for(
    rules: tuple[Rule, ...], protocol: str, port: int, now: datetime | None
) -> Rule | None:
    """The one rule for this port: ranges of one protocol do not overlap (see ``lint``)."""
    for rule in rules:
        if (
            rule.protocol == protocol
            and rule.port <= port <= rule.last_port
            and not _gone(rule.expires_at, now)
        ):
            return rule
    return None


def judge(
    policy: PortPolicy | None,
    direction: str,
    protocol: str,
    port: int,
    peer: Peer,
    node: str | None,
    *,
    now: datetime | None = None,
) -> Judgement:
    """What ``policy`` says about one flow of its workload.

    Parameters
    ----------
    policy: the workload's policy; None where it has none.
    direction: ``ingress`` or ``egress``, by who opened the connection.
    protocol, port: the service side's port, as in the flow record.
    peer: the other side; ``ip`` is None where the recorder lost it.
    node: name of the pod's own node, whose probes are allowed; None when not known.
    now: the moment of judging, with time zone; expired rules and policies are not there.
        None: nothing has expired.

    >>> from portforge.schema import Workload
    >>> web = PortPolicy(
    ...     namespace="shop", name="deployment-web", workload=Workload("shop", "Deployment", "web"),
    ...     mode=Mode.ENFORCE, ingress=[{"id": "in-tcp-80", "protocol": "TCP", "port": 80}],
    ... )
    >>> stranger = Peer("192.0.2.1", PeerKind.EXTERNAL)
    >>> judge(web, "ingress", "TCP", 80, stranger, "node-a").rule
    'in-tcp-80'
    >>> judge(web, "ingress", "TCP", 22, stranger, "node-a").verdict
    'denied'
    """
    if peer.kind == PeerKind.LOOPBACK:
        return Judgement("allowed", None, "loopback is never judged")
    if protocol not in _JUDGED:
        return Judgement("allowed", None, f"{protocol} passes unjudged")
    if policy is None:
        return Judgement("allowed", None, "no policy")
    if _gone(policy.expires_at, now):
        return Judgement("allowed", None, "the policy has expired")
    if policy.mode is Mode.RECORD:
        return Judgement("allowed", None, "the policy only records")
    rules = policy.rules(direction)
    if rules is None:
        return Judgement("allowed", None, f"{direction} is not restricted")
    rule = _rule_for(rules, protocol, port, now)
    if rule is not None:
        if rule.peers is None:
            return Judgement("allowed", rule.id, "any peer")
        # A lost peer has no address and no true kind: no selector can be said to match it.
        match = next((s for s in rule.peers if peer.ip is not None and _selects(s, peer)), None)
        if match is not None:
            return Judgement("allowed", rule.id, f"peer is {match}")
    if (
        direction == Direction.INGRESS
        and peer.kind == PeerKind.NODE
        and node is not None
        and peer.workload == node
    ):
        return Judgement("allowed", None, "own node")
    if rule is not None and peer.ip is None:
        reason = f"rule {rule.id} names peers, the peer was not kept"
        return Judgement("uncertain", None, reason, rule.id)
    refused: Decision = "denied" if policy.mode is Mode.ENFORCE else "audited"
    if rule is not None:
        return Judgement(refused, None, f"peer not in rule {rule.id}", rule.id)
    expired = _rule_for(rules, protocol, port, None)
    if expired is not None:
        reason = f"rule {expired.id} for {protocol} {port} has expired"
        return Judgement(refused, None, reason, expired.id)
    return Judgement(refused, None, f"no rule for {protocol} {port}")
