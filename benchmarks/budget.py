"""How many steps the plane needs of many cells: the encoder alone, by steps of training.

``python benchmarks/budget.py [--seeds 1]`` writes ``results/budget.{csv,md}``. The loss and
trustworthiness need no labels. Steps are those of whole passes over the cells.
"""

from __future__ import annotations

import argparse
import json
import math
from typing import Any

import numpy as np
from common import in_own_process, load, write_table

from scdiffaug import metrics, scDiffAug
from scdiffaug.matrices import to_dense

# Half, all and twice or three times what was the default at a learning rate of 1e-3 (NOTES, 30),
# or what it was when it grew with the cells.
STEPS = {
    "gastrulation_seqfish_lohoff": (400, 800),
    "cytof_huimmprofiling_20k": (800, 1131, 2262),
    "cytof_huimmprofiling_pbmc": (800, 1478, 2731),
}
BATCH, MOST_SCORED = 512, 20_000


def one(name: str, steps: int, seed: int) -> dict[str, Any]:
    """Train and score once; scores are those of 20,000 cells at most."""
    adata = load(name, min_cells=10)
    model = scDiffAug(adata, diffusion="none", seed=seed)
    epochs = max(1, round(steps / math.ceil(adata.n_obs / BATCH)))
    model.train(epochs, accelerator="cpu", enable_progress_bar=False)
    rows = np.random.default_rng(0).permutation(adata.n_obs)[:MOST_SCORED]
    z = model.get_latent_representation(indices=rows, representation="projection")
    inputs = model._contract.features(model._contract.read(adata, rows)[1])
    labels = adata.obs["cell_type"].to_numpy()[rows]
    return {
        "dataset": name,
        "cells": adata.n_obs,
        "steps": epochs * math.ceil(adata.n_obs / BATCH),
        "seed": seed,
        "loss": round(float(model.history["loss"]["loss"].iloc[-1]), 3),
        "trustworthiness": round(100 * metrics.trustworthiness(to_dense(inputs), z), 1),
        "linear_svm": round(100 * metrics.linear_svm_accuracy(z, labels, max_cells=5000), 1),
        "knn": round(100 * metrics.knn_accuracy(z, labels), 1),
        "kmeans": round(100 * metrics.kmeans_accuracy(z, labels), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--one", nargs=3, metavar=("NAME", "STEPS", "SEED"))
    options = parser.parse_args()
    if options.one:
        name, steps, seed = options.one
        print(json.dumps(one(name, int(steps), int(seed))))
        return
    rows = [
        in_own_process("budget.py", "--one", name, str(steps), str(seed))
        for name, several in STEPS.items()
        for steps in several
        for seed in range(options.seeds)
    ]
    write_table(
        rows,
        "budget",
        title="The plane by steps of training",
        command=f"python benchmarks/budget.py --seeds {options.seeds}",
    )


if __name__ == "__main__":
    main()
