"""What must not end the recorder, and what must not end enforcement."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from portforge.apply.node import NodeMaps, find_pins
from portforge.apply.state import Known
from portforge.errors import HostError
from portforge_recorder.agent import Recorder, Tick
from portforge_recorder.identity import StaticSource
from portforge_recorder.load import Sizes, versions
from portforge_recorder.mark import Told

from .enforcing import policy, rule, standing_bed
from .talk import TCP_SERVER, start
from .test_agent import Place, end, make_place, until


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with make_place("trouble", tmp_path) as ready:
        yield ready


def recorder(place: Place, capture: str = "capture", sizes: Sizes = Sizes()) -> Recorder:
    return Recorder(
        StaticSource(place.folder / "inventory.yaml"),
        place.folder / capture,
        place.node.kubepods,
        interval=0.1,
        state_folder=place.folder / "state",
        sizes=sizes,
    )


def until_ticks(one: Recorder, count: int = 2) -> Tick:
    """Run it for so many drains; the last of them."""
    ticks: list[Tick] = []

    def tell(tick: Tick) -> None:
        ticks.append(tick)
        if len(ticks) >= count:
            one.stop.set()

    one.on_tick = tell
    one.run()
    return ticks[-1]


def test_a_second_recorder_is_refused_and_unloads_nothing(place: Place) -> None:
    start(place.answers, TCP_SERVER, "::", 7001, 0, 1, "server")
    place.enforce()
    process = place.recorder(interval=0.1)
    until(place.told)
    second = recorder(place, "elsewhere")
    second.unload = True
    with pytest.raises(HostError, match="another recorder"):
        second.run()
    assert place.knock(7001) == "TIMEOUT"
    end(process)
    until_ticks(second)
    assert versions(place.node.name) == []


def test_a_pod_that_still_runs_keeps_its_policy_without_the_inventory(place: Place) -> None:
    start(place.answers, TCP_SERVER, "::", 7001, 0, 1, "server")
    place.enforce()
    process = place.recorder(interval=0.1)
    until(place.told)
    assert place.knock(7001) == "TIMEOUT"
    inventory = place.node.inventory()
    inventory["pods"] = [p for p in inventory["pods"] if p["name"] != place.answers.name]
    (place.folder / "inventory.yaml").write_text(json.dumps(inventory))
    drains = len(place.told())
    until(lambda: len(place.told()) > drains + 5)
    assert place.knock(7001) == "TIMEOUT"
    end(process)


def test_policies_that_cannot_be_read_do_not_stop_the_recording(place: Place) -> None:
    state = place.folder / "state" / place.node.name
    state.mkdir(parents=True)
    (state / "current.yaml").write_bytes(b"\xff\xfe")
    (state / "ids.json").write_text("{")
    tick = until_ticks(recorder(place))
    assert "current.yaml" in str(tick.problem)


def test_maps_that_are_full_do_not_stop_the_recorder(place: Place) -> None:
    for port in (7001, 7002, 7003):
        start(place.answers, TCP_SERVER, "::", port, 0, 1, "server")
    tick = until_ticks(recorder(place, sizes=Sizes(listeners=1)))
    assert "map is full" in str(tick.problem)
    with NodeMaps(find_pins(place.node.name)) as maps:
        assert maps.config()["ready"]


def test_a_clock_that_is_set_back_makes_no_impossible_interval(place: Place) -> None:
    one = recorder(place)
    until_ticks(one)
    now = datetime.now(UTC)
    zeros = [0] * len(one._told.losses)
    one._told = Told(now + timedelta(hours=1), zeros)
    (row,) = one._losses(Told(now, [1, *zeros[1:]]), 0, 0).to_pylist()
    assert row["interval_start"] == row["interval_end"] == now


def test_ids_of_earlier_programs_are_not_given_again(tmp_path: Path) -> None:
    """Rows that those counted are drained after the new programs have their policies."""
    with standing_bed(tmp_path) as bed:
        web = bed.node.pod("t", "Deployment", "web")
        bed.enforcer.state.remember([Known(700, ("in-tcp-1", "in-tcp-2"))])
        bed.enforce(policy("web", ingress=[rule("TCP")]))
        assert bed.enforcer.state.known()[700].rules == ("in-tcp-1", "in-tcp-2")
        assert bed.maps.get("pods", web.cgroup_path.stat().st_ino)["policy"] == 703
