"""Scores of an embedding against labels, and all scores at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.metrics import (
    adjusted_rand_score,
    confusion_matrix,
    normalized_mutual_info_score,
    silhouette_score,
)
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import LabelEncoder, StandardScaler
from sklearn.svm import SVC

from scdiffaug._checks import check_whole
from scdiffaug.metrics._inputs import (
    Embedding,
    Values,
    checked_labels,
    require_cells,
    require_cells_per_label,
)
from scdiffaug.metrics._spaces import dense
from scdiffaug.metrics.structure import continuity, random_triplet_accuracy, trustworthiness


def linear_svm_accuracy(
    embedding: Embedding,
    labels: ArrayLike,
    *,
    n_folds: int = 10,
    max_cells: int | None = None,
    seed: int = 0,
) -> float:
    """Mean accuracy of a linear SVM over stratified folds, as in Zang et al. 2023.

    Time grows with the square of the number of cells and with the overlap of the labels.

    Parameters
    ----------
    embedding
        Shape ``(n, k)``.
    labels
        Shape ``(n,)``, each label at least ``n_folds`` times.
    n_folds
        Number of folds.
    max_cells
        Score at most this many cells, drawn at random, without the labels that fewer than
        ``n_folds`` of the drawn cells have.
    seed
        Seed of the draw and of the split.

    Raises
    ------
    ValueError
        If a label is rarer than the number of folds, or ``max_cells`` leaves no two labels.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import linear_svm_accuracy
    >>> labels = np.repeat(["a", "b"], 20)
    >>> linear_svm_accuracy(np.eye(2)[np.repeat([0, 1], 20)], labels)
    1.0
    """
    names = checked_labels(labels, embedding)
    require_cells_per_label(names, n_folds)
    if max_cells is not None:
        rows = _scored_rows(names, max_cells, n_folds=n_folds, seed=seed)
        embedding, names = embedding[rows], names[rows]
    # The classifier centres each dimension.
    embedding = dense(embedding)
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    return float(cross_val_score(linear_svm(), embedding, names, cv=folds).mean())


def linear_svm() -> Pipeline:
    """The classifier of :func:`linear_svm_accuracy`, one against one, unfitted."""
    return make_pipeline(StandardScaler(), SVC(kernel="linear"))


def _scored_rows(
    names: NDArray[Any], max_cells: int, *, n_folds: int, seed: int
) -> NDArray[np.int64]:
    check_whole("max_cells", max_cells)
    if len(names) <= max_cells:
        return np.arange(len(names))
    rows = np.random.default_rng(seed).choice(len(names), max_cells, replace=False)
    found, sizes = np.unique(names[rows], return_counts=True)
    if (sizes >= n_folds).sum() < 2:
        raise ValueError(
            f"max_cells={max_cells} leaves fewer than two labels of {n_folds} cells: raise it."
        )
    return rows[np.isin(names[rows], found[sizes >= n_folds])]


def knn_accuracy(
    embedding: Embedding,
    labels: ArrayLike,
    *,
    n_neighbors: int = 10,
    n_folds: int = 10,
    seed: int = 0,
) -> float:
    """Mean accuracy of a k-nearest-neighbours classifier over stratified folds.

    Coordinates are not rescaled, as the distances are what is scored.

    Parameters
    ----------
    embedding
        Shape ``(n, k)``.
    labels
        Shape ``(n,)``, each label at least ``n_folds`` times.
    n_neighbors
        Number of cells of the other folds that vote.
    n_folds, seed
        Number of folds and seed of the split.

    Raises
    ------
    ValueError
        If a label is rarer than the number of folds, or a fold leaves too few cells to vote.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import knn_accuracy
    >>> knn_accuracy(np.eye(2)[np.repeat([0, 1], 20)], np.repeat(["a", "b"], 20))
    1.0
    """
    check_whole("n_neighbors", n_neighbors)
    names = checked_labels(labels, embedding)
    require_cells_per_label(names, n_folds)
    # The largest fold holds ceil(n / n_folds) cells; the rest must be enough to vote.
    enough = -(-n_neighbors * n_folds // (n_folds - 1))
    require_cells(embedding, enough, name="embedding", why=f"a vote of {n_neighbors} neighbours")
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    classifier = KNeighborsClassifier(n_neighbors)
    return float(cross_val_score(classifier, embedding, names, cv=folds).mean())


def kmeans_accuracy(embedding: Embedding, labels: ArrayLike, *, seed: int = 0) -> float:
    """Accuracy of k-means with as many clusters as labels, matched one to one (Hungarian).

    Parameters
    ----------
    embedding
        Shape ``(n, k)``.
    labels
        Shape ``(n,)``.
    seed
        Seed of the starting centres; ten starts are tried.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import kmeans_accuracy
    >>> kmeans_accuracy(np.eye(2)[np.repeat([0, 1], 20)], np.repeat(["a", "b"], 20))
    1.0
    """
    return _matched_accuracy(*_codes_and_clusters(embedding, labels, seed))


def adjusted_rand_index(embedding: Embedding, labels: ArrayLike, *, seed: int = 0) -> float:
    """Adjusted Rand index of k-means clusters and labels (Hubert & Arabie 1985).

    It counts pairs of cells: 0 is expected by chance, 1 is the same partition.

    Parameters
    ----------
    embedding, labels, seed
        As in :func:`kmeans_accuracy`; the clusters are the same.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import adjusted_rand_index
    >>> adjusted_rand_index(np.eye(2)[np.repeat([0, 1], 20)], np.repeat(["a", "b"], 20))
    1.0
    """
    return float(adjusted_rand_score(*_codes_and_clusters(embedding, labels, seed)))


def normalized_mutual_information(
    embedding: Embedding, labels: ArrayLike, *, seed: int = 0
) -> float:
    """Mutual information of k-means clusters and labels, divided by their mean entropy.

    Parameters
    ----------
    embedding, labels, seed
        As in :func:`kmeans_accuracy`; the clusters are the same.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import normalized_mutual_information
    >>> points = np.eye(2)[np.repeat([0, 1], 20)]
    >>> round(normalized_mutual_information(points, np.repeat(["a", "b"], 20)), 6)
    1.0
    """
    return float(normalized_mutual_info_score(*_codes_and_clusters(embedding, labels, seed)))


def silhouette(embedding: Embedding, labels: ArrayLike) -> float:
    """Mean silhouette width of the labels, in [-1, 1] (Rousseeuw 1987).

    All distances are computed: time, unlike memory, grows with the square of the number of cells.

    Parameters
    ----------
    embedding
        Shape ``(n, k)``.
    labels
        Shape ``(n,)``, at least two different ones.

    Raises
    ------
    ValueError
        If there is only one label, or as many labels as cells.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import silhouette
    >>> silhouette(np.eye(2)[np.repeat([0, 1], 20)], np.repeat(["a", "b"], 20))
    1.0
    """
    names = checked_labels(labels, embedding)
    if not 1 < (n_names := len(np.unique(names))) < len(names):
        raise ValueError(
            f"labels has {n_names} names for {len(names)} cells, but the silhouette needs two "
            "names or more and fewer than cells: pass coarser or finer labels."
        )
    return float(silhouette_score(embedding, names))


def embedding_scores(
    embedding: Embedding,
    labels: ArrayLike,
    *,
    points: Values | None = None,
    max_cells_svm: int | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Every score of an embedding with its default settings, under the name of its function.

    Parameters
    ----------
    embedding
        Shape ``(n, k)``.
    labels
        Shape ``(n,)``, each label at least ten times.
    points
        Points that were embedded, shape ``(n, d)``; without them, the scores that need them are
        left out.
    max_cells_svm
        ``max_cells`` of :func:`linear_svm_accuracy`; no other score depends on it.
    seed
        Seed of the folds, of k-means (one clustering serves all its scores) and of the draws.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import embedding_scores
    >>> scores = embedding_scores(np.eye(2)[np.repeat([0, 1], 20)], np.repeat(["a", "b"], 20))
    >>> scores["linear_svm_accuracy"], scores["kmeans_accuracy"]
    (1.0, 1.0)
    """
    codes, clusters = _codes_and_clusters(embedding, labels, seed)
    scores = {
        "linear_svm_accuracy": linear_svm_accuracy(
            embedding, labels, max_cells=max_cells_svm, seed=seed
        ),
        "knn_accuracy": knn_accuracy(embedding, labels, seed=seed),
        "kmeans_accuracy": _matched_accuracy(codes, clusters),
        "adjusted_rand_index": float(adjusted_rand_score(codes, clusters)),
        "normalized_mutual_information": float(normalized_mutual_info_score(codes, clusters)),
        "silhouette": silhouette(embedding, labels),
    }
    if points is not None:
        for score in (trustworthiness, continuity, random_triplet_accuracy):
            scores[score.__name__] = score(points, embedding, seed=seed)
    return scores


def _codes_and_clusters(
    embedding: Embedding, labels: ArrayLike, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    codes = LabelEncoder().fit_transform(checked_labels(labels, embedding))
    clusters = KMeans(codes.max() + 1, n_init=10, random_state=seed).fit_predict(embedding)
    return codes, clusters


def _matched_accuracy(codes: NDArray[np.int64], clusters: NDArray[np.int32]) -> float:
    table = confusion_matrix(codes, clusters)
    return float(table[linear_sum_assignment(-table)].sum() / table.sum())
