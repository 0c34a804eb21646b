"""Listeners, what was open before the programs, long connections, pods, and what does not fit."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from portforge.apply.cgroups import pod_uid
from portforge.apply.layout import Direction, Scope
from portforge.demo import cgroups
from portforge.demo.pods import Node, Pod
from portforge.schema import LossReason
from portforge_recorder.load import Sizes
from portforge_recorder.snapshot import register

from .bed import Bed, make_bed
from .talk import (
    TCP,
    TCP_CLIENT,
    TCP_SERVER,
    UDP,
    UDP_CLIENT,
    UDP_SERVER,
    Total,
    client,
    drain,
    lost,
    pod_id,
    start,
    stop,
)

IN, OUT = Direction.INGRESS, Direction.EGRESS

# argv: address port; says "ready" when connected, then answers each line "N" by exchanging N bytes
TALKER = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
print("ready", flush=True)
for line in sys.stdin:
    n = int(line)
    s.sendall(b"c" * n)
    while n: n -= len(s.recv(n))
    print("done", flush=True)
"""
ECHO = """
import socket, sys, threading
place = (sys.argv[1], int(sys.argv[2]))
s = socket.create_server(place, family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
def talk(c):
    while data := c.recv(65536): c.sendall(data)
while True: threading.Thread(target=talk, args=(s.accept()[0],), daemon=True).start()
"""


class Talk:
    """One connection that stays open; ``say`` sends bytes both ways."""

    def __init__(self, pod: Pod, address: str, port: int) -> None:
        self.process = pod.run(
            pod.python_command(TALKER, address, str(port)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout
        assert self.process.stdout.readline()

    def say(self, n: int) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(b"%d\n" % n)
        self.process.stdin.flush()
        assert self.process.stdout.readline()

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(timeout=5)


@contextmanager
def fresh_node(**kinds: cgroups.Driver | cgroups.Runtime) -> Iterator[tuple[Node, Path]]:
    with (
        tempfile.TemporaryDirectory() as folder,
        Node(f"listen-{os.getpid()}", **kinds) as node,  # type: ignore[arg-type]
    ):
        yield node, Path(folder)


def listeners(bed: Bed, pod: Pod) -> set[tuple[int, int, Scope]]:
    """Protocol, port and scope of everything that listens in ``pod``, as the maps have it."""
    keys, _ = bed.maps.read("listeners")
    return {
        (int(k["protocol"]), int(k["port"]), Scope(int(k["scope"])))
        for k in keys
        if int(k["cgroup"]) == pod_id(pod)
    }


def test_listeners_come_and_go_also_those_that_were_there_before() -> None:
    with fresh_node() as (node, folder):
        pod = node.pod("t", "Deployment", "web")
        old = [
            start(pod, TCP_SERVER, "::", 80, 0, 0, "server"),
            start(pod, TCP_SERVER, "127.0.0.1", 81, 0, 0, "server"),
            start(pod, TCP_SERVER, "::1", 82, 0, 0, "server"),
            start(pod, UDP_SERVER, "0.0.0.0", 53, 0),
            start(pod, UDP_SERVER, "::1", 54, 0),
        ]
        inside, outside = Scope.LOOPBACK, Scope.REMOTE
        before = {
            (TCP, 80, outside),
            (TCP, 81, inside),
            (TCP, 82, inside),
            (UDP, 53, outside),
            (UDP, 54, inside),
        }
        with make_bed(folder, node) as bed:
            assert listeners(bed, pod) == before
            new = [
                start(pod, TCP_SERVER, "0.0.0.0", 90, 0, 0, "server"),
                start(pod, TCP_SERVER, "127.0.0.7", 91, 0, 0, "server"),
                start(pod, TCP_SERVER, "::1", 92, 0, 0, "server"),
                start(pod, TCP_SERVER, "::ffff:127.0.0.1", 93, 0, 0, "server"),
                start(pod, UDP_SERVER, "::", 63, 0),
                start(pod, UDP_SERVER, "127.0.0.1", 64, 0),
            ]
            began = {
                (TCP, 90, outside),
                (TCP, 91, inside),
                (TCP, 92, inside),
                (TCP, 93, inside),
                (UDP, 63, outside),
                (UDP, 64, inside),
            }
            assert listeners(bed, pod) == before | began
            for process in new:
                stop(process)
            assert listeners(bed, pod) == before
            again = start(pod, TCP_SERVER, "::", 90, 0, 0, "server")
            assert listeners(bed, pod) == before | {(TCP, 90, outside)}
            for process in (*old, again):
                stop(process)
            register(bed.maps, node.kubepods)
            assert listeners(bed, pod) == set()
            assert lost(bed) == {}


@pytest.mark.parametrize("family", [4, 6])
def test_connections_from_before_have_the_right_direction_and_bytes(family: int) -> None:
    with fresh_node() as (node, folder):
        one, two = node.pod("t", "Deployment", "asks"), node.pod("t", "Deployment", "answers")
        asker, address = (one.address, two.address) if family == 4 else (one.address6, two.address6)
        start(two, ECHO, "::", 45000)  # in the range of clients' ports: only the listener tells
        talk = Talk(one, address, 45000)
        talk.say(100_003)
        with make_bed(folder, node, flush_seconds=0.05) as bed:
            assert Total(bed.flows()).about(one, two) == []
            talk.say(23)
            time.sleep(0.1)
            talk.say(101)
            talk.close()
            total = drain(bed)
            # Counting begins with the first packet after the programs, at each end.
            assert total.of(one, OUT, 45000, peer=address) == (0, 124, 124)
            assert total.of(two, IN, 45000, peer=asker) == (0, 124, 124)
            assert len(total.about(one, two)) == 2


def test_a_long_connection_is_recorded_in_every_interval() -> None:
    with fresh_node() as (node, folder), make_bed(folder, node, flush_seconds=0.05) as bed:
        one, two = node.pod("t", "Deployment", "asks"), node.pod("t", "Deployment", "answers")
        start(two, ECHO, "::", 7000)
        talk = Talk(one, two.address, 7000)
        total = drain(bed)
        assert total.of(one, OUT, 7000) == (1, 0, 0)
        assert total.of(two, IN, 7000) == (1, 0, 0)
        for _ in range(3):
            talk.say(1009)
            time.sleep(0.06)
            talk.say(1)
            now = drain(bed)
            assert now.of(one, OUT, 7000)[1] >= 1009
            assert now.of(two, IN, 7000)[2] >= 1009
            total += now.flows
        talk.close()
        total += drain(bed).flows
        assert total.of(one, OUT, 7000) == (1, 3030, 3030)
        assert total.of(two, IN, 7000) == (1, 3030, 3030)


@pytest.mark.parametrize("driver", ["cgroupfs", "systemd"])
@pytest.mark.parametrize("runtime", ["containerd", "crio"])
def test_traffic_belongs_to_the_pod_under_every_driver_and_runtime(
    driver: cgroups.Driver, runtime: cgroups.Runtime
) -> None:
    with fresh_node(driver=driver, runtime=runtime) as (node, folder):
        before = node.pod("t", "Deployment", "before")
        with make_bed(folder, node) as bed:
            later = node.pod("t", "Deployment", "later", qos="guaranteed")
            start(before, TCP_SERVER, "::", 7000, 1, 1, "client")
            client(later, TCP_CLIENT, before.address, 7000, 23, 1, 1, "client")
            # a second container belongs to the same pod
            other = before.run(
                before.python_command(TCP_SERVER, "::", "7001", "1", "1", "client"),
                cgroup=before.container("sidecar"),
                stdout=subprocess.PIPE,
            )
            assert other.stdout
            assert other.stdout.readline()
            client(later, TCP_CLIENT, before.address, 7001, 23, 1, 1, "client")
            total = drain(bed)
            for port in (7000, 7001):
                assert total.of(later, OUT, port) == (23, 23, 23)
                assert total.of(before, IN, port) == (23, 23, 23)
            names = {pod_uid(name) for name in bed.maps.pod_names().values()}
            assert names == {before.uid, later.uid}


@pytest.mark.parametrize("driver", ["cgroupfs", "systemd"])
def test_a_pod_that_lives_for_a_moment_is_known_by_name(driver: cgroups.Driver) -> None:
    with fresh_node(driver=driver) as (node, folder), make_bed(folder, node) as bed:
        two = node.pod("t", "Deployment", "answers")
        start(two, UDP_SERVER, "0.0.0.0", 53, 5)
        brief = node.pod("t", "Job", "brief")
        number = pod_id(brief)
        client(brief, UDP_CLIENT, two.address, 53, 1, 1, 3, 5, 0)
        brief.stop()
        assert pod_uid(bed.maps.pod_names()[number]) == brief.uid
        told = bed.maps.get("pod_names", number)
        assert 0 < int(told["born_ns"]) < int(told["died_ns"])
        total = drain(bed)
        assert total.of(number, OUT, 53, protocol=UDP, peer=two.address) == (1, 3, 5)
        assert total.of(two, IN, 53, protocol=UDP, peer=brief.address) == (1, 5, 3)


def test_when_maps_are_full_peers_are_lost_before_ports_and_all_is_said() -> None:
    sizes = Sizes(flows=64, ports=16)
    with fresh_node() as (node, folder), make_bed(folder, node, sizes) as bed:
        one = node.pod("t", "Deployment", "scans")
        # 101 peers on one port, then 101 ports of one peer: the kernel drops what nobody routes.
        peers = "for i in range(101): s.sendto(b'x', (f'10.77.0.{100 + i}', 9))"
        ports = "for i in range(101): s.sendto(b'x', ('10.77.0.99', 2000 + i))"
        code = "import socket; s = socket.socket(type=socket.SOCK_DGRAM)\n"
        client(one, code + peers)
        total = drain(bed)
        rows = [f for f in total.about(one) if f.port == 9]
        named = [f for f in rows if f.peer != "::"]
        (rest,) = [f for f in rows if f.peer == "::"]
        assert len(named) == 64
        assert rest.connections == 37
        assert total.of(one, OUT, 9, protocol=UDP) == (101, 101, 0)
        assert lost(bed) == {LossReason.PEERS_OVERFLOWED: 37}

        client(one, code + ports)
        total = drain(bed)
        assert len(total.about(one)) == 64 + 16
        assert sum(f.connections for f in total.about(one)) == 80
        assert lost(bed) == {
            LossReason.PEERS_OVERFLOWED: 37 + 16,
            LossReason.FLOWS_OVERFLOWED: 101 - 64 - 16,
        }
