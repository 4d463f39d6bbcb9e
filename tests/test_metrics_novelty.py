import itertools
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn.decomposition import PCA
from small_cells import counts, far

from scdiffaug import metrics

TRIPLE_SCORES = [
    metrics.duplicate_share,
    metrics.membership_auc,
    metrics.nearest_training_distance_ratio,
]


@pytest.mark.parametrize("score", TRIPLE_SCORES)
@pytest.mark.parametrize("n_pcs", [None, 4])
def test_triple_scores_agree_for_sparse_and_dense(
    rng: np.random.Generator, score: Any, n_pcs: int | None
) -> None:
    cells = [np.log1p(counts(rng, n=n)) for n in (60, 40, 50)]
    dense = score(*cells, n_pcs=n_pcs)
    assert score(*map(sparse.csr_matrix, cells), n_pcs=n_pcs) == pytest.approx(dense)
    with pytest.raises(ValueError, match="training has 12 features, but made has 11"):
        score(cells[0], cells[1], cells[2][:, :11])
    with pytest.raises(ValueError, match="held_out has 1 cells, but a comparison needs"):
        score(cells[0], cells[1][:1], cells[2])


@pytest.mark.parametrize("n_pcs", [None, 2])
def test_novelty_is_of_distances_to_the_nearest(
    rng: np.random.Generator, n_pcs: int | None
) -> None:
    training, held_out = rng.normal(size=(50, 4)), rng.normal(size=(40, 4))
    sources = rng.integers(50, size=30)
    made = training[sources] + 0.5 * rng.normal(size=(30, 4))
    turn = (lambda x: x) if n_pcs is None else PCA(n_pcs).fit(training).transform
    real, new = (far(turn(x), turn(training)) for x in (held_out, made))
    ratio = np.median(new.min(1)) / np.median(real.min(1))
    sides = training, held_out, made
    found = metrics.nearest_training_distance_ratio(*sides, n_pcs=n_pcs)
    assert found == pytest.approx(ratio)
    near = np.mean(new.min(1) <= np.quantile(real.min(1), 0.3))
    copies = metrics.duplicate_share(*sides, quantile=0.3, n_pcs=n_pcs)
    assert copies == pytest.approx({"exact": 0, "near": near})
    own = np.mean(new.argmin(1) == sources)
    found = metrics.own_source_share(training, made, sources=sources, n_pcs=n_pcs)
    assert found == pytest.approx(own)
    assert 0.1 < own < 1
    assert 0 < near < 1


@pytest.mark.parametrize("n_pcs", [None, 2])
def test_membership_auc_is_over_pairs_of_training_and_held_out(
    rng: np.random.Generator, n_pcs: int | None
) -> None:
    training, held_out = rng.normal(size=(50, 4)), rng.normal(size=(40, 4))
    made = training + 0.3 * rng.normal(size=(50, 4))
    turn = (lambda x: x) if n_pcs is None else PCA(n_pcs).fit(made).transform
    member, other = (far(turn(x), turn(made)).min(1) for x in (training, held_out))
    won = np.mean([a < b for a, b in itertools.product(member, other)])
    found = metrics.membership_auc(training, held_out, made, n_pcs=n_pcs)
    assert found == pytest.approx(won)
    assert 0.5 < won < 1


@pytest.mark.parametrize(("n_features", "n_pcs"), [(10, None), (10, 50), (200, 5)])
def test_new_cells_are_as_novel_as_held_out_ones(
    rng: np.random.Generator, n_features: int, n_pcs: int | None
) -> None:
    # With few components of many features, those fitted on all real cells would favour them.
    sides = rng.normal(size=(3, 400, n_features))
    ratio = metrics.nearest_training_distance_ratio(*sides, n_pcs=n_pcs)
    assert ratio == pytest.approx(1, abs=0.08)
    assert metrics.duplicate_share(*sides, n_pcs=n_pcs)["near"] < 0.03
    assert metrics.membership_auc(*sides, n_pcs=n_pcs) == pytest.approx(0.5, abs=0.06)
    sources = np.arange(400)
    assert metrics.own_source_share(sides[0], sides[2], sources=sources, n_pcs=n_pcs) < 0.02


def test_real_cells_are_nearest_to_a_source_as_often_as_those_in_its_neighbourhood(
    rng: np.random.Generator,
) -> None:
    training, held_out = rng.normal(size=(40, 3)), rng.normal(size=(60, 3))
    distance = far(training, held_out)
    nearest = distance.argmin(0)
    for k in (1, 15, 200):
        near = distance.argsort(1)[:, :k]
        expected = np.mean(nearest[near] == np.arange(40)[:, None])
        found = [
            metrics.own_source_share_of_real(
                training, held_out, n_neighbors=k, n_pcs=None, seed=seed
            )
            for seed in range(60)
        ]
        assert np.mean(found) == pytest.approx(expected, abs=0.02)
        assert (len(set(found)) == 1) == (k == 1)
    rotated = metrics.own_source_share_of_real(training, held_out, n_pcs=3)
    assert rotated == metrics.own_source_share_of_real(training, held_out, n_pcs=None)


def test_copies_are_found_out(rng: np.random.Generator) -> None:
    training, held_out = rng.normal(size=(2, 200, 10))
    made = np.r_[training[:50], training[50:100] + 0.01, rng.normal(size=(100, 10))]
    copies = metrics.duplicate_share(training, held_out, made)
    assert copies["exact"] == pytest.approx(0.25)
    assert copies["near"] == pytest.approx(0.5, abs=0.03)
    assert metrics.nearest_training_distance_ratio(training, held_out, made[:100]) < 0.05
    assert metrics.membership_auc(training, held_out, training + 0.01) == 1
    assert metrics.own_source_share(training, made[:100], sources=np.arange(100)) == 1


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exact_duplicates_are_equal_in_every_feature(
    rng: np.random.Generator, form: Any, dtype: Any
) -> None:
    training, held_out = np.arange(40.0).reshape(20, 2), rng.normal(size=(20, 2))
    made = np.array([[0, 1], [1, 0], [-0.0, 1], [2, 3], [2, 3.5]], dtype=dtype)
    assert metrics.duplicate_share(training, held_out, form(made))["exact"] == pytest.approx(0.6)


def test_exact_duplicates_do_not_depend_on_how_rows_are_stored(rng: np.random.Generator) -> None:
    training, held_out = np.arange(40.0).reshape(20, 2), rng.normal(size=(20, 2))
    # [0, 1] with a zero that is stored, [2, 3] back to front, [4, 5] with its 5 in two parts.
    values, columns = [0.0, 1, 3, 2, 4, 2, 3], [0, 1, 1, 0, 0, 1, 1]
    made = sparse.csr_matrix((values, columns, [0, 2, 4, 7]), shape=(3, 2))
    assert metrics.duplicate_share(training, held_out, made)["exact"] == 1


def test_novelty_needs_held_out_cells_that_are_new() -> None:
    training = np.eye(30)
    with pytest.raises(ValueError, match="held_out equals training cells in most rows"):
        metrics.nearest_training_distance_ratio(training, training[:9], training, n_pcs=None)


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([0, 1], r"sources has shape \(2,\) of int64, but made has 3 cells"),
        ([0.0, 1.0, 2.0], r"sources has shape \(3,\) of float64"),
        ([0, -1, 60], "sources has 2 rows outside training, which has 60 cells"),
    ],
)
def test_sources_are_rows_of_training(
    rng: np.random.Generator, sources: list[Any], message: str
) -> None:
    cells = counts(rng)
    with pytest.raises(ValueError, match=message):
        metrics.own_source_share(cells, cells[:3], sources=sources)


def test_repeats_are_counted_with_the_cell_that_they_repeat() -> None:
    cells = np.random.default_rng(0).integers(0, 3, (60, 3)).astype(float)
    is_repeated = [(cells == cell).all(1).sum() > 1 for cell in cells]
    assert 0 < np.mean(is_repeated) < 1
    assert metrics.repeat_share(cells) == pytest.approx(np.mean(is_repeated))
    assert metrics.repeat_share(sparse.csc_matrix(cells)) == metrics.repeat_share(cells)
