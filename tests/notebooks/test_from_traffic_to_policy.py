"""The notebook runs top to bottom, its figures hold data, its HTML loads nothing from elsewhere.

On the shipped capture and on a small generated one.
"""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from shop_flows import shop_capture

from portforge.demo import notebook
from portforge.errors import PortforgeError

SHIPPED = Path(__file__).parents[2] / "datasets" / "shop"
LOADED = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=["']?(https?:)?//""")

pytestmark = [
    # A kernel is another process: what its libraries warn of there is theirs.
    pytest.mark.filterwarnings("default"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module", params=["generated", "shipped"])
def capture(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "generated":
        return shop_capture(tmp_path_factory.mktemp("capture") / "shop")
    return SHIPPED


@pytest.fixture(scope="module")
def executed(capture: Path) -> nbformat.NotebookNode:
    return notebook.execute_notebook(capture)


def figures(executed: nbformat.NotebookNode) -> list[dict]:
    outputs = [o for cell in executed.cells for o in cell.get("outputs", ())]
    return [o["data"][notebook.FIGURE] for o in outputs if notebook.FIGURE in o.get("data", {})]


def test_every_figure_holds_data(executed):
    timeline, workloads, served, called = figures(executed)
    assert sum(sum(trace["y"]) for trace in timeline["data"]) > 100
    *arrows, points = workloads["data"]
    assert len(arrows) >= 5
    assert len(points["x"]) == len(points["text"]) >= 5
    for heat in (served["data"][0], called["data"][0]):
        assert len(heat["x"]) >= 3
        assert any(cell is not None for row in heat["z"] for cell in row)


def test_the_analyst_sees_status_evidence_findings_and_a_policy(executed):
    text = "\n".join(
        str(o.get("text", "")) + str(o.get("data", {}).get("text/html", ""))
        for cell in executed.cells
        for o in cell.get("outputs", ())
    )
    for word in ("insufficient", "in-tcp-", "confidence", "scan", "denied_answered", "UTC"):
        assert word in text
    assert "kind: PortPolicy" in text
    assert "learned until" in text


def test_no_cell_warns_or_fails(executed):
    outputs = [o for cell in executed.cells for o in cell.get("outputs", ())]
    assert [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"] == []


def test_the_html_is_one_file_that_loads_nothing(capture, tmp_path):
    page = notebook.render_notebook(capture, tmp_path / "out" / "notebook.html")
    html = page.read_text()
    assert LOADED.search(html) is None
    assert html.count("Plotly.newPlot(") >= 4
    assert "plotly.js v" in html[:6_000_000]
    assert [p.name for p in page.parent.iterdir()] == ["notebook.html"]


def test_a_cell_that_fails_is_one_sentence(tmp_path):
    with pytest.raises(PortforgeError, match=r"a cell failed: CaptureError: .*nowhere"):
        notebook.execute_notebook(tmp_path / "nowhere")


def test_the_committed_notebook_has_no_outputs():
    kept = nbformat.read(notebook.NOTEBOOK, as_version=4)
    assert [c.id for c in kept.cells if c.get("outputs") or c.get("execution_count")] == []
