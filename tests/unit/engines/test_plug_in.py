"""Engines are found by entry point: a distribution that is installed beside ours brings one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from flow_rows import row, write_capture

from portforge.capture import open_capture
from portforge.engines import engine_names, open_engine
from portforge.errors import CaptureError

MODULE = '''
from portforge.engines._duckdb import DuckDB

class Told(DuckDB):
    """DuckDB, that keeps what it was asked."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def ask(self, sql):
        self.asked.append(sql)
        return super().ask(sql)

class Half:
    dialect = "duckdb"
'''
POINTS = """[portforge.engines]
told = other_engine:Told
half = other_engine:Half
away = engine_that_is_not_there:Engine
"""


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A distribution ``other-engine`` as pip lays one out, on the path of this process."""
    site = tmp_path / "site"
    about = site / "other_engine-1.0.dist-info"
    about.mkdir(parents=True)
    (site / "other_engine.py").write_text(MODULE)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: other-engine\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "other_engine", raising=False)
    return site


@pytest.mark.usefixtures("other")
def test_an_engine_of_another_distribution_is_asked(tmp_path: Path) -> None:
    rows = [row("web", "ingress", "TCP", 80, "client"), row("web", "egress", "TCP", 1, "db", at=30)]
    folder = write_capture(tmp_path / "capture", rows)
    assert {"duckdb", "told"} <= set(engine_names())
    told = open_capture(folder, engine="told")
    ours = open_capture(folder)
    assert told.aggregated().equals(ours.aggregated())
    assert told.pods("1h").equals(ours.pods("1h"))
    assert any('"own_node"' in sql for sql in told._sums._engine.asked)


def test_the_command_line_takes_it(other: Path, tmp_path: Path) -> None:
    folder = write_capture(tmp_path / "capture", [row("web", "ingress", "TCP", 80, "client")])
    for name, code, told in (
        ("told", 0, "Written to"),
        ("nothing", 1, "no engine 'nothing'; installed are: "),
    ):
        words = ["recommend", folder, "-o", tmp_path / f"out-{name}", "--engine", name]
        ran = subprocess.run(
            [sys.executable, "-c", "from portforge.cli import main; main()", *map(str, words)],
            env={"PYTHONPATH": str(other), "PATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == code, ran.stderr
        assert told in ran.stdout + ran.stderr


@pytest.mark.usefixtures("other")
def test_what_is_wrong_with_an_engine_is_said() -> None:
    with pytest.raises(CaptureError, match=r"no engine 'none'; installed are: .*duckdb"):
        open_engine("none")
    with pytest.raises(CaptureError, match=r"half = other_engine:Half: not an engine: it lacks"):
        open_engine("half")
    with pytest.raises(CaptureError, match=r"away = .*cannot be loaded .*engine_that_is_not_there"):
        open_engine("away")


def test_two_of_one_name_are_refused(other: Path) -> None:
    twin = other / "twin-1.0.dist-info"
    twin.mkdir()
    (twin / "METADATA").write_text("Metadata-Version: 2.1\nName: twin\nVersion: 1.0\n")
    (twin / "entry_points.txt").write_text("[portforge.engines]\ntold = twin:Told\n")
    with pytest.raises(CaptureError, match="other-engine, twin: 2 engines are called 'told'"):
        open_engine("told")
