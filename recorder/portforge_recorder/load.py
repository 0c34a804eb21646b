"""Bring the programs into the kernel: compile through the loader, attach links, pin. Or adopt.

What is pinned outlives the recorder. A recorder that starts finds the same version and adopts it;
another version is loaded beside it and the old one removed once the new one enforces.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from portforge.apply import libbpf
from portforge.apply.btf import KernelTypes
from portforge.apply.layout import LEVEL_UNKNOWN, MAPS, PRIVATE, RINGS
from portforge.apply.node import BPFFS, NodeMaps, pin_home
from portforge.errors import HostError
from portforge_recorder.kubepods import find_kubepods, level_by_path, unified_cgroups

__all__ = [
    "BPFFS",
    "Sizes",
    "detach",
    "find_kubepods",
    "headers",
    "load",
    "remove",
    "unified_cgroups",
    "versions",
]

SYSTEM_PYTHON = "/usr/bin/python3"
SOURCES = (
    "layout.h",
    "maps.h",
    "record.h",
    "judge.h",
    "sockets.h",
    "packet.h",
    "tcp.h",
    "answers.h",
    "datagrams.h",
    "kernel.h",
    "portforge.c",
)
# Numbers of include/uapi/linux/bpf.h: program type, attach type.
_SKB, _SOCK, _SOCK_OPS, _RAW_TRACEPOINT, _SOCK_ADDR = 8, 9, 13, 17, 18
CGROUP_PROGRAMS = {
    "on_ingress": (_SKB, 0),
    "on_egress": (_SKB, 1),
    "on_create": (_SOCK, 2),
    "follow_tcp": (_SOCK_OPS, 3),
    "on_bind4": (_SOCK_ADDR, 8),
    "on_bind6": (_SOCK_ADDR, 9),
    "on_connect4": (_SOCK_ADDR, 10),
    "on_connect6": (_SOCK_ADDR, 11),
    "on_bound4": (_SOCK, 12),
    "on_bound6": (_SOCK, 13),
    "on_release": (_SOCK, 34),
}
TRACEPOINTS = {
    "on_cgroup_mkdir": "cgroup_mkdir",
    "on_cgroup_rmdir": "cgroup_rmdir",
    "on_no_socket": "kfree_skb",
}
_PROBE = "portforge-level"
# on_egress last: who finds its link finds all.
ATTACH_ORDER = (*(p for p in CGROUP_PROGRAMS if p != "on_egress"), "on_egress")


@dataclass(frozen=True)
class Sizes:
    """How many entries each map holds; 96 bytes a flow, so the defaults take about 30 MB."""

    flows: int = 65536
    ports: int = 8192
    pods: int = 4096
    addresses: int = 16384
    listeners: int = 8192
    rules: int = 65536
    peers: int = 262144
    conversations: int = 65536
    answer_pages: int = 128
    """Of 4 KiB, a power of two: some 2,500 DNS answers that nobody has read yet."""
    same_attempt_ns: int = 120_000_000_000
    """A SYN sent again within this time is the same attempt (RFC 6298: 63 s by default)."""


def sources() -> Path:
    """The folder with the C files: beside the package when installed, in the tree when not."""
    here = Path(__file__).resolve().parent
    for folder in (here / "bpf", here.parent.parent / "bpf"):
        if (folder / SOURCES[0]).exists():
            return folder
    raise HostError("the BPF sources are missing", place=str(here), remedy="install again")


def headers(root: Path = Path("/usr/src")) -> tuple[Path, list[str]]:
    """The packaged kernel headers: the folder for bcc and the flags for what lies elsewhere.

    Raises
    ------
    HostError: no package with headers is installed.
    """
    machine = {"x86_64": "x86", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    for common in sorted(root.glob("linux-headers-*-common"), reverse=True):
        version = common.name.removesuffix("-common")
        for own in sorted(root.glob(f"{version}-*")):
            generated = own / "include" / "generated"
            if own == common or not generated.exists():
                continue
            folders = (
                generated / "uapi",
                own / "include",
                own / "arch" / machine / "include" / "generated",
                own / "arch" / machine / "include" / "generated" / "uapi",
            )
            return common, [f"-I{folder}" for folder in folders]
    raise HostError(
        "no kernel headers to compile against",
        place=str(root),
        remedy="install the package linux-headers-amd64 (any version serves)",
    )


def _offsets() -> dict[str, int]:
    """What the C code asks of this kernel's types."""
    types = KernelTypes()
    return {
        "PF_OFF_CGROUP_LEVEL": types.offset("cgroup", "level"),
        "PF_OFF_CGROUP_ANCESTORS": types.offset("cgroup", "ancestors", "_low_ancestors"),
        "PF_OFF_CGROUP_ROOT": types.offset("cgroup", "root"),
        "PF_OFF_ROOT_HIERARCHY": types.offset("cgroup_root", "hierarchy_id"),
        "PF_OFF_CGROUP_KN": types.offset("cgroup", "kn"),
        "PF_OFF_KN_ID": types.offset("kernfs_node", "id"),
        "PF_OFF_KN_NAME": types.offset("kernfs_node", "name"),
        "PF_OFF_SKB_DEV": types.offset("sk_buff", "dev"),
        "PF_OFF_SKB_HEAD": types.offset("sk_buff", "head"),
        "PF_OFF_SKB_NETWORK": types.offset("sk_buff", "network_header"),
        "PF_OFF_SKB_TRANSPORT": types.offset("sk_buff", "transport_header"),
        "PF_OFF_SKB_PROTOCOL": types.offset("sk_buff", "protocol"),
        "PF_OFF_DEV_NET": types.offset("net_device", "nd_net"),
        "PF_OFF_DEV_IFINDEX": types.offset("net_device", "ifindex"),
        "PF_OFF_NET_COOKIE": types.offset("net", "net_cookie"),
        "PF_NO_SOCKET": types.enum("skb_drop_reason", "SKB_DROP_REASON_NO_SOCKET"),
    }


def versions(node: str) -> list[Path]:
    """Every set of pins of ``node``, complete or not."""
    home = pin_home(node)
    return sorted(home.iterdir()) if home.exists() else []


def detach(folder: Path) -> None:
    """Take the links of a set of pins out of the kernel; what it counted stays readable."""
    for pin in sorted((folder / "links").glob("*")):
        if pin.name in CGROUP_PROGRAMS:
            with libbpf.opened(pin) as link:
                libbpf.detach(link)
        pin.unlink()
    libbpf.wait_for_programs()


def remove(folder: Path) -> None:
    """Take a set of pins out of the kernel: links first, so that nothing is judged by halves."""
    for part in ("links", "programs", "maps"):
        for pin in sorted((folder / part).glob("*")):
            pin.unlink()
        with suppress(FileNotFoundError):
            (folder / part).rmdir()
    folder.rmdir()
    for above in (folder.parent, folder.parent.parent):
        with suppress(OSError):
            above.rmdir()


def _mount_bpffs() -> None:
    if os.path.ismount(BPFFS):
        return
    if os.geteuid():
        raise HostError("loading BPF programs needs root", remedy="run with sudo")
    done = subprocess.run(
        ["mount", "-t", "bpf", "bpf", str(BPFFS)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise HostError(
            f"no bpffs: {done.stderr.strip()}",
            place=str(BPFFS),
            remedy="mount -t bpf bpf /sys/fs/bpf",
        )


def load(
    node: str,
    kubepods: Path,
    sizes: Sizes = Sizes(),
    flush_seconds: float = 10,
    adopt_only: bool = False,
) -> Path:
    """Adopt the pins of ``node`` for the cgroup ``kubepods``, or make them. Gives their folder.

    ``adopt_only``: an agent without a compiler makes none.

    Raises
    ------
    HostError: no root, no BPF, no headers, no bcc: with the reason.
    """
    if os.geteuid():
        raise HostError("loading BPF programs needs root", remedy="run with sudo")
    if not kubepods.is_dir():
        raise HostError(
            "no such cgroup", place=str(kubepods), remedy="give the kubelet's kubepods cgroup"
        )
    _mount_bpffs()
    files = [sources() / name for name in SOURCES]
    defines = {
        f"PF_{k.upper()}": f"{v}ULL" if "_ns" in k else str(v) for k, v in asdict(sizes).items()
    }
    defines |= {k: str(v) for k, v in _offsets().items()}
    identity = kubepods.stat().st_ino
    seed = json.dumps([defines, identity]) + "".join(f.read_text() for f in files)
    folder = pin_home(node) / ("v" + hashlib.sha256(seed.encode()).hexdigest()[:16])
    if (folder / "links" / "on_egress").exists():
        return folder
    if adopt_only:
        raise HostError(
            f"the programs of this version are not loaded for node {node}",
            place=str(folder),
            remedy="its init container did not run to the end: portforge load, and look at its log",
        )
    if folder.exists():
        remove(folder)
    for part in ("maps", "programs", "links"):
        (folder / part).mkdir(parents=True)
    try:
        _compile(files, defines, folder)
        _attach(folder, kubepods, flush_seconds)
    except BaseException:
        remove(folder)
        raise
    return folder


def _compile(files: list[Path], defines: dict[str, str], folder: Path) -> None:
    place, flags = headers()
    request = {
        "sources": [str(f) for f in files],
        "flags": [*flags, *(f"-D{k}={v}" for k, v in defines.items())],
        "headers": str(place),
        "programs": {**CGROUP_PROGRAMS, **dict.fromkeys(TRACEPOINTS, (_RAW_TRACEPOINT, -1))},
        "maps": [*MAPS, *RINGS, *PRIVATE],
        "folder": str(folder),
    }
    loader = Path(__file__).with_name("loader.py")
    python = SYSTEM_PYTHON if Path(SYSTEM_PYTHON).exists() else shutil.which("python3")
    done = subprocess.run(
        [python or sys.executable, str(loader)],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return
    last = next((ln for ln in reversed(done.stderr.splitlines()) if ln.strip()), "no reason given")
    if "No module named 'bcc'" in done.stderr:
        raise HostError("bcc is missing", place=str(python), remedy="install python3-bpfcc")
    raise HostError(f"the BPF programs did not load: {last}", remedy="see: portforge doctor")


def _attach(folder: Path, kubepods: Path, flush_seconds: float) -> None:
    with NodeMaps(folder) as maps:
        maps.put(
            "config",
            0,
            (
                kubepods.stat().st_ino,
                int(flush_seconds * 1e9),
                time.clock_gettime_ns(time.CLOCK_BOOTTIME),
                LEVEL_UNKNOWN,
                1,
                0,
                0,
                # Epochs of programs loaded later are higher: the spool tells them apart by that.
                int(time.time()),
                1,
                0,
                0,
            ),
        )
    for name, tracepoint in TRACEPOINTS.items():
        with libbpf.opened(folder / "programs" / name) as program:
            _pin_link(libbpf.attach_raw_tracepoint(tracepoint, program), folder, name)
    with NodeMaps(folder) as maps:
        _find_level(maps, kubepods)
    cgroup = os.open(kubepods, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in ATTACH_ORDER:
            with libbpf.opened(folder / "programs" / name) as program:
                link = libbpf.attach_cgroup(program, cgroup, CGROUP_PROGRAMS[name][1])
                _pin_link(link, folder, name)
    finally:
        os.close(cgroup)


def _find_level(maps: NodeMaps, kubepods: Path) -> None:
    """Let the kernel say how deep ``kubepods`` lies: a cgroup namespace hides the levels above.

    ``on_cgroup_mkdir`` notes it when a cgroup is made right below.
    """
    probe = kubepods / _PROBE
    # A file system that is read-only, or a probe that a loader left which was killed.
    with suppress(OSError):
        probe.rmdir()
    with suppress(OSError):
        probe.mkdir()
        probe.rmdir()
    if maps.config()["kubepods_level"] == LEVEL_UNKNOWN:
        maps.configure(kubepods_level=level_by_path(kubepods))


def _pin_link(link: int, folder: Path, name: str) -> None:
    try:
        libbpf.pin(link, folder / "links" / name)
    finally:
        os.close(link)
