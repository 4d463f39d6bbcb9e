import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse, stats
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from scdiffaug import metrics

Array = NDArray[np.floating[Any]]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def blobs(rng: np.random.Generator, *, spread: float, n: int = 120) -> tuple[Array, NDArray[Any]]:
    """Cells of four types in the plane, of which two lie close together."""
    centres = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [1.0, 5.0]])
    types = rng.integers(4, size=n)
    return centres[types] + spread * rng.normal(size=(n, 2)), np.array(list("dacb"))[types]


@pytest.mark.parametrize("spread", [0.1, 1.0, 5.0])
def test_kmeans_accuracy_is_the_best_of_all_matchings(
    rng: np.random.Generator, spread: float
) -> None:
    points, labels = blobs(rng, spread=spread)
    clusters = KMeans(4, n_init=10, random_state=0).fit_predict(points)
    best = max(
        np.mean(np.array(names)[clusters] == labels) for names in itertools.permutations("abcd")
    )
    assert metrics.kmeans_accuracy(points, labels) == pytest.approx(best)


def test_kmeans_accuracy_does_not_depend_on_names_or_row_order(rng: np.random.Generator) -> None:
    points, labels = blobs(rng, spread=0.3)
    score = metrics.kmeans_accuracy(points, labels)
    codes = np.searchsorted(["a", "b", "c", "d"], labels)
    order = rng.permutation(len(points))
    assert metrics.kmeans_accuracy(points[order], labels[order]) == pytest.approx(score)
    assert metrics.kmeans_accuracy(points, 10 - codes) == pytest.approx(score)
    assert score > 0.95


def test_kmeans_accuracy_of_a_split_and_a_merged_type() -> None:
    # Three groups of points, of which the middle one is two types and the left two are one.
    points = np.repeat([[0.0], [10.0], [100.0]], [30, 30, 40], axis=0)
    labels = np.repeat(["one", "two", "three"], [60, 20, 20])
    assert metrics.kmeans_accuracy(points, labels) == pytest.approx((30 + 20) / 100)


def test_linear_svm_accuracy_is_the_mean_over_the_folds(rng: np.random.Generator) -> None:
    points, labels = blobs(rng, spread=1.5)
    points = points * [1.0, 1000.0]
    scores = []
    for train, test in StratifiedKFold(5, shuffle=True, random_state=3).split(points, labels):
        scaler = StandardScaler().fit(points[train])
        classifier = SVC(kernel="linear").fit(scaler.transform(points[train]), labels[train])
        scores.append((classifier.predict(scaler.transform(points[test])) == labels[test]).mean())
    accuracy = metrics.linear_svm_accuracy(points, labels, n_folds=5, seed=3)
    assert accuracy == pytest.approx(np.mean(scores))
    assert 0.5 < accuracy < 1


def test_linear_svm_accuracy_sees_only_what_a_line_can_part(rng: np.random.Generator) -> None:
    angle = rng.uniform(0, 2 * np.pi, size=120)
    labels = np.repeat(["inner", "outer"], 60)
    ring = np.where(labels == "inner", 1.0, 5.0)[:, None] * np.c_[np.cos(angle), np.sin(angle)]
    assert metrics.linear_svm_accuracy(ring, labels) < 0.85
    assert metrics.linear_svm_accuracy((ring**2).sum(1, keepdims=True), labels) == 1


def test_linear_svm_accuracy_names_the_label_that_is_too_rare() -> None:
    labels = np.repeat(["B", "rare", "T"], [30, 9, 30])
    with pytest.raises(ValueError, match="label 'rare' has 9 cells"):
        metrics.linear_svm_accuracy(np.zeros((69, 2)), labels)


def test_linear_svm_accuracy_needs_each_label_in_each_fold(rng: np.random.Generator) -> None:
    labels = np.repeat(["B", "rare", "T"], [30, 9, 30])
    with pytest.raises(ValueError, match=r"rare.* has 9 cells, fewer than the 10 folds: leave"):
        metrics.linear_svm_accuracy(rng.normal(size=(69, 2)), labels)
    assert 0 <= metrics.linear_svm_accuracy(rng.normal(size=(69, 2)), labels, n_folds=9) <= 1


def test_two_sample_auc_of_one_distribution_is_a_half(rng: np.random.Generator) -> None:
    real, made = rng.normal(size=(2, 300, 5))
    assert metrics.two_sample_auc(real, made, n_trees=30) == pytest.approx(0.5, abs=0.08)


def test_two_sample_auc_of_separated_distributions_is_one(rng: np.random.Generator) -> None:
    real, made = rng.normal(size=(60, 5)), 20 + rng.normal(size=(40, 5))
    assert metrics.two_sample_auc(real, made, n_trees=10) == 1


def test_two_sample_auc_grows_with_the_shift(rng: np.random.Generator) -> None:
    real, made = rng.normal(size=(2, 200, 5))
    scores = [metrics.two_sample_auc(real, made + shift, n_trees=30) for shift in (0.0, 0.7, 2.0)]
    assert scores[0] < scores[1] < scores[2]


def test_two_sample_auc_agrees_for_sparse_and_dense_cells(rng: np.random.Generator) -> None:
    real, made = rng.poisson(0.5, size=(60, 5)), rng.poisson(1.0, size=(60, 5))
    dense = metrics.two_sample_auc(real, made, n_trees=50)
    sparse_cells = sparse.csr_matrix(real), sparse.csr_matrix(made)
    # scikit-learn breaks ties between splits in another order for sparse columns.
    assert metrics.two_sample_auc(*sparse_cells, n_trees=50) == pytest.approx(dense, abs=0.05)


def test_two_sample_auc_does_not_depend_on_the_order_of_the_cells(
    rng: np.random.Generator,
) -> None:
    # Cells sorted by type, as many files have them: folds cut in this order would part the types.
    centre = 3 * rng.normal(size=(6, 10))[np.repeat(np.arange(6), 40)]
    real, made = (centre + spread * rng.normal(size=(240, 10)) for spread in (1.0, 0.5))
    shuffled = metrics.two_sample_auc(rng.permutation(real), rng.permutation(made), n_trees=50)
    assert shuffled > 0.8
    assert metrics.two_sample_auc(real, made, n_trees=50) == pytest.approx(shuffled, abs=0.05)


def test_type_kept_is_the_majority_of_the_nearest(rng: np.random.Generator) -> None:
    real, labels = blobs(rng, spread=1.0)
    real = np.c_[real, 0.1 * rng.normal(size=(len(real), 2))]
    sources = rng.permutation(len(real))[:90]
    made, expected = real[sources] + rng.normal(size=(90, 4)), labels[sources]
    pca = PCA(3).fit(real)
    for n_neighbors in (1, 5, 25):
        kept = []
        for cell, name in zip(pca.transform(made), expected, strict=True):
            order = np.linalg.norm(pca.transform(real) - cell, axis=1).argsort()
            names, votes = np.unique(labels[order[:n_neighbors]], return_counts=True)
            kept.append(names[votes.argmax()] == name)
        share = metrics.type_kept(real, labels, made, expected=expected, n_neighbors=n_neighbors)
        assert share == pytest.approx(np.mean(kept))
        assert 0.4 < share < 0.95


def test_type_kept_counts_cells_that_changed_type() -> None:
    cells = np.repeat(np.eye(3), 20, axis=0)
    labels = np.repeat(["a", "b", "c"], 20)
    expected = np.repeat(["a", "b", "a"], 20)
    for form in (np.asarray, sparse.csr_matrix):
        share = metrics.type_kept(form(cells), labels, form(cells), expected=expected)
        assert share == pytest.approx(2 / 3)


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_zero_share_counts_zeros(form: Any) -> None:
    x = np.array([[0.0, 1.0, 0.0, -2.0], [0.0, 0.0, 0.5, 0.0]])
    assert metrics.zero_share(form(x)) == pytest.approx(5 / 8)


def test_zero_share_counts_stored_zeros() -> None:
    x = sparse.csr_matrix(np.array([[1.0, 2.0], [3.0, 0.0]]))
    x.data[0] = 0
    assert metrics.zero_share(x) == pytest.approx(0.5)


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_gene_mean_correlation_is_pearson_of_the_means(
    rng: np.random.Generator, form: Any
) -> None:
    real, made = rng.poisson(1.0, size=(20, 9)), rng.poisson(2.0, size=(35, 9))
    expected = stats.pearsonr(real.mean(0), made.mean(0)).statistic
    assert metrics.gene_mean_correlation(form(real), form(made)) == pytest.approx(expected)
    assert metrics.gene_mean_correlation(form(real), form(3 * real)) == pytest.approx(1)
