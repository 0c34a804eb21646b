"""The table of attacks: who is planted is counted as planted, and others' findings as false."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from pathlib import Path

import pytest

from portforge.synth import SOCK_SHOP, cluster

SCRIPT = Path(__file__).parents[2] / "bench" / "attacks.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("attacks_bench", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_attacks_on_a_cluster_are_kept_out_or_found(bench):
    made = cluster(SOCK_SHOP, seed=7, days=7, beacons=1, intruders=1, exfiltrations=1)
    assert {len(bench.marked(made, attack)) for attack in bench.DETECTORS.values()} <= {1, 2}
    counts = Counter()
    bench.count(made, counts)
    assert counts["clusters"] == 1
    for kind in ("beacon", "first_time"):
        assert counts[f"{kind} planted"] == counts[f"{kind} found"] == 1
        assert counts[f"{kind} learned"] == 0
    assert counts["outlier planted"] == counts["outlier found"] == 1
    assert counts["outlier learned"] == 1


def test_a_finding_about_something_else_is_false(bench):
    made = cluster(SOCK_SHOP, seed=7, days=7, intruders=1)
    made.what[made.what == "intruder"] = "needed"
    counts = Counter()
    bench.count(made, counts)
    assert counts["first_time planted"] == 0
    assert counts["first_time false"] == counts["first_time false kept out"] >= 2
