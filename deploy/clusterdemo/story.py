"""The story of `make demo-cluster`: watch, learn, audit, be refused, enforce, go back, confirm.

Everything the reader sees run is a command that a person would type, with that person's rights.
What the servers, the client and the intruder met is counted by them, not here.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clusterdemo.shop import Shop
from portforge.demo.telling import PORTFORGE, Telling, counted, delete
from portforge.errors import PortforgeError

__all__ = ["PEOPLE", "Story"]

RELEASE = NAMESPACE = "portforge"
CHART = "deploy/helm/portforge"
PEOPLE = {"analysts": "ana", "approvers": "ben", "responders": "olga"}
"""Whom the chart gives which role."""


@dataclass
class Story(Telling):
    """One run of the cluster demo.

    Parameters
    ----------
    folder: where the capture and the policies go.
    helm: the program.
    kubectl: asks as the administrator.
    people: name of a person to a kubeconfig with that person's rights; "admin" among them.
    values: what this cluster asks of the chart, as Helm's --set takes it.
    seconds: how long the application is watched.
    trial: seconds until an enforced policy must be confirmed.
    image: of the shop.
    pins: where the nodes' programs are pinned, when the nodes are on this machine.
    """

    folder: Path
    helm: Path
    kubectl: Callable[..., str]
    people: dict[str, Path]
    values: tuple[str, ...] = ()
    seconds: float = 75.0
    trial: int = 60
    image: str = "localhost/shop:1"
    pins: tuple[Path, ...] = ()
    _who: str = field(default="admin", init=False)

    def environment(self) -> dict[str, str]:
        """The rights of whoever acts now."""
        return super().environment() | {"KUBECONFIG": str(self.people[self._who])}

    def tell(self) -> bool:
        """Run it; True when everything went as promised."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("capture", "review"):
            delete(self.folder / name)
        self.shop = Shop(self.kubectl, self.image)
        try:
            self._install()
            self._watch()
            self._learn()
            self._audit()
            self._refused()
            self._enforce()
            self._back_by_itself()
            self._confirm()
            self._uninstall()
        finally:
            self._clear()
        self.summary()
        return all(good for _, _, good in self.checks)

    def as_(self, person: str) -> None:
        """From here on ``person`` types."""
        self._who = person

    def do(self, *words: str) -> None:
        """Run a command of the administrator's and show it."""
        self.console.print(f"[dim]$ {' '.join(words)}[/]", soft_wrap=True)
        sys.stdout.flush()
        program = {"helm": str(self.helm)}.get(words[0], words[0])
        done = subprocess.run([program, *words[1:]], env=self.environment(), check=False)
        if done.returncode:
            raise PortforgeError(f"{' '.join(words[:2])} ended with exit code {done.returncode}")

    def ask(self, *words: str) -> Any:
        """What a ``portforge`` command answers as JSON."""
        command = [PORTFORGE, *words, "--json"]
        done = subprocess.run(
            command, env=self.environment(), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise PortforgeError(f"portforge {words[0]}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def until(self, what: str, check: Callable[[], object], seconds: float = 60) -> float:
        """Wait for ``check``; how many seconds it took."""
        started = time.monotonic()
        while not check():
            if time.monotonic() - started > seconds:
                raise PortforgeError(f"waited {seconds:.0f} s in vain for {what}")
            time.sleep(0.5)
        return time.monotonic() - started

    def _install(self) -> None:
        self.say(
            "1. Install", "One agent on every node, by Helm. ana may analyse, ben may approve."
        )
        self.as_("admin")
        values = [
            f"--set=rbac.bindings.{role}[0].kind=User,rbac.bindings.{role}[0].name={name}"
            for role, name in PEOPLE.items()
        ]
        values += [f"--set={value}" for value in self.values]
        values += ["--set=clusterName=demo", "--set=agent.extraArgs={--interval=2,--rotate=10}"]
        self.do("helm", "install", RELEASE, CHART, "-n", NAMESPACE, "--create-namespace",
                *values, "--wait", "--timeout=180s")  # fmt: skip
        self.do("helm", "test", RELEASE, "-n", NAMESPACE)

    def _watch(self) -> None:
        self.say("2. A small real application, watched")
        started = self.shop.start()
        self.console.print(f"  started: {counted(started)}, on three nodes")
        half = self.seconds / 2
        self.shop.during(lambda: None, half)
        self.scan_before = self.shop.scan()["tcp"]
        self.console.print(f"  the intruder scans web: TCP {counted(self.scan_before)}")
        served = self.shop.during(lambda: None, half)
        self.check("the application answers while recorded", counted(served), not served["failed"])
        self.until("the CronJob", self._reported, 90)

    def _reported(self) -> bool:
        jobs = json.loads(self.kubectl("-n", "shop", "get", "jobs", "-o", "json"))["items"]
        return any(job["status"].get("succeeded") for job in jobs)

    def _learn(self) -> None:
        self.say("3. ana, on her laptop, with her own rights: the capture, and what it teaches")
        self.as_("ana")
        capture, review = self.folder / "capture", self.folder / "review"
        time.sleep(15)  # the agents close their files every 10 s
        self.run("capture", "pull", "-n", NAMESPACE, "-o", str(capture))
        self.run("recommend", str(capture), "-o", str(review), "--namespace", "shop")
        (review / "policies" / "shop" / "pod-intruder.yaml").unlink(missing_ok=True)

    @property
    def policies(self) -> str:
        """The folder with the policies under review."""
        return str(self.folder / "review" / "policies")

    def _audit(self) -> None:
        self.say("4. ana applies them in Audit: nothing is denied yet")
        self.run("apply", self.policies, "--cluster")
        took = self.until("the nodes to follow", lambda: self._applied("Audit"))
        self.console.print(f"  every node follows after {took:.1f} s")
        self.shop.plant()
        backdoor = self.shop.backdoor()
        self.check("a backdoor opens in Audit", counted(backdoor), backdoor["connected"])
        self.do("kubectl", "get", "portpolicies", "-n", "shop")

    def _refused(self) -> None:
        self.say("5. ana may not enforce: the API server itself refuses")
        self.run("apply", self.policies, "--cluster", "--mode", "enforce", expect=5)
        modes = {p["mode"] for p in self.ask("status", "--cluster")["policies"]}
        self.check("still in Audit", ", ".join(sorted(modes)), modes == {"Audit"})

    def _enforce(self) -> None:
        self.say(
            "6. ben approves and enforces, on trial",
            f"Unless he confirms within {self.trial} seconds, every node goes back by itself.",
        )
        self.as_("ben")
        self._apply_on_trial()
        served = self.shop.during(self._change_the_shop, 10)
        self.check(
            "the application answers in a rollout and a scale-up",
            counted(served),
            served["ok"] > 0 and not served["failed"],
        )
        asked = self.shop.ask(23)
        self.check("23 requests at once", counted(asked), asked["ok"] == 23)
        scan = self.shop.scan()["tcp"]
        self.check("the scan finds no open port", counted(scan), not scan["open"])
        self.shop.plant()
        backdoor = self.shop.backdoor()
        self.check("the backdoor is refused", counted(backdoor), not backdoor["connected"])

    def _apply_on_trial(self) -> None:
        words = ["apply", self.policies, "--cluster", "--mode", "enforce"]
        words += ["--capture", str(self.folder / "capture")]
        self.run(*words, "--confirm-within", f"{self.trial}s")
        took = self.until("the nodes to follow", lambda: self._applied("Enforce"))
        self.console.print(f"  every node enforces after {took:.1f} s")

    def _change_the_shop(self) -> None:
        kubectl = self.kubectl
        kubectl("-n", "shop", "rollout", "restart", "deployment/web")
        kubectl("-n", "shop", "rollout", "status", "deployment/web", "--timeout=120s")
        kubectl("-n", "shop", "scale", "deployment/web", "--replicas=3")
        kubectl("-n", "shop", "rollout", "status", "deployment/web", "--timeout=120s")

    def _back_by_itself(self) -> None:
        self.say("7. Nobody confirms")
        self.until("the trial to end", lambda: self.shop.backdoor()["connected"], self.trial + 60)
        backdoor, asked = self.shop.backdoor(), self.shop.ask(23)
        self.check(
            "the backdoor opens again: the nodes went back by themselves",
            counted(backdoor),
            backdoor["connected"],
        )
        self.check("23 requests at once", counted(asked), asked["ok"] == 23)
        self.run("status", "--cluster")

    def _confirm(self) -> None:
        self.say("8. ben applies again, and confirms")
        self._apply_on_trial()
        self.run("confirm", "--all")
        until = time.monotonic() + self.trial + 5
        asked = self.shop.ask(23)
        self.check("23 requests at once", counted(asked), asked["ok"] == 23)
        time.sleep(max(0.0, until - time.monotonic()))
        backdoor = self.shop.backdoor()
        self.check(
            "the backdoor stays refused after the trial", counted(backdoor),
            not backdoor["connected"],
        )  # fmt: skip
        self.do("kubectl", "get", "portpolicies", "-n", "shop")

    def _applied(self, mode: str) -> bool:
        policies = self.ask("status", "--cluster", "-n", "shop")["policies"]
        return any(p["nodes"] for p in policies) and all(
            p["mode"] == mode and p["appliedNodes"] == p["nodes"] for p in policies
        )

    def _uninstall(self) -> None:
        self.say("9. Uninstall: nothing stays in the kernel")
        self.as_("admin")
        self.do("helm", "uninstall", RELEASE, "-n", NAMESPACE, "--wait", "--timeout=180s")
        if self.pins:
            left = [str(folder) for folder in self.pins if folder.exists()]
            self.check("pins left in the kernel", ", ".join(left) or "none", not left)
        asked = self.shop.ask(23)
        self.check("the application answers without it", counted(asked), asked["ok"] == 23)

    def _clear(self) -> None:
        """Whatever happened, leave the cluster as it was; of a failure here only a word."""
        self.as_("admin")
        words = [str(self.helm), "uninstall", RELEASE, "-n", NAMESPACE, "--ignore-not-found"]
        words += ["--wait", "--timeout=120s"]
        cleared = subprocess.run(
            words, env=self.environment(), capture_output=True, text=True, check=False
        )
        if cleared.returncode:
            self.console.print(f"[yellow]{cleared.stderr.strip()}[/]")
        try:
            self.shop.stop()
        except Exception as problem:
            self.console.print(f"[yellow]the shop is still there: {problem}[/]")
