"""Pods by their cgroup's name, and the inventory read from a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from portforge.apply.cgroups import pod_uid
from portforge.errors import PortforgeError
from portforge.schema import PeerKind, Workload
from portforge_recorder.identity import StaticSource

UID = "0f8fad5b-d9cb-469f-a165-70867728950e"
UNDER = UID.replace("-", "_")
STATIC = "7f3c1a9e5b2d4f60812a3b4c5d6e7f80"


@pytest.mark.parametrize(
    ("cgroup", "uid"),
    [
        (f"kubepods/burstable/pod{UID}/4c1e", UID),
        (f"/kubepods/besteffort/pod{UID}", UID),
        (f"kubepods/pod{UID}/crio-4c1e", UID),
        (f"pod{UID}", UID),
        (f"kubepods-burstable-pod{UNDER}.slice", UID),
        (f"kubepods-pod{UNDER}.slice", UID),
        (
            f"kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UNDER}.slice/cri-containerd-4c.scope",
            UID,
        ),
        (f"kubepods.slice/kubepods-pod{UNDER}.slice/crio-4c1e.scope", UID),
        (
            f"kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable-pod{UNDER}.slice/x",
            UID,
        ),
        (f"node-a/kubepods/burstable/pod{UID}/4c1e", UID),
        (f"kubepods/burstable/pod{STATIC}/4c1e", STATIC),
        (f"kubepods-burstable-pod{STATIC}.slice", STATIC),
        (
            f"system.slice/containerd.service/kubepods-burstable-pod{UNDER}.slice:cri-containerd:4c",
            UID,
        ),
        # a container that gives a cgroup of its own the name of another pod stays what it is
        (f"burstable/pod{UID}/4c1e/pod{STATIC}", UID),
        ("cri-containerd-4c1e.scope", None),
        ("kubepods-burstable.slice", None),
        ("kubepods/burstable/podcast", None),
        (f"mypod{UID}", None),
        (f"pod{UID[:-1]}", None),
        (f"user.slice/user-1000-pod{UNDER}.slice", None),
        ("", None),
    ],
)
def test_pod_uid(cgroup: str, uid: str | None) -> None:
    assert pod_uid(cgroup) == uid


GOOD = f"""\
cluster: demo
node: node-a
nodes: [{{name: node-a, addresses: [10.77.0.1, "FD77:0::1"]}}]
cidrs: [10.77.0.0/24, fd77::/64, 10.96.0.0/16]
pods:
- {{uid: {UID}, namespace: shop, name: web-abc, workload: {{kind: Deployment, name: web}},
   node: node-a, addresses: ["::ffff:10.77.0.11", "fd77::11"], hostNetwork: false}}
- {{uid: "{STATIC}", namespace: shop, name: alone, node: node-a}}
services:
- {{namespace: shop, name: redis, addresses: [10.96.0.5],
   ports: [{{protocol: TCP, port: 6379, targetPort: 16379}}],
   workload: {{kind: StatefulSet, name: redis}}}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "inventory.yaml"
    path.write_text(GOOD)
    return path


def test_reads_the_inventory(file: Path) -> None:
    inventory = StaticSource(file).inventory()
    assert (inventory.cluster, inventory.node) == ("demo", "node-a")
    assert inventory.pods[0].workload == Workload("shop", "Deployment", "web")
    assert inventory.pods[0].addresses == ("10.77.0.11", "fd77::11")
    assert inventory.pods[1].workload == Workload("shop", "Pod", "alone")
    assert inventory.peer("fd77::1").kind is PeerKind.NODE
    assert inventory.peer("10.96.0.5").workload == "redis"
    assert inventory.target_port("10.96.0.5", "TCP", 6379) == 16379


def test_reads_again_only_what_changed(file: Path) -> None:
    source = StaticSource(file)
    first = source.inventory()
    assert source.inventory() is first
    file.write_text(GOOD.replace("web-abc", "web-xyz"))
    os.utime(file, ns=(1, 1))
    assert source.inventory().pods[0].name == "web-xyz"


@pytest.mark.parametrize(
    ("change", "place", "problem"),
    [
        (("cluster: demo", "cluster: ''"), "cluster", "at least 1 character"),
        (("cluster: demo", "colour: red\ncluster: demo"), "colour", "Extra inputs"),
        ((f"uid: {UID}", "uid: nonsense"), "pods[0].uid", "36 characters"),
        ((f'"{STATIC}"', "12345678901234567890123456789012"), "pods[1].uid", "valid string"),
        (("port: 6379,", "port: 70000,"), "services[0].ports[0].port", "65535"),
        (("10.96.0.5]", "10.96.0.555]"), "services[0].addresses[0]", "10.96.0.555"),
        (("10.77.0.0/24", "10.77.0.1/24"), "cidrs[0]", "host bits"),
        (("node: node-a\nnodes", "node: node-z\nnodes"), "node", "not among the nodes"),
        ((f'"{STATIC}"', UID), "pods", "two pods have the UID"),
        (
            ("name: alone,", 'name: alone, addresses: ["fd77::11"],'),
            "pods",
            "two pods have the address",
        ),
        (("pods:\n", "pods: [\n"), ":", "not YAML"),
    ],
)
def test_names_file_and_field(
    file: Path, change: tuple[str, str], place: str, problem: str
) -> None:
    file.write_text(GOOD.replace(*change))
    with pytest.raises(PortforgeError) as caught:
        StaticSource(file).inventory()
    assert caught.value.place.startswith(str(file))
    assert caught.value.place.removeprefix(str(file)).lstrip(": ").startswith(place.lstrip(":"))
    assert problem in caught.value.problem
    assert caught.value.remedy


@pytest.mark.parametrize("content", ["", "[]", "text", "cluster: demo\ncluster: demo\n"])
def test_refuses_what_is_no_inventory(file: Path, content: str) -> None:
    file.write_text(content)
    with pytest.raises(PortforgeError, match=r"inventory\.yaml"):
        StaticSource(file).inventory()


def test_missing_or_binary_file(tmp_path: Path) -> None:
    with pytest.raises(PortforgeError, match="No such file"):
        StaticSource(tmp_path / "none.yaml").inventory()
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PortforgeError, match="UTF-8"):
        StaticSource(tmp_path / "binary.yaml").inventory()


@pytest.mark.parametrize("content", ["cluster: 2026-99-99\n", "cluster: !!int abc\n", "[" * 3000])
def test_what_the_yaml_reader_itself_trips_over(file: Path, content: str) -> None:
    file.write_text(content)
    with pytest.raises(PortforgeError, match=r"inventory\.yaml: not YAML"):
        StaticSource(file).inventory()
