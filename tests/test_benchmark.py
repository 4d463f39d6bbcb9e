"""The embedding benchmark: inputs, runs that are remembered or fail, margins, report."""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from small_cells import write_counts
from typer.testing import CliRunner

from scdiffaug import benchmark, metrics
from scdiffaug.benchmark import _worker, environments, inputs, margins, methods, pages
from scdiffaug.benchmark._embedding import report, runs
from scdiffaug.benchmark.processes import Run
from scdiffaug.cli import app
from scdiffaug.objectives import OBJECTIVES


@pytest.fixture
def counts_file(tmp_path):
    """60 cells of two types and 3 of a rare one, as counts."""
    return write_counts(tmp_path / "small.h5ad", {"a": 30, "b": 30, "rare": 3})


def prepared(path, cache, **options):
    return inputs.prepare(path, label_key="cell_type", cache=cache, **options)


def job(dataset, cache, name="pca", **changes):
    defaults = {"seed": 0, "settings": {}, "timeout": 60.0}
    return runs.Job(dataset=dataset, name=name, cache=cache, **{**defaults, **changes})


def test_rare_types_are_left_out_and_said_so(counts_file, tmp_path):
    dataset = prepared(counts_file, tmp_path)
    assert sorted(set(dataset.labels)) == ["a", "b"]
    assert "3 cells" in dataset.note
    assert dataset.kind == "counts"


def test_inputs_hold_what_methods_start_from(counts_file, tmp_path):
    dataset = prepared(counts_file, tmp_path)
    given = _worker.Inputs(dataset.folder, dataset.kind)
    assert given.values.shape == (60, 40)
    depth = np.expm1(given.features).sum(1)
    np.testing.assert_allclose(depth, 1e4, rtol=1e-3)
    np.testing.assert_array_equal(given.pca(), dataset.pca)
    assert given.pca("standardised").std() == pytest.approx(1, rel=0.05)
    assert not list(dataset.folder.glob("*label*"))


def test_inputs_are_named_by_their_content(counts_file, tmp_path):
    one = prepared(counts_file, tmp_path)
    assert prepared(counts_file, tmp_path).digest == one.digest
    adata = ad.read_h5ad(counts_file)
    adata.X[0, 0] += 1
    adata.write_h5ad(counts_file)
    assert prepared(counts_file, tmp_path).digest != one.digest


def test_inputs_are_made_again_by_other_code_and_runs_only_of_other_inputs(
    counts_file, tmp_path, monkeypatch
):
    one = prepared(counts_file, tmp_path)
    code = tmp_path / "code.py"
    code.touch()
    monkeypatch.setattr(inputs, "_PREPARING", [code])
    again = prepared(counts_file, tmp_path)
    assert again.folder != one.folder
    assert job(again, tmp_path).folder == job(one, tmp_path).folder
    code.write_text("changed")
    monkeypatch.setattr(inputs, "pca_for", lambda _, seed: PCA(3, random_state=seed))
    changed = prepared(counts_file, tmp_path)
    assert job(changed, tmp_path).folder != job(one, tmp_path).folder


def test_larger_datasets_are_drawn_from(counts_file, tmp_path):
    dataset = prepared(counts_file, tmp_path, max_cells=50)
    assert len(dataset.labels) <= 50
    assert "50 of 63 cells" in dataset.note


def test_missing_file_and_column_are_named(counts_file, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.h5ad is not a file"):
        prepared(tmp_path / "nowhere.h5ad", tmp_path)
    with pytest.raises(KeyError, match=r"small\.h5ad: label_key='type' not found"):
        inputs.prepare(counts_file, label_key="type", cache=tmp_path)
    (broken := tmp_path / "broken.h5ad").write_text("no HDF5")
    with pytest.raises(ValueError, match=r"broken\.h5ad cannot be read as \.h5ad"):
        prepared(broken, tmp_path)


def test_files_with_nothing_to_tell_apart_are_refused_by_name(counts_file, tmp_path):
    alone = write_counts(tmp_path / "alone.h5ad", {"a": 30, "rare": 3})
    with pytest.raises(ValueError, match=r"alone\.h5ad: label_key='cell_type' has 1 types of 10"):
        prepared(alone, tmp_path)
    with pytest.raises(ValueError, match=r"has 0 types of 10 or more of the 5 cells"):
        prepared(counts_file, tmp_path, max_cells=5)
    with pytest.raises(ValueError, match=r"small\.h5ad: max_cells=-5 must be"):
        prepared(counts_file, tmp_path, max_cells=-5)


def test_names_cannot_break_a_table():
    table = pd.DataFrame({"type": ["Mono|CD14+", "B <naive>"], "a|b": [1, 2]})
    text = pages.markdown(table)
    assert text.splitlines()[0] == "| type | a\\|b |"
    assert text.splitlines()[2:] == ["| Mono\\|CD14+ | 1 |", "| B &lt;naive> | 2 |"]


def test_one_run_has_no_interval_and_one_dataset_that_of_its_seeds():
    once = results_of({("one", "scdiffaug"): [0.7], ("one", "umap"): [0.6]})
    twice = results_of({("one", "scdiffaug"): [0.7, 0.8], ("one", "umap"): [0.6, 0.6]})
    page = report.Page(title="", command="")
    said = [
        report.summary(
            each.assign(seconds=1.0, peak_mb=1.0, settings="", versions="", note=""), [], page=page
        )
        for each in (once, twice)
    ]
    assert "mean +10.0 points (95% interval –, over seeds alone)" in said[0]
    assert "mean +15.0 points (95% interval +10.0 to +20.0, over seeds alone)" in said[1]


def test_lists_on_the_command_line_may_have_spaces(counts_file, tmp_path):
    words = ["benchmark", "embedding", "--data", str(counts_file), "--seeds", "1"]
    words += ["--out", str(tmp_path / "out"), "--methods"]
    result = CliRunner().invoke(app, [*words, "pca, unknown"])
    assert "method 'unknown' is unknown" in result.output
    assert "has a method twice" in CliRunner().invoke(app, [*words, "pca,pca"]).output
    words = ["benchmark", "alpha", "--data", str(counts_file), "--shares", "1,all"]
    assert "'1,all' must be numbers" in CliRunner().invoke(app, words).output


def test_a_run_is_scored_and_remembered(counts_file, tmp_path):
    this = job(prepared(counts_file, tmp_path), tmp_path)
    first = runs.run(this)
    assert first.scores["2d"]["linear_svm_accuracy"] > 0.9
    assert first.versions["scikit-learn"]
    described = this.folder / "run.json"
    described.write_text(json.dumps({"seconds": 1e6, "peak_mb": 1, "versions": {}}))
    assert runs.run(this).seconds == 1e6


@pytest.mark.parametrize("change", [{"seed": 1}, {"settings": {"a": 1}}, {"name": "umap"}])
def test_another_job_is_another_folder(counts_file, tmp_path, change):
    dataset = prepared(counts_file, tmp_path)
    assert job(dataset, tmp_path).folder != job(dataset, tmp_path, **change).folder


def test_a_failing_run_says_why_and_leaves_nothing(counts_file, tmp_path):
    this = job(prepared(counts_file, tmp_path), tmp_path, settings={"unknown": 1})
    failed = runs.run(this)
    assert "unexpected keyword argument 'unknown'" in failed.error
    assert failed.scores == {}
    assert list((tmp_path / "runs").iterdir()) == []


def test_the_linear_svm_of_a_draw_is_remembered_apart_and_said(counts_file, tmp_path):
    dataset = prepared(counts_file, tmp_path)
    whole, drawn = (runs.run(job(dataset, tmp_path, max_cells_svm=n)) for n in (None, 30))
    points = runs.embeddings(job(dataset, tmp_path))["2d"]
    expected = metrics.linear_svm_accuracy(points, dataset.labels, max_cells=30)
    assert drawn.scores["2d"] == whole.scores["2d"] | {"linear_svm_accuracy": expected}
    out = tmp_path / "out"
    options = {"method_names": ["pca"], "n_seeds": 1, "max_cells_svm": 30}
    benchmark.embedding([counts_file], **options, out=out, cache=tmp_path)
    summary = (out / "summary.md").read_text()
    assert "Linear SVM: of 30 cells drawn at random with seed 0" in summary
    assert "--max-cells-svm 30" in summary


def test_one_run_is_scored_anew_against_other_labels(counts_file, tmp_path):
    dataset = prepared(counts_file, tmp_path)
    shuffled = replace(dataset, labels=np.random.default_rng(0).permutation(dataset.labels))
    found, other = (runs.run(job(each, tmp_path)) for each in (dataset, shuffled))
    assert job(dataset, tmp_path).folder == job(shuffled, tmp_path).folder
    points = runs.embeddings(job(shuffled, tmp_path))["2d"]
    assert other.scores["2d"]["knn_accuracy"] == metrics.knn_accuracy(points, shuffled.labels)
    assert other.scores["2d"]["knn_accuracy"] < found.scores["2d"]["knn_accuracy"] - 0.2


def test_a_run_that_takes_too_long_is_given_up(counts_file, tmp_path):
    this = job(prepared(counts_file, tmp_path), tmp_path, timeout=0.01)
    assert "took longer than 0.01 s" in runs.run(this).error


def test_a_worker_ends_with_the_benchmark(tmp_path):
    started = tmp_path / "started"
    says_who = f"open({str(started)!r}, 'w').write(str(os.getpid()))"
    worker = f"import os, time; {says_who}; time.sleep(60)"
    calls = (
        "import sys; from scdiffaug.benchmark.processes import call\n"
        f"call([sys.executable, '-c', {worker!r}], timeout=60)"
    )
    with subprocess.Popen([sys.executable, "-c", calls]) as running:
        while not (started.exists() and started.read_text()):
            time.sleep(0.05)
        running.terminate()
    assert running.returncode == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)


def test_a_method_without_its_environment_says_how_to_make_it(counts_file, tmp_path):
    this = job(prepared(counts_file, tmp_path), tmp_path, name="pumap")
    assert "scdiffaug benchmark setup keras" in runs.run(this).error


def test_an_unknown_environment_is_named():
    with pytest.raises(ValueError, match="environment 'conda' is unknown"):
        environments.make("conda", None)


def test_every_method_has_a_worker_and_an_equal_tuning_budget():
    tuned = {n: m for n, m in methods.METHODS.items() if m.worker != "pca" and not m.settings}
    tuned[methods.ENCODER_ALONE] = methods.METHODS[methods.ENCODER_ALONE]
    assert {m.worker for m in methods.METHODS.values()} <= set(_worker.METHODS)
    assert {name: len(m.grid) for name, m in tuned.items()} == dict.fromkeys(tuned, 3)


def test_every_objective_has_a_row_with_and_without_generated_positives():
    assert ("soft_contrastive", *methods.OTHER_OBJECTIVES) == tuple(OBJECTIVES)
    for name in methods.OTHER_OBJECTIVES:
        generated, neighbours = (
            methods.METHODS[f"scdiffaug_{name}{end}"] for end in ("", "_alpha0")
        )
        assert generated.settings == {"objective": name}
        assert neighbours.settings == {"objective": name, "alpha": 0.0}


def test_unknown_methods_and_repeated_names_are_refused(counts_file, tmp_path):
    with pytest.raises(ValueError, match="method 'unap' is unknown"):
        benchmark.embedding([counts_file], method_names=["unap"], cache=tmp_path)
    with pytest.raises(ValueError, match="two files named 'small'"):
        benchmark.embedding([counts_file, counts_file], method_names=["pca"], cache=tmp_path)


@pytest.mark.parametrize(
    ("study", "options", "said"),
    [
        (benchmark.embedding, {"method_names": []}, "method_names is empty"),
        (benchmark.embedding, {"n_seeds": 0}, "n_seeds=0 must be at least 1"),
        (benchmark.transform, {"n_seeds": 0}, "n_seeds=0 must be at least 1"),
        (benchmark.transform, {"data": []}, "data is empty"),
        (benchmark.transform, {"data": ["a/x.h5ad", "b/x.h5ad"]}, "two files named 'x'"),
        (benchmark.augmentation, {"n_seeds": 0}, "n_seeds=0 must be at least 1"),
        (benchmark.alpha, {"data": []}, "data is empty"),
        (benchmark.alpha, {"data": ["a/x.h5ad", "b/x.h5ad"]}, "two files named 'x'"),
        (benchmark.alpha, {"shares": []}, "shares is empty"),
        (benchmark.alpha, {"n_seeds": 0}, "n_seeds=0 must be at least 1"),
    ],
)
def test_studies_of_nothing_are_refused(study, options, said, counts_file, tmp_path):
    with pytest.raises(ValueError, match=said):
        study(**{"data": [counts_file], "cache": tmp_path, "out": tmp_path, **options})


def test_embedding_that_cannot_be_scored_is_a_row_that_says_so(counts_file, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "embeddings", lambda _: {"2d": np.full((60, 2), np.nan)})
    found = benchmark.embedding(
        [counts_file], method_names=["pca"], n_seeds=1, out=tmp_path / "out",
        cache=tmp_path, show_progress=False,
    )  # fmt: skip
    assert found["note"].str.contains("embedding that cannot be scored").all()


def test_margins_are_over_the_best_peer_of_each_dataset():
    scores = pd.DataFrame(
        {"scdiffaug": [90.0, 70.0], "umap": [85.0, 75.0], "tsne": [88.0, 60.0]}, index=["x", "y"]
    )
    table = margins.margins(scores, "scdiffaug", ["umap", "tsne"])
    assert table["best_peer"].tolist() == ["tsne", "umap"]
    assert table["margin"].tolist() == [2.0, -5.0]


def test_a_dataset_on_which_no_peer_ran_has_no_margin():
    values = {("x", "scdiffaug"): [0.9], ("x", "umap"): [0.8], ("y", "scdiffaug"): [0.7]}
    results = results_of(values)
    results.loc[len(results)] = {"dataset": "y", "method": "umap", "value": np.nan}
    scores = margins.mean_scores(results, "kmeans_accuracy")
    table = margins.margins(scores, "scdiffaug", ["umap"])
    assert table["margin"].to_dict() == pytest.approx({"x": 10.0})
    assert margins.margins(scores.loc[["y"]], "scdiffaug", ["umap"]).empty


def results_of(values):
    """A long table from {(dataset, method): scores of the seeds}."""
    return pd.DataFrame(
        {
            "dataset": dataset,
            "method": method,
            "representation": "2d",
            "seed": seed,
            "metric": "kmeans_accuracy",
            "value": value,
        }
        for (dataset, method), scores in values.items()
        for seed, value in enumerate(scores)
    )


def test_bootstrap_interval_holds_the_mean_and_shrinks_without_spread():
    best = pd.Series(["umap", "umap"], index=["x", "y"])
    same = {("x", "umap"): [0.5, 0.5], ("y", "umap"): [0.6, 0.6]}
    exact = results_of(same | {("x", "ours"): [0.6, 0.6], ("y", "ours"): [0.7, 0.7]})
    noisy = results_of(same | {("x", "ours"): [0.5, 0.7], ("y", "ours"): [0.6, 0.8]})
    options = {"ours": "ours", "best_peer": best}
    assert margins.bootstrap_margin(exact, "kmeans_accuracy", **options) == pytest.approx((10, 10))
    low, high = margins.bootstrap_margin(noisy, "kmeans_accuracy", **options)
    assert low < 10 < high
    both = pd.concat([noisy, exact.assign(representation="80d")])
    of_y = margins.bootstrap_margin(both, "kmeans_accuracy", representation="80d", **options)
    assert of_y == pytest.approx((10, 10))
    assert (
        margins.mean_scores(both, "kmeans_accuracy", representation="80d").loc["y", "ours"] == 70
    )


def test_paired_differences_are_resampled_by_dataset_and_seed():
    index = pd.MultiIndex.from_product([["x", "y"], [0, 1, 2]], names=["dataset", "seed"])
    same = pd.Series([1.0, 1, 1, 3, 3, 3], index=index)
    # Two datasets without spread over seeds: all means are 1, 2 or 3.
    assert margins.paired_interval(same) == (1, 3)
    assert margins.paired_interval(same.loc[["x"]]) == (1, 1)
    assert np.isnan(margins.paired_interval(same.iloc[:1])).all()
    low, high = margins.paired_interval(pd.Series([-1.0, 0, 1, -1, 0, 1], index=index))
    assert -1 <= low < -0.4
    assert 0.4 < high <= 1


def test_command_writes_all_files_and_reports_failures(counts_file, tmp_path, monkeypatch):
    monkeypatch.setattr(environments, "cache_folder", lambda *_: tmp_path / "cache")
    out = tmp_path / "out"
    words = ["--data", str(counts_file), "--methods", "pca,pumap", "--seeds", "2"]
    done = CliRunner().invoke(app, ["benchmark", "embedding", *words, "--out", str(out)])
    assert done.exit_code == 0, done.output
    results = pd.read_csv(out / "results.csv")
    of_pca = results.query("method == 'pca'").groupby(["representation", "metric"]).size()
    assert set(of_pca.index.unique(0)) == {"2d", "components"}
    assert of_pca.eq(2).all()
    assert results.query("method == 'pumap'")["note"].str.contains("is not made").all()
    summary = (out / "summary.md").read_text()
    assert "Runs without a result" in summary
    assert "3 cells without a type or of types of fewer than 10 cells left out" in summary
    assert {path.name for path in out.iterdir()} == {
        "results.csv",
        "summary.md",
        "embeddings.png",
        "ranks.png",
    }


def test_several_files_may_follow_one_option(counts_file, tmp_path, monkeypatch):
    monkeypatch.setattr(environments, "cache_folder", lambda *_: tmp_path / "cache")
    other = tmp_path / "other.h5ad"
    shutil.copy(counts_file, other)
    words = ["--data", str(counts_file), str(other), "--methods", "pca", "--seeds", "1"]
    command = ["benchmark", "embedding", *words, "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    found = pd.read_csv(tmp_path / "out" / "results.csv")["dataset"].unique()
    assert list(found) == [counts_file.stem, "other"]
    absent = CliRunner().invoke(app, [*command, str(tmp_path / "absent.h5ad")])
    assert absent.exit_code == 2
    assert "does not exist" in absent.output


def test_processors_and_seeds_are_named():
    assert f"Python {platform.python_version()}" in pages.hardware()
    runs = pd.DataFrame({"dataset": "d", "method": ["a", "a", "b"], "seed": [0, 1, 0]})
    assert pages.n_seeds(runs) == "1 to 2 seeds"
    assert pages.n_seeds(runs[runs["method"] == "a"]) == "2 seeds"
    assert pages.n_seeds(runs[runs["method"] == "b"]) == "1 seed"


def test_command_names_what_is_wrong_and_fails(counts_file, tmp_path, monkeypatch):
    monkeypatch.setattr(environments, "cache_folder", lambda *_: tmp_path / "cache")
    words = ["--data", str(counts_file), "--label", "type", "--out", str(tmp_path / "out")]
    failed = CliRunner().invoke(app, ["benchmark", "embedding", *words])
    assert failed.exit_code == 1
    assert "label_key='type' not found in adata.obs" in failed.output
    assert not (tmp_path / "out").exists()


def test_tuning_takes_the_most_trustworthy_setting(counts_file, tmp_path, monkeypatch):
    trust = {"{}": 0.5, "{'n_neighbors': 30}": 0.9}

    def scored(this):
        scores = {"2d": {"trustworthiness": trust.get(str(this.settings), 0.1), "other": 1.0}}
        return Run(seconds=1, peak_mb=1, versions={}, scores=scores)

    monkeypatch.setattr(runs, "run", scored)
    results = benchmark.embedding(
        [counts_file],
        method_names=["umap"],
        n_seeds=1,
        out=tmp_path / "out",
        tuned=True,
        cache=tmp_path,
        show_progress=False,
    )
    assert set(results["settings"]) == {"n_neighbors=30"}
    summary = (tmp_path / "out" / "summary.md").read_text()
    assert f"| {counts_file.stem} | n_neighbors=30 |" in summary


def test_a_method_that_lacks_a_dataset_has_no_mean():
    results = results_of(
        {("one", "pca"): [0.5], ("one", "umap"): [0.7], ("two", "pca"): [0.6], ("two", "umap"): []}
    )
    names = {"pca": "PCA", "umap": "UMAP"}
    lines = report.score_table(results, "kmeans_accuracy", names=names).splitlines()
    assert lines[-2] == "| two | **60.0** | – |"
    assert lines[-1] == "| mean | 55.0 | – |"


def test_each_dataset_counts_alike_however_many_seeds_it_has():
    results = results_of({("one", "pca"): [0.9], ("two", "pca"): [0.1, 0.3, 0.5]})
    results = results.assign(seconds=1.0, peak_mb=1.0, settings="", versions="", note="")
    summary = report.summary(results, [], page=report.Page(title="", command=""))
    table = summary.split("## All metrics, mean over datasets")[1]
    assert "0.6" in table.split("pca 2d")[1].split("|")[1]
