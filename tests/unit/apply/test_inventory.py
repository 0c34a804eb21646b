"""Who has, and who had, an address."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from portforge.apply.compile import compile_policies
from portforge.apply.inventory import Inventory, Node, Pod, Service, ServicePort
from portforge.policy import PortPolicy
from portforge.schema import PeerKind, Workload

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ADDRESS = "10.244.0.9"


def pod(name: str, since: datetime | None = None, until: datetime | None = None) -> Pod:
    return Pod(name, "shop", name, Workload("shop", "Job", name), "n", (ADDRESS,),
               since=since, until=until)  # fmt: skip


def inventory(*pods: Pod) -> Inventory:
    return Inventory("c", "n", pods, cidrs=("10.244.0.0/16",))


def who(known: Inventory, first: datetime, last: datetime) -> str | None:
    return known.peer_at(ADDRESS, first, last).workload


def test_each_holder_in_its_time():
    known = inventory(pod("old", NOON - 9 * MINUTE, NOON), pod("new", NOON + MINUTE))
    assert known.peer(ADDRESS).workload == "new"
    assert who(known, NOON - 2 * MINUTE, NOON - MINUTE) == "old"
    assert who(known, NOON + 2 * MINUTE, NOON + 3 * MINUTE) == "new"
    assert who(known, NOON - MINUTE, NOON + 2 * MINUTE) is None
    assert known.peer_at(ADDRESS, NOON, NOON + 2 * MINUTE).kind is PeerKind.UNKNOWN
    # Nobody has it in between; the clocks may differ by seconds.
    assert who(known, NOON + 3 * MINUTE / 60, NOON + 4 * MINUTE / 60) == "old"
    assert who(known, NOON + MINUTE / 2, NOON + MINUTE / 2) is None


def test_a_pod_that_ended_does_not_have_the_address_now():
    known = inventory(pod("old", until=NOON))
    assert known.peer(ADDRESS).kind is PeerKind.UNKNOWN
    assert known.known_addresses == ()
    assert who(known, NOON - MINUTE, NOON) == "old"
    assert not list(known.addresses(Workload("shop", "Job", "old")))
    assert not list(known.namespace_addresses("shop"))


def test_what_happened_before_the_only_holder_known_is_not_its_own():
    known = inventory(pod("new", since=NOON))
    assert who(known, NOON - MINUTE, NOON - MINUTE) is None
    assert who(known, NOON - MINUTE, NOON + MINUTE) is None
    assert who(known, NOON, NOON + MINUTE) == "new"
    assert known.constant(ADDRESS, NOON)
    assert not known.constant(ADDRESS, NOON - MINUTE)


def test_without_times_the_present_counts():
    known = inventory(pod("only"))
    assert who(known, NOON - MINUTE, NOON) == "only"
    assert known.peer_at("192.0.2.1", NOON, NOON).kind is PeerKind.EXTERNAL


def test_a_pod_whose_owner_is_not_known_compiles():
    orphan = Pod("u", "shop", "x", None, "n", (ADDRESS,))
    known = inventory(orphan)
    assert known.peer(ADDRESS) == (ADDRESS, PeerKind.UNKNOWN, None, None, None)
    policy = PortPolicy.model_validate(
        {
            "namespace": "shop",
            "name": "job-x",
            "workload": {"namespace": "shop", "kind": "Job", "name": "x"},
            "mode": "Audit",
            "ingress": [
                {"id": "a", "protocol": "TCP", "port": 80, "peers": [{"entity": "Cluster"}]}
            ],
        }
    )
    assert compile_policies([policy], known, NOON)[Workload("shop", "Job", "x")].peers


def test_a_node_port_leads_to_the_backend():
    service = Service("shop", "web", ("10.96.0.9",), (ServicePort("TCP", 80, 8080, 30080),))
    known = Inventory("c", "n", services=(service,), nodes=(Node("n", ("10.90.0.1",)),))
    assert known.target_port("10.90.0.1", "TCP", 30080) == 8080
    assert known.target_port("10.90.0.1", "UDP", 30080) is None
    assert known.target_port("192.0.2.1", "TCP", 30080) is None
    assert known.target_port("10.96.0.9", "TCP", 80) == 8080
