"""Whether new cells are of the batch of their source.

``python benchmarks/batches.py [--seeds 2]`` writes ``results/batches.{csv,md}``. Makers learn from
a random half of the cells of each type and batch (of up to 3,000 cells, 2,500 variable genes of
the training half) and make a new cell of each. Forests that learnt the batches of one type from
the other half say of what batch a new cell is: ``kept`` is the share that is of its source's, in
the mean over types of eight cells or more in every batch, and ``rarest`` that of the rarest such
type. Without any new cell, the sources themselves score ``real``.
"""

from __future__ import annotations

import argparse
import json
import logging
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import scanpy as sc
from anndata import AnnData
from common import in_own_process, load, scvi_told_batches, write_means
from numpy.typing import NDArray
from scipy import sparse
from sklearn.ensemble import RandomForestClassifier

from scdiffaug import metrics, scDiffAug
from scdiffaug.features import FeatureSpace, select_features
from scdiffaug.matrices import to_dense

DATASETS = ("ifnb_pbmc_2800", "gastrulation_seqfish_lohoff", "mca_stomach_intestine_1871")
MAX_CELLS, N_GENES, FEWEST = 3000, 2500, 8
COUNTS = FeatureSpace("counts")


def scdiffaug(known: AnnData, sources: AnnData, seed: int, *, batch_key: str | None) -> AnnData:
    """Ours; the whole model, by default settings."""
    cells = known.copy()
    scDiffAug.setup_anndata(cells, batch_key=batch_key)
    model = scDiffAug(cells, seed=seed)
    model.train(accelerator="cpu", enable_progress_bar=False)
    return model.augment(sources)


def scvi(known: AnnData, sources: AnnData, seed: int) -> AnnData:
    """scVI (``nb``, 30 dimensions, two layers) that is told batches: its posterior of sources."""
    model = scvi_told_batches(known.copy(), seed)
    made = model.posterior_predictive_sample(sources.copy()).to_scipy_sparse()
    return AnnData(sparse.csr_matrix(made), obs=sources.obs.copy(), var=sources.var)


MAKERS: Mapping[str, Callable[[AnnData, AnnData, int], AnnData]] = {
    "scdiffaug": lambda *cells: scdiffaug(*cells, batch_key="batch"),
    "scdiffaug, not told": lambda *cells: scdiffaug(*cells, batch_key=None),
    "scvi": scvi,
}


def halves(name: str, seed: int) -> tuple[AnnData, AnnData]:
    """Known and held-out cells, each type and batch shared out evenly, of variable genes."""
    adata = load(name, min_cells=10)
    rng = np.random.default_rng(seed)
    adata = adata[rng.permutation(adata.n_obs)[:MAX_CELLS]].copy()
    place = adata.obs.groupby(["cell_type", "batch"], observed=True).cumcount().to_numpy()
    known, held_out = adata[place % 2 == 0].copy(), adata[place % 2 == 1].copy()
    if known.n_vars > N_GENES:
        variable = select_features(known.X, COUNTS, n_top=N_GENES, batch=None)
        known, held_out = known[:, variable].copy(), held_out[:, variable].copy()
    for cells in (known, held_out):
        sc.pp.filter_cells(cells, min_counts=1)
    return known, held_out


def logs(cells: AnnData) -> NDArray[np.float32]:
    """log1p of 10,000 counts per cell."""
    return to_dense(COUNTS.transform(cells.X))


def kept(new: AnnData, sources: AnnData, judges: AnnData) -> dict[str, float]:
    """Shares of new cells, and of their sources, that are of the sources' batch."""
    shares = []
    for name, of_type in judges.obs.groupby("cell_type", observed=True):
        sizes = of_type["batch"].value_counts()
        if (sizes >= FEWEST).sum() < 2 or (sizes[sizes > 0] < FEWEST).any():
            continue
        forest = RandomForestClassifier(300, class_weight="balanced", random_state=0)
        forest.fit(logs(judges[of_type.index]), of_type["batch"].astype(str))
        rows = (sources.obs["cell_type"] == name).to_numpy()
        expected = sources.obs["batch"][rows].astype(str).to_numpy()
        found = [
            (forest.predict(logs(cells[rows])) == expected).mean() for cells in (new, sources)
        ]
        shares.append((len(of_type), *found))
    _, made, real = zip(*sorted(shares), strict=True)
    return {
        "types": len(shares),
        "real": 100 * float(np.mean(real)),
        "kept": 100 * float(np.mean(made)),
        "rarest": 100 * float(made[0]),
    }


def one(name: str, seed: int, maker: str) -> list[dict[str, Any]]:
    """Scores of one maker."""
    logging.getLogger("scdiffaug").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    known, held_out = halves(name, seed)
    new, of_held_out = (MAKERS[maker](known, cells, seed) for cells in (known, held_out))
    types = [cells.obs["cell_type"].to_numpy(dtype=str) for cells in (held_out, known)]
    type_kept = metrics.type_kept(logs(held_out), types[0], logs(new), expected=types[1])
    found = {
        **kept(new, known, held_out),
        "type kept": 100 * type_kept,
        "AUC held out": metrics.two_sample_auc(logs(held_out), logs(of_held_out)),
        "own source": 100
        * metrics.own_source_share(logs(known), logs(new), sources=np.arange(known.n_obs)),
    }
    scores = {key: round(float(value), 3) for key, value in found.items()}
    return [{"dataset": name, "maker": maker, **scores}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--one", nargs=3, metavar=("DATASET", "SEED", "MAKER"))
    options = parser.parse_args()
    if options.one:
        name, seed, maker = options.one
        print(json.dumps({"rows": one(name, int(seed), maker)}))
        return
    rows = []
    for name in DATASETS:
        for seed in range(options.seeds):
            for maker in MAKERS:
                rows += in_own_process("batches.py", "--one", name, str(seed), maker)["rows"]
        write_means(
            rows,
            "batches",
            by=["dataset", "maker"],
            title=f"New cells of the batch of their source (%), means of {options.seeds} seeds",
            command=f"python benchmarks/batches.py --seeds {options.seeds}",
        )


if __name__ == "__main__":
    main()
