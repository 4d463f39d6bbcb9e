"""Whether augmented cells are new, and whether they reveal what the model was trained on.

Distances are between log-normalised cells, by default in principal components. The components
are fitted on the one set to which none of the compared cells belong, as cells lie closer together
in components that were fitted on them.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from scdiffaug._checks import check_number, check_whole
from scdiffaug.metrics._inputs import Values, require_cells, require_matrix, require_same_features
from scdiffaug.metrics._spaces import pca_of


def nearest_training_distance_ratio(
    training: Values, held_out: Values, made: Values, *, n_pcs: int | None = 50, seed: int = 0
) -> float:
    """Ratio of median distances to the nearest training cell, augmented over held-out cells.

    The ratio is 1 for cells as new as real ones, near 0 for copies, and above 1 for cells that
    lie off the data.

    Parameters
    ----------
    training, held_out, made
        Values of the same features, shapes ``(n, d)``, ``(h, d)`` and ``(m, d)``. The held-out
        real cells were not seen in training.
    n_pcs
        Number of principal components, fitted on the training cells; None to use the features.
    seed
        Seed of the components.

    Raises
    ------
    ValueError
        If most held-out cells equal a training cell.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import nearest_training_distance_ratio
    >>> cells = np.random.default_rng(0).normal(size=(100, 3))
    >>> nearest_training_distance_ratio(cells[:60], cells[60:], cells[:60] + 1e-6) < 0.01
    True
    """
    _require_alike(training, held_out=held_out, made=made)
    of_held_out, of_made = _to_training(training, held_out, made, n_pcs=n_pcs, seed=seed)
    if (median := np.median(of_held_out)) == 0:
        raise ValueError("held_out equals training cells in most rows: hold out other cells.")
    return float(np.median(of_made) / median)


def duplicate_share(
    training: Values,
    held_out: Values,
    made: Values,
    *,
    quantile: float = 0.01,
    n_pcs: int | None = 50,
    seed: int = 0,
) -> dict[str, float]:
    """Shares of augmented cells that copy a training cell.

    Parameters
    ----------
    training, held_out, made
        As in :func:`nearest_training_distance_ratio`.
    quantile
        Near copies lie no farther from a training cell than this share of the held-out cells
        does. It is thus also the share of near copies expected among unseen real cells.
    n_pcs, seed
        As in :func:`nearest_training_distance_ratio`, for the near copies.

    Returns
    -------
    The shares ``exact`` (equal to a training cell in every feature) and ``near`` (near copies).

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import duplicate_share
    >>> cells = np.random.default_rng(0).normal(size=(100, 3))
    >>> duplicate_share(cells[:60], cells[60:], cells[:60])
    {'exact': 1.0, 'near': 1.0}
    """
    check_number("quantile", quantile, at_least=0, at_most=1)
    _require_alike(training, held_out=held_out, made=made)
    of_held_out, of_made = _to_training(training, held_out, made, n_pcs=n_pcs, seed=seed)
    known = set(_row_keys(training))
    return {
        "exact": float(np.mean([row in known for row in _row_keys(made)])),
        "near": float((of_made <= np.quantile(of_held_out, quantile)).mean()),
    }


def repeat_share(cells: Values) -> float:
    """Share of cells that are equal to another of the cells in every feature.

    Parameters
    ----------
    cells
        Shape ``(n, d)``.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import repeat_share
    >>> repeat_share(np.array([[1, 2], [1, 2], [0, 2], [3, 0]]))
    0.5
    """
    require_matrix(cells, "cells")
    sizes = np.array(list(Counter(_row_keys(cells)).values()))
    return float(sizes[sizes > 1].sum() / sizes.sum())


def own_source_share(
    training: Values,
    made: Values,
    *,
    sources: ArrayLike,
    n_pcs: int | None = 50,
    seed: int = 0,
) -> float:
    """Share of augmented cells whose nearest training cell is the one they were made from.

    The share is 1 where every cell stays at its source, and ``1 / n`` where sources do not
    matter. :func:`own_source_share_of_real` is the share that real cells would have.

    Parameters
    ----------
    training, made
        Values of the same features, shapes ``(n, d)`` and ``(m, d)``.
    sources
        Row in ``training`` of the source of each augmented cell, shape ``(m,)``.
    n_pcs
        Number of principal components, fitted on the training cells; None to use the features.
    seed
        Seed of the components.

    Raises
    ------
    ValueError
        If ``sources`` is not one row of ``training`` for each augmented cell.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import own_source_share
    >>> cells = np.random.default_rng(0).normal(size=(60, 3))
    >>> own_source_share(cells, cells[:9] + 1e-6, sources=np.arange(9))
    1.0
    """
    require_same_features(training, made, names=("training", "made"))
    own = _checked_sources(sources, training.shape[0], made.shape[0])
    reference, cells = pca_of(training, (training, made), n_pcs=n_pcs, seed=seed)
    return float((_nearest(reference, cells)[1] == own).mean())


def own_source_share_of_real(
    training: Values,
    held_out: Values,
    *,
    n_neighbors: int = 15,
    n_pcs: int | None = 50,
    seed: int = 0,
) -> float:
    """:func:`own_source_share` with held-out real cells in place of the augmented ones.

    For each training cell, one of the held-out cells nearest to it is drawn. The result is thus
    the share for cells that lie in the neighbourhood of a "source" but were not made from it.

    Parameters
    ----------
    training, held_out
        Values of the same features, shapes ``(n, d)`` and ``(h, d)``. The held-out real cells
        were not seen in training.
    n_neighbors
        Number of nearest held-out cells to draw one from; all of them where there are fewer.
    n_pcs
        Number of principal components, fitted on the training cells; None to use the features.
    seed
        Seed of the components and of the draws.

    Raises
    ------
    ValueError
        If there are fewer than two cells of either kind, or their features differ.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import own_source_share_of_real
    >>> training, held_out = np.random.default_rng(0).normal(size=(2, 500, 3))
    >>> 0 < own_source_share_of_real(training, held_out) < 0.15
    True
    """
    _require_alike(training, held_out=held_out)
    check_whole("n_neighbors", n_neighbors)
    sources, others = pca_of(training, (training, held_out), n_pcs=n_pcs, seed=seed)
    search = NearestNeighbors(n_neighbors=min(n_neighbors, len(others))).fit(others)
    near = search.kneighbors(sources, return_distance=False)
    drawn = np.random.default_rng(seed).permuted(near, axis=1)[:, 0]
    return float((_nearest(sources, others[drawn])[1] == np.arange(len(sources))).mean())


def membership_auc(
    training: Values, held_out: Values, made: Values, *, n_pcs: int | None = 50, seed: int = 0
) -> float:
    """ROC-AUC of an attacker who takes real cells close to augmented ones for training cells.

    This is the black-box attack of Chen et al. 2020 (GAN-Leaks). The score is 0.5 where augmented
    cells give nothing away.

    Parameters
    ----------
    training, held_out, made
        As in :func:`nearest_training_distance_ratio`; training and held-out cells should be
        drawn alike, from the same types and batches.
    n_pcs
        Number of principal components, fitted on the augmented cells, as these are all that an
        attacker has; None to use the features.
    seed
        Seed of the components.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import membership_auc
    >>> cells = np.random.default_rng(0).normal(size=(100, 3))
    >>> membership_auc(cells[:60], cells[60:], cells[:60] + 1e-6)
    1.0
    """
    _require_alike(training, held_out=held_out, made=made)
    spaces = pca_of(made, (made, training, held_out), n_pcs=n_pcs, seed=seed)
    distances = [_nearest(spaces[0], cells)[0] for cells in spaces[1:]]
    is_member = np.repeat([1, 0], [training.shape[0], held_out.shape[0]])
    return float(roc_auc_score(is_member, -np.concatenate(distances)))


def _checked_sources(sources: ArrayLike, n_training: int, n_made: int) -> NDArray[np.integer[Any]]:
    rows = np.asarray(sources)
    if rows.shape != (n_made,) or not np.issubdtype(rows.dtype, np.integer):
        raise ValueError(
            f"sources has shape {rows.shape} of {rows.dtype}, but made has {n_made} cells: pass "
            "one row number in training for each."
        )
    if n_outside := int(((rows < 0) | (rows >= n_training)).sum()):
        raise ValueError(
            f"sources has {n_outside} rows outside training, which has {n_training} cells: pass "
            "row numbers from 0."
        )
    return rows


def _require_alike(training: Values, **others: Values) -> None:
    for name, cells in {"training": training, **others}.items():
        require_same_features(training, cells, names=("training", name))
        require_cells(cells, 2, name=name, why="a comparison")


def _to_training(
    training: Values, held_out: Values, made: Values, *, n_pcs: int | None, seed: int
) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]:
    """Distances of held-out and of augmented cells to their nearest training cells."""
    reference, real, new = pca_of(training, (training, held_out, made), n_pcs=n_pcs, seed=seed)
    return _nearest(reference, real)[0], _nearest(reference, new)[0]


def _nearest(
    reference: Values, cells: Values
) -> tuple[NDArray[np.floating[Any]], NDArray[np.int64]]:
    search = NearestNeighbors(n_neighbors=1).fit(reference)
    distances, rows = search.kneighbors(cells)
    return distances[:, 0], rows[:, 0]


def _row_keys(cells: Values) -> list[tuple[bytes, bytes]]:
    """A key for each row, made of its non-zero entries: keys are equal exactly where rows are."""
    rows = sparse.csr_matrix(cells, dtype=np.float64, copy=True)
    rows.sum_duplicates()
    rows.eliminate_zeros()
    spans = zip(rows.indptr[:-1], rows.indptr[1:], strict=True)
    indices = rows.indices.astype(np.int64)
    return [(indices[i:j].tobytes(), rows.data[i:j].tobytes()) for i, j in spans]
