import itertools
from typing import Any

import numpy as np
import pytest
from scipy import sparse, stats
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from small_cells import Array, blobs

from scdiffaug import metrics
from scdiffaug.metrics import structure


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


def test_linear_svm_accuracy_takes_sparse_embeddings(rng: np.random.Generator) -> None:
    points, labels = rng.normal(size=(60, 3)), np.repeat(["a", "b"], 30)
    assert metrics.linear_svm_accuracy(
        sparse.csr_matrix(points), labels
    ) == metrics.linear_svm_accuracy(points, labels)


def test_linear_svm_accuracy_names_the_label_that_is_too_rare() -> None:
    labels = np.repeat(["B", "rare", "T"], [30, 9, 30])
    with pytest.raises(ValueError, match="label 'rare' has 9 cells"):
        metrics.linear_svm_accuracy(np.zeros((69, 2)), labels)


def test_linear_svm_accuracy_needs_each_label_in_each_fold(rng: np.random.Generator) -> None:
    labels = np.repeat(["B", "rare", "T"], [30, 9, 30])
    with pytest.raises(ValueError, match=r"rare.* has 9 cells, fewer than the 10 folds: leave"):
        metrics.linear_svm_accuracy(rng.normal(size=(69, 2)), labels)
    assert 0 <= metrics.linear_svm_accuracy(rng.normal(size=(69, 2)), labels, n_folds=9) <= 1


def test_knn_accuracy_is_the_majority_of_the_ten_nearest(rng: np.random.Generator) -> None:
    points, labels = blobs(rng, spread=1.5)
    scores = []
    for train, test in StratifiedKFold(10, shuffle=True, random_state=3).split(points, labels):
        right = []
        for cell in test:
            order = np.linalg.norm(points[train] - points[cell], axis=1).argsort()
            names, votes = np.unique(labels[train][order[:10]], return_counts=True)
            right.append(names[votes.argmax()] == labels[cell])
        scores.append(np.mean(right))
    accuracy = metrics.knn_accuracy(points, labels, seed=3)
    assert accuracy == pytest.approx(np.mean(scores))
    assert 0.4 < accuracy < 0.95


def test_knn_accuracy_does_not_rescale_the_axes(rng: np.random.Generator) -> None:
    labels = np.repeat(["a", "b"], 50)
    points = np.c_[np.repeat([0.0, 1.0], 50), 1000 * rng.normal(size=100)]
    assert metrics.knn_accuracy(points[:, :1], labels) == 1
    assert metrics.knn_accuracy(points, labels) < 0.7


def test_knn_accuracy_needs_cells_enough_to_vote() -> None:
    labels = np.repeat(["a", "b"], 10)
    points = np.eye(2)[np.repeat([0, 1], 10)]
    assert metrics.knn_accuracy(points, labels, n_neighbors=18) == 0.5
    with pytest.raises(ValueError, match="has 20 cells, but a vote of 19 neighbours needs"):
        metrics.knn_accuracy(points, labels, n_neighbors=19)
    with pytest.raises(ValueError, match=r"label 'b' has 10 cells, fewer than the 11 folds"):
        metrics.knn_accuracy(np.r_[points, points[:5]], ["a"] * 15 + ["b"] * 10, n_folds=11)


@pytest.mark.parametrize("spread", [0.1, 1.0, 5.0])
def test_adjusted_rand_index_counts_pairs(rng: np.random.Generator, spread: float) -> None:
    points, labels = blobs(rng, spread=spread)
    clusters = KMeans(4, n_init=10, random_state=0).fit_predict(points)
    pairs = list(itertools.combinations(range(len(points)), 2))
    same_label = np.array([labels[i] == labels[j] for i, j in pairs])
    same_cluster = np.array([clusters[i] == clusters[j] for i, j in pairs])
    expected = same_label.sum() * same_cluster.sum() / len(pairs)
    most = (same_label.sum() + same_cluster.sum()) / 2
    index = ((same_label & same_cluster).sum() - expected) / (most - expected)
    assert metrics.adjusted_rand_index(points, labels) == pytest.approx(index)


@pytest.mark.parametrize("spread", [0.1, 1.0, 5.0])
def test_normalized_mutual_information_is_over_the_mean_entropy(
    rng: np.random.Generator, spread: float
) -> None:
    points, labels = blobs(rng, spread=spread)
    clusters = KMeans(4, n_init=10, random_state=0).fit_predict(points)
    joint = np.array(
        [[np.mean((labels == a) & (clusters == c)) for c in range(4)] for a in "abcd"]
    )
    of_labels, of_clusters, of_both = (
        stats.entropy(share.ravel()) for share in (joint.sum(1), joint.sum(0), joint)
    )
    expected = (of_labels + of_clusters - of_both) / ((of_labels + of_clusters) / 2)
    found = metrics.normalized_mutual_information(points, labels)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("spread", [0.1, 1.0, 5.0])
def test_silhouette_is_the_mean_width(rng: np.random.Generator, spread: float) -> None:
    points, labels = blobs(rng, spread=spread)
    widths = []
    for i, label in enumerate(labels):
        far = np.linalg.norm(points - points[i], axis=1)
        own = far[labels == label].sum() / ((labels == label).sum() - 1)
        other = min(far[labels == name].mean() for name in "abcd" if name != label)
        widths.append((other - own) / max(own, other))
    assert metrics.silhouette(points, labels) == pytest.approx(np.mean(widths))


@pytest.mark.parametrize("labels", [["a"] * 5, list("abcde")])
def test_silhouette_needs_labels_that_group(labels: list[str]) -> None:
    with pytest.raises(ValueError, match=r"labels has [15] names for 5 cells"):
        metrics.silhouette(np.arange(10.0).reshape(5, 2), labels)


def untrustworthiness(points: Array, embedding: Array, k: int) -> float:
    """1 - trustworthiness: by how many ranks the embedding's neighbours were farther before."""
    n, surplus = len(points), 0
    for i in range(n):
        order = np.linalg.norm(points - points[i], axis=1).argsort()
        rank = {j: r for r, j in enumerate(order[order != i], start=1)}
        near = np.linalg.norm(embedding - embedding[i], axis=1).argsort()
        surplus += sum(max(0, rank[j] - k) for j in near[near != i][:k])
    return 2 * surplus / (n * k * (2 * n - 3 * k - 1))


@pytest.mark.parametrize("n_neighbors", [1, 10])
def test_trustworthiness_and_continuity_by_rank(
    rng: np.random.Generator, n_neighbors: int
) -> None:
    points = rng.normal(size=(60, 5))
    embedding = points[:, :2] + 0.1 * rng.normal(size=(60, 2))
    trust = metrics.trustworthiness(points, embedding, n_neighbors=n_neighbors)
    assert trust == pytest.approx(1 - untrustworthiness(points, embedding, n_neighbors))
    cont = metrics.continuity(points, embedding, n_neighbors=n_neighbors)
    assert cont == pytest.approx(1 - untrustworthiness(embedding, points, n_neighbors))
    assert 0.5 < trust < 1
    assert trust != cont


def test_trustworthiness_and_continuity_see_different_faults(rng: np.random.Generator) -> None:
    # Two ends of a line folded onto each other come near (intrusion); a cut line goes apart.
    line = np.arange(100.0)[:, None] + 0.1 * rng.uniform(size=(100, 1))
    folded, cut = np.abs(line - 50), line + 200 * (rng.uniform(size=(100, 1)) > 0.5)
    assert metrics.trustworthiness(line, folded) < metrics.continuity(line, folded)
    assert metrics.continuity(line, cut) < metrics.trustworthiness(line, cut)


def test_trustworthiness_of_many_cells_is_that_of_a_seeded_draw(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = rng.normal(size=(90, 5))
    embedding = points[:, :2]
    monkeypatch.setattr("scdiffaug.metrics.structure._MOST_CELLS_RANKED", 60)
    drawn = np.random.default_rng(7).choice(90, 60, replace=False)
    expected = 1 - untrustworthiness(points[drawn], embedding[drawn], 10)
    assert metrics.trustworthiness(points, embedding, seed=7) == pytest.approx(expected)
    expected = 1 - untrustworthiness(embedding[drawn], points[drawn], 10)
    assert metrics.continuity(points, embedding, seed=7) == pytest.approx(expected)
    assert metrics.continuity(points, embedding, seed=8) != pytest.approx(expected)


@pytest.mark.parametrize("score", [metrics.trustworthiness, metrics.continuity])
def test_ranks_need_cells_enough(score: Any) -> None:
    line = np.arange(21.0)[:, None] ** 2
    assert score(line, line) == 1
    with pytest.raises(
        ValueError, match="20 cells, but a rank of 10 neighbours needs at least 21"
    ):
        score(line[:20], line[:20])


def test_random_triplet_accuracy_comes_near_that_of_all_triplets(rng: np.random.Generator) -> None:
    points = rng.normal(size=(20, 5))
    embedding = points[:, :2]
    kept = []
    for i, j, k in itertools.permutations(range(20), 3):
        before = np.linalg.norm(points[i] - points[j]) < np.linalg.norm(points[i] - points[k])
        now = np.linalg.norm(embedding[i] - embedding[j]) < np.linalg.norm(
            embedding[i] - embedding[k]
        )
        kept.append(before == now)
    found = metrics.random_triplet_accuracy(points, embedding, n_triplets=40_000)
    # Four standard errors of a share of 40,000 draws.
    assert found == pytest.approx(np.mean(kept), abs=0.01)
    assert found != metrics.random_triplet_accuracy(points, embedding, n_triplets=40_000, seed=1)


def test_random_triplet_accuracy_of_chance_and_of_a_copy(rng: np.random.Generator) -> None:
    points = rng.normal(size=(200, 5))
    assert metrics.random_triplet_accuracy(points, 3 - 2 * points) == 1
    noise = rng.normal(size=(200, 2))
    assert metrics.random_triplet_accuracy(points, noise) == pytest.approx(0.5, abs=0.03)


def test_triplets_are_three_different_cells_all_alike_often() -> None:
    triplets = structure._triplets(4, 24_000, 0)
    found, counts = np.unique(triplets, axis=0, return_counts=True)
    assert {tuple(row) for row in found} == set(itertools.permutations(range(4), 3))
    assert counts.min() > 850  # 1,000 expected; five standard deviations


def test_structure_scores_take_sparse_points(rng: np.random.Generator) -> None:
    points = rng.poisson(1.0, size=(60, 30)) + rng.uniform(size=(60, 30))
    points[rng.uniform(size=points.shape) < 0.5] = 0
    embedding = points[:, :2] + rng.uniform(size=(60, 2))
    for score in (metrics.trustworthiness, metrics.continuity, metrics.random_triplet_accuracy):
        dense = score(points, embedding)
        assert score(sparse.csr_matrix(points), embedding) == pytest.approx(dense)
        with pytest.raises(ValueError, match="points has 60 cells, but embedding has 59"):
            score(points, embedding[:59])


def test_embedding_scores_are_those_of_the_single_functions(rng: np.random.Generator) -> None:
    points, labels = blobs(rng, spread=1.0)
    embedding = points[:, :1]
    scores = metrics.embedding_scores(embedding, labels, points=points, seed=3)
    of_labels = [
        metrics.linear_svm_accuracy,
        metrics.knn_accuracy,
        metrics.kmeans_accuracy,
        metrics.adjusted_rand_index,
        metrics.normalized_mutual_information,
    ]
    expected = {score.__name__: score(embedding, labels, seed=3) for score in of_labels}
    expected["silhouette"] = metrics.silhouette(embedding, labels)
    without_points = dict(expected)
    for score in (metrics.trustworthiness, metrics.continuity, metrics.random_triplet_accuracy):
        expected[score.__name__] = score(points, embedding, seed=3)
    assert scores == expected
    assert all(type(value) is float for value in scores.values())
    assert metrics.embedding_scores(embedding, labels, seed=3) == without_points


@pytest.mark.parametrize(
    "score",
    [
        metrics.linear_svm_accuracy,
        metrics.knn_accuracy,
        metrics.kmeans_accuracy,
        metrics.adjusted_rand_index,
        metrics.normalized_mutual_information,
        metrics.silhouette,
        metrics.embedding_scores,
    ],
)
def test_scores_of_labels_need_one_for_each_cell(rng: np.random.Generator, score: Any) -> None:
    points, labels = blobs(rng, spread=1.0)
    with pytest.raises(
        ValueError, match=r"labels has shape \(119,\), but embedding has 120 cells"
    ):
        score(points, labels[:-1])
    with pytest.raises(ValueError, match="labels has 1 missing values"):
        score(points, np.where(np.arange(120) == 5, None, labels))


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


def test_labels_may_be_strings_of_any_length(rng: np.random.Generator) -> None:
    points, labels = blobs(rng, spread=0.5)
    text = np.array([f"type {label}" for label in labels])
    long = text.astype(np.dtypes.StringDType())
    assert metrics.knn_accuracy(points, long) == metrics.knn_accuracy(points, text)
    assert metrics.type_kept(points, long, points, expected=long) == metrics.type_kept(
        points, text, points, expected=text
    )
