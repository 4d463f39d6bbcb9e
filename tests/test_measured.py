"""Cells that lack some of the model's features are embedded by those that they have."""

import logging
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import torch
from anndata import AnnData
from numpy.typing import NDArray
from refusals import Bench
from scipy import sparse
from sklearn.neighbors import KNeighborsClassifier

import scdiffaug
from scdiffaug import distributed, scDiffAug, tl
from scdiffaug.features import FeatureSpace
from scdiffaug.nn import FixedProjection


@pytest.fixture(scope="module")
def halves() -> tuple[scDiffAug, AnnData]:
    """A model of one half of the cells, and the other half."""
    pbmc = scdiffaug.datasets.pbmc68k_reduced()
    model = scDiffAug(pbmc[::2].copy(), n_top_features=600, diffusion="none")
    model.train(enable_progress_bar=False)
    return model, pbmc[1::2].copy()


def _drawn(share: float, n: int = 765) -> NDArray[np.bool_]:
    return np.random.default_rng(0).random(n) >= share


def test_a_component_is_fitted_to_what_was_measured() -> None:
    rng = np.random.default_rng(0)
    projection = FixedProjection(20, 3)
    axes = np.linalg.qr(rng.normal(size=(20, 3)))[0] / 2
    for name, value in (("centre", rng.normal(size=20)), ("scale", rng.uniform(1, 2, 20))):
        getattr(projection, name).copy_(torch.as_tensor(value))
    projection.axes.copy_(torch.as_tensor(axes))
    x, has = torch.as_tensor(rng.normal(size=(5, 20)), dtype=torch.float32), _drawn(0.4, 20)
    found = projection(x[:, has], measured=torch.as_tensor(has))
    standardised = ((x - projection.centre) / projection.scale).numpy()[:, has]
    # Standardised values are components times loadings, which are four times the axes.
    for k in range(3):
        slope = np.linalg.lstsq(4 * axes[has, k : k + 1], standardised.T, rcond=None)[0]
        np.testing.assert_allclose(found[:, k], slope[0], rtol=1e-4)


def test_with_all_features_measured_the_projection_is_itself(
    halves: tuple[scDiffAug, AnnData],
) -> None:
    axes = halves[0].module.inputs.axes
    x = torch.randn(4, len(axes.centre))
    every = torch.ones(len(axes.centre), dtype=torch.bool)
    torch.testing.assert_close(axes(x, measured=every), axes(x))


@pytest.mark.parametrize("kind", ["counts", "peaks"])
def test_a_cell_of_usual_shares_looks_as_if_it_were_whole(kind: Any) -> None:
    whole = np.random.default_rng(0).poisson(0.7, size=(1, 50)).astype(np.float32)
    space, has = FeatureSpace(kind), _drawn(0.5, 50)
    share = space.mean_shares(sparse.csr_matrix(whole))[has].sum()
    found = space.as_of_whole_cells(
        torch.as_tensor(space.features(whole[:, has])), torch.as_tensor(share)
    )
    np.testing.assert_allclose(found, space.features(whole)[:, has], rtol=1e-5)


def test_types_are_told_without_half_of_the_genes(halves: tuple[scDiffAug, AnnData]) -> None:
    model, query = halves
    types, has = query.obs["cell_type"], _drawn(0.5)
    near = KNeighborsClassifier(15).fit(
        model.get_latent_representation(), model.adata.obs["cell_type"]
    )

    def accuracy(cells: AnnData) -> float:
        return float((near.predict(model.get_latent_representation(cells)) == types).mean())

    zeros = query.copy()
    zeros.X = sparse.csr_matrix(query.X.toarray() * has)
    assert accuracy(query[:, has].copy()) > accuracy(query) - 0.03
    assert accuracy(query[:, has].copy()) > accuracy(zeros) + 0.03


def test_what_is_missing_is_told_and_what_the_encoder_does_not_see_is_not(
    halves: tuple[scDiffAug, AnnData], caplog: pytest.LogCaptureFixture
) -> None:
    model, query = halves
    seen = model._contract.selected_names
    with caplog.at_level(logging.WARNING, "scdiffaug"):
        tl.embed(query[:, seen].copy(), model)
        assert not caplog.records
        tl.embed(query[:, seen[60:]].copy(), model)
    assert (
        f"lack 60 of the 600 features that the embedding is made of (10%), e.g. {seen[0]!r}"
        in (caplog.text)
    )


def test_names_of_other_capitals_are_hinted_at(
    halves: tuple[scDiffAug, AnnData], caplog: pytest.LogCaptureFixture
) -> None:
    model, query = halves
    names = np.where(_drawn(0.3), query.var_names, query.var_names.str.lower())
    query = query.copy()
    query.var_names = names
    with caplog.at_level(logging.WARNING, "scdiffaug"):
        model.get_latent_representation(query)
    assert "are there in other capitals: another species?" in caplog.text


def test_markers_of_a_panel_are_taken_from_the_nearest_cells() -> None:
    """Of two markers that say the same, one is as good as both."""
    rng = np.random.default_rng(0)
    side = np.repeat([-1.0, 1.0], 150)
    values = np.stack([side, side, rng.normal(size=300)], axis=1) + rng.normal(size=(300, 3)) / 10
    cells = AnnData(values.astype(np.float32))
    cells.var_names = ["one", "other", "noise"]
    model = scDiffAug(cells, diffusion="none")
    model.train(max_epochs=30, enable_progress_bar=False)
    y, few = (
        model.get_latent_representation(part) for part in (cells, cells[:, ["other", "noise"]])
    )
    assert (
        np.linalg.norm(few - y, axis=1).mean() < 0.2 * np.linalg.norm(y - y.mean(0), axis=1).mean()
    )


def test_of_less_than_a_tenth_nothing_is_embedded(halves: tuple[scDiffAug, AnnData]) -> None:
    model, query = halves
    with pytest.raises(
        ValueError, match=r"lacks \d+ of the model's 765 .*, and a tenth is needed"
    ):
        model.get_latent_representation(query[:, model._contract.selected_names[:59]].copy())


def test_new_cells_and_reports_need_all_features(bench: Bench) -> None:
    few = bench.adata[:, 1:].copy()
    with pytest.raises(ValueError, match="adata lacks 1 of the model's 40 features"):
        bench.model.augment(few)


def test_blocks_and_files_lack_them_alike(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cells = bench.raw(X=bench.adata.X, obs=bench.adata.obs, var=bench.adata.var)[:, 12:].copy()
    cells.write_h5ad(tmp_path / "few.h5ad")
    whole = bench.model.get_latent_representation(cells)
    backed = ad.read_h5ad(tmp_path / "few.h5ad", backed="r")
    np.testing.assert_array_equal(bench.model.get_latent_representation(backed), whole)
    caplog.clear()
    out = tmp_path / "embedded.h5ad"
    distributed.embed(bench.folder / "model", tmp_path / "few.h5ad", out, block_size=25)
    np.testing.assert_allclose(ad.read_h5ad(out).obsm["X_scdiffaug"], whole, atol=1e-5)
    assert caplog.text.count("lack 12 of the 40 features") == 1


def test_log_normalised_cells_lack_them_alike(halves: tuple[scDiffAug, AnnData]) -> None:
    model, query = halves
    few = query[:, _drawn(0.3)].copy()
    logs = few.copy()
    depths = np.asarray(few.X.sum(1))
    logs.X = sparse.csr_matrix(np.log1p(few.X.toarray() / depths * 1e4))
    np.testing.assert_allclose(
        model.get_latent_representation(logs), model.get_latent_representation(few), atol=1e-4
    )
