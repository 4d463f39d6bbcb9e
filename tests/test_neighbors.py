import random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from scdiffaug import neighbors

Points = NDArray[np.floating[Any]]


def brute_force(points: Points, n_neighbors: int) -> NDArray[np.int64]:
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    return distance.argsort(axis=1)[:, :n_neighbors]


def has_itself(indices: NDArray[np.int64]) -> bool:
    return bool((indices == np.arange(len(indices))[:, None]).any())


@pytest.mark.parametrize("n_neighbors", [1, 5, 39])
def test_exact_neighbours_are_the_nearest_closest_first(
    rng: np.random.Generator, n_neighbors: int
) -> None:
    points = rng.normal(size=(40, 7))
    found = neighbors.knn_indices(points, n_neighbors)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, brute_force(points, n_neighbors))


@pytest.mark.parametrize("copies", [2, 4, 20])
def test_a_duplicated_point_has_its_copies_as_neighbours_and_never_itself(
    rng: np.random.Generator, copies: int
) -> None:
    points = np.repeat(rng.normal(size=(6, 4)), copies, axis=0)
    found = neighbors.knn_indices(points, 3)
    assert found.shape == (len(points), 3)
    assert not has_itself(found)
    assert all(len(set(row)) == 3 for row in found.tolist())
    group = np.arange(len(points)) // copies
    n_twins = min(3, copies - 1)
    assert (group[found[:, :n_twins]] == group[:, None]).all()


def test_points_that_all_coincide_have_neighbours() -> None:
    found = neighbors.knn_indices(np.ones((30, 4)), 5)
    assert found.shape == (30, 5)
    assert not has_itself(found)


@pytest.mark.parametrize("n_cells", [1, 4, 5])
def test_too_few_cells_are_an_error_that_says_so(n_cells: int) -> None:
    with pytest.raises(ValueError, match=f"needs more than 5 cells, found {n_cells}: add cells"):
        neighbors.knn_indices(np.zeros((n_cells, 2)), 5)


def test_approximate_neighbours_are_almost_the_exact_ones(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = rng.normal(size=(600, 10))
    points[300:340] = points[:40]
    exact = neighbors.knn_indices(points, 15)
    monkeypatch.setattr(neighbors, "_EXACT_UP_TO", 0)
    found = neighbors.knn_indices(points, 15)
    assert found.dtype == np.int64
    assert found.shape == (600, 15)
    # pynndescent has -1 where it finds fewer.
    assert ((found >= 0) & (found < 600)).all()
    assert not has_itself(found)
    recall = np.mean([np.isin(a, b).mean() for a, b in zip(found, exact, strict=True)])
    assert recall >= 0.95
    np.testing.assert_array_equal(found, neighbors.knn_indices(points, 15))


def symmetric_graph() -> sparse.csr_matrix:
    distance = np.array(
        [
            [0.0, 3.0, 1.0, 2.0],
            [3.0, 0.0, 0.0, 0.0],
            [1.0, 0.0, 0.0, 4.0],
            [2.0, 0.0, 4.0, 0.0],
        ]
    )
    return sparse.csr_matrix(distance)


def test_graph_neighbours_are_ordered_by_distance() -> None:
    found = neighbors.knn_from_graph(symmetric_graph(), 2)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, [[2, 3], [0, 0], [0, 3], [0, 2]])


def test_a_cell_with_fewer_graph_neighbours_repeats_them_in_order() -> None:
    found = neighbors.knn_from_graph(symmetric_graph(), 5)
    np.testing.assert_array_equal(found[0], [2, 3, 1, 2, 3])
    np.testing.assert_array_equal(found[1], [0, 0, 0, 0, 0])
    np.testing.assert_array_equal(found[2], [0, 3, 0, 3, 0])


def test_graph_of_the_nearest_gives_the_nearest_back(rng: np.random.Generator) -> None:
    points = rng.normal(size=(30, 3))
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    found = neighbors.knn_from_graph(sparse.coo_matrix(distance), 6)
    np.testing.assert_array_equal(found, brute_force(points, 6))


def test_a_stored_distance_to_itself_is_no_neighbour() -> None:
    graph = symmetric_graph().tolil()
    graph.setdiag(1e-3)
    with_itself = graph.tocsr()
    found = neighbors.knn_from_graph(with_itself, 2)
    np.testing.assert_array_equal(found, neighbors.knn_from_graph(symmetric_graph(), 2))
    assert (with_itself.diagonal() == 1e-3).all(), "the caller's graph was changed"


def test_a_duplicate_at_a_stored_distance_of_zero_is_a_neighbour() -> None:
    distances = [0.0, 2.0, 0.0, 3.0, 2.0, 3.0]
    cells = ([0, 0, 1, 1, 2, 2], [1, 2, 0, 2, 0, 1])
    graph = sparse.csr_matrix((distances, cells), shape=(3, 3))
    np.testing.assert_array_equal(neighbors.knn_from_graph(graph, 2), [[1, 2], [0, 2], [0, 1]])


def test_cells_without_graph_neighbours_are_counted_in_the_error() -> None:
    graph = sparse.csr_matrix(([1.0, 1.0], ([0, 1], [1, 0])), shape=(4, 4))
    with pytest.raises(ValueError, match=r"2 cells without neighbours: recompute it with sc\.pp"):
        neighbors.knn_from_graph(graph, 3)


def test_jaccard_weights_equal_those_of_sets(rng: np.random.Generator) -> None:
    found = neighbors.knn_indices(rng.normal(size=(30, 3)), 6)
    found[0, -1] = found[0, 0]  # as of a cell with fewer neighbours in a graph of scanpy's
    sets = [{i, *row} for i, row in enumerate(found.tolist())]
    expected = [
        [len(sets[i] & sets[j]) / len(sets[i] | sets[j]) for j in row]
        for i, row in enumerate(found.tolist())
    ]
    np.testing.assert_allclose(neighbors.jaccard_weights(found), expected)


def test_walks_of_one_step_follow_the_weights(rng: np.random.Generator) -> None:
    found = neighbors.knn_indices(rng.normal(size=(40, 2)), 5)
    walks = neighbors.NeighborWalks(found, max_steps=1)
    ends = walks.draw(np.zeros(20_000, dtype=int), rng)
    weights = neighbors.jaccard_weights(found)[0]
    shares = [(ends == other).mean() for other in found[0]]
    np.testing.assert_allclose(shares, weights / weights.sum(), atol=0.015)


def test_walks_go_no_farther_than_their_steps() -> None:
    ring = np.stack([(np.arange(50) + 1) % 50], axis=1)
    walks = neighbors.NeighborWalks(ring, max_steps=3)
    ends = walks.draw(np.full(3000, 10), np.random.default_rng(0))
    reached, counts = np.unique(ends, return_counts=True)
    assert reached.tolist() == [11, 12, 13]
    assert counts.min() > 900


def two_groups(rng: np.random.Generator) -> neighbors.NeighborWalks:
    """40 and 20 points far from each other."""
    points = rng.normal(size=(60, 2)) + np.repeat([[0.0], [50.0]], [40, 20], axis=0)
    return neighbors.NeighborWalks(neighbors.knn_indices(points, 10))


def test_communities_are_groups_without_edges_between_them(rng: np.random.Generator) -> None:
    found = two_groups(rng).communities(seed=0)
    assert found.shape == (60,)
    assert not set(found[:40]) & set(found[40:])


def test_communities_hang_on_their_seed_alone_and_leave_other_streams_as_they_are(
    rng: np.random.Generator,
) -> None:
    points = rng.normal(size=(300, 2))
    walks = neighbors.NeighborWalks(neighbors.knn_indices(points, 10))
    random.seed(5)
    expected = random.random()
    random.seed(5)
    first = walks.communities(seed=1)
    assert random.random() == expected
    np.testing.assert_array_equal(first, walks.communities(seed=1))
    assert any((first != walks.communities(seed=seed)).any() for seed in range(2, 6))
