"""Where kubepods is and how deep, seen from a container: namespaces hide the levels above."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from portforge.apply.node import NodeMaps
from portforge.demo import cgroups
from portforge.errors import HostError
from portforge_recorder.kubepods import find_kubepods, level_by_path, unified_cgroups
from portforge_recorder.load import remove, versions

UID = "0f8fad5b-d9cb-469f-a165-70867728950e"
OTHER = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
# A process in <root> with a cgroup namespace and a mount of its own, as in a container of kind.
INSIDE = """
import json, sys
from pathlib import Path
from portforge_recorder.load import load, level_by_path
kubepods = Path(sys.argv[2]) / "kubepods"
folder = load(sys.argv[1], kubepods)
print(json.dumps([str(folder), level_by_path(kubepods)]))
"""


@pytest.fixture
def root() -> Iterator[Path]:
    """An empty cgroup, two levels below the root."""
    top = cgroups.mount_point() / f"portforge-nested-{os.getpid()}"
    (top / "node").mkdir(parents=True)
    yield top / "node"
    cgroups.destroy(top)


def test_the_kernel_says_how_deep_kubepods_is(root: Path, tmp_path: Path) -> None:
    kubepods = root / "kubepods"
    kubepods.mkdir()
    name = f"nested-{os.getpid()}"
    script = (
        f"echo $$ > {root}/cgroup.procs && exec unshare --cgroup --mount sh -c '"
        f'mount -t cgroup2 none "$1" && exec "$2" -c "$3" "$4" "$1"'
        '\' sh "$@"'
    )
    try:
        said = subprocess.check_output(
            ["sh", "-c", script, "sh", str(tmp_path), sys.executable, INSIDE, name], text=True
        )
        folder, by_path = json.loads(said)
        with NodeMaps(Path(folder)) as maps:
            level = maps.config()["kubepods_level"]
            assert (level, by_path) == (level_by_path(kubepods), 1) == (3, 1)
            pod = kubepods / "burstable" / f"pod{UID}"
            pod.mkdir(parents=True)
            assert maps.pod_names() == {pod.stat().st_ino: pod.name}
            assert list(kubepods.iterdir()) != []
            assert not [c for c in kubepods.iterdir() if c.name.startswith("portforge")]
    finally:
        for pins in versions(name):
            remove(pins)


def test_without_write_access_the_path_says_how_deep(root: Path, tmp_path: Path) -> None:
    name = f"nested-ro-{os.getpid()}"
    (root / "kubepods").mkdir()
    script = 'mount -t cgroup2 none "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'
    inside = tmp_path / root.relative_to(cgroups.mount_point())
    try:
        loading = (sys.executable, "-c", INSIDE, name, str(inside))
        said = subprocess.check_output(
            ["unshare", "--mount", "sh", "-c", script, "sh", str(tmp_path), *loading], text=True
        )
        folder, by_path = json.loads(said)
        with NodeMaps(Path(folder)) as maps:
            assert maps.config()["kubepods_level"] == by_path == 3
    finally:
        for pins in versions(name):
            remove(pins)


@pytest.mark.parametrize(
    ("pod", "kubepods"),
    [
        (f"kubepods/pod{UID}", "kubepods"),
        (f"kubelet/kubepods/burstable/pod{UID}", "kubelet/kubepods"),
        (
            "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/"
            f"kubelet-kubepods-besteffort-pod{UID.replace('-', '_')}.slice",
            "kubelet.slice/kubelet-kubepods.slice",
        ),
        (f"kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice", "kubepods.slice"),
    ],
)
def test_the_node_of_a_pod_is_found_among_several(root: Path, pod: str, kubepods: str) -> None:
    (root / "one" / pod / "container").mkdir(parents=True)
    (root / "two" / pod.replace(UID, OTHER).replace(UID.replace("-", "_"), OTHER)).mkdir(
        parents=True
    )
    mount = cgroups.mount_point()
    assert find_kubepods(mount, UID) == root / "one" / kubepods
    assert find_kubepods(pod_uid=UID) == root / "one" / kubepods
    # On a hybrid host the folder above is what a container gets.
    assert find_kubepods(mount.parent, UID) == root / "one" / kubepods
    with pytest.raises(HostError, match="no kubepods cgroup with this pod"):
        find_kubepods(mount, UID.replace("0", "1"))


def test_of_two_mounts_the_one_asked_for_is_taken(tmp_path: Path) -> None:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(
        "30 24 0:26 /../../.. /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n"
        "41 24 0:30 / /host/cgroup rw - tmpfs tmpfs rw\n"
        "42 41 0:26 / /host/cgroup/unified rw - cgroup2 cgroup2 rw\n"
        "43 24 0:26 / /host/other\\040one rw - cgroup2 cgroup2 rw\n"
    )
    assert unified_cgroups(mountinfo) == Path("/sys/fs/cgroup")
    assert unified_cgroups(mountinfo, Path("/host/cgroup")) == Path("/host/cgroup/unified")
    assert unified_cgroups(mountinfo, Path("/host/other one")) == Path("/host/other one")
    assert level_by_path(Path("/host/cgroup/unified/a/kubepods"), mountinfo) == 2
    with pytest.raises(HostError, match="not mounted there"):
        unified_cgroups(mountinfo, Path("/host/nothing"))
    with pytest.raises(HostError, match="not a cgroup v2"):
        level_by_path(Path("/host/cgroup/kubepods"), mountinfo)
