"""The study of α: pairs of runs on draws of the cells, their differences, the report."""

import numpy as np
import pandas as pd
import pytest
from small_cells import write_counts
from typer.testing import CliRunner

from scdiffaug import benchmark
from scdiffaug.benchmark import environments
from scdiffaug.benchmark._embedding import alpha, report, runs
from scdiffaug.benchmark.processes import Run
from scdiffaug.cli import app


@pytest.fixture
def asked(monkeypatch):
    """The jobs of runs that are not run; with diffusion they score 2 points more, or 4 on few."""
    jobs = []

    def run(job):
        jobs.append(job)
        gain = 0.02 if len(job.dataset.labels) == 100 else 0.04
        score = 0.8 + job.seed / 100 + gain * (job.name == "scdiffaug")
        scores = {"linear_svm_accuracy": score, "kmeans_accuracy": 0.7 + 0.1 * score}
        return Run(seconds=1, peak_mb=1, versions={"x": "1"}, scores={"2d": scores, "80d": scores})

    monkeypatch.setattr(runs, "run", run)
    return jobs


def test_command_pairs_runs_on_the_same_cells(asked, tmp_path, monkeypatch):
    monkeypatch.setattr(environments, "cache_folder", lambda *_: tmp_path)
    path = write_counts(tmp_path / "small.h5ad", {"a": 60, "b": 40})
    out = tmp_path / "out"
    words = ["--data", str(path), "--seeds", "2", "--shares", "1,0.6", "--out", str(out)]
    done = CliRunner().invoke(app, ["benchmark", "alpha", *words, "--max-epochs", "3"])
    assert done.exit_code == 0, done.output
    pairs = list(zip(asked[::2], asked[1::2], strict=True))
    assert {(one.name, other.name) for one, other in pairs} == {("scdiffaug_alpha0", "scdiffaug")}
    assert all(one.dataset is other.dataset and one.seed == other.seed for one, other in pairs)
    # All cells are the same for every seed, and a share is not.
    assert [len({pair[0].dataset.digest for pair in pairs[i : i + 2]}) for i in (0, 2)] == [1, 2]
    assert {job.settings["max_epochs"] for job in asked} == {3}
    summary = (out / "summary.md").read_text()
    assert "| linear SVM, 2-D | 100% | +2.0 | +2.0 to +2.0 | yes | 1 of 1 | 2 of 2 |" in summary
    assert "| linear SVM, 80-d | 60% | +4.0 | +4.0 to +4.0 | yes | 1 of 1 | 2 of 2 |" in summary
    assert "| 0.6 | small | +4.0 ± 0.0 | +0.4 ± 0.0 |" in summary
    assert "--shares 1.0,0.6 --seeds 2 --max-epochs 3" in summary
    assert (out / "differences.png").stat().st_size > 5_000
    assert len(pd.read_csv(out / "results.csv")) == 2 * 2 * 2 * 4


def test_what_is_wrong_with_a_file_is_said_with_its_name(tmp_path):
    path = write_counts(tmp_path / "small.h5ad", {"a": 60, "b": 40})
    options = {"shares": [1], "n_seeds": 1, "cache": tmp_path, "show_progress": False}
    with pytest.raises(KeyError, match=r"small\.h5ad: label_key='type' not found"):
        benchmark.alpha([path], label_key="type", out=tmp_path / "out", **options)


def test_a_share_too_small_to_score_is_a_row_that_says_why(asked, tmp_path):
    path = write_counts(tmp_path / "small.h5ad", {"a": 60, "b": 40})
    options = {"shares": [1, 0.1, 0.25], "n_seeds": 1, "cache": tmp_path, "show_progress": False}
    results = benchmark.alpha([path], out=tmp_path / "out", **options)
    notes = results.dropna(subset="note").query("note != ''").set_index("share")["note"]
    assert "10 cells: " in notes[0.1]
    assert set(notes.index) <= {0.1, 0.25}
    assert len(asked) == 2 * (3 - len(notes))
    assert "10 cells: " in (tmp_path / "out" / "summary.md").read_text()
    with pytest.raises(ValueError, match="shares=2 must be"):
        benchmark.alpha([path], shares=[2], cache=tmp_path)


def test_differences_leave_out_what_has_no_partner():
    results = pd.DataFrame(
        {
            "share": 1.0,
            "dataset": dataset,
            "method": method,
            "representation": "2d",
            "seed": 0,
            "metric": "kmeans_accuracy",
            "value": value,
        }
        for dataset, method, value in (
            ("x", "scdiffaug", 0.5),
            ("x", "scdiffaug_alpha0", 0.75),
            ("y", "scdiffaug", 0.9),
        )
    )
    found = alpha.differences(results, report.PANELS[1])
    assert found.to_dict() == {(1.0, "x", 0): -25.0}
    assert alpha.differences(results, report.PANELS[0]).empty
    assert np.isnan(alpha.differences_figure(results).axes[1].lines[3].get_xdata()).all()


def test_verdicts_tell_scores_that_are_not_drawn():
    shared = {"share": 1.0, "representation": "80d", "metric": "silhouette"}
    results = pd.DataFrame(
        {**shared, "dataset": dataset, "method": method, "seed": 0, "value": value}
        for dataset in "xy"
        for method, value in (("scdiffaug", 0.5), ("scdiffaug_alpha0", 0.25))
    )
    (verdict,) = alpha._verdicts(results).to_dict("records")
    assert verdict["score"] == "silhouette, 80-d"
    assert verdict["mean difference"] == "+25.0"
