"""The tutorial notebook runs as it stands, without stored outputs; a bad cell ends the build."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient
from repository import ROOT

NOTEBOOKS = sorted((ROOT / "docs").glob("*.ipynb"))
SECONDS = 300
"""Of one cell, on a busy machine."""


def texts(cell: nbformat.NotebookNode) -> str:
    """Return all that a cell shows as text."""
    return "".join(out.get("text") or out["data"].get("text/plain", "") for out in cell.outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_stored_without_outputs(path):
    """No outputs and no counts, so that a change of the notebook is a change of its words or code.

    The links of its text lead somewhere.
    """
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags"}
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
        else:
            for link in re.findall(r"\]\(([^()\s#]+)", cell.source):
                assert (path.parent / link).exists(), link
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert path.read_text() == nbformat.writes(notebook) + "\n"


def test_tutorial_runs(tmp_path, monkeypatch):
    """Every cell runs; pictures and tables show themselves; greedy is no worse than the heuristic.

    The heuristic's placement is one of those that `greedy` chooses among only by chance, so the
    mean of five instances is compared, which the notebook prints.
    """
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(ROOT / "docs/tutorial.ipynb", as_version=4)
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources=where).execute()
    cell = {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}
    for name in ("instance", "solve", "frame", "frame-cache", "own", "heuristic", "compare"):
        assert "<table" in cell[name].outputs[-1]["data"]["text/html"], name
    for name in ("plot", "own-plot"):
        assert "image/png" in cell[name].outputs[-1]["data"], name
    said = re.search(r"delay ([\d.]+) s, at most ([\d.]+)% above", texts(cell["figures"]))
    assert said is not None
    assert 0 <= float(said[2]) <= 1
    assert "own against greedy: +" in texts(cell["compare-mean"])
    assert "<strong><p>Store " in cell["plan"].outputs[-1]["data"]["text/html"]


def test_a_cell_that_fails_fails_the_build(tmp_path):
    """Sphinx with the settings of our documentation ends with an error, and names the exception."""
    settings = runpy.run_path(str(ROOT / "docs/conf.py"))
    ours = {name: value for name, value in settings.items() if name.startswith("nb_")}
    lines = ['extensions = ["myst_nb"]', *(f"{name} = {value!r}" for name, value in ours.items())]
    (tmp_path / "conf.py").write_text("\n".join(lines) + "\n")
    notebook = nbformat.read(ROOT / "docs/tutorial.ipynb", as_version=4)
    notebook.cells = [nbformat.v4.new_markdown_cell("# Page"), nbformat.v4.new_code_cell("1 / 0")]
    nbformat.write(notebook, tmp_path / "index.ipynb")
    command = [sys.executable, "-m", "sphinx", "-W", "-q", tmp_path, tmp_path / "html"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "ZeroDivisionError" in done.stderr, done.stderr
