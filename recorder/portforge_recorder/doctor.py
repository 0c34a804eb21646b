"""What this host can do, tried rather than guessed. Leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from portforge.apply.btf import KernelTypes
from portforge.errors import PortforgeError
from portforge_recorder import load

__all__ = ["Check", "examine"]


@dataclass(frozen=True)
class Check:
    """One question put to the host. ``needed_for`` says what does not work without it."""

    name: str
    good: bool
    answer: str
    needed_for: str = "record, apply"


def _root() -> str:
    if os.geteuid():
        raise PortforgeError("not root", remedy="run with sudo")
    return "root"


def _btf() -> str:
    KernelTypes().enum("skb_drop_reason", "SKB_DROP_REASON_NO_SOCKET")
    return f"kernel {os.uname().release} with type information"


def _bcc() -> str:
    done = subprocess.run(
        [load.SYSTEM_PYTHON, "-c", "import bcc; print(bcc.__version__)"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise PortforgeError("bcc cannot be imported", remedy="install python3-bpfcc")
    return f"bcc {done.stdout.strip()}"


def _loads() -> str:
    """The proof: compile, load, attach to an empty cgroup, detach."""
    name = f"doctor-{os.getpid()}"
    cgroup = load.unified_cgroups() / f"portforge-{name}"
    cgroup.mkdir()
    try:
        load.load(name, cgroup)
        return f"{len(load.CGROUP_PROGRAMS) + len(load.TRACEPOINTS)} programs attached and removed"
    finally:
        for pins in load.versions(name):
            load.remove(pins)
        cgroup.rmdir()


def _kubepods() -> str:
    return str(load.find_kubepods())


_CHECKS: tuple[tuple[str, Callable[[], object], str], ...] = (
    ("permission", _root, "record, apply"),
    ("kernel", _btf, "record, apply"),
    ("cgroup v2", load.unified_cgroups, "record, apply"),
    ("kernel headers", lambda: load.headers()[0].name, "record"),
    ("bcc", _bcc, "record"),
    ("BPF programs", _loads, "record, apply"),
    ("kubepods cgroup", _kubepods, "record without --kubepods"),
)


def examine() -> Iterator[Check]:
    """Each check as it is made."""
    for name, ask, purpose in _CHECKS:
        try:
            yield Check(name, True, str(ask()), purpose)
        except (PortforgeError, OSError) as problem:
            yield Check(name, False, str(problem), purpose)


def leftovers() -> list[Path]:
    """Nodes with pins under the bpffs."""
    home = load.BPFFS / "portforge"
    return sorted(home.iterdir()) if home.exists() else []
