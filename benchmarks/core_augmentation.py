"""Augmented pbmc3k cells against the real ones, beside the real-versus-real floor.

``python benchmarks/core_augmentation.py [NAME]`` writes ``results/core_augmentation.{csv,md}``.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from common import load, write_table
from scipy import sparse

import scdiffaug
from scdiffaug import metrics, scDiffAug
from scdiffaug.features import FeatureSpace


def floor(real: sparse.csr_matrix, labels: np.ndarray, seed: int) -> dict[str, float]:
    """Scores of one random half of the real cells against the other."""
    order = np.random.default_rng(seed).permutation(real.shape[0])
    one, two = np.array_split(order, 2)
    return {
        "two-sample AUC": metrics.two_sample_auc(real[one], real[two], seed=seed),
        "type kept": metrics.type_kept(
            real[one], labels[one], real[two], expected=labels[two], seed=seed
        ),
        "zeros": metrics.zero_share(real),
        "gene mean r": metrics.gene_mean_correlation(real[one], real[two]),
    }


def scores(
    real: sparse.csr_matrix, labels: np.ndarray, made: sparse.csr_matrix, *, seed: int
) -> dict[str, float]:
    """Scores of made cells, one a real cell and in its order."""
    return {
        "two-sample AUC": metrics.two_sample_auc(real, made, seed=seed),
        "type kept": metrics.type_kept(real, labels, made, expected=labels, seed=seed),
        "zeros": metrics.zero_share(made),
        "gene mean r": metrics.gene_mean_correlation(real, made),
    }


def main(name: str) -> None:
    """Three seeds of training and drawing."""
    adata = load(name)
    labels = adata.obs["cell_type"].to_numpy()
    rows = []
    for seed in range(3):
        model = scDiffAug(adata.copy(), seed=seed)
        model.train()
        start = time.perf_counter()
        new = scdiffaug.tl.augment(adata, model)
        speed = {"cells per s": round(adata.n_obs / (time.perf_counter() - start))}
        real = FeatureSpace("counts").transform(adata.X)
        measured = scores(real, labels, new.layers["log1p_norm"], seed=seed)
        for cells, found in (("real halves", floor(real, labels, seed)), ("made", measured)):
            rounded = {key: round(value, 5) for key, value in found.items()}
            extra = speed if cells == "made" else {"cells per s": ""}
            rows.append({"dataset": name, "cells": cells, "seed": seed, **rounded, **extra})
            print(rows[-1], flush=True)
        write_table(
            rows,
            "core_augmentation",
            title="Augmented cells against real ones, default settings",
            command=f"python benchmarks/core_augmentation.py {name}",
        )


if __name__ == "__main__":
    main(*(sys.argv[1:] or ["pbmc3k_named"]))
