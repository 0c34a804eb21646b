"""The light test bed itself: networks, cgroups, Services, and that nothing is left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from portforge.demo import cgroups
from portforge.demo.application import BACKDOOR_PORT, SCAN_TCP, Shop
from portforge.demo.leftovers import LOCKS, NAMESPACES
from portforge.demo.pods import Node, Pod, sweep

TALK = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 3) as s:
    print(s.recv(99).decode())
"""
ASK = """
import socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(3)
s.sendto(b"ping", (sys.argv[1], int(sys.argv[2])))
print(s.recv(99).decode(), end="")
"""
OPEN = """
import socket, sys, time
until = time.monotonic() + 10
while True:
    try:
        socket.create_connection((sys.argv[1], int(sys.argv[2])), 1).close()
        break
    except OSError:
        if time.monotonic() > until:
            raise
        time.sleep(0.02)
"""


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with Node() as node:
        yield node


def greeter(pod: Pod, port: int, words: str) -> None:
    """A TCP server that says ``words`` to whoever connects."""
    pod.run(["socat", f"TCP6-LISTEN:{port},fork,reuseaddr,ipv6only=0", f"SYSTEM:echo {words}"])
    pod.python(OPEN, pod.address, str(port))


def left_behind(name: str) -> list[str]:
    """Whatever still exists of the node ``name``."""
    places = (NAMESPACES, cgroups.mount_point(), LOCKS, Path(tempfile.gettempdir()))
    found = [str(p) for place in places for p in place.glob(f"{name}*")]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            dead = "State:\tZ" in (process / "status").read_text()  # init has yet to collect it
            if not dead and f"/{name}/" in (process / "cgroup").read_text():
                found.append(str(process))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def test_pods_reach_each_other_the_node_and_outside_on_both_families(node: Node) -> None:
    one, two = node.pod("t", "Deployment", "one"), node.pod("t", "Deployment", "two")
    outside = node.outside("world", "203.0.113.9", "2001:db8::9")
    greeter(two, 7000, "two")
    outside.run(["socat", "TCP6-LISTEN:7000,fork,reuseaddr,ipv6only=0", "SYSTEM:echo world"])
    one.python(OPEN, outside.address, "7000")
    for address in (two.address, two.address6):
        assert one.python(TALK, address, "7000").strip() == "two"
        assert node.python(TALK, address, "7000").strip() == "two"
        assert outside.python(TALK, address, "7000").strip() == "two"
    for address in (outside.address, outside.address6):
        assert one.python(TALK, address, "7000").strip() == "world"


def test_udp_passes_on_both_families(node: Node) -> None:
    one, two = node.pod("t", "Deployment", "asks"), node.pod("t", "Deployment", "answers")
    two.run(["socat", "UDP6-LISTEN:7001,fork,reuseaddr,ipv6only=0", "PIPE"])
    deadline = time.monotonic() + 5
    while f":{7001:04X} " not in two.check_output(["cat", "/proc/net/udp6"]):
        assert time.monotonic() < deadline
    for address in (two.address, two.address6):
        assert one.python(ASK, address, "7001") == "ping"


@pytest.mark.parametrize("driver", ["cgroupfs", "systemd"])
@pytest.mark.parametrize("runtime", ["containerd", "crio"])
def test_a_process_is_in_its_container_from_its_first_instruction(
    driver: cgroups.Driver, runtime: cgroups.Runtime
) -> None:
    with Node(driver=driver, runtime=runtime) as node:
        pod = node.pod("t", "Deployment", "web")
        seen = pod.check_output(["cat", "/proc/self/cgroup"]).split("0::")[1].strip()
        assert seen == f"/{pod.cgroup.relative_to(cgroups.mount_point())}"
        assert pod.cgroup.is_relative_to(pod.cgroup_path)
        assert pod.cgroup_path.is_relative_to(node.kubepods)
        uid = pod.uid if driver == "cgroupfs" else pod.uid.replace("-", "_")
        assert uid in pod.cgroup_path.name
        links = pod.check_output(["ip", "-o", "link"]).splitlines()
        assert [line.split()[1].split("@")[0].strip(":") for line in links] == ["lo", "eth0"]


def test_a_host_network_pod_has_the_nodes_network_and_its_own_cgroup(node: Node) -> None:
    pod = node.pod("t", "DaemonSet", "agent", host_network=True)
    network = node.check_output(["readlink", "/proc/self/ns/net"])
    assert pod.check_output(["readlink", "/proc/self/ns/net"]) == network
    (listed,) = [p for p in node.inventory()["pods"] if p["uid"] == pod.uid]
    assert listed["hostNetwork"] is True
    assert listed["addresses"] == []
    pod.stop()
    assert not pod.cgroup_path.exists()
    assert node.check_output(["true"]) == ""


def test_a_service_leads_to_its_backend_and_follows_it(node: Node) -> None:
    client = node.pod("t", "Deployment", "client")
    first, second = (node.pod("t", "Deployment", "backend") for _ in range(2))
    greeter(first, 7003, "first")
    greeter(second, 7003, "second")
    service = node.service("t", "backend", 80, 7003, first)
    (cluster_ip,) = service.addresses
    for machine in (client, node, first):
        assert machine.python(TALK, cluster_ip, "80").strip() == "first"
    assert node.service("t", "backend", 80, 7003, second).addresses == (cluster_ip,)
    assert client.python(TALK, cluster_ip, "80").strip() == "second"
    second.stop()
    with pytest.raises(subprocess.CalledProcessError):
        client.python(TALK, cluster_ip, "80")


def test_the_inventory_file_follows_the_pods(node: Node, tmp_path: Path) -> None:
    path = tmp_path / "inventory.yaml"
    node.write_inventory(path)
    pod = node.pod("t", "StatefulSet", "db")
    read = YAML(typ="safe").load(path.read_text())
    assert read == node.inventory()
    (listed,) = [p for p in read["pods"] if p["uid"] == pod.uid]
    assert listed["name"] == "db-0"
    assert listed["addresses"] == [pod.address, pod.address6]
    pod.stop()
    # As an API server goes on showing a pod that has ended.
    assert pod.uid in path.read_text()


def test_nothing_is_left_after_an_error() -> None:
    node = Node()

    def fail() -> None:
        with node:
            pod = node.pod("t", "Pod", "sleeper")
            pod.run(["sleep", "600"])
            node.run(["sleep", "600"])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert left_behind(node.id) == []


def test_a_killed_run_is_swept_and_a_living_one_is_not(node: Node) -> None:
    code = (
        "from portforge.demo.pods import Node\n"
        "with Node() as node:\n"
        "    node.pod('t', 'Pod', 'x').run(['sleep', '600'])\n"
        "    print(node.id, flush=True)\n"
        "    import time; time.sleep(600)\n"
    )
    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    with run:
        assert run.stdout
        name = run.stdout.readline().strip()
        assert left_behind(name)
        run.send_signal(signal.SIGKILL)
    assert name in sweep()
    assert left_behind(name) == []
    assert node.check_output(["true"]) == ""


def test_the_shop_serves_is_scanned_and_leaves_nothing() -> None:
    with Node() as node:
        shop = Shop(node, rate=23)
        assert shop.start() == {"pods": 8, "services": 5}
        assert shop.ask(50) == {"ok": 50, "failed": 0}
        assert shop.report() == {"products": 3}

        counted = shop.load(3)
        assert 60 <= counted["ok"] <= 78
        assert counted["failed"] == 0
        assert counted["probes_ok"] >= 4
        assert counted["probes_failed"] == 0
        assert sum(ok for _, ok, _ in shop.per_second()) >= counted["ok"]

        scanned = shop.scan()
        assert scanned["tcp"]["open_ports"] == [8000, 9229]
        assert scanned["tcp"]["refused"] == len(SCAN_TCP) - 2
        assert scanned["udp"]["refused"] == scanned["udp"]["tried"]
        assert BACKDOOR_PORT not in SCAN_TCP
        assert shop.backdoor() == {"connected": True, "answered": True, "reason": None}

        assert shop.hold()["state"] == "open"
        assert shop.payments
        shop.payments.kill()
        deadline = time.monotonic() + 10
        while shop.held()["state"] == "open":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert shop.held()["state"] == "cut"
        assert shop.stop()["ok"] >= counted["ok"]
    assert left_behind(node.id) == []


def test_the_shop_asks_the_dns_server_and_keeps_its_database_connections(node: Node) -> None:
    shop = Shop(node)
    shop.start()
    web, redis = shop.pods["web"], shop.pods["redis"]
    shop.ask(10)
    (connection,) = _redis_connections(redis)
    assert connection[1].startswith(f"{web.address}:")
    before = _udp_received(shop.pods["dns"])
    shop.ask(11)
    assert _udp_received(shop.pods["dns"]) - before >= 2 * 11  # the client's and web's
    assert _redis_connections(redis) == [connection]
    shop.stop()


def _redis_connections(redis: Pod) -> list[list[str]]:
    """Local and remote end of each."""
    said = redis.check_output(["ss", "-Htn", "state", "established", "sport = :6379"])
    return [line.split()[2:] for line in said.splitlines()]


def _udp_received(pod: Pod) -> int:
    rows = [r.split() for r in pod.check_output(["cat", "/proc/net/snmp"]).splitlines()]
    names, values = (r for r in rows if r[0] == "Udp:")
    return int(values[names.index("InDatagrams")])
