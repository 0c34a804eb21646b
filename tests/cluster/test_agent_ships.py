"""A real agent, on a real kernel and API server, brings what it records to a real S3 server."""

from __future__ import annotations

from pathlib import Path

import pytest
from s3_server import S3Server

from portforge.capture import open_capture
from portforge.errors import CaptureError
from portforge.store import open_store
from tests.cluster.test_agent_policies import Place, place, until

__all__ = ["place"]  # the fixture of that module
URL = "s3://captures/prod"


def test_what_an_agent_recorded_is_in_the_store(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = S3Server(tmp_path / "s3.log")
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("PORTFORGE_SHIP", "s3://none-yet/prod")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        place.start()
        until("the agent is ready", lambda: place.events("adopted"))
        place.knock()
        until("it says that there is no bucket", lambda: place.events("problem"), 60)
        (problem,) = place.events("problem")
        assert problem["where"] == "ship"
        assert "no such bucket" in problem["problem"]
        assert place.metric("ship_pending_files") > 0
        assert place.end() == 0

        monkeypatch.setenv("PORTFORGE_SHIP", URL)
        place.start()
        until("files are there", lambda: _listed(), 60)
        place.knock()
        assert place.end() == 0, "the last file is shipped at the end"
        capture = place.folder / "capture"
        here = {p.relative_to(capture).as_posix() for p in capture.rglob("v1/*/*/*.parquet")}
        assert {f.path for f in open_store(URL).list()} == here
        assert open_capture(URL).flows().equals(open_capture(capture).flows())
        assert not place.events("problem")
    finally:
        server.stop()


def _listed() -> int:
    try:
        return len(open_store(URL).list())
    except CaptureError:
        return 0
