"""Whose node is alive, and removing the nodes of runs that are not. Makes nothing.

A node's name is locked by the process it belongs to; a lock that can be taken has no owner.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from portforge.demo import cgroups
from portforge.demo.machine import tool
from portforge.errors import HostError

__all__ = ["LOCKS", "NAMESPACES", "PREFIX", "destroy", "lock", "sweep", "uninterrupted"]

PREFIX = "pf-"
LOCKS = Path("/run/portforge-demo")
NAMESPACES = Path("/run/netns")


def sweep() -> list[str]:
    """Remove the nodes of runs that ended without cleaning up; their ids."""
    with suppress(HostError):
        names = {p.name for p in cgroups.mount_point().glob(f"{PREFIX}*")}
        names |= {"-".join(p.name.split("-")[:3]) for p in NAMESPACES.glob(f"{PREFIX}*")}
        names |= {p.name for p in LOCKS.glob(f"{PREFIX}*")}
        swept = []
        for name in sorted(names):
            descriptor = lock(name)
            if descriptor is None:
                continue
            with uninterrupted():
                destroy(name)
                (LOCKS / name).unlink(missing_ok=True)
                os.close(descriptor)
            swept.append(name)
        return swept
    return []


def lock(name: str) -> int | None:
    """Hold the node ``name`` for this process; None where a living process holds it."""
    LOCKS.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(LOCKS / name, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def destroy(name: str) -> None:
    cgroups.destroy(cgroups.mount_point() / name)
    for network in sorted(NAMESPACES.glob(f"{name}-*")):
        tool("ip", "netns", "delete", network.name)
    shutil.rmtree(Path(tempfile.gettempdir()) / name, ignore_errors=True)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits: a cleanup that is interrupted leaves what nobody will remove."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
