"""The agent's HTTP: ``/metrics``, ``/healthz``, ``/readyz`` and the capture, read only.

One request a connection, a bounded number of them, every wait bounded: a slow client holds one
thread for a while and nothing else. Who may read the capture says the API server, by TokenReview.
"""

from __future__ import annotations

import hashlib
import json
import logging
import socket
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar
from urllib.parse import unquote, urlsplit

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from portforge.errors import ClusterError
from portforge.kube.client import request
from portforge_recorder.files import byte_range, listing, opened

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

__all__ = ["READER", "Readers", "Server"]

AUDIENCE = "portforge"
READER = "portforge-reader"
"""The ServiceAccount, in the release's namespace, whose tokens open the capture."""
TOKEN_HEADER = "X-Portforge-Token"  # noqa: S105
_CACHED_SECONDS = 60.0
_MOST_CACHED = 256
_MOST_CONNECTIONS = 16
_HEAD_SECONDS = 10.0
_WAIT_SECONDS = 30.0
_PIECE = 256 * 1024
_log = logging.getLogger(__name__)


class Readers:
    """Who may read the capture: asks the API server, and believes it for a minute.

    Parameters
    ----------
    namespace: of the release, where the reader's ServiceAccount is.
    """

    def __init__(self, api: ApiClient, namespace: str) -> None:
        self._api = api
        self._name = f"system:serviceaccount:{namespace}:{READER}"
        self._known: dict[bytes, tuple[float, HTTPStatus]] = {}
        self._lock = threading.Lock()

    def check(self, token: str | None) -> HTTPStatus:
        """200: may read; 401: no valid token; 403: another's; 503: nobody can be asked."""
        if not token:
            return HTTPStatus.UNAUTHORIZED
        key, now = hashlib.sha256(token.encode()).digest(), time.monotonic()
        with self._lock:
            until, status = self._known.get(key, (0.0, HTTPStatus.UNAUTHORIZED))
        if now < until:
            return status
        try:
            status = self._ask(token)
        except ClusterError as problem:
            _log.warning("a token could not be checked: %s", problem)
            return HTTPStatus.SERVICE_UNAVAILABLE
        with self._lock:
            if len(self._known) >= _MOST_CACHED:
                self._known.clear()
            self._known[key] = (now + _CACHED_SECONDS, status)
        return status

    def _ask(self, token: str) -> HTTPStatus:
        review = request(
            self._api,
            "POST",
            "/apis/authentication.k8s.io/v1/tokenreviews",
            body={
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenReview",
                "spec": {"token": token, "audiences": [AUDIENCE]},
            },
        )
        status = review.get("status") or {}
        if not status.get("authenticated") or AUDIENCE not in (status.get("audiences") or ()):
            return HTTPStatus.UNAUTHORIZED
        name = (status.get("user") or {}).get("username")
        return HTTPStatus.OK if name == self._name else HTTPStatus.FORBIDDEN


class Server(ThreadingHTTPServer):
    """The agent's HTTP server. ``start`` and ``stop``; ``server_port`` is where it listens.

    Parameters
    ----------
    address: where to listen; no host: everywhere; port 0 takes a free one.
    registry: the metrics.
    problems: why the agent is not alive, and why it is not ready; empty when it is.
    capture: the folder to serve.
    readers: who may read it; None: nobody.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self,
        address: tuple[str, int],
        registry: CollectorRegistry,
        alive: Callable[[], list[str]],
        ready: Callable[[], list[str]],
        capture: Path,
        readers: Readers | None,
    ) -> None:
        if not address[0] and socket.has_dualstack_ipv6():
            address = ("::", address[1])
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.registry, self.alive, self.ready = registry, alive, ready
        self.capture, self.readers = capture, readers
        self._room = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        super().__init__(address, _Handler)
        self._thread = threading.Thread(target=self.serve_forever, name="http", daemon=True)

    def server_bind(self) -> None:
        """One socket for IPv4 and IPv6, where it is for every address. Asks no name server."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "portforge", int(self.server_address[1])

    def start(self) -> None:
        """Begin to serve, in threads."""
        self._thread.start()

    def stop(self) -> None:
        """End; requests that are being served are cut at the end of the process."""
        self.shutdown()
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread of its own, where there is room."""
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve, and make room."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """A client that went away is nobody's problem."""
        _log.debug("a request ended early", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version, sys_version = "portforge", ""
    timeout = _WAIT_SECONDS
    _pages: ClassVar[dict[str, str]] = {
        "/metrics": "_metrics",
        "/healthz": "_alive",
        "/readyz": "_ready",
    }

    def setup(self) -> None:
        super().setup()
        # Each read has a time-out; a client that sends a byte now and then has this one.
        self._head = threading.Timer(_HEAD_SECONDS, self._cut)
        self._head.daemon = True
        self._head.start()

    def finish(self) -> None:
        self._head.cancel()
        super().finish()

    def _cut(self) -> None:
        try:
            self.connection.shutdown(socket.SHUT_RD)
        except OSError:
            _log.debug("the client had gone", exc_info=True)

    def log_message(self, format: str, *args: Any) -> None:
        _log.debug(format, *args)

    def do_GET(self) -> None:
        self._head.cancel()
        path = unquote(urlsplit(self.path).path)
        if path in self._pages:
            getattr(self, self._pages[path])()
        elif path == "/capture" or path.startswith("/capture/"):
            self._capture(path.removeprefix("/capture").lstrip("/"))
        else:
            self._say(HTTPStatus.NOT_FOUND, "no such page\n")

    def _say(
        self, status: HTTPStatus, text: str | bytes, kind: str = "text/plain; charset=utf-8"
    ) -> None:
        body = text.encode() if isinstance(text, str) else text
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _metrics(self) -> None:
        self._say(HTTPStatus.OK, generate_latest(self.server.registry), CONTENT_TYPE_LATEST)

    def _alive(self) -> None:
        self._state(self.server.alive())

    def _ready(self) -> None:
        self._state(self.server.ready())

    def _state(self, problems: list[str]) -> None:
        status = HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK
        self._say(status, "".join(f"{p}\n" for p in problems) or "ok\n")

    def _capture(self, name: str) -> None:
        readers = self.server.readers
        status = readers.check(self.headers.get(TOKEN_HEADER)) if readers else HTTPStatus.FORBIDDEN
        if status is not HTTPStatus.OK:
            self._say(status, f"{TOKEN_HEADER}: a token of ServiceAccount {READER}, please\n")
        elif not name:
            files = listing(self.server.capture)
            self._say(HTTPStatus.OK, json.dumps({"files": files}), "application/json")
        else:
            self._file(name)

    def _file(self, name: str) -> None:
        try:
            file = opened(self.server.capture, name)
        except OSError:
            self._say(HTTPStatus.NOT_FOUND, "no such file\n")
            return
        with file:
            size = file.seek(0, 2)
            try:
                part = byte_range(self.headers.get("Range"), size)
            except ValueError:
                self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
                self.send_header("Content-Range", f"bytes */{size}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            begin, end = part or (0, size)
            self.send_response(HTTPStatus.PARTIAL_CONTENT if part else HTTPStatus.OK)
            self.send_header("Content-Type", "application/vnd.apache.parquet")
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(end - begin))
            if part:
                self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{size}")
            self.end_headers()
            self._pour(file, begin, end)

    def _pour(self, file: BinaryIO, begin: int, end: int) -> None:
        file.seek(begin)
        while begin < end and (piece := file.read(min(_PIECE, end - begin))):
            self.wfile.write(piece)
            begin += len(piece)
