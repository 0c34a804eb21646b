"""UDP, ICMP and SCTP are recorded exactly, in the direction of the first packet."""

from __future__ import annotations

import time

import pytest

from portforge.apply.layout import Direction, Scope, Verdict
from portforge.demo.pods import Pod
from portforge.schema import LossReason

from .bed import Bed
from .talk import (
    ICMP,
    SCTP,
    TRY,
    UDP,
    UDP_CLIENT,
    UDP_SERVER,
    UNREADABLE,
    Total,
    client,
    drain,
    lost,
    start,
    stop,
)

IN, OUT = Direction.INGRESS, Direction.EGRESS

# argv: address port datagrams; each with a destination options header (RFC 8200, 4.6) of 8 bytes
UDP_WITH_OPTIONS = """
import socket, sys
address, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
options = bytes([0, 0, 1, 4, 0, 0, 0, 0])  # next header, length 0, PadN of 4
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, options)
s.settimeout(5)
for _ in range(count):
    s.sendto(b"c" * 31, (address, port))
    s.recv(65536)
"""
# argv: address count; an SCTP INIT by hand (RFC 9260, 3.3.2): nobody needs to understand it
SCTP_SEND = """
import socket, struct, sys
address, count = sys.argv[1], int(sys.argv[2])
six = ":" in address
s = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_RAW, 132)
packet = struct.pack(">HHIIBBHIIHHI", 5000, 5001, 0, 0, 1, 0, 20, 7, 65536, 1, 1, 9)
for _ in range(count): s.sendto(packet, (address, 0))
"""
SCTP_LISTEN = """
import socket, sys
s = socket.socket(socket.AF_INET6 if sys.argv[1] == "6" else socket.AF_INET, socket.SOCK_RAW, 132)
print("ready", flush=True)
for _ in range(int(sys.argv[2])): s.recv(65536)
print("all", flush=True)
"""


@pytest.fixture
def bed(standing: Bed) -> Bed:
    standing.flows(settle=0)
    return standing


def ends(pods: tuple[Pod, Pod], family: int) -> tuple[str, str]:
    one, two = pods
    return (one.address, two.address) if family == 4 else (one.address6, two.address6)


def test_who_sends_first_from_a_port_of_its_own_is_still_the_one_who_asks(bed: Bed) -> None:
    # Early on, an answer to somebody who asked before the programs would look the same.
    one, two = (bed.node.pod("t", "Deployment", name) for name in ("first", "second"))
    bound = UDP_CLIENT.replace("if connected:", "s.bind(('', 500))\n    if connected:")
    server = start(two, UDP_SERVER, "0.0.0.0", 500, 17)
    client(one, bound, two.address, 500, 1, 3, 11, 17, 0)
    stop(server)
    total = drain(bed)
    assert total.of(one, OUT, 500, protocol=UDP, peer=two.address) == (1, 33, 51)
    assert total.of(two, IN, 500, protocol=UDP, peer=one.address) == (1, 51, 33)


@pytest.mark.parametrize("connected", [0, 1])
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(("flows", "datagrams"), [(23, 3), (101, 1)])
def test_every_udp_flow_and_every_byte_is_counted_on_both_sides(
    bed: Bed, pods: tuple[Pod, Pod], family: int, connected: int, flows: int, datagrams: int
) -> None:
    one, two = pods
    asker, address = ends(pods, family)
    port = 5310 + flows + connected  # a conversation of an earlier case is not begun again
    server = start(two, UDP_SERVER, "0.0.0.0" if family == 4 else "::", port, 97)
    client(one, UDP_CLIENT, address, port, flows, datagrams, 41, 97, connected)
    stop(server)
    total, n = drain(bed), flows * datagrams
    assert total.of(one, OUT, port, protocol=UDP, peer=address) == (flows, n * 41, n * 97)
    assert total.of(two, IN, port, protocol=UDP, peer=asker) == (flows, n * 97, n * 41)
    assert len(total.about(one, two)) == 2


def test_ten_thousand_udp_flows_while_the_maps_are_swapped(bed: Bed, pods: tuple[Pod, Pod]) -> None:
    one, two = pods
    server = start(two, UDP_SERVER, "0.0.0.0", 5301, 5)
    run = one.run(one.python_command(UDP_CLIENT, two.address, "5301", "10007", "1", "3", "5", "0"))
    total, swaps = Total(), 0
    while run.poll() is None:
        total += bed.flows(settle=0.005)
        swaps += 1
    assert run.wait() == 0
    total += bed.flows()
    stop(server)
    assert swaps > 23
    assert total.of(one, OUT, 5301, protocol=UDP) == (10007, 3 * 10007, 5 * 10007)
    assert total.of(two, IN, 5301, protocol=UDP) == (10007, 5 * 10007, 3 * 10007)
    assert lost(bed) == {}


@pytest.mark.parametrize("family", [4, 6])
def test_a_closed_udp_port_is_refused_at_the_target(
    bed: Bed, pods: tuple[Pod, Pod], family: int
) -> None:
    one, two = pods
    asker, address = ends(pods, family)
    assert client(one, TRY, address, 5399, "udp") == "ECONNREFUSED"
    total = drain(bed)
    assert total.of(two, IN, 5399, Verdict.REFUSED, UDP, asker) == (1, 0, 0)
    assert total.of(one, OUT, 5399, Verdict.ALLOWED, UDP, address) == (1, 5, 0)


def test_a_late_answer_is_no_attempt_on_a_closed_port(bed: Bed, pods: tuple[Pod, Pod]) -> None:
    one, two = pods
    late = UDP_SERVER.replace("if answer:", "import time; time.sleep(0.1)\n    if answer:")
    server = start(two, late, "0.0.0.0", 5302, 7)
    client(one, UDP_CLIENT, two.address, 5302, 1, 1, 3, 0, 0)
    time.sleep(0.1)
    stop(server)
    total = drain(bed)
    assert total.of(one, OUT, 5302, protocol=UDP)[0] == 1
    assert not [f for f in total.about(one, two) if f.verdict == Verdict.REFUSED]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "own"])
def test_udp_inside_a_pod_is_marked_as_loopback(
    bed: Bed, pods: tuple[Pod, Pod], address: str
) -> None:
    _, two = pods
    address = two.address if address == "own" else address
    server = start(two, UDP_SERVER, "::", 5303, 13)
    client(two, UDP_CLIENT, address, 5303, 23, 1, 11, 13, 0)
    stop(server)
    total = drain(bed)
    assert total.of(two, OUT, 5303, protocol=UDP, scope=Scope.LOOPBACK) == (23, 253, 299)
    assert total.of(two, IN, 5303, protocol=UDP, scope=Scope.LOOPBACK) == (23, 299, 253)
    assert len(total.about(two)) == 2


def test_extension_headers_do_not_hide_the_port(bed: Bed, pods: tuple[Pod, Pod]) -> None:
    one, two = pods
    server = start(two, UDP_SERVER, "::", 5304, 17)
    client(one, UDP_WITH_OPTIONS, two.address6, 5304, 23)
    stop(server)
    total = drain(bed)
    assert total.of(one, OUT, 5304, protocol=UDP, peer=two.address6) == (1, 23 * 31, 23 * 17)
    assert total.of(two, IN, 5304, protocol=UDP, peer=one.address6) == (1, 23 * 17, 23 * 31)
    assert lost(bed) == {}


def test_extension_headers_do_not_hide_a_closed_port(bed: Bed, pods: tuple[Pod, Pod]) -> None:
    one, two = pods
    client(one, UDP_WITH_OPTIONS.replace("s.recv(65536)", "pass"), two.address6, 5305, 1)
    total = drain(bed)
    assert total.of(two, IN, 5305, Verdict.REFUSED, UDP, one.address6) == (1, 0, 0)


@pytest.mark.parametrize("family", [4, 6])
def test_ping_passes_and_is_counted(bed: Bed, pods: tuple[Pod, Pod], family: int) -> None:
    one, _ = pods
    _, address = ends(pods, family)
    said = one.check_output(["ping", "-c3", "-i0.05", "-s56", "-W2", address])
    assert " 0% packet loss" in said
    total = drain(bed)
    connections, sent, received = total.of(one, OUT, 0, protocol=ICMP, peer=address)
    assert connections == 1
    assert sent == received == 3 * 64  # with the ICMP header of 8


@pytest.mark.parametrize("family", [4, 6])
def test_sctp_passes_and_is_counted(bed: Bed, pods: tuple[Pod, Pod], family: int) -> None:
    one, two = pods
    asker, address = ends(pods, family)
    server = start(two, SCTP_LISTEN, family, 23)
    client(one, SCTP_SEND, address, 23)
    assert server.stdout
    assert server.stdout.readline()
    stop(server)
    total = drain(bed)
    assert total.of(one, OUT, 0, protocol=SCTP, peer=address) == (1, 23 * 32, 0)
    assert total.of(two, IN, 0, protocol=SCTP, peer=asker) == (1, 0, 23 * 32)


def test_a_packet_that_cannot_be_read_passes_and_is_a_loss(bed: Bed, pods: tuple[Pod, Pod]) -> None:
    one, two = pods
    for _ in range(3):
        client(one, UNREADABLE, two.address6)
    assert lost(bed) == {LossReason.UNPARSED: 3}
