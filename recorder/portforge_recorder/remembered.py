"""Who is who while the API server is away at the start: what the last agent knew, from the disk.

Wraps the identity source that watches the API server. Once that was read whole, it alone counts.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

from pydantic import TypeAdapter

from portforge.apply.inventory import Inventory
from portforge.apply.state import State
from portforge.errors import PortforgeError

if TYPE_CHECKING:
    from portforge_recorder.kubernetes import KubernetesSource

__all__ = ["RememberedSource"]

_FILE = "inventory.json"
_INVENTORY = TypeAdapter(Inventory)
_WAIT_SECONDS = 30.0


class RememberedSource:
    """An ``IdentitySource`` that always has an answer.

    Parameters
    ----------
    source: the cluster's; its ``wait`` must be 0.
    state: where the last inventory is kept.
    """

    def __init__(self, source: KubernetesSource, state: State) -> None:
        self.source, self.state = source, state
        self.last = self._read()
        self._known = self.last is not None
        self._kept: Inventory | None = None

    @property
    def age(self) -> float:
        """Seconds since the API server was heard from."""
        return self.source.age

    @property
    def synced(self) -> bool:
        """Whether the cluster was read whole since the start."""
        return self.source.synced

    def wait(self, seconds: float = _WAIT_SECONDS) -> bool:
        """Give the API server a moment; less where there is something to go on with."""
        self.source.start()
        until = time.monotonic() + (seconds / 6 if self._known else seconds)
        while not self.source.synced and time.monotonic() < until:
            time.sleep(0.05)
        return self.source.synced

    def inventory(self) -> Inventory:
        """The cluster as known now, or as it was known by the agent before, or nobody."""
        try:
            self.last = self.source.inventory()
        except PortforgeError:
            if self.last is None:
                # Nobody knows whether a namespace is closed: it stays as it is in the kernel.
                closed = cast("frozenset[str]", None)
                self.last = Inventory(
                    self.source.cluster, self.source.node, closed_namespaces=closed
                )
        return self.last

    def keep(self) -> None:
        """Write down what is known, where it was heard since the start and has changed."""
        if self.source.synced and self.last is not None and self.last is not self._kept:
            self.state.keep(_FILE, _INVENTORY.dump_json(self.last).decode())
            self._kept = self.last

    def _read(self) -> Inventory | None:
        try:
            found = _INVENTORY.validate_json(self.state.kept(_FILE))
        except (ValueError, OSError):
            return None
        here = (self.source.cluster, self.source.node)
        return found if (found.cluster, found.node) == here else None
