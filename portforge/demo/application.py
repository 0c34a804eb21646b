"""The demo's shop: real servers in test pods, a real client, and what an intruder does to them.

Every method does one thing and returns counts; nothing is printed. The pods::

    client ──► Service frontend ──► nginx ──► Service web ──► web.py ──► Service redis, postgres
                                                                └─────► payments.example.com
    kube-system/dns (dnsmasq)   job report   forgotten (nobody calls it)   intruder
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

from portforge.demo import servers
from portforge.demo.pods import CLUSTER_DNS, Node, Outside, Pod
from portforge.errors import HostError

__all__ = ["BACKDOOR_PORT", "SCAN_TCP", "SCAN_UDP", "Shop"]

URL = "http://frontend.shop.svc.cluster.local/"
WEB_PORT, DEBUG_PORT, FRONTEND_PORT, FORGOTTEN_PORT = 8000, 9229, 8080, 8081
BACKDOOR_PORT = 4444
EXFILTRATION_PORT = 9999
SCAN_TCP = (
    *(21, 22, 23, 25, 53, 79, 80, 81, 88, 110, 111, 113, 119, 135, 139, 143, 179, 199, 389, 443),
    *(445, 465, 514, 548, 554, 587, 631, 636, 873, 993, 995, 1080, 1433, 1521, 1723, 1883, 2049),
    *(2375, 2379, 3000, 3128, 3306, 3389, 4443, 4505, 5000, 5060, 5432, 5601, 5672, 5900, 6379),
    *(6443, 8000, 8080, 8443, 8888, 9000, 9090, 9200, 9229, 10250, 11211, 27017),
)
"""What the intruder tries: what scanners try first, and among it the two ports web has open."""
SCAN_UDP = (53, 69, 123, 161, 500)


class Shop:
    """The application in the pods of ``node``.

    Parameters
    ----------
    node: a node that stands.
    rate: requests per second of the client.
    """

    def __init__(self, node: Node, rate: float = 20) -> None:
        self.node, self.rate = node, rate
        self.folder = node.folder / "shop"
        self.pods: dict[str, Pod] = {}
        self.payments: Outside | None = None
        self._backdoor = False

    # ---- starting and stopping

    def start(self) -> dict[str, int]:
        """Start everything and wait until the client is served; how many pods and Services.

        Raises
        ------
        HostError: a program is missing, or a server did not start; with the end of its log.
        """
        servers.require()
        self.folder.mkdir(mode=0o755)
        for script in ("web.py", "client.py"):
            shutil.copy(Path(__file__).with_name(script), self.folder / script)
        try:
            self._start()
        except CalledProcessError as failed:
            said = " ".join((failed.stderr or "").split()[-12:])
            raise HostError(
                f"a server of the demo did not start: {said}",
                place=str(self.node.folder / "logs"),
                remedy=self._last_words(),
            ) from failed
        return {"pods": len(self.pods), "services": len(self.node.services)}

    def _start(self) -> None:
        kinds = {
            "frontend": "Deployment",
            "web": "Deployment",
            "redis": "StatefulSet",
            "postgres": "StatefulSet",
            "client": "Deployment",
            "forgotten": "Deployment",
            "intruder": "Pod",
        }
        node = self.node
        self.pods = {name: node.pod("shop", kind, name) for name, kind in kinds.items()}
        dns = self.pods["dns"] = node.pod("kube-system", "Deployment", "dns")
        self.payments = node.outside("payments", "203.0.113.10", "2001:db8::10")
        p = self.pods
        node.service(
            "kube-system", "dns", 53, 53, dns, protocols=("UDP", "TCP"), address=CLUSTER_DNS
        )
        node.service("shop", "frontend", 80, FRONTEND_PORT, p["frontend"])
        node.service("shop", "web", 80, WEB_PORT, p["web"])
        node.service("shop", "redis", 6379, 6379, p["redis"])
        node.service("shop", "postgres", 5432, 5432, p["postgres"])

        outside = {"payments.example.com": self.payments.address}
        servers.start_dns(dns, self._files("dns"), node.services, outside)
        servers.start_redis(p["redis"], self._files("redis"))
        servers.start_postgres(p["postgres"], self._files("postgres"))
        servers.start_nginx(
            self.payments, self._files("payments"), port=80, location='return 200 "paid\\n";'
        )
        self._client(self.payments, "listen", port=EXFILTRATION_PORT)
        web = [servers.PYTHON, str(self.folder / "web.py")]
        ports = ["--port", str(WEB_PORT), "--debug-port", str(DEBUG_PORT)]
        p["web"].run([*web, *ports], user="nobody")
        servers.wait_for_port(p["web"], WEB_PORT)
        proxy = "proxy_pass http://web.shop.svc.cluster.local; proxy_read_timeout 5s;"
        servers.start_nginx(
            p["frontend"], self._files("frontend"), port=FRONTEND_PORT, location=proxy
        )
        self._client(p["forgotten"], "listen", port=FORGOTTEN_PORT)
        servers.wait_for_port(p["forgotten"], FORGOTTEN_PORT)
        self._client(p["client"], "load", url=URL, rate=self.rate, status=self._status("load"))
        probes = [
            f"http://{p['frontend'].address}:{FRONTEND_PORT}/healthz",
            f"http://{p['web'].address}:{WEB_PORT}/healthz",
        ]
        self._client(
            node, "probe", urls=",".join(probes), rate=len(probes), status=self._status("probe")
        )
        self._wait(lambda: self.totals()["ok"] > 0, "the client got no answer")

    def stop(self) -> dict[str, int]:
        """Stop every pod; the client's totals over its whole life."""
        totals = self.totals()
        for pod in self.pods.values():
            pod.stop()
        self.pods = {}
        return totals

    # ---- what goes on all the time

    def totals(self) -> dict[str, int]:
        """Requests ``ok`` and ``failed`` of the client, and of the node's probes, so far."""
        load, probe = self._read("load"), self._read("probe")
        return {
            "ok": load.get("ok", 0),
            "failed": load.get("failed", 0),
            "probes_ok": probe.get("ok", 0),
            "probes_failed": probe.get("failed", 0),
        }

    def load(self, seconds: float) -> dict[str, int]:
        """Let the client work for so long; what it and the probes counted meanwhile."""
        before = self.totals()
        time.sleep(seconds)
        after = self.totals()
        return {name: after[name] - before[name] for name in after}

    def per_second(self) -> list[tuple[int, int, int]]:
        """``(epoch second, ok, failed)`` of the client, for the last minutes."""
        return [(s, ok, failed) for s, ok, failed in self._read("load").get("seconds", [])]

    def failures(self) -> dict[str, int]:
        """How the client's failed requests ended, and how many did."""
        return dict(self._read("load").get("reasons", {}))

    # ---- what happens once

    def ask(self, times: int) -> dict[str, int]:
        """So many requests from the client's pod at once; ``ok`` and ``failed``."""
        result = self._result(self.pods["client"], "ask", url=URL, times=times)
        return {"ok": result["ok"], "failed": result["failed"]}

    def report(self) -> dict[str, int]:
        """The Job ``report``: asks postgres once and ends; ``products`` it found."""
        pod = self.node.pod("shop", "Job", "report")
        try:
            host = ["-h", "postgres.shop.svc.cluster.local", "-U", "shop", "-d", "shop"]
            answer = pod.check_output(
                ["psql", *host, "-tAc", "SELECT count(*) FROM product"], user="nobody"
            )
        finally:
            pod.stop()
        return {"products": int(answer)}

    def scan(self) -> dict[str, Any]:
        """The intruder scans web: for ``tcp`` and ``udp`` how many ports were tried, open,
        refused, without answer (``timeout``), forbidden; and ``open_ports``."""
        return self._result(
            self.pods["intruder"],
            "scan",
            host=self.pods["web"].address,
            tcp=",".join(map(str, SCAN_TCP)),
            udp=",".join(map(str, SCAN_UDP)),
            wait=1.5,
        )

    def backdoor(self) -> dict[str, Any]:
        """The intruder connects to a listener it planted in web: ``connected``, ``answered``,
        and the ``reason`` where not. The first call plants it."""
        web = self.pods["web"]
        if not self._backdoor:
            self._client(web, "listen", port=BACKDOOR_PORT)
            servers.wait_for_port(web, BACKDOOR_PORT)
            self._backdoor = True
        return self._result(self.pods["intruder"], "connect", host=web.address, port=BACKDOOR_PORT)

    def hold(self) -> dict[str, Any]:
        """Web opens a connection to a host outside on a port it never needed, and keeps it in
        use; its state once it is open or has failed (as :meth:`held`)."""
        assert self.payments is not None  # noqa: S101
        status = self._status("held")
        status.unlink(missing_ok=True)
        self._client(
            self.pods["web"],
            "hold",
            host=self.payments.address,
            port=EXFILTRATION_PORT,
            status=status,
        )
        self._wait(status.exists, "the held connection says nothing")
        return self.held()

    def held(self) -> dict[str, Any]:
        """That connection: ``state`` (open, cut, failed), ``exchanges``, ``reason``, ``at``."""
        return self._read("held")

    # ---- the parts

    def _files(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(mode=0o755)
        return folder

    def _status(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _read(self, name: str) -> dict[str, Any]:
        try:
            read = json.loads(self._status(name).read_text())
        except FileNotFoundError:
            return {}
        return dict(read)

    def _script(self, action: str, options: dict[str, Any]) -> list[str]:
        flags = [f"--{name}={value}" for name, value in options.items()]
        return [servers.PYTHON, "-I", "-S", str(self.folder / "client.py"), action, *flags]

    def _client(self, machine: Node | Pod | Outside, action: str, **options: Any) -> None:
        machine.run(self._script(action, options))

    def _result(self, machine: Pod, action: str, **options: Any) -> dict[str, Any]:
        return dict(json.loads(machine.check_output(self._script(action, options), timeout=60)))

    def _wait(self, ready: Callable[[], bool], otherwise: str, seconds: float = 20) -> None:
        until = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > until:
                raise HostError(otherwise, place=str(self.folder), remedy=self._last_words())
            time.sleep(0.05)

    def _last_words(self) -> str:
        """The last line of every log that says anything."""
        logs = sorted((self.node.folder / "logs").glob("*.log"))
        lines = {log.stem: log.read_text(errors="replace").strip().splitlines() for log in logs}
        return "; ".join(f"{name}: {said[-1]}" for name, said in lines.items() if said)
