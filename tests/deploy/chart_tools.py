"""What the chart's tests share: helm and kubectl, found or built, and render."""

from __future__ import annotations

import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

from localcluster import binaries
from ruamel.yaml import YAML

CHART = Path(__file__).parents[2] / "deploy/helm/portforge"


def program(name: str) -> str:
    """Where ``name`` is: on PATH, or built as for the local cluster, which takes minutes once."""
    return shutil.which(name) or str(binaries.build() / name)


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
