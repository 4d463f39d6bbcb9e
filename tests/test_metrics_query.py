"""Scores of huge data, of which a part is drawn, and of cells that were not learnt from."""

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from small_cells import blobs

from scdiffaug import metrics


def test_linear_svm_accuracy_of_a_draw_is_that_of_the_drawn_cells(
    rng: np.random.Generator,
) -> None:
    points, labels = blobs(rng, spread=1.5, n=400)
    labels[:25] = "r"
    drawn = np.random.default_rng(0).choice(400, 90, replace=False)
    drawn = drawn[labels[drawn] != "r"]
    assert 0 < 90 - len(drawn) < 10
    of_drawn = metrics.linear_svm_accuracy(points[drawn], labels[drawn])
    assert metrics.linear_svm_accuracy(points, labels, max_cells=90) == of_drawn
    whole = metrics.linear_svm_accuracy(points, labels)
    assert metrics.linear_svm_accuracy(points, labels, max_cells=400) == whole != of_drawn
    with pytest.raises(ValueError, match="max_cells=10 leaves fewer than two labels of 10 cells"):
        metrics.linear_svm_accuracy(points, labels, max_cells=10)


def test_query_cells_are_judged_by_what_learnt_from_training_cells_alone(
    rng: np.random.Generator,
) -> None:
    points, labels = blobs(rng, spread=0.8, n=300)
    query, answers = blobs(rng, spread=0.8, n=80)
    found = metrics.query_scores(points, labels, query=query, query_labels=answers)
    svm = make_pipeline(StandardScaler(), SVC(kernel="linear")).fit(points, labels)
    assert found["linear_svm_accuracy"] == (svm.predict(query) == answers).mean()
    distance = np.linalg.norm(query[:, None] - points[None], axis=2)
    votes = labels[np.argsort(distance, axis=1)[:, :10]]
    majority = [max(sorted(set(row)), key=list(row).count) for row in votes]
    assert found["knn_accuracy"] == (np.array(majority) == answers).mean()
    same = metrics.query_scores(points, labels, query=points, query_labels=labels)
    assert same["kmeans_accuracy"] == metrics.kmeans_accuracy(points, labels)
    mixed = np.where(np.arange(80) % 2, answers, "unseen")
    half = metrics.query_scores(points, labels, query=query, query_labels=mixed)
    assert half["knn_accuracy"] == (np.array(majority) == mixed).mean() <= 0.5
    with pytest.raises(ValueError, match="embedding has 2 features, but query has 1"):
        metrics.query_scores(points, labels, query=query[:, :1], query_labels=answers)
