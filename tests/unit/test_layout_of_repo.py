"""The repository keeps its shape: few top-level names, files that say what they are for."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOP = {
    *("bpf", "recorder", "portforge", "notebooks", "deploy", "datasets", "tests"),
    *("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"),
    *("docs", "scripts", "requirements", "Makefile", ".ci", ".gitignore", ".gitattributes"),
}
TARGETS = ("help", "install", "demo", "lab", "test", "test-light", "lint", "docs", "lock", "clean")


def tracked(*patterns: str) -> list[Path]:
    """Files in Git; outside of a checkout (an unpacked sdist) all that match."""
    asked = subprocess.run(
        ["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if asked.returncode == 0:
        return [ROOT / line for line in asked.stdout.splitlines() if (ROOT / line).exists()]
    return [found for pattern in patterns for found in ROOT.rglob(pattern)]


SOURCES = tracked("portforge/*.py", "recorder/*.py", "scripts/*.py")


def test_the_top_level_holds_only_what_belongs_there():
    assert {p.relative_to(ROOT).parts[0] for p in tracked("*")} <= TOP


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_says_first_what_it_is_for(path):
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


def test_the_library_does_not_import_the_recorder_or_bcc():
    """Imports point one way; bcc is the distribution's, for the loader process only."""
    for path in tracked("portforge/*.py"):
        if path.is_relative_to(ROOT / "portforge/cli") or "demo" in path.parts:
            continue
        for name in _imported(path):
            assert name.split(".")[0] not in {"portforge_recorder", "bcc"}, f"{path}: {name}"


def test_the_recorder_imports_only_contracts_of_the_library():
    contracts = ("schema", "policy", "apply", "errors", "kube", "store", "__version__")
    allowed = tuple(f"portforge.{name}" for name in contracts)
    for path in tracked("recorder/*.py"):
        for name in _imported(path):
            if name.split(".")[0] == "portforge":
                assert name.startswith(allowed), f"{path}: {name}"


def test_make_help_lists_the_targets():
    shown = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    listed = re.findall(r"make ([a-z-]+) ", shown.stdout)
    assert set(TARGETS) <= set(listed)


@pytest.mark.parametrize("path", tracked("scripts/*", ".ci/run"), ids=lambda p: p.name)
def test_scripts_are_strict(path):
    if path.suffix != ".py":
        text = path.read_text()
        assert text.startswith("#!/usr/bin/env bash\n# ")
        assert "set -euo pipefail" in text
        assert path.stat().st_mode & 0o111
        subprocess.run(["bash", "-n", str(path)], check=True)


def _imported(path: Path) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += (
                [f"portforge.{a.name}" for a in node.names]
                if node.module == "portforge"
                else [node.module]
            )
    return names
