"""Every notebook runs from top to bottom, and what is stored of it is one whole run."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

# Backwards, that the longest, the fifth, is not waited for at the end.
NOTEBOOKS = sorted(Path(__file__).parent.glob("*.ipynb"), reverse=True)
MOST_BYTES = 400_000
SECONDS_PER_CELL = 600

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def _complaints(notebook: NotebookNode) -> list[str]:
    """What cells wrote to standard error: warnings, and bars that a printed page cannot move."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output["text"] for output in outputs if output.get("name") == "stderr"]


@pytest.mark.skipif(
    "SCDIFFAUG_DATA_DIR" not in os.environ,
    reason="without SCDIFFAUG_DATA_DIR the notebooks download whole atlases",
)
@each_notebook
def test_runs(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=SECONDS_PER_CELL, record_timing=False)
    client.execute(cwd=str(tmp_path))
    assert _complaints(notebook) == []
    if os.environ.get("SAVE"):
        nbformat.write(notebook, path)


@each_notebook
def test_is_stored_whole(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert _complaints(notebook) == []
    assert path.stat().st_size < MOST_BYTES
