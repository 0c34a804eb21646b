"""The distribution's servers, configured for a test pod and started in it. No demo story.

Each ``start_*`` starts one server in a pod, with its files in a folder given. ``PACKAGES`` are
the distribution packages (Debian's names) that bring them.
"""

from __future__ import annotations

import grp
import pwd
import shutil
import time
from pathlib import Path

from portforge.apply.inventory import Service
from portforge.demo.machine import Machine
from portforge.errors import HostError

__all__ = [
    "PACKAGES",
    "PYTHON",
    "require",
    "start_dns",
    "start_nginx",
    "start_postgres",
    "start_redis",
    "wait_for_port",
]

PACKAGES = (
    "dnsmasq-base",
    "iproute2",
    "nftables",
    "nginx-light",
    "postgresql",
    "python3-psycopg2",
    "redis-server",
    "util-linux",
)
PYTHON = "/usr/bin/python3"
"""The distribution's Python: the one its ``psycopg2`` belongs to."""

_WAIT = """
import socket, sys, time
until = time.monotonic() + float(sys.argv[3])
while True:
    try:
        socket.create_connection((sys.argv[1], int(sys.argv[2])), 1).close()
        break
    except OSError as wrong:
        if time.monotonic() > until:
            sys.exit(f"{sys.argv[1]}:{sys.argv[2]}: {wrong}")
        time.sleep(0.02)
"""


def require() -> None:
    """Check that every program the demo starts is here.

    Raises
    ------
    HostError: names what is missing and the packages to install.
    """
    missing = [p for p in ("dnsmasq", "ip", "nft", "nginx", "nsenter", "redis-server", "setpriv")
               if shutil.which(p, path=_path()) is None]  # fmt: skip
    if not _postgres_programs():
        missing.append("postgres")
    if not any(Path("/usr/lib/python3/dist-packages").glob("psycopg2")):
        missing.append("psycopg2")
    if missing:
        raise HostError(
            f"the demo needs programs that are not here: {', '.join(missing)}",
            remedy=f"apt-get install {' '.join(PACKAGES)}",
        )


def _path() -> str:
    return "/usr/sbin:/usr/bin:/sbin:/bin"


def wait_for_port(
    machine: Machine, port: int, *, host: str = "127.0.0.1", seconds: float = 20
) -> None:
    """Wait until a server in ``machine`` accepts connections, over its own loopback.

    Raises
    ------
    subprocess.CalledProcessError: it does not.
    """
    machine.python(_WAIT, host, str(port), str(seconds), timeout=seconds + 10)


def start_dns(pod: Machine, folder: Path, services: list[Service], hosts: dict[str, str]) -> None:
    """dnsmasq as the cluster's DNS: Services by their full name, and ``hosts`` outside."""
    records = {
        f"{s.name}.{s.namespace}.svc.cluster.local": s.addresses[0] for s in services
    } | hosts
    config = folder / "dnsmasq.conf"
    config.write_text(
        "keep-in-foreground\nno-resolv\nno-hosts\nuser=root\npid-file=\nlog-facility=-\n"
        "domain-needed\nlocal=/local/\nlocal=/example.com/\nlocal-ttl=5\n"
        + "".join(f"host-record={name},{ip}\n" for name, ip in sorted(records.items()))
    )
    pod.run(["dnsmasq", f"--conf-file={config}"])
    wait_for_port(pod, 53)


def start_redis(pod: Machine, folder: Path) -> None:
    """redis, on both families, keeping nothing on disk."""
    network = ["--port", "6379", "--bind", "*", "-::*", "--protected-mode", "no"]
    nothing_kept = ["--appendonly", "no", "--save", "", "--dir", str(folder)]
    pod.run(["redis-server", *network, *nothing_kept], user="nobody")
    wait_for_port(pod, 6379)


def start_postgres(pod: Machine, folder: Path) -> None:
    """postgres with the database ``shop``: three products and nothing durable."""
    programs = _postgres_programs()
    if programs is None:
        raise HostError("postgres is not installed", remedy="apt-get install postgresql")
    data = folder / "data"
    data.mkdir()
    shutil.chown(data, "postgres")
    data.chmod(0o700)
    initdb = [str(programs / "initdb"), "-D", str(data), "-U", "shop", "--auth=trust", "--no-sync"]
    pod.check_output([*initdb, "--encoding=UTF8", "--locale=C"], user="postgres", timeout=120)
    with (data / "pg_hba.conf").open("a") as access:
        access.write("host all all 10.77.0.0/24 trust\nhost all all fd77::/64 trust\n")
    settings = {"listen_addresses": "*", "fsync": "off", "unix_socket_directories": str(data)}
    options = [f"--{name}={value}" for name, value in settings.items()]
    pod.run([str(programs / "postgres"), "-D", str(data), *options], user="postgres")
    wait_for_port(pod, 5432, seconds=60)
    script = (
        "CREATE DATABASE shop;\n\\connect shop\n"
        "CREATE TABLE product (id int PRIMARY KEY, name text NOT NULL, price numeric NOT NULL);\n"
        "INSERT INTO product VALUES (1, 'anvil', 90), (2, 'tongs', 25), (3, 'hammer', 40);\n"
    )
    psql = [str(programs / "psql"), "-h", str(data), "-U", "shop", "-v", "ON_ERROR_STOP=1"]
    until = time.monotonic() + 20
    while True:  # the port opens a moment before the server takes queries
        try:
            pod.check_output([*psql, "-c", "SELECT 1", "postgres"], user="postgres")
            break
        except Exception:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
    pod.check_output([*psql, "postgres"], user="postgres", given=script)


def start_nginx(pod: Machine, folder: Path, *, port: int, location: str) -> None:
    """nginx serving ``/healthz`` itself and the rest as ``location`` (a directive) says."""
    nobody = pwd.getpwnam("nobody")
    temporary = "\n".join(
        f"  {kind}_temp_path {folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    config.write_text(
        f"user nobody {grp.getgrgid(nobody.pw_gid).gr_name};\n"
        f"daemon off;\nworker_processes 1;\npid {folder}/nginx.pid;\nerror_log stderr warn;\n"
        "events { worker_connections 512; }\n"
        f"http {{\n  access_log off;\n{temporary}\n"
        f"  server {{\n    listen {port};\n    listen [::]:{port};\n"
        "    location = /healthz { return 200; }\n"
        f"    location / {{ {location} }}\n  }}\n}}\n"
    )
    pod.run(["nginx", "-e", "stderr", "-c", str(config)])
    wait_for_port(pod, port)


def _postgres_programs() -> Path | None:
    """The newest postgres of the distribution."""
    found = [p.parent for p in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    return max(found, key=lambda p: int(p.parent.name), default=None)
