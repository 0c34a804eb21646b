"""Deleting many keys at once: all that are there, and none of the others."""

from __future__ import annotations

import numpy as np
import pytest

from portforge.apply import libbpf
from portforge.apply.layout import FLOW, FLOW_KEY, RULE_KEY
from portforge.apply.node import Rows

from .bed import Bed

MORE_THAN_A_BATCH = 9000


def keys(first: int, count: int) -> Rows:
    made = np.zeros(count, FLOW_KEY)
    made["cgroup"] = np.arange(first, first + count)
    return made


def fill(bed: Bed, made: Rows) -> int:
    fd = bed.maps.fd("flows_1")
    for key in made:
        libbpf.update(fd, key.tobytes(), bytes(FLOW.itemsize))
    return fd


def test_more_keys_than_one_batch_takes_are_all_deleted(bed: Bed) -> None:
    made = keys(1, MORE_THAN_A_BATCH)
    fd = fill(bed, made)
    libbpf.clear(fd, made.tobytes(), FLOW_KEY.itemsize)
    assert bed.maps.read("flows_1")[0].size == 0


@pytest.mark.parametrize("missing", [[0], [4], [9], [0, 1, 5, 8, 9], list(range(10))])
def test_keys_that_are_not_there_are_passed_by(bed: Bed, missing: list[int]) -> None:
    asked, others = keys(1, 10), keys(100, 3)
    fd = fill(bed, np.concatenate([np.delete(asked, missing), others]))
    libbpf.clear(fd, asked.tobytes(), FLOW_KEY.itemsize)
    assert sorted(bed.maps.read("flows_1")[0]["cgroup"]) == [100, 101, 102]


def test_no_keys_is_no_error(bed: Bed) -> None:
    libbpf.clear(bed.maps.fd("flows_1"), b"", FLOW_KEY.itemsize)


def test_keys_of_a_trie_are_deleted_too(bed: Bed) -> None:
    for port in (80, 443):
        bed.maps.put("rules", (64, 7, 0, 6, port), (0, 1))
    gone = np.array([(64, 7, 0, 6, 80), (64, 7, 0, 6, 81)], RULE_KEY)
    libbpf.clear(bed.maps.fd("rules"), gone.tobytes(), RULE_KEY.itemsize)
    assert bed.maps.read("rules")[0]["port"].tolist() == [443]


def test_another_failure_is_raised(bed: Bed) -> None:
    """An array has no deletion at all; the loop must end there."""
    with pytest.raises(OSError, match="delete"):
        libbpf.clear(bed.maps.fd("losses"), bytes(4), 4)
