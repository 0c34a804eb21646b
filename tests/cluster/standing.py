"""What the tests of faults and upgrades stand on: the shop under enforced policies, and a prober in
the intruder's pod that keeps asking while the API server, and with it kubectl exec, is away.

Measures and tells; what must hold is asserted by the tests.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from clusterdemo.shop import Shop
from localcluster.node import Node
from localcluster.processes import LocalClusterError

from portforge.capture import open_capture
from tests.cluster.outcome import Probe, Row, tell
from tests.cluster.release import NAMESPACE, Release, until
from tests.cluster.shop_policies import ECHO, POLICIES

ECHO_PORT, DEBUG_PORT = 8081, 9229
_PAUSE, _ECHO_PAUSE, _PATIENCE = 0.1, 0.6, 0.4
"""Seconds; 50 denials end a trial, so the echo pods are asked less often."""
_RETRY = 60.0
"""Seconds in which the API server, or a kubelet, may come back."""
_AWAY = (
    *("refused", "timed out", "timeout", "error dialing", "etcdserver", "unable to upgrade"),
    *("EOF", "not ready", "Forbidden", "forbidden", "Internal error", "TLS handshake"),
)
_PROBER = f"""
import socket, sys, threading, time
log, lock = open(sys.argv[1], "a", 1), threading.Lock()
def probe(name, host, port, pause):
    while True:
        at = time.time()
        try:
            socket.create_connection((host, int(port)), {_PATIENCE}).close()
            said = "open"
        except OSError as wrong:
            said = type(wrong).__name__
        with lock:
            log.write(f"{{at:.2f}} {{name}} {{said}}\\n")
        time.sleep(float(pause))
for target in sys.argv[2:]:
    threading.Thread(target=probe, args=target.split(",")).start()
"""
SETTLED = ("client", "intruder", "redis", "postgres")
"""What must not move, so that every lost request is ours to explain."""


@dataclass
class Standing:
    """The shop with policies in force, under load, watched by a prober."""

    release: Release
    folder: Path
    rows: list[Row] = field(default_factory=list)
    _log: str = ""
    _roots: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.cluster = self.release.cluster
        self.shop = Shop(self.kubectl)

    def kubectl(self, *words: str, give: str | None = None) -> str:
        """As the administrator; again, for a while, where something is away."""
        end = time.monotonic() + _RETRY
        while True:
            self._asked = time.time()
            try:
                return self.cluster.kubectl(*words, give=give)
            except LocalClusterError as failed:
                away = any(word in str(failed) for word in _AWAY)
                if not away or time.monotonic() > end:
                    raise
                time.sleep(0.5)

    # ---- before the faults

    def prepare(self) -> None:
        """Free one node of what must not move, start the echo pods, bring the policies."""
        self.kubectl("apply", "-f", "-", give=ECHO)
        self.kubectl("-n", "shop", "rollout", "status", "daemonset/echo", "--timeout=120s")
        self.quiet = self._free_a_node()
        folder = self.folder / "policies" / "shop"
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in POLICIES.items():
            (folder / f"{name}.yaml").write_text(text)
        self.apply("ana")
        until("the agents to have said so", lambda: self.in_force("Audit"), 120)
        self.apply("ben", "--mode", "enforce")
        until("every node to enforce", lambda: self.in_force("Enforce"), 120)
        self.switch("Audit")
        until("the echo policy in Audit", lambda: self.in_force("Audit", "daemonset-echo"), 120)
        self.probe()

    def apply(self, who: str, *more: str, only: str = "") -> str:
        """``portforge apply`` of the policies, or one file of them, by somebody."""
        folder = self.folder / "policies"
        if only:
            one = self.folder / only / "shop"
            one.mkdir(parents=True, exist_ok=True)
            (one / f"{only}.yaml").write_text(POLICIES[only])
            folder = one.parent
        return self.release.portforge(who, "apply", str(folder), "--cluster", *more)

    def clear(self) -> None:
        """Take the policies and the echo pods away."""
        self.kubectl("-n", "shop", "delete", "portpolicies", "--all")
        self.kubectl("-n", "shop", "delete", "daemonset", "echo", "--ignore-not-found")

    def _free_a_node(self) -> Node:
        """A node with a pod of web at most, and nothing that must not move."""
        quiet = self.cluster.nodes[-1]
        self.kubectl("cordon", quiet.name)
        for app in SETTLED:
            for pod in self.shop.pods(app):
                if pod["spec"]["nodeName"] == quiet.name:
                    self.kubectl("-n", "shop", "delete", "pod", pod["metadata"]["name"])
        self.shop.start()  # the intruder has nobody else who makes it again
        self.kubectl("uncordon", quiet.name)
        # One of two web pods is on the quiet node then: the scheduler spreads them.
        for _ in range(4):
            here = [p for p in self.shop.pods("web") if p["spec"]["nodeName"] == quiet.name]
            if len(here) == 1:
                break
            self.kubectl("-n", "shop", "rollout", "restart", "deployment/web")
            self.kubectl("-n", "shop", "rollout", "status", "deployment/web", "--timeout=120s")
            until("old pods of web to go", lambda: len(self.shop.pods("web")) == 2, 60)
        return quiet

    # ---- policies

    def switch(self, mode: str) -> float:
        """ben sets the mode of the echo policy; when he asked."""
        patch = json.dumps({"spec": {"mode": mode, "confirmBefore": None}})
        self.kubectl(
            *("--as=ben", "-n", "shop", "patch", "portpolicy", "daemonset-echo"),
            *("--type=merge", "-p", patch),
        )
        return self._asked

    def in_force(self, mode: str, name: str = "") -> bool:
        """Do the reports of all nodes with pods of it say so?"""
        try:
            found = [p for p in self.release.status()["policies"] if name in p["name"]]
        except AssertionError:
            return False
        return bool(found) and all(
            p["mode"] == mode and p["nodes"] and p["appliedNodes"] == p["nodes"] for p in found
        )

    def converge(
        self, mode: str, at: float | None = None, without: Node | None = None, seconds: float = 150
    ) -> float:
        """Change the echo policy, or wait for a change made ``at``; seconds until every node's
        echo pod, but that of ``without``, answers so, as the intruder met it."""
        if at is None:
            at = self.switch(mode)
        wanted = {"Enforce": False, "Audit": True}[mode]
        found: list[float] = []

        def everywhere() -> bool:
            found[:] = []
            probes = self.probes(at)
            targets = self.echoes(without)
            for target in targets:
                told = [p for p in probes if p.target == target]
                # The last that was otherwise; what comes after it is in force.
                wrong = [i for i, p in enumerate(told) if (p.said == "open") != wanted]
                right = told[wrong[-1] + 1 if wrong else 0 :]
                if len(right) < 2:
                    return False
                found.append(right[0].at)
            return True

        until(f"the echo pods to follow {mode}", everywhere, seconds)
        return max(0.0, max(found) - at)

    def echoes(self, without: Node | None = None) -> list[str]:
        """The prober's names of the echo pods."""
        return [name for name, node in self._echoes.items() if not without or node != without.name]

    # ---- the intruder

    def probe(self) -> None:
        """Start probing anew: web's forgotten port, its Service, redis, and the echo pods."""
        self._log = f"tmp/probe-{time.time():.0f}"
        self._roots.clear()
        service = json.loads(self.kubectl("-n", "shop", "get", "service", "web", "-o", "json"))
        targets = [f"web-service,{service['spec']['clusterIP']},80,{_PAUSE}"]
        self._echoes: dict[str, str] = {}
        self.forbidden = ["web-service"]
        for app, port in (("web", DEBUG_PORT), ("redis", 6379), ("echo", ECHO_PORT)):
            for pod in self.shop.pods(app):
                name, address = pod["metadata"]["name"], pod["status"]["podIP"]
                if app == "echo":
                    self._echoes[name] = pod["spec"]["nodeName"]
                else:
                    self.forbidden.append(name)
                targets.append(
                    f"{name},{address},{port},{_ECHO_PAUSE if app == 'echo' else _PAUSE}"
                )
        script = (
            "cd /tmp; [ ! -e prober ] || kill $(cat prober); "
            'nohup python3 -c "$0" "$@" >prober.log 2>&1 & echo $! >prober'
        )
        self.kubectl(
            *("-n", "shop", "exec", "intruder", "--", "sh", "-c", script, _PROBER),
            *(f"/{self._log}", *targets),
        )
        until("the first probes", lambda: len(self.probes(0)) >= len(targets), 60)

    def probes(self, since: float) -> list[Probe]:
        """What the prober met since."""
        found = []
        log = self._inside("intruder") / self._log
        # The last line may be half written.
        lines = log.read_text().split("\n")[:-1] if log.exists() else []
        for line in lines:
            at, target, said = line.split()
            if float(at) >= since:
                found.append(Probe(float(at), target, said))
        return found

    def _inside(self, app: str) -> Path:
        """The root folder of an app's container, which needs no API server to be read."""
        if app not in self._roots:
            uid = self.shop.pods(app)[0]["metadata"]["uid"]
            procs = [
                Path("/proc") / pid / "root"
                for node in self.cluster.nodes
                for path in node.kubepods.rglob(f"*{uid}*/*/cgroup.procs")
                for pid in path.read_text().split()
            ]
            self._roots[app] = next(root for root in procs if (root / "opt/shop").exists())
        return self._roots[app]

    def load(self) -> dict[str, Any]:
        """What the shop's client has counted."""
        return dict(json.loads((self._inside("client") / "tmp/load.json").read_text()))

    def served(self) -> bool:
        """Has the client lacked nothing for 10 seconds? Without that, no fault can be judged."""
        time.sleep(1)
        status, since = self.load(), time.time() - 10
        counts = [(ok, failed) for second, ok, failed in status["seconds"] if second >= since]
        ok, failed = (sum(numbers) for numbers in zip(*counts, strict=True)) if counts else (0, 0)
        return ok > 60 and not failed

    # ---- a fault

    def during(self, fault: str, act: Callable[[Row], Any], least: float = 10) -> Row:
        """Do ``act`` under load; the row with what was met, also kept for the table.

        Whether anything allowed was denied is in the capture, a few seconds later.
        """
        row = Row(fault)
        until("the client to be served, on a machine that does too much", self.served, 300)
        before, started = self.load(), time.time()
        act(row)
        time.sleep(max(0.0, least - (time.time() - started)))
        after = self.load()
        row.ok, row.failed = (after[k] - before[k] for k in ("ok", "failed"))
        met = [p for p in self.probes(started) if p.target in self.forbidden]
        row.probes, row.forbidden = len(met), sum(p.said == "open" for p in met)
        row.started, row.ended = started, time.time()
        self.rows.append(row)
        return row

    def held(self, row: Row) -> None:
        """Nothing forbidden opened, nothing allowed was denied, and requests were answered.

        The client waits 2 seconds for an answer. On a machine that does too much at once a few
        answers are later; a connection that is dropped would fail every request behind it.

        A pod that came in this time may be denied until the other nodes know its address: the
        table has it, and a machine that does too much at once has more of it. Nobody else may.
        """
        denied = self._denied(row)
        row.denied = sum(denied.values())
        settled = {peer: n for peer, n in denied.items() if peer not in self._newcomers(row)}
        assert row.probes > 10
        assert row.forbidden == 0, row
        assert not settled, (row, denied)
        assert row.ok > 0
        assert row.failed <= row.ok // 50, (row, self.load()["reasons"])

    def _denied(self, row: Row) -> dict[str, int]:
        """Connections that the policies allow and that the capture says were denied, by peer."""
        time.sleep(8)  # the agents close their files every 5 s
        flows = open_capture(self.cluster.folder / "host" / "capture").sql("FROM flows")
        flows = flows[flows["verdict"] == "denied"]
        flows = flows[flows["last_seen"].map(datetime.timestamp).between(row.started, row.ended)]
        # Whatever was denied and was not asked for by the intruder, known by name or address.
        intruder = {pod["status"]["podIP"] for pod in self.shop.pods("intruder")}
        own = (flows["peer_workload"] == "intruder") | flows["peer_ip"].isin(intruder)
        flows = flows[~own & (flows["workload"] != "intruder")]
        sums = flows.groupby(flows["peer_ip"].astype(str))["connections"].sum()
        return {str(peer): int(n) for peer, n in sums.items()}

    def _newcomers(self, row: Row) -> set[str]:
        """Addresses of the shop's pods that were made since the fault began."""
        read = self.kubectl("-n", "shop", "get", "pods", "-o", "json")
        return {
            str(pod["status"].get("podIP"))
            for pod in json.loads(read)["items"]
            # Kubernetes tells whole seconds.
            if datetime.fromisoformat(pod["metadata"]["creationTimestamp"]).timestamp()
            >= int(row.started)
        }

    def tell(self, name: str) -> None:
        """Print the table, and write it to ``out/<name>.md``."""
        tell(self.rows, Path(__file__).parents[2] / "out" / f"{name}.md")

    def agents_ready(self, since: float, seconds: float = 180) -> float:
        """Wait until every agent is Ready; seconds ``since`` a moment."""

        def ready() -> bool:
            read = self.kubectl("-n", NAMESPACE, "get", "daemonset", "portforge", "-o", "json")
            said = json.loads(read)
            status = said["status"]
            time.sleep(0.5)
            return bool(
                status.get("observedGeneration") == said["metadata"]["generation"]
                and status.get("updatedNumberScheduled") == len(self.cluster.nodes)
                and status.get("numberReady") == len(self.cluster.nodes)
            )

        until("the agents to be ready", ready, seconds)
        return time.time() - since

    def agent(self, node: Node) -> str:
        """The name of the agent's pod on ``node``."""
        words = ("get", "pods", "-l", "app.kubernetes.io/component=agent", "-o", "json")
        pods = json.loads(self.kubectl("-n", NAMESPACE, *words))["items"]
        return next(
            str(p["metadata"]["name"])
            for p in pods
            if p["spec"]["nodeName"] == node.name and "deletionTimestamp" not in p["metadata"]
        )

    def agent_pid(self, node: Node) -> int | None:
        """The pid of the agent's process on ``node``, as this machine numbers it."""
        for procs in node.kubepods.rglob("cgroup.procs"):
            for pid in procs.read_text().split():
                command = Path(f"/proc/{pid}/cmdline")
                if command.exists() and b"\0agent\0" in command.read_bytes():
                    return int(pid)
        return None
