"""Whether cells of a batch that was not trained on meet those of their type.

``pip install harmonypy symphonypy``, then ``python benchmarks/query.py [--seeds 3]`` writes
``results/query.{csv,md}``. Each batch of a dataset (at most 4,000 cells drawn at random, types of
ten cells or more) is left out in turn; each method learns from the others, the reference, and
then maps the batch left out, the query, onto it. "not mapped" is ours without ``load_query_data``,
"together" a model that learnt from both. In %: ``told``, query cells whose type the fifteen
nearest of the reference say, in the mean over the types that have five cells in both; ``mixing``,
cells of the reference among the thirty nearest of a query cell, over those expected if batches
did not matter within its type, 100 at best.
"""

from __future__ import annotations

import argparse
import json
import logging
import warnings
from collections.abc import Callable, Mapping

import numpy as np
import scanpy as sc
from anndata import AnnData, concat
from common import in_own_process, write_means
from integration import DATASETS, Embedding, cells_of, trained, variable_genes
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.preprocessing import normalize

from scdiffaug import scDiffAug

Embeddings = tuple[Embedding, Embedding]


def scdiffaug(reference: AnnData, query: AnnData, seed: int) -> Embeddings:
    model = trained(reference, seed, batch_key="batch")
    mapped = scDiffAug.load_query_data(query, model)
    return model.get_latent_representation(), mapped.get_latent_representation()


def not_mapped(reference: AnnData, query: AnnData, seed: int) -> Embeddings:
    model = trained(reference, seed, batch_key="batch")
    return model.get_latent_representation(), model.get_latent_representation(query)


def together(reference: AnnData, query: AnnData, seed: int) -> Embeddings:
    y = trained(concat([reference, query]), seed, batch_key="batch").get_latent_representation()
    return y[: reference.n_obs], y[reference.n_obs :]


def symphony(reference: AnnData, query: AnnData, seed: int) -> Embeddings:
    """Harmony on the reference, the query mapped by Symphony, as symphonypy's tutorial does.

    Vectors have length one, by which it tells more types. Of a reference of one batch symphonypy
    0.2 takes means of clusters for sums, so that halves drawn at random stand for its batches.
    """
    import symphonypy

    genes = variable_genes(reference)
    for cells in (reference, query):
        sc.pp.normalize_total(cells, target_sum=1e4)
        sc.pp.log1p(cells)
    reference, query = reference[:, genes].copy(), query[:, genes].copy()
    sc.pp.scale(reference, max_value=10)
    sc.pp.pca(reference, n_comps=30, zero_center=False, random_state=seed)
    halves = np.random.default_rng(seed).choice(["first", "second"], reference.n_obs)
    reference.obs["half"] = halves
    key = "batch" if reference.obs["batch"].nunique() > 1 else "half"
    symphonypy.pp.harmony_integrate(reference, key=key, random_seed=seed)
    symphonypy.tl.map_embedding(query, reference, key="batch", use_genes_column=None)
    of_reference, of_query = (normalize(c.obsm["X_pca_harmony"]) for c in (reference, query))
    return of_reference, of_query


def scvi(reference: AnnData, query: AnnData, seed: int) -> Embeddings:
    """scVI and its ``load_query_data`` (scArches), with the settings of scvi-tools' tutorial."""
    from scvi import settings
    from scvi.model import SCVI

    settings.seed = seed
    genes = variable_genes(reference)
    reference, query = reference[:, genes].copy(), query[:, genes].copy()
    SCVI.setup_anndata(reference, batch_key="batch")
    model = SCVI(
        reference,
        n_layers=2,
        n_latent=30,
        gene_likelihood="nb",
        use_layer_norm="both",
        use_batch_norm="none",
        encode_covariates=True,
        dropout_rate=0.2,
    )
    model.train(train_size=1.0, accelerator="cpu", enable_progress_bar=False)
    mapped = SCVI.load_query_data(query, model, accelerator="cpu")
    mapped.train(
        max_epochs=200,
        train_size=1.0,
        plan_kwargs={"weight_decay": 0.0},
        accelerator="cpu",
        enable_progress_bar=False,
    )
    return model.get_latent_representation(), mapped.get_latent_representation()


METHODS: Mapping[str, Callable[[AnnData, AnnData, int], Embeddings]] = {
    "scdiffaug": scdiffaug,
    "scdiffaug, not mapped": not_mapped,
    "scdiffaug, together": together,
    "symphony": symphony,
    "scvi": scvi,
}


def scores(reference: AnnData, query: AnnData, embeddings: Embeddings) -> dict[str, float]:
    """What the cells of the reference that are nearest to a query cell say of it."""
    of_reference, of_query = embeddings
    types, own = (cells.obs["cell_type"].to_numpy(str) for cells in (reference, query))
    judge = KNeighborsClassifier(15).fit(of_reference, types)
    is_right = judge.predict(of_query) == own
    both = np.concatenate([of_reference, of_query])
    near = NearestNeighbors(n_neighbors=31).fit(both).kneighbors(of_query, return_distance=False)
    others = near[:, 1:] < len(of_reference)
    told, met, sizes = [], [], []
    for kind in np.intersect1d(own, types):
        n_own, n_others = (own == kind).sum(), (types == kind).sum()
        if min(n_own, n_others) >= 5:
            told.append(is_right[own == kind].mean())
            met.append(others[own == kind].mean() / (n_others / (n_own + n_others - 1)))
            sizes.append(n_own)
    return {
        "told": 100 * float(np.mean(told)),
        "mixing": 100 * float(np.average(met, weights=sizes)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--datasets", nargs="+", default=DATASETS)
    parser.add_argument("--run", nargs=4, metavar=("DATASET", "QUERY", "SEED", "METHOD"))
    options = parser.parse_args()
    logging.getLogger("scdiffaug").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    if options.run:
        name, left_out, seed, method = options.run
        cells = cells_of(name)
        is_query = cells.obs["batch"] == left_out
        reference, query = cells[~is_query].copy(), cells[is_query].copy()
        found = METHODS[method](reference.copy(), query.copy(), int(seed))
        print(json.dumps(scores(reference, query, found)))
    else:
        write(options.datasets, options.seeds)


def write(datasets: tuple[str, ...], n_seeds: int) -> None:
    """Run all methods, and write their mean scores."""
    rows = []
    for name in datasets:
        for left_out in sorted(set(cells_of(name).obs["batch"])):
            for seed in range(n_seeds):
                for method in METHODS:
                    found = in_own_process("query.py", "--run", name, left_out, str(seed), method)
                    rows.append({"dataset": name, "query": left_out, "method": method, **found})
    write_means(
        rows,
        "query",
        by=["dataset", "query", "method"],
        title=f"A batch that was not trained on, means of {n_seeds} seeds",
        command=f"python benchmarks/query.py --seeds {n_seeds}",
    )


if __name__ == "__main__":
    main()
