"""Runs inside a test pod and makes traffic, or answers it. Standard library only.

``traffic.py serve <core>`` answers on every port of ``PORTS``. ``traffic.py ask <core> <address>``
reads ``{"kind": …, "seconds": …}`` on each line of standard input and answers with what it did.
Not imported by a measurement but for the ports: ``overhead.py`` starts it.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Callable

PORTS = {"tcp_rr": 7001, "tcp_bulk": 7002, "tcp_crr": 7003, "udp_rr": 7004}
WARM_UP_SECONDS = 0.05
CHUNK = bytes(65536)
Count = tuple[int, int, float]
"""Operations in all, operations measured, seconds measured."""


def listener(kind: str) -> socket.socket:
    """A socket on the port of ``kind``."""
    if kind == "udp_rr":
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.bind(("0.0.0.0", PORTS[kind]))
        return s
    return socket.create_server(("0.0.0.0", PORTS[kind]), backlog=1024)


def answer_tcp_rr(s: socket.socket) -> None:
    """Send back every byte, one connection after the other."""
    while True:
        c, _ = s.accept()
        c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with c:
            while data := c.recv(64):
                c.send(data)


def answer_tcp_bulk(s: socket.socket) -> None:
    """Swallow everything and say how much it was."""
    room = bytearray(1 << 20)
    while True:
        c, _ = s.accept()
        with c:
            total = 0
            while n := c.recv_into(room):
                total += n
            c.sendall(total.to_bytes(8, "big"))


def answer_tcp_crr(s: socket.socket) -> None:
    """Close every connection at once: TIME_WAIT is the server's, and no port of the client's."""
    while True:
        c, _ = s.accept()
        c.close()


def answer_udp_rr(s: socket.socket) -> None:
    """Send back every datagram."""
    while True:
        data, peer = s.recvfrom(64)
        s.sendto(data, peer)


def repeated(once: Callable[[], object], seconds: float) -> Count:
    """Do it for ``seconds`` after a warm-up."""
    warm = 0
    until = time.perf_counter() + WARM_UP_SECONDS
    while time.perf_counter() < until:
        once()
        warm += 1
    done, start = 0, time.perf_counter()
    while True:
        for _ in range(16):
            once()
        done += 16
        now = time.perf_counter()
        if now - start >= seconds:
            return warm + done, done, now - start


def ask_tcp_rr(server: str, seconds: float) -> Count:
    """One byte there and back, over one connection."""
    with socket.create_connection((server, PORTS["tcp_rr"]), timeout=5) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        s.settimeout(None)  # with a time limit Python polls before every call

        def once() -> None:
            s.send(b"x")
            s.recv(64)

        return repeated(once, seconds)


def ask_tcp_bulk(server: str, seconds: float) -> Count:
    """As many bytes as go, until the server has them all. An operation is a byte."""
    with socket.create_connection((server, PORTS["tcp_bulk"]), timeout=5) as s:
        s.settimeout(None)
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            s.sendall(CHUNK)
        s.shutdown(socket.SHUT_WR)
        total = int.from_bytes(s.recv(8), "big")
        return total, total, time.perf_counter() - start


def ask_tcp_crr(server: str, seconds: float) -> Count:
    """Open, wait for the server's close, close."""

    def once() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
            s.connect((server, PORTS["tcp_crr"]))
            s.recv(64)

    return repeated(once, seconds)


def ask_udp_rr(server: str, seconds: float) -> Count:
    """A datagram of one byte there and back, from a connected socket."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect((server, PORTS["udp_rr"]))

        def once() -> None:
            s.send(b"x")
            s.recv(64)

        return repeated(once, seconds)


def refused(server: str) -> str:
    """What happens on a port that no rule allows."""
    try:
        socket.create_connection((server, 7999), timeout=1).close()
    except OSError as error:
        return type(error).__name__
    return "ok"


def main() -> None:
    """See the top of the file."""
    role, core = sys.argv[1], int(sys.argv[2])
    os.sched_setaffinity(0, {core})
    here = globals()
    if role == "serve":
        sockets = {kind: listener(kind) for kind in PORTS}
        for kind, s in sockets.items():
            if not os.fork():
                here[f"answer_{kind}"](s)
        print("ready", flush=True)
        sys.stdin.read()
        return
    server = sys.argv[3]
    for line in sys.stdin:
        order = json.loads(line)
        if order["kind"] == "refused":
            print(json.dumps(refused(server)), flush=True)
        else:
            print(json.dumps(here[f"ask_{order['kind']}"](server, order["seconds"])), flush=True)


if __name__ == "__main__":
    main()
