"""What users choose to be made: groups, depth, what is kept, what lies between."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import torch
from anndata import AnnData
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from small_cells import logs_of_no_counts

import scdiffaug
from scdiffaug import budget, choosing, diffusion, embedding, groups, scDiffAug, tl
from scdiffaug.neighborhood import Within
from scdiffaug.real_cells import RealCells

QUICK = {"max_epochs": 3, "enable_progress_bar": False}
FAST = {"steps": 2}
ASKED = {"n_per_cell": 1, "strength": 1.0, "depth": "source", "keep": "all", "steps": 2, "seed": 0}
NO_BATCHES = np.array([-1, -1])


@pytest.fixture(scope="module")
def trained() -> scDiffAug:
    model = scDiffAug(scdiffaug.datasets.pbmc68k_reduced())
    model.train(**QUICK)
    return model


@pytest.fixture(scope="module")
def log_model() -> scDiffAug:
    adata = scdiffaug.datasets.pbmc68k_reduced()
    adata.X = logs_of_no_counts(adata.X)
    model = scDiffAug(adata)
    model.train(**QUICK)
    return model


def depth_of(cells: AnnData) -> np.ndarray:
    return np.asarray(cells.X.sum(1)).ravel()


@pytest.mark.parametrize("target", [40, np.int64(40), "median", "max"])
def test_groups_reach_the_target_with_their_real_cells(
    trained: scDiffAug, target: int | str
) -> None:
    real = trained.adata.obs["cell_type"].value_counts()
    size = {"median": int(real.median()), "max": real.max()}.get(target, target)
    made = trained.augment(groupby="cell_type", target=target, **FAST).obs["cell_type"]
    together = made.value_counts().reindex(real.index, fill_value=0) + real
    assert together.tolist() == real.clip(lower=size).tolist()


def test_named_groups_reach_their_own_sizes_alone(trained: scDiffAug, tmp_path) -> None:
    target = {"CD34+": 20, "Dendritic": 5}
    new = trained.augment(groupby="cell_type", target=target, **FAST)
    sizes = trained.adata.obs["cell_type"].value_counts()
    assert set(new.obs["cell_type"]) == {"CD34+"}
    assert new.n_obs == 20 - sizes["CD34+"]
    new.write_h5ad(tmp_path / "new.h5ad")
    read = sc.read_h5ad(tmp_path / "new.h5ad")
    assert json.loads(read.uns["scdiffaug"]["target"]) == target


def test_a_group_without_cells_is_named(trained: scDiffAug) -> None:
    with pytest.raises(KeyError, match="target names 'Platelet', which has no cells: the groups"):
        trained.augment(groupby="cell_type", target={"CD34+": 20, "Platelet": 9})


def test_new_cells_of_few_sources_are_said(
    trained: scDiffAug, caplog: pytest.LogCaptureFixture
) -> None:
    sizes = trained.adata.obs["cell_type"].value_counts()
    cells = trained.adata[trained.adata.obs["cell_type"] != sizes.index[-1]]
    rare = trained.adata[trained.adata.obs["cell_type"] == sizes.index[-1]][:2]
    cells = ad.concat([cells, rare])
    with caplog.at_level("WARNING", logger="scdiffaug"):
        trained.augment(cells, groupby="cell_type", target={sizes.index[-1]: 30}, **FAST)
    assert (
        f"All 28 new cells of group {sizes.index[-1]!r} are made from 2 of its cells"
        in caplog.text
    )
    caplog.clear()
    with caplog.at_level("WARNING", logger="scdiffaug"):
        trained.augment(cells, groupby="cell_type", target={sizes.index[-2]: 30}, **FAST)
    assert "from which all" not in caplog.text


@pytest.mark.parametrize(
    ("options", "is_said"),
    [
        ({}, True),
        ({"strength": 0.8}, True),
        ({"keep": "consistent"}, True),
        ({"strength": 0.8, "keep": "consistent"}, False),
    ],
)
def test_groups_smaller_than_a_neighbourhood_are_named(
    pbmc: AnnData,
    trained: scDiffAug,
    caplog: pytest.LogCaptureFixture,
    options: dict[str, object],
    is_said: bool,
) -> None:
    pbmc.obs["group"] = ["rare"] * 15 + ["fills"] * 16 + ["many"] * 669
    with caplog.at_level("WARNING", logger="scdiffaug"):
        trained.augment(pbmc, groupby="group", target={"rare": 20, "fills": 20}, **options, **FAST)
    said = "Many new cells of 'rare' (15 cells) may be of other groups, as a neighbourhood (15"
    assert (said in caplog.text) == is_said
    caplog.clear()
    trained.augment(pbmc, groupby="group", target={"fills": 20}, **options, **FAST)
    assert "may be of other groups" not in caplog.text


def test_groups_of_which_few_cells_are_labelled_are_not_taken_for_small_ones(
    trained: scDiffAug, caplog: pytest.LogCaptureFixture
) -> None:
    types = trained.adata.obs["cell_type"]
    large = trained.adata[types.isin(types.value_counts().index[:2])]
    labelled = large[large.obs.groupby("cell_type", observed=True).cumcount() < 10].copy()
    with caplog.at_level("WARNING", logger="scdiffaug"):
        trained.augment(labelled, groupby="cell_type", target=12, **FAST)
    assert "may be of other groups" not in caplog.text


def test_whole_numbers_are_groups_whatever_their_type(trained: scDiffAug) -> None:
    cells = trained.adata.copy()
    codes = cells.obs["cell_type"].cat.codes
    cells.obs["cluster"] = codes.astype(float)
    new = trained.augment(cells, groupby="cluster", target={1: codes.eq(1).sum() + 9}, **FAST)
    assert new.obs["cluster"].tolist() == [1.0] * 9
    sizes = (cells.obs["cluster"].value_counts() + 1).to_dict()
    assert trained.augment(cells, groupby="cluster", target=sizes, **FAST).n_obs == len(sizes)
    ends = {"start": cells.obs["cluster"].iloc[0], "end": 2}
    assert trained.interpolate(cells, groupby="cluster", n_cells=3, **ends, **FAST).n_obs == 3
    fractions = cells.obs["cluster"] + 0.5
    for column in (fractions, fractions.astype("category")):
        cells.obs["cluster"] = column
        with pytest.raises(ValueError, match="groupby='cluster' holds fractions, not groups"):
            trained.augment(cells, groupby="cluster", target=30, **FAST)


def test_each_source_is_drawn_before_any_is_drawn_again(trained: scDiffAug) -> None:
    new = trained.augment(groupby="cell_type", target=60, **FAST)
    times = new.obs.groupby("cell_type", observed=True)["source_obs_name"].value_counts()
    sizes = trained.adata.obs["cell_type"].value_counts()
    for group, of_group in times.groupby(level=0, observed=True):
        uses = of_group[of_group > 0].to_numpy()
        all_used = len(uses) == sizes[group]
        assert uses.max() - uses.min() <= 1
        assert all_used or uses.max() == 1
    types = trained.adata.obs["cell_type"]
    assert (types[new.obs["source_obs_name"]].to_numpy() == new.obs["cell_type"]).all()
    assert new.obs_names.is_unique


def test_balancing_repeats_with_its_seed(trained: scDiffAug) -> None:
    def sources(seed: int) -> list[str]:
        new = trained.augment(groupby="cell_type", target=25, seed=seed, **FAST)
        return new.obs["source_obs_name"].tolist()

    assert sources(1) == sources(1)
    assert sources(1) != sources(2)


def test_only_chosen_cells_are_sources_and_count(trained: scDiffAug) -> None:
    adata = trained.adata
    some = np.flatnonzero(adata.obs["cell_type"].isin(["CD34+", "CD56+ NK"]))[:20]
    for keep in ("all", "consistent"):
        new = trained.augment(
            indices=some, groupby="cell_type", target=30, keep=keep, strength=0.05, **FAST
        )
        assert set(new.obs["source_obs_name"]) <= set(adata.obs_names[some])
    sizes = adata.obs["cell_type"].iloc[some].value_counts()
    new = trained.augment(indices=some, groupby="cell_type", target=30, **FAST)
    assert (new.obs["cell_type"].value_counts() + sizes).loc[["CD34+", "CD56+ NK"]].eq(30).all()


def test_what_was_chosen_is_recorded_and_written(trained: scDiffAug, tmp_path) -> None:
    new = trained.augment(
        groupby="cell_type", target=15, depth=200, keep="consistent", strength=0.3, **FAST
    )
    said = new.uns["scdiffaug"]
    assert {"groupby": "cell_type", "target": 15, "depth": 200}.items() <= said.items()
    assert 0 <= said["kept_share"] <= 1
    new.write_h5ad(tmp_path / "new.h5ad")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": 9}, "target=9 needs groupby"),
        ({"target": 9, "groupby": "cell_type", "n_per_cell": 2}, "leave one of them out"),
        ({"target": 0, "groupby": "cell_type"}, "target=0 must be 'max', 'median' or a number"),
        ({"target": "mean", "groupby": "cell_type"}, "target='mean' must be"),
        ({"target": {"CD34+": 0}, "groupby": "cell_type"}, "target={'CD34\\+': 0} must be"),
        ({"depth": np.array([5, 6])}, "depth=array.* must be"),
        ({"target": {}, "groupby": "cell_type"}, "target={} must be"),
        ({"target": {"CD34+": 2}, "groupby": "cell_type"}, "every group that it names has"),
        ({"target": 5, "groupby": "cell_type"}, "leaves nothing to make: every group has 8"),
        ({"groupby": "percent_mito", "target": 9}, "holds fractions, not groups"),
        ({"depth": 0}, "depth=0 must be 'source', 'sampled' or a whole number"),
        ({"depth": 10.5}, "depth=10.5 must be"),
        ({"depth": "deep"}, "depth='deep' must be"),
        ({"keep": "best"}, "keep='best' is unknown"),
        ({"indices": []}, "indices is empty"),
    ],
)
def test_choices_that_do_not_fit_are_refused(
    trained: scDiffAug, options: dict[str, object], message: str
) -> None:
    adata = trained.adata.copy()
    adata.obs["percent_mito"] = 0.5
    with pytest.raises(ValueError, match=message):
        trained.augment(adata, **options)


def test_missing_column_or_missing_labels_are_named(trained: scDiffAug) -> None:
    with pytest.raises(KeyError, match="groupby='louvain2' not found"):
        trained.augment(groupby="louvain2", target=9)
    adata = trained.adata.copy()
    adata.obs["cell_type"] = adata.obs["cell_type"].where(np.arange(700) > 2)
    with pytest.raises(ValueError, match="groupby='cell_type' has 3 missing values"):
        trained.augment(adata, groupby="cell_type", target=50)


@pytest.mark.parametrize("strength", [0.02, 0.5, 1.0])
@pytest.mark.parametrize("depth", [1, 100, 5000])
def test_depth_is_met_exactly(trained: scDiffAug, strength: float, depth: int) -> None:
    new = trained.augment(indices=range(30), depth=depth, strength=strength, **FAST)
    np.testing.assert_array_equal(depth_of(new), depth)
    assert (new.X.data > 0).all()


def test_shallow_copies_of_low_strength_hold_their_sources_reads(trained: scDiffAug) -> None:
    new = trained.augment(indices=range(30), depth=100, strength=0.02, **FAST)
    beyond = (new.X - trained.adata.X[:30]).maximum(0).sum(1)
    assert beyond.mean() < 5


def test_sampled_depths_are_those_of_the_group(trained: scDiffAug) -> None:
    adata = trained.adata.copy()
    monocyte = (adata.obs["cell_type"] == "CD14+ Monocyte").to_numpy()
    adata.X[monocyte] = adata.X[monocyte] * 5
    new = trained.augment(adata, depth="sampled", groupby="cell_type", **FAST)
    real, made = depth_of(adata), depth_of(new)
    assert set(made[monocyte]) <= set(real[monocyte])
    assert set(made[~monocyte]) <= set(real[~monocyte])
    assert (made != real).mean() > 0.9
    anyone = trained.augment(adata, indices=[0], n_per_cell=50, depth="sampled", **FAST)
    assert len(set(depth_of(anyone))) > 20


def test_depth_of_log_values_is_refused(log_model: scDiffAug) -> None:
    with pytest.raises(ValueError, match=r"depth=500 sets the total counts .* holds 'log' values"):
        log_model.augment(depth=500)


def test_reads_are_kept_without_replacement() -> None:
    x = torch.tensor([[3.0, 0.0, 2.0], [1.0, 1.0, 0.0], [0.0, 0.0, 9.0]])
    rng = torch.Generator().manual_seed(0)
    drawn = torch.stack(
        [diffusion.keep_reads(x, torch.tensor([2.0, 5.0, 0.0]), rng) for _ in range(4000)]
    )
    assert (drawn <= x).all()
    assert (drawn.sum(2) == torch.tensor([2.0, 2.0, 0.0])).all()
    # Hypergeometric: two of five reads, three of which are of the first gene.
    assert abs((drawn[:, 0, 0] == 2).float().mean() - 0.3) < 0.03
    assert abs(drawn[:, 0, 0].mean() - 1.2) < 0.04


def test_consistent_cells_are_of_the_sources_group(
    trained: scDiffAug, caplog: pytest.LogCaptureFixture
) -> None:
    adata = trained.adata.copy()
    adata.obs["random"] = np.random.default_rng(0).choice(["a", "b", "c"], 700)
    some = {"indices": range(200), "keep": "consistent", "strength": 0.2, **FAST}
    typed = trained.augment(adata, groupby="cell_type", **some)
    with caplog.at_level(logging.INFO, "scdiffaug"):
        mixed = trained.augment(adata, groupby="random", **some)
    assert "Kept" in caplog.text
    shares = [new.uns["scdiffaug"]["kept_share"] for new in (mixed, typed)]
    assert 0 < shares[0] < shares[1] <= 1
    for new, groupby in ((typed, "cell_type"), (mixed, "random")):
        y, y_made = (trained.get_latent_representation(cells) for cells in (adata, new))
        sources = adata.obs_names.get_indexer(new.obs["source_obs_name"])
        groups = adata.obs[groupby].astype(str).to_numpy()
        assert choosing.consistent(y, y_made, sources, groups=groups).all()
        assert (groups[sources] == new.obs[groupby]).all()
    assert "kept_share" not in trained.augment(indices=[0], **FAST).uns["scdiffaug"]


def test_rejected_cells_are_drawn_again(
    trained: scDiffAug, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[np.ndarray] = []

    def every_third(_y, _made, source_of: np.ndarray, **_: object) -> np.ndarray:
        asked.append(source_of)
        return np.arange(len(source_of)) % 3 == 0

    monkeypatch.setattr(choosing, "consistent", every_third)
    new = trained.augment(indices=range(30), keep="consistent", n_per_cell=2, **FAST)
    assert "left out" not in caplog.text
    assert new.obs_names.tolist() == [
        f"{name}-aug{copy}" for name in trained.adata.obs_names[:30] for copy in (0, 1)
    ]
    assert [len(rows) for rows in asked] == [60, 40, 26, 17, 11, 7, 4, 2, 1]
    assert new.uns["scdiffaug"]["kept_share"] == 60 / 168
    depths = depth_of(trained.adata[:30])
    np.testing.assert_array_equal(depth_of(new), np.repeat(depths, 2))
    first, again = new.X[0], new.X[1]
    assert (first != again).nnz


def test_cells_that_stay_rejected_are_left_out_and_said(
    trained: scDiffAug, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    times: list[int] = []

    def never_the_first(_y, _made, source_of: np.ndarray, **_: object) -> np.ndarray:
        times.append(len(source_of))
        return source_of > 0

    monkeypatch.setattr(choosing, "consistent", never_the_first)
    options = {"keep": "consistent", "groupby": "cell_type", "n_per_cell": 2, **FAST}
    new = trained.augment(indices=[0, 1, 2], **options)
    first = trained.adata.obs["cell_type"].iloc[0]
    assert times == [6] + [2] * 9
    assert (
        new.obs["source_obs_name"].tolist() == np.repeat(trained.adata.obs_names[1:3], 2).tolist()
    )
    assert new.uns["scdiffaug"]["kept_share"] == 4 / 24
    assert (
        f"2 of 6 cells were rejected 10 times and are left out: 2 of {first!r}. A lower"
        in caplog.text
    )
    assert trained.augment(indices=[0], **options).shape == (0, 765)


def test_copies_are_consistent_without_labels(trained: scDiffAug) -> None:
    near = trained.augment(indices=range(200), keep="consistent", strength=0.01, **FAST)
    far = trained.augment(indices=range(200), keep="consistent", depth=3, **FAST)
    assert near.uns["scdiffaug"]["kept_share"] > 0.95
    assert far.uns["scdiffaug"]["kept_share"] < 0.5
    assert far.layers["log1p_norm"].shape == far.shape


def test_where_all_are_kept_none_is_left_out(
    trained: scDiffAug, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "consistent", lambda y, *_, **__: np.ones(len(y), bool))
    new = trained.augment(keep="consistent", groupby="cell_type", **FAST)
    assert new.n_obs == 700
    assert new.uns["scdiffaug"]["kept_share"] == 1


def test_consistent_cells_are_told_as_linear_discriminants_tell_them(
    rng: np.random.Generator,
) -> None:
    """As scikit-learn's where groups are large, whose shrinkage then hardly matters."""
    groups = np.repeat(["many", "some", "few"], [2_000, 300, 100])
    means = {"many": np.zeros(5), "some": np.full(5, 0.6), "few": np.r_[2.0, np.zeros(4)]}
    spread = rng.normal(size=(5, 5))
    y, made = (
        np.stack([means[group] for group in groups]) + rng.normal(size=(2_400, 5)) @ spread
        for _ in range(2)
    )
    judge = LinearDiscriminantAnalysis("svd", priors=np.full(3, 1 / 3)).fit(y, groups)
    expected = judge.predict(made) == groups
    kept = choosing.consistent(
        y.astype(np.float32), made.astype(np.float32), np.arange(2_400), groups=groups
    )
    assert 0.2 < expected.mean() < 0.9
    assert (kept == expected).mean() > 0.99


@pytest.mark.parametrize("sizes", [[1], [2], [1, 1], [2, 1], [200]])
def test_groups_of_any_size_keep_their_own_cells(
    sizes: list[int], rng: np.random.Generator
) -> None:
    groups = np.repeat([f"group {n}" for n in range(len(sizes))], sizes)
    y = rng.normal(size=(len(groups), 80)).astype(np.float32)
    assert choosing.consistent(y, y, np.arange(len(y)), groups=groups).all()


def test_groups_of_one_cell_can_be_consistent_too() -> None:
    places = np.concatenate([np.zeros(40), np.full(12, 9.0), [20.0]])[:, None].astype(np.float32)
    groups = np.repeat(["many", "few", "one"], [40, 12, 1])
    made = np.array([[0.0], [9.0], [20.0], [0.0], [9.0]], dtype=np.float32)
    sources = np.array([0, 41, 52, 41, 0])
    kept = choosing.consistent(places, made, sources, groups=groups)
    assert kept.tolist() == [True, True, True, False, False]
    alone = choosing.consistent(places[[0, 45]], made, sources % 2, groups=groups[[0, 45]])
    assert alone.tolist() == [True, True, False, False, False]


def test_without_groups_the_sources_own_neighbourhood_decides() -> None:
    places = np.arange(100, dtype=np.float32)[:, None]
    made = places[[50, 50, 0]] + np.array([[7.0], [9.0], [14.0]], dtype=np.float32)
    kept = choosing.consistent(places, made, np.array([50, 50, 0]), groups=None)
    # 15 neighbours reach to 8 on the inside, to 15 at the end.
    assert kept.tolist() == [True, False, True]


@pytest.mark.parametrize("n_labelled", [None, 10])
def test_conditions_are_of_the_group_of_the_source(
    trained: scDiffAug, n_labelled: int | None
) -> None:
    """Of ten labelled cells a group, the other training cells are assigned to the groups."""
    labelled, types = trained.adata, trained.adata.obs["cell_type"].astype(str).to_numpy()
    if n_labelled is not None:
        labelled = labelled[
            labelled.obs.groupby("cell_type", observed=True).cumcount() < n_labelled
        ].copy()
    real = trained._plan(labelled, groupby="cell_type", target=99, **ASKED).real
    own = real.groups == real.reference_groups[_places(trained, labelled)]
    assert own.all()
    assert (real.reference_groups == types).mean() > (0.6 if n_labelled else 0.999)
    rows = np.arange(labelled.n_obs)
    told = {
        name: np.mean(
            groups.assigned(_conditions(real, within), real.y, real.groups) == real.groups
        )
        for name, within in {"own": real.within(rows), "any": None}.items()
    }
    assert told["own"] > told["any"] + 0.1


def test_cells_far_from_all_groups_are_of_none(rng: np.random.Generator) -> None:
    centres = np.repeat([0, 20, 200], 100)[:, None]
    y = (rng.normal(size=(300, 80)) + centres).astype(np.float32)
    names = np.repeat(["a", "b", groups.NO_GROUP], 100)
    # Of each group a fifth is known; where it is one cell, what is far cannot be told.
    for of_each, is_told in ((20, True), (1, False)):
        known = np.r_[:of_each, 100 : 100 + of_each]
        found = groups.members(y, y[known], names[known])
        assert (found[:200] == names[:200]).mean() > 0.9
        assert (found[200:] == groups.NO_GROUP).all() == is_told


def test_training_cells_unlike_the_groups_passed_are_taken_for_none_of_them(
    trained: scDiffAug, caplog: pytest.LogCaptureFixture
) -> None:
    cells = trained.adata
    is_one = (cells.obs["cell_type"] == "CD19+ B").to_numpy()
    real = trained._plan(cells[is_one].copy(), groupby="cell_type", target=99, **ASKED).real
    assert (real.reference_groups[is_one] == "CD19+ B").all()
    taken = real.reference_groups == "CD19+ B"
    assert taken.sum() < 3 * is_one.sum() < 0.5 * cells.n_obs
    assert (real.reference_groups[~taken] == groups.NO_GROUP).all()
    trained.augment(indices=is_one, groupby="cell_type", **FAST)
    assert "training cells seem" not in caplog.text
    trained.augment(cells[is_one].copy(), groupby="cell_type", **FAST)
    said = f"{np.sum(~taken)} of {cells.n_obs} training cells seem to be of none of the groups"
    assert said in caplog.text


def _places(model: scDiffAug, cells: AnnData) -> np.ndarray:
    return model.adata.obs_names.get_indexer(cells.obs_names)


def _conditions(real: RealCells, within: Within | None) -> np.ndarray:
    return embedding.describe_neighborhoods(
        real.module,
        real.contract,
        real.x,
        batches=real.contract.batches(real.cells),
        within=within,
    )


def test_groups_by_themselves_choose_neighbours_alone(trained: scDiffAug) -> None:
    new, any_group = (trained.augment(groupby=name, **FAST) for name in ("cell_type", None))
    assert new.obs["source_obs_name"].tolist() == any_group.obs["source_obs_name"].tolist()
    assert new.n_obs == trained.adata.n_obs
    assert (new.X != any_group.X).nnz
    trained.adata.obs["one"] = "group"
    of_one = trained.augment(groupby="one", **FAST)
    assert not (of_one.X != any_group.X).nnz


def test_interpolation_goes_from_one_cell_to_the_other(trained: scDiffAug) -> None:
    adata = trained.adata
    ends = {"start": adata.obs_names[3], "end": 9}
    new = trained.interpolate(**ends, n_cells=5)
    depths = depth_of(adata)
    np.testing.assert_allclose(depth_of(new), np.linspace(depths[3], depths[9], 5), atol=0.51)
    np.testing.assert_allclose(new.obs["interpolation"], [0, 0.25, 0.5, 0.75, 1])
    assert set(new.obs["start_obs_name"]) == {adata.obs_names[3]}
    assert set(new.obs["end_obs_name"]) == {adata.obs_names[9]}
    assert new.obs_names.is_unique
    assert new.uns["scdiffaug"]["end"] == 9
    again = trained.interpolate(**ends, n_cells=5)
    np.testing.assert_array_equal(new.X.toarray(), again.X.toarray())


@pytest.fixture
def conditions(trained: scDiffAug, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """What new cells are conditioned on, of each batch that is made from now on."""
    seen: list[torch.Tensor] = []
    sample = trained.module.sample

    def spy(x: torch.Tensor, y: torch.Tensor, *rest: object, **given: object) -> torch.Tensor:
        seen.append(y)
        return sample(x, y, *rest, **given)

    monkeypatch.setattr(trained.module, "sample", spy)
    return seen


def test_interpolation_conditions_on_what_lies_between_two_neighborhoods(
    trained: scDiffAug, conditions: list[torch.Tensor]
) -> None:
    trained.interpolate(start=3, end=9, n_cells=5, batch_size=2)
    x = trained.adata.X[[3, 9]]
    ends = embedding.describe_neighborhoods(
        trained.module, trained._contract, x, batches=NO_BATCHES
    )
    share = np.linspace(0, 1, 5)[:, None]
    wanted = (1 - share) * ends[:1] + share * ends[1:]
    np.testing.assert_allclose(torch.cat(conditions).numpy(), wanted, atol=1e-4)


def test_each_new_cell_of_a_source_has_a_neighborhood_of_its_own(
    trained: scDiffAug, conditions: list[torch.Tensor]
) -> None:
    trained.augment(indices=[3, 9], n_per_cell=40, steps=1)
    y = torch.cat(conditions)
    assert len(torch.unique(y, dim=0)) == 80
    plain = embedding.describe_neighborhoods(
        trained.module, trained._contract, trained.adata.X[[3, 9]], batches=NO_BATCHES
    )
    to_own, to_other = (torch.cdist(y, torch.from_numpy(plain))[:40, end] for end in (0, 1))
    assert to_own.mean() < to_other.mean()


def test_groups_interpolate_by_pairs_of_their_cells(trained: scDiffAug) -> None:
    types = trained.adata.obs["cell_type"]
    new = trained.interpolate(
        start="CD34+", end="CD19+ B", groupby="cell_type", n_cells=30, **FAST
    )
    assert set(types[new.obs["start_obs_name"]]) == {"CD34+"}
    assert set(types[new.obs["end_obs_name"]]) == {"CD19+ B"}
    assert new.obs["start_obs_name"].nunique() == (types == "CD34+").sum()
    assert new.obs["end_obs_name"].nunique() == 30


def test_log_values_interpolate_too(log_model: scDiffAug) -> None:
    new = scdiffaug.tl.interpolate(log_model.adata, log_model, start=0, end=1, n_cells=3, **FAST)
    assert new.shape == (3, 765)
    assert np.isfinite(new.X.sum())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"start": "nobody", "end": 0}, KeyError, "start='nobody' not found"),
        ({"start": 0, "end": 700}, KeyError, "positions go from 0 to 699"),
        ({"start": 0, "end": -1}, KeyError, "end=-1 not found"),
        (
            {"start": "CD34+", "end": "CD3", "groupby": "cell_type"},
            KeyError,
            "end='CD3' not found: the groups are 'CD14",
        ),
        ({"start": 0, "end": 1, "n_cells": 1}, ValueError, "n_cells=1 must be at least 2"),
    ],
)
def test_interpolation_between_nothing_is_refused(
    trained: scDiffAug, options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        trained.interpolate(**options)


def test_interpolation_needs_a_generator_that_sees_y(pbmc: AnnData) -> None:
    model = scDiffAug(pbmc, condition="random")
    model.train(**QUICK)
    with pytest.raises(ValueError, match="condition='random': cells are interpolated through y"):
        model.interpolate(start=0, end=1)


def test_tool_passes_every_choice_on(trained: scDiffAug) -> None:
    choices = {"groupby": "cell_type", "target": 20, "depth": 150, "keep": "consistent", **FAST}
    by_tool = scdiffaug.tl.augment(trained.adata, trained, **choices)
    by_model = trained.augment(**choices)
    np.testing.assert_array_equal(by_tool.X.toarray(), by_model.X.toarray())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda a, _: scdiffaug.tl.augment(a, groupby="typo"), "groupby='typo'"),
        (lambda a, _: scdiffaug.tl.augment(a, indices=[700]), "700"),
        (lambda a, _: scdiffaug.tl.augment(a, groupby="cell_type", target=2), "nothing to make"),
        (lambda a, place: scdiffaug.tl.augment(a, path=place), "exists already"),
        (lambda a, _: scdiffaug.tl.interpolate(a, start=0, end="typo"), "end='typo'"),
        (lambda a, _: scdiffaug.tl.interpolate(a, start=0, end=1, n_cells=1), "n_cells=1"),
    ],
)
def test_tools_say_what_is_wrong_before_they_train(
    make: Callable[[AnnData, Path], AnnData],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scDiffAug, "train", lambda _: pytest.fail("trained"))
    place = tmp_path / "new.h5ad"
    place.touch()
    with pytest.raises((FileExistsError, IndexError, KeyError, ValueError), match=said):
        make(scdiffaug.datasets.pbmc68k_reduced(), place)


def test_a_lone_group_cannot_vote_and_is_said(
    trained: scDiffAug, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"groupby": "cell_type", "keep": "consistent", **FAST}
    is_one = (trained.adata.obs["cell_type"] == "CD19+ B").to_numpy()
    trained.augment(indices=is_one, **options)
    assert "rejects none" not in caplog.text
    trained.augment(trained.adata[is_one].copy(), **options)
    assert "All cells are 'CD19+ B', so that keep='consistent' rejects none" in caplog.text


def test_paths_between_groups_can_be_put_together(trained: scDiffAug) -> None:
    ends = [("CD34+", "CD19+ B"), ("CD34+", "Dendritic")]
    paths = [
        trained.interpolate(start=a, end=b, groupby="cell_type", n_cells=5, **FAST)
        for a, b in ends
    ]
    both = ad.concat(paths)
    assert both.obs_names.is_unique
    assert both.obs["start_group"].unique().tolist() == ["CD34+"]
    assert both.obs["end_group"].unique().tolist() == ["CD19+ B", "Dendritic"]
    assert "start_group" not in trained.interpolate(start=0, end=1, n_cells=2, **FAST).obs


def test_cells_of_no_group_are_left_aside_where_groups_are_named(trained: scDiffAug) -> None:
    """As in data of which a part is annotated."""
    cells = trained.adata.copy()
    cells.obs["part"] = cells.obs["cell_type"].where(np.arange(cells.n_obs) % 3 > 0)
    sizes = cells.obs["part"].value_counts()
    wanted = {"groupby": "part", "target": {"CD34+": 40}, "keep": "consistent"}
    options = {**wanted, "strength": 0.3, **FAST}
    new = trained.augment(cells, **options)
    assert 0 < new.n_obs <= 40 - sizes["CD34+"]
    assert set(new.obs["part"]) == {"CD34+"}
    known = cells[cells.obs["part"].notna()].copy()
    assert list(trained.augment(known, **options).obs_names) == list(new.obs_names)
    path = trained.interpolate(
        cells, start="CD34+", end="Dendritic", groupby="part", n_cells=3, **FAST
    )
    assert cells.obs["part"][path.obs["start_obs_name"]].eq("CD34+").all()
    with pytest.raises(ValueError, match=r"groupby='part' has .* missing values"):
        trained.augment(cells, groupby="part", target="max")


def test_numbers_and_empty_names_are_groups_beside_cells_of_none(
    trained: scDiffAug, caplog: pytest.LogCaptureFixture
) -> None:
    cells = trained.adata.copy()
    cells.obs["number"] = np.where(np.arange(cells.n_obs) < 30, 1.0, np.nan)
    options = {"keep": "consistent", **FAST}
    assert trained.augment(cells, groupby="number", target={1: 40}, **options).n_obs == 10
    assert "All cells are '1'" in caplog.text
    cells.obs["name"] = np.where(cells.obs["cell_type"] == "CD34+", "", "other")
    cells.obs.loc[cells.obs_names[:5], "name"] = None
    near = trained.augment(cells, groupby="name", target={"": 30}, strength=0.05, **options)
    assert near.n_obs > 0
    with pytest.raises(KeyError, match=r"the groups are '', 'other'\.\'?"):
        trained.augment(cells, groupby="name", target={"absent": 30}, **FAST)


def test_a_series_of_sizes_is_refused_in_one_line(trained: scDiffAug) -> None:
    sizes = trained.adata.obs["cell_type"].value_counts() + 3
    with pytest.raises(TypeError, match=r"target is a Series: pass target.to_dict\(\)"):
        trained.augment(groupby="cell_type", target=sizes)
    wanted = sizes.sum() - trained.adata.n_obs
    assert trained.augment(groupby="cell_type", target=sizes.to_dict(), **FAST).n_obs == wanted


def test_whole_numbers_may_be_written_as_floats(trained: scDiffAug) -> None:
    options = {"groupby": "cell_type", **FAST}
    new = trained.augment(target={"CD34+": np.float32(20)}, depth=1e2, **options)
    assert new.n_obs == 7
    np.testing.assert_array_equal(new.X.sum(1), 100)
    same = trained.augment(target={"CD34+": 20}, depth=100, **options)
    assert same.uns["scdiffaug"] == new.uns["scdiffaug"]


def test_few_sources_are_told_from_what_is_left(
    trained: scDiffAug, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all that were planned there are enough, but cells of all but two are rejected."""
    kept_from = trained.adata.obs_names[trained.adata.obs["cell_type"] == "CD34+"][:2]

    def only_two(_real: Any, _made: Any, source_of: np.ndarray, **_: Any) -> np.ndarray:
        return trained.adata.obs_names[source_of].isin(kept_from)

    monkeypatch.setattr(choosing, "consistent", only_two)
    new = trained.augment(groupby="cell_type", target={"CD34+": 50}, keep="consistent", **FAST)
    assert set(new.obs["source_obs_name"]) == set(kept_from)
    assert f"All {new.n_obs} new cells of group 'CD34+' are made from 2 of its" in caplog.text
    caplog.clear()
    monkeypatch.setattr(choosing, "consistent", lambda *a, **_: np.zeros(len(a[2]), dtype=bool))
    trained.augment(groupby="cell_type", target={"CD34+": 50}, keep="consistent", **FAST)
    assert "No new cell of 'CD34+' is left." in caplog.text
    assert "are made from" not in caplog.text


def test_few_sources_are_said_once_though_a_model_is_trained_first(
    pbmc: AnnData, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "default_epochs", lambda *_, **__: 1)
    pbmc.obs["group"] = ["few"] * 3 + ["many"] * 697
    tl.augment(pbmc, groupby="group", target={"few": 9}, steps=1)
    assert caplog.text.count("vary as so few do") == 1


def test_cells_that_indices_leave_out_need_no_group_and_have_no_say(trained: scDiffAug) -> None:
    adata, some = trained.adata.copy(), range(60)
    adata.obs["known"] = adata.obs["cell_type"].where(np.arange(adata.n_obs) < 60)
    options = {"groupby": "known", "target": 12, "keep": "consistent", "strength": 0.3, **FAST}
    new = trained.augment(adata, some, **options)
    np.testing.assert_array_equal(
        new.X.toarray(), trained.augment(adata[:60].copy(), **options).X.toarray()
    )
    with pytest.raises(ValueError, match="groupby='known' has 20 missing values"):
        trained.augment(adata, range(80), **options)


def test_a_warning_of_few_sources_names_ten_groups(
    trained: scDiffAug, caplog: pytest.LogCaptureFixture
) -> None:
    adata = trained.adata.copy()
    adata.obs["alone"] = np.arange(adata.n_obs)
    with caplog.at_level("WARNING", logger="scdiffaug"):
        trained.augment(adata, range(30), groupby="alone", target=3, **FAST)
    assert caplog.text.count("are made from 1 of its cells") == 10
    assert "The same is true of 20 other groups." in caplog.text
