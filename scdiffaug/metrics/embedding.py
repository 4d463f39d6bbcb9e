"""Scores of an embedding: against labels, and against the points that were embedded."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from sklearn import manifold
from sklearn.cluster import KMeans
from sklearn.metrics import (
    adjusted_rand_score,
    confusion_matrix,
    normalized_mutual_info_score,
    silhouette_score,
)
from sklearn.metrics.pairwise import paired_euclidean_distances
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import LabelEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.utils import gen_batches

from scdiffaug._checks import check_whole
from scdiffaug.metrics._inputs import (
    Values,
    checked_labels,
    require_cells,
    require_cells_per_label,
    require_same_cells,
)

Embedding = NDArray[np.floating[Any]]

# scikit-learn's trustworthiness holds three n × n tables: 0.6 GB at this many cells.
_MOST_CELLS_RANKED = 5_000
_TRIPLETS_AT_ONCE = 10_000


def linear_svm_accuracy(
    embedding: Embedding, labels: ArrayLike, *, n_folds: int = 10, seed: int = 0
) -> float:
    """Mean accuracy of a linear support vector machine over stratified folds, as Zang et al. 2023.

    Time grows with the square of the cells and with the overlap of the labels.

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
    names = checked_labels(labels, embedding)
    require_cells_per_label(names, n_folds)
    classifier = make_pipeline(StandardScaler(), SVC(kernel="linear"))
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    return float(cross_val_score(classifier, embedding, names, cv=folds).mean())


def knn_accuracy(
    embedding: Embedding,
    labels: ArrayLike,
    *,
    n_neighbors: int = 10,
    n_folds: int = 10,
    seed: int = 0,
) -> float:
    """Mean accuracy of the majority of the nearest neighbours over stratified folds.

    Coordinates are taken as they are, unscaled: the distances are what is scored.

    Parameters
    ----------
    embedding
        Shape ``(n, k)``.
    labels
        Shape ``(n,)``; each at least ``n_folds`` times.
    n_neighbors
        Cells of the other folds that vote.
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
        Seed of the starting centres, of which ten are tried.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import kmeans_accuracy
    >>> kmeans_accuracy(np.eye(2)[np.repeat([0, 1], 20)], np.repeat(["a", "b"], 20))
    1.0
    """
    return _matched_accuracy(*_codes_and_clusters(embedding, labels, seed))


def adjusted_rand_index(embedding: Embedding, labels: ArrayLike, *, seed: int = 0) -> float:
    """Agreement of k-means clusters with labels in pairs of cells (Hubert & Arabie 1985).

    0 is what chance gives, 1 the same partition.

    Parameters
    ----------
    embedding, labels, seed
        As of :func:`kmeans_accuracy`; the clusters are the same.

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
    """Mutual information of k-means clusters and labels over the mean of their entropies.

    Parameters
    ----------
    embedding, labels, seed
        As of :func:`kmeans_accuracy`; the clusters are the same.

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

    Every distance is computed: time grows with the square of the cells, memory does not.

    Parameters
    ----------
    embedding
        Shape ``(n, k)``.
    labels
        Shape ``(n,)``, at least two names.

    Raises
    ------
    ValueError
        If there is but one label, or as many as cells.

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


def trustworthiness(
    points: Values, embedding: Embedding, *, n_neighbors: int = 10, seed: int = 0
) -> float:
    """Share of the embedding's neighbours that were near before, by rank (Venna & Kaski 2001).

    Above 5,000 cells it is that of 5,000 drawn by ``seed``, as scikit-learn's memory grows with
    the square of the cells; neighbours are then those among the drawn.

    Parameters
    ----------
    points
        What was embedded, shape ``(n, d)``.
    embedding
        Shape ``(n, k)``.
    n_neighbors
        Neighbours looked at; fewer than half the cells.
    seed
        Seed of the draw.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import trustworthiness
    >>> line = np.arange(30.0)[:, None]
    >>> trustworthiness(line, -line)
    1.0
    """
    check_whole("n_neighbors", n_neighbors)
    require_same_cells(points, embedding)
    why = f"a rank of {n_neighbors} neighbours"
    require_cells(embedding, 2 * n_neighbors + 1, name="embedding", why=why)
    n_cells = embedding.shape[0]
    drawn = np.arange(n_cells)
    if n_cells > _MOST_CELLS_RANKED:
        drawn = np.random.default_rng(seed).choice(n_cells, _MOST_CELLS_RANKED, replace=False)
    return float(
        manifold.trustworthiness(points[drawn], embedding[drawn], n_neighbors=n_neighbors)
    )


def continuity(
    points: Values, embedding: Embedding, *, n_neighbors: int = 10, seed: int = 0
) -> float:
    """Share of the points' neighbours that are still near, by rank (Venna & Kaski 2001).

    :func:`trustworthiness` with the two exchanged, on the same cells.

    Parameters
    ----------
    points, embedding, n_neighbors, seed
        As of :func:`trustworthiness`.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import continuity
    >>> line = np.arange(30.0)[:, None]
    >>> continuity(line, -line)
    1.0
    """
    require_same_cells(points, embedding)
    return trustworthiness(embedding, points, n_neighbors=n_neighbors, seed=seed)


def random_triplet_accuracy(
    points: Values, embedding: Embedding, *, n_triplets: int = 100_000, seed: int = 0
) -> float:
    """Share of random triplets that keep which of two cells is the nearer to the third.

    The global score of Wang et al. 2021 (PaCMAP); about 0.5 for an embedding that knows nothing.

    Parameters
    ----------
    points
        What was embedded, shape ``(n, d)``.
    embedding
        Shape ``(n, k)``.
    n_triplets, seed
        Triplets drawn, each of three different cells, and seed of the draw.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import random_triplet_accuracy
    >>> line = np.arange(30.0)[:, None]
    >>> random_triplet_accuracy(line, -line)
    1.0
    """
    check_whole("n_triplets", n_triplets)
    require_same_cells(points, embedding)
    require_cells(embedding, 3, name="embedding", why="a triplet")
    triplets = _triplets(embedding.shape[0], n_triplets, seed)
    return float(
        (_first_is_nearer(points, triplets) == _first_is_nearer(embedding, triplets)).mean()
    )


def embedding_scores(
    embedding: Embedding, labels: ArrayLike, *, points: Values | None = None, seed: int = 0
) -> dict[str, float]:
    """Every score of this file with its default settings, under the name of its function.

    Parameters
    ----------
    embedding
        Shape ``(n, k)``.
    labels
        Shape ``(n,)``; each at least ten times.
    points
        What was embedded, shape ``(n, d)``; without it the scores that need it are left out.
    seed
        Seed of the folds, of k-means, which runs once, and of the draws.

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
        "linear_svm_accuracy": linear_svm_accuracy(embedding, labels, seed=seed),
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


def _triplets(n_cells: int, n_triplets: int, seed: int) -> NDArray[np.int64]:
    """Rows of three different cells, shape ``(n_triplets, 3)``."""
    rng = np.random.default_rng(seed)
    anchor = rng.integers(n_cells, size=n_triplets)
    one = rng.integers(1, n_cells, size=n_triplets)
    other = rng.integers(1, n_cells - 1, size=n_triplets)
    other += other >= one
    return np.stack([anchor, (anchor + one) % n_cells, (anchor + other) % n_cells], axis=1)


def _first_is_nearer(values: Values, triplets: NDArray[np.int64]) -> NDArray[np.bool_]:
    parts = []
    for batch in gen_batches(len(triplets), _TRIPLETS_AT_ONCE):
        anchor, one, other = (values[cells] for cells in triplets[batch].T)
        near, far = (paired_euclidean_distances(anchor, cell) for cell in (one, other))
        parts.append(near < far)
    return np.concatenate(parts)
