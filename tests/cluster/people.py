"""People and ServiceAccounts who talk to a real API server, each with credentials of their own."""

from __future__ import annotations

import json
import ssl
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster.binaries import BINARIES
from localcluster.control import ControlPlane

CHART = Path(__file__).parents[2] / "deploy/helm/portforge"
GROUP = "/apis/portforge.dev/v1alpha1"
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"


@dataclass(frozen=True)
class Answer:
    """What the API server said: the object, or a Status with a message."""

    code: int
    body: dict[str, Any]

    @property
    def message(self) -> str:
        return str(self.body.get("message", "")) if self.code >= 400 else ""


@dataclass(frozen=True)
class Person:
    """Somebody with a client certificate or a token."""

    server: str
    trust: ssl.SSLContext
    token: str = ""

    def send(self, method: str, path: str, body: object = None, kind: str = "") -> Answer:
        """One request; refusals are answers, not exceptions."""
        headers = {"Content-Type": kind or "application/json", "Accept": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310
            self.server + path, data=data, method=method, headers=headers
        )
        try:
            with urllib.request.urlopen(request, context=self.trust, timeout=30) as answer:  # noqa: S310
                return Answer(answer.status, json.loads(answer.read() or b"{}"))
        except urllib.error.HTTPError as refused:
            with refused:
                return Answer(refused.code, json.loads(refused.read() or b"{}"))

    def get(self, path: str) -> Answer:
        return self.send("GET", path)

    def create(self, path: str, body: object) -> Answer:
        return self.send("POST", path, body)

    def merge(self, path: str, body: object) -> Answer:
        return self.send("PATCH", path, body, MERGE)

    def apply(self, path: str, body: object, manager: str = "test") -> Answer:
        """Server-side apply, with force."""
        return self.send("PATCH", f"{path}?fieldManager={manager}&force=true", body, APPLY)

    def delete(self, path: str, **options: object) -> Answer:
        return self.send("DELETE", path, options or None)


def person(plane: ControlPlane, name: str, group: str = "") -> Person:
    """``name`` with a client certificate: its common name is the user, its organization a group."""
    trust = ssl.create_default_context(cafile=str(plane.pki.authority))
    trust.load_cert_chain(
        *plane.pki.certificate(f"user-{name.replace(':', '-')}", common_name=name, group=group)
    )
    return Person(f"https://{plane.address}:{plane.port}", trust)


def bearer(plane: ControlPlane, token: str) -> Person:
    """Whoever holds ``token``."""
    trust = ssl.create_default_context(cafile=str(plane.pki.authority))
    return Person(f"https://{plane.address}:{plane.port}", trust, token)


def kubectl(plane: ControlPlane, *arguments: str | Path, stdin: str = "") -> str:
    """kubectl as the administrator; what it printed."""
    done = subprocess.run(
        [BINARIES / "kubectl", "--kubeconfig", plane.kubeconfig, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def install_crds(plane: ControlPlane) -> None:
    """The chart's CRDs, served."""
    kubectl(plane, "apply", "--server-side", "-f", CHART / "crds")
    kubectl(plane, "wait", "--for=condition=Established", "--timeout=30s", "-f", CHART / "crds")


def rendered(values: Path, *templates: str) -> str:
    """Some of the chart's templates as Helm renders them for the namespace portforge-system."""
    chosen = [argument for name in templates for argument in ("-s", f"templates/{name}.yaml")]
    namespace = ("-n", "portforge-system")
    return subprocess.run(
        [BINARIES / "helm", "template", "portforge", CHART, *namespace, "-f", values, *chosen],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
