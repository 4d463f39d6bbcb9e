"""Whether augmented cells follow the distribution of real ones.

Even two finite samples of one distribution do not reach the ideal value of these scores. Read
each beside the score of one half of the real cells against the other half.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import NearestNeighbors

from scdiffaug._checks import check_whole
from scdiffaug.metrics._inputs import Values, require_cells, require_same_features
from scdiffaug.metrics._spaces import drawn, joint_pca, one_above_other

_BANDWIDTHS = (0.5, 1.0, 2.0)


def two_sample_auc(
    real: Values, made: Values, *, n_trees: int = 200, n_pcs: int | None = None, seed: int = 0
) -> float:
    """How well a random forest tells augmented from real cells (classifier two-sample test).

    The score is a cross-validated ROC-AUC (Lopez-Paz & Oquab 2017), 0.5 where the forest cannot
    tell them apart.

    Parameters
    ----------
    real, made
        Values of the same features, shapes ``(n, d)`` and ``(m, d)``.
    n_trees, seed
        Number of trees of the forest, and seed.
    n_pcs
        Number of principal components, fitted on both together, that the forest sees; None to
        use the features.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import two_sample_auc
    >>> rng = np.random.default_rng(0)
    >>> two_sample_auc(rng.normal(size=(50, 3)), 9 + rng.normal(size=(50, 3)))
    1.0
    """
    _require_pair(real, made, n_cells=3, why="three folds")
    is_made = np.repeat([0, 1], [real.shape[0], made.shape[0]])
    cells = one_above_other(*joint_pca(real, made, n_pcs=n_pcs, seed=seed)).astype(np.float32)
    forest = RandomForestClassifier(n_trees, random_state=seed, n_jobs=-1)
    # Shuffled: cells are often sorted by type, and no fold may hold types never trained on.
    folds = StratifiedKFold(3, shuffle=True, random_state=seed)
    scores = cross_val_predict(forest, cells, is_made, cv=folds, method="predict_proba")
    return float(roc_auc_score(is_made, scores[:, 1]))


def mmd(
    real: Values,
    made: Values,
    *,
    n_pcs: int | None = 50,
    max_cells: int = 2_000,
    seed: int = 0,
) -> float:
    """Unbiased squared maximum mean discrepancy, 0 on average for like samples.

    It may fall below 0 (equation 3 of Gretton et al. 2012). The kernel is the mean of three
    Gaussian kernels ``exp(-r² / 2σ²)``, with σ the median distance between real cells times 0.5,
    1 and 2. The median is that of real cells alone, so that all methods meet the same kernel.

    Parameters
    ----------
    real, made
        Values of the same features, shapes ``(n, d)`` and ``(m, d)``.
    n_pcs
        Number of principal components, fitted on both together; None to use the features.
    max_cells
        Most cells of each side, drawn by ``seed`` where there are more.
    seed
        Seed of the components and of the draw.

    Raises
    ------
    ValueError
        If most pairs of real cells are equal, so that there is no bandwidth.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import mmd
    >>> cells = np.random.default_rng(0).normal(size=(100, 3))
    >>> mmd(cells[:50], cells[50:]) < 0.05 < mmd(cells[:50], 1 + cells[50:])
    True
    """
    check_whole("max_cells", max_cells, at_least=2)
    _require_pair(real, made, n_cells=2, why="an unbiased estimate")
    one, other = _drawn_points(real, made, n_pcs=n_pcs, max_cells=max_cells, seed=seed)
    squared = euclidean_distances(one, squared=True)
    median = float(np.median(np.sqrt(squared[np.triu_indices_from(squared, 1)])))
    if median == 0:
        raise ValueError(
            "real has equal cells in most pairs, so mmd has no bandwidth: drop copies."
        )
    within = [
        _kernel(part, median) for part in (squared, euclidean_distances(other, squared=True))
    ]
    between = _kernel(euclidean_distances(one, other, squared=True), median).mean()
    return float(sum(_mean_off_diagonal(part) for part in within) - 2 * between)


def wasserstein_2(
    real: Values,
    made: Values,
    *,
    n_pcs: int | None = 50,
    max_cells: int = 1_000,
    seed: int = 0,
) -> float:
    """Exact Wasserstein-2 distance between equally many real and augmented cells.

    The distance is the root mean square over optimally matched cells, in the units of the values.
    It falls with the number of cells, so compare only scores with the same ``max_cells`` and the
    same numbers of cells.

    Parameters
    ----------
    real, made
        Values of the same features, shapes ``(n, d)`` and ``(m, d)``.
    n_pcs
        Number of principal components, fitted on both together; None to use the features.
    max_cells
        Most cells of each side; both sides are cut to the smaller, drawn by ``seed``.
    seed
        Seed of the components and of the draw.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import wasserstein_2
    >>> cells = np.random.default_rng(0).normal(size=(50, 2))
    >>> round(wasserstein_2(cells, cells + [3, 4]), 6)
    5.0
    """
    _require_pair(real, made, n_cells=1, why="a matching")
    n_most = min(max_cells, real.shape[0], made.shape[0])
    one, other = _drawn_points(real, made, n_pcs=n_pcs, max_cells=n_most, seed=seed)
    costs = euclidean_distances(one, other, squared=True)
    return float(np.sqrt(costs[linear_sum_assignment(costs)].mean()))


def precision_recall_density_coverage(
    real: Values,
    made: Values,
    *,
    n_neighbors: int = 5,
    n_pcs: int | None = 50,
    max_cells: int = 5_000,
    seed: int = 0,
) -> dict[str, float]:
    """How far augmented cells lie among real ones, and real ones among augmented ones.

    The ball of a cell reaches to its ``n_neighbors``-th nearest neighbour of the same side.
    Precision is the share of augmented cells in a real cell's ball, recall the share of real
    cells in an augmented cell's ball (Kynkäänniemi et al. 2019). Density is the mean number of
    real cells' balls around an augmented cell, divided by ``n_neighbors``. Coverage is the share
    of real cells' balls that hold an augmented cell (Naeem et al. 2020).

    Parameters
    ----------
    real, made
        Values of the same features, shapes ``(n, d)`` and ``(m, d)``.
    n_neighbors
        Rank of the neighbour that gives the radius.
    n_pcs
        Number of principal components, fitted on both together; None to use the features.
    max_cells
        Most cells of each side; both sides are cut to the smaller, drawn by ``seed``, as recall
        and coverage grow with the number of augmented cells.
    seed
        Seed of the components and of the draw.

    Returns
    -------
    ``precision``, ``recall``, ``density`` (about 1 for like samples, may be larger), ``coverage``.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import precision_recall_density_coverage
    >>> cells = np.random.default_rng(0).normal(size=(50, 2))
    >>> precision_recall_density_coverage(cells, 99 + cells)["precision"]
    0.0
    """
    check_whole("n_neighbors", n_neighbors)
    check_whole("max_cells", max_cells, at_least=n_neighbors + 1)
    _require_pair(real, made, n_cells=n_neighbors + 1, why=f"n_neighbors={n_neighbors}")
    n_most = min(max_cells, real.shape[0], made.shape[0])
    one, other = _drawn_points(real, made, n_pcs=n_pcs, max_cells=n_most, seed=seed)
    distances = euclidean_distances(one, other)
    in_real = distances <= _radii(one, n_neighbors)[:, None]
    in_made = distances <= _radii(other, n_neighbors)[None]
    return {
        "precision": float(in_real.any(0).mean()),
        "recall": float(in_made.any(1).mean()),
        "density": float(in_real.sum(0).mean() / n_neighbors),
        "coverage": float(in_real.any(1).mean()),
    }


def mixing(
    real: Values,
    made: Values,
    *,
    n_neighbors: int = 30,
    n_pcs: int | None = 50,
    seed: int = 0,
) -> float:
    """How evenly real and augmented cells surround a cell: 0 if separate, 1 if half and half.

    The score is the integration LISI (Korsunsky et al. 2019) minus 1, the median over cells. All
    neighbours count the same, instead of by a perplexity kernel. Like samples score a little
    under 1, as thirty neighbours are seldom split exactly.

    Parameters
    ----------
    real, made
        Values of the same features, shapes ``(n, d)`` and ``(m, d)``.
    n_neighbors
        Number of neighbours of each cell, from both sides.
    n_pcs
        Number of principal components, fitted on both together; None to use the features.
    seed
        Seed of the components and of the draw that cuts both sides to the smaller.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import mixing
    >>> cells = np.random.default_rng(0).normal(size=(50, 2))
    >>> mixing(cells, 99 + cells)
    0.0
    """
    check_whole("n_neighbors", n_neighbors)
    _require_pair(real, made, n_cells=n_neighbors // 2 + 1, why=f"n_neighbors={n_neighbors}")
    n_each = min(real.shape[0], made.shape[0])
    points = _drawn_points(real, made, n_pcs=n_pcs, max_cells=n_each, seed=seed)
    search = NearestNeighbors(n_neighbors=n_neighbors).fit(one_above_other(*points))
    distances, rows = search.kneighbors()
    if np.median(distances[:, -1]) == 0:
        raise ValueError(
            f"Most cells equal {n_neighbors} others, so mixing has no nearest ones: drop copies."
        )
    share_made = (rows >= n_each).mean(1)
    return float(np.median(1 / (share_made**2 + (1 - share_made) ** 2)) - 1)


def _require_pair(real: Values, made: Values, *, n_cells: int, why: str) -> None:
    require_same_features(real, made, names=("real", "made"))
    require_cells(real, n_cells, name="real", why=why)
    require_cells(made, n_cells, name="made", why=why)


def _drawn_points(
    real: Values, made: Values, *, n_pcs: int | None, max_cells: int, seed: int
) -> tuple[Values, Values]:
    rng = np.random.default_rng(seed)
    one, other = joint_pca(real, made, n_pcs=n_pcs, seed=seed)
    return drawn(one, max_cells, rng=rng), drawn(other, max_cells, rng=rng)


def _kernel(squared: NDArray[np.floating[Any]], median: float) -> NDArray[np.floating[Any]]:
    kernels = [np.exp(-squared / (2 * (scale * median) ** 2)) for scale in _BANDWIDTHS]
    return np.mean(kernels, axis=0)


def _mean_off_diagonal(square: NDArray[np.floating[Any]]) -> float:
    n = len(square)
    return float((square.sum() - np.trace(square)) / (n * (n - 1)))


def _radii(points: Values, n_neighbors: int) -> NDArray[np.floating[Any]]:
    distances, _ = NearestNeighbors(n_neighbors=n_neighbors).fit(points).kneighbors()
    return distances[:, -1]
