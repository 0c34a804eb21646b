"""What the demo's other pods do: load, probe, scan, hold a connection, listen.

A script of its own, standard library only, run inside a test pod. Each subcommand reports as
JSON: to a status file that is replaced as a whole while it runs, or to standard output at its end.
"""

from __future__ import annotations

import argparse
import errno
import http.client
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

TIMEOUT = 2.0
KEEP_SECONDS = 300


def family(host: str) -> socket.AddressFamily:
    """IPv6 for a literal IPv6 address, IPv4 for everything else."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def report(path: Path, status: dict[str, Any]) -> None:
    """Replace the status file as a whole."""
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(json.dumps(status))
    draft.replace(path)


def reason(wrong: OSError) -> str:
    """How a connection failed: ``refused``, ``forbidden``, ``timeout`` or the errno's name."""
    if isinstance(wrong, TimeoutError):
        return "timeout"
    if isinstance(wrong, ConnectionRefusedError):
        return "refused"
    if isinstance(wrong, PermissionError):
        return "forbidden"
    return errno.errorcode.get(wrong.errno or 0, type(wrong).__name__)


def get(url: str) -> str:
    """One GET on a connection of its own, the name looked up anew: ``ok`` or what went wrong."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=TIMEOUT)
    try:
        connection.request("GET", parts.path or "/")
        answer = connection.getresponse()
        answer.read()
        return "ok" if answer.status == 200 else f"HTTP {answer.status}"
    except OSError as wrong:
        return reason(wrong)
    except http.client.HTTPException as wrong:
        return type(wrong).__name__
    finally:
        connection.close()


class Tally:
    """Counts of ok and failed requests, in all and for each second."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.ok = self.failed = 0
        self.reasons: Counter[str] = Counter()
        self.seconds: dict[int, list[int]] = {}

    def add(self, outcome: str) -> None:
        """Count one request."""
        with self._lock:
            good = outcome == "ok"
            self.ok += good
            self.failed += not good
            if not good:
                self.reasons[outcome] += 1
            self.seconds.setdefault(int(time.time()), [0, 0])[0 if good else 1] += 1

    def status(self) -> dict[str, Any]:
        """As JSON; ``seconds`` are ``[epoch second, ok, failed]``."""
        with self._lock:
            return {
                "ok": self.ok,
                "failed": self.failed,
                "reasons": dict(self.reasons),
                "seconds": [[s, *n] for s, n in sorted(self.seconds.items())][-KEEP_SECONDS:],
            }


def keep_asking(urls: list[str], rate: float, workers: int, status: Path) -> None:
    """GET ``urls`` in turn, ``rate`` times a second in all, for ever; report as it goes."""
    tally = Tally()

    def work(number: int) -> None:
        due = time.monotonic() + number / rate
        turn = number
        while True:
            time.sleep(max(0.0, due - time.monotonic()))
            # After a stall, go on from now: a burst would say more than was asked.
            due = max(due + workers / rate, time.monotonic())
            tally.add(get(urls[turn % len(urls)]))
            turn += 1

    for number in range(workers):
        threading.Thread(target=work, args=(number,), daemon=True).start()
    while True:
        report(status, tally.status())
        time.sleep(0.1)


def ask(url: str, times: int) -> dict[str, Any]:
    """GET ``url`` so many times, four at once."""
    tally = Tally()
    with ThreadPoolExecutor(4) as pool:
        for outcome in pool.map(get, [url] * times):
            tally.add(outcome)
    return tally.status()


def scan(host: str, tcp: list[int], udp: list[int], wait: float) -> dict[str, Any]:
    """Try every port; ``open_ports`` and how many ended how, for each protocol."""

    def connect(port: int) -> str:
        with socket.socket(family(host), socket.SOCK_STREAM) as s:
            s.settimeout(wait)
            try:
                s.connect((host, port))
            except OSError as wrong:
                return reason(wrong)
            return "open"

    def send(port: int) -> str:
        with socket.socket(family(host), socket.SOCK_DGRAM) as s:
            s.settimeout(wait)
            try:
                s.connect((host, port))
                s.send(b"\r\n")
                s.recv(1)
            except OSError as wrong:
                return reason(wrong)
            return "open"

    result: dict[str, Any] = {}
    with ThreadPoolExecutor(max(1, len(tcp) + len(udp))) as pool:
        for protocol, ports, attempt in (("tcp", tcp, connect), ("udp", udp, send)):
            outcomes = list(pool.map(attempt, ports))
            result[protocol] = {
                "tried": len(ports),
                "open_ports": [p for p, o in zip(ports, outcomes, strict=True) if o == "open"],
                **{name: outcomes.count(name) for name in ("open", "refused", "timeout")},
                "forbidden": outcomes.count("forbidden"),
            }
    return result


def exchange(s: socket.socket) -> None:
    """Send a byte and have it back; an OSError where the other side is gone."""
    s.sendall(b"x")
    if not s.recv(1):
        raise ConnectionResetError(errno.ECONNRESET, "closed by the other side")


def hold(host: str, port: int, status: Path) -> None:
    """Open a connection and use it ten times a second until it is cut; report each exchange."""
    state: dict[str, Any] = {"state": "failed", "exchanges": 0, "reason": None}
    try:
        with socket.create_connection((host, port), TIMEOUT) as s:
            while True:
                exchange(s)
                state |= {"state": "open", "exchanges": state["exchanges"] + 1}
                report(status, state)
                time.sleep(0.1)
    except OSError as wrong:
        ended = "cut" if state["exchanges"] else "failed"
        report(status, state | {"state": ended, "reason": reason(wrong), "at": time.time()})


def connect(host: str, port: int) -> dict[str, Any]:
    """Connect once and exchange a byte."""
    result: dict[str, Any] = {"connected": False, "answered": False, "reason": None}
    try:
        with socket.create_connection((host, port), TIMEOUT) as s:
            result["connected"] = True
            exchange(s)
            result["answered"] = True
    except OSError as wrong:
        result["reason"] = reason(wrong)
    return result


def listen(port: int) -> None:
    """An echo server on both families."""

    def echo(connection: socket.socket) -> None:
        with connection:
            try:
                while heard := connection.recv(4096):
                    connection.sendall(heard)
            except OSError:
                return

    with socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        while True:
            accepted, _ = server.accept()
            threading.Thread(target=echo, args=(accepted,), daemon=True).start()


def ports(text: str) -> list[int]:
    """Port numbers from ``22,80,443``."""
    return [int(p) for p in text.split(",") if p]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)

    def command(name: str, run: Callable[[argparse.Namespace], None], *options: str) -> None:
        sub = commands.add_parser(name)
        for option in options:
            sub.add_argument(f"--{option}", required=True)
        sub.set_defaults(run=run)

    command(
        "load",
        lambda o: keep_asking([o.url], float(o.rate), 4, Path(o.status)),
        *("url", "rate", "status"),
    )
    command(
        "probe",
        lambda o: keep_asking(o.urls.split(","), float(o.rate), 1, Path(o.status)),
        *("urls", "rate", "status"),
    )
    command("ask", lambda o: print(json.dumps(ask(o.url, int(o.times)))), "url", "times")
    command(
        "scan",
        lambda o: print(json.dumps(scan(o.host, ports(o.tcp), ports(o.udp), float(o.wait)))),
        *("host", "tcp", "udp", "wait"),
    )
    command("hold", lambda o: hold(o.host, int(o.port), Path(o.status)), "host", "port", "status")
    command("connect", lambda o: print(json.dumps(connect(o.host, int(o.port)))), "host", "port")
    command("listen", lambda o: listen(int(o.port)), "port")
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
