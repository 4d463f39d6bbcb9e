import runpy
from importlib.metadata import version
from pathlib import Path

import anndata
import pandas as pd
import pytest
from matplotlib import image
from threadpoolctl import threadpool_limits
from typer.testing import CliRunner, Result

from scdiffaug import _demo, cli, storage

FILES = ["augmented.h5ad", "overview.png", "pbmc68k_scdiffaug.h5ad", "scores.csv"]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "new" / "folder"


@pytest.fixture(scope="module")
def shown(out: Path) -> Result:
    # One thread: where something else keeps a core busy, threads that wait for each other spin.
    with pytest.MonkeyPatch.context() as patch, threadpool_limits(1):
        patch.setattr(_demo, "_MAX_EPOCHS", 1)
        return CliRunner().invoke(cli.app, ["demo", "--out", str(out), "--seed", "1"])


def test_help_names_the_commands_and_options() -> None:
    result = CliRunner().invoke(cli.app, ["demo", "--help"], env={"COLUMNS": "120"})
    assert result.exit_code == 0
    assert "--out" in result.output
    assert "--seed" in result.output
    assert "demo" in CliRunner().invoke(cli.app, ["--help"]).output


def test_the_package_runs_as_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["scdiffaug", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("scdiffaug", run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"scdiffaug {version('scdiffaug')}\n"


def test_demo_leaves_its_files_and_nothing_else(shown: Result, out: Path) -> None:
    assert shown.exit_code == 0, shown.output
    assert sorted(path.name for path in out.iterdir()) == FILES
    lines = shown.output.splitlines()
    assert sorted(line for line in lines if line.startswith("Wrote ")) == [
        f"Wrote {out / name}" for name in FILES
    ]


def test_demo_says_nothing_that_a_user_cannot_act_on(shown: Result) -> None:
    assert "Training on 700 blood cells x 765 genes for 1 epochs" in shown.output
    assert "Left out of the scores: CD4+/CD45RA+/CD25- Naive T" in shown.output
    for chatter in ("GPU available", "Tip:", "Warning", "`Trainer.fit` stopped"):
        assert chatter not in shown.output


def test_demo_scores_every_embedding_and_the_new_cells(shown: Result, out: Path) -> None:
    scores = pd.read_csv(out / "scores.csv", index_col="scored")
    embeddings = ["scDiffAug 2-D", "scDiffAug 80-D", "PCA 2-D", "UMAP 2-D"]
    accuracies = ["linear SVM accuracy", "k-means accuracy"]
    assert list(scores.index) == [*embeddings, "augmented cells"]
    assert scores.loc[embeddings, accuracies].stack().between(0.2, 1).all()
    of_new_cells = scores.loc["augmented cells"].drop(accuracies)
    assert of_new_cells.between(0, 1).all()
    assert list(of_new_cells.index) == [
        "two-sample AUC (0.5 is best, below is memory)",
        "type kept",
        "zeros real",
        "zeros made",
        "gene mean correlation",
    ]
    assert all(f"{name}" in shown.output for name in embeddings)


@pytest.mark.usefixtures("shown")
def test_demo_cells_are_ready_for_scanpy(out: Path) -> None:
    adata = anndata.read_h5ad(out / "pbmc68k_scdiffaug.h5ad")
    new = anndata.read_h5ad(out / "augmented.h5ad")
    assert set(adata.obsm) == {"X_scdiffaug", "X_scdiffaug_2d", "X_pca", "X_umap"}
    assert len(adata.uns["cell_type_colors"]) == adata.obs["cell_type"].nunique()
    assert list(new.obs["source_obs_name"]) == list(adata.obs_names)
    assert "log1p_norm" in new.layers


@pytest.mark.usefixtures("shown")
def test_demo_picture_is_one_row_of_panels(out: Path) -> None:
    height, width, _ = image.imread(out / "overview.png").shape
    assert width > 2000
    assert 3 < width / height < 6


def test_an_interrupted_file_is_not_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("before")

    def write(aside: Path) -> None:
        aside.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        storage.write_whole(path, write)
    assert [found.name for found in tmp_path.iterdir()] == ["file.txt"]
    assert path.read_text() == "before"


def test_out_must_be_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    result = CliRunner().invoke(cli.app, ["demo", "--out", str(path)])
    assert result.exit_code == 2
    assert "is a file" in " ".join(result.output.replace("│", " ").split())
