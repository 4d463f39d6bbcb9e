"""Scores of an embedding against the points that were embedded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn import manifold
from sklearn.metrics.pairwise import paired_euclidean_distances
from sklearn.utils import gen_batches

from scdiffaug._checks import check_whole
from scdiffaug.metrics._inputs import Embedding, Values, require_cells, require_same_cells

# More cells are subsampled: scikit-learn holds three n × n tables, 0.6 GB at this many cells.
_MOST_CELLS_RANKED = 5_000
_TRIPLETS_AT_ONCE = 10_000


def trustworthiness(
    points: Values, embedding: Embedding, *, n_neighbors: int = 10, seed: int = 0
) -> float:
    """Share of neighbours in the embedding that are near in the data (Venna & Kaski 2001).

    Neighbours that are not near count against it by their rank. Of more than 5,000 cells, 5,000
    are drawn by ``seed`` and neighbours are sought among these, as scikit-learn's memory grows
    with the square of the number of cells.

    Parameters
    ----------
    points
        Points that were embedded, shape ``(n, d)``.
    embedding
        Shape ``(n, k)``.
    n_neighbors
        Number of neighbours; less than half the number of cells.
    seed
        Seed of the draw.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import trustworthiness
    >>> line = np.arange(30.0)[:, None]
    >>> trustworthiness(line, -line)
    1.0
    """
    check_whole("n_neighbors", n_neighbors)
    require_same_cells(points, embedding)
    why = f"a rank of {n_neighbors} neighbours"
    require_cells(embedding, 2 * n_neighbors + 1, name="embedding", why=why)
    n_cells = embedding.shape[0]
    drawn = np.arange(n_cells)
    if n_cells > _MOST_CELLS_RANKED:
        drawn = np.random.default_rng(seed).choice(n_cells, _MOST_CELLS_RANKED, replace=False)
    return float(
        manifold.trustworthiness(points[drawn], embedding[drawn], n_neighbors=n_neighbors)
    )


def continuity(
    points: Values, embedding: Embedding, *, n_neighbors: int = 10, seed: int = 0
) -> float:
    """Share of neighbours in the data that are near in the embedding (Venna & Kaski 2001).

    This is :func:`trustworthiness` with the two exchanged, on the same cells.

    Parameters
    ----------
    points, embedding, n_neighbors, seed
        As in :func:`trustworthiness`.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import continuity
    >>> line = np.arange(30.0)[:, None]
    >>> continuity(line, -line)
    1.0
    """
    require_same_cells(points, embedding)
    return trustworthiness(embedding, points, n_neighbors=n_neighbors, seed=seed)


def random_triplet_accuracy(
    points: Values, embedding: Embedding, *, n_triplets: int = 100_000, seed: int = 0
) -> float:
    """Share of random triplets whose embedding keeps which of two cells is nearer to the third.

    This is the global score of Wang et al. 2021 (PaCMAP). It is about 0.5 for an embedding that
    has nothing to do with the data.

    Parameters
    ----------
    points
        Points that were embedded, shape ``(n, d)``.
    embedding
        Shape ``(n, k)``.
    n_triplets, seed
        Number of triplets to draw, each of three different cells, and seed of the draw.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import random_triplet_accuracy
    >>> line = np.arange(30.0)[:, None]
    >>> random_triplet_accuracy(line, -line)
    1.0
    """
    check_whole("n_triplets", n_triplets)
    require_same_cells(points, embedding)
    require_cells(embedding, 3, name="embedding", why="a triplet")
    triplets = _triplets(embedding.shape[0], n_triplets, seed)
    return float(
        (_first_is_nearer(points, triplets) == _first_is_nearer(embedding, triplets)).mean()
    )


def _triplets(n_cells: int, n_triplets: int, seed: int) -> NDArray[np.int64]:
    """Rows of three different cells, shape ``(n_triplets, 3)``."""
    rng = np.random.default_rng(seed)
    anchor = rng.integers(n_cells, size=n_triplets)
    one = rng.integers(1, n_cells, size=n_triplets)
    other = rng.integers(1, n_cells - 1, size=n_triplets)
    other += other >= one
    return np.stack([anchor, (anchor + one) % n_cells, (anchor + other) % n_cells], axis=1)


def _first_is_nearer(values: Values, triplets: NDArray[np.int64]) -> NDArray[np.bool_]:
    parts = []
    for batch in gen_batches(len(triplets), _TRIPLETS_AT_ONCE):
        anchor, one, other = (values[cells] for cells in triplets[batch].T)
        near, far = (paired_euclidean_distances(anchor, cell) for cell in (one, other))
        parts.append(near < far)
    return np.concatenate(parts)
