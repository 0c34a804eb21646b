"""The shop on a cluster: put it there, and ask its client and its intruder what they met.

Every method does one thing and returns counts; nothing is printed.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster import images

from portforge import demo
from portforge.demo.application import SCAN_TCP, SCAN_UDP

__all__ = ["Shop", "image"]

_SCRIPTS = Path(demo.__file__).parent
_CLIENT = ("python3", "/opt/shop/client.py")
URL = "http://frontend.shop.svc.cluster.local/"
BACKDOOR_PORT = 4444
_POSTGRES = r"""#!/bin/bash
# postgres with the database "shop": three products and nothing durable. With "ready": is it?
set -euo pipefail
programs=$(ls -d /usr/lib/postgresql/*/bin | tail -1)
data=/var/lib/postgresql/shop
as() { setpriv --reuid=postgres --regid=postgres --init-groups "$@"; }
psql="$programs/psql -h $data -U shop -v ON_ERROR_STOP=1"
if [[ ${1:-} == ready ]]; then exec $psql -d shop -tAc "SELECT count(*) FROM product"; fi
as "$programs/initdb" -D "$data" -U shop --auth=trust --no-sync --encoding=UTF8 --locale=C >&2
echo "host all all 0.0.0.0/0 trust" >>"$data/pg_hba.conf"
fill() {
  until $psql -d postgres -c "SELECT 1" >/dev/null 2>&1; do sleep 0.2; done
  $psql -d postgres -c "CREATE DATABASE shop"
  $psql -d shop -c "CREATE TABLE product (id int PRIMARY KEY, name text NOT NULL)" \
    -c "INSERT INTO product VALUES (1, 'anvil'), (2, 'tongs'), (3, 'hammer')"
}
fill >&2 &
as "$programs/postgres" -D "$data" --listen_addresses='*' --fsync=off \
  --unix_socket_directories="$data" &
server=$!
trap 'kill -INT $server' TERM INT
wait $server || wait $server
"""


def image() -> Path:
    """The archive of ``localhost/shop:1``: the distribution's servers and the demo's scripts."""
    packages = ["nginx-light", "redis-server", "postgresql", "python3-minimal", "python3-psycopg2"]
    tools = ["iproute2", "procps", "bind9-dnsutils", "curl"]
    files = {f"/opt/shop/{n}": (_SCRIPTS / n).read_text() for n in ("web.py", "client.py")}
    files["/usr/local/bin/shop-postgres"] = _POSTGRES
    return images.from_packages("shop:1", packages + tools, files)


@dataclass
class Shop:
    """The shop in namespace ``shop`` of the cluster that ``kubectl`` speaks to.

    Parameters
    ----------
    kubectl: takes words (and ``give=`` text for standard input), returns what was printed.
    image: where the cluster finds the image of :func:`image`.
    """

    kubectl: Callable[..., str]
    image: str = "localhost/shop:1"

    def start(self, seconds: float = 180) -> dict[str, int]:
        """Deploy and wait until the client is served; how many pods stand."""
        manifest = Path(__file__).with_name("shop.yaml").read_text()
        self.kubectl("apply", "-f", "-", give=manifest.replace("localhost/shop:1", self.image))
        for kind in ("deployment", "statefulset", "daemonset"):
            names = self.kubectl("-n", "shop", "get", kind, "-o", "name").split()
            for name in names:
                self.kubectl("-n", "shop", "rollout", "status", name, f"--timeout={seconds:.0f}s")
        self.kubectl(
            "-n", "shop", "wait", "--for=condition=Ready", "pod/intruder", f"--timeout={seconds}s"
        )
        end = time.monotonic() + seconds
        while self.totals()["ok"] == 0:
            if time.monotonic() > end:
                raise TimeoutError("the shop's client gets no answer")
            time.sleep(0.5)
        return {"pods": len(self.pods())}

    def stop(self) -> None:
        """Delete the namespace and wait for its pods to end."""
        self.kubectl("delete", "namespace", "shop", "--ignore-not-found", "--timeout=120s")

    def pods(self, app: str = "") -> list[dict[str, Any]]:
        """The running pods, of one app or all."""
        select = ["-l", f"app={app}"] if app else []
        read = self.kubectl("-n", "shop", "get", "pods", *select, "-o", "json")
        return [
            pod
            for pod in json.loads(read)["items"]
            if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
        ]

    def address(self, app: str) -> str:
        """The address of one of its pods; the first by name."""
        pods = sorted(self.pods(app), key=lambda pod: str(pod["metadata"]["name"]))
        return str(pods[0]["status"]["podIP"])

    # What goes on all the time.

    def status(self) -> dict[str, Any]:
        """What the client has written down: ok, failed, reasons, seconds."""
        try:
            read = self._exec("deploy/client", "cat", "/tmp/load.json")  # noqa: S108
        except Exception as missing:
            if "No such file" in str(missing):
                return {}
            raise
        return dict(json.loads(read))

    def totals(self) -> dict[str, int]:
        """Requests ``ok`` and ``failed`` of the client so far."""
        status = self.status()
        return {"ok": status.get("ok", 0), "failed": status.get("failed", 0)}

    def during(self, act: Callable[[], object], least: float = 0) -> dict[str, int]:
        """Do ``act`` under load, for ``least`` seconds or longer; what the client counted then."""
        before, started = self.totals(), time.monotonic()
        act()
        time.sleep(max(0.0, least - (time.monotonic() - started)))
        return {name: count - before[name] for name, count in self.totals().items()}

    # What happens once.

    def ask(self, times: int) -> dict[str, int]:
        """So many requests from the client's pod at once; ``ok`` and ``failed``."""
        result = self._client("deploy/client", "ask", url=URL, times=times)
        return {"ok": result["ok"], "failed": result["failed"]}

    def scan(self) -> dict[str, Any]:
        """The intruder scans a pod of web, wherever it is; as Shop.scan of `make demo`."""
        return self._client(
            "pod/intruder",
            "scan",
            host=self.address("web"),
            tcp=",".join(map(str, SCAN_TCP)),
            udp=",".join(map(str, SCAN_UDP)),
            wait=1.5,
        )

    def plant(self) -> None:
        """Start a listener in every pod of web, as somebody who broke in would."""
        for pod in self.pods("web"):
            name = pod["metadata"]["name"]
            script = f"nohup {' '.join(_CLIENT)} listen --port={BACKDOOR_PORT} >/dev/null 2>&1 &"
            self._exec(f"pod/{name}", "sh", "-c", script)

    def backdoor(self) -> dict[str, Any]:
        """The intruder connects to it: ``connected``, ``answered``, ``reason``."""
        return self._client("pod/intruder", "connect", host=self.address("web"), port=BACKDOOR_PORT)

    def _exec(self, where: str, *words: str) -> str:
        return self.kubectl("-n", "shop", "exec", where, "--", *words)

    def _client(self, where: str, action: str, **options: Any) -> dict[str, Any]:
        flags = [f"--{name}={value}" for name, value in options.items()]
        return dict(json.loads(self._exec(where, *_CLIENT, action, *flags)))


def kubectl(program: Path, kubeconfig: Path) -> Callable[..., str]:
    """A ``kubectl`` for :class:`Shop`, with its own rights; what it printed."""

    def run(*words: str, give: str | None = None) -> str:
        done = subprocess.run(
            [str(program), "--kubeconfig", str(kubeconfig), *words],
            input=give,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"kubectl {' '.join(words[:4])}: {done.stderr.strip()[-500:]}")
        return done.stdout

    return run
