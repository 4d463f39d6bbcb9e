"""Components of Pearson residuals, by which cells are compared beside logarithms."""

from typing import get_args

import numpy as np
import pytest
import scanpy as sc
import torch
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse
from sklearn.decomposition import PCA

from scdiffaug import scDiffAug
from scdiffaug.features import FeatureSpace, Kind
from scdiffaug.neighborhood import compared_blocks, search_space
from scdiffaug.neighbors import knn_indices
from scdiffaug.preparing import training_cells
from scdiffaug.residuals import ResidualProjection, n_residual, pearson_residuals


def types_of_cells(
    n_cells: int = 400, n_genes: int = 800
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Counts of three types whose cells differ in depth by more than in anything else."""
    rng = np.random.default_rng(0)
    base = rng.gamma(0.6, 1, n_genes) + 0.01
    shares = np.stack([base * np.where(rng.random(n_genes) < 0.03, 3, 1) for _ in range(3)])
    which, depth = rng.integers(0, 3, n_cells), np.exp(rng.normal(6.5, 0.8, n_cells))
    means = shares[which] / shares[which].sum(1, keepdims=True) * depth[:, None]
    return rng.poisson(means).astype(np.float32), which


def seen(counts: NDArray[np.float32]) -> sparse.csr_matrix:
    features = FeatureSpace("counts").transform(sparse.csr_matrix(counts))
    return sparse.hstack([features, counts.sum(1, keepdims=True)], format="csr")


@pytest.fixture
def fitted() -> tuple[ResidualProjection, NDArray[np.float32]]:
    counts, _ = types_of_cells()
    projection = ResidualProjection(counts.shape[1], 5)
    projection.fit(seen(counts), seed=0)
    return projection, counts


def test_residuals_are_those_of_scanpy(
    fitted: tuple[ResidualProjection, NDArray[np.float32]],
) -> None:
    projection, counts = fitted
    cells = torch.from_numpy(seen(counts).toarray())
    found = pearson_residuals(cells[:, :-1], cells[:, -1], projection.profile)
    expected = AnnData(counts)
    sc.experimental.pp.normalize_pearson_residuals(expected, theta=100, clip=10)
    np.testing.assert_allclose(found.numpy(), expected.X, atol=2e-3)


def test_components_are_their_principal_components(
    fitted: tuple[ResidualProjection, NDArray[np.float32]],
) -> None:
    projection, counts = fitted
    residuals = AnnData(counts)
    sc.experimental.pp.normalize_pearson_residuals(residuals, theta=100, clip=10)
    expected = PCA(5, random_state=0).fit_transform(residuals.X)
    found = projection.transform(seen(counts).toarray())
    np.testing.assert_allclose(found / found.std(), expected / expected.std(), atol=0.01)
    assert found.std() == pytest.approx(1, rel=0.01)
    assert not list(projection.parameters())


def test_a_gene_that_no_training_cell_has_is_nothing_special(
    fitted: tuple[ResidualProjection, NDArray[np.float32]],
) -> None:
    counts = fitted[1]
    counts[:, 0] = 0
    projection = ResidualProjection(counts.shape[1], 5)
    projection.fit(seen(counts), seed=0)
    before = projection.transform(seen(counts).toarray())
    counts[:, 0] = 1
    after = projection.transform(seen(counts).toarray())
    assert np.isfinite(after).all()
    np.testing.assert_allclose(after, before, atol=0.2)


def test_a_cell_without_reads_stays_in_bounds(
    fitted: tuple[ResidualProjection, NDArray[np.float32]],
) -> None:
    projection, counts = fitted
    none = projection.transform(np.zeros((3, counts.shape[1] + 1), dtype=np.float32))
    assert np.isfinite(none).all()


def test_neighbours_by_both_are_of_the_same_type_though_depths_differ() -> None:
    """By logarithms alone, the nearest of a deep cell are deep cells of any type."""
    counts, which = types_of_cells()
    model = scDiffAug(AnnData(sparse.csr_matrix(counts)), diffusion="none")
    pairs, axes = training_cells(model._contract, model.adata, n_components=50, batch_size=400)
    inputs = torch.from_numpy(pairs.inputs)

    def same(blocks: tuple[slice, ...]) -> float:
        near = knn_indices(search_space(inputs, blocks).numpy(), 15, seed=0)
        return float((which[near] == which[:, None]).mean())

    assert inputs.shape == (400, 70)
    assert same(axes.blocks) > same(axes.blocks[:1]) + 0.1
    assert same(axes.blocks) > 0.8


def test_the_module_sees_what_training_saw() -> None:
    counts, _ = types_of_cells()
    model = scDiffAug(AnnData(sparse.csr_matrix(counts)), diffusion="none")
    pairs, axes = training_cells(model._contract, model.adata, n_components=50, batch_size=400)
    inputs = model.module.inputs
    inputs.fit_axes(axes)
    whole = inputs.seen(torch.from_numpy(counts))
    np.testing.assert_allclose(
        whole, model._contract.seen(sparse.csr_matrix(counts)).toarray(), rtol=1e-5
    )
    found = inputs(whole, torch.zeros(len(counts), dtype=torch.long))
    np.testing.assert_allclose(found, pairs.inputs, atol=1e-3)


def test_only_counts_of_genes_have_them() -> None:
    assert n_residual(2000, 50, sees_depth=True) == 20
    assert n_residual(2000, 8, sees_depth=True) == 8
    assert n_residual(50, 50, sees_depth=True) == 0
    assert n_residual(2000, 50, sees_depth=False) == 0
    assert [kind for kind in get_args(Kind) if FeatureSpace(kind).sees_depth] == ["counts"]


def test_blocks_count_alike() -> None:
    points = torch.randn(6, 70)
    searched = search_space(points, compared_blocks(2000, 50))
    assert searched.shape == (6, 50)
    scaled = points * torch.cat([torch.full((50,), 7.0), torch.full((20,), 0.1)])
    torch.testing.assert_close(search_space(scaled, compared_blocks(2000, 50)), searched)
    torch.testing.assert_close(searched.square().sum(1), torch.full((6,), 2.0))
