"""The neighbour graph: random walks that draw positives, and the communities of cells."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import igraph
import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import gen_batches

# Up to so many cells, brute force on two cores takes no longer than compiling pynndescent.
_EXACT_UP_TO = 120_000
_CELLS_AT_ONCE = 65_536
# Walks that are drawn to count crossings between communities.
_WALKS_COUNTED = 200_000


def knn_indices(
    points: NDArray[np.floating[Any]], n_neighbors: int, *, seed: int = 0
) -> NDArray[np.int64]:
    """Indices of the nearest other points, closest first.

    Exact up to 120,000 points, approximate (pynndescent) above.

    Parameters
    ----------
    points
        Coordinates, shape ``(n, k)``.
    n_neighbors
        Neighbours per point, the point itself not counted.
    seed
        Seed of the approximate search.

    Returns
    -------
    Shape ``(n, n_neighbors)``.

    Raises
    ------
    ValueError
        If there are not more points than neighbours.
    """
    check_enough(len(points), n_neighbors)
    if len(points) <= _EXACT_UP_TO:
        return _drop_self(nearest(points, points, n_neighbors + 1)[1])
    return _drop_self(_approximate(points, n_neighbors + 1, seed))


def check_enough(n_cells: int, n_neighbors: int) -> None:
    """Raise ValueError if there are not more cells than neighbours."""
    if n_cells <= n_neighbors:
        raise ValueError(
            f"n_neighbors={n_neighbors} needs more than {n_neighbors} cells, found {n_cells}: add "
            "cells, or build scDiffAug(adata, n_neighbors=...) with fewer."
        )


def nearest(
    reference: NDArray[np.floating[Any]], points: NDArray[np.floating[Any]], n_neighbors: int
) -> tuple[NDArray[np.floating[Any]], NDArray[np.int64]]:
    """Distances and indices of the nearest reference points, closest first.

    Exact: time grows as n × m × k.

    Parameters
    ----------
    reference, points
        Coordinates, shapes ``(n, k)`` and ``(m, k)``.
    n_neighbors
        Reference points wanted per point, at most n.

    Returns
    -------
    Two arrays of shape ``(m, n_neighbors)``.
    """
    search = NearestNeighbors(n_neighbors=n_neighbors, algorithm="brute").fit(reference)
    return search.kneighbors(points)


def knn_from_graph(graph: sparse.spmatrix, n_neighbors: int) -> NDArray[np.int64]:
    """Nearest neighbours from a precomputed distance graph such as ``.obsp["distances"]``.

    Parameters
    ----------
    graph
        Sparse distances, shape ``(n, n)``; what is not stored is not a neighbour.
    n_neighbors
        Neighbours wanted per cell; a cell with fewer repeats those it has.

    Raises
    ------
    ValueError
        If a cell has no stored neighbour.
    """
    # A stored distance of 0 is a neighbour too: an exact copy of the cell.
    entries = sparse.coo_matrix(graph)
    others = entries.row != entries.col
    rows, columns, distances = (part[others] for part in (entries.row, entries.col, entries.data))
    degrees = np.bincount(rows, minlength=graph.shape[0])
    if (degrees == 0).any():
        raise ValueError(
            f"The neighbour graph has {int((degrees == 0).sum())} cells without neighbours: "
            "recompute it with sc.pp.neighbors."
        )
    by_distance = columns[np.lexsort((distances, rows))]
    first = np.cumsum(degrees) - degrees
    rank = np.arange(n_neighbors)[None] % degrees[:, None]
    return by_distance[first[:, None] + rank].astype(np.int64)


def jaccard_weights(neighbors: NDArray[np.int64]) -> NDArray[np.float64]:
    r"""Jaccard similarity of each cell's neighbourhood to each neighbour's.

    :math:`|N_i \cap N_j| / |N_i \cup N_j|`, each cell belonging to its own neighbourhood
    (PhenoGraph, Levine et al. 2015). Edges between groups share few neighbours.

    Parameters
    ----------
    neighbors
        Neighbour indices, shape ``(n, k)``.

    Returns
    -------
    Shape ``(n, k)``, above 0.
    """
    n_cells, k = neighbors.shape
    rows = np.repeat(np.arange(n_cells), k)
    near = sparse.coo_matrix((np.ones(rows.size), (rows, neighbors.ravel())), (n_cells, n_cells))
    # A cell that repeats a neighbour has it once in its neighbourhood.
    near = (near.tocsr() + sparse.eye(n_cells, format="csr")).sign()
    shared = _shared(near, neighbors)
    sizes = np.asarray(near.sum(1)).ravel()
    return shared / (sizes[:, None] + sizes[neighbors] - shared)


def _shared(near: sparse.csr_matrix, neighbors: NDArray[np.int64]) -> NDArray[np.float64]:
    """How many cells each neighbourhood has in common with each neighbour's, shape ``(n, k)``."""
    others, shared = near.T.tocsr(), np.empty(neighbors.shape)
    # The product of all would hold k² entries per cell.
    for block in gen_batches(len(neighbors), _CELLS_AT_ONCE):
        wanted = neighbors[block]
        rows = np.repeat(np.arange(len(wanted)), wanted.shape[1])
        product = near[block] @ others
        shared[block] = np.asarray(product[rows, wanted.ravel()]).reshape(wanted.shape)
    return shared


class NeighborWalks:
    """Random walks of one to a few steps on the neighbour graph.

    Steps are drawn by Jaccard similarity, so that walks spread within a group of cells and seldom
    leave it.

    Parameters
    ----------
    neighbors
        Neighbour indices, shape ``(n, k)``.
    max_steps
        Longest walk; lengths are drawn evenly.
    """

    def __init__(self, neighbors: NDArray[np.int64], *, max_steps: int = 4) -> None:
        self.neighbors, self.max_steps = neighbors, max_steps
        self._weights = jaccard_weights(neighbors)
        shares = self._weights / self._weights.sum(1, keepdims=True)
        self._bounds = np.cumsum(shares, axis=1)

    def draw(
        self, cells: NDArray[np.integer[Any]], rng: np.random.Generator
    ) -> NDArray[np.integer[Any]]:
        """Where a walk from each of the cells ends, shape ``(b,)``."""
        n_steps = rng.integers(1, self.max_steps + 1, size=len(cells))
        for step in range(self.max_steps):
            cells = np.where(step < n_steps, self._step(cells, rng), cells)
        return cells

    def communities(self, *, seed: int) -> NDArray[np.int64]:
        """Communities of cells by modularity on the Jaccard-weighted graph, shape ``(n,)``.

        The Leiden algorithm (Traag et al. 2019) at resolution 1 with two iterations, as scanpy
        advises; the graph of PhenoGraph (Levine et al. 2015).
        """
        pairs, weights = self._edges()
        graph = igraph.Graph(len(self.neighbors), pairs)
        with _igraph_seeded(seed):
            found = graph.community_leiden("modularity", weights=weights, n_iterations=2)
        return np.asarray(found.membership)

    def crossings(self, communities: NDArray[np.int64], *, seed: int) -> NDArray[np.float64]:
        """Share of the walks that go from one community to another, shape ``(k, k)``.

        Both directions are averaged; all shares sum to 1.
        """
        k, rng = communities.max() + 1, np.random.default_rng(seed)
        cells = np.tile(np.arange(len(communities)), -(-_WALKS_COUNTED // len(communities)))
        pairs = communities[cells] * k + communities[self.draw(cells, rng)]
        counts = np.bincount(pairs, minlength=k * k).reshape(k, k)
        return (counts + counts.T) / (2 * len(cells))

    def _edges(self) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """Pairs of neighbours, shape ``(m, 2)``, the lower cell first, and their weights."""
        n_cells, k = self.neighbors.shape
        # A million cells have fifteen million neighbours: no more is held than is needed.
        starts, others = np.arange(0, n_cells * k + 1, k), self.neighbors.ravel().astype(np.int32)
        # A copy of the weights: what follows sorts them in place.
        weights = sparse.csr_matrix((self._weights.flatten(), others, starts), (n_cells, n_cells))
        weights.sum_duplicates()
        # Mutual neighbours are one edge, no heavier than if only one had the other.
        edges = sparse.triu(weights.maximum(weights.T), format="coo")
        return np.column_stack([edges.row, edges.col]), edges.data

    def _step(
        self, cells: NDArray[np.integer[Any]], rng: np.random.Generator
    ) -> NDArray[np.integer[Any]]:
        passed = self._bounds[cells, :-1] < rng.random((len(cells), 1))
        return self.neighbors[cells, passed.sum(1)]


# All threads share igraph's generator.
_LOCK = threading.Lock()


@contextmanager
def _igraph_seeded(seed: int) -> Iterator[None]:
    """Give igraph its own random numbers, and afterwards Python's global ones again."""
    with _LOCK:
        igraph.set_random_number_generator(random.Random(seed))
        try:
            yield
        finally:
            igraph.set_random_number_generator(random)


def _approximate(points: NDArray[Any], k: int, seed: int) -> NDArray[np.int64]:
    from pynndescent import NNDescent

    index = NNDescent(points.astype(np.float32), n_neighbors=k, random_state=seed)
    return index.neighbor_graph[0].astype(np.int64)


def _drop_self(indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Remove each point from its own list, or its last neighbour if duplicates hid it."""
    own = indices == np.arange(len(indices))[:, None]
    own[~own.any(1), -1] = True
    return indices[~own].reshape(len(indices), -1)
