"""What the chart's tests share: helm and kubectl, found or failing with what to do, and render."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

import pytest
from ruamel.yaml import YAML

CHART = Path(__file__).parents[3] / "deploy/helm/portforge"
_CACHE = Path(os.environ.get("PORTFORGE_CACHE", Path.home() / ".cache/portforge"))
WITHOUT = "PORTFORGE_WITHOUT_CLUSTER"


def program(name: str) -> str:
    """Where ``name`` is: on PATH, or built for the local cluster."""
    found = shutil.which(name) or shutil.which(name, path=str(_CACHE / "cluster/bin"))
    if not found and os.environ.get(WITHOUT):
        pytest.skip(f"{WITHOUT} is set and there is no {name}")
    assert found, f"no {name}: install it, run make cluster once, or say {WITHOUT}=1"
    return found


def kubectl() -> str:
    return program("kubectl")


def run_helm(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program("helm"), *words], capture_output=True, text=True, check=False, timeout=120
    )


@lru_cache(maxsize=32)
def _render(values: tuple[str, ...]) -> str:
    done = run_helm(
        "template", "portforge", str(CHART), "-n", "pf", *(f"--set={v}" for v in values)
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def render(*values: str) -> list[dict]:
    """The chart's objects, hooks too, as the API server would get them."""
    return [d for d in YAML(typ="safe").load_all(_render(values)) if d]
