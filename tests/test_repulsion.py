"""Groups of many cells leave room in the plane to others; related ones repel each other less."""

from __future__ import annotations

import numpy as np
import pytest
from anndata import AnnData
from numpy.typing import NDArray

from scdiffaug import scDiffAug
from scdiffaug.module import Diffusion
from scdiffaug.repulsion import Repulsion

SIZES = (400, 50, 50)


@pytest.mark.parametrize(("balance", "ratio"), [(0.0, 1.0), (0.5, 2.0), (1.0, 4.0)])
def test_repulsion_falls_with_the_size_of_the_community(balance: float, ratio: float) -> None:
    communities = np.repeat([0, 1], [8, 2])
    repulsion = Repulsion.fit(np.ones((10, 3)), communities, balance=balance, relatedness=0)
    among = repulsion.among(np.arange(10))
    assert among.shape == (10, 10)
    assert among.mean() == pytest.approx(1)
    assert among[9, 9] / among[0, 9] == among[0, 9] / among[0, 0] == pytest.approx(ratio)


@pytest.mark.parametrize("relatedness", [0.0, 0.3, 1.0])
def test_repulsion_falls_with_the_cosine_of_the_mean_inputs(relatedness: float) -> None:
    inputs = np.array([[3, 1], [3, -1], [-1, 0], [0, 2], [2, 2]], dtype=np.float32)
    communities = np.array([0, 0, 1, 2, 3])
    repulsion = Repulsion.fit(inputs, communities, balance=0, relatedness=relatedness)
    cosine_with_the_first = np.array([1, 1, -1, 0, np.sqrt(0.5)])
    expected = 1 - relatedness * cosine_with_the_first
    np.testing.assert_allclose(repulsion.among(np.arange(5))[0], expected, atol=1e-6)
    np.testing.assert_allclose(repulsion.among(np.array([4, 1]))[0, 1], expected[4], atol=1e-6)


def test_without_balance_and_relatedness_all_cells_repel_alike() -> None:
    inputs = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    paper = Repulsion.fit(inputs, np.arange(20) % 3, balance=0, relatedness=0)
    np.testing.assert_array_equal(paper.among(np.arange(20)), np.ones((20, 20)))


def unequal_groups() -> AnnData:
    """Poisson counts of three groups, each with genes of its own."""
    rng = np.random.default_rng(0)
    profiles = np.where(np.arange(60) // 20 == np.arange(3)[:, None], 6.0, 1.0)
    counts = rng.poisson(np.repeat(profiles, SIZES, axis=0)).astype(np.float32)
    return AnnData(counts)


def plane(
    diffusion: Diffusion, *, max_epochs: int, seed: int = 0, **options: float
) -> NDArray[np.float32]:
    model = scDiffAug(unequal_groups(), diffusion=diffusion, seed=seed)
    model.train(max_epochs=max_epochs, enable_progress_bar=False, **options)
    return model.get_latent_representation(representation="projection")


def share_of_room(balance: float) -> float:
    """Variance of z within the largest group, as a share of all variance; mean of four seeds."""
    planes = [
        plane("none", max_epochs=60, seed=seed, balance=balance, relatedness=0)
        for seed in range(4)
    ]
    return float(np.mean([z[: SIZES[0]].var(0).sum() / z.var(0).sum() for z in planes]))


def test_the_largest_group_takes_less_room_where_communities_are_balanced() -> None:
    assert share_of_room(1.0) < 0.7 * share_of_room(0.0)


@pytest.mark.parametrize("diffusion", ["none", "counts"])
def test_alike_communities_repel_each_other_less_by_default(diffusion: Diffusion) -> None:
    usual = plane(diffusion, max_epochs=2)
    np.testing.assert_array_equal(usual, plane(diffusion, max_epochs=2, relatedness=0.3))
    assert not np.array_equal(usual, plane(diffusion, max_epochs=2, relatedness=0.6))
