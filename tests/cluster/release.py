"""An installed release of the chart, for tests, and what people type against it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster.binaries import BINARIES
from localcluster.cluster import Cluster

ROOT = Path(__file__).parents[2]
NAMESPACE = "portforge"
PEOPLE = {"analysts": "ana", "approvers": "ben", "responders": "olga"}
FAST = ("agent.extraArgs={--interval=1,--rotate=5}", "clusterName=test")


def until(what: str, check: Callable[[], Any], seconds: float = 60) -> float:
    """Wait for ``check``; how many seconds it took."""
    started = time.monotonic()
    while not check():
        if time.monotonic() - started > seconds:
            raise AssertionError(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(0.2)
    return time.monotonic() - started


@dataclass
class Release:
    """The release ``portforge`` of ``cluster``."""

    cluster: Cluster

    def values(self, *more: str) -> list[str]:
        """The --set flags for this cluster, its people, and ``more``."""
        people = [
            f"rbac.bindings.{role}[0].kind=User,rbac.bindings.{role}[0].name={name}"
            for role, name in PEOPLE.items()
        ]
        return [f"--set={v}" for v in (*self.cluster.chart_values, *people, *FAST, *more)]

    def helm(self, *words: str) -> str:
        """Run helm as the administrator."""
        done = subprocess.run(
            [str(BINARIES / "helm"), *words, "--namespace", NAMESPACE],
            cwd=ROOT / "deploy",
            env=os.environ | {"KUBECONFIG": str(self.cluster.kubeconfig)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert not done.returncode, f"helm {words[0]}: {done.stderr}{done.stdout}"
        return done.stdout

    def install(self, *more: str) -> None:
        """Install and wait for every node's agent."""
        self.helm(
            *("install", "portforge", "helm/portforge", "--create-namespace", "--wait"),
            *("--timeout=240s", *self.values(*more)),
        )

    def uninstall(self) -> None:
        """Uninstall; the hook cleans every node's kernel."""
        self.helm("uninstall", "portforge", "--wait", "--timeout=240s")

    def person(self, name: str) -> Path:
        """The kubeconfig of somebody who has a certificate and what the chart gave."""
        return self.cluster.plane.pki.kubeconfig(name)

    def portforge(self, who: str, *words: str, expect: int = 0) -> str:
        """Run the ``portforge`` command as ``who``; what it printed, with what it complained of."""
        program = str(Path(sys.executable).with_name("portforge"))
        kubeconfig = self.cluster.kubeconfig if who == "admin" else self.person(who)
        done = subprocess.run(
            [program, *words],
            env=os.environ | {"KUBECONFIG": str(kubeconfig), "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == expect, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def status(self) -> dict[str, Any]:
        """``portforge status --cluster`` as the administrator, for programs."""
        return dict(json.loads(self.portforge("admin", "status", "--cluster", "--json")))
