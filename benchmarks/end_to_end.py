"""Seconds from a fresh AnnData to a plane, ours beside its peers, and how good the plane is.

    python benchmarks/end_to_end.py --sizes 2000,10000,20000
    python benchmarks/end_to_end.py --stages 20000

Cells of a dataset are drawn, again and again where more are asked for than there are; of counts
only four in five are kept, so that no two cells are the same. Every method starts from raw
values: normalisation, variable genes and components are in its seconds; ours is ``tl.embed``.
One process per run, in which the method first embeds 300 cells, so that nothing is compiled in
the seconds that count. ``--stages`` says where ours spends them.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property, partial
from itertools import product
from typing import Any
from unittest import mock

import anndata as ad
import numpy as np
import scanpy as sc
from common import DATA, RESULTS, in_own_process, write_table
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import sparse
from sklearn.decomposition import PCA

from scdiffaug.benchmark import _worker

METHODS = ("scdiffaug", "umap", "pacmap", "tsne", "phate")
KEPT_READS = 0.8
WARM_UP = 300


class Fresh:
    """Raw values, and what the workers of the benchmark ask of them, made when it is asked."""

    new, labels = None, None

    def __init__(self, values: sparse.csr_matrix) -> None:
        self.values, self.kind = values, "counts" if _are_counts(values) else "raw"

    @cached_property
    def features(self) -> np.ndarray:
        """The 2,000 most variable genes on the log scale, or arcsinh of intensities, dense."""
        if self.kind == "raw":
            return np.arcsinh(self.values.toarray() / 5)
        cells = ad.AnnData(self.values.copy())
        sc.pp.normalize_total(cells, target_sum=1e4)
        sc.pp.log1p(cells)
        if cells.n_vars > 2000:
            sc.pp.highly_variable_genes(cells, n_top_genes=2000, subset=True)
        return cells.X.toarray()

    def pca(self, _scale: str = "log") -> np.ndarray:
        """50 principal components, or as many as there are features but one."""
        n_pcs = min(50, self.values.shape[1] - 1)
        return PCA(n_pcs, random_state=0).fit_transform(self.features)


def _are_counts(x: sparse.csr_matrix) -> bool:
    return not (x.data % 1).any()


def resampled(name: str, n_cells: int) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Cells drawn from a dataset, of counts a part of each cell's, and their types."""
    adata = ad.read_h5ad(DATA / f"{name}.h5ad")
    rng = np.random.default_rng(0)
    rows = rng.choice(adata.n_obs, n_cells, replace=n_cells > adata.n_obs)
    x = sparse.csr_matrix(adata.X)[rows]
    if _are_counts(x):
        x.data = rng.binomial(x.data.astype(int), KEPT_READS).astype(np.float32)
    x.eliminate_zeros()
    found = np.asarray(x.sum(1)).ravel() > 0
    return x[found], adata.obs["cell_type"].astype(str).to_numpy()[rows][found]


def one(name: str, method: str, n_cells: int) -> dict[str, Any]:
    """Embed cells in this process."""
    from scdiffaug import metrics

    x, types = resampled(name, n_cells)
    run, few = _worker.METHODS[method], {}
    if method == "scdiffaug":
        run, few = partial(run, diffusion="none"), {"max_epochs": 1}
    run(Fresh(x[:WARM_UP]), 0, **few)
    start = time.perf_counter()
    plane = run(Fresh(x), 0)["2d"]
    seconds = time.perf_counter() - start
    return {
        "method": method,
        "cells": n_cells,
        "seconds": round(seconds, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "knn_accuracy": round(metrics.knn_accuracy(plane, types), 3),
        "linear_svm_accuracy": round(metrics.linear_svm_accuracy(plane, types, max_cells=4000), 3),
    }


@contextmanager
def _clock(spent: dict[str, float], stage: str, *, place: Any, function: str) -> Iterator[None]:
    original: Callable[..., Any] = getattr(place, function)

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return original(*args, **kwargs)
        finally:
            spent[stage] = spent.get(stage, 0.0) + time.perf_counter() - start

    with mock.patch.object(place, function, timed):
        yield


def stages(name: str, n_cells: int) -> dict[str, Any]:
    """Seconds of ``tl.embed`` by stage, in this process."""
    from scdiffaug import components, contract, data, embedding_model, fitting, neighbors, tl

    x, _ = resampled(name, n_cells)
    adata = ad.AnnData(x)
    spent: dict[str, float] = {}
    watched = [
        ("reading and checking", data, "read_matrix"),
        ("variable features", contract, "select_features"),
        ("principal axes", components.PrincipalAxes, "fit"),
        ("components", components.PrincipalAxes, "transform"),
        ("neighbours", neighbors, "knn_indices"),
        ("weights of walks", neighbors, "jaccard_weights"),
        ("communities", neighbors.NeighborWalks, "communities"),
        ("training", fitting, "fit"),
        ("embedding", embedding_model, "encode"),
    ]
    with ExitStack() as clocks:
        for stage, place, function in watched:
            clocks.enter_context(_clock(spent, stage, place=place, function=function))
        start = time.perf_counter()
        tl.embed(adata)
        whole = time.perf_counter() - start
    rest = whole - sum(spent.values())
    return {"cells": n_cells, **spent, "all else": rest, "whole": whole}


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Quality against seconds, a line for each method along the numbers of cells."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axes = figure.subplots(1, 2)
    for ax, score in zip(axes, ("knn_accuracy", "linear_svm_accuracy"), strict=True):
        for method in dict.fromkeys(row["method"] for row in rows):
            own = [row for row in rows if row["method"] == method]
            ax.plot(
                [row["seconds"] for row in own], [row[score] for row in own], "o-", label=method
            )
            for row in own:
                at = (row["seconds"], row[score])
                label = f"{row['cells'] / 1000:g}k"
                ax.annotate(label, at, (3, -8), textcoords="offset points", fontsize=6)
        ax.set(xscale="log", xlabel="seconds, end to end", ylabel=score.replace("_", " "))
    axes[0].legend(fontsize=7)
    return figure


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="cite_cbmc_8617_hvg2000")
    parser.add_argument("--sizes", default="2000,10000,20000")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--name", default="end_to_end", help="Of the files in results.")
    parser.add_argument("--stages", type=int, metavar="CELLS")
    parser.add_argument("--one", nargs=2, metavar=("METHOD", "CELLS"), help="Used by itself.")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.data, given.one[0], int(given.one[1]))))
        return
    if given.stages:
        for stage, seconds in stages(given.data, given.stages).items():
            print(f"{stage:22s} {seconds:10.2f}")
        return
    rows = []
    for size, method in product(given.sizes.split(","), given.methods.split(",")):
        rows.append(in_own_process("end_to_end.py", "--data", given.data, "--one", method, size))
        print(rows[-1], flush=True)
        command = (
            f"python benchmarks/end_to_end.py --data {given.data} --sizes {given.sizes} "
            f"--methods {given.methods} --name {given.name}"
        )
        write_table(rows, given.name, title="Seconds end to end", command=command)
    if "," in given.sizes:
        figure = draw(rows)
        FigureCanvasAgg(figure)
        figure.savefig(RESULTS / f"{given.name}.png", dpi=110)


if __name__ == "__main__":
    main()
