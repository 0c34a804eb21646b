"""Where this node's kubepods cgroup is, as this process sees the file system. Loads nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from portforge.apply import cgroups
from portforge.errors import HostError

__all__ = ["find_kubepods", "level_by_path", "unified_cgroups"]

MOUNTINFO = Path("/proc/self/mountinfo")
USUAL = (
    "kubepods",
    "kubepods.slice",
    "kubelet/kubepods",
    "kubelet.slice/kubelet-kubepods.slice",
)
# kubelet --cgroup-root makes prefixes; kubepods-burstable and the like are one further down.
_KUBEPODS = re.compile(r"(?:[\w-]+-)?kubepods(?:\.slice)?")


def _mounts(mountinfo: Path) -> list[Path]:
    """Every place where cgroup v2 is mounted (proc(5): spaces are written as \\040)."""
    found = []
    for line in mountinfo.read_text().splitlines():
        before, after = line.split(" - ", 1)
        if after.startswith("cgroup2 "):
            place = re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), before.split()[4])
            found.append(Path(place))
    return found


def unified_cgroups(mountinfo: Path = MOUNTINFO, root: Path | None = None) -> Path:
    """Where cgroup v2 is mounted; with ``root``: there, or below it on a hybrid host.

    A container has its own at ``/sys/fs/cgroup`` and may have the host's elsewhere.

    Raises
    ------
    HostError: nowhere.
    """
    for place in sorted(_mounts(mountinfo), key=lambda p: len(p.parts)) if root else ():
        if place.is_relative_to(root or "/"):
            return place
    if root:
        raise HostError(
            "cgroup v2 is not mounted there",
            place=str(root),
            remedy="mount the host's /sys/fs/cgroup there, with what is mounted below it",
        )
    for place in _mounts(mountinfo):
        return place
    raise HostError(
        "cgroup v2 is not mounted",
        place=str(mountinfo),
        remedy="boot with systemd.unified_cgroup_hierarchy=1, or mount it",
    )


def find_kubepods(
    root: Path | None = None, pod_uid: str | None = None, mountinfo: Path = MOUNTINFO
) -> Path:
    """This node's kubepods cgroup.

    Parameters
    ----------
    root: the host's cgroup mount as this process sees it.
    pod_uid: of the pod this process is in. Its kubepods is taken, wherever it lies: several
        nodes may share a machine. Without it, where the kubelet usually makes it.

    Raises
    ------
    HostError: there is none, or more than one.
    """
    mount = unified_cgroups(mountinfo, root)
    if pod_uid is not None:
        found = sorted(_kubepods_of(mount, pod_uid))
        remedy = f"mount the host's cgroups, and check that the pod's UID is {pod_uid}"
    else:
        found = [mount / name for name in USUAL if (mount / name).is_dir()]
        remedy = "name this node's with --kubepods"
    if len(found) != 1:
        raise HostError(
            f"{'no' if not found else 'more than one'} kubepods cgroup"
            + (" with this pod" if pod_uid is not None else ""),
            place=str(mount),
            remedy=remedy,
        )
    return found[0]


def _kubepods_of(mount: Path, pod_uid: str) -> set[Path]:
    """The kubepods above each cgroup of the pod ``pod_uid``."""
    found = set()
    for pod in _pods(mount):
        if cgroups.pod_uid(pod.name) == pod_uid:
            for above in pod.parents:
                if above.is_relative_to(mount) and _KUBEPODS.fullmatch(above.name):
                    found.add(above)
                    break
    return found


def _pods(folder: Path) -> Iterator[Path]:
    """Every cgroup of a pod below ``folder``, also those of nodes inside a pod."""
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                path = Path(entry.path)
                if cgroups.pod_uid(path.name):
                    yield path
                yield from _pods(path)


def level_by_path(cgroup: Path, mountinfo: Path = MOUNTINFO) -> int:
    """How deep ``cgroup`` lies below where cgroup v2 is mounted; less than the kernel's level
    inside a cgroup namespace.

    Raises
    ------
    HostError: it is not in a cgroup v2.
    """
    above = [m for m in _mounts(mountinfo) if cgroup.is_relative_to(m)]
    if not above:
        raise HostError(
            "not a cgroup v2", place=str(cgroup), remedy="give the kubelet's kubepods cgroup"
        )
    return len(cgroup.relative_to(max(above, key=lambda m: len(m.parts))).parts)
