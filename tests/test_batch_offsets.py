"""What sets batches apart is taken off the encoder's inputs, and nothing else."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from scdiffaug.batch_offsets import BatchOffsets
from scdiffaug.neighborhood import compared_blocks

# Directions of 30 components of so many features are searched; a panel's features themselves.
N_COMPONENTS = 30
BLOCKS = compared_blocks(500, N_COMPONENTS)


def fitted(x: NDArray[np.float32], batch: NDArray[np.int64]) -> BatchOffsets:
    n_batches = batch.max() + 1
    offsets = BatchOffsets(len(x), n_batches, x.shape[1], blocks=BLOCKS)
    offsets.fit(x, batch, seed=0)
    return offsets


def groups(centres: NDArray[np.float64], which: NDArray[np.int64]) -> NDArray[np.float32]:
    noise = np.random.default_rng(1).normal(size=(len(which), N_COMPONENTS))
    return (centres[which] + noise).astype(np.float32)


@pytest.fixture
def centres() -> NDArray[np.float64]:
    return 4 * np.random.default_rng(0).normal(size=(4, N_COMPONENTS))


def other_batch_share(
    x: NDArray[np.float32], batch: NDArray[np.int64], rows: NDArray[np.bool_]
) -> float:
    """Share of the nearest ten, by direction, of some cells that are of another batch."""
    points = x / np.linalg.norm(x, axis=1, keepdims=True)
    near = NearestNeighbors(n_neighbors=10).fit(points).kneighbors(return_distance=False)
    return float((batch[near] != batch[:, None])[rows].mean())


def test_an_offset_of_each_group_is_taken_off(centres: NDArray[np.float64]) -> None:
    which, batch = np.repeat([0, 1, 2], 200), np.tile([0, 1], 300)
    x = groups(centres, which)
    rng = np.random.default_rng(2)
    shift = 3 * rng.normal(size=N_COMPONENTS) + rng.normal(size=(3, N_COMPONENTS))
    x = np.where(batch[:, None] == 1, x + shift[which], x).astype(np.float32)
    found = fitted(x, batch).corrected(x, batch)

    every = np.ones(len(x), dtype=bool)
    assert other_batch_share(x, batch, every) < 0.02
    assert other_batch_share(found, batch, every) > 0.4
    # Groups stay where they were, half-way between the two batches.
    np.testing.assert_allclose(found[which == 1].mean(0), x[which == 1].mean(0), atol=0.25)


def test_a_group_that_one_batch_alone_has_stays_apart(centres: NDArray[np.float64]) -> None:
    which = np.concatenate([np.repeat([0, 1], 200), np.full(60, 2)])
    batch = np.concatenate([np.tile([0, 1], 200), np.full(60, 1)])
    x = groups(centres, which)
    x[batch == 1] += 2
    found = fitted(x, batch).corrected(x, batch)

    assert other_batch_share(found, batch, which < 2) > 0.4
    assert other_batch_share(found, batch, which == 2) == 0


def test_a_batch_of_one_group_alone_stays_apart(centres: NDArray[np.float64]) -> None:
    which = np.concatenate([np.repeat([0, 1, 2], 200), np.full(80, 3)])
    batch = np.concatenate([np.tile([0, 1], 300), np.full(80, 2)])
    x = groups(centres, which)
    found = fitted(x, batch).corrected(x, batch)
    assert other_batch_share(found, batch, which == 3) < 0.02


def test_many_batches_of_uneven_groups_do_not_mix_groups(centres: NDArray[np.float64]) -> None:
    rng = np.random.default_rng(6)
    which = np.repeat([0, 1, 2, 3], 300)
    shares = [rng.dirichlet(np.full(40, 0.3)) for _ in range(4)]
    batch = np.concatenate([rng.choice(40, 300, p=share) for share in shares])
    x = groups(centres, which)
    found = fitted(x, batch).corrected(x, batch)
    assert other_batch_share(found, which, np.ones(len(x), dtype=bool)) < 0.02


def test_what_many_small_batches_have_in_common_is_taken_off(
    centres: NDArray[np.float64],
) -> None:
    rng = np.random.default_rng(8)
    which, donor = np.repeat([0, 1, 2, 3], 300), rng.integers(0, 12, 1200)
    treated = donor % 2
    x = groups(centres, which)
    x[treated == 1] += 2 * rng.normal(size=N_COMPONENTS)
    every = np.ones(len(x), dtype=bool)
    assert other_batch_share(x, treated, every) < 0.05
    assert other_batch_share(fitted(x, donor).corrected(x, donor), treated, every) > 0.4


def test_strong_effects_are_taken_off_of_panels_too() -> None:
    rng = np.random.default_rng(7)
    which, batch = np.repeat([0, 1, 2, 3], 200), np.tile([0, 1], 400)
    x = 2 * rng.normal(size=(4, 20))[which] + rng.normal(size=(800, 20)) + 16 * batch[:, None]
    x = x.astype(np.float32)
    offsets = BatchOffsets(800, 2, 20, blocks=())
    offsets.fit(x, batch, seed=0)
    found = offsets.corrected(x, batch)
    near = NearestNeighbors(n_neighbors=10).fit(found).kneighbors(return_distance=False)
    assert (batch[near] != batch[:, None]).mean() > 0.4
    assert (which[near] == which[:, None]).mean() > 0.95


def test_each_block_is_corrected_as_if_it_were_alone(centres: NDArray[np.float64]) -> None:
    rng, batch = np.random.default_rng(8), np.tile([0, 1], 200)
    logs = groups(centres, np.repeat([0, 1, 2, 3], 100))
    residuals = groups(centres, rng.integers(0, 4, 400))[:, :20]
    residuals[batch == 1] += 2 * rng.normal(size=20).astype(np.float32)
    both = np.hstack([logs, residuals])
    width = N_COMPONENTS
    blocks = BLOCKS[0], slice(width, None)
    offsets = BatchOffsets(400, 2, width + 20, blocks=blocks)
    offsets.fit(both, batch, seed=0)
    found = offsets.corrected(both, batch)
    np.testing.assert_allclose(
        found[:, :width], fitted(logs, batch).corrected(logs, batch), atol=1e-5
    )
    alone = BatchOffsets(400, 2, 20, blocks=(slice(0, None),))
    alone.fit(residuals, batch, seed=0)
    np.testing.assert_allclose(found[:, width:], alone.corrected(residuals, batch), atol=1e-5)
    assert (
        np.abs(found[:, width:] - residuals).mean() > 10 * np.abs(found[:, :width] - logs).mean()
    )


def test_batches_that_do_not_differ_are_hardly_moved(centres: NDArray[np.float64]) -> None:
    batch = np.random.default_rng(3).integers(0, 5, 1000)
    x = groups(centres, np.repeat([0, 1, 2, 3], 250))
    moved = fitted(x, batch).corrected(x, batch) - x
    assert np.abs(moved).mean() < 0.02


def test_of_one_cluster_the_offset_is_the_shrunken_difference_of_means() -> None:
    rng = np.random.default_rng(4)
    batch = np.repeat([0, 1], [6, 9])
    x = rng.normal(size=(15, N_COMPONENTS)).astype(np.float32) + 2
    x[batch == 1] += 1
    offsets = fitted(x, batch)
    assert offsets[0].offsets.shape == (2, 1, N_COMPONENTS)

    sizes = np.array([6, 9])
    means = np.stack([x[batch == code].mean(0) for code in (0, 1)])
    middle = means.mean(0)
    variance = ((x - means[batch]) ** 2).sum() / 15
    away = means - middle
    shrunken = np.maximum(0, 1 - 2 * variance / sizes / (away**2).sum(1))
    np.testing.assert_allclose(offsets[0].offsets[:, 0], shrunken[:, None] * away, atol=1e-5)
    np.testing.assert_allclose(
        offsets.corrected(x, batch), x - (shrunken[:, None] * away)[batch], atol=1e-5
    )


def test_a_batch_without_cells_and_an_unknown_one_have_no_offset() -> None:
    x = np.random.default_rng(5).normal(size=(90, N_COMPONENTS)).astype(np.float32)
    batch = np.tile([0, 2, 2], 30)
    x[batch == 2] += 1
    offsets = fitted(x, batch)
    assert not offsets[0].offsets[1].any()
    assert offsets[0].offsets[2].any()
    np.testing.assert_array_equal(offsets.corrected(x, np.full(90, -1)), x)


def query_of(
    centres: NDArray[np.float64], which: NDArray[np.int64], shift: NDArray[np.float64]
) -> tuple[BatchOffsets, NDArray[np.float32], NDArray[np.float32]]:
    """Offsets of a reference and of a query that lies apart from it, and the cells of both."""
    x = groups(centres, np.repeat([0, 1, 2, 3], 100))
    reference = BatchOffsets(400, 1, N_COMPONENTS, blocks=BLOCKS, n_query_batches=1)
    reference.fit(x, np.zeros(400, dtype=np.int64), seed=0)
    query = (groups(centres, which) + shift).astype(np.float32)
    reference.fit_query(query, 1, references=torch.from_numpy(x))
    return reference, x, query


def test_a_query_is_moved_to_the_reference_group_by_group(centres: NDArray[np.float64]) -> None:
    rng = np.random.default_rng(9)
    which = np.repeat([0, 1, 2], 50)
    shift = 4 * rng.normal(size=N_COMPONENTS) + rng.normal(size=(4, N_COMPONENTS))
    offsets, x, query = query_of(centres, which, shift[which])
    assert not offsets[0].offsets[0].any()
    found = offsets.corrected(query, np.ones(150, dtype=np.int64))
    for group in range(3):
        middle = x[100 * group : 100 * (group + 1)].mean(0)
        before = np.linalg.norm(query[which == group].mean(0) - middle)
        assert np.linalg.norm(found[which == group].mean(0) - middle) < 0.2 * before


def test_a_query_of_one_group_is_not_drawn_to_the_others(centres: NDArray[np.float64]) -> None:
    which = np.full(60, 3)
    offsets, _, query = query_of(centres, which, np.full(N_COMPONENTS, 0.5))
    found = offsets.corrected(query, np.ones(60, dtype=np.int64))
    nearest = np.linalg.norm(found[:, None] - centres, axis=2).argmin(1)
    assert (nearest == 3).all()


def test_a_query_that_does_not_differ_is_hardly_moved(centres: NDArray[np.float64]) -> None:
    offsets, _, query = query_of(centres, np.repeat([0, 1, 2, 3], 40), np.zeros(N_COMPONENTS))
    moved = offsets.corrected(query, np.ones(160, dtype=np.int64)) - query
    assert np.abs(moved).mean() < 0.05


def test_components_that_are_not_known_stay_at_zero(centres: NDArray[np.float64]) -> None:
    which, batch = np.repeat([0, 1], 100), np.tile([0, 1], 100)
    x = groups(centres, which)
    x[batch == 1] += 2
    # Of a panel, each component is a marker, which other cells may lack.
    offsets = BatchOffsets(200, 2, N_COMPONENTS, blocks=())
    offsets.fit(x, batch, seed=0)
    known = torch.arange(N_COMPONENTS) < 20
    part = torch.from_numpy(x) * known
    found = offsets(part, torch.from_numpy(batch), known=known)
    assert not found[:, 20:].any()
    gap = np.abs(found.numpy()[batch == 1].mean(0) - found.numpy()[batch == 0].mean(0))[:20]
    assert float(gap.max()) < 0.5
