"""Attempts on the node's own namespace belong to the node, never to a pod that shares it."""

from __future__ import annotations

import socket

import pytest

from portforge.apply.layout import Direction, Scope, Verdict

from .bed import Bed

CLOSED_PORT = 46231


def test_a_closed_port_of_the_node_is_recorded_as_the_nodes(bed: Bed) -> None:
    # The recorder's namespace is the node's; here that is the one the tests run in.
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", CLOSED_PORT), 2)
    (flow,) = [f for f in bed.flows() if f.port == CLOSED_PORT]
    assert flow.cgroup == 0
    assert (flow.direction, flow.verdict, flow.connections) == (
        Direction.INGRESS,
        Verdict.REFUSED,
        1,
    )
    assert flow.scope is Scope.LOOPBACK
