"""Whether the embedding is corrected for batches, and keeps types apart.

``pip install harmonypy scib-metrics``, then ``python benchmarks/integration.py [--seeds 3]``
writes ``results/integration.{csv,md}``. All cells of a dataset (at most 4,000 drawn at random,
types of ten cells or more) are embedded by each method, which is told batches; "not told" is ours
without ``batch_key``. Scores of scib-metrics (Luecken et al. 2022): ``bio`` is the mean of those
of types, ``batch`` of those of batches, ``total`` 0.6 and 0.4 of them. Beside them, in %,
``types``: cells whose type the fifteen nearest say, in the mean over types; ``across``: the same
of cells of all other batches, over types that these have too; ``mixing``: neighbours of other
batches among thirty, over those expected if batches did not matter within the type, 100 at best.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from common import in_own_process, load, scvi_told_batches, write_means
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from scdiffaug import scDiffAug
from scdiffaug.preparing import components_of

DATASETS = ("ifnb_pbmc_2800", "gastrulation_seqfish_lohoff", "mca_stomach_intestine_1871")
MAX_CELLS, N_GENES = 4000, 2000
Embedding = NDArray[np.float32]


def trained(cells: AnnData, seed: int, *, batch_key: str | None) -> scDiffAug:
    """Ours, the encoder alone."""
    scDiffAug.setup_anndata(cells, batch_key=batch_key)
    model = scDiffAug(cells, diffusion="none", seed=seed)
    model.train(accelerator="cpu", enable_progress_bar=False)
    return model


def scdiffaug(
    cells: AnnData, seed: int, *, batch_key: str | None, semantic: bool = True
) -> Embedding:
    """Ours: y, or the 2-D embedding."""
    model = trained(cells, seed, batch_key=batch_key)
    return model.get_latent_representation(representation="semantic" if semantic else "projection")


def components(cells: AnnData, seed: int) -> Embedding:
    """50 components of the genes that vary within batches, as scanpy has them; not corrected."""
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    if cells.n_vars > N_GENES:
        sc.pp.highly_variable_genes(cells, n_top_genes=N_GENES, batch_key="batch", subset=True)
    sc.pp.scale(cells, max_value=10)
    sc.pp.pca(cells, n_comps=50, random_state=seed)
    return cells.obsm["X_pca"]


def harmony(cells: AnnData, seed: int) -> Embedding:
    """Harmony on these components, by its defaults."""
    return harmonised(components(cells, seed), cells.obs, seed)


def harmony_on_our_input(cells: AnnData, seed: int) -> Embedding:
    """Harmony on the components by which we compare cells, searched as we search them."""
    scDiffAug.setup_anndata(cells, batch_key="batch")
    contract = scDiffAug(cells, diffusion="none", seed=seed)._contract
    components, axes = components_of(contract, contract.read(cells)[1], n_components=50)
    return axes.search_space(harmonised(components, cells.obs, seed))


def harmonised(points: Embedding, obs: pd.DataFrame, seed: int) -> Embedding:
    from harmonypy import run_harmony

    found = run_harmony(points, obs, "batch", random_state=seed, verbose=False)
    return np.asarray(found.Z_corr, dtype=np.float32)


def variable_genes(cells: AnnData) -> pd.Index:
    """Names of the genes that vary within batches, by counts; of all if they are few."""
    if cells.n_vars <= N_GENES:
        return cells.var_names
    logs = sc.pp.log1p(sc.pp.normalize_total(cells, target_sum=1e4, copy=True), copy=True)
    sc.pp.highly_variable_genes(logs, n_top_genes=N_GENES, batch_key="batch")
    return cells.var_names[logs.var["highly_variable"]]


def scvi(cells: AnnData, seed: int) -> Embedding:
    """scVI with the settings that its authors recommend for integration."""
    cells = cells[:, variable_genes(cells)].copy()
    return scvi_told_batches(cells, seed).get_latent_representation()


METHODS: Mapping[str, Callable[[AnnData, int], Embedding]] = {
    "scdiffaug": lambda *cells: scdiffaug(*cells, batch_key="batch"),
    "scdiffaug, 2-D": lambda *cells: scdiffaug(*cells, batch_key="batch", semantic=False),
    "scdiffaug, not told": lambda *cells: scdiffaug(*cells, batch_key=None),
    "components": components,
    "harmony": harmony,
    "harmony, our input": harmony_on_our_input,
    "scvi": scvi,
}


def cells_of(name: str) -> AnnData:
    """Some cells of a dataset, the same in all runs."""
    cells = load(name, min_cells=10)
    rng = np.random.default_rng(0)
    cells = cells[np.sort(rng.permutation(cells.n_obs)[:MAX_CELLS])].copy()
    cells.obs["batch"] = cells.obs["batch"].astype(str)
    return cells


def scores(cells: AnnData, embeddings: Mapping[str, Embedding]) -> list[dict[str, Any]]:
    """All scores of all embeddings of the same cells."""
    from scib_metrics.benchmark import Benchmarker

    cells.obsm.update(embeddings)
    judge = Benchmarker(
        cells,
        batch_key="batch",
        label_key="cell_type",
        embedding_obsm_keys=list(embeddings),
        pre_integrated_embedding_obsm_key="components",
        progress_bar=False,
    )
    judge.benchmark()
    found = judge.get_results(min_max_scale=False)
    columns = {"total": "Total", "bio": "Bio conservation", "batch": "Batch correction"}
    return [
        {
            "method": name,
            **{key: 100 * float(found.loc[name, column]) for key, column in columns.items()},
            **neighbours(cells.obs, embedding),
        }
        for name, embedding in embeddings.items()
    ]


def neighbours(obs: pd.DataFrame, embedding: Embedding) -> dict[str, float]:
    """What the nearest cells say of types and batches."""
    types, batches = obs["cell_type"].to_numpy(str), obs["batch"].to_numpy(str)
    near = NearestNeighbors(n_neighbors=30).fit(embedding).kneighbors(return_distance=False)
    votes = pd.DataFrame(types[near[:, :15]]).mode(axis=1)[0].to_numpy()
    across, mixing = [], []
    for batch in np.unique(batches):
        own, others = batches == batch, batches != batch
        judge = KNeighborsClassifier(15).fit(embedding[others], types[others])
        said = judge.predict(embedding[own]) == types[own]
        for kind in np.intersect1d(types[own], types[others]):
            n_own, n_others = (types[own] == kind).sum(), (types[others] == kind).sum()
            if min(n_own, n_others) >= 5:
                across.append(said[types[own] == kind].mean())
                rows = own & (types == kind)
                met = (batches[near[rows]] != batch).mean()
                mixing += [met / (n_others / (n_own + n_others - 1))] * n_own
    return {
        "types": 100
        * float(np.mean([(votes == types)[types == kind].mean() for kind in set(types)])),
        "across": 100 * float(np.mean(across)),
        "mixing": 100 * float(np.mean(mixing)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--datasets", nargs="+", default=DATASETS)
    parser.add_argument("--embed", nargs=4, metavar=("DATASET", "SEED", "METHOD", "OUT"))
    parser.add_argument("--score", nargs=2, metavar=("DATASET", "FOLDER"))
    options = parser.parse_args()
    logging.getLogger("scdiffaug").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    if options.embed:
        name, seed, method, out = options.embed
        np.save(out, METHODS[method](cells_of(name), int(seed)))
        print(json.dumps({}))
    elif options.score:
        name, folder = options.score
        found = {method: np.load(f"{folder}/{method}.npy") for method in METHODS}
        print(json.dumps({"rows": scores(cells_of(name), found)}))
    else:
        write(options.datasets, options.seeds)


def write(datasets: tuple[str, ...], n_seeds: int) -> None:
    """Run all methods, and write their mean scores."""
    rows = []
    for name in datasets:
        for seed in range(n_seeds):
            with tempfile.TemporaryDirectory() as folder:
                for method in METHODS:
                    out = Path(folder) / f"{method}.npy"
                    in_own_process("integration.py", "--embed", name, str(seed), method, str(out))
                found = in_own_process("integration.py", "--score", name, folder)["rows"]
            rows += [{"dataset": name, **row} for row in found]
    write_means(
        rows,
        "integration",
        by=["dataset", "method"],
        title=f"Embeddings corrected for batches, means of {n_seeds} seeds",
        command=f"python benchmarks/integration.py --seeds {n_seeds}",
    )


if __name__ == "__main__":
    main()
