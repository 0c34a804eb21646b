"""The documentation says what is there: every command, column, dependency, link and package."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from portforge.cli import COMMANDS
from portforge.schema import COLUMNS, LossReason

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented(name):
    text = (ROOT / "docs/cli.md").read_text()
    section = text.split(f"## portforge {name}\n")[1].split("\n## ")[0]
    assert f"Usage: portforge {name}" in section
    assert "Example" in section, "the help of a command shows how it is used"
    assert max(map(len, section.splitlines())) <= 100


def test_every_column_and_loss_reason_is_documented():
    text = (ROOT / "docs/flow-record.md").read_text()
    for name in [*(c.name for c in COLUMNS), *LossReason]:
        assert f"`{name}`" in text


def test_every_dependency_has_a_reason():
    text = (ROOT / "docs/dependencies.md").read_text()
    assert [n for n in _declared() if not re.search(rf"\b{re.escape(n)}\b", text)] == []


def test_every_dependency_is_pinned_with_hashes():
    pins = (ROOT / "requirements/dev.txt").read_text()
    pinned = set(re.findall(r"^([a-z0-9._-]+)==", pins, re.MULTILINE))
    needed = {re.sub(r"[._-]+", "-", n) for n in _declared()}  # as package indexes spell it
    assert needed | {"hatchling", "editables"} <= pinned
    assert pins.count("==") <= pins.count("--hash=sha256:")
    assert "://" not in pins


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_relative_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_readme_and_changelog_are_written():
    readme = (ROOT / "README.md").read_text()
    for part in ("## Why", "make demo", "make lab", "## The loop", "## Honest limits", ".svg"):
        assert part in readme
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()


def _declared() -> list[str]:
    """Names of everything that pyproject.toml asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    return [re.split(r"[^A-Za-z0-9._-]", wanted)[0].lower() for group in groups for wanted in group]
