"""Many addresses outside: blocks of addresses where these are cheap, else the world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flow_rows import Row, row, write_capture

from portforge.capture import open_capture
from portforge.recommend import Options, Recommendation, recommend
from portforge.recommend._blocks import Blocks, _fewest, covering

SPREAD = [f"203.0.113.{128 + 37 * n % 64}" for n in range(20)]
"""Twenty addresses of one /26, in no order."""


def learn(folder: Path, rows: list[Row], **options: Any) -> Recommendation:
    return recommend(open_capture(write_capture(folder, rows)), options=Options(**options))


def calls(addresses: list[str], **other: Any) -> list[Row]:
    return [row("web", "egress", "TCP", 443, ip, at=n, **other) for n, ip in enumerate(addresses)]


def peers(result: Recommendation) -> list[str]:
    (rule,) = next(p for p in result.policies if p.workload.name == "web").egress or ()
    return [str(peer) for peer in rule.peers or ()]


def test_addresses_of_one_block_open_the_block_and_say_its_price(tmp_path: Path) -> None:
    result = learn(tmp_path, calls(SPREAD))
    assert peers(result) == ["203.0.113.128/26"]
    (evidence,) = result.evidence.to_dict("records")
    assert evidence["over_grant"] == "64 addresses admitted, 20 seen"
    assert "too many to list, and they lie in 203.0.113.128/26" in evidence["reason"]


def test_what_lies_in_no_cheap_blocks_is_the_world(tmp_path: Path) -> None:
    result = learn(tmp_path, calls([f"{11 + 13 * n}.0.2.{n}" for n in range(9)]))
    assert peers(result) == ["World"]
    assert result.evidence["over_grant"][0] == "any external address for 9 addresses seen"


def test_no_block_holds_an_address_of_the_cluster(tmp_path: Path) -> None:
    pod = row("db", "ingress", "TCP", 5432, "web", peer_ip="203.0.113.150")
    found = peers(learn(tmp_path / "split", [*calls(SPREAD), pod]))
    assert "203.0.113.128/26" not in found


def test_another_address_of_a_block_is_nothing_new(tmp_path: Path) -> None:
    result = learn(tmp_path, calls(SPREAD))
    report = next(w for w in result.report["workloads"] if w["workload"] == "web")
    assert report["coverage"]["egress"]["peers"] == 1


def test_addresses_that_keep_coming_from_elsewhere_are_the_world() -> None:
    first = [f"192.0.2.{5 * n % 8}" for n in range(8)]
    then = [f"198.51.100.{5 * n % 8}" for n in range(8)]
    assert covering([*first, *then], 8, 256) is None
    mixed = [ip for pair in zip(first, then, strict=True) for ip in pair]
    assert covering(mixed, 8, 256) == Blocks(("192.0.2.0/29", "198.51.100.0/29"), 16, 16)


def test_ipv6_counts_by_64() -> None:
    addresses = [f"2001:db8:1:{n % 4}::{n + 1}" for n in range(16)]
    assert covering(addresses, 8, 256) == Blocks(("2001:db8:1::/62",), 4, 4)
    assert covering([*addresses[:9], "192.0.2.1"], 1, 256) is None


def test_thousands_of_addresses_are_the_world() -> None:
    assert covering([f"10.{n % 256}.{n // 256}.1" for n in range(3000)], 8, 1 << 20) is None


def test_the_fewest_blocks_within_the_price_then_the_cheapest() -> None:
    two = ["192.0.2.1", "192.0.2.130", "192.0.2.2", "192.0.2.131"]
    assert covering(two, 8, 84) == Blocks(("192.0.2.0/24",), 256, 4)
    assert _fewest(two, 8, 83, frozenset()) == Blocks(("192.0.2.0/30", "192.0.2.130/31"), 6, 4)
