"""Without pyspark or Java, the engine spark says in one sentence what brings it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from portforge.cli import portforge
from portforge.engines import open_engine
from portforge.errors import HostError


def test_no_pyspark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(HostError, match=r"needs pyspark .*; pip install 'portforge\[spark\]'"):
        open_engine("spark")


def test_no_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match=r"PATH: the engine spark needs Java, and there is none"):
        open_engine("spark")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(HostError, match=rf"JAVA_HOME={tmp_path}: .*there is none"):
        open_engine("spark")


def test_an_old_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    java = tmp_path / "bin/java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.22\" 2024-01-16' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(HostError, match=r"needs Java 17 or newer, not 11"):
        open_engine("spark")
    ran = CliRunner().invoke(
        portforge, ["recommend", str(tmp_path), "-o", str(tmp_path / "out"), "--engine", "spark"]
    )
    assert isinstance(ran.exception, HostError)
