"""The kernel agrees with the oracle: generated policies, real packets, ``portforge.policy.judge``.

One pod is under the policy. Another holds every peer's address: who a peer is, only the inventory
says. The node speaks for itself. Each flow is sent for real, and three witnesses must agree with
the oracle: what the sender was told, what arrived, and the verdict and rule that were recorded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from portforge.apply import inventory as inv
from portforge.apply.layout import PROTOCOLS, Direction, Scope, Verdict, unpacked_address
from portforge.demo.machine import tool
from portforge.demo.pods import Node, Pod
from portforge.policy import Established, Mode, PortPolicy, approve, judge, lint
from portforge.schema import Workload

from .bed import Bed
from .enforcing import standing_bed
from .puppet import Puppet

EXAMPLES = 200
NOW = datetime.now(UTC)
# Both sides of every boundary that a prefix of ports can have, none that the kernel picks itself.
PORTS = (1, 2, 53, 255, 256, 1023, 1024, 8000, 8001, 8007, 8008, 16383, 16384, 32767, 61440, 65535)
EDGES = sorted({p for port in PORTS for p in (port - 1, port, port + 1) if 0 < p < 65536})
ONE, TWO = Workload("t", "Deployment", "one"), Workload("u", "StatefulSet", "two")
PEERS = {
    "one": ("10.77.0.201", "fd77::201"),
    "two": ("10.77.0.202", "fd77::202"),
    "service of two": ("10.96.0.250",),
    "service of nobody": ("10.96.0.251",),
    "unknown": ("10.77.0.203", "fd77::203"),
    "node-b": ("10.78.0.2", "fd78::2"),
    # The last is the neighbour of where IPv4 is written inside IPv6.
    "external": ("203.0.113.9", "203.0.113.130", "2001:db8::9", "::fffe:cb00:7109"),
}
CIDRS = (
    *("0.0.0.0/0", "::/0", "10.0.0.0/8", "10.77.0.0/24", "10.77.0.202/31", "10.77.0.201/32"),
    *("203.0.113.0/24", "203.0.113.128/25", "128.0.0.0/1", "10.96.0.0/16", "10.77.0.1/32"),
    *("::/16", "::/64", "::fffe:0:0/95", "::fffe:0:0/96", "fd77::/64", "fd77::200/126"),
    *("fc00::/7", "2001:db8::9/128", "8000::/1"),
)


class Stage(NamedTuple):
    """Who plays."""

    bed: Bed
    pod: Pod
    inside: Puppet
    peers: Puppet
    node: Puppet
    inventory: inv.Inventory


class Attempt(NamedTuple):
    """A flow to be tried; ``number`` makes its source port and its text its own."""

    direction: Direction
    protocol: str
    port: int
    peer: str
    mapped: bool


def _give_addresses(node: Node, pod: Pod) -> None:
    """Everything in ``PEERS`` leads to ``pod``."""
    link = tool("ip", "-n", node.network.name, "-o", "route", "get", pod.address).split("dev ")[1]
    for address in (a for addresses in PEERS.values() for a in addresses):
        bits, nodad = ("128", ["nodad"]) if ":" in address else ("32", [])
        tool(
            *("ip", "-n", pod.network.name, "address", "add", f"{address}/{bits}"),
            *("dev", "eth0", *nodad),
        )
        source = node.address6 if ":" in address else node.address
        tool(
            *("ip", "-n", node.network.name, "route", "add", f"{address}/{bits}"),
            *("dev", link.split()[0], "src", source),
        )


def _inventory(bed: Bed, pod: Pod) -> inv.Inventory:
    """The pod under test as it is, and the peers as ``PEERS`` calls them."""
    known = bed.source().inventory()
    others = [
        inv.Pod(f"{number:08}-0000-0000-0000-000000000000", w.namespace, w.name, w, "node-b", at)
        for number, (w, at) in enumerate(((ONE, PEERS["one"]), (TWO, PEERS["two"])))
    ]
    return replace(
        known,
        pods=(*(p for p in known.pods if p.uid == pod.uid), *others),
        nodes=(*known.nodes, inv.Node("node-b", PEERS["node-b"])),
        services=(
            inv.Service("u", "two", PEERS["service of two"], workload=TWO),
            inv.Service("t", "nobody", PEERS["service of nobody"]),
        ),
    )


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with standing_bed(tmp_path_factory.mktemp("oracle")) as bed:
        pod, other = bed.node.pod("t", "Deployment", "web"), bed.node.pod("t", "Job", "peers")
        _give_addresses(bed.node, other)
        puppets = (Puppet(pod, *PORTS), Puppet(other, *PORTS), Puppet(bed.node, *PORTS))
        yield Stage(bed, pod, *puppets, _inventory(bed, pod))


SELECTORS = st.one_of(
    st.sampled_from(CIDRS).map(lambda cidr: {"cidr": cidr}),
    st.sampled_from(("Node", "Cluster", "World")).map(lambda entity: {"entity": entity}),
    st.sampled_from((ONE, TWO, Workload("t", "Job", "two"))).map(lambda w: {"workload": w}),
    st.sampled_from(("t", "u", "v")).map(lambda namespace: {"namespace": namespace}),
)
SOME_PEERS = st.lists(SELECTORS, min_size=1, max_size=3, unique_by=repr)
PEER_LISTS = st.one_of(SOME_PEERS, st.none(), SOME_PEERS)
EXPIRY = st.sampled_from((None, None, None, NOW + timedelta(days=1), NOW - timedelta(days=1)))


@st.composite
def rules(draw: st.DrawFn, side: str) -> list[dict[str, Any]] | None:
    """Rules of one direction; ranges of one protocol do not overlap, as lint demands."""
    if draw(st.integers(0, 4)) == 0:
        return None
    found: list[dict[str, Any]] = []
    for protocol in ("TCP", "UDP"):
        cuts = sorted(draw(st.sets(st.sampled_from(EDGES), max_size=6)))
        while cuts:
            first = cuts.pop(0)
            last = cuts.pop(0) if cuts and draw(st.integers(0, 3)) > 0 else first
            found.append(
                {
                    "id": f"{side}-{protocol.lower()}-{first}",
                    "protocol": protocol,
                    "port": first,
                    "endPort": last,
                    "peers": draw(PEER_LISTS),
                    "expiresAt": draw(EXPIRY),
                }
            )
    return found


@st.composite
def policies(draw: st.DrawFn) -> PortPolicy:
    """A policy of the pod under test."""
    modes = (Mode.ENFORCE, Mode.ENFORCE, Mode.ENFORCE, Mode.AUDIT, Mode.AUDIT, Mode.RECORD)
    return PortPolicy.model_validate(
        {
            "namespace": "t",
            "name": "web",
            "workload": Workload("t", "Deployment", "web"),
            "mode": draw(st.sampled_from(modes)),
            "established": draw(st.sampled_from(list(Established))),
            "ingress": draw(rules("in")),
            "egress": draw(rules("out")),
            "expires_at": draw(EXPIRY),
        }
    )


NAMED = [*PEERS["one"], *PEERS["two"], *PEERS["service of two"], *PEERS["service of nobody"]]
# Those that rules may name are tried three times as often as others.
ADDRESSES = ("10.77.0.1", "fd77::1", *(a for at in PEERS.values() for a in at), *NAMED, *NAMED)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[PortPolicy, list[Attempt]]:
    """A policy and attempts, two of three at a port that some rule is about."""
    policy = draw(policies())
    attempts: dict[tuple[Any, ...], Attempt] = {}
    for _ in range(draw(st.integers(8, 20))):
        direction = draw(st.sampled_from(list(Direction)))
        found = policy.rules(direction.name.lower()) or ()
        about = [(str(r.protocol), p) for r in found for p in PORTS if r.port <= p <= r.last_port]
        if about and draw(st.integers(0, 2)) > 0:
            protocol, port = draw(st.sampled_from(about))
        else:
            protocol, port = draw(st.sampled_from(("TCP", "UDP"))), draw(st.sampled_from(PORTS))
        peer = draw(st.sampled_from(ADDRESSES))
        attempt = Attempt(direction, protocol, port, peer, draw(st.booleans()))
        # Recorded flows know no mapped sockets: one attempt for each recorded flow.
        attempts[attempt[:4]] = attempt
    return policy, list(attempts.values())


OUTCOMES = (("allowed", True), ("allowed", False), ("denied", False), ("audited", False))
NAMES = {number: name for name, number in PROTOCOLS.items()}
_numbers = count(1)


class Tried(NamedTuple):
    """An attempt: who sends what to whom, and whether the oracle lets it pass."""

    attempt: Attempt
    sender: Puppet
    receiver: Puppet
    order: dict[str, Any]
    passes: bool

    @property
    def is_datagram(self) -> bool:
        """Its text can be looked for at the receiver."""
        return self.attempt.protocol == "UDP"


def _order(stage: Stage, attempt: Attempt) -> tuple[Puppet, Puppet, dict[str, Any]]:
    """Who sends, who receives, and what."""
    six = ":" in attempt.peer
    number = next(_numbers)
    order: dict[str, Any] = {
        "protocol": attempt.protocol,
        "port": attempt.port,
        # Never the same twice: a UDP flow between the same four numbers would be the same flow.
        "source_port": 20000 + number % 12000,
        "text": f"attempt {number}",
    }
    own_node = attempt.peer in (stage.bed.node.address, stage.bed.node.address6)
    peer = stage.node if own_node else stage.peers
    if attempt.direction == Direction.EGRESS:
        mapped = attempt.mapped and not six
        return stage.inside, peer, {**order, "to": attempt.peer, "mapped": mapped}
    to = stage.pod.address6 if six else stage.pod.address
    return peer, stage.inside, {**order, "to": to, "source": attempt.peer}


def _send(tried: list[Tried]) -> list[str]:
    """Send everything; what each sender was told. What ought to pass is waited for."""
    told = ["" for _ in tried]
    batches: dict[tuple[int, str], list[int]] = {}
    for i, one in enumerate(tried):
        batches.setdefault((id(one.sender), one.attempt.protocol), []).append(i)
    for (_, protocol), numbers in batches.items():
        sender = tried[numbers[0]].sender
        flows = [tried[i].order for i in numbers]
        if protocol == "TCP":
            passing = sum(tried[i].passes for i in numbers)
            results = sender("connect_all", flows=flows, expected=passing, timeout=2)["results"]
        else:
            results = sender("send_all", flows=flows)["results"]
        for i, result in zip(numbers, results, strict=True):
            told[i] = result
    return told


def _arrived(stage: Stage, tried: list[Tried]) -> set[str]:
    """The texts of datagrams that came; those that ought to are waited for."""
    found: set[str] = set()
    for receiver in (stage.inside, stage.peers, stage.node):
        texts = [t.order["text"] for t in tried if t.receiver is receiver and t.is_datagram]
        wanted = {t.order["text"] for t in tried if t.passes}
        if texts:
            receiver("wait", texts=[x for x in texts if x in wanted], timeout=2)
            found |= set(receiver("wait", texts=texts, timeout=0)["arrived"])
    return found


def _recorded(stage: Stage) -> dict[Attempt, list[tuple[str, str | None]]]:
    """Verdicts and rules that the kernel noted of the pod since the last call."""
    known = stage.bed.enforcer.state.known()
    drained = stage.bed.maps.drain()
    stage.bed.maps.drained()
    found: dict[Attempt, list[tuple[str, str | None]]] = {}
    for key, value in zip(drained.keys, drained.values, strict=True):
        if key["cgroup"] != stage.pod.cgroup_path.stat().st_ino:
            continue
        assert key["scope"] == Scope.REMOTE
        attempt = Attempt(
            Direction(int(key["direction"])),
            NAMES[int(key["protocol"])],
            int(key["port"]),
            unpacked_address(np.asarray(key["peer"]).tobytes()),
            False,
        )
        policy, rule = int(value["policy"]), int(value["rule"])
        found.setdefault(attempt, []).append(
            (
                Verdict(int(key["verdict"])).name.lower(),
                known[policy].rules[rule - 1] if rule else None,
            )
        )
    return found


def test_the_kernel_says_what_the_oracle_says(stage: Stage) -> None:
    seen: Counter[tuple[str, str, str, bool]] = Counter()
    by_namespace: list[Attempt] = []

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        # Shrinking waits for every packet that does not come; the assertions name the flow anyway.
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(scenes())
    def agree(scene: tuple[PortPolicy, list[Attempt]]) -> None:
        policy, attempts = scene
        assert lint([policy]) == []
        stage.bed.enforcer.state.change([approve(policy, "tester", NOW)])
        stage.bed.enforcer.reconcile(stage.inventory, NOW)
        _recorded(stage)
        expected: dict[Attempt, tuple[str, str | None]] = {}
        tried: list[Tried] = []
        for attempt in attempts:
            judgement = judge(
                policy,
                attempt.direction.name.lower(),
                attempt.protocol,
                attempt.port,
                stage.inventory.peer(attempt.peer),
                stage.inventory.node,
                now=NOW,
            )
            expected[attempt._replace(mapped=False)] = (judgement.verdict, judgement.rule)
            if judgement.reason.endswith("/*"):
                by_namespace.append(attempt)
            tried.append(Tried(attempt, *_order(stage, attempt), judgement.verdict != "denied"))
            seen[
                attempt.direction.name,
                attempt.protocol,
                judgement.verdict,
                judgement.rule is not None,
            ] += 1
        told, arrived = _send(tried), _arrived(stage, tried)
        for one, result in zip(tried, told, strict=True):
            # A packet that is dropped on its way in tells its sender nothing.
            refused = (
                "EPERM"
                if one.attempt.direction == Direction.EGRESS
                else ("ok" if one.is_datagram else "timeout")
            )
            assert result == ("ok" if one.passes else refused), one
            if one.is_datagram:
                assert (one.order["text"] in arrived) == one.passes, one
        assert _recorded(stage) == {a: [e] for a, e in expected.items()}

    agree()
    # None of it was agreed on for want of cases.
    for direction in ("INGRESS", "EGRESS"):
        for protocol in ("TCP", "UDP"):
            for outcome in OUTCOMES:
                assert seen[(direction, protocol, *outcome)] >= 10, (direction, protocol, outcome)
    assert len(by_namespace) >= 10
