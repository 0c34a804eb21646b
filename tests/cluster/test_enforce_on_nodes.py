"""Enforcement between the nodes of a real cluster: who is let in, who is not, how soon a new pod
is, and that a pod is under its policy before its first packet.

Verdicts as such are held against the model in tests/kernel; faults are in test_faults.py.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from .pods import (
    CLIENT,
    Object,
    Room,
    all_open,
    bare,
    daemonset,
    deployment,
    knock,
    listen,
    next_address,
    rule,
    service,
    soon,
    taken,
    ways,
)
from .release import NAMESPACE, Release, until

pytestmark = pytest.mark.timeout(900)  # with the installation, on a machine that is shared
NS = "gate"
PORT, BACKDOOR, NEIGHBOURS, ELSEWHERE = 8081, 8082, 8083, 8084
FRESH = 10


FRIENDS = rule("in-8081", "TCP", PORT, (NS, "DaemonSet", "friend"), (NS, "Deployment", "late"))
DNS = [
    rule(f"out-dns-{protocol}", protocol, 53, ("kube-system", "Deployment", "coredns"))
    for protocol in ("TCP", "UDP")
]


def open_to(name: str, port: int, namespace: str) -> Object:
    """A rule that names a namespace."""
    return rule(name, "TCP", port) | {"peers": [{"namespace": namespace}]}


POLICIES: dict[str, Object] = {
    "DaemonSet_safe": {
        "ingress": [
            FRIENDS,
            open_to("in-8083", NEIGHBOURS, NS),
            open_to("in-8084", ELSEWHERE, "kube-system"),
        ]
    },
    "Deployment_bound": {
        "egress": [
            *DNS,
            rule("out-80", "TCP", 80, (NS, "Deployment", "plain")),
            open_to("out-8083", NEIGHBOURS, NS),
            open_to("out-8084", ELSEWHERE, "kube-system"),
        ]
    },
    "Deployment_fresh": {"ingress": [], "egress": []},
}


@pytest.fixture(scope="module")
def room(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    """Servers and clients on every node, under enforced policies."""
    room = Room(release, NS)
    idle = ["sleep", "infinity"]
    try:
        room.open()
        room.apply(
            daemonset("safe", listen(PORT, BACKDOOR, NEIGHBOURS, ELSEWHERE)),
            service("safe", "safe", (80, PORT)),
            service("near", "safe", (NEIGHBOURS, NEIGHBOURS), (ELSEWHERE, ELSEWHERE)),
            daemonset("friend", idle),
            daemonset("stranger", idle),
            deployment("plain", listen(PORT), room.cluster.nodes[0]),
            service("plain", "plain", (80, PORT)),
            deployment("bound", idle, room.cluster.nodes[1]),
        )
        room.stand("daemonset/safe", "daemonset/friend", "daemonset/stranger")
        room.stand("deployment/plain", "deployment/bound")
        room.enforce(tmp_path_factory.mktemp("gate"), **POLICIES)
        yield room
    finally:
        room.close()


def servers(room: Room, port: int = PORT) -> list[str]:
    """Every pod of ``safe``."""
    return [f"{pod['status']['podIP']}:{port}" for pod in room.pods("safe").values()]


def met(room: Room, app: str, *targets: str) -> dict[str, str]:
    """How attempts from each node's pod of ``app`` ended."""
    return {node: ways(room.knock(pod, *targets)) for node, pod in room.pods(app).items()}


def test_the_workload_that_is_named_comes_in_from_every_node(room: Room) -> None:
    nodes = {node.name for node in room.cluster.nodes}
    targets = [*servers(room), "safe.gate.svc.cluster.local:80"]
    assert len(targets) == 4
    assert met(room, "friend", *targets) == dict.fromkeys(nodes, "open")
    assert met(room, "stranger", *targets) == dict.fromkeys(nodes, "TimeoutError")
    # Who is let in is let in on that port.
    assert met(room, "friend", *servers(room, BACKDOOR)) == dict.fromkeys(nodes, "TimeoutError")


def test_a_namespace_that_is_named_comes_in_and_is_reached(room: Room) -> None:
    """Whoever of it, from every node; out to its pods and to its Services."""
    nodes = {node.name for node in room.cluster.nodes}
    for app in ("friend", "stranger"):
        near = met(
            room, app, *servers(room, NEIGHBOURS), f"near.gate.svc.cluster.local:{NEIGHBOURS}"
        )
        assert near == dict.fromkeys(nodes, "open")
        far = met(room, app, *servers(room, ELSEWHERE))
        assert far == dict.fromkeys(nodes, "TimeoutError")
    pod = room.pod("bound")
    for port, outcome in ((NEIGHBOURS, "open"), (ELSEWHERE, "PermissionError")):
        targets = [*servers(room, port), f"near.gate.svc.cluster.local:{port}"]
        assert ways(room.knock(pod, *targets)) == outcome


def test_a_scan_finds_no_open_port(room: Room) -> None:
    stranger = next(iter(room.pods("stranger").values()))
    ports = ",".join(map(str, (22, 53, 80, 443, PORT, BACKDOOR, 9464)))
    for address in {target.rpartition(":")[0] for target in servers(room)}:
        words = ("scan", f"--host={address}", f"--tcp={ports}", "--udp=53", "--wait=1")
        said = json.loads(room.run(stranger, *CLIENT, *words))
        assert said["tcp"]["open_ports"] == []
        assert said["udp"]["open_ports"] == []


def test_a_denied_way_out_says_so_at_once(room: Room) -> None:
    """EPERM at connect; what is named is reached, through its Service, by its name."""
    pod = room.pod("bound")
    refused = [*servers(room), "safe.gate.svc.cluster.local:80", f"{room.address('plain')}:{PORT}"]
    assert ways(room.knock(pod, *refused)) == "PermissionError"
    host = servers(room)[0].partition(":")[0]
    one = json.loads(room.run(pod, *CLIENT, "connect", f"--host={host}", f"--port={PORT}"))
    assert one == {"connected": False, "answered": False, "reason": "forbidden"}
    name = "plain.gate.svc.cluster.local"
    assert room.knock(pod, f"{name}:80")[f"{name}:80"]["said"] == {"open": 1}
    assert room.run(pod, "dig", "+short", name).strip().startswith("10.")
    # Its UDP to anybody else does not arrive.
    other = room.run(pod, "sh", "-c", "dig +time=1 +tries=1 @192.0.2.53 example.net || true")
    assert "no servers could be reached" in other or "timed out" in other


def test_a_new_pod_of_the_named_workload_is_let_in_soon(room: Room) -> None:
    """On every node; counted from its first attempt until every server has let it in."""
    took = {}
    room.apply(deployment("late", ["sleep", "infinity"], replicas=0))
    for node in room.cluster.nodes:
        targets = servers(room)
        command = [*knock(*targets, seconds=8, patience=0.25)]
        room.apply(deployment("late", ["python3", "-c", _FIRST, *command], node))
        room.stand("deployment/late")
        name = room.pod("late")["metadata"]["name"]
        said = room.word(name)
        opened = [said["said"][t]["opened"] for t in targets]
        assert all(opened), said
        took[node.name] = max(opened) - said["at"]
        room.kubectl("delete", "deployment", "late", "--cascade=foreground", "--timeout=60s")
    print(f"\nlet in after (s): { {n: round(s, 2) for n, s in took.items()} }")
    assert max(took.values()) < 8


_FIRST = """
import json, subprocess, sys, time
at = time.time()
said = subprocess.run(sys.argv[1:], capture_output=True, text=True, check=True).stdout
print(json.dumps({"at": at, "said": json.loads(said)}), flush=True)
time.sleep(3600)
"""


def test_an_address_does_not_carry_its_rights_to_another_workload(room: Room) -> None:
    """A named pod goes, a stranger gets its address: not one attempt of it comes in."""
    node = room.cluster.nodes[1]
    targets = servers(room)
    room.apply(deployment("late", ["sleep", "infinity"], node))
    room.stand("deployment/late")
    late, address = room.pod("late"), room.address("late")
    soon("the named one to be let in", lambda: all_open(room.knock(late, *targets)))
    room.kubectl("delete", "deployment", "late", "--cascade=foreground", "--timeout=60s")
    soon("the address to be free", lambda: not taken(node, address))
    next_address(node, address)
    room.apply(bare("heir", [*knock(*targets, seconds=5, patience=0.3)], node))
    said = room.word("heir")
    assert room.address("heir") == address
    opened = sum(t["said"].get("open", 0) for t in said.values())
    tried = sum(sum(t["said"].values()) for t in said.values())
    print(f"\nan heir's attempts: {tried}, let in: {opened}")
    assert tried >= 10
    assert opened == 0


def test_a_new_pod_is_under_its_policy_before_its_first_packet(room: Room) -> None:
    """Ten pods: out of each its very first act, into each a loop that began before it."""
    node = room.cluster.nodes[2]
    (folder,) = (node.folder / "addresses").iterdir()
    head, _, last = (folder / "last_reserved_ip.0").read_text().strip().rpartition(".")
    begin = int(last) if int(last) < 200 else 100
    next_address(node, f"{head}.{begin + 1}")
    addresses = [f"{head}.{n}" for n in range(begin + 1, begin + FRESH + 4)]
    way_out = f"{room.address('plain')}:{PORT}"
    script = f'{" ".join(CLIENT)} listen --port={PORT} & "$@"; wait'
    act = ["bash", "-c", script, "act", *knock(way_out, seconds=3, patience=0.3)]
    attacker = room.pods("stranger")[room.cluster.nodes[1].name]
    targets = [f"{a}:{PORT}" for a in addresses]
    began = time.time()
    with ThreadPoolExecutor(1) as pool:
        loop = [*knock(*targets, seconds=50, patience=0.2)]
        attack = pool.submit(room.run, attacker, *loop)
        time.sleep(2)
        # One of a workload without a policy: proof that the loops would get through.
        room.apply(deployment("free", act, node), deployment("fresh", act, node, replicas=FRESH))
        room.stand("deployment/free", "deployment/fresh", seconds=45)
        stood = time.time() - began
        into = json.loads(attack.result())
    assert stood < 48, "too slow a machine: the loop ended before the pods stood"
    out: dict[str, list[dict[str, int]]] = {"free": [], "fresh": []}
    came: dict[str, list[dict[str, int]]] = {"free": [], "fresh": []}
    for app in out:
        for pod in room.read("pods", "", "-l", f"app={app}")["items"]:
            out[app].append(room.word(pod["metadata"]["name"])[way_out]["said"])
            address = pod["status"]["podIP"]
            came[app] += [into[f"{address}:{PORT}"]["said"]] if address in addresses else []
    fresh_out, fresh_in = out["fresh"], came["fresh"]
    opened = [sum(v.get("open", 0) for v in found) for found in (fresh_out, fresh_in)]
    tried = [sum(sum(v.values()) for v in found) for found in (fresh_out, fresh_in)]
    print(
        f"\n{len(fresh_out)} new pods: out {opened[0]} of {tried[0]}, in {opened[1]} of {tried[1]}"
    )
    print(f"one without a policy: out {out['free']}, in {came['free']}")
    assert len(fresh_out) == FRESH
    assert len(fresh_in) >= FRESH - 2, "the addresses were not given as foreseen"
    assert out["free"][0]["open"]
    assert came["free"][0]["open"]
    assert opened == [0, 0]
    assert all(set(v) == {"PermissionError"} for v in fresh_out)
    room.kubectl("delete", "deployment", "free", "fresh")


def test_pods_that_nobody_knows_wait_where_asked(room: Room) -> None:
    """No agent, and a namespace that asks for it: a new pod is denied until an agent is back."""
    closed = Room(room.release, "closed")
    three = room.cluster.nodes[2]
    selector = '[{"op":"%s","path":"/spec/template/spec/nodeSelector/none"%s}]'

    def agents(ready: int) -> bool:
        words = ("-n", NAMESPACE, "get", "pods", "-l", "app.kubernetes.io/component=agent")
        items = json.loads(room.cluster.kubectl(*words, "-o", "json"))["items"]
        conditions = [c for p in items for c in p["status"].get("conditions", ())]
        yes = [c for c in conditions if c["type"] == "Ready" and c["status"] == "True"]
        return len(items) == ready and len(yes) == ready

    def patch(op: str, value: str = "") -> None:
        words = ("-n", NAMESPACE, "patch", "daemonset", "portforge", "--type=json", "-p")
        room.cluster.kubectl(*words, selector % (op, value))

    target = f"{room.address('plain')}:{PORT}"
    try:
        closed.open(**{"portforge.dev/default-deny": "until-known"})
        time.sleep(3)
        patch("add", ',"value":"none"')
        until("the agents to be gone", lambda: agents(0), 120)
        try:
            closed.apply(bare("unknown", ["sleep", "infinity"], three))
            closed.kubectl("wait", "--for=condition=Ready", "pod/unknown", "--timeout=90s")
            unknown = closed.pod("unknown")
            # Known pods go on as before.
            friend = next(iter(room.pods("friend").values()))
            assert all_open(room.knock(friend, *servers(room)))
            assert ways(closed.knock(unknown, target)) == "PermissionError"
        finally:
            at = time.time()
            patch("remove")
        came = soon("the pod to be known", lambda: all_open(closed.knock(unknown, target)), 180)
        until("the agents", lambda: agents(len(room.cluster.nodes)), 180)
        print(
            f"\nknown {came:.1f} s, agents ready {time.time() - at:.1f} s after they were let back"
        )
    finally:
        closed.close()
    until("every node to enforce", room.enforced, 90)
