"""The pod behind a cgroup's name, as the kubelet writes it. Does not walk the file system."""

from __future__ import annotations

import re

__all__ = ["UID", "pod_uid"]

UID = r"[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32}"
# kubelet, pkg/kubelet/cm: "pod<uid>" below the QoS cgroup; the systemd driver repeats the
# parents' names, writes _ for - inside a name and adds ".slice". Static pods from a file have
# an MD5 sum for a UID.
_POD_CGROUP = re.compile(
    rf"(?:[\w-]*kubepods(?:-burstable|-besteffort)?-)?pod(?P<uid>{UID})(?:\.slice)?"
)


def pod_uid(cgroup: str) -> str | None:
    """The UID of the pod a cgroup belongs to, or None when its name does not say.

    Parameters
    ----------
    cgroup: path below the node's own kubepods cgroup, or the pod cgroup's name alone. In a
        path the outermost pod counts: what a container makes further down is its own affair.

    >>> pod_uid("kubepods/burstable/pod0f8fad5b-d9cb-469f-a165-70867728950e/4c1e")
    '0f8fad5b-d9cb-469f-a165-70867728950e'
    >>> pod_uid("kubepods-burstable-pod0f8fad5b_d9cb_469f_a165_70867728950e.slice")
    '0f8fad5b-d9cb-469f-a165-70867728950e'
    >>> pod_uid("system.slice/ssh.service") is None
    True
    """
    # Split at ":" too: a runtime whose driver is not the kubelet's makes one directory called
    # "kubepods-pod<uid>.slice:cri-containerd:<id>".
    for component in re.split("[/:]", cgroup):
        found = _POD_CGROUP.fullmatch(component)
        if found:
            return found["uid"].replace("_", "-")
    return None
