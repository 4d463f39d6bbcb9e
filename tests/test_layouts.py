"""Communities begin where the projection's own loss wants them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from anndata import AnnData
from numpy.typing import NDArray
from scipy.stats import t as student

import scdiffaug
from scdiffaug import scDiffAug
from scdiffaug.layouts import community_layout
from scdiffaug.neighbors import NeighborWalks
from scdiffaug.preparing import training_cells

BATCH = 64


def chain(n: int, *, crossing: float = 1e-3) -> NDArray[np.float64]:
    """Walks from each of n communities to the next one and back."""
    return crossing * (np.eye(n, k=1) + np.eye(n, k=-1)) + np.eye(n) / n


def laid_out(
    crossings: NDArray[np.float64],
    *,
    sizes: list[int],
    repulsion: float = 1.0,
    seed: int = 0,
    n: int = 2,
) -> NDArray[np.float32]:
    weights = np.full(crossings.shape, repulsion, dtype=np.float32)
    return community_layout(
        crossings, weights, np.array(sizes), batch_size=BATCH, n_dimensions=n, seed=seed
    )


def expected_loss(places: NDArray[np.float32], crossings: NDArray[np.float64]) -> float:
    """The documented sum, for communities of the same size that repel alike."""
    total, share = 0.0, 1 / len(places)
    for a, b in itertools.permutations(range(len(places)), 2):
        distance = np.linalg.norm(places[a].astype(float) - places[b])
        q = 2 * math.pi * student.pdf(distance, df=0.01) ** 2
        total -= crossings[a, b] * math.log(q) + (BATCH - 1) * share**2 * math.log1p(-q)
    return total


def test_a_chain_is_laid_out_as_one() -> None:
    places = laid_out(chain(6), sizes=[50] * 6)
    distances = np.linalg.norm(places[:, None] - places, axis=2)
    for one in range(6):
        beside = {other for other in (one - 1, one + 1) if 0 <= other < 6}
        assert set(np.argsort(distances[one])[1 : 1 + len(beside)]) == beside


def test_no_small_move_or_other_scale_has_a_smaller_loss() -> None:
    crossings = chain(6)
    places = laid_out(crossings, sizes=[50] * 6)
    least = expected_loss(places, crossings)
    rng = np.random.default_rng(0)
    for size in (0.03, 0.3):
        moved = (places + rng.normal(0, size, places.shape) for _ in range(20))
        assert min(expected_loss(other, crossings) for other in moved) > least
    assert min(expected_loss(places * scale, crossings) for scale in (0.7, 1.4)) > least


def test_communities_that_repel_more_lie_farther_apart() -> None:
    spans = []
    for repulsion in (1.0, 4.0):
        places = laid_out(chain(3), sizes=[50] * 3, repulsion=repulsion)
        spans.append(np.linalg.norm(places[0] - places[2]))
    assert spans[1] > 1.5 * spans[0]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_layout_has_the_asked_dimensions_and_its_cells_their_centre_at_0(n: int) -> None:
    places = laid_out(chain(4), sizes=[10, 20, 30, 40], n=n)
    assert places.shape == (4, n)
    assert places.dtype == np.float32
    np.testing.assert_allclose([10, 20, 30, 40] @ places, 0, atol=1e-3)


def test_layout_hangs_on_its_seed_alone() -> None:
    first = laid_out(chain(5), sizes=[9] * 5, seed=1)
    torch.rand(1)
    np.testing.assert_array_equal(first, laid_out(chain(5), sizes=[9] * 5, seed=1))
    assert not np.allclose(first, laid_out(chain(5), sizes=[9] * 5, seed=2))


def test_one_community_lies_in_the_middle() -> None:
    np.testing.assert_allclose(laid_out(np.ones((1, 1)), sizes=[30]), [[0, 0]], atol=1e-6)


def test_very_many_communities_begin_together() -> None:
    assert laid_out(chain(150), sizes=[3] * 150).std() > 0.1
    np.testing.assert_array_equal(laid_out(chain(401), sizes=[3] * 401), np.zeros((401, 2)))


def test_crossings_are_shares_of_the_walks() -> None:
    # A ring of eight cells, of which each has the next one as its neighbour.
    walks = NeighborWalks((np.arange(8)[:, None] + 1) % 8, max_steps=1)
    crossings = walks.crossings(np.repeat([0, 1], 4), seed=0)
    np.testing.assert_allclose(crossings, [[3 / 8, 1 / 8], [1 / 8, 3 / 8]])


def test_longer_walks_cross_more_often() -> None:
    neighbors, communities = (np.arange(8)[:, None] + 1) % 8, np.repeat([0, 1], 4)
    crossings = NeighborWalks(neighbors, max_steps=4).crossings(communities, seed=0)
    # After one to four steps one to four of four cells have crossed.
    expected = np.mean([1, 2, 3, 4]) / 8
    np.testing.assert_allclose(crossings[0, 1], expected, rtol=0.02)
    assert crossings.sum() == pytest.approx(1)


@pytest.mark.parametrize("n_projection", [2, 3])
def test_cells_begin_at_the_places_of_their_communities(pbmc: AnnData, n_projection: int) -> None:
    model = scDiffAug(pbmc, diffusion="none", n_projection=n_projection)
    batches, _ = training_cells(
        model._contract, pbmc, n_components=50, batch_size=100, n_projection=n_projection
    )
    communities = batches.repulsion.communities
    assert batches.places.shape == (700, n_projection)
    for community in np.unique(communities):
        assert len(np.unique(batches.places[communities == community], axis=0)) == 1
    model.train(max_epochs=30, batch_size=100, enable_progress_bar=False)
    drawn = model.history["layout"]["layout"]
    assert drawn.iloc[4] < 0.5 * drawn.iloc[0]
    # After a fifth of the steps it is over.
    assert drawn.notna().tolist() == [True] * 6 + [False] * 24
    found = pbmc.copy()
    scdiffaug.tl.embed(found, model)
    assert found.obsm[f"X_scdiffaug_{n_projection}d"].shape == (700, n_projection)
