"""Under a load balancer at the socket, as Cilium's in place of kube-proxy, rows and verdicts stay
right: a real program above the pods' cgroup rewrites a Service's address before any packet.

Programs of a cgroup run before those of the cgroups above it, so ours sees the Service where it
looks at ``connect`` (TCP) and the backend where it looks at packets (UDP). Not Cilium itself.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from socket import htonl, htons

import pytest

import portforge_recorder
from portforge.apply import libbpf
from portforge.apply.inventory import Inventory, Service, ServicePort
from portforge.apply.layout import Direction
from portforge.policy import PortPolicy, approve
from portforge.schema import PeerKind
from portforge_recorder.load import BPFFS, SYSTEM_PYTHON, headers

from .enforcing import OPEN_PORT, Pair, policy, rule, standing_pair

VIP, PORT = "10.96.0.77", 7300
_SOCK_ADDR, _TCP, _UDP = 18, 6, 17
_HOOKS = {"at_connect": 10, "at_send": 14, "at_receive": 19}
_SOURCE = """
#include <linux/bpf.h>
static __always_inline int lead(struct bpf_sock_addr *ctx)
{
	u32 port = ctx->user_port;
	if (ctx->user_ip4 == VIP && (u16)port == PORT) {
		ctx->user_ip4 = BACKEND;
		ctx->user_port = TARGET;
	}
	return 1;
}
int at_connect(struct bpf_sock_addr *ctx) { return lead(ctx); }
int at_send(struct bpf_sock_addr *ctx) { return lead(ctx); }
int at_receive(struct bpf_sock_addr *ctx)
{
	u32 port = ctx->user_port;
	if (ctx->user_ip4 == BACKEND && (u16)port == TARGET) {
		ctx->user_ip4 = VIP;
		ctx->user_port = PORT;
	}
	return 1;
}
"""


@contextmanager
def balancer(cgroup: Path, backend: str, folder: Path) -> Iterator[None]:
    """Lead whoever is below ``cgroup`` from VIP:PORT to ``backend``:OPEN_PORT."""
    source = folder / "balancer.c"
    source.write_text(_SOURCE)
    pins = BPFFS / f"portforge-balancer-{cgroup.name}"
    place, flags = headers()
    values = {
        "VIP": htonl(int(IPv4Address(VIP))),
        "PORT": htons(PORT),
        "BACKEND": htonl(int(IPv4Address(backend))),
        "TARGET": htons(OPEN_PORT),
    }
    request = {
        "sources": [str(source)],
        "flags": [*flags, *(f"-D{name}={value}" for name, value in values.items())],
        "headers": str(place),
        "programs": {name: (_SOCK_ADDR, kind) for name, kind in _HOOKS.items()},
        "maps": [],
        "folder": str(pins),
    }
    with ExitStack() as last:
        (pins / "programs").mkdir(parents=True)
        last.callback(shutil.rmtree, pins)
        loader = str(Path(str(portforge_recorder.__file__)).with_name("loader.py"))
        subprocess.run(
            [SYSTEM_PYTHON, loader],
            input=json.dumps(request),
            text=True,
            check=True,
            stdout=subprocess.PIPE,
        )
        at = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
        last.callback(os.close, at)
        for name, kind in _HOOKS.items():
            with libbpf.opened(pins / "programs" / name) as program:
                last.callback(os.close, libbpf.attach_cgroup(program, at, kind))
        yield


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with standing_pair(tmp_path_factory.mktemp("balanced")) as pair:
        cgroup = pair.bed.node.root
        with balancer(cgroup, pair.other.address, tmp_path_factory.mktemp("balancer")):
            yield pair


def inventory(pair: Pair) -> Inventory:
    """The pods, and a Service that nothing but the balancer leads to one."""
    ports = tuple(ServicePort(protocol, PORT, OPEN_PORT) for protocol in ("TCP", "UDP"))
    service = Service("t", "other", (VIP,), ports, pair.other.workload)
    return replace(pair.bed.source().inventory(), services=(service,))


def enforce(pair: Pair, *policies: PortPolicy) -> None:
    now = datetime.now(UTC)
    pair.bed.enforcer.state.change([approve(p, "tester", now) for p in policies])
    pair.bed.enforcer.reconcile(inventory(pair))


def test_tcp_is_recorded_as_the_service_and_udp_as_the_backend(pair: Pair) -> None:
    pair.bed.flows(settle=0)
    assert pair.inside.connect(VIP, PORT) == "ok"
    assert pair.inside.ask(VIP, PORT) == "ok"
    flows = pair.bed.flows()
    out = {(f.protocol, f.peer, f.port) for f in flows if f.direction is Direction.EGRESS}
    assert out == {(_TCP, VIP, PORT), (_UDP, pair.other.address, OPEN_PORT)}
    known = inventory(pair)
    service, backend = known.peer(VIP), known.peer(pair.other.address)
    assert service.kind is PeerKind.SERVICE
    assert backend.kind is PeerKind.WORKLOAD
    assert service.workload == backend.workload == "other"
    assert known.target_port(VIP, "TCP", PORT) == OPEN_PORT
    assert known.target_port(pair.other.address, "UDP", OPEN_PORT) is None
    incoming = {(f.protocol, f.peer, f.port) for f in flows if f.direction is Direction.INGRESS}
    assert incoming == {(p, pair.web.address, OPEN_PORT) for p in (_TCP, _UDP)}


def test_a_policy_learned_there_holds_there(pair: Pair) -> None:
    """Rules with the ports that were recorded, peers by workload."""
    peers = [{"workload": dict(zip(("namespace", "kind", "name"), _workload(pair), strict=True))}]
    learned = [rule("TCP", PORT, peers=peers), rule("UDP", OPEN_PORT, peers=peers)]
    enforce(pair, policy("web", egress=learned))
    try:
        assert pair.inside.connect(VIP, PORT) == "ok"
        assert pair.inside.ask(VIP, PORT) == "ok"
        # Past the Service, what was not learned is denied.
        assert pair.inside.connect(pair.other.address, OPEN_PORT) == "EPERM"
        enforce(pair, policy("web", egress=[]))
        assert pair.inside.connect(VIP, PORT) == "EPERM"
        assert pair.inside.ask(VIP, PORT) == "EPERM"
    finally:
        enforce(pair)


def _workload(pair: Pair) -> tuple[str, str, str]:
    workload = pair.other.workload
    assert workload
    return (workload.namespace, workload.kind, workload.name)
