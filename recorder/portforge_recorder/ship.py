"""Bring finished files of this node's capture into an object store, and never lose one.

The recorder writes to its folder as ever; this only copies what is finished, in a thread of its
own. What the store has is remembered, and looked up again at each start. Does not read rows.
"""

from __future__ import annotations

import json
import logging
import random
import re
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from portforge.apply.state import State
from portforge.errors import PortforgeError, WriteError
from portforge.schema import LOSS_PREFIX
from portforge.store import Store, open_store
from portforge_recorder.files import listing, opened
from portforge_recorder.metrics import Metrics

__all__ = ["Shipper"]

Files = dict[str, dict[str, Any]]
"""What the folder lists, by path."""
_EVERY, _LONGEST = 15.0, 600.0
_log = logging.getLogger("portforge")


class Shipper:
    """Ships until stopped. ``problem`` is why it cannot just now; it tries again by itself.

    Parameters
    ----------
    url: ``s3://bucket/prefix``; the layout below it is that of the folder.
    capture, node: whose files. On a shared volume other nodes' files are left to them.
    state: remembers what was shipped.
    keep_hours: a shipped file so old is removed from the folder; 0 keeps all.
    """

    def __init__(
        self,
        url: str,
        capture: Path,
        node: str,
        state: State,
        metrics: Metrics,
        keep_hours: float = 0,
        *,
        every: float = _EVERY,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.problem: PortforgeError | None = None
        self._url, self._capture, self._state, self._metrics = url, capture, state, metrics
        self._keep, self._every, self._now = keep_hours * 3600, every, now
        self._ours = re.compile(
            rf"(.*/)?({LOSS_PREFIX})?{re.escape(node)}-\d{{8}}T\d{{6}}Z-\d+\.parquet"
        )
        self._store: Store | None = None
        self._shipped = self._remembered()
        self._looked: set[str] = set()
        """Folders of days in which the store was asked what it has, since the start."""
        self._stop, self._until = threading.Event(), float("inf")
        self._thread = threading.Thread(target=self._run, name="ship", daemon=True)

    def start(self) -> None:
        """Begin; the first look at the store is at once."""
        self._thread.start()

    def stop(self, wait: float = 10.0) -> None:
        """Ship what the recorder wrote last, as far as it goes in ``wait`` seconds."""
        self._until = time.monotonic() + wait
        self._stop.set()
        self._thread.join(wait)

    def once(self) -> bool:
        """Ship all that is there; whether the store took all. What it did not take stays."""
        files = {f["path"]: f for f in listing(self._capture) if self._ours.fullmatch(f["path"])}
        before = dict(self._shipped)
        self._shipped = {name: size for name, size in before.items() if name in files}
        problem: PortforgeError | None = None
        try:
            problem = self._ship_all(files)
        except PortforgeError as wrong:
            problem = wrong
        if self._shipped != before:
            problem = self._remember() or problem
        self._tell(files)
        self.problem = problem or self._remove(files)
        return self.problem is None

    def _ship_all(self, files: Files) -> PortforgeError | None:
        """Raises what the store says; returns what the disk said, which stops no other file."""
        problem: PortforgeError | None = None
        store = self._store = self._store or open_store(self._url)
        for folder in sorted({name.rpartition("/")[0] for name in files} - self._looked):
            self._look(store, folder, files)
        for name, file in files.items():
            if self._shipped.get(name) == file["size"]:
                continue
            if time.monotonic() > self._until:
                break
            try:
                with opened(self._capture, name) as stream:
                    data = stream.read()
            except FileNotFoundError:  # removed meanwhile, by whoever owns the disk
                continue
            except OSError as wrong:
                problem = self._of_disk("read", name, wrong)
                continue
            store.put(name, data)
            self._shipped[name] = len(data)
            self._metrics.shipped.inc()
            self._tell(files)
        return problem

    def _look(self, store: Store, folder: str, files: Files) -> None:
        there = {f.path: f.size for f in store.list(folder)}
        for name, file in files.items():
            if name.rpartition("/")[0] != folder:
                continue
            if there.get(name) == file["size"]:
                self._shipped[name] = there[name]
            else:
                self._shipped.pop(name, None)
        self._looked.add(folder)

    def _remove(self, files: Files) -> PortforgeError | None:
        problem: PortforgeError | None = None
        for name, file in files.items() if self._keep else ():
            if self._shipped.get(name) == file["size"] and self._age(file) > self._keep:
                try:
                    (self._capture / name).unlink(missing_ok=True)
                except OSError as wrong:
                    problem = self._of_disk("removed", name, wrong)
        return problem

    def _of_disk(self, what: str, name: str, wrong: OSError) -> PortforgeError:
        return WriteError(
            f"cannot be {what} ({wrong.strerror or wrong})",
            place=str(self._capture / name),
            remedy="look at the disk; the other files are shipped",
        )

    def _tell(self, files: Files) -> None:
        waiting = [f for n, f in files.items() if self._shipped.get(n) != f["size"]]
        self._metrics.ship_pending.set(len(waiting))
        self._metrics.ship_age.set(max(map(self._age, waiting), default=0))

    def _age(self, file: dict[str, Any]) -> float:
        return (self._now() - datetime.fromisoformat(str(file["modified"]))).total_seconds()

    def _remembered(self) -> dict[str, int]:
        try:
            known = json.loads(self._state.kept("shipped.json") or "{}")
        except (ValueError, OSError):
            return {}  # the store is asked
        known = known.get(self._url) if isinstance(known, dict) else None
        return {str(n): int(s) for n, s in known.items()} if isinstance(known, dict) else {}

    def _remember(self) -> PortforgeError | None:
        try:
            self._state.keep("shipped.json", json.dumps({self._url: self._shipped}, sort_keys=True))
        except PortforgeError as problem:  # after a restart the store is asked all the same
            return problem
        return None

    def _run(self) -> None:
        pause = self._every
        while True:
            last = self._stop.is_set()
            try:
                done = self.once()
            except Exception:
                _log.exception("shipping failed; it goes on")
                done = False
            if last:
                return
            pause = self._every if done else min(pause * 2, _LONGEST)
            self._stop.wait(pause * random.uniform(0.8, 1.2))  # noqa: S311
