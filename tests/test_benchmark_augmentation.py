"""The augmentation benchmark: makers, plan, scores, floor, report."""

from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from typer.testing import CliRunner

from scdiffaug import benchmark
from scdiffaug.benchmark import environments, inputs, methods
from scdiffaug.benchmark._augmentation import (
    makers,
    overview,
    peers,
    report,
    scoring,
    study,
    trials,
)
from scdiffaug.cli import app
from scdiffaug.diffusion import CountThinning, GaussianDiffusion
from scdiffaug.metrics._spaces import dense
from scdiffaug.metrics.augmentation import type_scores


@pytest.fixture(scope="module")
def counts_file(tmp_path_factory):
    """Counts of 110 cells of three types, one of them rarer."""
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b", "rare"], [44, 44, 22])
    profiles = {name: rng.gamma(0.5, size=40) for name in np.unique(labels)}
    rate = np.stack([profiles[name] / profiles[name].sum() for name in labels])
    adata = ad.AnnData(
        sparse.csr_matrix(rng.poisson(rate * rng.uniform(80, 200, (110, 1))).astype(np.float32)),
        obs=pd.DataFrame(
            {"cell_type": pd.Categorical(labels)}, index=[f"c{i}" for i in range(110)]
        ),
    )
    path = tmp_path_factory.mktemp("data") / "small.h5ad"
    adata.write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Shared, so that the floor is computed once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def trial(counts_file, cache):
    dataset = inputs.prepare(counts_file, label_key="cell_type", cache=cache)
    return trials.Trial(dataset, seed=0)


@pytest.fixture(scope="module")
def written(counts_file, cache, tmp_path_factory):
    """Output of the command, and the folder that it wrote."""
    out = tmp_path_factory.mktemp("results") / "out"
    words = ["--data", str(counts_file), "--methods", "duplicate,scdiffaug_ddim", "--seeds", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environments, "cache_folder", lambda *_: cache)
        done = CliRunner().invoke(app, ["benchmark", "augmentation", *words, "--out", str(out)])
    return done, out


def task(trial, draws, **changes):
    cells = trial.cells
    defaults = {"labels": trial.labels, "seed": 0, "max_epochs": None, "kind": "counts"}
    return makers.Task(
        values=cells.counts, seen=cells.seen, draws=draws, **{**defaults, **changes}
    )


def made_by(name, trial, draw="held_out"):
    draws = trial.draws(benchmark.GENERATORS[name])
    found = makers.WORKERS[name](task(trial, {draw: draws[draw]}), {name: {}})
    return next(cells for _, _, cells in found), draws[draw]


# Makers.


def test_mixup_partners_are_known_near_neighbours_and_never_the_cell_itself(trial, rng):
    train = trial.halves[0]
    draw = makers.Draw(train, train)
    partners = makers._partners(task(trial, {}), draw, rng=rng)
    assert set(partners) <= set(train)
    assert (partners != train).all()
    assert (trial.labels[partners] == trial.labels[train]).mean() > 0.8


@pytest.mark.parametrize(
    "name", ["duplicate", "gaussian", "mask", "mixup", "smote", "knn_poisson"]
)
def test_every_simple_peer_makes_a_cell_for_each_source_near_its_type(trial, name):
    made, draw = made_by(name, trial)
    is_seen = benchmark.GENERATORS[name].makes == "seen"
    seen = made if is_seen else peers.as_compared(made, trial.space)
    train = trial.halves[0]
    kept = type_scores(
        trial.cells.seen[train],
        trial.labels[train],
        seen,
        expected=trial.labels[draw.sources],
        seed=0,
    )
    assert made.shape == (len(draw.sources), 40)
    assert kept["type_kept_neighbors"] > 0.85
    is_copy = (abs(seen - trial.cells.seen[draw.sources])).max() == 0
    assert is_copy == (name == "duplicate")


def test_knn_poisson_of_held_out_cells_takes_only_their_depth(trial):
    made, draw = made_by("knn_poisson", trial)
    depth = np.asarray(trial.cells.counts[draw.sources].sum(1)).ravel()
    assert np.corrcoef(np.asarray(made.sum(1)).ravel(), depth)[0, 1] > 0.8


# The plan.


def test_halves_share_no_cell_and_split_every_type(trial):
    train, held_out = trial.halves
    np.testing.assert_array_equal(np.sort(np.concatenate([train, held_out])), np.arange(110))
    sizes = [pd.Series(trial.labels[half]).value_counts() for half in (train, held_out)]
    assert (sizes[0] - sizes[1]).abs().max() <= 1
    assert set(train) != set(trials.Trial(trial.dataset, 1).halves[0])


def test_labelled_cells_are_training_cells_and_fill_every_type(trial):
    train, held_out = trial.halves
    assert set(trial.labelled(5)) < set(trial.labelled(10)) <= set(train)
    assert pd.Series(trial.labels[trial.labelled(5)]).value_counts().eq(5).all()
    assert pd.Series(trial.labels[trial.to_fill(5)]).value_counts().eq(95).all()
    assert set(trial.to_fill(25)) == set(trial.labelled(25))
    assert not set(held_out) & set(scoring._more_labelled(trial, 5))


@pytest.mark.parametrize("name", ["knn_poisson", "smote"])
def test_makers_of_the_use_setting_never_know_test_cells_nor_further_labels(trial, name):
    draw = trial.draws(benchmark.GENERATORS[name])["use_5"]
    assert not set(trial.halves[1]) & set(draw.known)
    assert set(draw.known) == set(trial.labelled(5) if name == "smote" else trial.halves[0])


def job(trial, cache, *names, **changes):
    options = {"max_epochs": None, "timeout": 60.0, **changes}
    return trials.Job(trial=trial, names=names, cache=cache, **options)


def test_labels_reach_only_makers_that_use_them(trial, cache):
    assert "labels" in job(trial, cache, "smote").plan
    assert "labels" not in job(trial, cache, "scdiffaug", "semantic_poisson").plan


def test_who_keeps_types_is_told_those_of_the_labelled_cells_alone(trial, cache):
    plan = job(trial, cache, "scdiffaug", "scdiffaug_consistent").plan
    told = {name for name in plan if "types" in name or "labels" in name}
    assert told == {"use_5.types", "use_10.types", "use_25.types", "use_50.types"}
    assert (plan["use_5.types"] == trial.labels[plan["use_5.sources"]]).all()
    assert set(plan["use_5.sources"]) == set(trial.labelled(5))
    assert set(plan["use_5.known"]) == set(trial.halves[0])
    plan = job(trial, cache, "scdiffaug", "scdiffaug_grouped").plan
    assert (plan["held_out.types"] == trial.labels[plan["held_out.sources"]]).all()
    assert "labels" not in plan


def test_a_worker_that_fails_is_started_once_for_all_its_rows(trial, cache, monkeypatch):
    started = []

    def call(command, **_):
        started.append(command)
        raise RuntimeError("no memory")

    monkeypatch.setattr(trials.processes, "call", call)
    one = job(trial, cache / "fails", "scdiffaug", "semantic_poisson")
    assert [one.run.error, one.run.error] == ["no memory"] * 2
    assert len(started) == 1


def test_types_are_filled_by_cells_that_stayed_and_scored_in_use_alone(trial, cache):
    name = "scdiffaug_consistent"
    one = job(trial, cache, "scdiffaug", "scdiffaug_grouped", name, max_epochs=20)
    assert not one.run.error
    filled = pd.Series(one.filled_types(name, 5)).value_counts()
    assert set(filled.index) <= set(trial.labels)
    assert filled.max() <= 95
    assert one.made(name, "use_5").seen.shape[0] == filled.sum()
    scores = scoring.scores_of(one, name)
    assert list(scores) == ["use"]
    assert all(0 <= score <= 1 for score in scores["use"].values())
    for in_all in ("scdiffaug", "scdiffaug_grouped"):
        assert set(scoring.scores_of(one, in_all)) == set(trials.SETTINGS)


def test_one_training_serves_all_draws_of_the_same_known_cells(trial):
    draws = trial.draws(benchmark.GENERATORS["scdiffaug"])
    groups = [sorted(group) for _, group in task(trial, draws).by_known()]
    novelty = ["held_out", "novelty", "use_10", "use_25", "use_5", "use_50"]
    assert groups == [["in_sample"], novelty]


def test_rows_that_share_a_worker_share_a_job_and_the_rest_have_their_own(trial, cache):
    names = ["mask", "scvi_prior", "scvi_posterior"]
    jobs = study._jobs(trial, names, max_epochs=1, timeout=1, cache=cache)
    assert jobs["scvi_prior"] is jobs["scvi_posterior"]
    assert jobs["mask"].names == ("mask",)


def test_another_plan_or_setting_is_another_folder(trial, cache):
    folders = {
        job(trial, cache, "mask").folder,
        job(trial, cache, "mask", max_epochs=1).folder,
        job(trial, cache, "duplicate").folder,
        job(trials.Trial(trial.dataset, 1), cache, "mask").folder,
    }
    assert len(folders) == 4


# Scores.


def test_types_kept_are_weighted_by_cells_and_the_worst_has_twenty(rng):
    names = np.repeat(["a", "b", "c"], 30)
    real = np.eye(3)[np.repeat([0, 1, 2], 30)] + rng.normal(0, 0.01, (90, 3))
    expected = np.repeat(["a", "b", "c"], [30, 20, 5])
    made = real[np.r_[0:30, 30:40, 0:10, 0:5]]
    kept = type_scores(real, names, made, expected=expected, seed=0)
    assert kept["type_kept_neighbors/c"] == 0
    assert kept["type_kept_neighbors_worst"] == kept["type_kept_logistic_worst"] == 0.5
    assert kept["type_kept_neighbors"] == pytest.approx(40 / 55)


def test_made_cells_of_the_right_type_help_and_of_the_wrong_type_harm(trial):
    exam, train = trial.exams[5], trial.halves[0]
    more = np.setdiff1d(train, trial.labelled(5))
    seen, names = trial.cells.seen[more], trial.labels[more]
    wrong = pd.Series(names).map({"a": "b", "b": "rare", "rare": "a"}).to_numpy()
    assert exam.macro_f1(seen, wrong) < 0.3 < exam.macro_f1(None, [])
    assert exam.macro_f1(seen, names) > 0.9


def test_self_training_learns_from_the_cells_that_have_no_label(trial):
    exam, train = trial.exams[5], trial.halves[0]
    more = np.setdiff1d(train, trial.labelled(5))
    np.testing.assert_array_equal(dense(exam.unlabelled), dense(trial.cells.seen[more]))
    noise = replace(exam, unlabelled=trial.cells.seen[np.resize(more[:1], 200)])
    assert noise.self_training_f1() != exam.self_training_f1() > exam.macro_f1(None, [])


def test_best_is_the_nearest_to_the_ideal_and_all_that_reach_the_floor():
    values = pd.Series({"real": 0.48, "mask": 0.51, "mixup": 0.52, "smote": 0.05})
    assert report.best(values, "two_sample_auc").to_dict() == {
        "real": False, "mask": True, "mixup": True, "smote": False,
    }  # fmt: skip
    worse = values.replace({0.51: 0.6, 0.52: 0.7})
    assert worse.index[report.best(worse, "two_sample_auc")].tolist() == ["mask"]


def test_real_cells_are_a_ceiling_of_use_and_the_zero_share_to_meet():
    values = pd.Series({"real": 0.5, "mask": 0.6, "mixup": 0.7})
    use = report.best(values, "macro_f1_5")
    assert use.index[use].tolist() == ["mixup"]
    zeros = report.best(values, "zero_share")
    assert zeros.index[zeros].tolist() == ["mask"]


# The whole way.


def test_command_writes_tables_and_pictures(written):
    done, out = written
    assert done.exit_code == 0, done.output
    assert {path.name for path in out.iterdir()} == {
        "results.csv", "summary.md", "small_cells.png", "small_gene_means.png", "small_depth.png",
    }  # fmt: skip
    summary = (out / "summary.md").read_text()
    for title in ("In sample: distribution", "Held out: types kept", "Novelty and privacy", "Use"):
        assert f"### {title}" in summary
    assert "benchmark augmentation --data" in summary
    assert summary.index("| real |") < summary.index("| duplicate |")


def test_floor_is_what_real_cells_score(written):
    results = pd.read_csv(written[1] / "results.csv", keep_default_na=False, na_values=[""])
    floor = results[(results["method"] == "real") & results["type"].isna()]
    found = floor.set_index(["setting", "metric"])["value"]
    # Fifty-five cells a side, with types in balance, are told apart worse than by chance.
    assert 0.25 < found["held_out", "two_sample_auc"] < 0.6
    assert found["novelty", "nearest_training_distance_ratio"] == pytest.approx(1, abs=0.2)
    # A cell drawn from the 15 nearest is nearest to its "source" in one case of 15 or more.
    assert 0 < found["novelty", "own_source_share"] < 0.25
    assert found["use", "macro_f1_50"] > 0.9
    fidelity = [metric for name in report.FIDELITY for metric in report.IDEAL_BY_TABLE[name]]
    assert set(found["in_sample"].index) == set(fidelity)
    assert len(fidelity) == 22


def test_copies_are_found_out(written):
    results = pd.read_csv(written[1] / "results.csv")
    found = results[results["method"] == "duplicate"]
    found = found[found["type"].isna()].set_index(["setting", "metric"])["value"]
    assert found["in_sample", "two_sample_auc"] < 0.3
    assert found["in_sample", "depth_distance"] == 0
    novelty = ["duplicates_exact", "own_source_share", "membership_auc"]
    np.testing.assert_allclose([found["novelty", name] for name in novelty], 1)
    assert found["novelty", "nearest_training_distance_ratio"] == pytest.approx(0, abs=1e-3)


def test_what_does_not_apply_is_a_row_that_says_why(written):
    results = pd.read_csv(written[1] / "results.csv")
    notes = results.loc[results["method"] == "scdiffaug_ddim", "note"]
    assert notes.tolist() == ["makes log or raw values, not counts"]
    assert (
        "| small | scdiffaug_ddim | makes log or raw values"
        in (written[1] / "summary.md").read_text()
    )


@pytest.mark.parametrize(
    "name", ["knn_poisson", "semantic_poisson", "scvi_posterior", "scvi_prior"]
)
def test_makers_of_counts_do_not_apply_to_intensities(name):
    assert benchmark.GENERATORS[name].unfit("raw") == "makes counts or peaks values, not raw"
    assert benchmark.GENERATORS["scdiffaug"].unfit("raw") == ""


def test_a_maker_that_fails_is_a_row_and_the_others_go_on(counts_file, cache, tmp_path):
    results = benchmark.augmentation(
        [counts_file],
        method_names=["mask", "duplicate"],
        n_seeds=1,
        out=tmp_path,
        timeout=0.01,
        cache=cache,
        show_progress=False,
    )
    assert results.loc[results["method"] == "mask", "note"].tolist() == ["took longer than 0.01 s"]
    # Remembered from the run of the command: no process, so no timeout.
    assert results.loc[results["method"] == "duplicate", "value"].notna().all()
    assert len(results[results["method"] == "duplicate"]) > 40


def test_trials_at_once_score_as_one_after_the_other(counts_file, cache, tmp_path):
    asked = {"method_names": ["duplicate"], "n_seeds": 2, "show_progress": False}
    one, other = (
        benchmark.augmentation(
            [counts_file], n_jobs=n, cache=cache / f"jobs_{n}", out=tmp_path / f"{n}", **asked
        )
        for n in (1, 2)
    )
    measured = ["seconds", "peak_mb"]
    pd.testing.assert_frame_equal(one.drop(columns=measured), other.drop(columns=measured))
    assert one["seed"].unique().tolist() == [0, 1]
    assert {path.name for path in (tmp_path / "1").iterdir()} == {
        path.name for path in (tmp_path / "2").iterdir()
    }


def test_settings_that_are_not_asked_for_cost_nothing(trial, counts_file, cache, tmp_path):
    few = trials.Trial(trial.dataset, 0, settings=("use",))
    draws = few.draws(benchmark.GENERATORS["scdiffaug"])
    assert list(draws) == ["use_5", "use_10", "use_25", "use_50"]
    asked = {"method_names": ["duplicate"], "n_seeds": 1, "show_progress": False}
    only, whole = (
        benchmark.augmentation([counts_file], cache=cache, out=tmp_path / name, **asked, **more)
        for name, more in {"few": {"settings": ["use"]}, "all": {}}.items()
    )
    score = ["method", "metric", "value"]
    expected = whole.loc[whole["setting"] == "use", score].reset_index(drop=True)
    pd.testing.assert_frame_equal(only[score], expected)
    summary = (tmp_path / "few" / "summary.md").read_text()
    assert "--settings use" in summary
    assert "### Held out" not in summary
    assert not list((tmp_path / "few").glob("*.png"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [(["usage"], "settings='usage' is unknown: use 'in_sample'"), ([], "settings is empty")],
)
def test_unknown_settings_are_refused(counts_file, cache, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        benchmark.augmentation([counts_file], settings=settings, cache=cache, out=tmp_path)


def test_unknown_methods_are_refused(counts_file, cache, tmp_path):
    with pytest.raises(ValueError, match="method 'umap' cannot do this"):
        benchmark.augmentation([counts_file], method_names=["umap"], cache=cache, out=tmp_path)
    with pytest.raises(ValueError, match="method 'typo' is unknown"):
        benchmark.augmentation([counts_file], method_names=["typo"], cache=cache, out=tmp_path)


def _long(values):
    """Rows of setting, metric, dataset, seed, method and value."""
    names = ["setting", "metric", "dataset", "seed", "method", "value"]
    return pd.DataFrame(values, columns=names).assign(type="")


def test_overview_says_how_far_ours_is_ahead_and_where():
    auc = [
        ("held_out", "two_sample_auc", dataset, seed, method, value + 0.01 * seed)
        for seed in (0, 1)
        for dataset, method, value in [
            ("a", "scdiffaug", 0.6), ("a", "smote", 0.9),
            ("b", "scdiffaug", 0.7), ("b", "smote", 0.6),
            ("b", "duplicate", 0.05),
        ]
    ]  # fmt: skip
    f1 = [
        ("use", "macro_f1_10", "a", 0, "scdiffaug", 0.8),
        ("use", "macro_f1_10", "a", 0, "none", 0.7),
    ]
    title, *_, differences, _ = overview.overview(_long(auc + f1))
    assert title == "## All datasets"
    rows = {line.split(" | ")[0][2:]: line.split(" | ")[1:] for line in differences.splitlines()}
    # By datasets - 30 and + 10 points, whatever the seed.
    assert rows["smote"][0] == "-10.0 (-30.0 to +10.0), 1 of 2"
    # Below 0.5, where copies are, is no better than 0.5.
    assert rows["duplicate"][0] == "+20.5 (+20.0 to +21.0), 0 of 1"
    assert (
        "AUC held out"
        not in overview.overview(
            _long(auc + f1 + [("use", "macro_f1_10", "a", 0, "scdiffaug_consistent", 0.9)])
        )[-2]
    )
    # In sample both sides of 0.5 count, and who lacks a dataset has no mean.
    sampled = [
        ("in_sample", "two_sample_auc", dataset, 0, method, auc)
        for method, aucs in {"scdiffaug": (0.4, 0.6), "smote": (0.5,)}.items()
        for dataset, auc in zip("ab", aucs, strict=False)
    ]
    means = overview.overview(_long(sampled))[2].splitlines()
    assert means[2:] == ["| scdiffaug | 0.500 | 0.100 |", "| smote | – | – |"]
    # What was measured of nobody has no column.
    assert rows["none"] == ["–", "+10.0 (–), 1 of 1 |"]
    assert overview.overview(_long(f1)) == []


def test_curves_take_the_settings_of_their_axis_alone():
    values = {
        "scdiffaug": (0.5, "steps=16 strength=1.0"),
        "scdiffaug_steps_1": (0.9, "steps=1 strength=1.0"),
        "scdiffaug_strength_0.1": (0.2, "steps=16 strength=0.1"),
        "scdiffaug_ddim": (0.1, "steps=16 strength=1.0 sampler=ddim"),
        "real": (0.4, ""),
    }
    results = pd.DataFrame(
        {
            "dataset": "x",
            "setting": "held_out",
            "method": name,
            "metric": "two_sample_auc",
            "type": "",
            "value": value,
            "settings": settings,
        }
        for name, (value, settings) in values.items()
    )
    lines = report.curves_figure(results, "steps").axes[0].lines
    assert next(list(line.get_ydata()) for line in lines if len(line.get_xdata())) == [0.9, 0.5]
    assert list(lines[-1].get_ydata()) == [0.4, 0.4]
    alone = results[~results["method"].str.contains("steps")]
    assert report.curves_figure(alone, "steps") is None


@pytest.mark.parametrize(
    ("kind", "process"), [("counts", CountThinning), ("raw", GaussianDiffusion)]
)
def test_our_row_is_what_augment_does_by_default(kind, process):
    ours = methods.GENERATORS["scdiffaug"]
    assert ours.settings_of(kind)["steps"] == process.default_steps
    assert methods.GENERATORS["scdiffaug_steps_16"].settings_of(kind)["steps"] == 16
