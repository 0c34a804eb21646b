"""Roles: who behaves alike, who differs, and the policy that a role shares."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from flow_rows import Row, row, write_capture

from portforge.capture import open_capture
from portforge.cli import portforge
from portforge.figures import role_matrix
from portforge.policy import Mode, PortPolicy, lint, read_policies, simulate
from portforge.recommend import Decision, Recommendation, Roles, recommend, roles
from portforge.recommend._frame import FrameCapture
from portforge.recommend._profiles import distances, profile_of
from portforge.schema import Workload
from portforge.synth import SOCK_SHOP, Call, Graph, Member, Outside, cluster

SHOP = Path(__file__).parents[3] / "datasets/shop"


def pairs(names: range, odd: bool = True) -> list[Row]:
    """For each name a web that its gateway calls and that calls its own redis."""
    rows = []
    for n in names:
        web, redis = f"web-{n}", f"redis-{n}"
        rows += [
            row("gateway", "egress", "TCP", 80, web),
            row(web, "ingress", "TCP", 80, "gateway"),
            row(web, "egress", "TCP", 6379, redis),
            row(web, "egress", "UDP", 53, "dns"),
            row(redis, "ingress", "TCP", 6379, web),
        ]
    return rows + ([row("web-2", "egress", "TCP", 22, "203.0.113.9")] if odd else [])


def learn(folder: Path, rows: list[Row], *decisions: Decision) -> Recommendation:
    return recommend(open_capture(write_capture(folder, rows)), decisions=decisions)


def groups(found: Roles) -> dict[str, list[str]]:
    by_role = found.members.groupby("role")["workload"]
    return {str(name): sorted(own) for name, own in by_role}


def of(found: Roles, workload: str, column: str) -> Any:
    return found.members.set_index("workload").loc[workload, column]


def policy(found: Roles, workload: str) -> PortPolicy:
    return next(p for p in found.policies if p.workload.name == workload)


def rules(found: Roles, workload: str) -> dict[str, list[str] | None]:
    one = policy(found, workload)
    every = (*(one.ingress or ()), *(one.egress or ()))
    return {r.id: None if r.peers is None else [str(p) for p in r.peers] for r in every}


def decision(verb: str, **about: Any) -> Decision:
    said = {"by": "Ana", "reason": "ours", "at": datetime(2026, 3, 3, tzinfo=UTC)}
    return Decision(decision=verb, **about, **said)  # type: ignore[arg-type]


def test_workloads_that_do_the_same_are_a_role_named_by_what_it_does(tmp_path: Path) -> None:
    found = roles(learn(tmp_path, pairs(range(4))))
    assert groups(found) == {
        "calls TCP 80": ["gateway"],
        "serves TCP 80": ["web-0", "web-1", "web-2", "web-3"],
        "serves TCP 6379": ["redis-0", "redis-1", "redis-2", "redis-3"],
    }


def test_the_member_that_differs_is_flagged_with_what_it_does_alone(tmp_path: Path) -> None:
    found = roles(learn(tmp_path, pairs(range(4))))
    differs = found.members.set_index("workload")["differs"]
    assert differs[differs != ""].to_dict() == {"web-2": "alone calls TCP 22 (203.0.113.9/32)"}
    assert "  ! shop/Deployment/web-2\n      alone calls TCP 22" in str(found)
    assert "    shop/Deployment/web-1\n" in str(found)
    assert of(found, "web-2", "distance") > of(found, "web-1", "distance") > 0
    state = found.profile.set_index(["workload", "door"])["state"]
    assert state["web-2", "calls TCP 22"] == "alone"
    assert state["web-1", "calls TCP 6379"] == "shared"


def test_what_all_others_do_and_one_does_not_is_said_and_another_kind_of_peer(
    tmp_path: Path,
) -> None:
    rows = pairs(range(4), odd=False)
    for n in range(4):
        rows += [row(f"web-{n}", "ingress", "TCP", 9100, "prometheus")] if n else []
        rows += [row(f"web-{n}", "ingress", "TCP", 8080, "gateway")]
    rows.append(row("web-3", "ingress", "TCP", 80, "198.51.100.1"))
    found = roles(learn(tmp_path, rows))
    assert of(found, "web-0", "differs") == "alone serves no TCP 9100"
    assert of(found, "web-3", "differs") == "alone serves TCP 80 to 198.51.100.1/32"
    state = found.profile.set_index(["workload", "door"])["state"]
    assert state["web-0", "serves TCP 9100"] == "missing"


def test_each_member_gets_what_any_of_its_role_needs_and_its_price(tmp_path: Path) -> None:
    made = learn(tmp_path, pairs(range(3)))
    found = roles(made)
    stores = [f"shop/Deployment/redis-{n}" for n in range(3)]
    for n in range(3):
        assert rules(found, f"web-{n}") == {
            "in-tcp-80": ["shop/Deployment/gateway"],
            "out-tcp-22": ["203.0.113.9/32"],
            "out-tcp-53": ["shop/Deployment/dns"],
            "out-tcp-6379": stores,
            "out-udp-53": ["shop/Deployment/dns"],
        }
        assert of(found, f"redis-{n}", "over_grant") == 2
    # Two stores of the others, and their address for TCP 22.
    assert [of(found, f"web-{n}", "over_grant") for n in range(3)] == [3, 3, 2]
    assert of(found, "gateway", "over_grant") == 0
    assert policy(found, "gateway") == next(p for p in made.policies if p.name.endswith("gateway"))
    assert lint(found.policies) == []
    assert {p.mode for p in found.policies} == {Mode.AUDIT}


def test_ranges_and_ports_that_overlap_become_one_rule(tmp_path: Path) -> None:
    rows = []
    for n, first in enumerate((40002, 40012)):
        ports = [first + 5 * i for i in range(20)]
        rows += [row(f"ftp-{n}", "ingress", "TCP", p, "up", connections=1) for p in ports]
        rows += [row(f"ftp-{n}", "ingress", "TCP", 21, "up")]
    made = learn(tmp_path, rows)
    spans = [[r.ports for r in p.ingress or ()] for p in made.policies if "ftp" in p.name]
    assert spans == [["21", "40000-40100"], ["21", "40010-40110"]]
    found = roles(made, distance=0.7)
    assert list(rules(found, "ftp-0")) == ["in-tcp-21", "in-tcp-40000-40110"]
    assert of(found, "ftp-0", "over_grant") == 10
    assert lint(found.policies) == []


def test_a_role_opens_nothing_that_is_sensitive_or_never_may_be(tmp_path: Path) -> None:
    never = decision(
        "never", workload="shop/Deployment/web-0", direction="egress", protocol="TCP", port=22
    )
    mark = decision("sensitive", workload="shop/Deployment/redis-1")
    made = learn(tmp_path, pairs(range(3)), never, mark)
    found = roles(made)
    assert groups(found)["serves TCP 80"] == ["web-0", "web-1", "web-2"]
    assert "out-tcp-22" not in rules(found, "web-0")
    assert "out-tcp-22" in rules(found, "web-1")
    # The marked store keeps its own rules, and no other web may reach it.
    assert rules(found, "redis-1") == {"in-tcp-6379": ["shop/Deployment/web-1"]}
    assert of(found, "redis-1", "over_grant") == 0
    assert of(found, "redis-1", "note") == (
        "without what would cross sensitive: Ana, 2026-03-03: ours"
    )
    for n in (0, 2):
        assert "shop/Deployment/redis-1" not in (rules(found, f"web-{n}")["out-tcp-6379"] or [])
    assert "shop/Deployment/redis-1" in (rules(found, "web-1")["out-tcp-6379"] or [])


def test_any_peer_of_one_member_is_not_passed_on(tmp_path: Path) -> None:
    rows = [*pairs(range(3), odd=False), row("web-1", "ingress", "TCP", 81, None)]
    rows += [row("web-0", "ingress", "TCP", 81, "gateway")]
    found = roles(learn(tmp_path, rows))
    assert rules(found, "web-1")["in-tcp-81"] is None
    assert rules(found, "web-2")["in-tcp-81"] == ["shop/Deployment/gateway"]


def test_a_role_too_big_for_a_rule_keeps_its_members_rules(tmp_path: Path) -> None:
    rows = []
    for n in range(3):
        rows += [
            row(f"web-{n}", "ingress", "TCP", 80, f"c-{n}-{i}", peer_namespace=f"team-{i % 10}")
            for i in range(100)
        ]
    made = learn(tmp_path, rows)
    found = roles(made)
    own = [m for m in groups(found).values() if "web-0" in m]
    assert own == [["web-0", "web-1", "web-2"]]
    assert of(found, "web-0", "note") == "keeps its own rules: no rule has room for 300 peers"
    assert policy(found, "web-0") == next(p for p in made.policies if p.workload.name == "web-0")


def test_the_distance_is_that_of_what_is_served_and_called(tmp_path: Path) -> None:
    rows = [
        row("a", "ingress", "TCP", 80, "198.51.100.1"), row("a", "egress", "TCP", 1, "192.0.2.1"),
        row("b", "ingress", "TCP", 80, "198.51.100.2"), row("b", "egress", "TCP", 2, "192.0.2.1"),
        row("c", "ingress", "TCP", 81, "198.51.100.2"), row("c", "egress", "TCP", 3, "192.0.2.1"),
    ]  # fmt: skip
    made = learn(tmp_path, rows)
    profiles = {p.workload: profile_of(p) for p in made.policies}
    assert distances(profiles, {}).tolist() == [[0, 0.5, 1], [0.5, 0, 1], [1, 1, 0]]
    assert len(roles(made, distance=0.49).members["role"].unique()) == 3
    assert len(roles(made, distance=0.5).members["role"].unique()) == 2
    assert len(roles(made, distance=1).members["role"].unique()) == 1
    with pytest.raises(ValueError, match="from 0 to 1"):
        roles(made, distance=1.5)


def tenants(seed: int) -> tuple[Graph, dict[str, int], str]:
    """A gateway, and in each of some namespaces a web, a worker and two stores: the known roles."""
    pick = random.Random(seed)
    gateway = Workload("edge", "Deployment", "gateway")
    members, calls, truth = [Member(gateway)], [], {"edge/gateway": 0}
    count = pick.randint(3, 5)
    odd = pick.randrange(count)
    for n in range(count):
        space = f"tenant-{n}"
        web, worker = (Workload(space, "Deployment", name) for name in ("web", "worker"))
        redis, db = (Workload(space, "StatefulSet", name) for name in ("redis", "db"))
        for role, one in enumerate((web, worker, redis, db), start=1):
            members.append(Member(one))
            truth[f"{space}/{one.name}"] = role
        calls += [
            Call(gateway, web, 80, 8080), Call(web, redis, 6379), Call(web, db, 5432),
            Call(worker, redis, 6379), Call(worker, Outside("mail", "192.0.2.25/32"), 587),
        ]  # fmt: skip
        if n == odd:
            calls.append(Call(web, Outside("elsewhere", "203.0.113.9/32"), 8443))
    return Graph("tenants", tuple(members), tuple(calls)), truth, f"tenant-{odd}/web"


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_the_roles_of_generated_clusters_are_found(seed: int) -> None:
    graph, truth, odd = tenants(seed)
    made = cluster(graph, seed=seed, days=3, surroundings=False)
    found = roles(FrameCapture(made.flows))
    names = found.members["namespace"] + "/" + found.members["workload"]
    named = dict(zip(names, found.members["role"], strict=True))
    by_truth: dict[int, set[str]] = {}
    for name, role in truth.items():
        by_truth.setdefault(role, set()).add(named[name])
    assert all(len(own) == 1 for own in by_truth.values()), by_truth
    assert len(set.union(*by_truth.values())) == len(by_truth)
    differs = dict(zip(names, found.members["differs"], strict=True))
    assert {name for name in truth if differs[name]} == {odd}
    assert differs[odd] == "alone calls TCP 8443 (203.0.113.9/32)"


def test_a_role_s_policies_break_nothing_that_its_members_policies_allow() -> None:
    made = cluster(SOCK_SHOP, seed=2, days=3)
    capture = FrameCapture(made.flows)
    one = recommend(capture)
    found = roles(one, distance=0.6)
    assert (found.members["size"] > 1).any()
    flows = capture.flows()
    own = simulate(one.policies, flows, mode_override=Mode.ENFORCE).frame["decision"] == "allowed"
    role = simulate(found.policies, flows, mode_override=Mode.ENFORCE).frame["decision"]
    assert (role[own] == "allowed").all()
    assert lint(found.policies) == []


def test_the_shop_has_one_store_of_each_kind() -> None:
    found = roles(open_capture(SHOP))
    assert groups(found) == {
        "Job, calls TCP 5432": ["report"],
        "calls TCP 80": ["client"],
        "needs nothing": ["forgotten", "intruder"],
        "serves TCP 53, UDP 53": ["dns"],
        "serves TCP 5432": ["postgres"],
        "serves TCP 6379": ["redis"],
        "serves TCP 8000": ["web"],
        "serves TCP 8080": ["frontend"],
    }
    assert set(found.members["differs"]) == {""}
    assert "serves TCP 6379" in found._repr_html_()


def test_the_same_whatever_the_order(tmp_path: Path) -> None:
    rows = pairs(range(4))
    one = roles(learn(tmp_path / "a", rows))
    other = roles(learn(tmp_path / "b", rows[::-1]))
    assert one.to_json() == other.to_json()
    assert one.policies == other.policies


def test_the_figure_shows_who_does_something_alone(tmp_path: Path) -> None:
    found = roles(learn(tmp_path, pairs(range(4))))
    (heat,) = role_matrix(found.profile).data
    cell = heat.z[list(heat.y).index("shop/web-2")][list(heat.x).index("calls TCP 22")]
    assert (heat.x[0], cell) == ("serves TCP 80", 1)
    assert sum(value == 1 for line in heat.z for value in line) == 1
    assert [a.text for a in role_matrix(found.profile.iloc[:0]).layout.annotations] == [
        "no traffic"
    ]
    shuffled = found.profile.sample(frac=1, random_state=7)
    assert role_matrix(shuffled).to_json() == role_matrix(found.profile).to_json()


def test_the_command_prints_roles_and_writes_their_policies(tmp_path: Path) -> None:
    write_capture(tmp_path / "capture", pairs(range(3)))
    run = CliRunner()
    base = ["roles", str(tmp_path / "capture")]
    done = run.invoke(portforge, [*base, "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "serves TCP 6379: 3 workloads" in done.output
    assert len(read_policies(tmp_path / "out")) == 7
    answer = json.loads(run.invoke(portforge, [*base, "--json"]).stdout)
    assert answer["threshold"] == 0.3
    differs = [m["workload"] for m in answer["members"] if m["differs"]]
    assert differs == ["web-2"]
    again = run.invoke(portforge, [*base, "-o", str(tmp_path / "out")])
    assert "is not an empty folder" in str(again.exception)
    assert run.invoke(portforge, [*base, "--distance", "2"]).exit_code == 2


def test_scikit_learn_is_imported_only_when_roles_are_asked_for() -> None:
    code = "import sys, portforge.recommend, portforge.cli; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
