"""Following a collection of a real API server: changes, cuts, restarts, compaction, refusals."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Callable

import pytest
from kubernetes.client import ApiClient
from localcluster.control import ControlPlane

from portforge.errors import ClusterError
from portforge.kube import watch
from portforge.kube.client import connect, request, send, username
from portforge.kube.watch import METADATA_ONLY, Watcher

PATH = "/api/v1/namespaces/default/configmaps"


@pytest.fixture(scope="module")
def api(api_server: ControlPlane) -> ApiClient:
    return connect(api_server.kubeconfig)


def make(api: ApiClient, name: str, value: str = "1") -> None:
    request(api, "POST", PATH, body={"metadata": {"name": name}, "data": {"value": value}})


def put(api: ApiClient, name: str, value: str) -> None:
    request(api, "PATCH", f"{PATH}/{name}", body={"data": {"value": value}},
            headers={"Content-Type": "application/merge-patch+json"})  # fmt: skip


def delete(api: ApiClient, name: str) -> None:
    request(api, "DELETE", f"{PATH}/{name}")


def slim(item: dict) -> tuple[str, str] | None:
    if item["metadata"]["name"].startswith("kube-"):
        return None
    return item["metadata"]["name"], item["data"]["value"]


def until(holds: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def kept(watcher: Watcher[tuple[str, str]]) -> dict[str, str]:
    return dict(watcher.items().values())


def test_who_we_are(api):
    assert username(api) == "admin"


def test_changes_are_followed(api):
    replaced: list[object] = []
    make(api, "early")
    with Watcher(api, PATH, slim, on_replaced=lambda *what: replaced.append(what[1:])) as watcher:
        assert watcher.wait(10)
        assert kept(watcher) == {"early": "1"}
        changed = watcher.changed
        make(api, "late")
        until(lambda: "late" in kept(watcher))
        put(api, "late", "2")
        until(lambda: kept(watcher)["late"] == "2")
        request(api, "PATCH", f"{PATH}/late", body={"metadata": {"labels": {"a": "b"}}},
                headers={"Content-Type": "application/merge-patch+json"})  # fmt: skip
        delete(api, "late")
        until(lambda: "late" not in kept(watcher))
        assert watcher.changed == changed + 3, "a change of what is not kept is none"
        assert replaced == [(("late", "1"), ("late", "2")), (("late", "2"), None)]
        assert watcher.age < 5
        assert watcher.problem is None
    delete(api, "early")


def test_more_than_a_page_and_metadata_only(api):
    for i in range(510):
        make(api, f"many-{i}")
    with Watcher(api, PATH, lambda o: "data" in o, accept=METADATA_ONLY) as watcher:
        assert watcher.wait(20)
        assert len(watcher.items()) >= 510
        assert not any(watcher.items().values())
        make(api, "many-more")
        until(lambda: len(watcher.items()) >= 511)
    request(api, "DELETE", PATH)


def test_an_object_that_cannot_be_taken_is_left_out(api, caplog):
    request(api, "POST", PATH, body={"metadata": {"name": "odd"}})
    with Watcher(api, PATH, slim) as watcher:
        assert watcher.wait(10)
        make(api, "good")
        until(lambda: "good" in kept(watcher))
        assert "default/odd is left out" in caplog.text
    request(api, "DELETE", PATH)


def test_a_watch_that_ends_goes_on_where_it_was(api):
    with Watcher(api, PATH, slim, seconds=2) as watcher:
        assert watcher.wait(10)
        time.sleep(5)
        assert watcher.age < 3
        make(api, "after")
        until(lambda: "after" in kept(watcher), 5)
    delete(api, "after")


def test_a_collection_that_is_not_there(api):
    with Watcher(api, "/apis/nowhere.example/v1/things", slim) as watcher:
        until(lambda: watcher.problem)
        assert not watcher.synced
        assert watcher.problem is not None
        assert watcher.problem.status == 404


def test_no_rights(api_server):
    weak = connect(api_server.pki.kubeconfig("nobody"))
    with Watcher(weak, PATH, slim) as watcher:
        until(lambda: watcher.problem)
        assert watcher.problem is not None
        assert "forbidden" in str(watcher.problem)
        assert watcher.problem.status == 403


def test_no_kubeconfig(tmp_path):
    with pytest.raises(ClusterError, match="no usable kubeconfig"):
        connect(tmp_path / "none")
    with pytest.raises(ClusterError, match="no usable kubeconfig"):
        connect(context="no-such-context")


def test_an_api_server_that_restarts_and_has_forgotten_the_version(api, api_server):
    """The watcher sleeps through many changes, a compaction and a restart: 410 Gone."""
    held = threading.Event()
    held.set()
    make(api, "stays")
    make(api, "goes")
    gone: list[object] = []
    with Watcher(api, PATH, slim, on_change=lambda: held.wait() and None,
                 on_replaced=lambda *what: gone.append(what[1:])) as watcher:  # fmt: skip
        assert watcher.wait(10)
        time.sleep(0.5)
        version = watcher._version
        held.clear()
        put(api, "stays", "2")
        until(lambda: kept(watcher)["stays"] == "2")  # it hangs in on_change now
        for i in range(150):
            put(api, "stays", str(i))
        delete(api, "goes")
        make(api, "new")
        compact(api_server, api)
        api_server.processes.stop("api-server")
        api_server.start_api_server()
        assert watch_status(api, version) == 410, "what the watcher is about to meet"
        held.set()
        until(lambda: kept(watcher) == {"stays": "149", "new": "1"}, 40)
        assert (("goes", "1"), None) in gone
        put(api, "new", "2")
        until(lambda: kept(watcher)["new"] == "2")
    request(api, "DELETE", PATH)


def test_the_first_that_is_answered_wakes_the_others(api, api_server, monkeypatch):
    """Each would wait up to half a minute for itself: a pod that came would be unknown so long."""
    patient = f"watch {PATH}"

    def pause(failures: int) -> float:
        return 3600 if failures > 2 and threading.current_thread().name == patient else 0.1

    monkeypatch.setattr(watch, "_pause", pause)
    with (
        Watcher(api, PATH, slim) as waits,
        Watcher(api, "/api/v1/namespaces", lambda item: item["metadata"]["name"]) as tries,
    ):
        assert waits.wait(10)
        assert tries.wait(10)
        api_server.processes.stop("api-server")
        until(lambda: tries.problem and waits._failures > 2)
        api_server.start_api_server()
        until(lambda: not waits.problem, 60)
        make(api, "woken")
        until(lambda: "woken" in kept(waits))
    request(api, "DELETE", PATH)


def watch_status(api: ApiClient, version: str) -> int:
    """What the API server says first to a watch from ``version``: an HTTP status or an event."""
    query = {"watch": "1", "resourceVersion": version, "timeoutSeconds": "2"}
    said = json.loads(send(api, "GET", PATH, params=query).data.splitlines()[0])
    return int(said.get("object", said)["code"])


def compact(api_server: ControlPlane, api: ApiClient) -> None:
    """Make etcd forget all versions but the last."""
    now = request(api, "GET", PATH)["metadata"]["resourceVersion"]
    asked = urllib.request.Request(
        f"http://127.0.0.1:{api_server._etcd}/v3/kv/compaction",
        data=json.dumps({"revision": now, "physical": True}).encode(),
    )
    with urllib.request.urlopen(asked, timeout=10) as answer:  # noqa: S310
        assert answer.status == 200
