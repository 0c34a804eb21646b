"""``portforge verify``, as CI calls it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from flow_rows import row, write_capture

from portforge.capture import open_capture
from portforge.cli import portforge
from portforge.errors import CaptureError, PolicyError
from portforge.policy import PortPolicy, write_policies
from portforge.recommend import recommend, verify
from portforge.schema import Workload

SHOP = Path(__file__).parents[3] / "datasets/shop"
BEFORE = [
    row("web", "ingress", "TCP", 80, "client"),
    row("web", "egress", "TCP", 6379, "redis"),
    row("web", "egress", "TCP", 25, "192.0.2.1", verdict="failed"),
    row("web", "egress", "UDP", 514, "192.0.2.9", bytes_received=0),
]
AFTER = [
    *BEFORE,
    row("web", "ingress", "TCP", 80, "stranger", at=3),
    row("web", "ingress", "TCP", 80, "another", at=2, connections=5),
    row("web", "egress", "TCP", 443, "192.0.2.7", at=4),
    row("cart", "ingress", "TCP", 8080, "web"),
]


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    made = recommend(open_capture(write_capture(tmp_path / "before", BEFORE)))
    write_policies(made.policies, tmp_path / "policies")
    return tmp_path / "policies"


def run(*words: object) -> Result:
    return CliRunner().invoke(portforge, ["verify", *map(str, words)])


def test_a_recommendation_holds_on_what_it_was_learned_from(policies: Path) -> None:
    result = run(policies, policies.parent / "before", "--strict")
    assert result.exit_code == 0, result.output
    assert "\nholds" in result.stdout
    assert "Denied, not held against them" in result.stdout, "UDP nobody answered"
    assert "TCP 25" not in result.stdout, "what failed is not judged"


def test_so_does_that_of_the_shipped_capture(tmp_path: Path) -> None:
    recommend(open_capture(SHOP)).write(tmp_path / "out")
    assert run(tmp_path / "out/policies", SHOP).exit_code == 0


def test_what_would_break_is_named_once_with_its_first_example(policies: Path) -> None:
    capture = write_capture(policies.parent / "after", AFTER)
    result = run(policies, capture)
    assert result.exit_code == 3
    lines = [line for line in result.stdout.splitlines() if line.startswith("  shop/web")]
    assert lines[:2] == [
        "  shop/web ingress: peer not in rule in-tcp-80; 15 connections, "
        "first 2026-03-02 10:00:00Z TCP 80 from shop/Deployment/another",
        "  shop/web egress: no rule for TCP 443; 10 connections, "
        "first 2026-03-02 12:00:00Z TCP 443 to 192.0.2.7",
    ]
    assert "No policy, so allowed everything: shop/Deployment/cart" in result.stdout
    assert "not judged" not in result.stdout
    assert result.stdout.endswith("does not hold\n")


def test_a_first_contact_fails_only_when_strict_until_it_is_decided(policies: Path) -> None:
    days = [
        row("db", "ingress", "TCP", 5432, "web", at=hour, connections=9)
        for hour in (0, 30, 60, 90, 120)
    ]
    known = write_capture(policies.parent / "known", days)
    write_policies(recommend(open_capture(known)).policies, policies.parent / "db")
    late = row("db", "ingress", "TCP", 5432, "report", at=121, connections=2)
    capture = write_capture(policies.parent / "late", [*days, late])
    result = run(policies.parent / "db", capture)
    assert result.exit_code == 0, result.output
    assert "TCP 5432 from shop/Deployment/report, first_time\n" in result.stdout
    assert run(policies.parent / "db", capture, "--strict").exit_code == 3
    decisions = policies.parent / "decisions.yaml"
    for verb, code in (("never", 0), ("learn", 3)):
        decisions.write_text(
            "- {workload: shop/Deployment/db, direction: ingress, protocol: TCP, port: 5432,\n"
            f"   peer: shop/Deployment/report, decision: {verb}, by: ann, reason: known,\n"
            "   at: 2026-03-08T00:00:00Z}\n"
        )
        strict = run(policies.parent / "db", capture, "--strict", "--decisions", decisions)
        assert strict.exit_code == code, strict.output


def test_json_and_window(policies: Path) -> None:
    capture = write_capture(policies.parent / "after", AFTER)
    found = json.loads(run(policies, capture, "--json").stdout)
    assert found["holds"] is False
    assert found["records"] == {"allowed": 3, "denied": 3, "left_out": 1, "uncertain": 0}
    assert [(one["reason"], one["records"]) for one in found["denied"]] == [
        ("peer not in rule in-tcp-80", 2),
        ("no rule for TCP 443", 1),
    ]
    assert [one["rule"] for one in found["denied"]] == ["in-tcp-80", None]
    assert found["denied"][0]["first_seen"].startswith("2026-03-02T10:00:00")
    early = run(policies, capture, "--json", "--until", "2026-03-02T09:00:00Z")
    assert early.exit_code == 0
    assert json.loads(early.stdout)["denied"] == []
    assert run(policies, capture, "--since", "2026-03-02T11:30:00Z").exit_code == 3


def test_uncertain_is_reported_and_fails_only_when_strict(policies: Path) -> None:
    rows = [*BEFORE, row("web", "ingress", "TCP", 80, None, at=1)]
    capture = write_capture(policies.parent / "lost", rows)
    result = run(policies, capture)
    assert result.exit_code == 0
    assert "Uncertain, the record lost who the peer was:\n  shop/web ingress" in result.stdout
    strict = run(policies, capture, "--strict", "--json")
    assert strict.exit_code == 3
    assert json.loads(strict.stdout)["holds"] is False


def test_policies_of_another_cluster_do_not_pass_by_doing_nothing(policies: Path) -> None:
    other = write_capture(policies.parent / "other", [row("cart", "ingress", "TCP", 1, "web")])
    result = run(policies, other)
    assert isinstance(result.exception, CaptureError)
    assert "nothing to verify" in str(result.exception)


def test_the_order_of_records_does_not_matter(policies: Path) -> None:
    from portforge.policy import read_policies

    known = read_policies(policies)
    one, two = (
        verify(known, open_capture(write_capture(policies.parent / name, rows))).to_json()
        for name, rows in (("a", AFTER), ("b", AFTER[::-1]))
    )
    assert one == two


def test_it_shows_itself_in_a_notebook(policies: Path) -> None:
    from portforge.policy import read_policies

    known = read_policies(policies)
    good = verify(known, open_capture(policies.parent / "before"))._repr_html_()
    assert good.startswith("<p>holds: 1 workloads judged; answered records: 2 allowed, 0 denied")
    assert "<p>left out</p>" in good
    assert "<p>denied</p>" not in good
    capture = open_capture(write_capture(policies.parent / "after", AFTER))
    bad = verify(known, capture)._repr_html_()
    assert bad.startswith("<p>does not hold: ")
    assert "<p>denied</p>" in bad
    assert "peer not in rule in-tcp-80" in bad


def test_what_was_decided_against_may_be_denied(policies: Path) -> None:
    capture = write_capture(policies.parent / "after", [*BEFORE, AFTER[6]])
    decisions = policies.parent / "decisions.yaml"
    decisions.write_text(
        "- {workload: shop/Deployment/web, direction: egress, protocol: TCP, port: 443,\n"
        "   decision: never, by: ann, reason: not ours, at: 2026-03-01T00:00:00Z}\n"
    )
    assert run(policies, capture).exit_code == 3
    result = run(policies, capture, "--decisions", decisions)
    assert result.exit_code == 0, result.output
    assert "a finding of:\n  shop/web egress: no rule for TCP 443" in result.stdout
    assert "TCP 443 to 192.0.2.7, never\n" in result.stdout


def _edited(policies: Path, change: Callable[[str], str]) -> Path:
    for file in policies.rglob("*.yaml"):
        file.write_text(change(file.read_text()))
    return policies


def test_a_policy_that_only_records_is_judged_as_if_enforced(policies: Path) -> None:
    capture = write_capture(policies.parent / "after", AFTER)
    for mode in ("Record", "Enforce"):
        _edited(policies, lambda text, m=mode: re.sub(r"mode: \w+", f"mode: {m}", text))
        assert run(policies, capture).exit_code == 3


def test_an_expired_rule_breaks_what_it_allowed_and_is_named(policies: Path) -> None:
    gone = "    expiresAt: 2020-01-01T00:00:00Z\n"
    _edited(policies, lambda text: re.sub(r"(    port: 6379\n)", rf"\1{gone}", text))
    result = run(policies, policies.parent / "before")
    assert result.exit_code == 3, result.output
    assert "shop/web egress: rule out-tcp-6379 for TCP 6379 has expired; 10" in result.stdout


def test_an_expired_policy_restricts_nothing_and_that_is_said(policies: Path) -> None:
    end = "spec:\n  expiresAt: 2020-01-01T00:00:00Z\n"
    _edited(policies, lambda text: text.replace("spec:\n", end))
    result = run(policies, write_capture(policies.parent / "after", AFTER))
    assert result.exit_code == 0, result.output
    assert "The policy has expired, so allowed everything: shop/Deployment/web\n" in result.stdout
    assert "\n0 workloads judged; " in result.stdout
    found = json.loads(run(policies, policies.parent / "after", "--json").stdout)
    assert (found["judged"], found["expired"]) == (0, ["shop/Deployment/web"])


def test_a_policy_that_allows_nothing_breaks_all_that_was_answered(policies: Path) -> None:
    closed = PortPolicy(
        namespace="shop",
        name="deployment-web",
        workload=Workload("shop", "Deployment", "web"),
        ingress=[],
        egress=[],
    )
    write_policies([closed], policies.parent / "closed")
    found = json.loads(run(policies.parent / "closed", policies.parent / "before", "--json").stdout)
    assert found["holds"] is False
    assert [one["reason"] for one in found["denied"]] == [
        "no rule for TCP 6379",
        "no rule for TCP 80",
    ]


def test_a_policy_whose_workload_was_not_seen_is_named(policies: Path) -> None:
    rows = [BEFORE[0], row("cart", "ingress", "TCP", 8080, "web", at=50)]
    capture = write_capture(policies.parent / "two", rows)
    made = recommend(open_capture(capture)).policies
    write_policies(made, policies.parent / "for-two")
    result = run(policies.parent / "for-two", capture, "--until", "2026-03-02T12:00:00Z")
    assert result.exit_code == 0, result.output
    assert "Nothing answered was seen of, so not judged: shop/Deployment/cart\n" in result.stdout
    late = run(policies.parent / "for-two", capture, "--since", "1h", "--json")
    assert json.loads(late.stdout)["unseen"] == ["shop/Deployment/web"]


@pytest.mark.parametrize(
    "since", ["2027-01-01T00:00:00Z", "2026-03-02T20:00:00Z"], ids=["after all", "in a gap"]
)
def test_a_window_without_data_is_an_error(policies: Path, since: str) -> None:
    rows = [*BEFORE, row("web", "ingress", "TCP", 80, "client", at=50)]
    capture = write_capture(policies.parent / "gap", rows)
    result = run(policies, capture, "--since", since, "--until", "2026-03-03T08:00:00Z")
    assert isinstance(result.exception, CaptureError), result.output


def test_no_policies_are_an_error(policies: Path) -> None:
    (policies.parent / "none").mkdir()
    result = run(policies.parent / "none", policies.parent / "before")
    assert isinstance(result.exception, PolicyError)
