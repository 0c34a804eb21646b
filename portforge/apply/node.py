"""This node's pinned maps: read, write, swap. Says nothing of policies' meaning.

The kernel goes on with what is pinned whether or not anybody has these files open.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from portforge.apply import layout, libbpf
from portforge.apply.cgroups import pod_uid
from portforge.apply.compile import CompiledPolicy
from portforge.apply.layout import MAPS, Rows, as_bytes, as_rows
from portforge.apply.pins import BPFFS, find_pins, pin_home
from portforge.errors import HostError

__all__ = [
    "BPFFS",
    "MAPS",
    "Drained",
    "NodeMaps",
    "PodEntry",
    "Rows",
    "find_pins",
    "pin_home",
    "pod_entry",
]

PodEntry = tuple[int, int, int, int, int]
"""``layout.POD``."""


@dataclass(frozen=True)
class Drained:
    """What the kernel counted in one interval. ``epoch`` numbers the interval."""

    epoch: int
    keys: Rows
    values: Rows


class NodeMaps:
    """The maps pinned under ``folder``/maps. Use as a context manager, or ``close``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._fds: dict[str, int] = {}

    def __enter__(self) -> NodeMaps:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every descriptor; the maps stay."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()

    def fd(self, name: str) -> int:
        """The descriptor of the map ``name``, opened once."""
        if name not in self._fds:
            try:
                fd = libbpf.open_pin(self.folder / "maps" / name)
            except FileNotFoundError as gone:
                raise HostError(
                    "the programs were removed or replaced meanwhile",
                    place=str(self.folder),
                    remedy="try again; see: portforge doctor",
                ) from gone
            kind = MAPS[name]
            if libbpf.map_sizes(fd) != (kind.key.itemsize, kind.value.itemsize):
                os.close(fd)
                raise HostError(
                    "the pinned map has another layout",
                    place=str(self.folder / "maps" / name),
                    remedy="start the recorder of this version: it replaces the programs",
                )
            self._fds[name] = fd
        return self._fds[name]

    def intact(self) -> bool:
        """Whether the programs are still attached and these maps are still theirs.

        False: somebody removed the pins, or the cgroup they hang at; nothing is enforced.
        """
        try:
            for pin in (self.folder / "programs").iterdir():
                with libbpf.opened(self.folder / "links" / pin.name) as link:
                    if not libbpf.link_attached(link):
                        return False
            for name, fd in self._fds.items():
                with libbpf.opened(self.folder / "maps" / name) as pinned:
                    if libbpf.map_id(pinned) != libbpf.map_id(fd):
                        return False
        except FileNotFoundError:
            return False
        return True

    def read(self, name: str) -> tuple[Rows, Rows]:
        """All keys and values of a map, as two structured arrays of the same length."""
        kind = MAPS[name]
        keys, values = libbpf.read_all(self.fd(name), kind.key.itemsize, kind.value.itemsize)
        return as_rows(keys, kind.key), as_rows(values, kind.value)

    def put(self, name: str, key: object, value: object) -> None:
        """Set one entry. ``key`` and ``value`` are scalars or tuples in the order of the layout.

        Raises
        ------
        HostError: the map is full.
        """
        kind = MAPS[name]
        try:
            libbpf.update(self.fd(name), as_bytes(key, kind.key), as_bytes(value, kind.value))
        except OSError as error:
            self._refused(name, error)

    def _refused(self, name: str, error: OSError) -> NoReturn:
        if error.errno not in (errno.ENOSPC, errno.E2BIG):
            raise error
        raise HostError(
            "the kernel's map is full",
            place=str(self.folder / "maps" / name),
            remedy="apply fewer or narrower rules at once on this node",
        ) from error

    def put_new(self, name: str, key: object, value: object) -> bool:
        """Like :meth:`put`, but leave what is there; False then."""
        kind = MAPS[name]
        raw = as_bytes(key, kind.key), as_bytes(value, kind.value)
        try:
            return libbpf.insert(self.fd(name), *raw)
        except OSError as error:
            self._refused(name, error)

    def get(self, name: str, key: object) -> Any:
        """One value, None when there is none."""
        kind = MAPS[name]
        raw = libbpf.lookup(self.fd(name), as_bytes(key, kind.key), kind.value.itemsize)
        return None if raw is None else as_rows(raw, kind.value)[0]

    def remove(self, name: str, key: object) -> None:
        """Delete one entry, if it is there."""
        libbpf.delete(self.fd(name), as_bytes(key, MAPS[name].key))

    def config(self) -> dict[str, int]:
        """The configuration, by field name."""
        value = self.get("config", 0)
        return {name: int(value[name]) for name in layout.CONFIG.names or ()}

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from changing the configuration of this node meanwhile."""
        lock = Path("/run/lock") / f"portforge-{self.folder.parent.name}"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield

    def configure(self, **fields: int) -> None:
        """Change some fields of the configuration; hold :meth:`alone` from read to write."""
        merged = {**self.config(), **fields}
        self.put("config", 0, tuple(merged[name] for name in layout.CONFIG.names or ()))

    def swap(self) -> None:
        """Let the programs write the other pair of flow maps, unless that is not drained yet."""
        with self.alone():
            config = self.config()
            idle = 1 - config["active"]
            if not self._pair(idle)[0].size:
                self.configure(active=idle, epoch=config["epoch"] + 1)
        libbpf.wait_for_programs()

    def drain(self) -> Drained:
        """Swap the flow maps, unless that was done, and read the pair that is no longer written.

        It stays readable until :meth:`drained` clears it: who dies in between loses nothing.
        """
        self.swap()
        config = self.config()
        keys, values = self._pair(1 - config["active"])
        return Drained(config["epoch"], keys, values)

    def drained(self) -> None:
        """Clear the pair that :meth:`drain` read."""
        idle = 1 - self.config()["active"]
        for name in (f"flows_{idle}", f"ports_{idle}"):
            keys, _ = self.read(name)
            libbpf.clear(self.fd(name), keys.tobytes(), layout.FLOW_KEY.itemsize)

    def _pair(self, which: int) -> tuple[Rows, Rows]:
        flows, ports = self.read(f"flows_{which}"), self.read(f"ports_{which}")
        return np.concatenate([flows[0], ports[0]]), np.concatenate([flows[1], ports[1]])

    def losses(self) -> list[int]:
        """The loss counters since the programs were loaded, in the order of ``KERNEL_LOSSES``."""
        return [int(self.get("losses", i)) for i in range(len(layout.KERNEL_LOSSES))]

    def pod_names(self) -> dict[int, str]:
        """The last part of the cgroup's path, by cgroup id, of every pod that is or was here."""
        keys, values = self.read("pod_names")
        return {
            int(k): bytes(v["name"]).split(b"\0")[0].decode(errors="replace")
            for k, v in zip(keys, values, strict=True)
        }

    def ended(self) -> set[int]:
        """Cgroup ids of pods that ended and are not forgotten yet."""
        keys, values = self.read("pod_names")
        return {int(k) for k in keys[values["died_ns"] > 0]}

    def write_policy(self, policy: CompiledPolicy, least: int = 1) -> int:
        """Write the entries of ``policy`` under a fresh id and return that; nobody uses it yet.

        ``least``: the lowest id that may be taken.
        """
        with self.alone():
            first = max(self.config()["next_policy"], least)
            self.configure(next_policy=first + 1 + len(policy.rule_ids))
        for peer in policy.peers:
            key = (32 + peer.bits, first + peer.peer_set, np.frombuffer(peer.address, "u1"))
            self.put("peers", key, (int(peer.allowed),))
        for port in policy.ports:
            peer_set = first + port.peer_set if port.peer_set else 0
            self.put(
                "rules",
                (48 + port.bits, first, port.direction, port.protocol, port.port),
                (peer_set, port.rule),
            )
        return first

    def assign(self, cgroup: int, policy: int, compiled: CompiledPolicy | None) -> None:
        """Point a pod at a policy that was written, in one step; None for no policy."""
        self.put("pods", cgroup, pod_entry(policy, compiled))

    def expect(self, wanted: Mapping[str, PodEntry]) -> bool:
        """Let each pod, by its UID, have its entry from the making of its cgroup on; no others.

        Whether that changed anything. Then no program still goes by the entries before.
        """
        keys, values = self.read("expected")
        now = {bytes(k["text"]).decode(): v.tolist() for k, v in zip(keys, values, strict=True)}
        changed = {uid: entry for uid, entry in wanted.items() if now.get(uid) != entry}
        gone = now.keys() - wanted.keys()
        for uid in sorted(gone):
            self.remove("expected", _uid(uid))
        for uid, entry in changed.items():
            self.put("expected", _uid(uid), entry)
        if changed or gone:
            libbpf.wait_for_programs()
        return bool(changed or gone)

    def close_to_unknown(self, closed: bool) -> bool:
        """Whether a new pod that is not expected is denied until it is known. True: a change."""
        with self.alone():
            if self.config()["closed"] == closed:
                return False
            self.configure(closed=int(closed))
        libbpf.wait_for_programs()
        return True

    def let_pass(self, uid: str) -> bool:
        """Take the mark ``unknown`` from the pod ``uid``: an agent's own, known through itself."""
        for cgroup, name in self.pod_names().items():
            if pod_uid(name) == uid and (now := self.get("pods", cgroup)) and now["unknown"]:
                self.assign(cgroup, 0, None)
                self.rejudge()
                return True
        return False

    def rejudge(self) -> None:
        """Make every cached verdict void, and wait until no program still uses an old policy."""
        with self.alone():
            self.configure(generation=self.config()["generation"] + 1)
        libbpf.wait_for_programs()

    def remove_policies(self, kept: Iterable[tuple[int, int]]) -> None:
        """Delete the entries of every policy but ``kept``, given as (id, number of rules)."""
        kept = list(kept)
        policies = {policy for policy, _ in kept}
        sets = {policy + n for policy, rules in kept for n in range(1, rules + 1)}
        for name, field, wanted in (("rules", "policy", policies), ("peers", "peer_set", sets)):
            keys, _ = self.read(name)
            stale = keys[~np.isin(keys[field], list(wanted))] if keys.size else keys
            libbpf.clear(self.fd(name), stale.tobytes(), MAPS[name].key.itemsize)


def pod_entry(policy: int, compiled: CompiledPolicy | None) -> PodEntry:
    """What stands in ``pods`` for a pod under ``compiled``, written under the id ``policy``."""
    if compiled is None:
        return (0, 0, 0, 0, 0)
    return (policy, int(compiled.mode), int(compiled.established), int(compiled.restricted), 0)


def _uid(text: str) -> bytes:
    return text.encode().ljust(layout.UID.itemsize, b"\0")
