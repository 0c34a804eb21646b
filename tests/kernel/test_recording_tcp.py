"""TCP is recorded exactly: connections, payload bytes, direction, and what became of it."""

from __future__ import annotations

import time

import pytest

from portforge.apply.layout import Direction, Scope, Verdict
from portforge.demo.pods import Pod

from .bed import Bed
from .talk import TCP_CLIENT, TCP_SERVER, TRY, Total, client, drain, lost, start, stop

IN, OUT = Direction.INGRESS, Direction.EGRESS


@pytest.fixture
def bed(standing: Bed) -> Bed:
    standing.flows(settle=0)
    return standing


@pytest.mark.parametrize("closer", ["client", "server"])
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(("count", "sent", "answered"), [(23, 1009, 70001), (101, 0, 17)])
def test_every_connection_and_every_byte_is_counted_on_both_sides(
    bed: Bed, pods: tuple[Pod, Pod], family: int, closer: str, count: int, sent: int, answered: int
) -> None:
    one, two = pods
    asker, address = (one.address, two.address) if family == 4 else (one.address6, two.address6)
    server = start(two, TCP_SERVER, "::", 7000, sent, answered, closer)
    client(one, TCP_CLIENT, address, 7000, count, sent, answered, closer)
    stop(server)
    total = drain(bed)
    assert total.of(one, OUT, 7000, peer=address) == (count, count * sent, count * answered)
    assert total.of(two, IN, 7000, peer=asker) == (count, count * answered, count * sent)
    assert len(total.about(one, two)) == 2


def test_ten_thousand_connections_while_the_maps_are_swapped(
    bed: Bed, pods: tuple[Pod, Pod]
) -> None:
    one, two = pods
    server = start(two, TCP_SERVER, "0.0.0.0", 7001, 3, 5, "client")
    run = one.run(one.python_command(TCP_CLIENT, two.address, "7001", "10007", "3", "5", "client"))
    total, swaps = Total(), 0
    began = time.monotonic()
    while run.poll() is None:
        total += bed.flows(settle=0.005)
        swaps += 1
    assert run.wait() == 0
    assert time.monotonic() - began < 20
    total += bed.flows()
    stop(server)
    assert swaps > 23
    assert total.of(one, OUT, 7001) == (10007, 3 * 10007, 5 * 10007)
    assert total.of(two, IN, 7001) == (10007, 5 * 10007, 3 * 10007)
    assert lost(bed) == {}


@pytest.mark.parametrize("family", [4, 6])
def test_a_closed_port_is_refused_at_both_ends(
    bed: Bed, pods: tuple[Pod, Pod], family: int
) -> None:
    one, two = pods
    asker, address = (one.address, two.address) if family == 4 else (one.address6, two.address6)
    assert client(one, TRY, address, 7099, "tcp") == "ECONNREFUSED"
    total = drain(bed)
    assert total.of(two, IN, 7099, Verdict.REFUSED, peer=asker) == (1, 0, 0)
    assert total.of(one, OUT, 7099, Verdict.REFUSED, peer=address) == (1, 0, 0)
    assert len(total.about(one, two)) == 2


@pytest.mark.parametrize("address", ["10.77.0.250", "fd77::fa"])
def test_a_dead_address_is_a_failed_connection(
    bed: Bed, pods: tuple[Pod, Pod], address: str
) -> None:
    one, _ = pods
    assert client(one, TRY, address, 7098, "tcp", 0.3) in ("TIMEOUT", "EHOSTUNREACH", "EINVAL")
    total = drain(bed)
    assert total.of(one, OUT, 7098, Verdict.FAILED, peer=address) == (1, 0, 0)
    assert len(total.about(one)) == 1


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "own"])
def test_traffic_inside_a_pod_is_marked_as_loopback(
    bed: Bed, pods: tuple[Pod, Pod], address: str
) -> None:
    _, two = pods
    bed.enforce()
    address = two.address if address == "own" else address
    server = start(two, TCP_SERVER, "::", 7002, 11, 13, "server")
    client(two, TCP_CLIENT, address, 7002, 23, 11, 13, "server")
    stop(server)
    total = drain(bed)
    inside = Scope.LOOPBACK
    assert total.of(two, OUT, 7002, peer=address, scope=inside) == (23, 253, 299)
    assert total.of(two, IN, 7002, peer=address, scope=inside) == (23, 299, 253)
    assert len(total.about(two)) == 2
