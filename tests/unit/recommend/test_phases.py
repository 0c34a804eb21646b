"""The phase of a rule: what each is, and how many are named rightly on generated clusters."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from flow_rows import Row, row, write_capture

from portforge.capture import open_capture
from portforge.cli import portforge
from portforge.recommend import Recommendation, recommend
from portforge.recommend._frame import FrameCapture
from portforge.synth import ONLINE_BOUTIQUE, SOCK_SHOP, Synthetic, cluster, random_graph

SCRIPT = Path(__file__).parents[2] / "bench" / "phases.py"
DAYS = 15


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("phases_bench", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    del sys.modules[spec.name]
    return module


def life(name: str, hours: range, pod: str, **other: Any) -> list[Row]:
    """Steady traffic that shows a pod to be there."""
    return [row(name, "ingress", "TCP", 80, "client", at=at, pod=pod, **other) for at in hours]


def learn(folder: Path, rows: list[Row]) -> Recommendation:
    return recommend(open_capture(write_capture(folder, rows)))


def phase(result: Recommendation, rule: str, workload: str = "web") -> tuple[str, str | None, str]:
    evidence = result.evidence.set_index(["workload", "rule"]).loc[(workload, rule)]
    period = evidence["period"]
    return evidence["phase"], period if isinstance(period, str) else None, evidence["phase_reason"]


def test_what_is_used_only_after_pods_started_is_start_up_at_both_ends(tmp_path: Path) -> None:
    rows = [
        *life("web", range(50), "web-1"),
        *life("web", range(50, 120), "web-2"),
        *life("web", range(120, 170), "web-3"),
        *(row("web", "egress", "TCP", 8888, "config", at=at, pod=pod)
          for at, pod in ((50, "web-2"), (120, "web-3"))),
        *(row("config", "ingress", "TCP", 8888, "web", at=at) for at in (50, 120)),
        *(row("config", "ingress", "TCP", 80, "client", at=at) for at in range(170)),
    ]  # fmt: skip
    result = learn(tmp_path, rows)
    assert phase(result, "out-tcp-8888") == (
        "start-up", None, "2 times, always within an hour after pods of the workload started",
    )  # fmt: skip
    assert phase(result, "in-tcp-8888", "config")[0] == "start-up"
    assert phase(result, "in-tcp-8888", "config")[2].endswith("of its callers started")
    assert phase(result, "in-tcp-80")[:2] == ("steady", None)


def test_one_use_at_another_time_is_no_start_up(tmp_path: Path) -> None:
    rows = [
        *life("web", range(50), "web-1"),
        *life("web", range(50, 170), "web-2"),
        *(row("web", "egress", "TCP", 8888, "config", at=at, pod="web-2") for at in (50, 90)),
    ]
    name, _, why = phase(learn(tmp_path, rows), "out-tcp-8888")
    assert (name, why) == (
        "unclear", "too seldom for a pattern: in 2 hours, on 2 of 6 days since first seen",
    )  # fmt: skip


def test_a_generation_of_pods_that_alone_uses_it_is_after_a_rollout(tmp_path: Path) -> None:
    old, new = "web-6d4cf56db6-abcde", "web-7f9c8b5d44-fghij"
    rows = [
        *life("web", range(80), old),
        *life("web", range(80, 170), new),
        *(row("web", "egress", "TCP", 6379, "redis", at=at, pod=new) for at in range(82, 170)),
        *(row("web", "egress", "TCP", 5432, "db", at=at, pod=old if at < 80 else new)
          for at in range(170)),
    ]  # fmt: skip
    result = learn(tmp_path / "new", rows)
    name, _, why = phase(result, "out-tcp-6379")
    assert name == "after a rollout"
    assert why.endswith("which ended about 2026-03-05 16:00Z")
    assert phase(result, "out-tcp-5432")[0] == "steady"
    # The same with the old hash: a restart, and no other generation.
    same = [one | {"pod": str(one["pod"]).replace("7f9c8b5d44", "6d4cf56db6")} for one in rows]
    assert phase(learn(tmp_path / "same", same), "out-tcp-6379")[0] == "steady"


@pytest.mark.parametrize(
    ("hours", "found"),
    [
        (range(2, 24 * 7, 24), ("periodic", "daily")),
        ([3, 27, 75, 99], ("periodic", "daily")),  # one night is missing
        ([3, 27], ("unclear", None)),
        ([3, 171], ("periodic", "weekly")),
        ([3, 173], ("unclear", None)),  # two hours later
        (range(1, 24 * 7, 6), ("periodic", "every 6 h")),
        ([1, 9, 30, 50, 51, 90, 133], ("steady", None)),
    ],
)
def test_what_returns_at_its_hour_is_periodic(
    tmp_path: Path, hours: range | list[int], found: tuple[str, str | None]
) -> None:
    rows = life("web", range(24 * 8), "web-1")
    rows += [row("web", "egress", "TCP", 22, "backup", at=at) for at in hours]
    assert phase(learn(tmp_path, rows), "out-tcp-22")[:2] == found


def test_one_call_an_hour_without_a_gap_is_hourly_and_many_are_steady(tmp_path: Path) -> None:
    rows = [row("web", "egress", "TCP", 1, "a", at=at, connections=1) for at in range(72)]
    rows += [row("web", "egress", "TCP", 2, "a", at=at, connections=5) for at in range(72)]
    rows += [row("web", "egress", "TCP", 3, "a", at=at, connections=0) for at in range(72)]
    result = learn(tmp_path, rows)
    assert phase(result, "out-tcp-1")[:2] == ("periodic", "hourly")
    assert phase(result, "out-tcp-2")[0] == phase(result, "out-tcp-3")[0] == "steady"


def test_a_job_has_its_own_rhythm(tmp_path: Path) -> None:
    runs = [
        row("job", "egress", "TCP", 22, "host", at=n / 2, pod=f"job-{n}", workload_kind="CronJob")
        for n in range(60)
    ]
    name, period, why = phase(learn(tmp_path, runs), "out-tcp-22", "job")
    assert (name, period) == ("periodic", "every 30 min")
    assert why == "the job's own rhythm: used in 60 of 60 runs"


def test_too_little_is_unclear_and_says_why(tmp_path: Path) -> None:
    short = learn(tmp_path / "short", life("web", range(10), "web-1"))
    assert phase(short, "in-tcp-80") == ("unclear", None, "the window is shorter than 24 h")
    dns = [row("web", "egress", "UDP", 53, "dns", at=at) for at in range(40)]
    assert phase(learn(tmp_path / "dns", dns), "out-tcp-53") == ("unclear", None, "not seen")


def test_a_peer_in_another_phase_is_named(tmp_path: Path) -> None:
    rows = life("web", range(24 * 8), "web-1")
    rows += [row("web", "ingress", "TCP", 80, "backup", at=at) for at in range(3, 24 * 8, 24)]
    name, _, why = phase(learn(tmp_path, rows), "in-tcp-80")
    assert name == "steady"
    assert why.endswith("; but shop/Deployment/backup periodic (daily)")


def test_the_commands_show_it(tmp_path: Path) -> None:
    rows = life("web", range(24 * 8), "web-1")
    rows += [row("web", "egress", "TCP", 22, "backup", at=at) for at in range(3, 24 * 8, 24)]
    write_capture(tmp_path / "capture", rows)
    run = CliRunner(env={"COLUMNS": "220"})
    out = str(tmp_path / "out")
    done = run.invoke(portforge, ["recommend", str(tmp_path / "capture"), "-o", out])
    assert "periodic (daily)" in done.output, done.output
    told = run.invoke(
        portforge, ["explain", f"{out}/policies", "--evidence", f"{out}/evidence.parquet"]
    )
    assert "phase periodic; period daily; phase reason 8 times, a day apart" in told.output


@pytest.mark.parametrize(
    ("graph", "seed"), [(SOCK_SHOP, 1), (ONLINE_BOUTIQUE, 2), (random_graph(8, seed=5), 5)]
)
def test_calls_of_generated_clusters_are_named_rightly(
    bench: ModuleType, graph: Any, seed: int
) -> None:
    found: Counter[tuple[str, str]] = bench.named(cluster(graph, seed=seed, days=DAYS), DAYS)
    seen: Counter[str] = Counter()
    for (kind, _), count in found.items():
        seen[kind] += count
    wrong = sum(count for (_, answer), count in found.items() if answer.startswith("wrong"))
    assert wrong <= 0.02 * found.total(), found
    for kind in ("steady", "daily", "weekly", "rare"):
        assert found[kind, "right"] >= 0.9 * seen[kind] > 0, found
    # Not where no pod was seen to start, or too many were.
    assert found["startup", "right"] >= 0.75 * seen["startup"] > 0, found


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_calls_that_begin_with_a_rollout_are_found_in_generated_clusters(seed: int) -> None:
    made = cluster(SOCK_SHOP, seed=seed, days=DAYS, restarts_per_week=0, strangers_per_day=2)
    flows = made.flows
    first = flows.groupby("pod")["first_seen"].min()
    # Without restarts every pod that was not there from the start came with a rollout.
    old = set(first.index[first < flows["first_seen"].min() + timedelta(hours=12)])
    calls = _steady_calls(made)
    early = flows["pod"].isin(old)
    new = early & pd.Series(_calls(made), index=flows.index).isin(calls)
    evidence = recommend(FrameCapture(flows[~new])).evidence
    found = evidence[evidence["phase"] == "after a rollout"]
    named = set(found[["workload", "direction", "port"]].itertuples(index=False, name=None))
    assert named == calls
    assert recommend(FrameCapture(flows)).evidence["phase"].ne("after a rollout").all()


def _calls(made: Synthetic) -> list[tuple[str, str, int]]:
    return list(made.flows[["workload", "direction", "port"]].itertuples(index=False, name=None))


def _steady_calls(made: Synthetic) -> set[tuple[str, str, int]]:
    """One steady call of every Deployment that was rolled out in the first two thirds."""
    truth, flows = made.truth, made.flows
    found: dict[str, tuple[str, str, int]] = {}
    for one in truth[truth["kind"] == "steady"].astype(object).to_dict("records"):
        own = flows[flows["workload"] == one["workload"]]
        begun = own.groupby("pod")["first_seen"].min() - flows["first_seen"].min()
        rolled = begun[begun > timedelta(hours=12)]
        deployed = one["workload_kind"] == "Deployment" and one["direction"] == "egress"
        if not deployed or rolled.empty or rolled.min() > timedelta(days=10):
            continue
        if one["protocol"] == "TCP" and one["port"] == one["end_port"]:
            found.setdefault(one["workload"], (one["workload"], "egress", one["port"]))
    assert len(found) >= 2
    return set(found.values())
