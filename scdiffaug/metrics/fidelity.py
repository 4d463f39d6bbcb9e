"""Whether made cells have the distribution of real ones.

No score here has a zero that finite samples reach: put one half of the real cells against the
other beside it.
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
from scdiffaug.metrics._spaces import drawn, joint_pca, stacked

_BANDWIDTHS = (0.5, 1.0, 2.0)


def two_sample_auc(
    real: Values, made: Values, *, n_trees: int = 200, n_pcs: int | None = None, seed: int = 0
) -> float:
    """How well a random forest tells made cells from real ones (classifier two-sample test).

    Cross-validated ROC-AUC (Lopez-Paz & Oquab 2017): 0.5 where it cannot.

    Parameters
    ----------
    real, made
        Values of the same features, shapes ``(n, d)`` and ``(m, d)``.
    n_trees, seed
        Trees of the forest and seed.
    n_pcs
        Principal components of real and made cells together that the forest sees; without it,
        the features themselves.

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
    cells = stacked(*joint_pca(real, made, n_pcs=n_pcs, seed=seed)).astype(np.float32)
    forest = RandomForestClassifier(n_trees, random_state=seed, n_jobs=-1)
    # Shuffled: cells often stand sorted by type, and a fold must not hold types never seen.
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
    """Squared maximum mean discrepancy, unbiased: below 0 as often as above for like samples.

    Mean of three Gaussian kernels ``exp(-r² / 2σ²)`` with σ the median distance between real
    cells times 0.5, 1 and 2; equation 3 of Gretton et al. 2012. σ is that of the real cells
    alone, so that all methods made from them meet the same kernel.

    Parameters
    ----------
    real, made
        Values of the same features, shapes ``(n, d)`` and ``(m, d)``.
    n_pcs
        Principal components of both together to compare in; None for the features themselves.
    max_cells
        Cells of each side, drawn by ``seed`` where there are more.
    seed
        Seed of the components and of the draw.

    Raises
    ------
    ValueError
        If most real cells are equal, so that there is no bandwidth.

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
    """Wasserstein-2 distance of as many real as made cells, exact by the best matching.

    Root of the mean squared distance of matched cells, in the units of the values. It falls with
    the number of cells compared: keep ``max_cells`` and the sizes when setting two side by side.

    Parameters
    ----------
    real, made
        Values of the same features, shapes ``(n, d)`` and ``(m, d)``.
    n_pcs
        Principal components of both together to compare in; None for the features themselves.
    max_cells
        Cells of each side at most; both sides are cut to the smaller, drawn by ``seed``.
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
    """How far made cells lie among real ones, and real ones among made.

    Around each cell a ball reaches to its ``n_neighbors``-th nearest of the same side.
    Precision is the share of made cells in a ball of a real one, recall the share of real cells
    in a ball of a made one (Kynkäänniemi et al. 2019); density is the mean number of real balls
    around a made cell over ``n_neighbors``, coverage the share of real balls that hold a made
    cell (Naeem et al. 2020).

    Parameters
    ----------
    real, made
        Values of the same features, shapes ``(n, d)`` and ``(m, d)``.
    n_neighbors
        Rank of the neighbour that gives the radius.
    n_pcs
        Principal components of both together to compare in; None for the features themselves.
    max_cells
        Cells of each side at most; both sides are cut to the smaller, drawn by ``seed``, as
        recall and coverage grow with the number of made cells.
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
    """How evenly real and made cells stand around a cell: 0 each among its own, 1 half and half.

    Integration LISI (Korsunsky et al. 2019) minus 1, the median over cells, with each of the
    neighbours counted alike instead of by a perplexity kernel. Like samples score a little under
    1, as thirty neighbours are seldom split exactly.

    Parameters
    ----------
    real, made
        Values of the same features, shapes ``(n, d)`` and ``(m, d)``.
    n_neighbors
        Other cells around each, of both sides.
    n_pcs
        Principal components of both together to compare in; None for the features themselves.
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
    search = NearestNeighbors(n_neighbors=n_neighbors).fit(stacked(*points))
    share_made = (search.kneighbors(return_distance=False) >= n_each).mean(1)
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
