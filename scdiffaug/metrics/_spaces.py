"""The coordinates that cells are compared in."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.decomposition import PCA

from scdiffaug._checks import check_whole
from scdiffaug.metrics._inputs import Values


def dense(x: Values) -> NDArray[np.floating[Any]]:
    """The same values, dense."""
    return np.asarray(x.toarray() if sparse.issparse(x) else x)  # type: ignore[union-attr]


def one_above_other(one: Values, other: Values) -> Values:
    """Rows of one above those of the other; sparse if either is."""
    if sparse.issparse(one) or sparse.issparse(other):
        return sparse.vstack([sparse.csr_matrix(one), sparse.csr_matrix(other)], format="csr")
    return np.vstack([one, other])


def joint_pca(
    real: Values, made: Values, *, n_pcs: int | None, seed: int
) -> tuple[Values, Values]:
    """Both in principal components fitted on both together; unchanged if ``n_pcs`` is None."""
    if n_pcs is None:
        return real, made
    check_whole("n_pcs", n_pcs)
    both = dense(one_above_other(real, made))
    points = PCA(min(n_pcs, *both.shape), random_state=seed).fit_transform(both)
    return points[: real.shape[0]], points[real.shape[0] :]


def pca_of(
    fitted_on: Values, others: tuple[Values, ...], *, n_pcs: int | None, seed: int
) -> tuple[Values, ...]:
    """``others`` in principal components of ``fitted_on``; unchanged if ``n_pcs`` is None."""
    if n_pcs is None:
        return others
    check_whole("n_pcs", n_pcs)
    pca = PCA(min(n_pcs, *fitted_on.shape), random_state=seed).fit(dense(fitted_on))
    return tuple(pca.transform(dense(cells)) for cells in others)


def drawn(cells: Values, n_most: int, *, rng: np.random.Generator) -> Values:
    """All cells in their order, or ``n_most`` random ones where there are more."""
    check_whole("max_cells", n_most)
    if cells.shape[0] <= n_most:
        return cells
    return cells[rng.choice(cells.shape[0], n_most, replace=False)]
