"""What the kernel counted becomes rows of contract 1."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from portforge.apply.inventory import Inventory, Pod
from portforge.apply.layout import FLOW, FLOW_KEY, LISTENER, LISTENER_KEY, packed_address
from portforge.schema import FLOW_SCHEMA, SORT_COLUMNS, Workload
from portforge_recorder.attribute import attribute, canonical


def nobody(_cgroup: int, _address: bytes) -> None:
    """No pod was told a name."""


CLOCK = 1_795_600_800_000_000
WEB = "0f8fad5b-d9cb-469f-a165-70867728950e"


def only(result: tuple[pa.Table, int]) -> dict:
    table, _ = result
    assert table.num_rows == 1
    return table.to_pylist()[0]


def test_a_connection_to_a_pod(drain, entry) -> None:
    table, unattributed = drain(
        entry(
            connections=23,
            bytes_sent=5,
            bytes_received=7,
            rtt_us=90,
            retransmits=2,
            policy=3,
            rule=1,
        ),
        rules={(3, 1): "out-redis"},
    )
    assert unattributed == 0
    assert table.schema.equals(FLOW_SCHEMA, check_metadata=True)
    table.validate(full=True)
    assert table.to_pylist() == [
        {
            "first_seen": datetime(2026, 11, 25, 10, 0, 1, tzinfo=UTC),
            "last_seen": datetime(2026, 11, 25, 10, 0, 2, tzinfo=UTC),
            "node": "node-a",
            "namespace": "shop",
            "workload_kind": "Deployment",
            "workload": "web",
            "pod": "web-abc",
            "direction": "egress",
            "protocol": "TCP",
            "port": 6379,
            "target_port": None,
            "peer_ip": "10.77.0.12",
            "peer_kind": "workload",
            "peer_namespace": "shop",
            "peer_workload_kind": "StatefulSet",
            "peer_workload": "redis",
            "peer_name": None,
            "verdict": "allowed",
            "connections": 23,
            "bytes_sent": 5,
            "bytes_received": 7,
            "rtt_us": 90,
            "retransmits": 2,
            "rule": "out-redis",
        }
    ]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"peer": "10.96.0.5"}, {"peer_kind": "service", "target_port": 16379}),
        ({"peer": "10.96.0.5", "port": 80}, {"peer_kind": "service", "target_port": None}),
        ({"peer": "10.96.0.5", "protocol": 17}, {"protocol": "UDP", "target_port": None}),
        ({"peer": "10.96.0.5", "direction": 0}, {"direction": "ingress", "target_port": None}),
        ({"peer": "fd77::12"}, {"peer_ip": "fd77::12", "peer_workload": "redis"}),
        ({"peer": "10.77.0.1"}, {"peer_kind": "node", "peer_workload": "node-a"}),
        ({"peer": "10.77.0.200"}, {"peer_kind": "unknown", "peer_workload": None}),
        ({"peer": "192.0.2.1"}, {"peer_kind": "external", "peer_namespace": None}),
        ({"peer": None}, {"peer_kind": "unknown", "peer_ip": None}),
        ({"peer": None, "scope": 1}, {"peer_kind": "loopback", "peer_ip": None}),
        ({"peer": "10.77.0.11", "scope": 1}, {"peer_kind": "loopback", "peer_workload": None}),
        ({"peer": "127.0.0.1"}, {"peer_kind": "loopback", "peer_ip": "127.0.0.1"}),
        ({"protocol": 1, "port": 0}, {"protocol": "ICMP", "port": 0}),
        ({"protocol": 132, "port": 0}, {"protocol": "SCTP"}),
        ({"port": 65535}, {"port": 65535}),
        ({"verdict": 1}, {"verdict": "denied"}),
        ({"verdict": 2}, {"verdict": "audited"}),
        ({"verdict": 3}, {"verdict": "refused"}),
        ({"verdict": 4}, {"verdict": "failed"}),
        ({"rtt_us": 0}, {"rtt_us": None}),
        ({"policy": 7, "rule": 0}, {"rule": None}),
        ({"policy": 7, "rule": 9}, {"rule": None}),
        ({"bytes_sent": 2**64 - 1}, {"bytes_sent": 2**63 - 1}),
        ({"last_ns": 0}, {"last_seen": datetime(2026, 11, 25, 10, 0, 1, tzinfo=UTC)}),
        (
            {"cgroup": 0},
            {"namespace": None, "workload_kind": "Node", "workload": "node-a", "pod": None},
        ),
        (
            {"cgroup": 12},
            {"namespace": None, "workload_kind": "Node", "workload": "node-a", "pod": "proxy-x"},
        ),
    ],
)
def test_one_row(drain, entry, change: dict, expected: dict) -> None:
    row = only(drain(entry(**change)))
    assert {k: row[k] for k in expected} == expected


@pytest.mark.parametrize("cgroup", [99, 12345])
def test_an_unknown_pod_is_null_and_counted(drain, entry, cgroup: int) -> None:
    table, unattributed = drain(entry(cgroup=cgroup), entry(cgroup=cgroup, port=1), entry())
    assert unattributed == 2
    rows = table.to_pylist()
    assert [r["pod"] for r in rows] == ["web-abc", None, None]
    assert {rows[1][n] for n in ("namespace", "workload_kind", "workload", "pod")} == {None}


def test_listeners(drain, listening) -> None:
    table, _ = drain(
        listeners=[
            listening(11, 80),
            listening(11, 81, scope=1),
            listening(11, 82, live=0),
            listening(11, 83, live=0, snapshot=1, since_ns=0),
        ],
        now=9_000_000_000,
    )
    rows = table.to_pylist()
    assert [r["port"] for r in rows] == [80, 81, 83]
    assert {r["verdict"] for r in rows} == {"listening"}
    assert {r["direction"] for r in rows} == {"ingress"}
    assert {r["peer_ip"] for r in rows} == {None}
    assert [r["peer_kind"] for r in rows] == ["unknown", "loopback", "unknown"]
    assert {r["connections"] for r in rows} == {0}
    at_boot, now = (
        datetime(2026, 11, 25, 10, tzinfo=UTC),
        datetime(2026, 11, 25, 10, 0, 9, tzinfo=UTC),
    )
    assert rows[0]["first_seen"] == at_boot.replace(microsecond=500)
    assert rows[0]["last_seen"] == now
    assert rows[2]["first_seen"] == now


def test_nothing(drain) -> None:
    table, unattributed = drain()
    assert (table.num_rows, unattributed) == (0, 0)
    assert table.schema.equals(FLOW_SCHEMA, check_metadata=True)


def test_sorted_whatever_the_order_of_the_map(drain, entry) -> None:
    entries = [
        entry(cgroup=c, port=p, direction=d, peer=peer, first_ns=f)
        for c in (0, 11, 12, 99)
        for p in (5, 443, 80)
        for d in (0, 1)
        for peer in ("10.77.0.12", "192.0.2.9", None)
        for f in (10**9, 10**6)
    ]
    table, _ = drain(*entries)
    again, _ = drain(*(entries[i] for i in np.random.default_rng(7).permutation(len(entries))))
    assert again.equals(table)
    keys = [
        tuple((r[n] is None, r[n] or 0) if r[n] is None else (False, r[n]) for n in SORT_COLUMNS)
        for r in table.to_pylist()
    ]
    assert keys == sorted(keys)
    # joined and split tables come out the same too
    assert canonical(pa.concat_tables([table.slice(50), table.slice(0, 50)])).equals(table)


def test_none_of_fifty_thousand_rows_is_lost(inventory) -> None:
    n = 50_000
    random = np.random.default_rng(1)
    keys, values = np.zeros(n, FLOW_KEY), np.zeros(n, FLOW)
    keys["cgroup"] = random.choice([0, 11, 12, 99], n)
    keys["peer"][:, 10:12] = 255
    keys["peer"][:, 12:] = random.integers(0, 256, (n, 4)) % [12, 100, 2, 20]
    keys["port"], keys["protocol"] = random.integers(0, 65536, n), random.choice([1, 6, 17, 132], n)
    keys["direction"] = random.integers(0, 2, n)
    values["first_ns"] = values["last_ns"] = random.integers(1, 2**50, n)
    nothing = np.zeros(0, LISTENER_KEY), np.zeros(0, LISTENER)
    names = {11: "podaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}
    values["connections"] = random.integers(0, 9, n)
    table, _ = attribute(keys, values, nothing, names, inventory, {}, 0, 0, "node-a", nobody)
    assert table.num_rows == n
    assert pc.sum(table["connections"]).as_py() == values["connections"].sum()


def test_rows_name_the_pod_that_had_the_address_then(entry) -> None:
    boot = datetime.fromtimestamp(CLOCK / 1e6, UTC)
    pods = [
        Pod(WEB, "shop", "web", Workload("shop", "Deployment", "web"), "node-a", ("10.77.0.11",)),
        *(
            Pod(
                name, "shop", name, Workload("shop", "Job", name), "node-b", ("10.77.0.99",),
                since=since and boot + timedelta(seconds=since),
                until=until and boot + timedelta(seconds=until),
            )
            for name, since, until in (("old", None, 100), ("new", 200, None))
        ),
    ]  # fmt: skip
    met = [(10, 20), (50, 60), (250, 260), (60, 260), (150, 150)]
    flows = [
        entry(peer="10.77.0.99", port=port, first_ns=int(first * 1e9), last_ns=int(last * 1e9))
        for port, (first, last) in enumerate(met, start=1)
    ]
    flows += [entry(peer="10.77.0.99", port=6, scope=1), entry(peer="10.77.0.11", port=7)]
    keys, values = (np.concatenate(part) for part in zip(*flows, strict=True))
    empty = (np.zeros(0, LISTENER_KEY), np.zeros(0, LISTENER))
    inventory = Inventory("demo", "node-a", tuple(pods), cidrs=("10.77.0.0/24",))
    table, _ = attribute(
        keys, values, empty, {11: f"pod{WEB}"}, inventory, {}, CLOCK, 10**12, "node-a", nobody
    )
    found = {r["port"]: (r["peer_kind"], r["peer_workload"]) for r in table.to_pylist()}
    assert found == {
        1: ("workload", "old"),
        2: ("workload", "old"),
        3: ("workload", "new"),
        4: ("unknown", None),
        5: ("unknown", None),
        6: ("loopback", None),
        7: ("workload", "web"),
    }


def test_a_pod_whose_owner_is_not_known_has_no_workload(entry) -> None:
    keys, values = entry()
    empty = (np.zeros(0, LISTENER_KEY), np.zeros(0, LISTENER))
    inventory = Inventory("demo", "node-a", (Pod(WEB, "shop", "web-x", None, "node-a"),))
    table, unattributed = attribute(
        keys, values, empty, {11: f"pod{WEB}"}, inventory, {}, CLOCK, 10**12, "node-a", nobody
    )
    row = table.to_pylist()[0]
    assert [row[n] for n in ("namespace", "workload_kind", "workload", "pod")] == [
        "shop", None, None, "web-x",
    ]  # fmt: skip
    assert unattributed == 0


def test_an_outside_peer_that_the_pod_called_has_the_name_that_it_was_told(drain, entry) -> None:
    asked = []

    def told(cgroup: int, address: bytes) -> str | None:
        asked.append((cgroup, address))
        return {(11, packed_address("192.0.2.1")): "api.example.com"}.get((cgroup, address))

    table, _ = drain(
        entry(peer="192.0.2.1", port=1),
        entry(peer="192.0.2.1", port=2, verdict=1),
        entry(peer="192.0.2.1", port=3, direction=0),  # it called us
        entry(peer="192.0.2.1", port=4, cgroup=12),  # another pod was told nothing
        entry(peer="192.0.2.2", port=5),
        entry(peer="10.77.0.12", port=6),  # of the cluster
        entry(peer=None, port=7),
        told=told,
    )
    named = {row["port"]: row["peer_name"] for row in table.to_pylist()}
    assert named == {1: "api.example.com", 2: "api.example.com"} | dict.fromkeys(range(3, 8))
    assert sorted(asked) == sorted(
        (cgroup, packed_address(peer))
        for cgroup, peer in ((11, "192.0.2.1"), (11, "192.0.2.2"), (12, "192.0.2.1"))
    )
