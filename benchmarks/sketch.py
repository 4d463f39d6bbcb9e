"""What is lost where a part of the cells is trained on: the encoder alone, all cells embedded.

``python benchmarks/sketch.py [--seeds 2]`` writes ``results/sketch.{csv,md}``.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
from common import in_own_process, load, write_table
from sklearn.metrics import recall_score
from sklearn.model_selection import cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from scdiffaug import metrics, scDiffAug

DATA = "cytof_huimmprofiling_pbmc"
TRAINED_ON = (20_000, 50_000, 0)


def one(max_cells: int, seed: int) -> dict[str, Any]:
    """Train on as many cells, or on all for 0, and score what all cells are embedded as."""
    adata = load(DATA, min_cells=10)
    model = scDiffAug(adata, diffusion="none", seed=seed)
    start = time.perf_counter()
    model.train(max_cells=max_cells or None, accelerator="cpu", enable_progress_bar=False)
    seconds = time.perf_counter() - start
    y, z = model._embed()
    labels = adata.obs["cell_type"].to_numpy().astype(str)
    names, sizes = np.unique(labels, return_counts=True)
    found = cross_val_predict(KNeighborsClassifier(15), y, labels, cv=5)
    rarest = names[np.argsort(sizes)[:3]]
    recall = recall_score(labels, found, labels=rarest, average=None)
    return {
        "cells": adata.n_obs,
        "trained on": max_cells or adata.n_obs,
        "seed": seed,
        "train (s)": round(seconds, 1),
        "linear_svm": round(100 * metrics.linear_svm_accuracy(z, labels, max_cells=5000), 1),
        "kmeans": round(100 * metrics.kmeans_accuracy(z, labels), 1),
        "knn": round(100 * metrics.knn_accuracy(z, labels), 1),
        "80-d knn": round(100 * float((found == labels).mean()), 1),
        **{
            f"80-d recall {name}": round(100 * r, 1)
            for name, r in zip(rarest, recall, strict=True)
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--one", nargs=2, type=int, metavar=("MAX_CELLS", "SEED"))
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(*options.one)))
        return
    rows = [
        in_own_process("sketch.py", "--one", str(max_cells), str(seed))
        for seed in range(options.seeds)
        for max_cells in TRAINED_ON
    ]
    write_table(
        rows,
        "sketch",
        title="Trained on a part of the cells",
        command=f"python benchmarks/sketch.py --seeds {options.seeds}",
    )


if __name__ == "__main__":
    main()
