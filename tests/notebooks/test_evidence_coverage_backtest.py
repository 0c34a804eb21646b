"""Notebook 02 runs top to bottom on its made-up cluster, and shows what its text speaks of."""

from __future__ import annotations

import re

import nbformat
import pytest

from portforge.demo import notebook

pytestmark = [
    # A kernel is another process: what its libraries warn of there is theirs.
    pytest.mark.filterwarnings("default"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def executed() -> nbformat.NotebookNode:
    return notebook.execute_notebook(None, notebook.TRUST_NOTEBOOK)


@pytest.fixture(scope="module")
def outputs(executed: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [o for cell in executed.cells for o in cell.get("outputs", ())]


@pytest.fixture(scope="module")
def said(outputs: list[nbformat.NotebookNode]) -> str:
    return "\n".join(o["text"] for o in outputs if o.get("name") == "stdout")


@pytest.fixture(scope="module")
def tables(outputs: list[nbformat.NotebookNode]) -> str:
    return "\n".join(o["data"].get("text/html", "") for o in outputs if "data" in o)


def number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found, pattern
    return int(found[1].replace(",", ""))


def test_no_cell_warns_or_fails(outputs):
    assert [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"] == []


def test_every_figure_holds_data(outputs):
    coverage, curve, bars = (
        o["data"][notebook.FIGURE] for o in outputs if notebook.FIGURE in o.get("data", {})
    )
    heat = next(trace for trace in coverage["data"] if trace["type"] == "heatmap")
    assert len(heat["y"]) > 10
    assert any(len(trace["x"]) > 5 for trace in coverage["data"] if trace["type"] == "scatter")
    broken = next(trace for trace in curve["data"] if trace["name"] == "of these, broken")
    assert broken["y"][0] > broken["y"][-1], "the curve falls"
    denied = next(trace for trace in bars["data"] if trace.get("name") == "denied")
    assert sum(denied["customdata"]) > 0


def test_the_story_holds_on_the_cluster_it_is_told_of(said):
    # The text asks the reader to look for these; a cluster that does not have them teaches nothing.
    assert number(r"after one day (\d+) of", said) == 0
    assert number(r"(\d+) of \d+ needed things came for the first time after", said) > 0
    assert number(r"(\d+) of \d+ workloads and directions missed something", said) > 0
    assert number(r"at the backtest's split (\d+) of", said) > 0
    assert number(r"(\d+) open ports of workloads answered a scanner", said) > 0
    assert number(r"(\d+) of \d+ workloads would lose something", said) > 0
    assert number(r"([\d,]+) connections newly allowed", said) > 0


def test_the_analysts_decision_becomes_a_rule(said, tables):
    assert "decision: learn" in said
    assert "decided to learn: ana" in tables


def test_evidence_coverage_and_checklist_are_shown(tables):
    for word in ("phase", "over_grant", "start-up", "measured, %", "kind of need", "missing"):
        assert word in tables
    assert "recall of ≥ 2 days, %" in tables


def test_prose_names_no_number_that_a_cell_computes():
    kept = nbformat.read(notebook.TRUST_NOTEBOOK, as_version=4)
    text = "\n".join(c.source for c in kept.cells if c.cell_type == "markdown")
    # Left are headings, notebook numbers, the command line's durations, and 1 for "all".
    text = re.sub(r"(?m)^(#+ \d+\.|\d+\.)|Notebook 01|01-from|--since \d+d|Chao2", "", text)
    assert set(re.findall(r"\d+", text)) <= {"1"}


def test_the_committed_notebook_has_no_outputs():
    kept = nbformat.read(notebook.TRUST_NOTEBOOK, as_version=4)
    assert [c.id for c in kept.cells if c.get("outputs") or c.get("execution_count")] == []
