"""Kills the saving of a model at each of its file operations, and reads what is left.

``python benchmarks/faults.py`` prints the counts as JSON. Each kill is a SIGKILL of a process of
its own, just before its k-th call to the file system, k = 1, 2, ... until the save outlives k.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import torch

from scdiffaug import storage

_FILE_EVENTS = ("open", "os.", "shutil.", "tempfile.")


def save(folder: Path, generation: int, *, with_cells: bool) -> None:
    """A small model whose weights and description say which one it is."""
    cells = anndata.AnnData(np.full((3, 2), generation, np.float32)) if with_cells else None
    storage.write_model(
        folder,
        {"weight": torch.full((4,), float(generation))},
        {"generation": generation},
        adata=cells,
        overwrite=True,
    )


def left(folder: Path) -> int | None:
    """Which model can be read; None for none. Raises where it is neither."""
    standing = storage.standing(folder)
    if not standing.exists():
        return None
    saved = storage.read_description(standing)
    content = (standing / "model.safetensors").read_bytes()
    assert storage.sha256(content) == saved["weights_sha256"]
    generation: int = saved["generation"]
    return generation


def killed(action: Callable[[], None], at_event: int) -> bool:
    """Whether an action, in a process of its own, was killed before its ``at_event``-th event."""
    child = os.fork()
    if child:
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    seen = 0

    def count(event: str, _: object) -> None:
        nonlocal seen
        if event.startswith(_FILE_EVENTS):
            seen += 1
            if seen == at_event:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    action()
    os._exit(0)


def campaign(*, with_cells: bool, replaces: bool) -> dict[str, int]:
    """Kill a save at every event; count what could be read afterwards."""
    counts = {"kills": 0, "old": 0, "new": 0, "none": 0}
    while True:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "model"
            if replaces:
                save(folder, 1, with_cells=with_cells)
            at_event = counts["kills"] + 1
            if not killed(lambda to=folder: save(to, 2, with_cells=with_cells), at_event):
                assert left(folder) == 2
                return counts
            found = left(folder)
            assert found == 2 or found == (1 if replaces else None), found
            counts["kills"] += 1
            counts[{1: "old", 2: "new", None: "none"}[found]] += 1
            save(folder, 3, with_cells=with_cells)
            assert left(folder) == 3


if __name__ == "__main__":
    torch.set_num_threads(1)
    names = {False: "weights", True: "weights and cells"}
    results = {
        f"{names[with_cells]}, {'replacing' if replaces else 'first save'}": campaign(
            with_cells=with_cells, replaces=replaces
        )
        for with_cells in (False, True)
        for replaces in (False, True)
    }
    print(json.dumps(results))
