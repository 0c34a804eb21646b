"""The analyst's notebooks, executed, as one HTML file that loads nothing. Runs no demo itself.

nbconvert comes with the extra ``notebooks`` and is imported only here, when called.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import plotly.io as pio

from portforge.errors import HostError, PortforgeError, WriteError

if TYPE_CHECKING:
    from nbformat import NotebookNode

__all__ = ["FIGURE", "NOTEBOOK", "TRUST_NOTEBOOK", "execute_notebook", "render_notebook"]

_FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOK = _FOLDER / "01-from-traffic-to-policy.ipynb"
"""Part of the checkout, not of the wheel."""
TRUST_NOTEBOOK = _FOLDER / "02-evidence-coverage-backtest.ipynb"
"""Makes its own capture."""

FIGURE = "application/vnd.plotly.v1+json"
SECONDS_A_CELL = 300


def execute_notebook(capture: Path | None, notebook: Path = NOTEBOOK) -> NotebookNode:
    """Run the notebook on ``capture``; its figures are outputs of the type ``FIGURE``.

    ``capture`` None: for a notebook that makes its own.

    Raises
    ------
    HostError: the extra ``notebooks`` is not installed, or there is no such notebook.
    PortforgeError: a cell failed; carries the cell's own error.
    """
    try:
        import nbformat
        from nbclient import NotebookClient
        from nbclient.exceptions import CellExecutionError
        from traitlets.config import Config
    except ImportError as missing:
        raise HostError(
            f"{missing.name} is not installed", remedy="pip install 'portforge[notebooks]'"
        ) from None
    if not notebook.is_file():
        raise HostError("no such notebook", place=str(notebook), remedy="run it from a checkout")
    text = notebook.read_text(encoding="utf-8")
    node: NotebookNode = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
    env = {**os.environ, "PLOTLY_RENDERER": "plotly_mimetype"}  # the data; render_notebook draws it
    if capture is not None:
        env["PORTFORGE_CAPTURE"] = str(capture.absolute())
    with tempfile.TemporaryDirectory(prefix="portforge-kernel-") as private:
        # Sockets in a private folder, not TCP ports: other users may share this host.
        kernel = {"transport": "ipc", "connection_file": f"{private}/kernel.json"}
        client = NotebookClient(
            node,
            timeout=SECONDS_A_CELL,
            kernel_name="python3",
            resources={"metadata": {"path": str(notebook.parent)}},
            config=Config({"KernelManager": kernel}),
        )
        try:
            client.execute(env=env)
        except CellExecutionError as wrong:
            raise PortforgeError(
                f"a cell failed: {wrong.ename}: {wrong.evalue}",
                place=notebook.name,
                remedy="open it with make lab and run that cell",
            ) from None
    return node


def render_notebook(capture: Path | None, out_html: Path, notebook: Path = NOTEBOOK) -> Path:
    """Run the notebook on ``capture`` and write it to ``out_html``; returns ``out_html``.

    The file carries plotly.js and the styles with it, so it can be mailed and read offline.

    Raises
    ------
    HostError, PortforgeError: as :func:`execute_notebook`.
    WriteError: the file cannot be written; an older one is left as it was.
    """
    node = execute_notebook(capture, notebook)
    from nbconvert import HTMLExporter

    _draw(node)

    exporter = HTMLExporter(  # type: ignore[no-untyped-call]
        template_name="lab", exclude_input_prompt=True, exclude_output_prompt=True
    )
    # What the template would load from elsewhere, and this notebook does not need.
    for url in ("require_js_url", "mathjax_url", "mermaid_js_url", "jquery_url"):
        setattr(exporter, url, "")
    title = node.cells[0].source.splitlines()[0].lstrip("# ")
    if capture is not None:
        title += f": {capture.name}"
    html, _ = exporter.from_notebook_node(node, {"metadata": {"name": title}})
    _write(out_html, html)
    return out_html


def _draw(node: NotebookNode) -> None:
    """Add HTML to each figure's output; the first brings plotly.js, for all."""
    outputs = [o for cell in node.cells for o in cell.get("outputs", ()) if "data" in o]
    figures = [o.data for o in outputs if FIGURE in o.data]
    for number, data in enumerate(figures):
        figure = pio.from_json(json.dumps({k: data[FIGURE][k] for k in ("data", "layout")}))
        data["text/html"] = figure.to_html(
            full_html=False,
            include_plotlyjs=number == 0,
            include_mathjax=False,
            div_id=f"figure-{number}",
            config={"displaylogo": False, "responsive": True},
        )


def _write(target: Path, text: str) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            Path(name).chmod(0o644)
            Path(name).replace(target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as wrong:
        raise WriteError(
            f"cannot be written ({wrong.strerror})",
            place=str(target),
            remedy="make room or check the permissions",
        ) from None
