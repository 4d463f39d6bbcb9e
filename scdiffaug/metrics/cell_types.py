"""Whether augmented cells keep the type of the cell they were made from."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pandas.api.types import infer_dtype
from sklearn.base import ClassifierMixin
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from scdiffaug._checks import check_choice, check_whole
from scdiffaug.metrics._inputs import (
    Values,
    checked_labels,
    label_array,
    require_cells,
    require_common_labels,
    require_same_features,
)
from scdiffaug.metrics._spaces import dense

Judge: TypeAlias = Literal["neighbors", "logistic"]


def type_kept(
    real: Values,
    labels: ArrayLike,
    made: Values,
    *,
    expected: ArrayLike,
    judge: Judge = "neighbors",
    n_neighbors: int = 15,
    seed: int = 0,
) -> float:
    """Share of augmented cells to which a classifier gives the label of their source.

    The classifier learns from real cells alone, in at most 50 principal components of these. It
    is a majority vote of the nearest neighbours or a logistic regression.

    Parameters
    ----------
    real, labels
        Log-normalised real cells, shape ``(n, d)``, and their labels.
    made, expected
        Log-normalised augmented cells, shape ``(m, d)``, and the labels of their sources.
    judge
        Classifier, ``"neighbors"`` or ``"logistic"`` (on standardised components).
    n_neighbors
        Number of real cells that vote.
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
    wanted = _expected(expected, made, labels)
    require_common_labels(wanted, label_array(labels), what=("expected", "labels"))
    classifier = _classifier(judge, n_neighbors)
    return float((_judged(real, labels, made, classifier=classifier, seed=seed) == wanted).mean())


def type_kept_per_type(
    real: Values,
    labels: ArrayLike,
    made: Values,
    *,
    expected: ArrayLike,
    judge: Judge = "neighbors",
    n_neighbors: int = 15,
    seed: int = 0,
) -> dict[str, float]:
    """:func:`type_kept` for each type of source separately, by the name of the type.

    Parameters
    ----------
    real, labels, made, expected, judge, n_neighbors, seed
        As in :func:`type_kept`.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import type_kept_per_type
    >>> cells = np.repeat(np.eye(2), 20, axis=0)
    >>> labels = np.repeat(["a", "b"], 20)
    >>> type_kept_per_type(cells, labels, cells[:20], expected=["a"] * 10 + ["b"] * 10)
    {'a': 1.0, 'b': 0.0}
    """
    wanted = _expected(expected, made, labels)
    classifier = _classifier(judge, n_neighbors)
    kept = _judged(real, labels, made, classifier=classifier, seed=seed) == wanted
    return {str(name): float(kept[wanted == name].mean()) for name in np.unique(wanted)}


def _expected(expected: ArrayLike, made: Values, labels: ArrayLike) -> NDArray[Any]:
    wanted = checked_labels(expected, made, name="expected", of="made")
    known = label_array(labels)
    is_text = [infer_dtype(values) == "string" for values in (wanted, known)]
    # A type that no real cell has is no mistake; text beside numbers is.
    if len(wanted) and len(known) and is_text[0] != is_text[1]:
        shown = [
            next(value for value in values.tolist() if isinstance(value, str) == text)
            for values, text in zip((wanted, known), is_text, strict=True)
        ]
        raise ValueError(
            f"expected holds values like {shown[0]!r}, labels like {shown[1]!r}: pass both as "
            "text, or both as numbers."
        )
    return wanted


def _classifier(judge: Judge, n_neighbors: int) -> ClassifierMixin:
    check_whole("n_neighbors", n_neighbors)
    check_choice("judge", judge, get_args(Judge))
    if judge == "neighbors":
        return KNeighborsClassifier(n_neighbors)
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000))


def _judged(
    real: Values, labels: ArrayLike, made: Values, *, classifier: ClassifierMixin, seed: int
) -> NDArray[Any]:
    require_same_features(real, made, names=("real", "made"))
    known = checked_labels(labels, real, of="real")
    if isinstance(classifier, KNeighborsClassifier):
        n_neighbors = classifier.n_neighbors
        require_cells(real, n_neighbors, name="real", why=f"a vote of {n_neighbors} neighbours")
    require_cells(real, 2, name="real", why="a judge")
    n_pcs = max(1, min(50, *(size - 1 for size in real.shape)))
    pca = PCA(n_pcs, random_state=seed)
    classifier.fit(pca.fit_transform(dense(real)), known)
    return classifier.predict(pca.transform(dense(made)))
