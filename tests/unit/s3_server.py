"""A real S3 server on loopback for tests: moto's, as a process of its own. No test is in here."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

PROGRAM = Path(sys.prefix) / "s3-server/bin/moto_server"


class S3Server:
    """Starts with an empty bucket ``captures``. Keeps what it holds in memory."""

    def __init__(self, log: Path) -> None:
        assert PROGRAM.exists(), f"{PROGRAM} is missing: run scripts/install"
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [PROGRAM, "-H", "127.0.0.1", "-p", "0"], stderr=errors, stdout=errors
            )
        deadline = time.monotonic() + 90
        while not (found := re.search(r"Running on (http://\S+)", log.read_text())):
            assert self._process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "the S3 server did not start"
            time.sleep(0.1)
        self.url = found[1]
        self._ask("/captures", method="PUT")

    def demand_known_keys(self) -> None:
        """From now on only keys that the server made are good: there are none."""
        self._ask("/moto-api/reset-auth", b"0")

    def empty(self) -> None:
        """As it was at the start: everybody may, one empty bucket."""
        self._ask("/moto-api/reset-auth", b"inf")
        self._ask("/moto-api/reset")
        self._ask("/captures", method="PUT")

    def stop(self) -> None:
        """End it, and wait."""
        self._process.terminate()
        self._process.wait(20)

    def _ask(self, path: str, data: bytes = b"", method: str = "POST") -> None:
        asked = urllib.request.Request(  # noqa: S310
            self.url + path, data, {"Content-Type": "text/plain"}, method=method
        )
        with urllib.request.urlopen(asked, timeout=30):  # noqa: S310
            pass


class Door:
    """A port before the server, by socat. Shut, the store is away and keeps what it has."""

    def __init__(self, server: S3Server) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._behind = server.url.removeprefix("http://")
        self.url = f"http://127.0.0.1:{self._port}"
        self._socat: subprocess.Popen[bytes] | None = None

    def open(self) -> None:
        """Let through."""
        listen = f"TCP-LISTEN:{self._port},bind=127.0.0.1,fork,reuseaddr"
        self._socat = subprocess.Popen(
            ["socat", listen, f"TCP:{self._behind}"], start_new_session=True
        )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self._port), 5).close()
                return
            except OSError:
                time.sleep(0.05)
        raise AssertionError("socat did not start")

    def shut(self) -> None:
        """Refuse, and cut what is open."""
        if self._socat:
            os.killpg(self._socat.pid, signal.SIGTERM)
            self._socat.wait(10)
            self._socat = None
