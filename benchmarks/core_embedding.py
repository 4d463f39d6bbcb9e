"""2-D linear-SVM and k-means accuracy beside UMAP and PaCMAP, three datasets, three seeds.

UMAP and PaCMAP see the input their authors advise: 50 principal components of log-normalised
highly variable genes, which is what our own neighbour search sees.
``python benchmarks/core_embedding.py`` writes ``results/core_embedding.{csv,md}``.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import pandas as pd
from common import RESULTS, in_own_process, load, write_table

DATASETS = ["mca_bladder_2746_hvg2000", "pbmc3k_named", "worm_neuron_4186"]
METHODS = ["scdiffaug", "umap", "pacmap"]
SEEDS = [0, 1, 2]


def embed(name: str, method: str, seed: int) -> np.ndarray:
    """The 2-D embedding of one method."""
    import scanpy as sc

    adata = load(name, min_cells=10)
    if method == "scdiffaug":
        from scdiffaug import scDiffAug

        model = scDiffAug(adata, seed=seed)
        model.train()
        return model.get_latent_representation(representation="projection")
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata, n_top_genes=min(2000, adata.n_vars))
    sc.pp.pca(adata, n_comps=50, random_state=seed)
    if method == "umap":
        from umap import UMAP

        return UMAP(random_state=seed, n_jobs=1).fit_transform(adata.obsm["X_pca"])
    from pacmap import PaCMAP

    return PaCMAP(random_state=seed).fit_transform(adata.obsm["X_pca"])


def measure(name: str, method: str, seed: int) -> dict[str, float | int | str]:
    """Scores of one embedding, in percent."""
    from scdiffaug import metrics

    start = time.perf_counter()
    embedding = embed(name, method, seed)
    seconds = time.perf_counter() - start
    labels = load(name, min_cells=10).obs["cell_type"].to_numpy()
    return {
        "dataset": name,
        "method": method,
        "seed": seed,
        "linear SVM": round(100 * metrics.linear_svm_accuracy(embedding, labels), 2),
        "k-means": round(100 * metrics.kmeans_accuracy(embedding, labels), 2),
        "seconds": round(seconds, 1),
    }


def summarise(rows: list[dict[str, float | int | str]]) -> None:
    """Mean and standard deviation over seeds, beside the single runs."""
    table = pd.DataFrame(rows).groupby(["dataset", "method"])[["linear SVM", "k-means", "seconds"]]
    mean, std = table.mean().round(1), table.std().round(1)
    summary = (mean.astype(str) + " ± " + std.astype(str)).reset_index()
    write_table(
        summary.to_dict("records"),
        "core_embedding_summary",
        title="2-D embeddings, mean ± standard deviation of three seeds (accuracy in %)",
        command="python benchmarks/core_embedding.py",
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(sys.argv[2], sys.argv[3], int(sys.argv[4]))))
    else:
        runs = [(d, m, s) for d in DATASETS for m in METHODS for s in SEEDS]
        done = RESULTS / "core_embedding.csv"
        rows = pd.read_csv(done).to_dict("records") if "--resume" in sys.argv else []
        known = {(row["dataset"], row["method"], row["seed"]) for row in rows}
        for run in runs:
            if run in known:
                continue
            rows.append(in_own_process("core_embedding.py", "--one", *map(str, run)))
            print(rows[-1], flush=True)
            write_table(
                rows,
                "core_embedding",
                title="2-D embeddings, single runs (accuracy in %)",
                command="python benchmarks/core_embedding.py",
            )
        summarise(rows)
