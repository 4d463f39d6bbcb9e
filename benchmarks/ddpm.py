"""Count thinning at its default steps beside the paper's DDPM of 1,000 steps.

``python benchmarks/ddpm.py [--cells N] [NAME…]`` writes ``results/ddpm.csv`` and ``.md``: cells a
second of processor time, and the AUC of a random forest that tells new cells from real ones that
they were not made from (of real cells: 0.5). Both networks have the same hidden widths and are
trained for as many steps; that of counts has dispersions and dropout, too.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
from common import in_own_process, load, write_table

from scdiffaug import scDiffAug
from scdiffaug.metrics import two_sample_auc, zero_share

_NAMES = ("mca_bladder_2746_hvg2000", "human_kidney_young_5685_hvg2000", "paul15_2730")
_KINDS: dict[str, dict[str, Any]] = {
    "count thinning, 8 steps": {"diffusion": "counts", "steps": 8, "sampler": "auto"},
    "DDPM, 1,000 steps": {"diffusion": "gaussian", "steps": 1000, "sampler": "ddpm"},
}


def run(name: str, kind: str, *, n_cells: int) -> dict[str, Any]:
    """Train on 2,000 cells, make some from half of these, and compare with the other half."""
    how, adata = _KINDS[kind], load(name)
    cells = adata[np.random.default_rng(0).permutation(adata.n_obs)[:2000]].copy()
    model = scDiffAug(cells, feature_space="counts", diffusion=how["diffusion"])
    model.train(enable_progress_bar=False)
    # What is compiled or cached at first is not timed.
    model.augment(indices=range(8), steps=2, sampler=how["sampler"])
    start = time.process_time()
    new = model.augment(indices=range(n_cells), steps=how["steps"], sampler=how["sampler"])
    seconds = time.process_time() - start
    made, others = (model._contract.read(each)[1] for each in (new, cells[1000 : 1000 + n_cells]))
    transform = model._contract.space.transform
    return {
        "dataset": name,
        "generator": kind,
        "cells per second": round(n_cells / seconds, 1),
        "AUC": round(two_sample_auc(transform(others), transform(made), seed=0), 3),
        "zeros": round(zero_share(made), 3),
        "zeros of real cells": round(zero_share(others), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=_NAMES)
    parser.add_argument("--cells", type=int, default=512)
    parser.add_argument("--one", help="the generator to run in this process")
    given = parser.parse_args()
    if given.cells > 1000:
        parser.error("--cells: of 2,000 cells half are sources, the others are compared with.")
    if given.one:
        print(json.dumps(run(given.names[0], given.one, n_cells=given.cells)))
        return
    found = [
        in_own_process("ddpm.py", name, "--one", kind, "--cells", str(given.cells))
        for name in given.names
        for kind in _KINDS
    ]
    command = f"python benchmarks/ddpm.py --cells {given.cells} {' '.join(given.names)}"
    write_table(found, "ddpm", title="Beside the paper's DDPM", command=command)


if __name__ == "__main__":
    main()
