"""Peers that make cells from cells: pure functions of matrices, without a network."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from scdiffaug.features import FeatureSpace
from scdiffaug.matrices import depths
from scdiffaug.metrics._inputs import Values
from scdiffaug.metrics._spaces import dense

Rows = NDArray[np.int64]


def as_compared(values: Values, space: FeatureSpace) -> Values:
    """Log-normalised counts, arcsinh of raw intensities, other values as they are.

    Augmented cells may be empty, and stay so.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Some cells have zero counts")
        return space.transform(values)


def duplicate(sources: Values) -> Values:
    """A copy of the cells themselves."""
    return sources.copy()


def gaussian(sources: Values, spread: NDArray[Any], *, rng: np.random.Generator) -> Values:
    """Cells plus noise of 0.2 standard deviations of the feature, ``spread`` of shape ``(d,)``."""
    return (dense(sources) + rng.normal(size=sources.shape) * (0.2 * spread)).astype(np.float32)


def mask(sources: Values, *, rng: np.random.Generator) -> Values:
    """Cells in which each value is set to 0 with probability 0.2."""
    made = sources.copy()
    stored = made.data if sparse.issparse(made) else made
    stored[rng.random(stored.shape) < 0.2] = 0
    return made


def mixup(sources: Values, partners: Values, *, rng: np.random.Generator) -> Values:
    """λ x + (1 − λ) x', with λ uniform, between cells and one near neighbour of each."""
    share = rng.random((sources.shape[0],)).astype(np.float32)
    if not sparse.issparse(sources):
        return share[:, None] * sources + (1 - share[:, None]) * partners
    return (sparse.diags(share) @ sources + sparse.diags(1 - share) @ partners).tocsr()


def smote(known: Values, labels: NDArray[Any], *, wanted: NDArray[Any], seed: int) -> Values:
    """SMOTE (Chawla et al. 2002): between cells of one type and their five nearest of that type.

    Parameters
    ----------
    known, labels
        Cells, shape ``(n, d)``, and their types. The cell of a type with only one is copied.
    wanted
        Types of the cells to make, shape ``(m,)``, each found in ``labels``.
    seed
        Seed of imbalanced-learn.
    """
    names = np.unique(wanted)
    parts = [
        _smote_of(known, labels == name, n_new=int((wanted == name).sum()), seed=seed)
        for name in names
    ]
    order = np.concatenate([np.flatnonzero(wanted == name) for name in names])
    stacked = sparse.vstack(parts, format="csr") if sparse.issparse(known) else np.vstack(parts)
    return stacked[np.argsort(order)]


def _smote_of(known: Values, is_type: NDArray[np.bool_], *, n_new: int, seed: int) -> Values:
    from imblearn.over_sampling import SMOTE

    own = np.flatnonzero(is_type)
    if len(own) == 1:
        return known[np.repeat(own, n_new)]
    # Type by type, so that a rare one does not lower the neighbours of the others; imbalanced-
    # learn wants a second class, of which nothing is made.
    rows = np.append(own, np.flatnonzero(~is_type)[:1])
    sampler = SMOTE(
        sampling_strategy={1: len(own) + n_new},
        k_neighbors=min(5, len(own) - 1),
        random_state=seed,
    )
    return sampler.fit_resample(known[rows], is_type[rows].astype(int))[0][len(rows) :]


def smoothed_poisson(
    known: Values, neighbors: Rows, *, depth: NDArray[Any], rng: np.random.Generator
) -> sparse.csr_matrix:
    """Poisson counts around the mean profile of neighbours.

    Parameters
    ----------
    known
        Counts, shape ``(n, d)``.
    neighbors
        Rows of ``known`` to average, shape ``(m, k)``.
    depth
        Expected reads of each augmented cell, shape ``(m,)``.
    rng
        Random number generator.
    """
    reads = np.maximum(depths(known), 1)
    profiles = sparse.diags(1 / reads) @ sparse.csr_matrix(known, dtype=np.float64)
    m, k = neighbors.shape
    starts = np.arange(0, m * k + 1, k)
    weights = np.repeat(depth / k, k)
    average = sparse.csr_matrix((weights, neighbors.ravel(), starts), shape=(m, known.shape[0]))
    made = (average @ profiles).tocsr()
    made.data = rng.poisson(made.data).astype(np.float32)
    made.eliminate_zeros()
    return made.astype(np.float32)
