"""A first contact with a database is kept out until it comes back; ordinary newcomers are not."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from flow_rows import Row, row, write_capture

from portforge.capture import open_capture
from portforge.recommend import (
    Options,
    Recommendation,
    kept_out,
    read_decisions,
    recommend,
    verify,
)

DAY = 24
LATE = 5 * DAY + 3
"""Hours after the window began: a Saturday morning."""


def call(source: str, target: str, port: int, **other: object) -> list[Row]:
    """A call as both ends record it, through the Service."""
    through = {"peer_kind": "service", "target_port": port}
    out = {name: value for name, value in other.items() if name != "peer_workload_kind"}
    return [
        row(source, "egress", "TCP", port, target, **through, **out),
        row(target, "ingress", "TCP", port, source, **other),
    ]


LONG_KNOWN = [
    one
    for h in range(0, 7 * DAY, 4)
    for one in (*call("app", "db", 5432, at=h), *call("web", "app", 8080, at=h))
]


def learn(folder: Path, *rows: Row, decisions: Path | None = None) -> Recommendation:
    capture = open_capture(write_capture(folder, [*LONG_KNOWN, *rows]))
    return recommend(capture, decisions=read_decisions(decisions) if decisions else ())


def rules(result: Recommendation, workload: str) -> dict[str, list[str]]:
    found = next(p for p in result.policies if p.workload.name == workload)
    every = (*(found.ingress or ()), *(found.egress or ()))
    return {r.id: [str(p) for p in r.peers or ()] for r in every}


def first_time(result: Recommendation) -> pd.DataFrame:
    return result.findings[result.findings["kind"] == "first_time"]


def test_an_intruder_at_the_database_is_kept_out_at_both_ends(tmp_path: Path) -> None:
    result = learn(tmp_path, *call("web", "db", 5432, at=LATE))
    assert rules(result, "db") == {"in-tcp-5432": ["shop/Deployment/app"]}
    assert "out-tcp-5432" not in rules(result, "web")
    found = first_time(result)
    assert sorted(found["direction"]) == ["egress", "ingress"]
    assert set(found["severity"]) == {"medium"}
    for text in ("on 2026-03-07 only", "postgresql", "1 other peer known there since 2026-03-02"):
        assert all(text in reason for reason in found["reason"])


def test_a_port_nobody_ever_used_is_no_less_odd(tmp_path: Path) -> None:
    result = learn(tmp_path, row("db", "ingress", "TCP", 22, "192.0.2.7", at=LATE))
    assert "in-tcp-22" not in rules(result, "db")
    (found,) = first_time(result).to_dict("records")
    assert (found["severity"], found["port"]) == ("high", 22)
    assert "the port had no use since 2026-03-02" in found["reason"]


def test_a_stranger_where_few_are_known_is_kept_out(tmp_path: Path) -> None:
    known = [
        row("ftp", "ingress", "TCP", 22, f"192.0.2.{n}", at=n + h) for n in (1, 2) for h in (0, 24)
    ]
    result = learn(tmp_path, *known, row("ftp", "ingress", "TCP", 22, "192.0.2.99", at=LATE))
    assert list(first_time(result)["peer"]) == ["192.0.2.99"]


def test_one_workload_s_first_way_out_to_a_database_elsewhere_is_kept_out(tmp_path: Path) -> None:
    result = learn(tmp_path, row("web", "egress", "TCP", 3306, "192.0.2.7", at=LATE))
    assert "out-tcp-3306" not in rules(result, "web")
    assert list(first_time(result)["severity"]) == ["high"]


WEEKLY = {"peer_workload_kind": "CronJob"}


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(
            [*call("web", "db", 5432, at=LATE), *call("web", "db", 5432, at=LATE + DAY)],
            id="it comes back on another day",
        ),
        pytest.param(
            [r for day in range(2, 7) for r in call("report", "db", 5432, at=day * DAY + 18)],
            id="a nightly job that began on the third day",
        ),
        pytest.param(
            [row("db", "ingress", "TCP", 5432, "backup", at=6 * DAY, **WEEKLY)],
            id="the first run of a weekly backup",
        ),
        pytest.param(
            [r for h in range(6) for r in call("web", "db", 5432, at=LATE + h)],
            id="in use from hour to hour",
        ),
        pytest.param(call("app", "db", 5432, at=LATE, pod="app-2"), id="a new replica"),
        pytest.param(call("web", "db", 9187, at=LATE), id="a port that is not sensitive"),
        pytest.param(call("web", "db", 5432, at=30), id="early: nobody is long known yet"),
        pytest.param(
            call("web", "db", 5432, at=LATE, connections=0), id="open since before the recorder"
        ),
        pytest.param(
            [
                row("web", "egress", "TCP", 3306, "192.0.2.7", at=1, peer_name="db.example"),
                row("web", "egress", "TCP", 3306, "192.0.2.7", at=30, peer_name="db.example"),
                row("web", "egress", "TCP", 3306, "192.0.2.8", at=LATE, peer_name="db.example"),
            ],
            id="the same name at another address",
        ),
        pytest.param(
            [
                row("ftp", "ingress", "TCP", 22, f"192.0.2.{n}", at=at)
                for n, at in [(n, at) for n in range(9) for at in (n, n + 24)] + [(99, LATE)]
            ],
            id="a port that serves the internet",
        ),
        pytest.param(
            [r for at in (LATE, LATE + 1) for r in call("new", "cache", 6379, at=at)],
            id="a new workload with a port of its own",
        ),
    ],
)
def test_ordinary_newcomers_are_learned(tmp_path: Path, rows: list[Row]) -> None:
    result = learn(tmp_path, *rows)
    assert first_time(result).empty


def test_it_waits_for_the_analyst_and_does_what_he_says(tmp_path: Path) -> None:
    visit = call("web", "db", 5432, at=LATE)
    result = learn(tmp_path / "a", *visit)
    (reasons,) = (w["reasons"] for w in result.report["workloads"] if w["workload"] == "db")
    said = [r for r in reasons if r.startswith("kept out, late and on one day only")]
    assert len(said) == 1
    assert "TCP 5432 from shop/Deployment/web" in said[0]
    decisions = tmp_path / "decisions.yaml"
    decisions.write_text(
        "- {workload: shop/Deployment/db, direction: ingress, protocol: TCP, port: 5432,\n"
        "   decision: learn, by: Ana, reason: the new report, at: 2026-03-09T00:00:00Z}\n"
    )
    learned = learn(tmp_path / "b", *visit, decisions=decisions)
    assert rules(learned, "db")["in-tcp-5432"] == ["shop/Deployment/app", "shop/Deployment/web"]
    (reasons,) = (w["reasons"] for w in learned.report["workloads"] if w["workload"] == "db")
    assert not [r for r in reasons if r.startswith("kept out")]
    at_db = first_time(learned).set_index("workload").loc["db"]
    assert at_db["severity"] == "info"
    assert "the new report" in at_db["decision"]


def test_a_policy_without_it_breaks_nothing(tmp_path: Path) -> None:
    capture = open_capture(
        write_capture(tmp_path, [*LONG_KNOWN, *call("web", "db", 5432, at=LATE)])
    )
    found = verify(recommend(capture).policies, capture)
    assert found.holds()
    assert set(found.left_out["port"]) == {5432}
    why = kept_out(capture.flows(), capture.aggregated(), Options())
    assert why.value_counts().to_dict() == {"first_time": 2}
