"""One node: its cgroups, containerd, kubelet and kube-proxy, in its own network namespace."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from localcluster.binaries import BINARIES
from localcluster.control import ControlPlane
from localcluster.network import Network
from localcluster.processes import LocalClusterError, Processes, until

__all__ = ["Node", "unified"]

_CGROUPS = Path("/sys/fs/cgroup")


def _hierarchies() -> list[Path]:
    """Every cgroup hierarchy that is mounted: one with v2, many with v1 or hybrid."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [Path(line.split()[4]) for line in lines if " - cgroup" in line]


@dataclass
class Node:
    """Node ``number`` of ``network``; everything it keeps is below ``folder``."""

    number: int
    network: Network
    plane: ControlPlane
    folder: Path
    proxy_mode: str = "nftables"
    processes: Processes = field(init=False)

    def __post_init__(self) -> None:
        self.name = self.network.node(self.number)
        self.address = self.network.address(self.number)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.processes = Processes(self.folder / "processes")
        # Sockets have short names only: 108 characters.
        self.run = Path("/run/portforge-cluster") / self.name
        self.run.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Start containerd, then the kubelet, then kube-proxy; the node is not Ready yet."""
        self._make_cgroups()
        self.start_containerd()
        self.start_kubelet()
        self.start_proxy()

    def stop(self) -> None:
        """End the node's processes and everything its pods run; remove its cgroups and mounts."""
        for name in ("kube-proxy", "kubelet"):
            self.processes.stop(name)
        self._end_containers()
        self.processes.stop("containerd")
        for mount in _mounts_below(self.folder, self.run):
            subprocess.run(["umount", "-l", mount], check=False, capture_output=True)
        self._remove_cgroups()
        shutil.rmtree(self.run, ignore_errors=True)
        # An agent that was not uninstalled leaves its programs pinned, as it should on a node.
        shutil.rmtree(Path("/sys/fs/bpf/portforge") / self.name, ignore_errors=True)
        for kept in Path("/var/lib/cni/results").glob(f"pods-{self.name}-*"):
            kept.unlink()

    # Parts, each of which can be restarted on its own.

    def start_containerd(self) -> None:
        """Start containerd with a root, a state and a socket of its own."""
        config = self.folder / "containerd.toml"
        config.write_text(
            _CONTAINERD.format(
                root=self.folder / "containerd",
                state=self.run / "containerd",
                socket=self.socket,
                binaries=BINARIES,
                networks=self.folder / "networks",
            )
        )
        (self.folder / "networks").mkdir(exist_ok=True)
        path = f"{BINARIES}:{os.environ.get('PATH', '')}"
        self.processes.start(
            "containerd",
            [*self.network.inside(self.name), BINARIES / "containerd", "--config", config],
            PATH=path,
        )
        until("containerd", lambda: self.ctr("version") is not None, 30)

    def start_kubelet(self) -> None:
        """Start the kubelet."""
        pki = self.plane.pki
        chain, key = pki.certificate(
            f"kubelet-{self.name}", self.name, self.address, "127.0.0.1", group="system:nodes"
        )
        resolver = self.folder / "resolv.conf"
        resolver.write_text(f"nameserver {self.network.dns}\n")
        config = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(pki.authority)},
            },
            "authorization": {"mode": "Webhook"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.name}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "containerRuntimeEndpoint": f"unix://{self.socket}",
            "clusterDNS": [self.network.dns],
            "clusterDomain": "cluster.local",
            "resolvConf": str(resolver),
            "address": self.address,
            "tlsCertFile": str(chain),
            "tlsPrivateKeyFile": str(key),
            "podLogsDir": str(self.folder / "logs"),
            "staticPodPath": str(self.folder / "manifests"),
            "evictionHard": dict.fromkeys(
                ("nodefs.available", "nodefs.inodesFree", "imagefs.available"), "0%"
            ),
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "localStorageCapacityIsolation": False,
            "nodeStatusUpdateFrequency": "4s",
            "syncFrequency": "10s",
            "shutdownGracePeriod": "0s",
        }
        (self.folder / "manifests").mkdir(exist_ok=True)
        path = self.folder / "kubelet.json"
        path.write_text(json.dumps(config, indent=1))
        kubeconfig = pki.kubeconfig(f"system:node:{self.name}", "system:nodes")
        self.processes.start(
            "kubelet",
            [
                *self.network.inside(self.name),
                BINARIES / "kubelet",
                f"--config={path}",
                f"--kubeconfig={kubeconfig}",
                f"--hostname-override={self.name}",
                f"--node-ip={self.address}",
                f"--root-dir={self.folder / 'kubelet'}",
                f"--cert-dir={self.folder / 'kubelet'}",
                "--v=1",
            ],
            PATH=f"{BINARIES}:{os.environ.get('PATH', '')}",
        )

    def start_proxy(self) -> None:
        """Start kube-proxy in the chosen mode."""
        kubeconfig = self.plane.pki.kubeconfig("system:kube-proxy")
        config = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": str(kubeconfig)},
            "mode": self.proxy_mode,
            "clusterCIDR": self.network.pods,
            "hostnameOverride": self.name,
            "bindAddress": self.address,
            "conntrack": {"maxPerCore": 0},
        }
        path = self.folder / "kube-proxy.json"
        path.write_text(json.dumps(config, indent=1))
        self.processes.start(
            "kube-proxy",
            [*self.network.inside(self.name), BINARIES / "kube-proxy", f"--config={path}"],
        )

    def connect_pods(self, cidr: str) -> None:
        """Tell containerd which addresses this node's pods get."""
        # Between pods nobody translates addresses.
        plugin = {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "ipMasq": False,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": cidr}]],
                "routes": [{"dst": "0.0.0.0/0"}],
                "dataDir": str(self.folder / "addresses"),
            },
        }
        ports = {"type": "portmap", "capabilities": {"portMappings": True}, "backend": "nftables"}
        network = {
            "cniVersion": "1.0.0",
            "name": f"pods-{self.name}",
            "plugins": [plugin, ports],
        }
        (self.folder / "networks" / "10-pods.conflist").write_text(json.dumps(network, indent=1))

    # What is asked of a node.

    @property
    def socket(self) -> Path:
        """containerd's."""
        return self.run / "containerd.sock"

    @property
    def kubepods(self) -> Path:
        """This node's kubepods cgroup, in the unified hierarchy."""
        return unified() / self.name / "kubepods"

    def ctr(self, *words: str | Path) -> str:
        """Ask containerd, in the kubelet's namespace."""
        done = subprocess.run(
            [BINARIES / "ctr", "--address", self.socket, "--namespace", "k8s.io", *words],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def load_image(self, archive: Path) -> None:
        """Import an OCI archive."""
        try:
            self.ctr("images", "import", "--no-unpack", archive)
        except subprocess.CalledProcessError as error:
            raise LocalClusterError(f"{self.name}: {archive.name}: {error.stderr}") from error

    def _make_cgroups(self) -> None:
        for hierarchy in _hierarchies():
            own = hierarchy / self.name
            own.mkdir(exist_ok=True)
            for name in ("cpuset.cpus", "cpuset.mems"):
                above = hierarchy / name
                if above.exists() and not (own / name).read_text().strip():
                    (own / name).write_text(above.read_text())

    def _end_containers(self) -> None:
        """End every process in the node's cgroups, then the shims, which are children of nobody."""
        kill = unified() / self.name / "cgroup.kill"
        with suppress(OSError):
            kill.write_text("1")
        with suppress(OSError, subprocess.SubprocessError):
            for line in self.ctr("tasks", "list", "--quiet").split():
                self.ctr("tasks", "kill", "--signal", "SIGKILL", line)
        end = time.monotonic() + 10
        while self._shims() and time.monotonic() < end:
            for pid in self._shims():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)

    def _shims(self) -> list[int]:
        found = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                text = entry.read_bytes()
                if b"containerd-shim" in text and str(self.socket).encode() in text:
                    found.append(int(entry.parent.name))
        return found

    def _remove_cgroups(self) -> None:
        for hierarchy in _hierarchies():
            own = hierarchy / self.name
            if not own.is_dir():
                continue
            for folder, _, _ in os.walk(own, topdown=False):
                for _ in range(50):
                    try:
                        Path(folder).rmdir()
                        break
                    except FileNotFoundError:
                        break
                    except OSError:
                        time.sleep(0.05)


def unified() -> Path:
    """Where cgroup v2 is mounted."""
    unified = _CGROUPS / "unified"
    return unified if unified.is_dir() else _CGROUPS


def _mounts_below(*folders: Path) -> list[str]:
    """Mount points below ``folders``, the deepest first."""
    points = [
        line.split()[4].replace("\\040", " ")
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
    ]
    return sorted(
        (p for p in points if any(Path(p).is_relative_to(f) for f in folders)),
        key=len,
        reverse=True,
    )


_CONTAINERD = """version = 3
root = "{root}"
state = "{state}"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp"]

[grpc]
  address = "{socket}"

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "localhost/pause:1"

[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      SystemdCgroup = false
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{binaries}"]
    conf_dir = "{networks}"

[plugins."io.containerd.server.v1.ttrpc"]
  address = "{socket}.ttrpc"
"""
