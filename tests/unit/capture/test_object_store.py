"""Opening a capture in an object store: a real S3 server, and every refusal with its remedy."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from flow_rows import loss, row, write_capture, write_file
from pandas.testing import assert_frame_equal
from s3_server import S3Server

from portforge.capture import open_capture
from portforge.errors import CaptureError
from portforge.store import Store, open_store, store_url, trouble

URL = "s3://captures/prod"
ROWS = [row("web", "ingress", "TCP", 80 + day, "client", at=24 * day) for day in range(5)]


@pytest.fixture
def local(s3: S3Server, tmp_path: Path) -> Path:
    """A capture of five days, and the same in the store."""
    assert s3.url
    folder = write_capture(tmp_path / "capture", ROWS, [loss("flows_overflowed", 7)])
    upload(folder)
    return folder


def upload(folder: Path) -> None:
    store = open_store(URL)
    for file in folder.rglob("*.parquet"):
        store.put(file.relative_to(folder).as_posix(), file.read_bytes())


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is downloaded."""
    names: list[str] = []
    real = Store.get
    monkeypatch.setattr(Store, "get", lambda self, name: names.append(name) or real(self, name))
    return names


@pytest.mark.parametrize("url", [URL, f"{URL}/", Path(URL)])
def test_the_same_frames_as_the_folder(local: Path, url: str | Path) -> None:
    there, here = open_capture(url), open_capture(local)
    assert_frame_equal(there.flows(), here.flows())
    assert_frame_equal(there.losses(), here.losses())
    assert_frame_equal(there.aggregated(), here.aggregated())
    assert there.window() == here.window()


def test_bytes_come_once_and_later_only_new_files(local: Path, fetched: list[str]) -> None:
    open_capture(URL)
    assert len(fetched) == 6
    fetched.clear()
    new = write_file(local, "node-a-20260306T080000Z-1.parquet", ROWS[4:], day="2026-03-06")
    upload(local)
    assert len(open_capture(URL).flows()) == 6
    assert fetched == [new.relative_to(local).as_posix()]


def test_a_torn_copy_is_fetched_again(local: Path, tmp_path: Path, fetched: list[str]) -> None:
    open_capture(URL)
    copy = sorted((tmp_path / "cache").rglob("*.parquet"))[0]
    copy.write_bytes(b"PAR1")
    fetched.clear()
    assert_frame_equal(open_capture(URL).flows(), open_capture(local).flows())
    assert len(fetched) == 1


@pytest.mark.parametrize(
    ("window", "ports"),
    [
        ({}, [80, 81, 82, 83, 84]),
        ({"since": "1d"}, [82, 83, 84]),  # durations from the newest midnight, and a day before
        ({"since": "2026-03-05T00:00:00Z"}, [82, 83, 84]),
        ({"until": "2026-03-03T23:00:00Z"}, [80, 81, 84]),  # the newest day always
        ({"since": "2026-03-04", "until": "2026-03-04T12:00"}, [81, 82, 84]),
    ],
)
def test_only_the_days_of_the_window_are_copied(
    local: Path, fetched: list[str], window: dict[str, str], ports: list[int]
) -> None:
    capture = open_capture(URL, **window)
    assert sorted(capture.flows()["port"]) == ports
    assert len([n for n in fetched if "_loss" not in n]) == len(ports)
    assert_frame_equal(capture.flows(**window), open_capture(local).flows(**window))
    everything = open_capture(URL)
    assert everything.rows == 5
    assert open_capture(URL, **window).rows == len(ports), "whatever the copy holds"


def test_what_the_store_no_longer_has_leaves_the_copy(local: Path, s3: S3Server) -> None:
    open_capture(URL)
    s3.empty()
    first = sorted(local.rglob("node-a*.parquet"))[0]
    open_store(URL).put(first.relative_to(local).as_posix(), first.read_bytes())
    assert open_capture(URL).rows == 1
    copies = Path(os.environ["XDG_CACHE_HOME"]).rglob("*.parquet")
    assert [c.name for c in copies] == [first.name]


def refusal(url: str = URL) -> str:
    with pytest.raises(CaptureError) as refused:
        open_capture(url)
    return str(refused.value)


@pytest.mark.usefixtures("local")
def test_refusals(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal("s3://none/x").startswith("s3://none/x: no such bucket; check the bucket's name")
    assert "no capture there" in refusal("s3://captures/elsewhere")
    open_store("s3://captures/bad").put("v1/elsewhere/x.parquet", b"PAR1")
    assert "does not stand at v1/cluster=" in refusal("s3://captures/bad")
    truncated = "v1/cluster=c/date=2026-03-02/node-a-20260302T080000Z-0.parquet"
    open_store("s3://captures/torn").put(truncated, b"PAR1")
    assert "truncated or not Parquet" in refusal("s3://captures/torn")
    s3.demand_known_keys()
    assert "refuses these credentials; set AWS_ACCESS_KEY_ID" in refusal()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert "the store does not answer; check AWS_ENDPOINT_URL" in refusal()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "127.0.0.1:9000")
    assert "is not http(s)://HOST[:PORT]; correct it" in refusal()
    assert "the store failed" in refusal("nonsense://x/y")


def test_without_credentials() -> None:
    """Amazon's own answers to a request that nobody signed."""
    for text in (
        "When listing objects under key 'p/' in bucket 'b': AWS Error ACCESS_DENIED during "
        "ListObjectsV2 operation: Access Denied (Request ID: 4)",
        "When getting information for bucket 'b': AWS Error UNKNOWN (HTTP status 403) during "
        "HeadBucket operation: No response body.",
    ):
        assert "refuses these credentials; set AWS_ACCESS" in str(trouble(OSError(text), URL))


def test_a_folder_named_like_a_url_stays_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert store_url(Path("s3://bucket")) == "s3://bucket"
    Path("s3:/bucket").mkdir(parents=True)
    assert store_url(Path("s3://bucket")) is None
