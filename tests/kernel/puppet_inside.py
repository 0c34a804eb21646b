"""Runs inside a test pod and does what it is told: one JSON list on each line of standard input.

Standard library only. Every line is a list of orders; the answer is a list of results on one line.
Not imported by the tests: ``puppet.py`` starts it.
"""

import contextlib
import errno
import json
import selectors
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

Order = dict[str, Any]
Result = dict[str, Any]

arrived: set[str] = set()
news = threading.Condition()
open_sockets: dict[str, socket.socket] = {}
loads: dict[str, "Load"] = {}
IPPROTO_MPTCP = 262  # the standard library does not name it
GRACE_SECONDS = 0.01  # within which what ought not to pass would have
ABORT = struct.pack("ii", 1, 0)  # SO_LINGER: reset on close, so that no TIME_WAIT is left


def name_of(error: OSError) -> str:
    """``EPERM`` and the like; ``timeout`` where nothing came."""
    if isinstance(error, TimeoutError):
        return "timeout"
    return errno.errorcode.get(error.errno or 0, str(error))


def make_socket(order: Order) -> tuple[socket.socket, tuple[str, int]]:
    """A socket for ``protocol`` to ``to``, bound to ``source``; and where to send."""
    kind = socket.SOCK_STREAM if order["protocol"] == "TCP" else socket.SOCK_DGRAM
    to = order["to"]
    if order.get("mapped"):
        to = f"::ffff:{to}"
    transport = IPPROTO_MPTCP if order.get("mptcp") else 0
    s = socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, kind, transport)
    s.settimeout(order.get("timeout", 2))
    if kind == socket.SOCK_STREAM:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    if "source" in order or "source_port" in order:
        s.bind((order.get("source", "::" if ":" in to else "0.0.0.0"), order.get("source_port", 0)))
    return s, (to, order["port"])


def serve(order: Order) -> Result:
    """Listen on every port of ``ports``, TCP (echo) and UDP (notes the text, echoes on wish)."""
    for port in order["ports"]:
        tcp = socket.create_server(
            (order.get("at", "::"), port),
            family=socket.AF_INET6 if ":" in order.get("at", "::") else socket.AF_INET,
            dualstack_ipv6="at" not in order,
            backlog=1024,
        )
        udp = socket.socket(tcp.family, socket.SOCK_DGRAM)
        if "at" not in order:
            udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        udp.bind((order.get("at", "::"), port))
        tcp.setblocking(False)
        udp.setblocking(False)
        selector.register(tcp, selectors.EVENT_READ, accept)
        selector.register(udp, selectors.EVENT_READ, receive)
    return {}


def accept(listener: socket.socket) -> None:
    """Take a connection and echo on it from now on."""
    s, _ = listener.accept()
    s.setblocking(False)
    selector.register(s, selectors.EVENT_READ, echo)


def echo(s: socket.socket) -> None:
    """Send back what came; forget the connection at its end."""
    try:
        data = s.recv(65536)
        if data:
            note(data.decode())
            s.send(data)
            return
    except OSError:
        pass
    selector.unregister(s)
    s.close()


def receive(s: socket.socket) -> None:
    """Note a datagram; send it back where it asks for it."""
    data, peer = s.recvfrom(65536)
    note(data.decode())
    if data.startswith(b"echo"):
        s.sendto(data, peer)


def note(text: str) -> None:
    """Somebody may be waiting for it."""
    with news:
        arrived.add(text)
        news.notify_all()


def wait(order: Order) -> Result:
    """Which of ``texts`` have come; waits until all have, or ``timeout``."""
    wanted = set(order["texts"])
    with news:
        news.wait_for(lambda: wanted <= arrived, order.get("timeout", 2))
        return {"arrived": sorted(arrived if order.get("all") else wanted & arrived)}


def forget(_: Order) -> Result:
    """Forget what has come."""
    arrived.clear()
    return {}


def connect(order: Order) -> Result:
    """Open a TCP connection, or connect a UDP socket; kept under ``keep``, else closed."""
    s, to = make_socket(order)
    started = time.monotonic()
    try:
        s.connect(to)
    except OSError as error:
        s.close()
        return {"error": name_of(error), "seconds": time.monotonic() - started}
    if "keep" in order:
        open_sockets[order["keep"]] = s
    else:
        s.close()
    return {"seconds": time.monotonic() - started}


def connect_all(order: Order) -> Result:
    """Open many at once; ends shortly after ``expected`` are open, or after ``timeout``."""
    results: list[str] = ["timeout"] * len(order["flows"])
    pending = {}
    waiting = selectors.DefaultSelector()
    for i, flow in enumerate(order["flows"]):
        s, to = make_socket(flow)
        s.setblocking(False)
        try:
            s.connect(to)
        except BlockingIOError:
            waiting.register(s, selectors.EVENT_WRITE, i)
            pending[i] = s
        except OSError as error:
            results[i] = name_of(error)
            s.close()
        else:
            results[i] = "ok"
            s.close()
    until = time.monotonic() + order["timeout"]
    while pending and time.monotonic() < until:
        if results.count("ok") >= order["expected"]:
            until = min(until, time.monotonic() + GRACE_SECONDS)
        for key, _ in waiting.select(max(0.0, until - time.monotonic())):
            s = pending.pop(key.data)
            number = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            results[key.data] = errno.errorcode[number] if number else "ok"
            waiting.unregister(s)
            s.close()
    for s in pending.values():
        s.close()
    waiting.close()
    return {"results": results}


def send_all(order: Order) -> Result:
    """Send many datagrams, each from a socket of its own."""
    results = []
    for flow in order["flows"]:
        s, to = make_socket(flow)
        with s:
            try:
                s.sendto(flow["text"].encode(), to)
                results.append("ok")
            except OSError as error:
                results.append(name_of(error))
    return {"results": results}


def send(order: Order) -> Result:
    """Send a datagram, from the socket ``kept`` or a fresh one; ``answer``: wait for the echo."""
    s, to = make_socket(order)
    kept = open_sockets.get(order.get("kept", ""))
    with s:
        use = kept or s
        try:
            use.sendto(order["text"].encode(), to)
            if order.get("answer"):
                return {"answer": use.recv(65536).decode()}
        except OSError as error:
            return {"error": name_of(error)}
    return {}


def talk(order: Order) -> Result:
    """Send on an open connection and wait for the echo."""
    s = open_sockets[order["kept"]]
    s.settimeout(order.get("timeout", 2))
    try:
        s.sendall(order["text"].encode())
        return {"answer": s.recv(65536).decode()}
    except OSError as error:
        return {"error": name_of(error)}


def drop(_: Order) -> Result:
    """Reset every connection that was kept: one that was cut would send again for minutes."""
    for s in open_sockets.values():
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        s.close()
    open_sockets.clear()
    return {}


class Load:
    """Connects over and over: what is allowed must always work, what is denied never."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.rounds, self.failed, self.passed = 0, list[str](), 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        """One round after the other."""
        while not self.ended.is_set():
            self.rounds += 1
            for flow in self.order["good"]:
                result = self.attempt(flow)
                if result != "ok":
                    self.failed.append(f"{flow}: {result}")
            for flow in self.order["bad"]:
                self.passed += self.attempt(flow) == "ok"

    def attempt(self, flow: Order) -> str:
        """``ok`` when an answer came."""
        s, to = make_socket(flow)
        with s:
            try:
                s.connect(to)
                s.sendall(b"echo load")
                return "ok" if s.recv(100) == b"echo load" else "closed"
            except OSError as error:
                return name_of(error)


def load(order: Order) -> Result:
    """Begin a :class:`Load` called ``name``."""
    loads[order["name"]] = Load(order)
    return {}


def unload(order: Order) -> Result:
    """End it and say how it went."""
    ended = loads.pop(order["name"])
    ended.ended.set()
    ended.thread.join()
    return {"rounds": ended.rounds, "failed": ended.failed[:10], "passed": ended.passed}


def watch() -> None:
    """Serve every socket that was registered."""
    while True:
        for key, _ in selector.select(0.05):
            with contextlib.suppress(OSError):
                key.data(key.fileobj)


ORDERS: dict[str, Callable[[Order], Result]] = {
    f.__name__: f
    for f in (serve, wait, forget, connect, connect_all, send_all, send, talk, drop, load, unload)
}

if __name__ == "__main__":
    selector = selectors.DefaultSelector()
    threading.Thread(target=watch, daemon=True).start()
    for line in sys.stdin:
        print(json.dumps([ORDERS[o["do"]](o) for o in json.loads(line)]), flush=True)
