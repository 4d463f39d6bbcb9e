"""Whether genes and libraries of augmented cells look like those of real ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import sparse, stats
from sklearn.utils.sparsefuncs import mean_variance_axis

from scdiffaug._checks import check_whole
from scdiffaug.metrics._inputs import (
    Values,
    checked_labels,
    require_cells,
    require_matrix,
    require_same_features,
)
from scdiffaug.metrics._spaces import dense

Array = NDArray[np.floating[Any]]


def zero_share(x: Values) -> float:
    """Share of exact zeros among all values.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import zero_share
    >>> zero_share(np.array([[0.0, 1.0]]))
    0.5
    """
    require_matrix(x, "x")
    return float(zero_shares(x).mean())


def gene_zero_share_difference(real: Values, made: Values) -> float:
    """Mean absolute difference over genes between the shares of zeros of real and augmented cells.

    Parameters
    ----------
    real, made
        Values of the same genes, shapes ``(n, d)`` and ``(m, d)``.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import gene_zero_share_difference
    >>> gene_zero_share_difference(np.array([[0, 1]]), np.array([[2, 0], [2, 3]]))
    0.75
    """
    require_same_features(real, made, names=("real", "made"))
    return float(np.abs(zero_shares(real) - zero_shares(made)).mean())


def gene_mean_correlation(real: Values, made: Values) -> float:
    """Pearson correlation over genes between the means in real and in augmented cells.

    Parameters
    ----------
    real, made
        Values of the same genes, shapes ``(n, d)`` and ``(m, d)``.

    Returns
    -------
    A number in [-1, 1]; NaN where all genes of one side have the same mean.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import gene_mean_correlation
    >>> cells = np.array([[0.0, 1.0, 5.0]])
    >>> round(gene_mean_correlation(cells, cells), 6)
    1.0
    """
    require_same_features(real, made, names=("real", "made"))
    return _pearson(means(real), means(made))


def gene_variance_correlation(real: Values, made: Values) -> float:
    """Pearson correlation over genes between the variances in real and in augmented cells.

    It is blind to a factor common to all genes, as in cells that are too smooth: see
    :func:`gene_variance_ratio` for that.

    Parameters
    ----------
    real, made
        Values of the same genes, shapes ``(n, d)`` and ``(m, d)``.

    Returns
    -------
    A number in [-1, 1]; NaN where all genes of one side have the same variance.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import gene_variance_correlation
    >>> cells = np.array([[0.0, 1.0, 5.0], [1.0, 1.0, 1.0]])
    >>> round(gene_variance_correlation(cells, cells), 6)
    1.0
    """
    require_same_features(real, made, names=("real", "made"))
    return _pearson(variances(real), variances(made))


def gene_variance_ratio(real: Values, made: Values) -> float:
    """Median over genes of the ratio of variances, augmented over real cells: 1 is the same.

    Parameters
    ----------
    real, made
        Values of the same genes, shapes ``(n, d)`` and ``(m, d)``; genes that do not vary among
        real cells are left out.

    Raises
    ------
    ValueError
        If no gene varies among real cells.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import gene_variance_ratio
    >>> cells = np.array([[0.0, 1.0, 5.0], [1.0, 1.0, 1.0]])
    >>> gene_variance_ratio(cells, 3 * cells)
    9.0
    """
    require_same_features(real, made, names=("real", "made"))
    of_real, of_made = variances(real), variances(made)
    if not (varies := of_real > 0).any():
        raise ValueError("real has no gene that varies: pass more than one cell, not all equal.")
    return float(np.median(of_made[varies] / of_real[varies]))


def gene_gene_correlation_agreement(
    real: Values,
    made: Values,
    *,
    n_genes: int = 200,
    real_groups: ArrayLike | None = None,
    made_groups: ArrayLike | None = None,
) -> dict[str, float]:
    """Agreement of gene–gene correlations in augmented cells with those in real cells.

    Pearson correlations are those of all pairs among the genes that vary most in real cells. They
    are 0 for a gene that does not vary.

    Parameters
    ----------
    real, made
        Values of the same genes, shapes ``(n, d)`` and ``(m, d)``; log-normalised, as otherwise
        depth correlates all genes.
    n_genes
        Number of genes to take, the most variable ones of the real cells.
    real_groups, made_groups
        Groups, e.g. cell types, shapes ``(n,)`` and ``(m,)``, whose means are first subtracted.
        Correlations are then those within groups; else most come of the differences between them.

    Returns
    -------
    ``pearson``, the correlation over pairs between the correlations of both sides;
    ``mean_absolute_difference``; and ``slope`` of the line through zero by which those of real
    cells tell those of augmented ones: below 1 where the latter are weaker. Few cells lower it,
    so compare it with the slope of other real cells. ``pearson`` is NaN where all pairs of one
    side have the same correlation, ``slope`` where those of real cells are 0.

    Raises
    ------
    TypeError, ValueError
        If the matrices or groups do not fit each other, or a side has fewer than two cells.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import gene_gene_correlation_agreement
    >>> cells = np.random.default_rng(0).normal(size=(50, 4))
    >>> gene_gene_correlation_agreement(cells, 2 * cells)["mean_absolute_difference"] < 1e-9
    True
    """
    require_same_features(real, made, names=("real", "made"))
    for cells, name in ((real, "real"), (made, "made")):
        require_cells(cells, 2, name=name, why="a correlation")
    check_whole("n_genes", n_genes)
    top = np.argsort(-variances(real), kind="stable")[:n_genes]
    if len(top) < 2:
        raise ValueError(
            f"real and made are compared in {len(top)} genes, but pairs need two: raise n_genes."
        )
    one, other = dense(real[:, top]), dense(made[:, top])
    if real_groups is not None or made_groups is not None:
        one = _within_groups(one, real_groups, of="real")
        other = _within_groups(other, made_groups, of="made")
    of_real, of_made = _pair_correlations(one), _pair_correlations(other)
    squares = of_real @ of_real
    return {
        "pearson": _pearson(of_real, of_made),
        "mean_absolute_difference": float(np.abs(of_real - of_made).mean()),
        "slope": float(of_real @ of_made / squares) if squares else math.nan,
    }


def depth_distance(real: Values, made: Values) -> float:
    """Kolmogorov–Smirnov distance between the total counts per cell of both sides, in [0, 1].

    Parameters
    ----------
    real, made
        Counts, shapes ``(n, d)`` and ``(m, d)``, of the same genes.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import depth_distance
    >>> depth_distance(np.array([[1, 2], [5, 0]]), np.array([[2, 1], [0, 9]]))
    0.5
    """
    require_same_features(real, made, names=("real", "made"))
    return _ks(*(np.asarray(x.sum(1)).ravel() for x in (real, made)))


def detected_genes_distance(real: Values, made: Values) -> float:
    """Kolmogorov–Smirnov distance between the numbers of non-zero genes per cell, in [0, 1].

    Parameters
    ----------
    real, made
        Values of the same genes, shapes ``(n, d)`` and ``(m, d)``.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import detected_genes_distance
    >>> detected_genes_distance(np.array([[1, 2], [5, 0]]), np.array([[2, 1], [4, 9]]))
    0.5
    """
    require_same_features(real, made, names=("real", "made"))
    return _ks(*(_n_nonzero(x, axis=1) for x in (real, made)))


def means(x: Values) -> Array:
    """Mean of each gene, shape ``(d,)``."""
    return np.asarray(x.mean(0)).ravel()


def variances(x: Values) -> Array:
    """Variance of each gene, shape ``(d,)``."""
    if sparse.issparse(x):
        return mean_variance_axis(sparse.csr_matrix(x, dtype=np.float64), axis=0)[1]
    return np.asarray(x, dtype=np.float64).var(0)


def zero_shares(x: Values) -> Array:
    """Share of exact zeros of each gene, shape ``(d,)``."""
    return 1 - _n_nonzero(x, axis=0) / x.shape[0]


def _n_nonzero(x: Values, *, axis: int) -> NDArray[np.int64]:
    # Not getnnz: it counts zeros that are stored.
    return np.asarray((x != 0).sum(axis)).ravel()


def _pearson(one: Array, other: Array) -> float:
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(np.corrcoef(one, other)[0, 1])


def _within_groups(x: Array, groups: ArrayLike | None, *, of: str) -> Array:
    if groups is None:
        raise ValueError(f"{of}_groups is missing: pass the groups of both kinds of cells.")
    names = checked_labels(groups, x, name=f"{of}_groups", of=of)
    x = x.astype(np.float64)
    means = pd.DataFrame(x).groupby(names).transform("mean").to_numpy()
    # The mean of equal values may differ from them by rounding, which would correlate.
    return np.where(np.isclose(x, means, rtol=1e-9, atol=0), 0, x - means)


def _pair_correlations(x: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        table = np.asarray(np.corrcoef(x, rowvar=False, dtype=np.float64))
    constant = np.ptp(x, axis=0) == 0
    table[constant] = table[:, constant] = 0
    return table[np.triu_indices_from(table, 1)]


def _ks(one: NDArray[Any], other: NDArray[Any]) -> float:
    return float(stats.ks_2samp(one, other, method="asymp").statistic)
