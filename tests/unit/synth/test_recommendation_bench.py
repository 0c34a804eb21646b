"""The yardstick: who knows the truth gets full marks, and who opens everything does not."""

from __future__ import annotations

from collections import defaultdict

import pytest

from portforge.synth import SOCK_SHOP, cluster
from tests.bench import learners
from tests.bench.clusters import ELSEWHERE, Case
from tests.bench.recommendation import measure


@pytest.fixture(scope="module")
def case():
    return Case(cluster(SOCK_SHOP, seed=3, days=6, scans_per_week=6))


def test_who_knows_the_truth_breaks_nothing_and_grants_nothing_more(case):
    def truth(case, days, train):  # noqa: ARG001
        openings = defaultdict(list)
        for door, needs in case.needed.items():
            for first, last, peer in needs:
                one = learners.Opening(first, last)
                if peer == ELSEWHERE:
                    one.entities.add("World")
                elif isinstance(peer, str):
                    one.networks.add(peer)
                else:
                    one.workloads.add(peer)
                openings[door].append(one)
        return learners.Learned(openings, case.workloads, case.workloads)

    found = measure(case, truth, 3)
    assert found["recall 2d"] == found["recall all"] == 1
    assert found["over-grant"] == found["scans"] == 0
    assert found["broken 30"] == found["ready broken"] == 0


def test_who_opens_the_low_ports_to_all_is_told_so(case):
    openings = {seen.door: [learners.Opening(1, 90, anybody=True)] for seen in case.seen}
    low = learners.Learned(openings, case.workloads, set())
    found = measure(case, lambda *_: low, 5)
    assert found["over-grant"] > 0.9
    assert found["scans"] > 0
    assert found["broken 30"] > 0, "what is above port 90 is cut"


def test_who_learns_nothing_breaks_all_that_goes_on(case):
    nothing = learners.Learned({}, case.workloads, case.workloads)
    found = measure(case, lambda *_: nothing, 3)
    assert found["recall all"] == 0
    assert found["broken 1"] == found["ready broken"] > 10


def test_the_baselines_differ_as_they_should(case):
    train, _ = case.firsts(5)
    syn, union = learners.inspektor(case, 5, train), learners.union(case, 5, train)
    scanned = [s for n, s in enumerate(case.seen) if s.what == "scan" and train[n] < float("inf")]
    refused = [s for s in scanned if s.verdict == "refused"]
    assert refused
    assert all(syn.admits(s) for s in refused)
    assert not any(union.admits(s) for s in refused)
    ready = [len(learners.nothing_new(k)(case, 5, train).ready) for k in (6, 24, 72)]
    assert ready == sorted(ready, reverse=True)
