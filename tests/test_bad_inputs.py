"""Every argument with values that it must refuse: the error names the field and what was found."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from refusals import (
    CHOICE,
    FROM_TWO,
    INF,
    NAME,
    NAN,
    OPTIONAL_WHOLE,
    SEED,
    SHARE,
    WHOLE,
    Bench,
    Case,
    K,
    T,
    V,
    each,
)

from scdiffaug import metrics, pl, scDiffAug
from scdiffaug.registration import manager_in


def _make(bench: Bench, **options: Any) -> object:
    return scDiffAug(bench.adata, **options)


def _setup(bench: Bench, **options: Any) -> object:
    return scDiffAug.setup_anndata(bench.adata.copy(), **options)


def _train(bench: Bench, **options: Any) -> object:
    return bench.model.train(**{"max_epochs": 1, "enable_progress_bar": False, **options})


def _embed(bench: Bench, **options: Any) -> object:
    return bench.model.get_latent_representation(**options)


def _augment(bench: Bench, **options: Any) -> object:
    return bench.model.augment(**options)


def _interpolate(bench: Bench, **options: Any) -> object:
    return bench.model.interpolate(**{"start": 0, "end": 1, **options})


def _report(bench: Bench, **options: Any) -> object:
    return bench.model.augmentation_report(bench.adata, **options)


def _save(bench: Bench, **options: Any) -> object:
    return bench.model.save(**{"dir_path": bench.folder / "new", **options})


def _plot(bench: Bench, **options: Any) -> object:
    return pl.embedding(bench.adata, **{"basis": "line", **options})


CASES: list[Case] = [
    *each(
        "scDiffAug",
        _make,
        {
            "feature_space": {"tpm": V, "": V},
            "n_top_features": OPTIONAL_WHOLE,
            "n_components": WHOLE,
            "n_neighbors": {**WHOLE, 60: V},
            "n_semantic": WHOLE,
            "n_projection": WHOLE,
            "objective": CHOICE,
            "condition": CHOICE,
            "diffusion": CHOICE,
            "seed": SEED,
        },
    ),
    *each(
        "setup_anndata",
        _setup,
        {
            "layer": NAME,
            "labels_key": {**NAME, "holes": V},
            "batch_key": {**NAME, "holes": V},
            "neighbors_key": {**NAME, "loose": K, "text": K},
        },
    ),
    *each(
        "train",
        _train,
        {
            "max_epochs": OPTIONAL_WHOLE,
            "batch_size": FROM_TWO,
            "max_cells": {**OPTIONAL_WHOLE, 19_999: V},
            "accelerator": {"abacus": V},
            "devices": {0: V, "two": V},
            "strategy": {**CHOICE, "fsdp": V},
            "num_nodes": WHOLE,
            "precision": {**CHOICE, "16-true": V},
            "alpha": SHARE,
            "startup": SHARE,
            "balance": {-0.1: V, 1.1: V, NAN: V, "1": T},
            "relatedness": {-0.1: V, 1.1: V, NAN: V, "1": T},
            "schedule": CHOICE,
            "learning_rate": {0.0: V, -1e-3: V, NAN: V, INF: V, "1e-3": T},
            "weight_decay": {-1.0: V, NAN: V, INF: V, None: T},
            "enable_progress_bar": {"no": T, 0: T},
            "checkpoint_dir": {3: T, True: T},
            "resume": {"yes": T, 1: T, None: T},
        },
    ),
    *each(
        "get_latent_representation",
        _embed,
        {"representation": {"umap": V, 3: V, None: V}, "batch_size": OPTIONAL_WHOLE},
    ),
    *each(
        "augment",
        _augment,
        {
            "n_per_cell": WHOLE,
            "strength": {0.0: V, 1.5: V, NAN: V, INF: V, "1": T, None: T},
            "depth": {0: V, -5: V, "deep": V, 1.5: V, True: V},
            "keep": CHOICE,
            "sampler": {"ddim": V, "best": V, 3: V, None: V},
            "steps": OPTIONAL_WHOLE,
            "batch_size": OPTIONAL_WHOLE,
            "seed": SEED,
            "groupby": {"absent": K, 3: T, "half": V},
            "target": {"max": V, 5: V},
        },
    ),
    *each(
        "augment to a size",
        lambda bench, **options: _augment(
            bench, **{"groupby": "cell_type", "target": "max", **options}
        ),
        {
            "groupby": {"absent": K, 3: T, "half": V, "holes": V},
            "target": {0: V, -1: V, 1.5: V, "most": V, True: V},
        },
    ),
    *each(
        "interpolate",
        _interpolate,
        {
            "start": {"absent": K, 60: K, -1: K, 1.5: T, None: T, True: T},
            "end": {"absent": K, 60: K, 1.5: T},
            "n_cells": FROM_TWO,
            "groupby": {"absent": K, 3: T, "half": V},
            "sampler": {"best": V},
            "steps": OPTIONAL_WHOLE,
            "batch_size": OPTIONAL_WHOLE,
            "seed": SEED,
        },
    ),
    *each(
        "augmentation_report",
        _report,
        {"max_cells": WHOLE, "seed": SEED, "path": {3: T}, "groupby": {"absent": K, 3: T}},
    ),
    *each(
        "save",
        _save,
        {"dir_path": {3: T, None: T}, "overwrite": {"yes": T}, "save_anndata": {1: T}},
    ),
    *each("load", lambda _, **options: scDiffAug.load(**options), {"dir_path": {3: T, None: T}}),
    *each("pl.embedding", _plot, {"basis": {"absent": K}}),
    *each(
        "pl.embedding in the plane",
        lambda bench, **options: pl.embedding(
            bench.raw(obsm={"line": bench.z}), basis="line", **options
        ),
        {"size": {0: V, -1.0: V, NAN: V, "big": T}, "color": {"absent": K}},
    ),
    *each(
        "metrics.knn_accuracy",
        lambda bench, **options: metrics.knn_accuracy(bench.z, bench.labels, **options),
        {"n_neighbors": WHOLE, "n_folds": FROM_TWO},
    ),
    *each(
        "metrics.linear_svm_accuracy",
        lambda bench, **options: metrics.linear_svm_accuracy(bench.z, bench.labels, **options),
        {"n_folds": FROM_TWO, "max_cells": OPTIONAL_WHOLE},
    ),
    *each(
        "metrics.trustworthiness",
        lambda bench, **options: metrics.trustworthiness(bench.z, bench.z, **options),
        {"n_neighbors": WHOLE},
    ),
    *each(
        "metrics.random_triplet_accuracy",
        lambda bench, **options: metrics.random_triplet_accuracy(bench.z, bench.z, **options),
        {"n_triplets": WHOLE},
    ),
    *each(
        "metrics.mmd",
        lambda bench, **options: metrics.mmd(bench.z, bench.z, **options),
        {"max_cells": WHOLE, "n_pcs": OPTIONAL_WHOLE},
    ),
    *each(
        "metrics.mixing",
        lambda bench, **options: metrics.mixing(bench.z, bench.z, **options),
        {"n_neighbors": WHOLE, "n_pcs": OPTIONAL_WHOLE},
    ),
    *each(
        "metrics.duplicate_share",
        lambda bench, **options: metrics.duplicate_share(bench.z, bench.z, bench.z, **options),
        {"quantile": SHARE, "n_pcs": OPTIONAL_WHOLE},
    ),
]


@pytest.mark.parametrize(
    ("call", "error", "message"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_bad_input_is_refused_in_words(
    bench: Bench, call: Callable[[Bench], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        call(bench)
    assert caught.type is error


def test_a_refused_training_leaves_the_model_as_it_was(bench: Bench) -> None:
    before = {name: part.clone() for name, part in bench.model.module.state_dict().items()}
    for option in ({"alpha": 2.0}, {"schedule": "best"}, {"batch_size": 1}, {"max_epochs": -1}):
        with pytest.raises(ValueError, match=r"must be|is unknown"):
            bench.model.train(**option)
    after = bench.model.module.state_dict()
    assert all((after[name] == part).all() for name, part in before.items())
    assert bench.model.is_trained_


def test_a_copy_that_is_set_up_leaves_its_original_usable(bench: Bench) -> None:
    before = bench.model.get_latent_representation()
    copy = bench.adata.copy()
    scDiffAug.setup_anndata(copy)
    scDiffAug(bench.adata)
    assert manager_in(scDiffAug, copy) is not manager_in(scDiffAug, bench.adata)
    np.testing.assert_array_equal(bench.model.get_latent_representation(), before)
