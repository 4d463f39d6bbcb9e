"""Scores of augmented cells against the real ones."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

Values: TypeAlias = NDArray[np.floating[Any]] | sparse.csr_matrix


def two_sample_auc(real: Values, made: Values, *, n_trees: int = 200, seed: int = 0) -> float:
    """How well a random forest tells made cells from real ones (classifier two-sample test).

    Cross-validated ROC-AUC in gene space (Lopez-Paz & Oquab 2017): 0.5 where it cannot.

    Parameters
    ----------
    real, made
        Values of the same features, shapes ``(n, d)`` and ``(m, d)``.
    n_trees, seed
        Trees of the forest and seed.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import two_sample_auc
    >>> rng = np.random.default_rng(0)
    >>> two_sample_auc(rng.normal(size=(50, 3)), 9 + rng.normal(size=(50, 3)))
    1.0
    """
    is_made = np.repeat([0, 1], [real.shape[0], made.shape[0]])
    stack = sparse.vstack if sparse.issparse(real) else np.vstack
    forest = RandomForestClassifier(n_trees, random_state=seed, n_jobs=-1)
    # Shuffled: cells often stand sorted by type, and a fold must not hold types never seen.
    folds = StratifiedKFold(3, shuffle=True, random_state=seed)
    scores = cross_val_predict(
        forest, stack([real, made]).astype(np.float32), is_made, cv=folds, method="predict_proba"
    )
    return float(roc_auc_score(is_made, scores[:, 1]))


def type_kept(
    real: Values,
    labels: ArrayLike,
    made: Values,
    *,
    expected: ArrayLike,
    n_neighbors: int = 15,
    seed: int = 0,
) -> float:
    """Share of made cells whose nearest real cells have the label of their source.

    Principal components of the real cells, then the majority of the nearest.

    Parameters
    ----------
    real, labels
        Log-normalised real cells, shape ``(n, d)``, and their labels.
    made, expected
        Log-normalised made cells, shape ``(m, d)``, and the labels of their sources.
    n_neighbors
        Real cells that vote.
    seed
        Seed of the principal components.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import type_kept
    >>> cells = np.repeat(np.eye(3), 20, axis=0)
    >>> labels = np.repeat(["a", "b", "c"], 20)
    >>> type_kept(cells, labels, cells, expected=labels)
    1.0
    """
    pca = PCA(min(50, *(size - 1 for size in real.shape)), random_state=seed)
    vote = KNeighborsClassifier(n_neighbors).fit(
        pca.fit_transform(_dense(real)), np.asarray(labels)
    )
    return float((vote.predict(pca.transform(_dense(made))) == np.asarray(expected)).mean())


def zero_share(x: Values) -> float:
    """Share of exact zeros.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import zero_share
    >>> zero_share(np.array([[0.0, 1.0]]))
    0.5
    """
    n_nonzero = np.count_nonzero(x.data if sparse.issparse(x) else x)
    return 1 - float(n_nonzero) / (x.shape[0] * x.shape[1])


def gene_mean_correlation(real: Values, made: Values) -> float:
    """Pearson correlation of per-gene means of real and of made cells.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import gene_mean_correlation
    >>> cells = np.array([[0.0, 1.0, 5.0]])
    >>> round(gene_mean_correlation(cells, cells), 6)
    1.0
    """
    mean_real, mean_made = (np.asarray(x.mean(0)).ravel() for x in (real, made))
    return float(np.corrcoef(mean_real, mean_made)[0, 1])


def _dense(x: Values) -> NDArray[np.floating[Any]]:
    return np.asarray(x.toarray() if sparse.issparse(x) else x)  # type: ignore[union-attr]
