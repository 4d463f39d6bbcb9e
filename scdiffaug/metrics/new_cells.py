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
    require_same_features,
)
from scdiffaug.metrics.embedding import linear_svm


def new_cells_scores(
    embedding: Embedding,
    labels: ArrayLike,
    *,
    new: Embedding,
    new_labels: ArrayLike,
    seed: int = 0,
) -> dict[str, float]:
    """Accuracy on new cells of what learnt from the embedding of the training cells.

    ``linear_svm_accuracy`` and ``knn_accuracy`` (10 neighbours): of the classifier fitted on all
    training cells. ``kmeans_accuracy``: k-means and its matching with the labels, both of the
    training cells; a new cell belongs to the nearest centre. Each is to be read beside the
    function of that name on the training cells alone.

    Parameters
    ----------
    embedding, labels
        Training cells, shape ``(n, k)``, and their labels, shape ``(n,)``.
    new, new_labels
        New cells, shape ``(m, k)``, and their labels, shape ``(m,)``.
    seed
        Seed of k-means.

    Raises
    ------
    ValueError
        If the two embeddings have different widths, or labels do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import new_cells_scores
    >>> points = np.eye(2)[np.repeat([0, 1], 20)]
    >>> labels = np.repeat(["a", "b"], 20)
    >>> new_cells_scores(points, labels, new=points[::2], new_labels=labels[::2])
    {'linear_svm_accuracy': 1.0, 'knn_accuracy': 1.0, 'kmeans_accuracy': 1.0}
    """
    require_same_features(embedding, new, names=("embedding", "new"))
    names = checked_labels(labels, embedding)
    answers = checked_labels(new_labels, new, name="new_labels", of="new")
    require_cells(embedding, 10, name="embedding", why="a vote of 10 neighbours")
    predicted = {
        "linear_svm_accuracy": linear_svm().fit(embedding, names).predict(new),
        "knn_accuracy": KNeighborsClassifier(10).fit(embedding, names).predict(new),
        "kmeans_accuracy": _by_nearest_centre(embedding, names, new, seed=seed),
    }
    return {name: float(np.mean(found == answers)) for name, found in predicted.items()}


def _by_nearest_centre(
    embedding: Embedding, names: NDArray[Any], new: Embedding, *, seed: int
) -> NDArray[Any]:
    """Label matched with the cluster of each new cell."""
    kinds, codes = np.unique(names, return_inverse=True)
    kmeans = KMeans(len(kinds), n_init=10, random_state=seed).fit(embedding)
    code_of = linear_sum_assignment(-confusion_matrix(kmeans.labels_, codes))[1]
    return kinds[code_of[kmeans.predict(new)]]
