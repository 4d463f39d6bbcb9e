import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.preprocessing import StandardScaler
from small_cells import Array, counts, far

from scdiffaug import metrics
from scdiffaug.metrics import _spaces


def forest_auc(real: Any, made: Any) -> float:
    return metrics.two_sample_auc(real, made, n_trees=40)


PAIR_SCORES = [
    forest_auc,
    metrics.depth_distance,
    metrics.detected_genes_distance,
    metrics.gene_gene_correlation_agreement,
    metrics.gene_mean_correlation,
    metrics.gene_variance_correlation,
    metrics.gene_variance_ratio,
    metrics.gene_zero_share_difference,
    metrics.mixing,
    metrics.mmd,
    metrics.precision_recall_density_coverage,
    metrics.wasserstein_2,
]


@pytest.mark.parametrize("score", PAIR_SCORES)
def test_sides_must_have_the_same_features(rng: np.random.Generator, score: Any) -> None:
    with pytest.raises(ValueError, match="real has 12 features, but made has 11: pass"):
        score(counts(rng), counts(rng, d=11))


@pytest.mark.parametrize("score", PAIR_SCORES)
@pytest.mark.parametrize("forms", [*itertools.product([np.asarray, sparse.csr_matrix], repeat=2)])
def test_pair_scores_agree_for_sparse_and_dense(
    rng: np.random.Generator, score: Any, forms: tuple[Any, Any]
) -> None:
    real, made = counts(rng), counts(rng, n=50)
    # scikit-learn's forest breaks ties between splits in another order for sparse columns.
    fuzz = 0.06 if score is forest_auc else 1e-9
    found = score(forms[0](real), forms[1](made))
    assert found == pytest.approx(score(real, made), abs=fuzz)


@pytest.mark.parametrize(
    ("score", "n"),
    [
        (metrics.mmd, 1),
        (metrics.mixing, 15),
        (metrics.precision_recall_density_coverage, 5),
        (forest_auc, 2),
        (metrics.gene_gene_correlation_agreement, 1),
    ],
)
def test_sides_need_cells_enough(rng: np.random.Generator, score: Any, n: int) -> None:
    real = counts(rng)
    with pytest.raises(ValueError, match=rf"made has {n} cells, but .* needs at least {n + 1}"):
        score(real, real[:n])
    score(real, real[: n + 1] + 1)


def test_two_sample_auc_of_components_sees_what_no_gene_alone_shows(
    rng: np.random.Generator,
) -> None:
    # Every gene is alike on both sides; made cells lack the programme that genes share.
    programme = rng.choice([-1.0, 1.0], size=(150, 1)) * rng.choice([-1.0, 1.0], size=60)
    real = programme + rng.normal(size=(150, 60))
    made = np.array([rng.permutation(gene) for gene in real.T]).T
    of_genes = metrics.two_sample_auc(real, made, n_trees=50)
    of_components = metrics.two_sample_auc(real, made, n_trees=50, n_pcs=2)
    assert of_components > 0.95
    assert of_components > of_genes


def test_two_sample_auc_of_components_of_one_distribution_is_a_half(
    rng: np.random.Generator,
) -> None:
    real, made = rng.normal(size=(2, 300, 20))
    auc = metrics.two_sample_auc(real, made, n_trees=30, n_pcs=5)
    assert auc == pytest.approx(0.5, abs=0.08)


def test_mmd_is_the_unbiased_sum_over_pairs(rng: np.random.Generator) -> None:
    real, made = rng.normal(size=(25, 3)), 0.5 + rng.normal(size=(20, 3))
    within_real = far(real, real)
    median = np.median([within_real[i, j] for i, j in itertools.combinations(range(25), 2)])

    def kernel(a: Array, b: Array) -> float:
        return np.mean(
            [np.exp(-((a - b) ** 2).sum() / (2 * (s * median) ** 2)) for s in (0.5, 1, 2)]
        )

    expected = (
        np.mean([kernel(a, b) for a, b in itertools.permutations(real, 2)])
        + np.mean([kernel(a, b) for a, b in itertools.permutations(made, 2)])
        - 2 * np.mean([kernel(a, b) for a, b in itertools.product(real, made)])
    )
    assert metrics.mmd(real, made, n_pcs=None) == pytest.approx(expected)
    # All components only turn the cells.
    assert metrics.mmd(real, made) == pytest.approx(expected)


def test_mmd_is_unbiased_and_grows_with_the_shift(rng: np.random.Generator) -> None:
    same = [metrics.mmd(*rng.normal(size=(2, 30, 3))) for _ in range(100)]
    assert min(same) < 0 < max(same)
    assert abs(np.mean(same)) < 4 * stats.sem(same)
    real, made = rng.normal(size=(2, 100, 3))
    shifted = [metrics.mmd(real, made + shift) for shift in (0.0, 0.5, 2.0)]
    assert shifted[0] < shifted[1] < shifted[2]
    assert metrics.mmd(real, 0.5 * made) > shifted[0] + 0.01


def test_mmd_needs_cells_that_differ(rng: np.random.Generator) -> None:
    made = rng.normal(size=(20, 3))
    with pytest.raises(ValueError, match="real has equal cells in most pairs"):
        metrics.mmd(np.zeros((20, 3)), made)
    assert metrics.mmd(made, np.zeros((20, 3))) > 0.1


def test_wasserstein_2_is_the_best_of_all_matchings(rng: np.random.Generator) -> None:
    real, made = rng.normal(size=(6, 3)), 1 + rng.normal(size=(6, 3))
    squared = far(real, made) ** 2
    best = min(squared[range(6), order].mean() for order in itertools.permutations(range(6)))
    for n_pcs in (None, 50):
        assert metrics.wasserstein_2(real, made, n_pcs=n_pcs) == pytest.approx(np.sqrt(best))


def test_wasserstein_2_of_a_copy_and_of_a_line(rng: np.random.Generator) -> None:
    real, made = rng.normal(size=(2, 80, 1))
    assert metrics.wasserstein_2(real, rng.permutation(real)) == pytest.approx(0, abs=1e-6)
    # On a line the best matching is that of the ranks.
    expected = np.sqrt(((np.sort(real, axis=0) - np.sort(made, axis=0)) ** 2).mean())
    assert metrics.wasserstein_2(real, made) == pytest.approx(expected)


def test_wasserstein_2_cuts_both_sides_to_the_smaller(rng: np.random.Generator) -> None:
    real, made = rng.normal(size=(300, 2)), 10 + rng.normal(size=(50, 2))
    for sides in ((real, made), (made, real)):
        assert metrics.wasserstein_2(*sides) == pytest.approx(10 * np.sqrt(2), rel=0.05)
    few = metrics.wasserstein_2(real, made, max_cells=20)
    assert few != metrics.wasserstein_2(real, made, max_cells=20, seed=1)
    assert few == metrics.wasserstein_2(real, made, max_cells=20)


def test_a_draw_takes_each_cell_once(rng: np.random.Generator) -> None:
    cells = np.arange(30.0)[:, None]
    np.testing.assert_array_equal(_spaces.drawn(cells, 30, rng=rng), cells)
    assert len(np.unique(_spaces.drawn(cells, 29, rng=rng))) == 29


@pytest.mark.parametrize("n_neighbors", [1, 5])
def test_precision_recall_density_coverage_by_balls(
    rng: np.random.Generator, n_neighbors: int
) -> None:
    real, made = rng.normal(size=(50, 3)), rng.normal([1.5, 0, 0], size=(50, 3))
    of_real, of_made = (np.sort(far(x, x), axis=1)[:, n_neighbors] for x in (real, made))
    apart = far(real, made)
    balls = [[apart[i, j] <= of_real[i] for j in range(50)] for i in range(50)]
    expected = {
        "precision": np.mean([any(balls[i][j] for i in range(50)) for j in range(50)]),
        "recall": np.mean([any(apart[i] <= of_made) for i in range(50)]),
        "density": np.sum(balls) / (n_neighbors * 50),
        "coverage": np.mean([any(ball) for ball in balls]),
    }
    for n_pcs in (None, 50):
        found = metrics.precision_recall_density_coverage(
            real, made, n_neighbors=n_neighbors, n_pcs=n_pcs
        )
        assert found == pytest.approx(expected)
    assert 0 < expected["precision"] < 1
    assert 0 < expected["recall"] < 1


def test_precision_and_recall_tell_dropped_from_invented_cells(rng: np.random.Generator) -> None:
    both = np.r_[rng.normal(size=(100, 2)), 50 + rng.normal(size=(100, 2))]
    one = rng.normal(size=(200, 2))
    dropped = metrics.precision_recall_density_coverage(both, one)
    assert dropped["precision"] > 0.85
    assert max(dropped["recall"], dropped["coverage"]) < 0.55
    invented = metrics.precision_recall_density_coverage(one, both)
    assert invented["precision"] < 0.55
    assert invented["recall"] > 0.85
    itself = metrics.precision_recall_density_coverage(both, both)
    assert min(itself.values()) == 1
    assert itself["density"] == pytest.approx(6 / 5, abs=0.15)  # its k neighbours' and its own


def test_mixing_is_the_median_inverse_simpson(rng: np.random.Generator) -> None:
    real, made = rng.normal(size=(40, 3)), 0.8 + rng.normal(size=(40, 3))
    cells, is_made = np.r_[real, made], np.repeat([0, 1], 40)
    lisi = []
    for i, row in enumerate(far(cells, cells)):
        order = row.argsort()
        share = is_made[order[order != i][:7]].mean()
        lisi.append(1 / (share**2 + (1 - share) ** 2))
    found = metrics.mixing(real, made, n_neighbors=7)
    assert found == pytest.approx(np.median(lisi) - 1)
    assert 0 < found < 1


def test_mixing_of_like_and_of_apart_samples_of_any_size(rng: np.random.Generator) -> None:
    real, made = rng.normal(size=(400, 3)), rng.normal(size=(100, 3))
    assert metrics.mixing(real, made) > 0.9
    assert metrics.mixing(made, real) > 0.9
    assert metrics.mixing(real, made + 20) == 0


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_gene_scores_are_those_of_the_columns(rng: np.random.Generator, form: Any) -> None:
    real, made = counts(rng), counts(rng, n=45)
    sides = form(real), form(made)
    pearson = stats.pearsonr(real.var(0), made.var(0)).statistic
    assert metrics.gene_variance_correlation(*sides) == pytest.approx(pearson)
    ratio = np.median(made.var(0) / real.var(0))
    assert metrics.gene_variance_ratio(*sides) == pytest.approx(ratio)
    zeros = np.mean(
        [abs((a == 0).mean() - (b == 0).mean()) for a, b in zip(real.T, made.T, strict=True)]
    )
    assert metrics.gene_zero_share_difference(*sides) == pytest.approx(zeros)
    assert zeros > 0.02


def test_variance_ratio_sees_the_smoothing_that_the_correlation_does_not(
    rng: np.random.Generator,
) -> None:
    real = counts(rng)
    smooth = real.mean(0) + 0.5 * (real - real.mean(0))
    assert metrics.gene_variance_correlation(real, smooth) == pytest.approx(1)
    assert metrics.gene_variance_ratio(real, smooth) == pytest.approx(0.25)


def test_variance_ratio_leaves_out_constant_genes() -> None:
    real, made = np.array([[0.0, 1.0], [0.0, 3.0]]), np.array([[5.0, 1.0], [9.0, 1.0]])
    assert metrics.gene_variance_ratio(real, made) == 0
    with pytest.raises(ValueError, match="real has no gene that varies"):
        metrics.gene_variance_ratio(real[:1], made)


def test_correlation_with_a_constant_side_is_not_a_number(rng: np.random.Generator) -> None:
    real = counts(rng)
    assert np.isnan(metrics.gene_mean_correlation(real, np.zeros_like(real)))
    assert np.isnan(metrics.gene_variance_correlation(np.ones_like(real), real))


def test_gene_zero_share_counts_stored_zeros() -> None:
    x = sparse.csr_matrix(np.array([[1.0, 2.0], [3.0, 4.0]]))
    emptied = x.copy()
    emptied.data[0] = 0
    assert metrics.gene_zero_share_difference(x, emptied) == pytest.approx(0.25)
    assert metrics.detected_genes_distance(x, emptied) == pytest.approx(0.5)


def test_gene_gene_agreement_is_over_pairs_of_variable_genes(rng: np.random.Generator) -> None:
    real, made = counts(rng), counts(rng, n=45)
    top = real.var(0).argsort()[::-1][:7]
    of_real, of_made = (
        [stats.pearsonr(x[:, i], x[:, j]).statistic for i, j in itertools.combinations(top, 2)]
        for x in (real, made)
    )
    found = metrics.gene_gene_correlation_agreement(real, made, n_genes=7)
    expected = {
        "pearson": stats.pearsonr(of_real, of_made).statistic,
        "mean_absolute_difference": np.abs(np.subtract(of_real, of_made)).mean(),
        "slope": np.dot(of_real, of_made) / np.dot(of_real, of_real),
    }
    assert found == pytest.approx(expected)
    assert found["pearson"] < 0.95
    with pytest.raises(ValueError, match="compared in 1 genes, but pairs need two"):
        metrics.gene_gene_correlation_agreement(real, made, n_genes=1)


def test_gene_gene_agreement_of_shuffled_genes_and_of_lost_ones(rng: np.random.Generator) -> None:
    real = counts(rng, n=300)
    itself = metrics.gene_gene_correlation_agreement(real, real)
    assert itself == pytest.approx({"pearson": 1, "mean_absolute_difference": 0, "slope": 1})
    alone = np.array([rng.permutation(gene) for gene in real.T]).T
    mean_r = np.abs(np.corrcoef(real.T)[np.triu_indices(12, 1)]).mean()
    shuffled = metrics.gene_gene_correlation_agreement(real, alone)
    assert shuffled["mean_absolute_difference"] == pytest.approx(mean_r, abs=0.1)
    assert shuffled["pearson"] < 0.5
    assert abs(shuffled["slope"]) < 0.2


def test_gene_gene_agreement_within_groups_is_that_of_centred_groups(
    rng: np.random.Generator,
) -> None:
    real, made = counts(rng, n=60), counts(rng, n=45)
    groups = {"real_groups": np.repeat(["a", "b"], 30), "made_groups": ["b"] * 20 + ["a"] * 25}
    apart = [
        x + 100.0 * (np.asarray(g) == "b")[:, None]
        for x, g in zip((real, made), groups.values(), strict=True)
    ]
    centred = [
        x - np.stack([x[np.asarray(g) == name].mean(0) for name in g])
        for x, g in zip((real, made), groups.values(), strict=True)
    ]
    found = metrics.gene_gene_correlation_agreement(*apart, n_genes=12, **groups)
    assert found == pytest.approx(metrics.gene_gene_correlation_agreement(*centred, n_genes=12))
    constant = [np.hstack([x, np.full((len(x), 1), 0.1)]) for x in centred]
    with_it = metrics.gene_gene_correlation_agreement(*constant, n_genes=13, **groups)
    assert with_it["slope"] == pytest.approx(found["slope"])
    # Between groups all genes rise together, which hides what happens within them.
    assert metrics.gene_gene_correlation_agreement(*apart)["slope"] == pytest.approx(1, abs=0.1)
    with pytest.raises(ValueError, match="made_groups is missing"):
        metrics.gene_gene_correlation_agreement(real, made, real_groups=groups["real_groups"])
    with pytest.raises(ValueError, match="real_groups has shape"):
        metrics.gene_gene_correlation_agreement(real, made, real_groups=["a"], made_groups=["a"])


@pytest.mark.parametrize("level", [0.0, 0.1])
def test_gene_gene_agreement_takes_a_constant_gene_for_alone(
    rng: np.random.Generator, level: float
) -> None:
    real = counts(rng)
    lost = real.copy()
    lost[:, 3] = level
    of_lost = np.abs(np.corrcoef(real.T)[3, np.arange(12) != 3]).sum() / (12 * 11 / 2)
    found = metrics.gene_gene_correlation_agreement(real, lost)
    assert found["mean_absolute_difference"] == pytest.approx(of_lost)


def test_depth_and_detected_genes_are_the_largest_gaps(rng: np.random.Generator) -> None:
    real, made = counts(rng), 2 * counts(rng, n=45)
    for score, of_cells in (
        (metrics.depth_distance, lambda x: x.sum(1)),
        (metrics.detected_genes_distance, lambda x: (x > 0).sum(1)),
    ):
        one, other = of_cells(real), of_cells(made)
        gap = max(abs((one <= at).mean() - (other <= at).mean()) for at in np.r_[one, other])
        assert score(real, made) == pytest.approx(gap)
        assert score(real, real) == 0
    assert metrics.depth_distance(real, 1000 + made) == 1


def test_type_kept_by_logistic_regression(rng: np.random.Generator) -> None:
    labels = np.repeat(["a", "b", "c"], 40)
    real = 3 * np.eye(3, 5)[np.repeat([0, 1, 2], 40)] + rng.normal(size=(120, 5))
    made = real + 1.5 * rng.normal(size=real.shape)
    pca = PCA(4).fit(real)
    scaler = StandardScaler().fit(pca.transform(real))
    judge = LogisticRegression().fit(scaler.transform(pca.transform(real)), labels)
    kept = judge.predict(scaler.transform(pca.transform(made))) == labels
    found = metrics.type_kept(real, labels, made, expected=labels, judge="logistic")
    assert found == pytest.approx(kept.mean())
    assert 0.5 < found < 0.99
    assert found != metrics.type_kept(real, labels, made, expected=labels)


@pytest.mark.parametrize("judge", ["neighbors", "logistic"])
def test_type_kept_per_type_averages_to_type_kept(rng: np.random.Generator, judge: Any) -> None:
    labels = np.repeat(["a", "b", "c"], [40, 30, 50])
    real = 2 * np.eye(3, 5)[np.repeat([0, 1, 2], [40, 30, 50])] + rng.normal(size=(120, 5))
    made, expected = real[:90] + rng.normal(size=(90, 5)), labels[:90]
    each = metrics.type_kept_per_type(real, labels, made, expected=expected, judge=judge)
    assert list(each) == ["a", "b", "c"]
    mean = np.average(list(each.values()), weights=[40, 30, 20])
    whole = metrics.type_kept(real, labels, made, expected=expected, judge=judge)
    assert mean == pytest.approx(whole)
    assert len(set(each.values())) > 1


@pytest.mark.parametrize("judge", ["neighbors", "logistic"])
def test_type_kept_per_type_finds_the_type_that_changed(judge: Any) -> None:
    cells = np.repeat(np.eye(3), 20, axis=0)
    labels = np.repeat(["a", "b", "c"], 20)
    made = np.r_[cells[:40], cells[:20]]
    for form in (np.asarray, sparse.csr_matrix):
        each = metrics.type_kept_per_type(
            form(cells), labels, form(made), expected=labels, judge=judge
        )
        assert each == {"a": 1, "b": 1, "c": 0}


@pytest.mark.parametrize("score", [metrics.type_kept, metrics.type_kept_per_type])
def test_type_kept_names_what_is_wrong(rng: np.random.Generator, score: Any) -> None:
    real, labels = counts(rng), np.repeat(["a", "b"], 30)
    with pytest.raises(ValueError, match=r"labels has shape \(59,\), but real has 60 cells"):
        score(real, labels[1:], real, expected=labels)
    with pytest.raises(ValueError, match=r"expected has shape \(59,\), but made has 60 cells"):
        score(real, labels, real, expected=labels[1:])
    with pytest.raises(ValueError, match="real has 12 features, but made has 11"):
        score(real, labels, real[:, 1:], expected=labels)
    text = np.repeat(["1", "2"], 30)
    for column in (text, text.astype(object), pd.Categorical(text)):
        with pytest.raises(ValueError, match="expected holds values like '1', labels like 1: pa"):
            score(real, np.repeat([1, 2], 30), real, expected=column)
    with pytest.raises(ValueError, match="real has 60 cells, but a vote of 61 neighbours"):
        score(real, labels, real, expected=labels, n_neighbors=61)
    with pytest.raises(
        ValueError, match="judge='forest' is unknown: use 'neighbors' or 'logistic'"
    ):
        score(real, labels, real, expected=labels, judge="forest")


def test_all_scores_at_once_are_those_of_the_single_functions(rng: np.random.Generator) -> None:
    training, real, made = (counts(rng, n=60) for _ in range(3))
    labels = np.repeat(["a", "b"], 30)
    scores = metrics.augmentation_scores(
        real,
        made,
        counts=(real, made),
        labels=labels,
        expected=labels,
        training=training,
        sources=np.arange(60),
    )
    assert scores["two_sample_auc"] == metrics.two_sample_auc(real, made)
    assert scores["depth_distance"] == metrics.depth_distance(real, made)
    assert scores["membership_auc"] == metrics.membership_auc(training, real, made)
    assert scores["own_source_share"] == metrics.own_source_share(
        training, made, sources=np.arange(60)
    )
    kept = metrics.type_kept_per_type(real, labels, made, expected=labels, judge="logistic")
    assert scores["type_kept_logistic/a"] == kept["a"]
    assert scores["type_kept_logistic_worst"] == min(kept.values())
    few = metrics.augmentation_scores(real, made)
    assert few.keys() < scores.keys()
    assert not {"depth_distance", "membership_auc", "type_kept_neighbors"} & few.keys()


@pytest.mark.parametrize(
    ("given", "message"),
    [({"labels": ["a"]}, "labels and expected belong together"), ({"sources": [0]}, "training")],
)
def test_what_belongs_together_is_asked_for(
    rng: np.random.Generator, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.augmentation_scores(counts(rng), counts(rng), **given)


def test_two_sample_auc_is_that_of_scikit_learn(rng: np.random.Generator) -> None:
    real, made = rng.normal(size=(80, 4)), rng.normal(0.7, size=(80, 4))
    cells, side = np.concatenate([real, made]), np.repeat([0, 1], 80)
    forest = RandomForestClassifier(100, random_state=0)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    probability = cross_val_predict(forest, cells, side, cv=folds, method="predict_proba")[:, 1]
    expected = roc_auc_score(side, probability)
    assert metrics.two_sample_auc(real, made, n_trees=100) == pytest.approx(expected, abs=0.03)
