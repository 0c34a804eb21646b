"""Calls at a rhythm: an implant's are kept out, those of clocks, metrics and jobs are learned."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from flow_rows import Row, row, write_capture

from portforge.capture import Capture, open_capture
from portforge.cli import recommend as recommend_cli
from portforge.recommend import (
    Recommendation,
    _beacons,
    drift,
    read_decisions,
    recommend,
    verify,
)

DAY = 86400
HOME, CLOCK = "192.0.2.66", "192.0.2.123"


def ordinary(hours: int = 48) -> list[Row]:
    """Two pods of web that are there all the time, and fetch much from something with a name."""
    named = {"peer_name": "api.example"}
    return [
        row(
            "web", "egress", "TCP", 443, "203.0.113.5", at=h, pod=pod, bytes_received=2**21, **named
        )
        for h in range(hours)
        for pod in ("web-1", "web-2")
    ]


def times(begin: float, end: float, period: float, jitter: float, seed: int = 1) -> list[float]:
    """Each wait is drawn evenly from the period, more or less ``jitter`` of it."""
    rng = np.random.default_rng(seed)
    waits = period * rng.uniform(1 - jitter, 1 + jitter, int((end - begin) / period) + 9)
    return [t for t in begin + np.cumsum(waits) if t < end]


def recorded(events: Iterable[float], peer: str = HOME, port: int = 443, **other: Any) -> list[Row]:
    """The rows of a recorder that drains each 10 s: one where anything happened."""
    sent, received = other.pop("bytes_sent", 700), other.pop("bytes_received", 300)
    drained: defaultdict[int, list[float]] = defaultdict(list)
    for at in events:
        drained[int(at // 10)].append(at)
    return [
        row(
            "web",
            "egress",
            other.get("protocol", "TCP"),
            port,
            peer,
            at=some[0] / 3600,
            lasts=some[-1] - some[0],
            connections=len(some),
            bytes_sent=sent * len(some),
            bytes_received=received * len(some),
            **{k: v for k, v in other.items() if k != "protocol"},
        )
        for some in drained.values()
    ]


def learn(folder: Path, *rows: Row, decisions: Path | None = None) -> Recommendation:
    capture = open_capture(write_capture(folder, [*ordinary(), *rows]))
    return recommend(capture, decisions=read_decisions(decisions) if decisions else ())


def rules(result: Recommendation) -> dict[str, list[str]]:
    found = next(p for p in result.policies if p.workload.name == "web")
    return {r.id: [str(p) for p in r.peers or ()] for r in found.egress or ()}


def beacons(result: Recommendation) -> pd.DataFrame:
    return result.findings[result.findings["kind"] == "beacon"]


IMPLANT = recorded(times(DAY, 2 * DAY, 300, 0.3), pod="web-1")


@pytest.mark.parametrize(
    ("period", "jitter", "until"),
    [
        pytest.param(300, 0.0, 6 * 3600, id="5 minutes, none, six hours"),
        pytest.param(300, 0.1, DAY, id="5 minutes, 10 %"),
        pytest.param(60, 0.3, DAY, id="a minute, 30 %"),
        pytest.param(1800, 0.3, DAY, id="half an hour, 30 %"),
        pytest.param(3, 0.3, 6 * 3600, id="3 seconds, finer than the recorder's drain"),
    ],
)
def test_one_pod_that_began_late_is_kept_out_whatever_the_rhythm(
    tmp_path: Path, period: float, jitter: float, until: float
) -> None:
    events = times(DAY, DAY + until, period, jitter)
    result = learn(tmp_path, *recorded(events, pod="web-1"))
    assert rules(result) == {"out-tcp-443": ["203.0.113.5/32"]}
    (found,) = beacons(result).to_dict("records")
    assert (found["peer"], found["connections"]) == (HOME, len(events))
    assert found["severity"] == ("high" if until == DAY else "medium"), "high while it goes on"
    for text in (f"{len(events)} connections of 700 bytes sent", "only 1 of 2 pods", "no DNS name"):
        assert text in found["reason"]


def test_the_reason_shows_period_and_jitter(tmp_path: Path) -> None:
    (reason,) = beacons(learn(tmp_path, *IMPLANT))["reason"]
    measured = float(reason.partition("calls every ")[2].partition(" min")[0])
    assert measured == pytest.approx(5, rel=0.05)
    spread = float(reason.partition("(jitter ")[2].partition("%")[0]) / 100
    # Evenly drawn from ± 30 %: half lie within ± 15 %, which is 0.22 of a normal's deviation.
    assert spread == pytest.approx(1.4826 * 0.15, abs=0.05)


def test_lost_records_and_an_order_now_and_then_do_not_hide_it(tmp_path: Path) -> None:
    kept = [one for n, one in enumerate(IMPLANT) if n % 10]
    for one in kept[::12]:
        one["bytes_received"] = 90_000
    assert len(beacons(learn(tmp_path, *kept))) == 1


def test_several_addresses_of_one_name_are_one_peer(tmp_path: Path) -> None:
    events = times(DAY, 2 * DAY, 300, 0.2)
    peers = ("192.0.2.66", "192.0.2.67", "192.0.2.68")
    rows = [
        one
        for n, peer in enumerate(peers)
        for one in recorded(events[n::3], peer, pod="web-1", peer_name="updates.example")
    ]
    found = beacons(learn(tmp_path, *rows))
    assert len(found) == 3
    assert all(f"{len(events)} connections" in reason for reason in found["reason"])


BOTH = ("web-1", "web-2")


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(
            [
                one
                for n, pod in enumerate(BOTH)
                for one in recorded(
                    range(20 + n, 2 * DAY, 1024),
                    CLOCK,
                    123,
                    protocol="UDP",
                    bytes_sent=48,
                    bytes_received=48,
                    pod=pod,
                )
            ],
            id="the time, by every pod from its start",
        ),
        pytest.param(recorded(range(20, 2 * DAY, 600), pod="web-1"), id="a licence, by the leader"),
        pytest.param(
            [
                one
                for n, pod in enumerate(BOTH)
                for one in recorded(
                    range(DAY + n, 2 * DAY, 60), pod=pod, peer_name="metrics.example"
                )
            ],
            id="metrics with a name, by every pod since a change of configuration",
        ),
        pytest.param(
            recorded(times(DAY, 2 * DAY, 300, 0.1), pod="web-3"), id="a new replica's own"
        ),
    ],
)
def test_a_rhythm_that_is_not_odd_is_a_finding_and_learned(tmp_path: Path, rows: list[Row]) -> None:
    result = learn(tmp_path, *rows)
    found = beacons(result)
    assert set(found["severity"]) == {"low"}
    assert all("learned all the same" in reason for reason in found["reason"])
    peer = rows[0]["peer_ip"]
    assert any(f"{peer}/32" in peers for peers in rules(result).values())


def poisson() -> list[Row]:
    rng = np.random.default_rng(3)
    return recorded(DAY + np.cumsum(rng.exponential(300, 280)), pod="web-1")


def varied() -> list[Row]:
    rng = np.random.default_rng(4)
    rows = recorded(times(DAY, 2 * DAY, 300, 0.1), pod="web-1")
    return [one | {"bytes_sent": int(rng.integers(200, 9000))} for one in rows]


NIGHTLY = {"workload_kind": "CronJob", "pod": "web-1"}


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(poisson(), id="as often, at random moments"),
        pytest.param(varied(), id="at a rhythm, with something to say"),
        pytest.param(recorded(times(DAY, DAY + 10800, 300, 0.1), pod="web-1"), id="three hours"),
        pytest.param(recorded(times(DAY, 2 * DAY, 300, 0.1), **NIGHTLY), id="a job's"),
        pytest.param(
            recorded(times(DAY, 2 * DAY, 300, 0.1), bytes_received=500_000, pod="web-1"),
            id="with much to hear",
        ),
        pytest.param([one | {"verdict": "failed"} for one in IMPLANT], id="never answered"),
    ],
)
def test_what_is_no_rhythm_is_no_finding(tmp_path: Path, rows: list[Row]) -> None:
    assert beacons(learn(tmp_path, *rows)).empty


def test_it_waits_for_the_analyst_who_may_overrule_it(tmp_path: Path) -> None:
    result = learn(tmp_path / "a", *IMPLANT)
    (reasons,) = (w["reasons"] for w in result.report["workloads"] if w["workload"] == "web")
    assert any(r.startswith("kept out, at a rhythm") and HOME in r for r in reasons)
    decisions = tmp_path / "decisions.yaml"
    decisions.write_text(
        "- {workload: shop/Deployment/web, direction: egress, protocol: TCP, port: 443,\n"
        f"   peer: {HOME}, decision: learn, by: Ana, reason: ours, at: 2026-03-09T00:00:00Z}}\n"
    )
    learned = learn(tmp_path / "b", *IMPLANT, decisions=decisions)
    assert rules(learned)["out-tcp-443"] == [f"{HOME}/32", "203.0.113.5/32"]
    assert list(beacons(learned)["severity"]) == ["info"]
    (reasons,) = (w["reasons"] for w in learned.report["workloads"] if w["workload"] == "web")
    assert not any(r.startswith("kept out") for r in reasons)


def test_a_policy_without_it_breaks_nothing_and_lacks_nothing(tmp_path: Path) -> None:
    capture = open_capture(write_capture(tmp_path, [*ordinary(), *IMPLANT]))
    policies = recommend(capture).policies
    found = verify(policies, capture)
    assert found.holds()
    assert list(found.left_out["peer"]) == [HOME]
    assert drift(policies, capture).missing.empty


def test_a_capture_without_a_candidate_is_not_asked_for_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: object, **__: object) -> pd.DataFrame:
        raise AssertionError("the rows were asked for")

    monkeypatch.setattr(Capture, "rhythms", asked)
    learn(tmp_path / "a", row("web", "egress", "TCP", 8443, HOME, at=3, pod="web-1"))
    with pytest.raises(AssertionError, match="asked for"):
        learn(tmp_path / "b", *IMPLANT)


def test_a_wider_rule_that_lets_it_pass_is_named(tmp_path: Path) -> None:
    many = [
        row(
            "web", "egress", "TCP", 443, f"198.{n}.7.9", at=n, pod="web-2", peer_name=f"{n}.example"
        )
        for n in range(20)
    ]
    result = learn(tmp_path, *IMPLANT, *many)
    (found,) = beacons(result).to_dict("records")
    assert rules(result)["out-tcp-443"] == ["World"]
    assert "kept out; decide learn if it is needed; yet out-tcp-443 lets it pass" in found["reason"]
    (alone,) = beacons(learn(tmp_path / "alone", *IMPLANT))["reason"]
    assert "lets it pass" not in alone


def test_what_is_not_looked_at_is_said_and_the_late_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = recorded(range(20, 2 * DAY, 1024), CLOCK, 123, protocol="UDP", pod="web-2")
    monkeypatch.setattr(_beacons, "_ROWS", len(IMPLANT))
    folder = write_capture(tmp_path / "capture", [*ordinary(), *IMPLANT, *clock])
    assert len(clock) < len(IMPLANT)
    done = CliRunner().invoke(recommend_cli.command, [str(folder), "-o", str(tmp_path / "out")])
    assert "too many records to look for beacons at 1 more outside peers" in done.output
    findings = pd.read_parquet(tmp_path / "out" / "findings.parquet")
    assert list(findings["peer"][findings["kind"] == "beacon"]) == [HOME]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["rhythms"] == {"peers": 1, "not_looked_at": 1}
