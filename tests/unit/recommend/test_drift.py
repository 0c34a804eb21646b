"""Policies in force against a capture: what to add, what to remove, what expires."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from flow_rows import START, Row, loss, row, write_capture

from portforge.capture import open_capture
from portforge.cli import portforge
from portforge.errors import CaptureError
from portforge.policy import PeerSelector, PortPolicy, Rule, approve, write_policies
from portforge.recommend import Decision, Drift, drift, recommend
from portforge.schema import Protocol, Workload

DAY = 24
WEB = Workload("shop", "Deployment", "web")
CLIENT = PeerSelector(workload=Workload("shop", "Deployment", "client"))
OTHER = PeerSelector(workload=Workload("shop", "Deployment", "other"))
REDIS = PeerSelector(workload=Workload("shop", "Deployment", "redis"))


def rule(name: str, port: int, *peers: PeerSelector, udp: bool = False, **other: Any) -> Rule:
    protocol = Protocol.UDP if udp else Protocol.TCP
    return Rule(id=name, protocol=protocol, port=port, peers=peers or None, **other)


def policy(
    ingress: Sequence[Rule] = (), egress: Sequence[Rule] | None = (), days: float = 0
) -> PortPolicy:
    """Approved ``days`` after START."""
    made = PortPolicy(
        namespace="shop", name="deployment-web", workload=WEB, ingress=ingress, egress=egress
    )
    return approve(made, "ann", START + timedelta(days=days))


# 41 days in which the client comes every ten days, and redis is asked on the first only.
USED = [row("web", "ingress", "TCP", 80, "client", at=day * DAY) for day in (0, 10, 20, 30, 41)]
ONCE = row("web", "egress", "TCP", 6379, "redis")


def found(tmp_path: Path, rows: Sequence[Row], *policies: PortPolicy, **options: Any) -> Drift:
    return drift(policies, open_capture(write_capture(tmp_path / "capture", rows)), **options)


def states(one: Drift) -> dict[str, str]:
    return dict(zip(one.rules["rule"], one.rules["state"], strict=True))


def test_what_was_recommended_has_not_drifted(tmp_path: Path) -> None:
    capture = open_capture(write_capture(tmp_path, USED))
    one = drift(recommend(capture).policies, capture)
    assert not one
    assert str(one).endswith("nothing to do")
    used = one.rules.set_index("rule").loc["in-tcp-80"]
    assert (used["state"], used["connections"], used["days"]) == ("used", 50, 5)
    assert used["last_seen"] == START + timedelta(days=41, seconds=5)


def test_a_rule_nobody_used_is_to_go_and_gets_an_expiry(tmp_path: Path) -> None:
    mine = policy([rule("in-tcp-80", 80, CLIENT)], [rule("out-tcp-6379", 6379, REDIS)])
    one = found(tmp_path, [*USED, ONCE], mine)
    assert states(one) == {"in-tcp-80": "used", "out-tcp-6379": "unused"}
    gone = one.rules.set_index("rule").loc["out-tcp-6379"]
    assert gone["why"] == "not used for 30 days (last on 2026-03-02)"
    # 14 days after the window's end, at the next midnight
    assert gone["proposed_expires_at"].isoformat() == "2026-04-27T00:00:00+00:00"
    assert one.to_do == {"add": 0, "remove": 1, "narrow": 0, "expiry": 0}
    assert "  - egress out-tcp-6379 (TCP 6379 shop/Deployment/redis): not used for 30" in str(one)
    assert mine.egress is not None
    assert mine.egress[0].expires_at is None


@pytest.mark.parametrize(("days", "approved"), [(42, 0), (30, 20)])
def test_nothing_is_unused_before_it_can_be_known(
    tmp_path: Path, days: int, approved: float
) -> None:
    """Neither when the capture is too short, nor when the rule is newer than that."""
    mine = policy(egress=[rule("out-tcp-25", 25)], days=approved)
    one = found(tmp_path, USED, mine, unused_days=days)
    assert states(one) == {"out-tcp-25": "unknown"}
    assert one.to_do["remove"] == 0


def test_a_workload_that_is_away_proves_nothing(tmp_path: Path) -> None:
    rows = [*USED, row("cart", "ingress", "TCP", 80, "web", at=1)]
    cart = PortPolicy(
        namespace="shop", name="cart", workload=Workload("shop", "Deployment", "cart"),
        ingress=[rule("in-tcp-80", 80), rule("in-tcp-81", 81)],
    )  # fmt: skip
    one = found(tmp_path, rows, policy([rule("in-tcp-80", 80)], None), cart)
    assert list(one.rules["state"]) == ["unknown", "unknown", "used"]
    assert not one


def test_what_was_tried_or_lost_or_is_for_long_answers_stays(tmp_path: Path) -> None:
    rows = [
        *USED,
        row("web", "egress", "TCP", 5432, "db", at=40 * DAY, verdict="failed"),
        row("web", "egress", "TCP", 9000, None, at=40 * DAY),
        row("web", "egress", "UDP", 53, "dns", at=40 * DAY),
        row("web", "egress", "UDP", 514, "192.0.2.9", at=40 * DAY, bytes_received=0),
    ]
    dns = PeerSelector(workload=Workload("shop", "Deployment", "dns"))
    egress = [
        rule("db", 5432),
        rule("lost", 9000, REDIS),
        rule("dns", 53, dns, udp=True),
        rule("dns-long", 53, dns),
        rule("syslog", 514, udp=True),
    ]
    one = found(tmp_path, rows, policy([rule("in-tcp-80", 80, CLIENT)], egress))
    assert states(one) == {
        "in-tcp-80": "used",
        "db": "tried",
        "lost": "uncertain",
        "dns": "used",
        "dns-long": "standby",
        "syslog": "used",
    }
    assert not one, str(one)


def test_probes_of_the_own_node_and_scans_are_no_use(tmp_path: Path) -> None:
    scan = [
        row("web", "ingress", "TCP", port, "192.0.2.66", at=40 * DAY, bytes_sent=0,
            bytes_received=0)
        for port in range(1000, 1020)
    ]  # fmt: skip
    probe = row("web", "ingress", "TCP", 8081, "node-a", at=40 * DAY)
    listens = row("web", "ingress", "TCP", 8081, None, verdict="listening", connections=0)
    mine = policy([rule("in-tcp-80", 80), rule("probe", 8081), rule("odd", 1010)])
    one = found(tmp_path, [*USED, *scan, probe, listens], mine)
    assert states(one) == {"in-tcp-80": "used", "probe": "unused", "odd": "unused"}
    why = one.rules.set_index("rule").loc["probe", "why"]
    assert "only by probes of its own node" in str(why)
    assert "still listens" in str(why)
    assert one.missing.empty, "a scan is not needed"


def test_peers_that_never_came_and_wide_rules_are_told(tmp_path: Path) -> None:
    ports = [row("web", "egress", "TCP", p, "192.0.2.7", at=40 * DAY) for p in (8000, 8002)]
    mine = policy([rule("in-tcp-80", 80, CLIENT, OTHER)], [rule("out", 8000, endPort=8010)])
    one = found(tmp_path, [*USED, *ports], mine).rules.set_index("rule")
    assert one.loc["in-tcp-80", "unused_peers"] == "shop/Deployment/other"
    assert one.loc["out", "narrower"] == "peers: 192.0.2.7/32; ports: 8000, 8002"


def test_a_namespace_is_told_apart_by_who_came_of_it(tmp_path: Path) -> None:
    team, empty = PeerSelector(namespace="shop"), PeerSelector(namespace="team-c")
    rows = [*USED, row("web", "ingress", "TCP", 80, "other", at=40 * DAY)]
    one = found(tmp_path, rows, policy([rule("in-tcp-80", 80, team, empty)]))
    told = one.rules.set_index("rule").loc["in-tcp-80"]
    assert (told["state"], told["unused_peers"]) == ("used", "team-c/*")
    assert told["narrower"] == "peers: shop/Deployment/client, shop/Deployment/other"
    assert one.missing.empty
    outside = found(tmp_path / "2", rows, policy([rule("in-tcp-80", 80, empty)]))
    assert list(outside.missing["peers"]) == ["shop/Deployment/client, shop/Deployment/other"]


def test_more_workloads_than_are_listed_come_as_their_namespace(tmp_path: Path) -> None:
    crowd = [row("web", "ingress", "TCP", 80, f"c-{n}", at=n * 20) for n in range(40)]
    one = found(tmp_path, crowd, policy([rule("in-tcp-81", 81)]))
    assert list(one.missing["peers"]) == ["shop/*"]


def test_a_range_is_told_by_its_ends(tmp_path: Path) -> None:
    ports = [row("web", "egress", "TCP", 8000 + p, "redis", at=40 * DAY) for p in range(0, 40, 2)]
    one = found(tmp_path, [*USED, *ports], policy(egress=[rule("out", 8000, REDIS, endPort=8099)]))
    assert list(one.rules["narrower"]) == ["ports: 20 of 100, 8000 to 8038"]


def test_what_is_needed_and_not_allowed_comes_as_the_rule_to_add(tmp_path: Path) -> None:
    rows = [
        *USED,
        row("web", "ingress", "TCP", 80, "other", at=20 * DAY),
        row("web", "egress", "TCP", 443, "192.0.2.7", at=DAY),
        row("web", "egress", "TCP", 443, "192.0.2.7", at=21 * DAY),
        row("web", "egress", "TCP", 25, "192.0.2.8", at=21 * DAY, verdict="denied"),
    ]
    one = found(tmp_path, rows, policy([rule("in-tcp-80", 80, CLIENT)], days=10))
    made = json.loads(one.to_json())["missing"]
    assert [(m["what"], m["rule"], m["peers"], m["since_approval"]) for m in made] == [
        ("add peers", "in-tcp-80", "shop/Deployment/other", True),
        ("add rule", "out-tcp-443", "192.0.2.7/32", False),
    ]
    assert (made[1]["connections"], made[1]["hours"], made[1]["days"]) == (20, 2, 2)
    added = [Rule.model_validate(m["add"]) for m in made]
    assert added[0].peers == (CLIENT, OTHER)
    mended = policy([added[0]], [added[1]], days=10)
    again = found(tmp_path, rows, mended)
    assert again.to_do["add"] == 0, "what is proposed suffices"
    assert [(d["port"], d["peer"]) for d in json.loads(one.to_json())["denied"]] == [
        (25, "192.0.2.8")
    ]


def test_drift_since_approval_also_tells_what_a_wide_rule_let_in(tmp_path: Path) -> None:
    rows = [*USED, row("web", "ingress", "TCP", 80, "other", at=20 * DAY)]
    one = found(tmp_path, rows, policy([rule("in-tcp-80", 80)], days=10))
    new = one.since_approval
    assert list(zip(new["peer"], new["decision"], new["rule"], strict=True)) == [
        ("shop/Deployment/other", "allowed", "in-tcp-80")
    ]
    assert not one
    before = found(tmp_path, rows, policy([rule("in-tcp-80", 80)], days=-5))
    assert before.since_approval.empty, "the capture does not know what was before"


def test_expiry_is_held_against_use(tmp_path: Path) -> None:
    end = START + timedelta(days=41)
    mine = policy(
        [
            rule("in-tcp-80", 80, CLIENT, expiresAt=end - timedelta(days=1)),
            rule("in-tcp-81", 81, expiresAt=end - timedelta(days=1)),
        ],
        None,
    ).model_copy(update={"expires_at": end + timedelta(days=3)})
    one = found(tmp_path, USED, mine)
    told = [
        (e["rule"], e["state"], e["proposal"].partition(":")[0])
        for e in json.loads(one.to_json())["expiry"]
    ]
    assert told == [
        (None, "expiring", "renew"),
        ("in-tcp-80", "expired", "renew"),
        ("in-tcp-81", "expired", "let it go"),
    ]
    assert list(one.missing["what"]) == ["renew rule"]
    assert found(tmp_path, USED, mine, now=START, soon_days=1).expiry.empty


def decision(verb: str, port: int, peer: str | None = None) -> Decision:
    return Decision.model_validate(
        {
            "workload": "shop/Deployment/web", "direction": "egress", "protocol": "TCP",
            "port": port, "peer": peer, "decision": verb, "by": "ann", "reason": "because",
            "at": START,
        }
    )  # fmt: skip


def test_decisions_overrule_what_was_seen(tmp_path: Path) -> None:
    rows = [*USED, *(row("web", "egress", "TCP", p, "redis", at=40 * DAY) for p in (1, 2))]
    rows.append(row("web", "egress", "TCP", 4, "192.0.2.8", at=40 * DAY, verdict="denied"))
    mine = policy([rule("in", 80)], [rule("never", 1, REDIS), rule("yearly", 3, REDIS)])
    decisions = [
        decision("never", 1), decision("never", 2), decision("learn", 3), decision("learn", 4),
    ]  # fmt: skip
    one = found(tmp_path, rows, mine, decisions=decisions)
    assert states(one) == {"in": "used", "never": "never", "yearly": "kept"}
    assert list(one.missing["ports"]) == ["4"]
    assert one.denied.empty
    assert one.to_do == {"add": 1, "remove": 1, "narrow": 0, "expiry": 0}


def test_never_of_a_namespace_takes_its_workloads_and_itself(tmp_path: Path) -> None:
    rows = [*USED, *(row("web", "egress", "TCP", p, "redis", at=40 * DAY) for p in (1, 2, 3))]
    world = PeerSelector(cidr="192.0.2.0/24")
    shop = PeerSelector(namespace="shop")
    mine = policy(
        [rule("in", 80)],
        [rule("a", 1, REDIS, OTHER), rule("b", 2, shop), rule("c", 3, REDIS, world)],
    )
    decisions = [decision("never", port, "shop/*") for port in (1, 2, 3)]
    one = found(tmp_path, rows, mine, decisions=decisions)
    assert states(one) == {"in": "used", "a": "never", "b": "never", "c": "unused"}
    peers = one.rules.set_index("rule").loc["c", "unused_peers"]
    assert str(peers).split(", ") == ["shop/Deployment/redis"]


def test_other_workloads_losses_and_order(tmp_path: Path) -> None:
    rows = [*USED, ONCE, row("cart", "ingress", "TCP", 1, "web")]
    mine = policy([rule("in-tcp-80", 80)], [])
    texts = []
    for name, some in (("a", rows), ("b", rows[::-1])):
        capture = open_capture(write_capture(tmp_path / name, some, [loss("unparsed", 7)]))
        one = drift([mine], capture)
        texts.append((str(one), one.to_json()))
    assert texts[0] == texts[1]
    assert one.unrestricted == ("shop/Deployment/cart",)
    assert one.losses == {"unparsed": 7}
    assert "Lost meanwhile, and maybe a use of a rule: 7 unparsed" in str(one)


def test_of_another_cluster_there_is_nothing_to_compare(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="nothing to compare"):
        found(tmp_path, [row("cart", "ingress", "TCP", 1, "web")], policy())


def run(*words: object) -> Result:
    return CliRunner().invoke(portforge, ["drift", *map(str, words)])


def test_the_command_says_it_by_its_exit_code(tmp_path: Path) -> None:
    capture = write_capture(tmp_path / "capture", [*USED, ONCE])
    mine = policy([rule("in-tcp-80", 80, CLIENT)], [rule("out-tcp-6379", 6379, REDIS)])
    write_policies([mine], tmp_path / "policies")
    result = run(tmp_path / "policies", capture)
    assert result.exit_code == 3, result.output
    assert "  - egress out-tcp-6379" in result.stdout
    longer = run(tmp_path / "policies", capture, "--unused-days", 60, "--json")
    assert longer.exit_code == 0, longer.output
    assert json.loads(longer.stdout)["to_do"]["remove"] == 0
    assert run(capture).exit_code == 2
    decisions = tmp_path / "decisions.yaml"
    decisions.write_text(
        "- {workload: shop/Deployment/web, direction: egress, protocol: TCP, port: 6379,\n"
        "   decision: learn, by: ann, reason: yearly, at: 2026-03-01T00:00:00Z}\n"
    )
    assert run(tmp_path / "policies", capture, "--decisions", decisions).exit_code == 0
