"""What this node was told to enforce, on disk: the policies in force, those before, and the ids.

::

    <state>/<node>/current.yaml       the policies in force
    <state>/<node>/history/0007.yaml  what was in force before the 7th change
    <state>/<node>/ids.json           policy ids in the kernel, with the ids of their rules
    <state>/<node>/cluster.json       in a cluster: objects last seen, confirmed, rolled back
    <state>/<node>/pods.json          who this node's pods are, for when an inventory lacks one

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

from portforge.apply.inventory import Pod
from portforge.errors import PortforgeError, WriteError
from portforge.policy import PortPolicy, read_policies, to_yaml
from portforge.schema import Workload

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
        self._read: tuple[tuple[int, int, int], list[PortPolicy]] | None = None

    @property
    def current(self) -> Path:
        """The file with the policies in force."""
        return self.folder / "current.yaml"

    def policies(self) -> list[PortPolicy]:
        """The policies in force; none before the first apply."""
        if not self.current.exists() or not self.current.stat().st_size:
            return []
        about = self.current.stat()
        version = (about.st_mtime_ns, about.st_size, about.st_ino)
        # The recorder asks several times a minute; reading a hundred policies takes a second.
        if self._read is None or self._read[0] != version:
            self._read = (version, read_policies(self.current))
        return list(self._read[1])

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

    def put(self, policies: Iterable[PortPolicy]) -> bool:
        """Put exactly ``policies`` in force, without a history; whether that is a change.

        For a node of a cluster: its history is that of the cluster's objects.
        """
        text = self._text(policies)
        if self.current.exists() and self.current.read_text(errors="replace") == text:
            return False
        _write(self.current, text)
        return True

    def keep(self, name: str, text: str) -> None:
        """Replace the file ``name`` of the node's agent in one step."""
        _write(self.folder / name, text)

    def kept(self, name: str) -> str:
        """What :meth:`keep` wrote last; empty when it never did."""
        path = self.folder / name
        return path.read_text(errors="replace") if path.exists() else ""

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
        _write(self.current, self._text(policies))

    @staticmethod
    def _text(policies: Iterable[PortPolicy]) -> str:
        ordered = sorted(policies, key=lambda p: p.workload)
        return "---\n".join(to_yaml(p) for p in ordered)

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

    def pods(self) -> list[Pod]:
        """The pods last remembered; none when ``pods.json`` is missing or damaged."""
        try:
            read = json.loads((self.folder / "pods.json").read_text(errors="replace"))
            return [
                Pod(
                    p["uid"],
                    p["namespace"],
                    p["name"],
                    Workload(*p["workload"]) if p["workload"] else None,
                    p["node"],
                    tuple(p["addresses"]),
                    p["host_network"],
                )
                for p in read
            ]
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return []

    def remember_pods(self, pods: Iterable[Pod]) -> None:
        """Write down who this node's pods are; nothing when that is what is written."""
        known = [
            {
                "uid": p.uid,
                "namespace": p.namespace,
                "name": p.name,
                "workload": list(p.workload) if p.workload else None,
                "node": p.node,
                "addresses": list(p.addresses),
                "host_network": p.host_network,
            }
            for p in sorted(pods, key=lambda p: p.uid)
        ]
        text = json.dumps(known, indent=0, sort_keys=True)
        path = self.folder / "pods.json"
        if not path.exists() or path.read_text(errors="replace") != text:
            _write(path, text)
