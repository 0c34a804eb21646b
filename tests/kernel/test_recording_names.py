"""What a pod asked a real DNS server stands in the rows of what it then called."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import dns.message
import dns.rrset
import pytest

from portforge.apply.layout import Direction, packed_address
from portforge.capture import open_capture
from portforge.demo.pods import CLUSTER_DNS, Node, Outside, Pod
from portforge.demo.servers import wait_for_port
from portforge_recorder.answers import Answers, Heard

from .bed import Bed, make_bed
from .enforcing import policy, rule
from .talk import TCP_SERVER, UDP, UDP_SERVER, client, drain, lost, pod_id, start, stop
from .test_agent import Place, end, make_place, until

ADDRESS, ADDRESS6 = "203.0.113.10", "2001:db8::10"
DNSMASQ = f"""
keep-in-foreground
no-resolv
no-hosts
user=root
pid-file=
log-facility=-
local=/example.com/
local=/example.net/
local=/local/
host-record=api.example.com,{ADDRESS},{ADDRESS6}
host-record=edge.example.net,{ADDRESS}
cname=www.example.com,edge.example.net
"""
# argv: name port; the resolver of the C library, its sockets connected, search list and all
CALL = """
import socket, sys
socket.create_connection((sys.argv[1], int(sys.argv[2])), 5).close()
"""
# argv: server query port; asks by a socket that is not connected, calls the last four bytes
ASK_AND_CALL = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(5)
s.sendto(bytes.fromhex(sys.argv[2]), (sys.argv[1], 53))
answer, _ = s.recvfrom(4096)
socket.create_connection((socket.inet_ntoa(answer[-4:]), int(sys.argv[3])), 5).close()
"""
# argv: address answer times seconds; answers the first question by that, so often and so late
RESOLVER = """
import socket, sys, time
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 53))
print("ready", flush=True)
_, peer = s.recvfrom(4096)
print("asked", flush=True)
time.sleep(float(sys.argv[4]))
answer = bytes.fromhex(sys.argv[2])
for _ in range(int(sys.argv[3])): s.sendto(answer, peer)
print("answered", flush=True)
"""
# argv: address connected(0|1); asks and waits
ASK = """
import socket, sys, time
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
if int(sys.argv[2]): s.connect((sys.argv[1], 53)); s.send(b"?")
else: s.sendto(b"?", (sys.argv[1], 53))
time.sleep(60)
"""
# argv: address port datagrams answer; from port 53 to whoever never asked
UNASKED = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 53))
answer, peer = bytes.fromhex(sys.argv[4]), (sys.argv[1], int(sys.argv[2]))
for _ in range(int(sys.argv[3])): s.sendto(answer, peer)
"""


def wire(name: str, *addresses: str) -> bytes:
    answer = dns.message.make_response(dns.message.make_query(name, "A"))
    answer.answer = [dns.rrset.from_text(f"{name}.", 60, "IN", "A", *addresses)]
    return answer.to_wire()


def start_dns(node: Node, folder: Path) -> Pod:
    """dnsmasq, as the cluster's DNS."""
    config = folder / "dnsmasq.conf"
    config.write_text(DNSMASQ)
    pod = node.pod("kube-system", "Deployment", "dns")
    node.service("kube-system", "dns", 53, 53, pod, protocols=("UDP", "TCP"), address=CLUSTER_DNS)
    pod.run(["dnsmasq", f"--conf-file={config}"])
    wait_for_port(pod, 53)
    return pod


class Internet:
    """A place with a DNS server, and a host outside that listens on port 7000."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.outside: Outside = place.node.outside("internet", ADDRESS, ADDRESS6)
        self.dns = start_dns(place.node, place.folder)
        words = ("::", "7000", "0", "0", "client")
        self.outside.run(self.outside.python_command(TCP_SERVER, *words))
        wait_for_port(self.outside, 7000)

    def calls(self, pod: Pod) -> list[tuple[str, str | None]]:
        """Address and name of each peer that ``pod`` called on port 7000, a row each."""
        flows = open_capture(self.place.capture).flows()
        mine = flows[(flows.pod == pod.name) & (flows.port == 7000)].astype(object)
        assert set(mine.direction) == {"egress"}
        names = mine.peer_name.where(mine.peer_name.notna(), None)
        return list(zip(mine.peer_ip, names, strict=True))


@pytest.fixture
def internet(tmp_path: Path) -> Iterator[Internet]:
    with make_place("names", tmp_path) as place:
        yield Internet(place)


def test_the_row_of_a_call_outside_has_the_name_that_was_asked_for(internet: Internet) -> None:
    place, node = internet.place, internet.place.node
    other = node.pod("t", "Deployment", "other")
    silent = node.pod("t", "Deployment", "silent")
    process = place.recorder(interval=0.5)
    until(place.told)
    client(place.asks, CALL, "api.example.com", 7000)
    client(place.answers, CALL, "www.example.com", 7000)
    query = dns.message.make_query("API.example.com", "A", use_edns=False).to_wire()
    client(other, ASK_AND_CALL, CLUSTER_DNS, query.hex(), 7000)
    client(silent, CALL, ADDRESS, 7000)
    end(process)
    assert internet.calls(place.asks) in (
        [(ADDRESS6, "api.example.com")],
        [(ADDRESS, "api.example.com")],
    )
    assert internet.calls(place.answers) == [(ADDRESS, "www.example.com")]
    assert internet.calls(other) == [(ADDRESS, "api.example.com")]
    assert internet.calls(silent) == [(ADDRESS, None)]
    flows = open_capture(place.capture).flows()
    assert set(flows[flows.peer_name.notna()].peer_kind) == {"external"}


def test_a_connection_that_is_open_for_long_keeps_its_name(internet: Internet) -> None:
    place = internet.place
    process = place.recorder(interval=0.2)
    until(place.told)
    talk = CALL.replace(".close()", "").replace("socket.create", "import time\ns = socket.create")
    talk += "for _ in range(20):\n    s.send(b'x'); time.sleep(0.1)\n"
    client(place.asks, talk, "www.example.com", 7000)
    end(process)
    calls = internet.calls(place.asks)
    assert len(calls) > 3
    assert set(calls) == {(ADDRESS, "www.example.com")}


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    folder = tmp_path_factory.mktemp("answers")
    with Node(f"answers-{os.getpid()}") as node, make_bed(folder, node) as ready:
        yield ready


@pytest.fixture
def pods(bed: Bed) -> Iterator[tuple[Pod, Pod]]:
    """Fresh ones: an asker, and a resolver that listens on port 53."""
    one, two = (bed.node.pod("t", "Deployment", name) for name in ("asks", "resolves"))
    yield one, two
    for pod in (one, two):
        bed.node.remove(pod)
    bed.flows()


def hear(answers: Answers) -> Heard:
    for _ in range(200):
        answers.listen()
    return answers.heard()


def ask(one: Pod, two: Pod, *words: object, family: int = 4, connected: int = 1) -> str:
    """Ask once; ``words`` are the resolver's answer, how often and how late. Its last line."""
    address = two.address if family == 4 else two.address6
    resolver = start(two, RESOLVER, address, *words)
    asker = one.run(one.python_command(ASK, address, str(connected)))
    assert resolver.stdout
    assert resolver.stdout.readline() == b"asked\n"
    said = str(resolver.stdout.readline().decode())
    time.sleep(0.1)
    stop(resolver)
    stop(asker)
    return said


@pytest.mark.parametrize("connected", [0, 1])
@pytest.mark.parametrize("family", [4, 6])
def test_an_answer_to_any_socket_is_read_once_by_who_asked(
    bed: Bed, pods: tuple[Pod, Pod], family: int, connected: int
) -> None:
    one, two = pods
    with Answers(bed.maps) as answers:
        ask(one, two, wire("a.example", ADDRESS).hex(), 1, 0, family=family, connected=connected)
        assert hear(answers) == Heard(1, 0, 0)
        assert answers.names.of(pod_id(one), packed_address(ADDRESS), 0) == "a.example"
        assert answers.names.of(pod_id(two), packed_address(ADDRESS), 0) is None


def test_of_an_answer_past_the_usual_size_the_beginning_is_read(
    bed: Bed, pods: tuple[Pod, Pod]
) -> None:
    one, two = pods
    long = wire("a.example", *(f"203.0.113.{i}" for i in range(1, 86)))
    assert 1232 < len(long) < 1472  # one packet
    with Answers(bed.maps) as answers:
        ask(one, two, long.hex(), 1, 0)
        assert hear(answers) == Heard(1, 0, 0)
        assert 60 < len(answers.names) < 85


def test_only_answers_with_records_are_copied(bed: Bed, pods: tuple[Pod, Pod]) -> None:
    one, two = pods
    good = bytearray(wire("a.example", ADDRESS))
    query, missing, empty, garbled = (bytearray(good) for _ in range(4))
    query[2] &= 0x7F
    missing[3] |= 3  # NXDOMAIN
    empty[7] = 0
    garbled[12] = 0x55  # no length of a label
    with Answers(bed.maps) as answers:
        for message in (query, missing, empty, b"", b"s" * 11):
            ask(one, two, bytes(message).hex(), 1, 0)
        assert hear(answers) == Heard(0, 0, 0)
        ask(one, two, bytes(garbled).hex(), 1, 0)
        assert hear(answers) == Heard(1, 1, 0)


@pytest.mark.parametrize("port", [53, 5400])
def test_who_was_not_asked_is_not_read(bed: Bed, pods: tuple[Pod, Pod], port: int) -> None:
    one, two = pods
    server = start(one, UDP_SERVER, "0.0.0.0", port, 0)
    message = wire("a.example", ADDRESS)
    with Answers(bed.maps) as answers:
        client(two, UNASKED, one.address, port, 5003, message.hex())
        assert hear(answers) == Heard(0, 0, 0)
    stop(server)
    found = drain(bed).of(one, Direction.INGRESS, port, protocol=UDP, peer=two.address)
    assert found == (1, 0, 5003 * len(message))


def test_an_answer_to_nobody_known_is_not_read(bed: Bed, pods: tuple[Pod, Pod]) -> None:
    one, two = pods
    bed.maps.remove("pods", pod_id(one))
    with Answers(bed.maps) as answers:
        ask(one, two, wire("a.example", ADDRESS).hex(), 1, 0)
        assert hear(answers) == Heard()


def test_an_answer_that_is_denied_gives_no_name(bed: Bed, pods: tuple[Pod, Pod]) -> None:
    one, two = pods
    message = wire("a.example", ADDRESS).hex()
    try:
        with Answers(bed.maps) as answers:
            resolver = start(two, RESOLVER, two.address, message, 1, 1)
            asker = one.run(one.python_command(ASK, two.address, "1"))
            assert resolver.stdout
            assert resolver.stdout.readline() == b"asked\n"
            bed.enforce(policy("asks", egress=[rule("TCP", 7000)]))
            assert resolver.stdout.readline() == b"answered\n"
            time.sleep(0.1)
            stop(resolver)
            stop(asker)
            assert hear(answers) == Heard(0, 0, 0)
            total = drain(bed)
            assert any(f.verdict.name == "DENIED" for f in total.about(one))
    finally:
        bed.enforce()


def test_a_flood_of_answers_costs_names_and_no_records(bed: Bed, pods: tuple[Pod, Pod]) -> None:
    one, two = pods
    message, times = wire("a.example", ADDRESS), 20_011
    with Answers(bed.maps) as answers:
        assert ask(one, two, message.hex(), times, 0) == "answered\n"
        began = time.monotonic()
        answers.listen()
        assert time.monotonic() - began < 1
        heard = hear(answers)
    received = drain(bed).of(one, Direction.EGRESS, 53, protocol=UDP)[2]
    assert received == times * len(message)
    assert heard.read > 1000
    assert heard.dropped > 1000
    assert heard.read + heard.dropped == times
    assert lost(bed) == {}
