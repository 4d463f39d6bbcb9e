"""Principal axes: what the encoder sees, and where neighbours are searched."""

import subprocess
import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import torch
from anndata import AnnData
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from scdiffaug import components, scDiffAug
from scdiffaug.components import PrincipalAxes
from scdiffaug.features import FeatureSpace, select_features
from scdiffaug.nn import FixedProjection


@pytest.fixture
def features():
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(300, 5)) @ rng.normal(size=(5, 80))
    return np.maximum(signal + rng.normal(size=(300, 80)), 0).astype(np.float32)


def test_axes_are_the_principal_components_of_standardised_features(features):
    axes = PrincipalAxes.fit(features, n_components=10, seed=0)
    points = axes.transform(features)
    standardised = StandardScaler().fit_transform(features).clip(-10, 10)
    expected = PCA(10, random_state=0).fit_transform(standardised)
    np.testing.assert_allclose(points / points.std(), expected / expected.std(), atol=1e-3)
    assert points.std() == pytest.approx(1, rel=0.01)


def test_axes_are_those_of_any_container(features):
    dense = PrincipalAxes.fit(features, n_components=10, seed=0)
    compressed = sparse.csr_matrix(features)
    np.testing.assert_array_equal(
        PrincipalAxes.fit(compressed, n_components=10, seed=0).transform(compressed),
        dense.transform(features),
    )


def test_a_small_panel_keeps_its_features(features):
    panel = features[:, :20]
    axes = PrincipalAxes.fit(panel, n_components=20, seed=0)
    points = axes.transform(panel)
    centred = panel - panel.mean(0)
    np.testing.assert_allclose(points, centred / centred.std(), atol=1e-5)
    np.testing.assert_array_equal(axes.search_space(points), points)


def test_neighbours_are_searched_by_direction(features):
    axes = PrincipalAxes.fit(features, n_components=40, seed=0)
    points = axes.transform(features)
    searched = axes.search_space(points)
    np.testing.assert_allclose(np.linalg.norm(searched, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(axes.search_space(3 * points), searched, rtol=1e-5)
    assert searched.shape == (300, 30)


def test_constant_and_extreme_features_stay_in_bounds(features):
    features[:, 0] = 3
    axes = PrincipalAxes.fit(features, n_components=10, seed=0)
    features[0] = 1e6
    assert np.isfinite(axes.transform(features)).all()
    assert np.abs(axes.transform(features)).max() <= 10 * np.abs(axes.axes).sum(0).max()


def test_fixed_projection_is_the_same_in_torch(features):
    axes = PrincipalAxes.fit(features, n_components=10, seed=0)
    layer = FixedProjection(80, 10)
    for name in ("centre", "scale", "axes"):
        getattr(layer, name).copy_(torch.from_numpy(getattr(axes, name)))
    assert not list(layer.parameters())
    np.testing.assert_allclose(
        layer(torch.from_numpy(features)), axes.transform(features), atol=1e-4
    )


def test_axes_of_many_cells_are_fitted_on_a_draw_of_them(features, monkeypatch):
    monkeypatch.setattr(components, "SUBSAMPLED", 200)
    rows = np.random.default_rng(3).choice(300, 200, replace=False)
    found = PrincipalAxes.fit(features, n_components=10, seed=3)
    wanted = PrincipalAxes.fit(features[rows], n_components=10, seed=3)
    np.testing.assert_array_equal(found.axes, wanted.axes)


def test_a_batch_without_cells_changes_no_choice(features):
    batch = pd.Series(pd.Categorical(np.repeat(["a", "b"], 150), categories=["a", "b", "empty"]))
    chosen = [
        select_features(features / 5, FeatureSpace("log"), n_top=20, batch=names)
        for names in (batch, batch.astype(str))
    ]
    np.testing.assert_array_equal(*chosen)


def test_features_are_chosen_within_batches(features):
    """As scanpy does; that they are others than without batches shows that batches are used."""
    values, batch = features / 5, np.repeat(["a", "b"], 150)
    values[150:, :40] *= 3
    cells = AnnData(values, obs={"batch": pd.Categorical(batch)})
    cells.uns["log1p"] = {"base": None}
    genes = sc.pp.highly_variable_genes(cells, n_top_genes=20, batch_key="batch", inplace=False)
    found = select_features(values, FeatureSpace("log"), n_top=20, batch=batch)
    np.testing.assert_array_equal(found, np.flatnonzero(genes["highly_variable"]))
    without = select_features(values, FeatureSpace("log"), n_top=20, batch=None)
    assert set(found) != set(without)


def test_other_values_are_chosen_by_their_variance_within_batches(features):
    """Of scaled values and residuals, scanpy's exponentials would be infinite."""
    values, batch = features - 3, np.repeat(["a", "b"], 150)
    values[:, 7:12] *= 4
    values[0, 7] = 1e3
    values[150:, :3] += 50  # differs between batches alone
    found = select_features(values, FeatureSpace("raw"), n_top=5, batch=batch)
    np.testing.assert_array_equal(found, range(7, 12))
    sparse_too = select_features(
        sparse.csr_matrix(values), FeatureSpace("raw"), n_top=5, batch=batch
    )
    np.testing.assert_array_equal(found, sparse_too)
    without = select_features(values, FeatureSpace("raw"), n_top=5, batch=None)
    assert {0, 1, 2} < set(without)


def test_torch_keeps_its_threads():
    # In a process of its own, as numba's pool starts once.
    script = """
import torch
from scdiffaug import datasets, scDiffAug
torch.set_num_threads(1)
torch.ones(10**6).sum()  # before its first use torch would set the number again
scDiffAug(datasets.pbmc68k_reduced())
assert torch.get_num_threads() == 1, torch.get_num_threads()
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_few_cells_of_a_batch_do_not_choose_features(features):
    values, batch = features / 5, np.repeat(["a", "b"], 150)
    found = select_features(values, FeatureSpace("log"), n_top=20, batch=batch)
    small = np.append(batch, ["c", "d"])
    more = np.concatenate([values, values[:2]])
    np.testing.assert_array_equal(
        found, select_features(more, FeatureSpace("log"), n_top=20, batch=small)
    )
    none = select_features(values, FeatureSpace("log"), n_top=20, batch=None)
    alone = np.arange(300).astype(str)
    np.testing.assert_array_equal(
        none, select_features(values, FeatureSpace("log"), n_top=20, batch=alone)
    )


def test_more_reads_than_32_bits_count_are_intensities(
    pbmc: AnnData, caplog: pytest.LogCaptureFixture
) -> None:
    proteins = pbmc[:, :100].copy()
    proteins.X = np.rint(proteins.X.toarray() * 1e6)
    assert scDiffAug(proteins.copy()).feature_space == "counts"
    assert "more counts than are sequenced: if these are intensities" in caplog.text
    proteins.X *= 1e4
    assert scDiffAug(proteins.copy()).feature_space == "raw"
    with pytest.raises(ValueError, match=r"needs whole numbers, found .*, too many reads"):
        scDiffAug(proteins, feature_space="counts")


def test_a_batch_of_19_cells_has_no_say_in_which_genes_vary(pbmc: AnnData) -> None:
    batch = np.where(np.arange(700) < 19, "small", "large")
    x, space = pbmc.X, FeatureSpace("counts")
    together = select_features(x, space, n_top=50, batch=batch)
    np.testing.assert_array_equal(
        together, select_features(x[19:], space, n_top=50, batch=batch[19:])
    )


@pytest.mark.parametrize(
    ("values", "cofactor"),
    [
        (lambda x: x - 1, 5.0),
        (lambda x: 3 * x - 10, 5.0),
        (lambda x: (x - x.mean(0)) / x.std(0), None),
    ],
    ids=["a negative one", "compensated", "scaled"],
)
def test_intensities_may_be_negative(values, cofactor):
    x = np.random.default_rng(0).lognormal(2, 1.5, size=(500, 8)).astype(np.float32)
    x[0, 0] = 1e4
    assert FeatureSpace.decide(values(x)) == FeatureSpace("raw", cofactor)


def test_counts_beside_logarithms_are_told(
    pbmc: AnnData, caplog: pytest.LogCaptureFixture
) -> None:
    logs = pbmc[300:].copy()
    sc.pp.normalize_total(logs, target_sum=1e4)
    sc.pp.log1p(logs)
    both = ad.concat([pbmc[:300], logs], index_unique="-", keys=["one", "two"])
    scDiffAug(both)
    assert "43% of the cells hold whole numbers, as counts are, and the others do not" in (
        caplog.text
    )
    assert "np.rint" not in caplog.text
