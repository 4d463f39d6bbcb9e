"""New cells in the benchmark: the split, coordinates, runs, scores, report."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from small_cells import write_counts
from typer.testing import CliRunner

from scdiffaug import benchmark, metrics
from scdiffaug.benchmark import _worker, environments, inputs
from scdiffaug.benchmark._embedding import runs, transform
from scdiffaug.cli import app


@pytest.fixture
def counts_file(tmp_path):
    return write_counts(tmp_path / "small.h5ad", {"a": 50, "b": 40, "rare": 12})


def split(path, cache, **options):
    options = {"held_out": 0.2, **options}
    return inputs.prepare_split(path, label_key="cell_type", cache=cache, **options)


def job(training, new, cache, name="pca", **changes):
    options = {"seed": 0, "settings": {}, "timeout": 100.0, **changes}
    return runs.Job(dataset=training, new=new, name=name, cache=cache, **options)


def test_a_share_of_each_type_is_held_back_and_ten_are_left(counts_file, tmp_path):
    training, new = split(counts_file, tmp_path)
    assert pd.Series(training.labels).value_counts().to_dict() == {"a": 40, "b": 32}
    assert pd.Series(new.labels).value_counts().to_dict() == {"a": 10, "b": 8}
    assert "12 cells without a type or of types of fewer than 13 cells left out" in training.note
    assert split(counts_file, tmp_path, seed=1)[0].digest != training.digest
    with pytest.raises(ValueError, match=r"held_out=0\.7"):
        split(counts_file, tmp_path, held_out=0.7)


def test_training_cells_are_prepared_without_a_look_at_the_others(counts_file, tmp_path):
    training, new = split(counts_file, tmp_path)
    adata = ad.read_h5ad(counts_file)
    known = _worker.read_matrix(training.folder / "values").toarray()
    is_training = (adata.X.toarray()[:, None] == known[None]).all(2).any(1)
    values = adata.X.toarray()
    values[~is_training, :3] = 900
    adata.X = sparse.csr_matrix(values)
    adata.write_h5ad(counts_file)
    again, other = split(counts_file, tmp_path)
    np.testing.assert_array_equal(again.pca, training.pca)
    assert again.digest == training.digest
    assert other.digest != new.digest


def test_new_cells_lie_where_training_cells_would(counts_file, tmp_path):
    training, _ = split(counts_file, tmp_path)
    adata = ad.read_h5ad(counts_file)
    known = _worker.read_matrix(training.folder / "values").toarray()
    reference = ad.AnnData(known, var=adata.var)
    same = reference[:7].copy()
    same.obs["cell_type"] = "a"
    contract = inputs._contract(reference, 0)
    options = {"name": "x", "label_key": "cell_type", "note": "", "cache": tmp_path}
    again = inputs._prepared(same, contract, fitted_on=reference, **options)
    np.testing.assert_allclose(again.pca, training.pca[:7], atol=1e-3)
    found = np.load(again.folder / "pca_standardised.npy")
    whole = np.load(training.folder / "pca_standardised.npy")
    np.testing.assert_allclose(found, whole[:7], atol=1e-3)


def test_a_run_scores_training_cells_and_new_ones(counts_file, tmp_path):
    training, new = split(counts_file, tmp_path)
    this = job(training, new, tmp_path)
    found, points = runs.run(this), runs.embeddings(this)
    expected = metrics.query_scores(
        points["2d"], training.labels, query=points["2d_new"], query_labels=new.labels
    )
    assert found.scores["2d_new"] == expected
    assert found.scores["2d"]["knn_accuracy"] == metrics.knn_accuracy(
        points["2d"], training.labels
    )
    assert this.folder != job(training, None, tmp_path).folder


def test_ours_embeds_new_cells_and_only_the_supervised_ablation_is_given_types(
    counts_file, tmp_path
):
    training, new = split(counts_file, tmp_path)
    this = job(training, new, tmp_path, "scdiffaug_label_condition", settings={"max_epochs": 1})
    assert runs.run(this).error == ""
    points = runs.embeddings(this)
    assert points["80d_new"].shape == (18, 80)
    assert points["2d_new"].shape == (18, 2)
    given = np.load(this.folder / "labels.npy")
    np.testing.assert_array_equal(given, training.labels)
    supervised = [name for name, each in benchmark.METHODS.items() if each.uses_labels]
    assert supervised == ["scdiffaug_label_condition"]


def test_models_of_peers_are_fitted_once_and_transform_new_cells(counts_file, tmp_path):
    training, new = split(counts_file, tmp_path)

    class Model:
        def fit_transform(self, points):
            self.mean = points.mean(0)
            return points - self.mean

        def transform(self, points):
            return points - self.mean

    given = _worker.Inputs(
        training.folder, training.kind, new=_worker.Inputs(new.folder, new.kind)
    )
    found = _worker._fitted(Model(), given, _worker.Inputs.pca)
    np.testing.assert_array_equal(found["2d_new"], new.pca - training.pca.mean(0))
    alone = _worker.Inputs(training.folder, training.kind)
    assert list(_worker._fitted(Model(), alone, _worker.Inputs.pca)) == ["2d"]


def test_changes_are_those_of_each_dataset_and_seed():
    results = pd.DataFrame(
        {
            "dataset": dataset,
            "method": "pca",
            "representation": representation,
            "seed": seed,
            "metric": "knn_accuracy",
            "value": value - 0.02 * seed * representation.endswith("new"),
        }
        for dataset, value in (("x", 0.5), ("y", 0.9))
        for seed in (0, 1)
        for representation in ("2d", "2d_new", "80d", "80d_new")
    )
    scores = transform.both_scores(results, "knn_accuracy")
    assert scores.loc[("x", "pca 80d", 1)].to_dict() == {"training": 50, "new": 48}
    table = transform._change_table(scores)
    assert "| pca | 2 | -1.0 | -2.0 to +0.0 | -1.0 (x) |" in table
    assert "50.0 → 49.0" in transform._score_table(scores)


def test_methods_that_cannot_embed_new_cells_are_refused(counts_file, tmp_path):
    with pytest.raises(
        ValueError, match=r"method 'tsne' cannot do this: use one of scdiffaug, pca"
    ):
        benchmark.transform([counts_file], method_names=["tsne"], cache=tmp_path)


def test_command_writes_all_files(counts_file, tmp_path, monkeypatch):
    monkeypatch.setattr(environments, "cache_folder", lambda *_: tmp_path / "cache")
    out = tmp_path / "out"
    words = ["--data", str(counts_file), "--methods", "pca,pumap", "--seeds", "2"]
    done = CliRunner().invoke(app, ["benchmark", "transform", *words, "--out", str(out)])
    assert done.exit_code == 0, done.output
    results = pd.read_csv(out / "results.csv")
    of_pca = results[results["method"] == "pca"]
    assert set(of_pca["representation"]) == {"2d", "2d_new", "components", "components_new"}
    assert of_pca.groupby(["representation", "metric"]).size().eq(2).all()
    summary = (out / "summary.md").read_text()
    assert "| small | 72 | 18 | 2 | counts |" in summary
    assert "environment 'keras' is not made" in summary
    assert "scdiffaug benchmark transform --data" in summary
    assert {path.name for path in out.iterdir()} == {
        "results.csv", "summary.md", "embeddings.png", "ranks.png",
    }  # fmt: skip
