"""The demo's web application: counts visits in redis, reads products from postgres.

A script of its own, run inside a test pod by the distribution's Python (for psycopg2). Every
request asks the cluster's DNS for redis; the connections to redis and postgres are opened once
and kept, as a real application does. It also leaves a debug port open that nobody uses.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from typing import Any, BinaryIO

REDIS = ("redis.shop.svc.cluster.local", 6379)
POSTGRES = (
    "host=postgres.shop.svc.cluster.local port=5432 dbname=shop user=shop connect_timeout=3 "
    "tcp_user_timeout=3000 options='-c statement_timeout=3000'"
)
PAYMENTS = os.environ.get("SHOP_PAYMENTS", "http://payments.example.com/")
"""Called outside the cluster; empty: never."""
PAYMENT_EVERY = 10
"""Each so many visits, a service outside the cluster is called."""


class Redis:
    """One kept connection, speaking just enough RESP (https://redis.io/docs/reference/protocol-spec/)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._reader: BinaryIO | None = None

    def incr(self, key: str) -> int:
        """Add one to ``key``; its value. Opens the connection again after an error."""
        address = socket.getaddrinfo(*REDIS, socket.AF_INET, socket.SOCK_STREAM)[0][4]
        with self._lock:
            try:
                if self._socket is None or self._reader is None:
                    self._socket = socket.create_connection((str(address[0]), REDIS[1]), 3)
                    self._reader = self._socket.makefile("rb")
                name = key.encode()
                self._socket.sendall(b"*2\r\n$4\r\nINCR\r\n$%d\r\n%s\r\n" % (len(name), name))
                answer = self._reader.readline()
                if not answer.startswith(b":"):
                    raise ConnectionError(f"redis said {answer!r}")
                return int(answer[1:])
            except OSError:
                if self._socket:
                    self._socket.close()
                self._socket = self._reader = None
                raise


class Postgres:
    """One kept connection."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._driver: Any = import_module("psycopg2")
        self._connection: Any = None

    def product(self, number: int) -> str:
        """The name of a product. Opens the connection again after an error."""
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._driver.connect(POSTGRES)
                    self._connection.autocommit = True
                with self._connection.cursor() as cursor:
                    cursor.execute("SELECT name FROM product WHERE id = %s", (number,))
                    return str(cursor.fetchone()[0])
            except self._driver.Error:
                if self._connection is not None:
                    self._connection.close()
                self._connection = None
                raise


class Handler(BaseHTTPRequestHandler):
    """``/healthz`` for the kubelet; everything else is a visit."""

    redis: Redis
    postgres: Postgres

    def do_GET(self) -> None:
        if self.path == "/healthz":
            self._answer(200, {"healthy": True})
            return
        try:
            visits = self.redis.incr("visits")
            body: dict[str, Any] = {
                "visits": visits,
                "product": self.postgres.product(1 + visits % 3),
            }
            if PAYMENTS and visits % PAYMENT_EVERY == 0:
                with urllib.request.urlopen(PAYMENTS, timeout=3) as answer:  # noqa: S310
                    body["payment"] = answer.status
        except Exception as wrong:  # whatever it was, the visitor gets an answer
            self._answer(503, {"error": f"{type(wrong).__name__}: {wrong}"})
        else:
            self._answer(200, body)

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: the client counts."""


class Server(ThreadingHTTPServer):
    """Listens on both families, as most servers do."""

    address_family = socket.AF_INET6
    daemon_threads = True
    request_queue_size = 128

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def debug_port(port: int) -> None:
    """A listener somebody forgot: it answers whoever connects."""
    with socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        while True:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"debugger attached\n")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--port", type=int, default=8000)
    arguments.add_argument("--debug-port", type=int, default=9229)
    options = arguments.parse_args()
    threading.Thread(target=debug_port, args=(options.debug_port,), daemon=True).start()
    Handler.redis, Handler.postgres = Redis(), Postgres()
    Server(("::", options.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
