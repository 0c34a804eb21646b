"""What this node was told to enforce, on disk: the policies in force, those before, and the ids.

::

    <state>/<node>/current.yaml       the policies in force
    <state>/<node>/history/0007.yaml  what was in force before the 7th change
    <state>/<node>/ids.json           policy ids in the kernel, with the ids of their rules

The recorder reads it to enforce on pods that come later; it survives both.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from portforge.errors import PortforgeError, WriteError
from portforge.policy import PortPolicy, read_policies, to_yaml

__all__ = ["Known", "State"]

DEFAULT = Path(os.environ.get("PORTFORGE_STATE", "/var/lib/portforge"))


class Known(NamedTuple):
    """A policy whose entries are in the kernel."""

    policy: int
    rules: tuple[str, ...]


def _write(path: Path, text: str) -> None:
    """Replace ``path`` in one step."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".", delete=False) as new:
            try:
                new.write(text)
                new.flush()
                os.fsync(new.fileno())
                Path(new.name).replace(path)
            except BaseException:
                Path(new.name).unlink()
                raise
    except OSError as error:
        raise WriteError(
            error.strerror or str(error), place=str(path), remedy="free space, or run as root"
        ) from error


class State:
    """The state of one node below ``folder``."""

    def __init__(self, node: str, folder: Path = DEFAULT) -> None:
        self.folder = folder / node
        self._alone = 0

    @property
    def current(self) -> Path:
        """The file with the policies in force."""
        return self.folder / "current.yaml"

    def policies(self) -> list[PortPolicy]:
        """The policies in force; none before the first apply."""
        if not self.current.exists() or not self.current.stat().st_size:
            return []
        return read_policies(self.current)

    def history(self) -> list[Path]:
        """What was in force before each change, oldest first."""
        changes = (self.folder / "history").glob("*.yaml")
        return sorted((c for c in changes if c.stem.isdecimal()), key=lambda path: int(path.stem))

    def change(self, policies: Iterable[PortPolicy]) -> None:
        """Put ``policies`` in force; what was is kept in the history."""
        number = int(self.history()[-1].stem) + 1 if self.history() else 1
        before = self.current.read_text() if self.current.exists() else ""
        kept = self.folder / "history" / f"{number:04}.yaml"
        _write(kept, before)
        try:
            self._replace(policies)
        except BaseException:
            kept.unlink()
            raise

    def back(self) -> list[PortPolicy]:
        """Put in force what was before the last change, and forget that change.

        Raises
        ------
        PortforgeError: nothing was ever applied.
        """
        history = self.history()
        if not history:
            raise PortforgeError(
                "nothing to roll back to", place=str(self.folder), remedy="apply something first"
            )
        _write(self.current, history[-1].read_text())
        history[-1].unlink()
        return self.policies()

    def _replace(self, policies: Iterable[PortPolicy]) -> None:
        ordered = sorted(policies, key=lambda p: p.workload)
        _write(self.current, "---\n".join(to_yaml(p) for p in ordered))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from changing what this node enforces meanwhile; may be nested."""
        if self._alone:
            yield
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            held = (self.folder / "lock").open("w")
        except OSError as error:
            raise WriteError(
                error.strerror or str(error), place=str(self.folder), remedy="run as root"
            ) from error
        with held:
            fcntl.flock(held, fcntl.LOCK_EX)
            self._alone += 1
            try:
                yield
            finally:
                self._alone -= 1

    def ids(self) -> str:
        """``ids.json`` as it is; changes with every write of a policy."""
        path = self.folder / "ids.json"
        return path.read_text(errors="replace") if path.exists() else ""

    def known(self) -> dict[int, Known]:
        """The policies in the kernel, by id; none when ``ids.json`` is damaged: it is replaced."""
        try:
            known = json.loads(self.ids() or "{}")
            return {int(k): Known(int(k), tuple(v)) for k, v in known.items()}
        except (ValueError, TypeError, AttributeError):
            return {}

    def remember(self, known: Iterable[Known]) -> None:
        """Write down which policies are in the kernel; before they are used."""
        text = json.dumps({str(k.policy): list(k.rules) for k in known}, sort_keys=True)
        _write(self.folder / "ids.json", text)
