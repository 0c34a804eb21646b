"""The agent's HTTP over real sockets: pages, the capture's files, and clients that behave badly."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

from portforge_recorder import serve
from portforge_recorder.files import byte_range, opened
from portforge_recorder.metrics import Metrics
from portforge_recorder.serve import Server

NAME = "v1/cluster=c/date=2026-11-25/n-20261125T120000Z-1.parquet"
WORD = "word"
DATA = bytes(range(256)) * 4


class Anyone:
    """Lets in whoever says the word."""

    def check(self, token: str | None) -> HTTPStatus:
        return HTTPStatus.OK if token == WORD else HTTPStatus.UNAUTHORIZED


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    for name in (NAME, NAME.replace("/n-", "/_loss-n-"), "v1/cluster=c/.tmp.parquet", "v1/x.txt"):
        file = tmp_path / "capture" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(DATA)
    (tmp_path / "secret.parquet").write_bytes(b"secret")
    (tmp_path / "capture/v1/link.parquet").symlink_to(tmp_path / "secret.parquet")
    (tmp_path / "capture/v1/out").symlink_to(tmp_path)
    return tmp_path / "capture"


Problems = list[str]


@pytest.fixture
def problems() -> Problems:
    return []


@pytest.fixture
def server(capture: Path, problems: Problems) -> Iterator[Server]:
    made = Server(
        ("127.0.0.1", 0),
        Metrics().registry,
        list,
        lambda: problems,
        capture,
        Anyone(),  # type: ignore[arg-type]
    )
    made.start()
    yield made
    made.stop()


Ask = Callable[..., tuple[int, bytes, dict[str, str]]]


@pytest.fixture
def ask(server: Server) -> Ask:
    def do(path: str, word: str = WORD, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        line = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
        line.request("GET", path, headers={"X-Portforge-Token": word, **headers})
        answer = line.getresponse()
        body = answer.read()
        line.close()
        return answer.status, body, dict(answer.getheaders())

    return do


def test_health_and_readiness_say_why(ask: Ask, problems: Problems) -> None:
    assert ask("/healthz")[:2] == (200, b"ok\n")
    assert ask("/readyz")[:2] == (200, b"ok\n")
    problems.append("the canary was not recorded")
    assert ask("/readyz")[:2] == (503, b"the canary was not recorded\n")
    assert ask("/healthz")[0] == 200
    assert ask("/nothing")[0] == 404


def test_every_reason_and_verdict_is_there_from_the_start(ask: Ask) -> None:
    text = ask("/metrics")[1].decode()

    assert 'portforge_losses_total{reason="stale_identity"} 0.0' in text
    assert 'portforge_connections_total{verdict="denied"} 0.0' in text


def test_the_capture_needs_a_token(ask: Ask) -> None:
    for path in ("/capture", "/capture/", f"/capture/{NAME}"):
        assert ask(path, word="guess")[0] == 401


def test_finished_files_are_listed_and_read(ask: Ask) -> None:
    listed = json.loads(ask("/capture/")[1])["files"]

    assert [f["path"] for f in listed] == sorted([NAME, NAME.replace("/n-", "/_loss-n-")])
    assert {f["size"] for f in listed} == {len(DATA)}
    assert listed[0]["modified"].endswith("Z")
    assert ask(f"/capture/{NAME}")[:2] == (200, DATA)
    assert ask(f"/capture/{NAME.replace('=', '%3D')}")[:2] == (200, DATA)


def test_a_part_of_a_file(ask: Ask) -> None:
    status, body, headers = ask(f"/capture/{NAME}", Range="bytes=1000-")

    assert (status, body) == (206, DATA[1000:])
    assert headers["Content-Range"] == "bytes 1000-1023/1024"
    assert ask(f"/capture/{NAME}", Range="bytes=1024-")[0] == 416
    assert ask(f"/capture/{NAME}", Range="bytes=0-1,3-4")[:2] == (200, DATA)
    assert byte_range("bytes=5-2", 10) is None


@pytest.mark.parametrize(
    "name",
    [
        "v1/link.parquet",
        "v1/out/secret.parquet",
        "v1/../../secret.parquet",
        "v1/%2e%2e/%2e%2e/secret.parquet",
        "v1//x.parquet",
        "v1/x.txt",
        "v1/cluster=c/.tmp.parquet",
        "v1/cluster=c",
        "v1/a%00.parquet",
        "v1/missing.parquet",
    ],
)
def test_nothing_else_is_read(ask: Ask, name: str) -> None:
    assert ask(f"/capture/{name}")[0] == 404


def test_a_folder_called_like_a_file_is_none(capture: Path) -> None:
    (capture / "v1/folder.parquet").mkdir()
    with pytest.raises(OSError, match="folder"):
        opened(capture, "v1/folder.parquet")


def test_slow_clients_hold_nobody_up(
    server: Server, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "_HEAD_SECONDS", 0.5)
    slow = [socket.create_connection(("127.0.0.1", server.server_port)) for _ in range(12)]
    try:
        for one in slow:
            one.send(b"GET /capture/ HTTP/1.0\r\nX-")
        begun = time.monotonic()
        assert ask("/healthz")[0] == 200
        assert time.monotonic() - begun < 5
        for one in slow:
            one.settimeout(10)
            while one.recv(4096):
                pass
        assert time.monotonic() - begun < 10
    finally:
        for one in slow:
            one.close()


def test_more_connections_than_there_is_room_for_are_closed(server: Server, ask: Ask) -> None:
    many = [socket.create_connection(("127.0.0.1", server.server_port)) for _ in range(24)]
    many[-1].settimeout(10)
    assert many[-1].recv(1) == b""
    for one in many:
        one.close()
    time.sleep(0.5)
    assert ask("/healthz")[0] == 200
