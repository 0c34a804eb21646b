"""When a workload is ready, and what it is told where it is not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flow_rows import Row, loss, row, write_capture

from portforge.capture import Window, open_capture
from portforge.recommend import Options, read_decisions, recommend
from portforge.recommend._coverage import Coverage, completeness
from portforge.recommend._hours import Hours
from portforge.recommend._lifecycle import Item, Life, Pod, checklist

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
DAY = 24


def at(day: float) -> datetime:
    return MONDAY + timedelta(days=day)


def life(days: float, *pods: Pod, kind: str = "Deployment", **other: Any) -> dict[str, Item]:
    """The checklist of a workload seen every hour of a window that begins on a Monday."""
    known: dict[str, Any] = {
        "kind": kind,
        "first_seen": at(0),
        "last_seen": at(days),
        "hours": Hours(range(int(days * DAY))),
        "pods": pods,
        "losses": {},
    }
    return checklist(Life(**(known | other)), Window(at(0), at(days)), Options())


def pod(name: str, first: float, last: float, node: str = "a", learned: bool = True) -> Pod:
    return Pod(name, node, at(first), at(last), learned)


def answers(items: dict[str, Item]) -> dict[str, str]:
    return {name: item.answer for name, item in items.items()}


def test_the_whole_checklist_holds() -> None:
    found = life(14, pod("web-1", 0, 3), pod("web-2", 3, 14))
    assert list(found) == [
        "restart", "daily_cycle", "weekend", "weekly_cycle", "losses", "replicas",
    ]  # fmt: skip
    assert set(answers(found).values()) == {"yes"}


@pytest.mark.parametrize(
    ("pods", "kind", "answer"),
    [
        ([pod("w-1", 0, 14)], "Deployment", "no"),
        ([pod("w-1", 0, 14), pod("w-2", 5, 14)], "Deployment", "no"),
        ([pod("w-1", 0, 14), pod("w-2", 0, 5)], "Deployment", "no"),
        ([pod("w-1", 0, 14), pod("w-2", 0, 5), pod("w-3", 5, 14)], "Deployment", "yes"),
        ([pod("w-1", 5, 14)], "Deployment", "yes"),
        ([pod("db-0", 0, 14)], "StatefulSet", "unknown"),
        ([pod("db-0", 0, 5), pod("db-0", 5, 14, node="b")], "StatefulSet", "yes"),
        ([], "Deployment", "unknown"),
    ],
    ids=["none", "scaled up", "scaled down", "replaced", "new", "set", "set moved", "no names"],
)
def test_a_restart_is_a_pod_gone_and_another_come(pods: list[Pod], kind: str, answer: str) -> None:
    assert life(14, *pods, kind=kind)["restart"].answer == answer


def test_a_weekend_counts_as_a_whole_and_while_the_workload_was_there() -> None:
    assert life(6.5)["weekend"] == Item(
        "no", "a weekend (Saturday and Sunday, UTC)", at(7 - 1 / DAY)
    )
    assert life(7)["weekend"].answer == "yes"
    assert life(14, first_seen=at(5.5))["weekend"].answer == "yes"
    late = life(11, first_seen=at(5.5))["weekend"]
    assert (late.answer, late.until) == ("no", at(14 - 1 / DAY))


def test_a_job_needs_a_second_run_instead_of_a_daily_cycle() -> None:
    one = life(9, pod("j-1", 5, 5.01), kind="CronJob", hours=Hours([120]))
    assert "daily_cycle" not in one
    assert one["cron_cycle"].answer == "no"
    assert "weekly one two weeks" in one["cron_cycle"].missing
    retried = life(9, pod("j-1", 5, 5.01), pod("j-2", 5, 5.02), kind="CronJob")
    assert retried["cron_cycle"].answer == "no", "side by side is one run"
    two = life(13, pod("j-1", 5, 5.01), pod("j-2", 12, 12.01), kind="CronJob")
    assert (two["cron_cycle"].answer, two["restart"].answer) == ("yes", "yes")
    assert life(9, kind="Job")["cron_cycle"].answer == "unknown"


def test_a_replica_without_answered_traffic_is_named() -> None:
    found = life(14, pod("w-1", 0, 14), pod("w-2", 0, 14, learned=False))["replicas"]
    assert found == Item("no", "all replicas: 1 of 2 pods had answered traffic; not w-2")
    passing = life(14, pod("w-1", 0, 14), pod("w-2", 3, 3.01, learned=False))["replicas"]
    assert passing.answer == "yes", "it was gone within the hour"
    assert life(14)["replicas"].answer == "unknown"


def test_coverage_by_days_sees_what_hours_hide() -> None:
    steady, once = Hours(range(14 * DAY)), Hours([50, 51, 52])
    found = completeness(steady, [steady, once], [steady])
    assert found.ports_by_hours.coverage == 1
    assert found.ports_by_days == Coverage(14, 2, 0.933333, 2.0)
    assert found.peers_by_days.coverage == 1
    assert found.report()["sample_coverage_days"] == found.ports_by_days.coverage


def traffic(days: int, *more: Row) -> list[Row]:
    """From Monday 08:00, with a restart on day 2."""
    return [
        *(
            row(*("web", "ingress", "TCP", 80, "c"), at=h, pod=f"web-{1 + (h > 48)}")
            for h in range(days * DAY)
        ),
        *more,
    ]


def report_of(folder: Path, rows: list[Row], *losses: Row) -> dict[str, Any]:
    found = recommend(open_capture(write_capture(folder, rows, losses))).report
    return next(one for one in found["workloads"] if one["workload"] == "web")


def test_ready_after_a_week_with_a_weekend_and_a_restart(tmp_path: Path) -> None:
    week = report_of(tmp_path / "a", traffic(7))
    assert (week["status"], week["until"]) == ("ready", None)
    assert week["reasons"] == ["nothing known speaks against it"]
    days = report_of(tmp_path / "b", traffic(4))
    assert days["status"] == "learning"
    assert days["until"] == "2026-03-09T07:00:00Z"
    assert days["reasons"][0] == (
        "still learning, for at least 3.0 d more (until 2026-03-09T07:00:00Z); "
        "missing: weekend, weekly cycle"
    )
    lost = report_of(tmp_path / "c", traffic(7), loss("flows_overflowed", 1))
    assert lost["reasons"][0] == ("still learning, and time alone may not do; missing: losses")


def test_a_weekly_job_needs_two_weeks(tmp_path: Path) -> None:
    mail = [row("web", "egress", "TCP", 587, "smtp", at=h) for h in (30, 30 + 7 * DAY)]
    one = report_of(tmp_path / "a", traffic(8, mail[0]))
    assert one["status"] == "learning"
    (said,) = one["reasons"][1:]
    assert "a weekly job needs two weeks: TCP 587 to shop/Deployment/smtp" in said
    assert one["until"] == "2026-03-10T14:00:00Z"
    assert one["coverage"]["egress"]["sample_coverage_days"] == 0.0
    assert report_of(tmp_path / "b", traffic(14, *mail))["status"] == "ready"


def test_a_new_peer_of_an_old_port_is_new(tmp_path: Path) -> None:
    new = ("web", "ingress", "TCP", 80, "other")
    other = [row(*new, at=h, pod="web-2") for h in range(6 * DAY, 8 * DAY)]
    found = report_of(tmp_path, traffic(8, *other))
    assert found["status"] == "learning"
    assert found["coverage"]["ingress"]["sample_coverage_days"] == 1
    (said,) = found["reasons"][1:]
    assert said.endswith("ingress TCP 80 from shop/Deployment/other")
    assert found["coverage"]["ingress"].items() >= {"ports": 1, "peers": 2}.items()


def test_another_address_of_the_world_is_nothing_new(tmp_path: Path) -> None:
    many = [
        row("web", "egress", "TCP", 443, f"192.0.2.{h}", at=h, pod=f"web-{1 + (h > 48)}")
        for h in range(0, 8 * DAY, 2)
    ]
    found = report_of(tmp_path, traffic(8, *many))
    assert found["status"] == "ready"
    assert found["coverage"]["egress"]["peers"] == 1


def test_another_workload_of_a_namespace_that_is_open_is_nothing_new(tmp_path: Path) -> None:
    many = [
        row("web", "ingress", "TCP", 80, f"c-{n}", at=5 * n, pod=f"web-{1 + (5 * n > 48)}")
        for n in range(38)
    ]
    listed = report_of(tmp_path / "listed", traffic(8, *many[-20:]))
    assert (listed["status"], listed["coverage"]["ingress"]["peers"]) == ("learning", 21)
    opened = report_of(tmp_path / "opened", traffic(8, *many))
    assert (opened["status"], opened["coverage"]["ingress"]["peers"]) == ("ready", 1)


def test_a_listed_outside_address_must_have_been_drawn_ten_times(tmp_path: Path) -> None:
    def ask(*hours: int, **other: Any) -> list[Row]:
        way = ("web", "egress", "TCP", 443, "192.0.2.7")
        return [row(*way, at=h, pod=f"web-{1 + (h > 48)}", **other) for h in hours]

    often = [8 + 20 * n for n in range(10)]
    nine = report_of(tmp_path / "a", traffic(10, *ask(*often[:9])))
    assert nine["status"] == "learning"
    assert [one for one in nine["reasons"][1:] if "were drawn (out-tcp-443 9; 10" in one]
    ten = report_of(tmp_path / "b", traffic(10, *ask(*often)))
    assert ten["status"] == "ready"
    kept = report_of(tmp_path / "c", traffic(10, *ask(*range(200), connections=0)))
    assert [one for one in kept["reasons"][1:] if "(out-tcp-443 0; 10" in one], "one, held open"


def test_who_is_called_at_start_up_waits_for_the_restarts_of_the_others(tmp_path: Path) -> None:
    calls = [
        row("web", "ingress", "TCP", 80, "app", at=h, pod=f"web-{1 + (h > 48)}")
        for h in (10, 40, 100)
    ]
    quiet = [row("db", "ingress", "TCP", 5432, "app", at=h) for h in range(9 * DAY)]
    found = report_of(tmp_path / "a", traffic(9, *calls, *quiet))
    assert found["status"] == "learning"
    assert found["reasons"][1].endswith("and no restart was seen of shop/Deployment/db")
    again = [row("db", "ingress", "TCP", 5432, "app", at=h) | {"pod": "db-2"} for h in (100, 200)]
    early = [one for one in quiet if one["first_seen"] < calls[2]["first_seen"]]
    assert report_of(tmp_path / "b", traffic(9, *calls, *early, *again))["status"] == "ready"


def test_a_listener_nobody_used_is_used_later_or_decided(tmp_path: Path) -> None:
    quiet = {"verdict": "listening", "connections": 0, "bytes_sent": 0, "bytes_received": 0}
    idle = row("web", "ingress", "TCP", 50051, None, **quiet)
    folder = write_capture(tmp_path / "a", traffic(8, idle))
    found = report_of(tmp_path / "b", traffic(8, idle))
    assert found["status"] == "learning"
    assert "nobody connected yet (TCP 50051)" in found["reasons"][1]
    (tmp_path / "d.yaml").write_text(
        "- {workload: shop/Deployment/web, direction: ingress, protocol: TCP, port: 50051, "
        "decision: never, by: Ana, reason: for debugging, at: 2026-03-03T10:00:00Z}"
    )
    decided = recommend(open_capture(folder), decisions=read_decisions(tmp_path / "d.yaml"))
    assert decided.report["workloads"][0]["status"] == "ready"
