"""The canary: a connection of the agent's own pod that must come out of the next drain.

It passes every part that recording needs: the programs, the maps, identity, attribution. When it
does not come back, the capture cannot be trusted, and the agent says so. It ends nothing.
"""

from __future__ import annotations

import logging
import socket
import threading
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from portforge.schema import Direction, PeerKind

__all__ = ["STALE", "Canary"]

STALE = timedelta(minutes=3)
_EVERY = 60.0
_log = logging.getLogger(__name__)


class Canary:
    """Connects once a minute to the agent's own HTTP port, on the loopback of its pod.

    Parameters
    ----------
    port: where the agent listens.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.begun = datetime.now(UTC)
        self.seen: datetime | None = None
        """When a row of it was recorded last."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="canary", daemon=True)

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()

    def sing(self) -> None:
        """Open one connection and close it."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5):
                pass
        except OSError as error:
            _log.warning("the canary found nobody: %s", error)

    def listen(self, flows: pa.Table, pod: str | None) -> None:
        """Look for it among the rows of a drain; ``pod`` is the name of the agent's own."""
        if pod is None:
            return
        wanted = {
            "pod": pod,
            "direction": Direction.EGRESS.value,
            "peer_kind": PeerKind.LOOPBACK.value,
        }
        mine = pc.equal(flows.column("port"), self.port)
        for name, value in wanted.items():
            mine = pc.and_(mine, pc.equal(flows.column(name).cast(pa.string()), value))
        latest = pc.max(flows.filter(mine).column("last_seen")).as_py()
        if latest is not None:
            self.seen = max(latest, self.seen or latest)

    def age(self, now: datetime) -> timedelta:
        """How long ago it was recorded, or how long it has been waited for."""
        return now - (self.seen or self.begun)

    def stale(self, now: datetime) -> bool:
        """Whether it has been missing for too long."""
        return self.age(now) > STALE

    def _run(self) -> None:
        # The first soon: readiness tells what an upgrade did.
        wait = 2.0
        while not self._stop.wait(wait):
            self.sing()
            wait = _EVERY
