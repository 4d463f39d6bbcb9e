"""Scores of cells that a trained method embedded without having learnt from them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.metrics import confusion_matrix
from sklearn.neighbors import KNeighborsClassifier

from scdiffaug.metrics._inputs import (
    Embedding,
    checked_labels,
    require_cells,
    require_common_labels,
    require_same_features,
)
from scdiffaug.metrics._spaces import dense
from scdiffaug.metrics.embedding import linear_svm


def query_scores(
    embedding: Embedding,
    labels: ArrayLike,
    *,
    query: Embedding,
    query_labels: ArrayLike,
    seed: int = 0,
) -> dict[str, float]:
    """Accuracy on unseen cells of classifiers fitted on the embedding of the training cells.

    ``linear_svm_accuracy`` and ``knn_accuracy`` (10 neighbours) are those of classifiers fitted
    on all training cells. For ``kmeans_accuracy``, the training cells are clustered and matched
    with their labels, and a query cell belongs to the nearest centre. Compare each score with the
    function of that name on the training cells alone.

    Parameters
    ----------
    embedding, labels
        Embedding of the training cells, shape ``(n, k)``, and their labels, shape ``(n,)``.
    query, query_labels
        Embedding of cells that were not trained on, shape ``(m, k)``, and their labels, shape
        ``(m,)``.
    seed
        Seed of k-means.

    Raises
    ------
    ValueError
        If the two embeddings have different widths, labels do not fit, or none of the query's
        is one of the training cells'.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import query_scores
    >>> points = np.eye(2)[np.repeat([0, 1], 20)]
    >>> labels = np.repeat(["a", "b"], 20)
    >>> query_scores(points, labels, query=points[::2], query_labels=labels[::2])
    {'linear_svm_accuracy': 1.0, 'knn_accuracy': 1.0, 'kmeans_accuracy': 1.0}
    """
    require_same_features(embedding, query, names=("embedding", "query"))
    names = checked_labels(labels, embedding)
    answers = checked_labels(query_labels, query, name="query_labels", of="query")
    require_common_labels(answers, names, what=("query_labels", "labels"))
    require_cells(embedding, 10, name="embedding", why="a vote of 10 neighbours")
    embedding, query = dense(embedding), dense(query)
    predicted = {
        "linear_svm_accuracy": linear_svm().fit(embedding, names).predict(query),
        "knn_accuracy": KNeighborsClassifier(10).fit(embedding, names).predict(query),
        "kmeans_accuracy": _by_nearest_centre(embedding, names, query, seed=seed),
    }
    return {name: float(np.mean(found == answers)) for name, found in predicted.items()}


def _by_nearest_centre(
    embedding: Embedding, names: NDArray[Any], query: Embedding, *, seed: int
) -> NDArray[Any]:
    """Label with which the cluster of each query cell was matched."""
    kinds, codes = np.unique(names, return_inverse=True)
    kmeans = KMeans(len(kinds), n_init=10, random_state=seed).fit(embedding)
    code_of = linear_sum_assignment(-confusion_matrix(kmeans.labels_, codes))[1]
    return kinds[code_of[kmeans.predict(query)]]
