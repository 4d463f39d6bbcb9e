"""Inputs that do not fit each other or the data: the error says what was found and what to do."""

from collections.abc import Callable
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from refusals import (
    INF,
    NAN,
    Bench,
    Case,
    K,
    T,
    V,
)
from scipy import sparse

from scdiffaug import metrics, pl, scDiffAug, tl


def _foreign(bench: Bench) -> None:
    adata = bench.raw()
    adata.obs["kind"] = pd.Categorical(bench.labels)
    scDiffAug.setup_anndata(adata, labels_key="kind")
    model = scDiffAug(adata, condition="labels")
    model.train(max_epochs=1, enable_progress_bar=False)
    query = adata.copy()
    query.obs["kind"] = ["c"] * 60
    model.augment(query)


def _halved(bench: Bench) -> AnnData:
    half = bench.adata.copy()
    half.X = half.X * np.float32(0.5)
    return half


def _named(bench: Bench, **names: Any) -> AnnData:
    cells = bench.raw(var=bench.adata.var.copy())
    for table, index in names.items():
        getattr(cells, table).index = pd.Index(index)
    return cells


def _ensembl(bench: Bench, version: int) -> scDiffAug:
    cells = bench.raw(var=pd.DataFrame(index=[f"ENSG{k}.{version}" for k in range(40)]))
    model = scDiffAug(cells, n_semantic=8, diffusion="none")
    model.is_trained_ = True
    return model


def _together(bench: Bench) -> AnnData:
    return ad.concat([bench.adata, bench.model.augment()], join="outer", index_unique="-")


def _both(bench: Bench) -> None:
    bench.model.augment(groupby="cell_type", target="max", n_per_cell=2)


def _between(bench: Bench, model: Any) -> None:
    tl.interpolate(bench.adata, model, start=0, end=1)


def _coloured(bench: Bench, *, color: str = "kind", **colours: Any) -> None:
    obs = pd.DataFrame({"kind": bench.labels, "0": bench.z[:, 0]}, index=bench.adata.obs_names)
    pl.embedding(AnnData(obs=obs, obsm={"z": bench.z}), color=color, basis="z", **colours)


def _scores(bench: Bench, value: float) -> None:
    metrics.embedding_scores(bench.spoiled(value), bench.labels)


CASES: list[Case] = [
    ("an index twice", lambda b: b.model.augment(indices=[1, 1]), V, "cells more than once"),
    ("an index twice, from the end", lambda b: b.model.augment(indices=[0, -60]), V, "than once"),
    (
        "cells that are all the same",
        lambda _: scDiffAug(AnnData(np.ones((60, 3), np.float32))),
        V,
        "No feature of adata varies among its 60 cells",
    ),
    ("a matrix for adata", lambda b: scDiffAug(b.z), T, "adata must be of type AnnData, found nd"),
    ("a path for adata", lambda _: scDiffAug("x.h5ad"), T, "adata must be .* found str"),
    (
        "text for adata of setup",
        lambda _: scDiffAug.setup_anndata("x.h5ad"),
        T,
        "adata must be .* found str",
    ),
    (
        "complex values",
        lambda b: scDiffAug(b.raw(X=b.adata.X.toarray() + 1j)),
        T,
        r"adata\.X has values of type complex",
    ),
    (
        "values of text",
        lambda b: scDiffAug(b.raw(X=b.adata.X.toarray().astype(str))),
        T,
        r"adata\.X has values of type <U",
    ),
    (
        "values too large",
        lambda b: scDiffAug(b.raw(X=b.adata.X.toarray().astype(float) * 1e300)),
        V,
        r"adata\.X has \d+ NaN or infinite values as float32",
    ),
    ("no X", lambda b: scDiffAug(AnnData(obs=b.adata.obs)), V, "found 60 cells x 0 features"),
    ("a path", lambda _: scDiffAug("cells.h5ad"), TypeError, "read it with scanpy.read_h5ad"),
    (
        "an X that was never filled",
        lambda b: scDiffAug(b.raw(X=b.adata.X * 0)),
        V,
        "None of 60 cells has counts .* name the layer that holds them",
    ),
    (
        "labels that training did not see",
        _foreign,
        V,
        "labels_key='kind' has 1 labels that the model was not trained on, e.g. 'c'",
    ),
    (
        "no labels where asked for",
        lambda b: scDiffAug(b.raw(), condition="labels"),
        V,
        "condition='labels' needs labels",
    ),
    (
        "alternating under plain DDP",
        lambda b: b.model.train(max_epochs=2, strategy="ddp", schedule="alternating"),
        V,
        "strategy='ddp' needs all parameters in each step",
    ),
    (
        "one epoch for two that alternate",
        lambda b: b.model.train(max_epochs=1, schedule="alternating"),
        V,
        "max_epochs=1 has no epoch for the generator",
    ),
    (
        "training without cells",
        lambda b: b.loose.train(max_epochs=1),
        V,
        "has no cells: pass adata",
    ),
    (
        "embedding without cells",
        lambda b: b.loose.get_latent_representation(),
        V,
        "has no cells: pass adata",
    ),
    (
        "saving cells that are not there",
        lambda b: b.loose.save(b.folder / "new", save_anndata=True),
        V,
        "save_anndata=True, but the model has no cells",
    ),
    (
        "embedding untrained",
        lambda b: scDiffAug(b.adata).get_latent_representation(),
        RuntimeError,
        "train the model",
    ),
    ("augmenting untrained", lambda b: scDiffAug(b.adata).augment(), RuntimeError, "train the mo"),
    (
        "a matrix for a query",
        lambda b: b.model.get_latent_representation(adata=b.z),
        T,
        "adata must be .* found ndarray",
    ),
    ("text for a query", lambda b: tl.augment("x", b.model), T, "adata must be .* found str"),
    (
        "a query of other features",
        lambda b: b.model.get_latent_representation(adata=AnnData(b.z)),
        V,
        "adata has none of the model's 40 features",
    ),
    (
        "a query of fractions",
        lambda b: b.model.get_latent_representation(adata=_halved(b)),
        V,
        "needs whole numbers",
    ),
    ("no indices", lambda b: b.model.get_latent_representation(indices=[]), V, "indices is empty"),
    (
        "an index beyond",
        lambda b: b.model.get_latent_representation(indices=[3, 60]),
        IndexError,
        "names cell 60, but .* 60",
    ),
    (
        "an index before",
        lambda b: b.model.augment(indices=[-61]),
        IndexError,
        "names cell -61, but",
    ),
    ("indices of halves", lambda b: b.model.augment(indices=[0.5]), T, "indices holds .* float64"),
    (
        "indices of names",
        lambda b: b.model.get_latent_representation(indices=["a"]),
        T,
        "indices holds values of .*get_indexer",
    ),
    (
        "one index",
        lambda b: b.model.get_latent_representation(indices=3),
        V,
        r"indices has shape \(\)",
    ),
    (
        "a short mask",
        lambda b: b.model.get_latent_representation(indices=[True]),
        V,
        "1 truth values for 60 cells",
    ),
    ("a mask of no cell", lambda b: b.model.augment(indices=[False] * 60), V, "no cell is True"),
    ("a target and copies", _both, V, "target='max' decides .* n_per_cell=2"),
    (
        "a depth of logarithms",
        lambda b: b.log.augment(depth=100),
        V,
        "depth=100 sets the total counts",
    ),
    ("thickening logarithms", lambda b: b.log.augment(sampler="thicken"), V, "does not fit"),
    (
        "counts diffusion of logarithms",
        lambda b: scDiffAug(b.log.adata, diffusion="counts"),
        V,
        "diffusion='counts' thins reads",
    ),
    (
        "a report in a folder",
        lambda b: b.model.augmentation_report(b.model.augment(), path=b.folder),
        IsADirectoryError,
        "is a folder: name a file",
    ),
    ("an empty key", lambda b: tl.embed(b.adata, b.model, key_added=""), V, "key_added is empty"),
    (
        "a size for each cell",
        lambda b: pl.embedding(AnnData(obsm={"z": b.z}), basis="z", size=np.ones(60)),
        T,
        r"size=<ndarray of shape \(60,\)> must be a number, above 0",
    ),
    (
        "an interpolation within a cell",
        lambda b: b.model.interpolate(start="AAAGCCTGGCTAAC-1", end=0),
        V,
        "start='AAAGCCTGGCTAAC-1' and end=0 are one cell, 'AAAGCCTGGCTAAC-1': pass two",
    ),
    (
        "mixing of cells that are all alike",
        lambda _: metrics.mixing(np.zeros((40, 3)), np.zeros((40, 3)), n_pcs=None),
        V,
        "Most cells equal 30 others, so mixing has no nearest ones",
    ),
    (
        "types that are spelt in another way",
        lambda b: metrics.type_kept(b.z, b.labels, b.z, expected=np.repeat("A", 60)),
        V,
        "expected has no label that labels has: found 'A', and '[ab]' there",
    ),
    (
        "query labels that are spelt in another way",
        lambda b: metrics.query_scores(b.z, b.labels, query=b.z, query_labels=np.repeat("A", 60)),
        V,
        "query_labels has no label that labels has: found 'A'",
    ),
    (
        "colours by several columns",
        lambda b: pl.embedding(AnnData(obsm={"z": b.z}), color=["half", "holes"], basis="z"),
        T,
        r"color=\['half', 'holes'\] must be one name, .*; sc.pl.embedding draws several",
    ),
    (
        "colours of new cells by several columns",
        lambda b: pl.augmentation(b.adata, b.adata, model=b.model, color=["half"]),
        T,
        r"color=\['half'\] must be one name",
    ),
    (
        "a report of no new cells",
        lambda b: b.model.augmentation_report(b.adata[:0]),
        V,
        "new is empty: found 0 cells",
    ),
    (
        "a picture of no new cells",
        lambda b: pl.augmentation(b.adata, b.adata[:0], model=b.model),
        V,
        "new is empty: found 0 cells",
    ),
    (
        "swapped arguments",
        lambda b: tl.embed(b.model, b.adata),
        T,
        "adata must be of .* scDiffAug",
    ),
    ("a matrix to tl", lambda b: tl.augment(b.z), T, "adata must be of type AnnData, found nd"),
    (
        "names that are numbers",
        lambda b: scDiffAug(_named(b, obs=range(60))),
        T,
        "adata.obs_names holds values of type integer, not text: call adata.obs_names = ",
    ),
    (
        "features that are numbers",
        lambda b: b.model.augment(_named(b, var=range(40))),
        T,
        "adata.var_names holds values of type integer, not text",
    ),
    (
        "batches of text and numbers",
        lambda b: scDiffAug.setup_anndata(b.raw(obs={"b": [1, "a"] * 30}), batch_key="b"),
        T,
        "batch_key='b' holds values of several types",
    ),
    (
        "features of other versions",
        lambda b: _ensembl(b, 1).get_latent_representation(_ensembl(b, 2).adata),
        V,
        "none of the model's 40 features.* 40 are there with another version: remove it",
    ),
    (
        "new cells without the features",
        lambda b: b.model.augmentation_report(b.model.augment()[:, :9]),
        V,
        "new lacks 31 of the model's 40 features",
    ),
    (
        "a report of real and new cells",
        lambda b: b.model.augmentation_report(_together(b)),
        V,
        "new has 60 cells of 120 that are not marked as augmented: pass",
    ),
    ("a model of text", lambda b: tl.embed(b.adata, "x"), T, "model must be .* found str"),
    ("a class for a model", lambda b: tl.augment(b.adata, scDiffAug), T, "model must be of type"),
    ("a model of text to tl", lambda b: _between(b, "x"), T, "model must be .* found str"),
    (
        "a key of a number",
        lambda b: tl.embed(b.adata, b.model, key_added=3),
        T,
        "key_added=3 must be one name",
    ),
    ("saving over", lambda b: b.model.save(b.folder / "model"), FileExistsError, "overwrite=True"),
    (
        "saving over a file",
        lambda b: b.model.save(b.folder / "file", overwrite=True),
        FileExistsError,
        "is not a saved model",
    ),
    ("saving nowhere", lambda b: b.model.save(""), V, "dir_path is empty"),
    ("loading nothing", lambda b: scDiffAug.load(b.folder), FileNotFoundError, "holds no saved"),
    (
        "loading from nowhere",
        lambda b: scDiffAug.load(b.folder / "absent"),
        FileNotFoundError,
        "absent holds no saved",
    ),
    (
        "loading other cells",
        lambda b: scDiffAug.load(b.folder / "model", AnnData(b.z)),
        V,
        "adata has none of",
    ),
    (
        "loading text for cells",
        lambda b: scDiffAug.load(b.folder / "model", "x.h5ad"),
        T,
        "adata must be .* found str",
    ),
    (
        "loading to nowhere",
        lambda b: scDiffAug.load(b.folder / "model", accelerator="abacus"),
        V,
        "accelerator='abacus'",
    ),
    ("plotting a line", lambda b: pl.embedding(b.adata, basis="line"), V, r"shape \(60, 1\)"),
    ("plotting text", lambda _: pl.embedding("x"), T, "adata must be .* found str"),
    (
        "plotting to text",
        lambda b: pl.embedding(b.raw(obsm={"z": b.z}), basis="z", ax="x"),
        T,
        "ax must be of type Axes, found str",
    ),
    (
        "plotting new cells of text",
        lambda b: pl.augmentation(b.adata, "x", model=b.model),
        T,
        "new must be .* found str",
    ),
    ("two dimensions", lambda b: scDiffAug(b.adata, n_semantic=2), V, "n_semantic=2 cannot tell"),
    (
        "colours by no name",
        lambda b: _coloured(b, palette={"red"}),
        T,
        "a dict of them, found set",
    ),
    ("too few colours", lambda b: _coloured(b, palette=["red"]), V, "1 colours for 2 categories"),
    ("no colour for one", lambda b: _coloured(b, palette={"a": "red"}), V, "no colour for b: add"),
    ("no such colour", lambda b: _coloured(b, palette=["red", "blurple"]), V, "'blurple', which"),
    ("a palette of none", lambda b: _coloured(b, palette="redish"), V, "palette='redish' is no"),
    ("a number as palette", lambda b: _coloured(b, palette=3), T, "a dict of them, found int"),
    ("no such colormap", lambda b: _coloured(b, color="0", cmap="gray0"), V, "cmap='gray0' is no"),
    ("an unknown curve", lambda b: pl.history(b.model, keys=["x"]), K, r"keys=\['x'\] not found"),
    ("a curve of text", lambda b: pl.history(b.model, keys="loss"), T, r"pass \['loss'\]"),
    ("curves untrained", lambda b: pl.history(scDiffAug(b.adata)), RuntimeError, "no history"),
    (
        "scores of a list",
        lambda _: metrics.silhouette([[1]], "a"),
        T,
        "embedding must be an array",
    ),
    ("scores of NaN", lambda b: _scores(b, NAN), V, "embedding has 1 NaN or infinite values"),
    ("scores of infinity", lambda b: _scores(b, INF), V, "embedding has 1 NaN or infinite"),
    (
        "scores of a row",
        lambda b: metrics.kmeans_accuracy(b.z[:, 0], b.labels),
        V,
        r"embedding has shape \(60,\)",
    ),
    (
        "scores of too few labels",
        lambda b: metrics.kmeans_accuracy(b.z, b.labels[1:]),
        V,
        r"labels has shape \(59,\), but embedding has 60 cells",
    ),
    (
        "scores of missing labels",
        lambda b: metrics.kmeans_accuracy(b.z, b.adata.obs["holes"]),
        V,
        "labels has 1 missing values",
    ),
    (
        "scores of one label",
        lambda b: metrics.silhouette(b.z, np.repeat("a", 60)),
        V,
        "labels has 1 names for 60 cells",
    ),
    (
        "scores of a rare label",
        lambda b: metrics.knn_accuracy(b.z, np.r_[["a"], ["b"] * 59]),
        V,
        "label 'a' has 1 cells, fewer than the 10 folds",
    ),
    (
        "points of other cells",
        lambda b: metrics.trustworthiness(b.z[1:], b.z),
        V,
        "points has 59 cells, but embedding has 60",
    ),
    (
        "points of NaN",
        lambda b: metrics.trustworthiness(b.spoiled(NAN), b.z),
        V,
        "points has 1 NaN",
    ),
    (
        "metrics of a matrix in coordinates",
        lambda b: metrics.wasserstein_2(sparse.coo_matrix(b.z), b.z),
        T,
        "real is a sparse matrix in COO format: pass real.tocsr()",
    ),
    (
        "metrics of truth values",
        lambda b: metrics.gene_gene_correlation_agreement(b.z > 0, b.z > 0),
        T,
        "real has values of type bool",
    ),
    (
        "types of one cell",
        lambda b: metrics.type_kept(b.z[:1], ["a"], b.z, expected=["a"] * 60, judge="logistic"),
        V,
        "real has 1 cells, but a judge needs at least 2",
    ),
    ("metrics of no cells", lambda b: metrics.zero_share(b.z[:0]), V, "x has no cells"),
    ("metrics of a list", lambda b: metrics.mixing([[1]], b.z), T, "real must be an array"),
    ("mmd of one cell", lambda b: metrics.mmd(b.z, b.z, max_cells=1), V, "max_cells=1 must"),
    (
        "fewer cells than neighbours",
        lambda b: metrics.precision_recall_density_coverage(b.z, b.z, max_cells=5),
        V,
        "max_cells=5 must be at least 6",
    ),
    (
        "linear SVM of one label",
        lambda b: metrics.linear_svm_accuracy(b.z, np.repeat("a", 60)),
        V,
        "labels has 'a' alone",
    ),
    (
        "half a gene",
        lambda b: metrics.gene_gene_correlation_agreement(b.z, b.z, n_genes=2.5),
        T,
        "n_genes=2.5 must be a whole number",
    ),
    ("made of other genes", lambda b: metrics.mmd(b.z, b.z[:, :1]), V, "real has 2 features, but"),
    ("made of NaN", lambda b: metrics.wasserstein_2(b.z, b.spoiled(NAN)), V, "made has 1 NaN"),
    ("made of text", lambda b: metrics.mmd(b.z, b.z.astype(str)), T, "made has values of type <U"),
    ("sparse NaN", lambda b: metrics.zero_share(sparse.csr_matrix(b.spoiled(NAN))), V, "x has 1"),
    (
        "held-out NaN",
        lambda b: metrics.membership_auc(b.z, b.spoiled(NAN), b.z),
        V,
        "held_out has 1 NaN",
    ),
    (
        "an unknown judge",
        lambda b: metrics.type_kept(b.z, b.labels, b.z, expected=b.labels, judge="god"),
        V,
        "judge='god' is unknown",
    ),
    (
        "sources beyond",
        lambda b: metrics.own_source_share(b.z, b.z, sources=np.arange(1, 61)),
        V,
        "sources has 1 rows outside training",
    ),
]


@pytest.mark.parametrize(
    ("call", "error", "message"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_bad_call_is_refused_in_words(
    bench: Bench, call: Callable[[Bench], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        call(bench)
    assert caught.type is error


def test_new_cells_are_taken_from_a_mixture_as_the_message_says(bench: Bench) -> None:
    both = _together(bench)
    new = both[both.obs["is_augmented"].isin([True])].copy()
    # As many as the real cells that are kept apart from their sources.
    assert bench.model.augmentation_report(new)["n_cells"] == 30


def test_names_that_are_categories_of_text_are_names(bench: Bench) -> None:
    cells = bench.adata.copy()
    cells.obs.index = pd.CategoricalIndex(cells.obs_names)
    assert bench.model.get_latent_representation(cells).shape == (60, 8)
