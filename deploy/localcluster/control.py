"""The control plane: etcd, API server, controller manager, scheduler, as ordinary processes."""

from __future__ import annotations

import json
import socket
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from localcluster.binaries import BINARIES
from localcluster.pki import Pki
from localcluster.processes import Processes, until

__all__ = ["ControlPlane"]


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


@dataclass
class ControlPlane:
    """A real API server with etcd; with ``controllers`` the rest of the control plane too.

    Parameters
    ----------
    folder: where its data, certificates and logs go.
    address, port: where the API server listens; a free port by default.
    services: the range of Service addresses; its first is the API server's own.
    controllers: start controller manager and scheduler too.
    inside: what to put before each command, to run it in a network namespace.
    """

    folder: Path
    address: str = "127.0.0.1"
    port: int = 0
    services: str = "10.96.0.0/16"
    pods: str = "10.244.0.0/16"
    controllers: bool = False
    inside: tuple[str, ...] = ()
    pki: Pki = field(init=False)
    processes: Processes = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = self.folder / "ports.json"
        if settings.exists():
            self.port, self._etcd = json.loads(settings.read_text())
        else:
            self.port = self.port or _free_port("127.0.0.1")
            self._etcd = _free_port("127.0.0.1")
            settings.write_text(json.dumps([self.port, self._etcd]))
        self.pki = Pki(self.folder / "pki", f"https://{self.address}:{self.port}")
        self.processes = Processes(self.folder / "processes")

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.pki.kubeconfig("admin", "system:masters")

    def start(self) -> None:
        """Start everything and wait until the API server is ready."""
        self.start_etcd()
        self.start_api_server()
        if self.controllers:
            self.start_controllers()

    def stop(self) -> None:
        """Stop everything; data and certificates stay."""
        for name in ("scheduler", "controller-manager", "api-server", "etcd"):
            self.processes.stop(name)

    def start_etcd(self) -> None:
        """Start etcd. It forgets nothing it was told before, but does not wait for the disk."""
        client = f"http://127.0.0.1:{self._etcd}"
        self.processes.start(
            "etcd",
            [
                *self.inside,
                BINARIES / "etcd",
                f"--data-dir={self.folder / 'etcd'}",
                f"--listen-client-urls={client}",
                f"--advertise-client-urls={client}",
                "--listen-peer-urls=http://127.0.0.1:0",
                "--initial-advertise-peer-urls=http://127.0.0.1:0",
                "--initial-cluster=default=http://127.0.0.1:0",
                "--unsafe-no-fsync",
                "--log-level=warn",
            ],
        )

    def start_api_server(self) -> None:
        """Start the API server and wait for /readyz."""
        first = ".".join([*self.services.split(".")[:3], "1"])
        names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost")
        chain, key = self.pki.certificate("api-server", self.address, first, *names, "127.0.0.1")
        client, client_key = self.pki.certificate(
            "api-server-client", common_name="kube-apiserver", group="system:masters"
        )
        self.processes.start(
            "api-server",
            [
                *self.inside,
                BINARIES / "kube-apiserver",
                f"--etcd-servers=http://127.0.0.1:{self._etcd}",
                f"--bind-address={self.address}",
                f"--advertise-address={self.address}",
                f"--secure-port={self.port}",
                f"--service-cluster-ip-range={self.services}",
                f"--client-ca-file={self.pki.authority}",
                f"--tls-cert-file={chain}",
                f"--tls-private-key-file={key}",
                f"--kubelet-certificate-authority={self.pki.authority}",
                f"--kubelet-client-certificate={client}",
                f"--kubelet-client-key={client_key}",
                "--kubelet-preferred-address-types=InternalIP",
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                "--allow-privileged=true",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={self.pki.accounts}",
                f"--service-account-signing-key-file={self.pki.accounts}",
                "--endpoint-reconciler-type=lease",
                "--v=1",
            ],
        )
        until("the API server", self.ready, 90)

    def start_controllers(self) -> None:
        """Start controller manager and scheduler."""
        shared = ["--leader-elect=false", "--v=1"]
        manager = self.pki.kubeconfig("system:kube-controller-manager")
        self.processes.start(
            "controller-manager",
            [
                *self.inside,
                BINARIES / "kube-controller-manager",
                f"--kubeconfig={manager}",
                "--use-service-account-credentials=true",
                f"--service-account-private-key-file={self.pki.accounts}",
                f"--root-ca-file={self.pki.authority}",
                "--allocate-node-cidrs=true",
                f"--cluster-cidr={self.pods}",
                "--node-monitor-grace-period=20s",
                "--bind-address=127.0.0.1",
                f"--secure-port={_free_port('127.0.0.1')}",
                *shared,
            ],
        )
        scheduler = self.pki.kubeconfig("system:kube-scheduler")
        self.processes.start(
            "scheduler",
            [
                *self.inside,
                BINARIES / "kube-scheduler",
                f"--kubeconfig={scheduler}",
                "--bind-address=127.0.0.1",
                f"--secure-port={_free_port('127.0.0.1')}",
                *shared,
            ],
        )

    def ready(self) -> bool:
        """Does the API server say that it is ready?"""
        trust = ssl.create_default_context(cafile=str(self.pki.authority))
        trust.load_cert_chain(
            *self.pki.certificate("user-admin", common_name="admin", group="system:masters")
        )
        url = f"https://{self.address}:{self.port}/readyz"
        try:
            with urllib.request.urlopen(url, context=trust, timeout=2) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError:
            return False
