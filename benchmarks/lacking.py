"""Types of cells that lack some of the model's features, told by their neighbours in y.

``python benchmarks/lacking.py [--seeds 2]`` writes ``results/lacking.{csv,md}``. The encoder
learns from a random half of up to 4,000 cells; types of the other half are told by the 15 nearest
of these in y. Of the other half's features some were not measured, drawn at random, or all were
not that the encoder does not see. ``zeros``: they were added as zeros, as the package asked for
before; ``estimated``: as it embeds such cells now; ``trained without``: by a model that learnt
from the measured features alone.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from common import in_own_process, load, write_table
from numpy.typing import NDArray
from scipy import sparse
from sklearn.neighbors import KNeighborsClassifier

from scdiffaug import scDiffAug

DATASETS = (
    "mca_bladder_2746_hvg2000",
    "human_kidney_young_5685_hvg2000",
    "paul15_2730",
    "ifnb_pbmc_2800",
    "cite_cbmc_8617_hvg2000",
    "pbmc3k_named",
    "cytof_huimmprofiling_20k",
    "cytof_huimmprofiling_pbmc",
    "scatac_granja_hemato_14125",
)
SHARES = (0.1, 0.3, 0.5, 0.7)
MAX_CELLS = 4000

Accuracy = Callable[[AnnData], float]


def one(name: str, seed: int) -> list[dict[str, Any]]:
    """Accuracies of one dataset, one for each way of lacking features."""
    logging.getLogger("scdiffaug").setLevel(logging.ERROR)
    adata = load(name, min_cells=10)
    rng = np.random.default_rng(seed)
    adata = adata[rng.permutation(adata.n_obs)[:MAX_CELLS]].copy()
    known, query = adata[: adata.n_obs // 2].copy(), adata[adata.n_obs // 2 :].copy()
    model = trained(known, seed)
    accuracy = teller(model, known)
    rows = []
    for share in SHARES:
        measured = rng.random(adata.n_vars) >= share
        found = scores(accuracy, query, measured) | anew(known, query, measured, seed=seed)
        rows.append({"missing": f"{share:.0%}", **found})
    seen = adata.var_names.isin(model._contract.selected_names)
    if not seen.all():
        rows.append({"missing": "unseen by the encoder", **scores(accuracy, query, seen)})
    whole = accuracy(query)
    return [{"dataset": name, "seed": seed, "all": whole, **row} for row in rows]


def trained(cells: AnnData, seed: int) -> scDiffAug:
    """The encoder alone, trained on cells."""
    model = scDiffAug(cells, diffusion="none", seed=seed)
    model.train(accelerator="cpu", enable_progress_bar=False)
    return model


def teller(model: scDiffAug, known: AnnData) -> Accuracy:
    """Share of cells whose type the nearest known cells tell, in %; these are embedded once."""
    y, types = model.get_latent_representation(known), known.obs["cell_type"]
    near = KNeighborsClassifier(15).fit(y, types)

    def accuracy(query: AnnData) -> float:
        found = near.predict(model.get_latent_representation(query))
        return round(100 * float((found == query.obs["cell_type"]).mean()), 1)

    return accuracy


def scores(accuracy: Accuracy, query: AnnData, measured: NDArray[np.bool_]) -> dict[str, float]:
    """Accuracies with the measured features alone, by a model that knows all."""
    few = counted(query, measured)
    zeros = with_zeros(query[few.obs_names], measured)
    return {"zeros": accuracy(zeros), "estimated": accuracy(few)}


def anew(
    known: AnnData, query: AnnData, measured: NDArray[np.bool_], *, seed: int
) -> dict[str, float]:
    """Accuracy of a model that learns from the measured features alone."""
    shared = counted(known, measured)
    return {"trained without": teller(trained(shared, seed), shared)(counted(query, measured))}


def counted(cells: AnnData, measured: NDArray[np.bool_]) -> AnnData:
    """The measured features of cells that have any count in them, as others are of no use."""
    few = cells[:, measured]
    return few[np.asarray(few.X.sum(1)).ravel() > 0].copy()


def with_zeros(query: AnnData, measured: NDArray[np.bool_]) -> AnnData:
    """The cells, their other features 0."""
    keep = sparse.diags(measured.astype(np.float32))
    values = sparse.csr_matrix(query.X) @ keep
    return AnnData(values.tocsr(), obs=query.obs, var=query.var)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--one", nargs=2, metavar=("DATASET", "SEED"))
    options = parser.parse_args()
    if options.one:
        print(json.dumps({"rows": one(options.one[0], int(options.one[1]))}))
        return
    rows = []
    for name in DATASETS:
        for seed in range(options.seeds):
            rows += in_own_process("lacking.py", "--one", name, str(seed))["rows"]
        table = pd.DataFrame(rows).groupby(["dataset", "missing"], sort=False).mean().round(1)
        write_table(
            table.drop(columns="seed").reset_index().to_dict("records"),
            "lacking",
            title=f"Types told without some of the features (%), means of {options.seeds} seeds",
            command=f"python benchmarks/lacking.py --seeds {options.seeds}",
        )


if __name__ == "__main__":
    main()
