"""Servers and clients of the kernel tests: small programs that run inside a test pod.

Not for checking anything: what they did is told by the maps (tests/kernel/bed.py).
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from typing import Any

from portforge.apply.layout import KERNEL_LOSSES, Direction, Scope, Verdict
from portforge.demo.pods import Pod
from portforge.schema import LossReason

from .bed import Bed, Flow

TCP, UDP, ICMP, SCTP = 6, 17, 1, 132

# argv: address port receive send closer("server"|"client")
TCP_SERVER = """
import socket, sys
address, port, receive, send, closer = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]
six = ":" in address
s = socket.socket(socket.AF_INET6 if six else socket.AF_INET)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
if six: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
s.bind((address, port)); s.listen(1024)
print("ready", flush=True)
while True:
    c, _ = s.accept()
    left = receive
    while left: left -= len(c.recv(min(left, 65536)))
    c.sendall(b"s" * send)
    if closer == "client":
        while c.recv(4096): pass
    c.close()
"""
# argv: address port count send receive closer
TCP_CLIENT = """
import socket, sys
address, (port, count, send, receive), closer = sys.argv[1], map(int, sys.argv[2:6]), sys.argv[6]
for _ in range(count):
    c = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    c.settimeout(10)
    c.connect((address, port))
    c.sendall(b"c" * send)
    left = receive
    while left: left -= len(c.recv(min(left, 65536)))
    if closer == "server":
        while c.recv(4096): pass
    c.close()
"""
# argv: address port answer
UDP_SERVER = """
import socket, sys
address, port, answer = sys.argv[1], *map(int, sys.argv[2:4])
s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
s.bind((address, port))
print("ready", flush=True)
while True:
    _, peer = s.recvfrom(65536)
    if answer: s.sendto(b"s" * answer, peer)
"""
# argv: address port flows datagrams send answer connected(0|1). One socket for each flow, open to
# the end: the kernel would give its port to the next, and that would be the same conversation.
UDP_CLIENT = """
import resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))
address, (port, flows, datagrams, send, answer, connected) = sys.argv[1], map(int, sys.argv[2:8])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
opened = []
for _ in range(flows):
    s = socket.socket(family, socket.SOCK_DGRAM)
    opened.append(s)
    s.settimeout(10)
    if connected: s.connect((address, port))
    for _ in range(datagrams):
        s.send(b"c" * send) if connected else s.sendto(b"c" * send, (address, port))
        if answer: assert len(s.recv(65536)) == answer
"""
# argv: address. One packet with more extension headers than anybody follows.
UNREADABLE = """
import socket, struct, sys
to = socket.inet_pton(socket.AF_INET6, sys.argv[1])
body = bytes([60, 0, 1, 4, 0, 0, 0, 0]) * 9 + bytes([59, 0, 1, 4, 0, 0, 0, 0])
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
s.connect((sys.argv[1], 0))
own = socket.inet_pton(socket.AF_INET6, s.getsockname()[0])
s.send(struct.pack(">IHBB", 6 << 28, len(body), 60, 64) + own + to + body)
"""
# argv: address port type("tcp"|"udp"); prints the errno's name
TRY = """
import errno, socket, sys
address, port, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
s = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
s.settimeout(float(sys.argv[4]) if len(sys.argv) > 4 else 3)
try:
    s.connect((address, port))
    if kind == "udp":
        s.send(b"hello"); s.recv(9)
    print("OK")
except TimeoutError: print("TIMEOUT")
except OSError as e: print(errno.errorcode[e.errno])
"""


def start(pod: Pod, code: str, *args: object) -> subprocess.Popen[Any]:
    """Run ``code`` in ``pod`` and return once it printed a line."""
    process = pod.run(pod.python_command(code, *map(str, args)), stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline(), f"{pod} ended before it was ready"
    return process


def stop(process: subprocess.Popen[Any]) -> None:
    """Kill a process that ``start`` started, and wait for it."""
    process.kill()
    process.wait(timeout=10)
    if process.stdout:
        process.stdout.close()


def client(pod: Pod, code: str, *args: object) -> str:
    """Run ``code`` in ``pod`` to its end."""
    return pod.python(code, *map(str, args)).strip()


class Total:
    """Sums of drained flows: by pod, direction, port and verdict."""

    def __init__(self, flows: Iterable[Flow] = ()) -> None:
        self.flows: list[Flow] = list(flows)

    def __iadd__(self, flows: Iterable[Flow]) -> Total:
        self.flows += flows
        return self

    def of(
        self,
        pod: Pod | int,
        direction: Direction,
        port: int,
        verdict: Verdict = Verdict.ALLOWED,
        protocol: int = TCP,
        peer: str | None = None,
        scope: Scope = Scope.REMOTE,
    ) -> tuple[int, int, int]:
        """Connections, bytes sent, bytes received."""
        cgroup = pod if isinstance(pod, int) else pod_id(pod)
        rows = [
            f
            for f in self.flows
            if (f.cgroup, f.direction, f.port, f.verdict, f.protocol, f.scope)
            == (cgroup, direction, port, verdict, protocol, scope)
            and peer in (None, f.peer)
        ]
        return (
            sum(f.connections for f in rows),
            sum(f.bytes_sent for f in rows),
            sum(f.bytes_received for f in rows),
        )

    def about(self, *pods: Pod) -> list[Flow]:
        """Every row of these pods."""
        ids = {pod_id(pod) for pod in pods}
        return [f for f in self.flows if f.cgroup in ids]


def pod_id(pod: Pod) -> int:
    """The cgroup id the kernel knows the pod by."""
    return pod.cgroup_path.stat().st_ino


def lost(bed: Bed) -> dict[LossReason, int]:
    """What the kernel lost; without what happened in namespaces of other nodes here."""
    counts = zip(KERNEL_LOSSES, bed.maps.losses(), strict=True)
    return {reason: n for reason, n in counts if n and reason != LossReason.UNPLACED}


def drain(bed: Bed) -> Total:
    """Everything recorded since the last drain."""
    return Total(bed.flows())
