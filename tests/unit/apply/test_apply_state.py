"""The state on disk: history, rollback, locks, failed writes. And what may be put in force."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from portforge.apply.enforce import approved
from portforge.apply.inventory import Pod
from portforge.apply.state import Known, State
from portforge.errors import ApprovalError, PortforgeError, WriteError
from portforge.policy import Mode, PortPolicy, approve
from portforge.schema import Workload

NOW = datetime(2026, 11, 25, tzinfo=UTC)


def policy(port: int = 80, name: str = "web", **more: Any) -> PortPolicy:
    return PortPolicy.model_validate(
        {
            "namespace": "shop",
            "name": name,
            "workload": Workload("shop", "Deployment", name),
            "mode": "Enforce",
            "ingress": [{"id": "in", "protocol": "TCP", "port": port}],
        }
        | more
    )


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State("node-a", tmp_path)


def test_nothing_is_in_force_at_first(state: State) -> None:
    assert (state.policies(), state.history(), state.known()) == ([], [], {})
    with pytest.raises(PortforgeError, match="nothing to roll back to"):
        state.back()


def test_what_is_put_in_force_is_read_back_as_it_was(state: State) -> None:
    ready = [approve(policy(name=n), "ann", NOW) for n in ("web", "cart")]
    state.change(ready)
    assert state.policies() == sorted(ready, key=lambda p: p.workload)


def test_rollback_goes_back_one_change_at_a_time_to_nothing(state: State) -> None:
    for port in (80, 81, 82):
        state.change([policy(port)])
    assert [p.ingress[0].port for p in state.back() if p.ingress] == [81]
    state.change([])
    assert state.policies() == []
    assert [p.ingress[0].port for p in state.back() if p.ingress] == [81]
    assert [p.ingress[0].port for p in state.back() if p.ingress] == [80]
    assert state.back() == []
    assert state.history() == []


def test_history_is_ordered_by_number_also_past_9999(state: State) -> None:
    state.change([])
    state.history()[0].rename(state.folder / "history" / "9999.yaml")
    for port in (80, 81, 82):
        state.change([policy(port)])
    assert [p.stem for p in state.history()] == ["9999", "10000", "10001", "10002"]
    assert [p.ingress[0].port for p in state.back() if p.ingress] == [81]


def test_ids_are_remembered_whole(state: State) -> None:
    state.remember([Known(7, ("in-tcp-80", "out")), Known(12, ())])
    assert state.known() == {7: Known(7, ("in-tcp-80", "out")), 12: Known(12, ())}
    before = state.ids()
    state.remember([Known(13, ())])
    assert state.ids() != before


@pytest.mark.parametrize("damaged", [b"\xff\xfe", b"{", b"[]", b'{"a": []}', b'{"1": 2}'])
def test_damaged_ids_are_no_ids_and_are_replaced(state: State, damaged: bytes) -> None:
    state.remember([Known(1, ("in",))])
    (state.folder / "ids.json").write_bytes(damaged)
    assert state.known() == {}
    state.remember([Known(2, ("in",))])
    assert state.known() == {2: Known(2, ("in",))}


def test_policies_that_are_no_text_are_said_plainly(state: State) -> None:
    state.change([policy()])
    state.current.write_bytes(b"\xff\xfe")
    with pytest.raises(PortforgeError, match=r"current\.yaml"):
        state.policies()


def test_a_file_of_somebody_else_is_no_history(state: State) -> None:
    state.change([policy()])
    (state.folder / "history" / "notes.yaml").write_text("")
    assert [path.name for path in state.history()] == ["0001.yaml"]


def test_the_lock_may_be_nested(state: State) -> None:
    with state.alone():
        with state.alone():
            state.change([policy()])
        assert state.policies()


def test_nodes_do_not_share_a_state(state: State, tmp_path: Path) -> None:
    state.change([policy()])
    assert State("node-b", tmp_path).policies() == []


def files(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("failing", [1, 2])
def test_a_full_disk_leaves_everything_as_it_was(
    state: State, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    state.change([policy(80)])
    before, calls = files(state.folder), 0

    def full(_: int) -> None:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(WriteError, match="No space left on device; free space"):
        state.change([policy(81)])
    assert files(state.folder) == before


def test_a_folder_that_cannot_be_made_is_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    state = State("node-a", tmp_path / "file")
    with pytest.raises(WriteError, match="file/node-a: Not a directory"), state.alone():
        pass


HOLD = """
import sys
from pathlib import Path
from portforge.apply.state import State
with State("node-a", Path(sys.argv[1])).alone():
    print("held", flush=True)
    sys.stdin.read()
"""
TRY = """
import fcntl, sys
with open(sys.argv[1], "w") as lock:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        print("free")
    except BlockingIOError:
        print("held")
"""


def test_one_process_at_a_time(state: State, tmp_path: Path) -> None:
    lock = state.folder / "lock"

    def attempt() -> str:
        tried = subprocess.run(
            [sys.executable, "-c", TRY, str(lock)], check=True, capture_output=True, text=True
        )
        return tried.stdout.strip()

    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        assert attempt() == "held"
        # Killed, it lets go: a lock is not left behind.
        holder.kill()
        holder.wait()
    assert attempt() == "free"


def test_approved_policies_pass_in_the_mode_that_is_wanted() -> None:
    ready = approve(policy(), "ann", NOW)
    assert approved([ready], None, NOW) == [ready]
    (audit,) = approved([ready], Mode.AUDIT, NOW)
    assert audit.mode is Mode.AUDIT
    assert audit.approval == ready.approval


def test_recording_needs_no_approval() -> None:
    assert approved([policy(mode="Record")], None, NOW)[0].mode is Mode.RECORD
    assert approved([policy()], Mode.RECORD, NOW)[0].mode is Mode.RECORD
    with pytest.raises(ApprovalError):
        approved([policy(mode="Record")], Mode.AUDIT, NOW)


@pytest.mark.parametrize("mode", [Mode.AUDIT, Mode.ENFORCE, None])
def test_what_is_not_approved_is_refused_with_its_place_and_a_remedy(mode: Mode | None) -> None:
    signed = approve(policy(80), "ann", NOW)
    changed = signed.model_copy(update={"ingress": policy(81).ingress})
    carried = policy(80, "cart").model_copy(update={"approval": signed.approval})
    past = approve(policy(expires_at=NOW - timedelta(seconds=1)), "ann", NOW)
    for bad, name, problem in (
        (policy(), "web", "is not approved"),
        (changed, "web", "was changed after ann approved it"),
        (carried, "cart", "was changed after ann approved it"),
        (past, "web", "expired at 2026-11-24T23:59:59Z"),
    ):
        good = approve(policy(name="other"), "ann", NOW)
        with pytest.raises(ApprovalError) as refused:
            approved([good, bad], mode, NOW)
        assert problem in refused.value.problem
        assert refused.value.place == f"shop/{name}"
        assert refused.value.remedy


def test_pods_are_remembered_and_written_only_when_they_change(state: State) -> None:
    assert state.pods() == []
    web = Pod("u1", "shop", "web-1", Workload("shop", "Deployment", "web"), "node-a", ("10.0.0.1",))
    agent = Pod("u0", "ops", "agent-1", None, "node-a", host_network=True)
    state.remember_pods([web, agent])
    assert state.pods() == [agent, web]
    written = (state.folder / "pods.json").stat().st_ino
    state.remember_pods([agent, web])
    assert (state.folder / "pods.json").stat().st_ino == written
    for damaged in ("", "{", "[1]", '[{"uid": "u1"}]', "3"):
        (state.folder / "pods.json").write_text(damaged)
        assert state.pods() == []
