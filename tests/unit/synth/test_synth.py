"""The made-up clusters keep the contract, tell the truth about themselves, and are repeatable."""

from __future__ import annotations

import pandas as pd
import pytest

from portforge.capture import open_capture
from portforge.errors import WriteError
from portforge.policy import Entity, Mode, PeerSelector, PortPolicy, Rule, simulate
from portforge.schema import COLUMNS, Protocol, Workload
from portforge.synth import ONLINE_BOUTIQUE, SOCK_SHOP, Graph, cluster, random_graph

WHO = ["namespace", "workload_kind", "workload"]


@pytest.fixture(scope="module")
def made():
    return cluster(SOCK_SHOP, seed=3, days=8, scans_per_week=4, losses_per_week=0)


def test_the_same_seed_gives_the_same_rows_and_another_does_not():
    one, two, other = (cluster(SOCK_SHOP, seed=seed, days=2) for seed in (5, 5, 6))
    pd.testing.assert_frame_equal(one.flows, two.flows)
    pd.testing.assert_frame_equal(one.truth, two.truth)
    pd.testing.assert_frame_equal(one.losses, two.losses)
    assert len(one.flows) != len(other.flows)


def test_a_written_cluster_is_a_capture(made, tmp_path):
    capture = open_capture(made.write(tmp_path / "capture"))
    assert capture.rows == len(made.flows)
    assert list(made.flows) == [*(c.name for c in COLUMNS), "cluster", "date"]
    assert capture.clusters == ("synthetic",)
    with pytest.raises(WriteError, match="not empty"):
        made.write(tmp_path / "capture")


def test_losses_are_written_and_their_flows_are_gone(tmp_path):
    whole = cluster(SOCK_SHOP, seed=4, days=3, losses_per_week=0)
    made = cluster(SOCK_SHOP, seed=4, days=3, losses_per_week=14)
    capture = open_capture(made.write(tmp_path / "capture"))
    lost = capture.losses()
    assert lost["count"].sum() == len(whole.flows) - len(made.flows) > 0
    assert len(made.what) == len(made.needed) == len(made.flows)


def test_policies_written_from_the_truth_allow_all_that_is_needed_and_no_scan(made):
    judged = simulate(_policies(made.truth), made.flows, mode_override=Mode.ENFORCE).frame
    needed = made.what == "needed"
    assert (judged["decision"][needed] == "allowed").all()
    owners = {tuple(w) for w in made.truth[WHO].to_numpy()}
    known = pd.Series([tuple(w) in owners for w in made.flows[WHO].to_numpy()])
    assert (judged["decision"][(made.what == "scan") & known] == "denied").all()
    assert (made.needed[needed] >= 0).all()
    assert (made.needed[~needed] == -1).all()


def test_scans_are_mostly_refused_and_answered_with_next_to_nothing(made):
    scan = made.flows[made.what == "scan"]
    assert set(scan["direction"]) == {"ingress", "egress"}
    assert (scan["verdict"] == "refused").mean() > 0.8
    answered = scan[scan["verdict"] == "allowed"]
    assert (answered["bytes_sent"] + answered["bytes_received"]).max() < 64


def test_days_are_busier_than_nights_and_sundays_have_their_job(made):
    flows = made.flows[made.needed == 0]  # customers of the entry
    at = flows["first_seen"].dt
    weekend = flows[at.day_of_week >= 5]["connections"].sum() / 2
    assert weekend < flows[at.day_of_week < 5]["connections"].sum() / 6
    weekly = made.truth[made.truth["kind"] == "weekly"]
    assert set(weekly["days"]) == {1}
    assert set(weekly["first_needed"].dt.day_of_week) == {6}


def test_start_up_calls_come_only_when_a_pod_starts(made):
    items = made.truth.index[
        (made.truth["kind"] == "startup") & (made.truth["direction"] == "egress")
    ]
    calls = made.flows[made.needed.isin(items)]
    born = made.flows.groupby("pod")["first_seen"].min()
    assert len(calls) > 0
    waited = calls["first_seen"] - calls["pod"].map(born)
    assert (waited < pd.Timedelta(seconds=120)).all()


def test_held_connections_are_opened_once_for_each_pod():
    made = cluster(ONLINE_BOUTIQUE, seed=1, days=3)
    cart = made.flows[
        (made.flows["workload"] == "cartservice")
        & (made.flows["direction"] == "egress")
        & (made.flows["port"] == 6379)
    ]
    assert (cart["connections"] == 0).mean() > 0.9
    assert (cart["bytes_sent"] > 0).all()
    assert set(cart["peer_kind"]) == {"service"}


def test_one_replica_of_several_calls_outside_and_ftp_takes_many_ports(made):
    odd = made.flows[
        made.flows["peer_name"].eq("licence.vendor.example") & made.flows["port"].eq(8443)
    ]
    owner = odd["workload"].iloc[0]
    pods = made.flows[made.flows["workload"] == owner]["pod"].nunique()
    assert odd["pod"].nunique() < pods
    ftp = made.flows[(made.flows["workload"] == "ftp") & (made.flows["port"] >= 40000)]
    assert ftp["port"].nunique() > 50


ATTACKS = {"beacons": 1, "intruders": 2, "exfiltrations": 1}


def test_attacks_are_added_and_change_nothing_else():
    plain, made = (cluster(SOCK_SHOP, seed=3, days=8, **more) for more in ({}, ATTACKS))
    kinds = ["beacon", "intruder", "exfiltration"]
    attack = made.what.isin(kinds)
    pd.testing.assert_frame_equal(made.flows[~attack].reset_index(drop=True), plain.flows)
    pd.testing.assert_frame_equal(made.truth, plain.truth)
    assert set(made.what[attack]) == set(kinds)
    assert (made.needed[attack] == -1).all()
    assert (made.flows["verdict"][attack] == "allowed").all()
    beacon = made.flows[made.what == "beacon"].sort_values("first_seen")
    assert beacon[["pod", "peer_ip"]].drop_duplicates().shape == (1, 2)
    waits = beacon["first_seen"].diff().dt.total_seconds()
    assert 0.03 < waits.std() / waits.mean() < 0.2
    robbed = made.flows[made.what == "intruder"].groupby("direction").size()
    assert robbed["egress"] == robbed["ingress"]
    assert made.flows[made.what == "exfiltration"]["bytes_sent"].sum() > 5e8


def test_regular_calls_are_needed_and_regular():
    plain, made = (cluster(SOCK_SHOP, seed=3, days=3, regular_calls=more) for more in (False, True))
    assert len(made.truth) > len(plain.truth)
    clock = made.flows[made.flows["peer_name"] == "time.example.net"]
    assert (made.needed[clock.index] >= 0).all()
    waits = clock.sort_values("first_seen").groupby("pod")["first_seen"].diff().dt.total_seconds()
    assert waits.median() == pytest.approx(1024, abs=1)


def test_published_graphs_have_their_edges():
    def inside(graph: Graph) -> int:
        return sum(isinstance(call.client, Workload) for call in graph.calls)

    assert inside(ONLINE_BOUTIQUE) == 16
    assert inside(SOCK_SHOP) == 15


def test_a_random_graph_has_no_cycle_and_wants_enough_workloads():
    graph = random_graph(15, seed=2)
    place = {m.workload: n for n, m in enumerate(graph.members)}
    inner = [c for c in graph.calls if isinstance(c.client, Workload)]
    assert all(place[c.client] < place[c.server] for c in inner)
    with pytest.raises(ValueError, match="at least 3"):
        random_graph(2, seed=1)
    with pytest.raises(ValueError, match="at least one day"):
        cluster(SOCK_SHOP, seed=1, days=0)


def _policies(truth: pd.DataFrame) -> list[PortPolicy]:
    made = []
    for owner, own in truth.groupby(WHO):
        rules: dict[str, list[Rule]] = {"ingress": [], "egress": []}
        by_port = own.groupby(["direction", "protocol", "port", "end_port"])
        for (direction, protocol, port, end), items in by_port:
            rules[direction].append(
                Rule(
                    id=f"{direction}-{protocol}-{port}".lower(),
                    protocol=Protocol(protocol),
                    port=port,
                    end_port=end,
                    peers=tuple(_peer(item) for item in items.to_dict("records")),
                )
            )
        workload = Workload(*owner)
        made.append(
            PortPolicy(
                namespace=workload.namespace,
                name=workload.slug,
                workload=workload,
                ingress=tuple(rules["ingress"]),
                egress=tuple(rules["egress"]),
            )
        )
    return made


def _peer(item: dict[str, str]) -> PeerSelector:
    if item["peer_cidr"] == "0.0.0.0/0":
        return PeerSelector(entity=Entity.WORLD)
    if isinstance(item["peer_cidr"], str):
        return PeerSelector(cidr=item["peer_cidr"])
    return PeerSelector(workload=Workload(*(item[f"peer_{name}"] for name in WHO)))
