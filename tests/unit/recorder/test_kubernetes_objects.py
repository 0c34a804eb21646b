"""What is kept of objects as an API server sends them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from portforge.schema import Workload
from portforge_recorder import kubernetes_objects as objects
from portforge_recorder.kubernetes_objects import KeptPort, KeptService, KeptSlice
from portforge_recorder.kubernetes_services import make_services

POD = {
    "metadata": {
        "uid": "u",
        "namespace": "shop",
        "name": "web-x",
        "creationTimestamp": "2026-11-25T10:00:00Z",
    },
    "spec": {"nodeName": "node-a"},
    "status": {
        "phase": "Running",
        "podIP": "10.244.0.7",
        "podIPs": [{"ip": "10.244.0.7"}, {"ip": "FD00::0:7"}],
        "startTime": "2026-11-25T10:00:01Z",
    },
}


def test_a_pod_with_two_families():
    pod = objects.pod(POD)
    assert pod is not None
    assert pod.addresses == ("10.244.0.7", "fd00::7")
    assert pod.since == datetime(2026, 11, 25, 10, 0, 1, tzinfo=UTC)
    assert (pod.ended, pod.until, pod.owner) == (False, None, None)


def test_a_pod_without_a_node_is_not_kept():
    assert objects.pod({**POD, "spec": {}}) is None


def ended_at(*finished: str | None) -> datetime | None:
    states = [{"state": {"terminated": {"finishedAt": f}} if f else {"running": {}}}
              for f in finished]  # fmt: skip
    pod = objects.pod({**POD, "status": {"phase": "Failed", "containerStatuses": states}})
    assert pod is not None
    return pod.until


def test_a_pod_ended_with_its_last_container():
    assert ended_at("2026-11-25T11:00:00Z", "2026-11-25T12:00:00Z") == datetime(
        2026, 11, 25, 12, 0, 1, tzinfo=UTC
    )
    assert ended_at("2026-11-25T11:00:00Z", None) is None
    assert ended_at() is None, "evicted before anything ran"


@pytest.mark.parametrize("cidr", ["10.244.3.0/24", "fd00:3::/64"])
def test_addresses_of_a_node(cidr):
    node = objects.node(
        {
            "metadata": {
                "name": "n",
                "annotations": {"projectcalico.org/IPv4VXLANTunnelAddr": "10.5.0.1"},
            },
            "spec": {"podCIDR": cidr},
            "status": {
                "addresses": [
                    {"type": "InternalIP", "address": "192.0.2.1"},
                    {"type": "ExternalIP", "address": "198.51.100.1"},
                    {"type": "Hostname", "address": "n"},
                ]
            },
        }
    )
    first, zero = ("10.244.3.1", "10.244.3.0") if "." in cidr else ("fd00:3::1", "fd00:3::")
    assert node.addresses == ("192.0.2.1", "198.51.100.1", first, zero, "10.5.0.1")
    assert node.ranges == (cidr,)


def test_a_service_in_front_of_two_workloads_or_of_an_unknown_one_has_none():
    service = KeptService("shop", "web", ("10.96.0.1",), (), (KeptPort("", "TCP", 80, 8080, 0),))
    web, cart = (Workload("shop", "Deployment", name) for name in ("web", "cart"))

    def behind(*pods: str) -> Workload | None:
        parts = [KeptSlice("shop", "web", (), pods)]
        return make_services([service], parts, {"1": web, "2": web, "3": cart}, ())[0].workload

    assert behind("1", "2") == web
    assert behind("1", "3") is None
    assert behind("1", "not-seen-yet") is None
    assert behind() is None


def test_a_named_port_that_differs_among_pods_is_not_guessed():
    port = KeptPort("http", "TCP", 80, None, 0)
    service = KeptService("shop", "web", ("10.96.0.1",), (), (port,))
    parts = [KeptSlice("shop", "web", (("http", "TCP", n),), ()) for n in (8080, 8081)]
    assert make_services([service], parts, {}, ())[0].ports == ()
    assert make_services([service], parts[:1], {}, ())[0].ports[0].target_port == 8080
    assert make_services([service], [], {}, ())[0].ports == ()
