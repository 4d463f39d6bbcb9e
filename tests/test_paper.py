"""The paper's tables and figures: what is here, what is run, what is written."""

import numpy as np
import pandas as pd
import pytest
from small_cells import write_counts
from typer.testing import CliRunner

from scdiffaug import benchmark, datasets
from scdiffaug.benchmark import inputs
from scdiffaug.benchmark._embedding import runs
from scdiffaug.benchmark._paper import alphas, presence, study
from scdiffaug.benchmark.processes import Run
from scdiffaug.block_files import read_cells
from scdiffaug.cli import app


@pytest.fixture
def dataset(tmp_path):
    """Two types of 30 cells."""
    path = write_counts(tmp_path / "small.h5ad", {"a": 30, "b": 30})
    return inputs.prepare(path, label_key="cell_type", cache=tmp_path)


@pytest.fixture
def paper(dataset, tmp_path, monkeypatch):
    """The command on one small dataset, with runs that are not run; returns what it wrote."""
    jobs = []

    def run(job):
        jobs.append(job)
        if job.name == "scvi":
            return Run.failed(RuntimeError("no counts"))
        share = 0.5 + job.settings.get("alpha", 0) / 10 + job.seed / 100
        scores = {"linear_svm_accuracy": share, "kmeans_accuracy": share}
        return Run(seconds=1, peak_mb=1, versions={"x": "1"}, scores={"2d": scores, "80d": scores})

    def embeddings(job):
        rng = np.random.default_rng(job.seed)
        return {"2d": rng.normal(size=(60, 2)), "80d": rng.normal(size=(60, 8))}

    monkeypatch.setattr(runs, "run", run)
    monkeypatch.setattr(runs, "embeddings", embeddings)
    monkeypatch.setattr(study, "present", lambda **_: ([dataset], ["HCL is missing."]))
    monkeypatch.setattr("scdiffaug.benchmark.environments.cache_folder", lambda *_: tmp_path)

    def call(*words):
        out = tmp_path / "out"
        done = CliRunner().invoke(app, ["paper", *words, "--out", str(out)])
        assert done.exit_code == 0, done.output
        return out, jobs

    return call


def here(*names):
    return lambda entry: "here" if entry.name in names else "download"


def test_stand_ins_are_named_and_what_is_missing_is_said(tmp_path, monkeypatch):
    cells = read_cells(write_counts(tmp_path / "small.h5ad", {"a": 30, "b": 30}))
    monkeypatch.setattr(datasets, "whereabouts", here("mca_bladder", "samusik"))
    monkeypatch.setattr(datasets, "load", lambda *_, **__: cells)
    cells.obs["population_id"] = cells.obs["cell_type"]
    found, said = presence.present(max_cells=50, cache=tmp_path)
    assert [each.name for each in found] == ["SAM", "MCA stand-in mca_bladder"]
    assert "50 of 60 cells drawn at random" in found[0].note
    assert [words.split()[0] for words in said] == ["HCL", "Gast", "MCA"]
    assert "get it by 'scdiffaug data fetch hcl'. Nothing stands in for it." in said[0]
    assert "no types are recorded" in said[1]
    assert "mca_bladder (Mouse Cell Atlas, bladder, 2746 cells) in its place." in said[2]


def test_without_any_dataset_the_command_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "whereabouts", lambda _: "by hand")
    done = CliRunner().invoke(app, ["paper", "table2", "--out", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert "No dataset of the paper is here. HCL is missing" in done.stderr
    assert "into SCDIFFAUG_DATA_DIR" in done.stderr
    assert not (tmp_path / "out").exists()


def test_unknown_tables_are_refused():
    with pytest.raises(ValueError, match="'table3' is unknown: use one of table2, table4"):
        benchmark.paper("table3", out="nowhere")


@pytest.mark.parametrize(
    ("what", "columns"),
    [
        ("table4", "| dataset | supervised | random | semantic |"),
        ("table5", "| dataset | SimCLR | no diffusion | no scl | EM | joint |"),
    ],
)
def test_tables_use_the_papers_words(paper, what, columns):
    out, jobs = paper(what, "--seeds", "2", "--max-epochs", "3")
    summary = (out / "summary.md").read_text()
    assert summary.count(columns) == 4
    assert "HCL is missing." in summary
    assert "Ours was trained for 3 epochs" in summary
    assert f"scdiffaug paper {what} --seeds 2 --max-cells 60000 --max-epochs 3" in summary
    assert {job.settings["max_epochs"] for job in jobs} == {3}
    assert len(pd.read_csv(out / "results.csv")) == 2 * 4 * len(study.TABLES[what].names)
    assert (out / "embeddings.png").stat().st_size > 5_000


def test_settings_of_the_tables_are_the_papers_ablations():
    settings = {
        word: dict(benchmark.METHODS[name].settings)
        for table in study.TABLES.values()
        for name, word in table.names.items()
        if benchmark.METHODS[name].is_ours
    }
    assert settings == {
        "scdiffaug": {},
        "scdiffaug_no_diffusion": {"diffusion": "none"},
        "supervised": {"condition": "labels"},
        "random": {"condition": "random"},
        "semantic": {},
        "SimCLR": {"objective": "infonce", "diffusion": "none"},
        "no diffusion": {"diffusion": "none"},
        "no scl": {"objective": "infonce"},
        "EM": {"schedule": "alternating"},
        "joint": {},
    }


def test_table_2_has_margins_over_the_peers(paper):
    out, jobs = paper("table2", "--seeds", "1", "--max-cells-svm", "40")
    summary = (out / "summary.md").read_text()
    assert "Margin of scdiffaug over the best peer of each dataset" in summary
    assert "Linear SVM: of 40 cells drawn at random with seed 0" in summary
    assert {job.max_cells_svm for job in jobs} == {40}
    assert {"pumap", "ivis", "dmtev"} < {job.name for job in jobs}


def test_figure_3_is_the_tsne_of_each_latent_space(paper):
    out, jobs = paper("figure3")
    tsne = [job for job in jobs if job.name == "tsne"]
    assert len(tsne) == 4
    assert tsne[0].dataset.pca.shape == (60, 39)
    np.testing.assert_array_equal(tsne[-1].dataset.pca, runs.embeddings(tsne[-1])["80d"])
    summary = (out / "summary.md").read_text()
    assert "| dataset | 50 PCs | SimCLR | no diffusion | DiffAug |" in summary
    assert "no counts" in summary
    assert (out / "figure3.png").stat().st_size > 5_000


def test_figure_4_has_a_box_over_the_seeds_for_each_alpha(paper, dataset):
    out, jobs = paper("figure4", "--seeds", "3")
    asked = {(job.name, job.settings.get("alpha")) for job in jobs}
    assert {("scdiffaug_alpha0", None), ("scdiffaug", None), ("scdiffaug", 0.05)} < asked
    assert len(jobs) == 3 * len(asked) == 3 * len(alphas.GRID)
    results = pd.read_csv(out / "results.csv")
    panels = alphas.boxes(results, [dataset.name]).axes
    assert len(panels) == 4
    names = [text.get_text() for text in panels[0].get_xticklabels()]
    assert names == ["0", "0.05", "0.1", "0.15", "0.2", "0.5", "0.8"]
    medians = [line for line in panels[0].lines if line.get_color() == "C1"]
    assert medians[-1].get_ydata() == pytest.approx([59, 59])
    assert "| 0.8 | 59.0 ± 1.0 |" in (out / "summary.md").read_text()
