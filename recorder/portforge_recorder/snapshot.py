"""What was there before the programs: pods, their network namespaces, their listeners.

Reads cgroupfs, /proc and sock_diag. Connections that were open are met by their next packet
(bpf/tcp.h); to know who opened them, the kernel needs the listeners from here.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple, TypeVar

from pyroute2 import DiagSocket

from portforge.apply.cgroups import pod_uid
from portforge.apply.node import NodeMaps
from portforge.errors import HostError

__all__ = ["Snapshot", "register"]

_CLONE_NEWNET = 0x40000000
_SO_NETNS_COOKIE = 71
_TCP_LISTEN, _UDP_UNCONNECTED = 1 << 10, 1 << 7
_Result = TypeVar("_Result")


class _Listener(NamedTuple):
    cgroup: int
    port: int
    protocol: int
    loopback: bool


class Snapshot(NamedTuple):
    """How much was found. ``problem``: what did not fit into the kernel's maps."""

    pods: int
    namespaces: int
    listeners: int
    problem: HostError | None = None


def _pods(kubepods: Path) -> Iterator[Path]:
    """Pod cgroups, one or two levels below kubepods."""
    for child in sorted(kubepods.iterdir()):
        if not child.is_dir():
            continue
        if pod_uid(child.name):
            yield child
        else:
            yield from (g for g in sorted(child.iterdir()) if g.is_dir() and pod_uid(g.name))


def _processes(pod: Path) -> Iterator[int]:
    for procs in pod.rglob("cgroup.procs"):
        with suppress(OSError):
            yield from map(int, procs.read_text().split())


def _inside(namespace: Path, ask: Callable[[], _Result]) -> _Result | None:
    """``ask`` in another network namespace: in a thread of its own, which then ends."""
    answer: list[_Result] = []

    def enter() -> None:
        try:
            fd = os.open(namespace, os.O_RDONLY)
        except OSError:
            return  # the process ended meanwhile
        try:
            if ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET) == 0:
                answer.append(ask())
        finally:
            os.close(fd)

    thread = Thread(target=enter)
    thread.start()
    thread.join()
    return answer[0] if answer else None


def _cookie() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        raw = s.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
    return int(struct.unpack("Q", raw)[0])


def _ephemeral() -> range:
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    return range(first, last + 1)


def _sockets() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    with DiagSocket() as diag:
        diag.bind()
        for family in (socket.AF_INET, socket.AF_INET6):
            for protocol, states in (
                (socket.IPPROTO_TCP, _TCP_LISTEN),
                (socket.IPPROTO_UDP, _UDP_UNCONNECTED),
            ):
                for answer in diag.get_sock_stats(family=family, protocol=protocol, states=states):
                    found.append(
                        {
                            "protocol": protocol,
                            "port": int(answer["idiag_sport"]),
                            "address": answer["idiag_src"],
                            "cgroup": answer.get_attr("INET_DIAG_CGROUP_ID"),
                        }
                    )
    return found


def _listeners(owners: dict[int, int]) -> set[_Listener]:
    """Listeners of the present namespace that belong to a pod of ours.

    A UDP socket on a port the kernel picks from is taken for a client: sock_diag does not say.
    """
    ephemeral = _ephemeral()
    return {
        _Listener(
            owners[s["cgroup"]],
            s["port"],
            s["protocol"],
            str(s["address"]).startswith("127.") or s["address"] == "::1",
        )
        for s in _sockets()
        if s["cgroup"] in owners
        and s["port"]
        and not (s["protocol"] == socket.IPPROTO_UDP and s["port"] in ephemeral)
    }


def register(maps: NodeMaps, kubepods: Path) -> Snapshot:
    """Tell the kernel of pods, namespaces and listeners that it did not see begin.

    Also called from time to time: listeners that were there before end unseen.
    """
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    owners: dict[int, int] = {}
    namespaces: dict[int, tuple[Path, int]] = {}
    pods = 0
    full: list[HostError] = []

    def put(name: str, key: object, value: object, new: bool = False) -> None:
        """What finds no room stays unregistered; the rest, and ``ready``, must not wait for it."""
        try:
            (maps.put_new if new else maps.put)(name, key, value)
        except HostError as problem:
            full.append(problem)

    # The recorder runs in its node's own namespace: what happens there belongs to no pod, not even
    # to one that shares it.
    host = Path("/proc/self/ns/net").stat().st_ino
    put("namespaces", _cookie(), 0)
    for pod in _pods(kubepods):
        with suppress(FileNotFoundError):
            cgroup = pod.stat().st_ino
            if maps.get("pods", cgroup) is None:
                # The kernel may register it at this very moment, and it knows the policy.
                put("pods", cgroup, (0, 0, 0, 0, 0), new=True)
                put("pod_names", cgroup, (pod.name.encode(), 0, 0), new=True)
            pods += 1
            owners[cgroup] = cgroup
            owners |= {g.stat().st_ino: cgroup for g in pod.rglob("*") if g.is_dir()}
            for pid in _processes(pod):
                with suppress(OSError):
                    place = Path(f"/proc/{pid}/ns/net")
                    namespaces.setdefault(place.stat().st_ino, (place, cgroup))
    found: set[_Listener] = set()
    for number, (place, cgroup) in namespaces.items():
        cookie = _inside(place, _cookie)
        if cookie is not None:
            put("namespaces", cookie, 0 if number == host else cgroup)
        found |= _inside(place, lambda: _listeners(owners)) or set()
    _write_listeners(maps, put, found, now)
    with maps.alone():
        config = maps.config()
        if not config["ready"]:
            maps.configure(ready=1, generation=config["generation"] + 1)
    return Snapshot(pods, len(namespaces), len(found), full[0] if full else None)


def _write_listeners(
    maps: NodeMaps, put: Callable[[str, object, object], None], found: set[_Listener], now: int
) -> None:
    keys, values = maps.read("listeners")
    known = {
        _Listener(int(k["cgroup"]), int(k["port"]), int(k["protocol"]), bool(k["scope"])): v
        for k, v in zip(keys, values, strict=True)
    }
    for one in found - set(known):
        put("listeners", (one.cgroup, one.port, one.protocol, one.loopback, 0), (0, 1, now))
    for one, value in known.items():
        if value["snapshot"] and not value["live"] and one not in found:
            maps.remove("listeners", (one.cgroup, one.port, one.protocol, one.loopback, 0))
