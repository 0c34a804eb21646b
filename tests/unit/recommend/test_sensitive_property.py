"""For generated captures and marks: nothing marked is admitted that was not seen."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from portforge.capture import Capture
from portforge.policy import Mode
from portforge.policy._judge import judge
from portforge.recommend import Decision, Options, recommend
from portforge.recommend._frame import FrameCapture
from portforge.schema import Peer, PeerKind, Workload
from portforge.synth import cluster, random_graph


def mark(**about: Any) -> Decision:
    said = {"by": "Ana", "reason": "card data", "at": datetime(2026, 3, 3, tzinfo=UTC)}
    return Decision(decision="sensitive", **about, **said)  # type: ignore[arg-type]


def _marks(capture: Capture, pick: random.Random) -> list[Decision]:
    flows = capture.flows()
    owners = flows[["namespace", "workload_kind", "workload"]].drop_duplicates()
    workloads = [Workload(*w) for w in owners.itertuples(index=False, name=None)]
    known = [w for w in workloads if w.namespace and w.kind != "Node"]
    addresses = sorted(flows.loc[flows["peer_kind"] == "external", "peer_ip"].unique())
    ports = sorted(int(p) for p in flows["port"].unique() if p)
    some = [
        lambda: {"workload": pick.choice(known)},
        lambda: {"namespace": pick.choice(known).namespace},
        lambda: {"port": pick.choice(ports)},
        lambda: {"port": pick.choice(ports) + 1, "protocol": "TCP"},
        lambda: {"peer": pick.choice(addresses)},
        lambda: {"peer": pick.choice(["World", "Cluster", "Node"])},
        lambda: {"peer": "/".join(pick.choice(known))},
        lambda: {"peer": f"{pick.choice(known).namespace}/*"},
        lambda: {"workload": pick.choice(known), "port": pick.choice(ports)},
        lambda: {"namespace": pick.choice(known).namespace, "peer": "203.0.113.128/25"},
    ]
    return [mark(**pick.choice(some)()) for _ in range(pick.randint(1, 3))]


def _lost(capture: Capture, pick: random.Random) -> Capture:
    """With some peers lost, some of unknown workloads, and nodes that call."""
    flows = capture.flows()
    owners = sorted(flows["workload"].dropna().unique())
    lost = flows["workload"].isin(pick.sample(owners, 2)) & (flows["protocol"] == "TCP")
    flows.loc[lost, "peer_ip"] = None
    flows.loc[lost, "peer_kind"] = "unknown"
    names = ["peer_namespace", "peer_workload_kind", "peer_workload", "peer_name"]
    flows.loc[lost, names] = None
    unknown = flows["workload"].isin(pick.sample(owners, 2)) & flows["peer_ip"].notna()
    unknown &= flows["peer_kind"] == "workload"
    flows.loc[unknown, "peer_kind"] = "unknown"
    flows.loc[unknown, names] = None
    return FrameCapture(flows)


def _probes(capture: Capture, pick: random.Random) -> Sequence[Peer]:
    flows = capture.flows()
    columns = ["peer_ip", "peer_kind", "peer_namespace", "peer_workload_kind", "peer_workload"]
    seen = flows.loc[flows["peer_ip"].notna(), columns].drop_duplicates()
    seen = seen[~seen["peer_kind"].isin(["loopback"])].astype(object)
    seen = seen.where(seen.notna(), None)
    peers = [Peer(*p) for p in seen.itertuples(index=False, name=None)]
    new = [Peer(f"203.0.113.{n}", PeerKind.EXTERNAL) for n in range(256)]
    new += [Peer("8.8.4.4", PeerKind.EXTERNAL), Peer("10.200.1.1", PeerKind.UNKNOWN)]
    new += [Peer("10.0.0.99", PeerKind.NODE, None, "Node", "node-99")]
    return [*pick.sample(peers, min(200, len(peers))), *new]


def _unit(peer: Peer) -> tuple[str | None, ...]:
    """A workload however it was met, else an address."""
    if peer.workload is not None and peer.kind in (PeerKind.WORKLOAD, PeerKind.SERVICE):
        return tuple(peer[2:])
    return (peer.ip,)


def _marked(mark: Decision, workload: Workload, protocol: str, port: int, peer: Peer) -> bool:
    """The meaning of a mark, written down again."""
    if mark.protocol not in (None, protocol) or mark.port not in (None, port):
        return False

    def one(end: tuple[str | None, ...]) -> bool:
        whole = mark.workload is None or tuple(mark.workload) == end
        return whole and mark.namespace in (None, end[0])

    if mark.peer is None:
        return one(tuple(workload)) or one(tuple(peer[2:]))
    kinds = {
        "World": [PeerKind.EXTERNAL],
        "Node": [PeerKind.NODE],
        "Cluster": [PeerKind.WORKLOAD, PeerKind.SERVICE, PeerKind.NODE, PeerKind.UNKNOWN],
    }
    if mark.peer.entity is not None:
        hit = peer.kind in kinds[str(mark.peer.entity)]
    elif mark.peer.workload is not None:
        hit = tuple(mark.peer.workload) == tuple(peer[2:])
    elif mark.peer.namespace is not None:
        hit = mark.peer.namespace == peer.namespace
    else:
        hit = ip_address(peer.ip or "") in ip_network(str(mark.peer.cidr))
    return hit and one(tuple(workload))


@pytest.mark.parametrize("seed", range(10))
def test_no_policy_admits_an_unobserved_port_and_peer_that_is_marked(seed: int) -> None:
    pick = random.Random(seed)
    made = cluster(random_graph(5, seed=seed % 3), seed=seed % 3, days=2)
    capture: Capture = FrameCapture(made.flows)
    if seed % 2:
        capture = _lost(capture, pick)
    marks = _marks(capture, pick)
    price = pick.choice([64, 256, 4096, 1 << 40])
    result = recommend(capture, decisions=marks, options=Options(price=price))
    observed = {
        (Workload(*one[:3]), *one[3:6], unit)
        for one in capture.flows()[[
            "namespace", "workload_kind", "workload", "direction", "protocol", "port", "peer_ip",
            "peer_kind", "peer_namespace", "peer_workload_kind", "peer_workload",
        ]].astype(object).drop_duplicates().itertuples(index=False, name=None)
        for unit in (_unit(Peer(*one[6:])), one[6:7])
    }  # fmt: skip
    probes = _probes(capture, pick)
    asked, done = 0, set()
    for policy in result.policies:
        enforced = policy.model_copy(update={"mode": Mode.ENFORCE})
        for direction in ("ingress", "egress"):
            for rule in policy.rules(direction) or ():
                ports = {rule.port, rule.last_port, *range(rule.port, rule.last_port, 37)}
                ports |= {m.port for m in marks if m.port} | {443, 53}
                owner, protocol = policy.workload, str(rule.protocol)
                for port in sorted(ports):
                    door = (owner, direction, protocol, port)
                    if door in done:
                        continue
                    done.add(door)
                    for peer in probes:
                        if {(*door, _unit(peer)), (*door, (peer.ip,))} & observed or not any(
                            _marked(m, owner, protocol, port, peer) for m in marks
                        ):
                            continue
                        asked += 1
                        said = judge(enforced, direction, protocol, port, peer, None)
                        assert said.verdict == "denied", (marks, door, peer, said)
    assert asked > 0
