"""Contract 3 is the same in C and in Python, and the loaded maps are what both say."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from portforge.apply import layout
from portforge.apply.node import MAPS
from portforge.demo.pods import Node
from portforge_recorder.load import Sizes, sources

from .bed import Bed, make_bed

HEADER = (sources() / "layout.h").read_text()
# Python's names are C's without pf_.
STRUCTURES = {
    "pf_flow_key": layout.FLOW_KEY,
    "pf_flow": layout.FLOW,
    "pf_pod": layout.POD,
    "pf_uid": layout.UID,
    "pf_pod_name": layout.POD_NAME,
    "pf_rule_key": layout.RULE_KEY,
    "pf_rule": layout.RULE,
    "pf_peer_key": layout.PEER_KEY,
    "pf_peer": layout.PEER,
    "pf_listener_key": layout.LISTENER_KEY,
    "pf_listener": layout.LISTENER,
    "pf_config": layout.CONFIG,
    "pf_answer": layout.ANSWER,
}


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    with (
        tempfile.TemporaryDirectory() as folder,
        Node(f"layout-{os.getpid()}") as node,
        make_bed(Path(folder), node, Sizes(flows=101)) as ready,
    ):
        yield ready


def bpftool(*words: str) -> Any:
    return json.loads(subprocess.check_output(["bpftool", "-j", *words]))


class Btf:
    """The types of one loaded map."""

    def __init__(self, number: int) -> None:
        listed = bpftool("btf", "dump", "id", str(number))["types"]
        self.types: dict[int, dict[str, Any]] = {t["id"]: t for t in listed}

    def plain(self, number: int) -> dict[str, Any]:
        """The type behind typedefs and qualifiers."""
        while self.types[number]["kind"] in ("TYPEDEF", "CONST", "VOLATILE"):
            number = self.types[number]["type_id"]
        return self.types[number]

    def size(self, number: int) -> int:
        found = self.plain(number)
        if found["kind"] == "ARRAY":
            return int(found["nr_elems"]) * self.size(found["type_id"])
        return int(found["size"])

    def fields(self, number: int) -> list[tuple[str, int, int]]:
        """Name, offset and size of each member."""
        members = self.plain(number)["members"]
        return [(m["name"], m["bits_offset"] // 8, self.size(m["type_id"])) for m in members]


def dtype_fields(dtype: np.dtype[Any]) -> list[tuple[str, int, int]]:
    assert dtype.fields
    return [
        (name, dtype.fields[name][1], dtype.fields[name][0].itemsize) for name in dtype.names or ()
    ]


@pytest.mark.parametrize("name", MAPS)
def test_a_map_has_the_layout_that_python_reads(bed: Bed, name: str) -> None:
    info = bpftool("map", "show", "pinned", str(bed.maps.folder / "maps" / name))
    assert info["bytes_key"] == MAPS[name].key.itemsize
    assert info["bytes_value"] == MAPS[name].value.itemsize
    btf = Btf(info["btf_id"])
    keys = {k["name"]: k["id"] for k in btf.types.values() if k["kind"] == "STRUCT"}
    for dtype in MAPS[name]:
        structure = next((c for c, d in STRUCTURES.items() if d is dtype), None)
        if structure:
            assert btf.fields(keys[structure]) == dtype_fields(dtype)
            assert btf.size(keys[structure]) == dtype.itemsize


@pytest.mark.parametrize("name", layout.RINGS)
def test_a_ring_has_records_as_python_reads_them(bed: Bed, name: str) -> None:
    # A ring has no type of its own: its records are put together in answer_draft.
    info = bpftool("map", "show", "pinned", str(bed.maps.folder / "maps" / f"{name[:-1]}_draft"))
    btf, dtype = Btf(info["btf_id"]), layout.RINGS[name]
    structure = next(c for c, d in STRUCTURES.items() if d is dtype)
    (number,) = (k["id"] for k in btf.types.values() if k.get("name") == structure)
    assert btf.fields(number) == dtype_fields(dtype)
    assert btf.size(number) == dtype.itemsize == info["bytes_value"]


def test_every_structure_of_the_header_is_compared() -> None:
    declared = set(re.findall(r"^struct (\w+) \{", HEADER, re.MULTILINE))
    assert declared == {*STRUCTURES, "pf_address"}
    used = {id(dtype) for kind in MAPS.values() for dtype in kind}
    used |= {id(dtype) for dtype in layout.RINGS.values()}
    assert {id(d) for d in STRUCTURES.values()} <= used


def test_every_map_of_the_header_is_known_by_name(bed: Bed) -> None:
    text = (sources() / "maps.h").read_text()
    declared = set(re.findall(r"BPF_(?:PERCPU_)?ARRAY\((\w+)", text))
    declared |= set(re.findall(r"BPF_RINGBUF_OUTPUT\((\w+)", text))
    declared |= set(re.findall(r'BPF_(?:F_)?TABLE\("\w+", [^,]+, [^,]+, (\w+)', text))
    pinned = {p.name for p in (bed.maps.folder / "maps").iterdir()}
    assert declared == pinned == {*MAPS, *layout.RINGS, *layout.PRIVATE}


def test_sizes_come_from_the_loader(bed: Bed) -> None:
    for name, expected in (("flows_0", 101), ("flows_1", 101), ("ports_0", Sizes().ports)):
        info = bpftool("map", "show", "pinned", str(bed.maps.folder / "maps" / name))
        assert info["max_entries"] == expected


def constants() -> dict[str, int]:
    return {k: int(v) for k, v in re.findall(r"^#define PF_(\w+) (\d+)", HEADER, re.MULTILINE)}


@pytest.mark.parametrize(
    ("kind", "prefix"),
    [
        (layout.Direction, ""),
        (layout.Verdict, ""),
        (layout.Mode, ""),
        (layout.Established, ""),
        (layout.Restrict, "RESTRICT_"),
        (layout.Scope, ""),
    ],
)
def test_numbers_mean_the_same_in_both_languages(kind: type[IntEnum], prefix: str) -> None:
    defined = constants()
    assert {prefix + one.name: one.value for one in kind} == {
        prefix + one.name: defined.get(prefix + one.name) for one in kind
    }


def test_every_number_of_the_header_is_one_of_pythons() -> None:
    known = {one.name for kind in _KINDS for one in kind}
    known |= {f"RESTRICT_{one.name}" for one in layout.Restrict}
    losses = {k: v for k, v in constants().items() if k.startswith("LOSS_")}
    assert losses.pop("LOSS_REASONS") >= len(layout.KERNEL_LOSSES)
    assert sorted(losses.values()) == list(range(len(layout.KERNEL_LOSSES)))
    for name, index in losses.items():
        word = name.removeprefix("LOSS_").lower()
        assert str(layout.KERNEL_LOSSES[index]).startswith(word)
    assert constants()["NAME_LENGTH"] == layout.POD_NAME["name"].itemsize
    assert constants()["LEVEL_UNKNOWN"] == layout.LEVEL_UNKNOWN
    assert constants()["ANSWER_LENGTH"] == layout.ANSWER["payload"].itemsize
    rest = {"LOSS_REASONS", "NAME_LENGTH", "LEVEL_UNKNOWN", "ANSWER_LENGTH"}
    assert set(constants()) - known - set(losses) == rest


_KINDS = (layout.Direction, layout.Verdict, layout.Mode, layout.Established, layout.Scope)
