"""Scores of an embedding against labels, as in Zang et al. 2023."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import LabelEncoder, StandardScaler
from sklearn.svm import SVC

Embedding = NDArray[np.floating[Any]]


def linear_svm_accuracy(
    embedding: Embedding, labels: ArrayLike, *, n_folds: int = 10, seed: int = 0
) -> float:
    """Mean accuracy of a linear support vector machine over stratified folds.

    Parameters
    ----------
    embedding
        Shape ``(n, k)``.
    labels
        Shape ``(n,)``; each at least ``n_folds`` times.
    n_folds, seed
        Number of folds and seed of the split.

    Raises
    ------
    ValueError
        If a label is rarer than the number of folds.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import linear_svm_accuracy
    >>> labels = np.repeat(["a", "b"], 20)
    >>> linear_svm_accuracy(np.eye(2)[np.repeat([0, 1], 20)], labels)
    1.0
    """
    names, counts = np.unique(np.asarray(labels), return_counts=True)
    if counts.min() < n_folds:
        raise ValueError(
            f"label {str(names[counts.argmin()])!r} has {counts.min()} cells, fewer than the "
            f"{n_folds} folds: leave rare labels out, or lower n_folds."
        )
    classifier = make_pipeline(StandardScaler(), SVC(kernel="linear"))
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    return float(cross_val_score(classifier, embedding, np.asarray(labels), cv=folds).mean())


def kmeans_accuracy(embedding: Embedding, labels: ArrayLike, *, seed: int = 0) -> float:
    """Accuracy of k-means with as many clusters as labels, matched one to one (Hungarian).

    Parameters
    ----------
    embedding
        Shape ``(n, k)``.
    labels
        Shape ``(n,)``.
    seed
        Seed of the starting centres, of which ten are tried.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import kmeans_accuracy
    >>> kmeans_accuracy(np.eye(2)[np.repeat([0, 1], 20)], np.repeat(["a", "b"], 20))
    1.0
    """
    codes = LabelEncoder().fit_transform(np.asarray(labels))
    clusters = KMeans(codes.max() + 1, n_init=10, random_state=seed).fit_predict(embedding)
    table = confusion_matrix(codes, clusters)
    return float(table[linear_sum_assignment(-table)].sum() / table.sum())
