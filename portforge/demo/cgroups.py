"""The cgroup v2 tree of a node, laid out as the kubelet lays it out. No networks, no processes.

Layouts: https://kubernetes.io/docs/concepts/architecture/cgroups/ and, for the names,
kubernetes/pkg/kubelet/cm/cgroup_manager_linux.go (``libcontainer`` escapes ``-`` to ``_``).
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Literal

from portforge.errors import HostError

__all__ = ["Driver", "Qos", "Runtime", "container_path", "destroy", "mount_point", "pod_path"]

Driver = Literal["cgroupfs", "systemd"]
Runtime = Literal["containerd", "crio"]
Qos = Literal["guaranteed", "burstable", "besteffort"]


def mount_point(mountinfo: Path = Path("/proc/self/mountinfo")) -> Path:
    """Where cgroup v2 is mounted: ``/sys/fs/cgroup``, on hybrid hosts ``…/unified``.

    Raises
    ------
    HostError: no cgroup v2 is mounted.
    """
    for line in mountinfo.read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.split()[0] == "cgroup2":
            return Path(before.split()[4])
    raise HostError(
        "no cgroup v2 is mounted",
        place=str(mountinfo),
        remedy="mount it: mount -t cgroup2 none /sys/fs/cgroup",
    )


def kubepods(driver: Driver) -> str:
    """Name of the cgroup that holds all pods of a node."""
    return "kubepods" if driver == "cgroupfs" else "kubepods.slice"


def pod_path(driver: Driver, qos: Qos, uid: str) -> Path:
    """A pod's cgroup, below the node's root.

    >>> str(pod_path("cgroupfs", "burstable", "1f0c-2"))
    'kubepods/burstable/pod1f0c-2'
    >>> str(pod_path("systemd", "burstable", "1f0c-2"))
    'kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1f0c_2.slice'
    >>> str(pod_path("systemd", "guaranteed", "1f0c-2"))
    'kubepods.slice/kubepods-pod1f0c_2.slice'
    """
    top = Path(kubepods(driver))
    if driver == "cgroupfs":
        return (top if qos == "guaranteed" else top / qos) / f"pod{uid}"
    escaped = uid.replace("-", "_")
    if qos == "guaranteed":
        return top / f"kubepods-pod{escaped}.slice"
    return top / f"kubepods-{qos}.slice" / f"kubepods-{qos}-pod{escaped}.slice"


def container_path(driver: Driver, runtime: Runtime, pod: Path, container: str) -> Path:
    """A container's cgroup inside its pod's.

    >>> container_path("systemd", "containerd", Path("p"), "ab").name
    'cri-containerd-ab.scope'
    >>> container_path("cgroupfs", "crio", Path("p"), "ab").name
    'crio-ab'
    """
    if driver == "systemd":
        prefix = "cri-containerd" if runtime == "containerd" else "crio"
        return pod / f"{prefix}-{container}.scope"
    return pod / (container if runtime == "containerd" else f"crio-{container}")


def destroy(cgroup: Path, seconds: float = 10.0) -> None:
    """Kill every process at and below ``cgroup`` and remove the tree; no error when absent."""
    if not cgroup.is_dir():
        return
    until = time.monotonic() + seconds
    while True:
        # Kill in the loop: a process may be just about to enter. Deepest directories first.
        with suppress(FileNotFoundError):
            (cgroup / "cgroup.kill").write_text("1")
        try:
            for directory in sorted((d for d in cgroup.rglob("*") if d.is_dir()), reverse=True):
                directory.rmdir()
            cgroup.rmdir()
        except FileNotFoundError:
            if not cgroup.is_dir():
                return
        except OSError as busy:
            if time.monotonic() > until:
                raise HostError(
                    f"could not be removed: {busy.strerror}",
                    place=str(cgroup),
                    remedy="see cgroup.procs below it",
                ) from busy
            time.sleep(0.005)
        else:
            return
