"""The commands that read and write files, on 120 cells and a model of two epochs."""

import json
import os
import shutil
import signal
import warnings
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

from scdiffaug import budget, cli, datasets, scDiffAug
from scdiffaug.module import DiffAugModule


def run(*words: object) -> Result:
    return CliRunner().invoke(cli.app, [str(word) for word in words])


def failure(*words: object) -> str:
    """The one sentence of a run that must fail."""
    result = run(*words)
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    return lines[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    adata = datasets.pbmc68k_reduced()[:120, :200].copy()
    adata.layers["counts"] = adata.X.copy()
    adata.write_h5ad(folder / "cells.h5ad")
    return folder


@pytest.fixture(scope="module")
def cells(folder: Path) -> Path:
    return folder / "cells.h5ad"


@pytest.fixture(scope="module")
def model(folder: Path, cells: Path) -> Path:
    """A model that `embed` trained on a layer and saved."""
    place = folder / "model"
    words = ("--model", place, "--layer", "counts", "--max-epochs", 2, "--json")
    result = run("embed", cells, folder / "made" / "first.h5ad", *words)
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["model"] == str(place)
    assert summary["feature_space"] == "counts"
    return place


@pytest.fixture(scope="module")
def new(folder: Path, cells: Path, model: Path) -> Path:
    out = folder / "new.h5ad"
    result = run("augment", cells, out, "--model", model, "--steps", 2, "--seed", 1)
    assert result.exit_code == 0, result.output
    assert result.output == f"Wrote {out}: 120 new cells\n"
    return out


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("embed", ["--layer", "--batch-key", "--max-epochs", "--seed", "--model"]),
        (
            "augment",
            [
                "--n-per-cell",
                "--strength",
                "--groupby",
                "--target",
                "--depth",
                "--keep",
                "--steps",
            ],
        ),
        ("report", ["--held-out", "--groupby", "--max-cells", "--overwrite", "--json"]),
    ],
)
def test_help_names_the_options_and_an_example(command: str, options: list[str]) -> None:
    result = CliRunner().invoke(cli.app, [command, "--help"], env={"COLUMNS": "120"})
    assert result.exit_code == 0
    assert f"Example: scdiffaug {command}" in result.output
    assert not [option for option in options if option not in result.output]


@pytest.mark.usefixtures("model")
def test_embed_adds_two_embeddings_and_changes_nothing_else(folder: Path, cells: Path) -> None:
    before, after = (anndata.read_h5ad(path) for path in (cells, folder / "made" / "first.h5ad"))
    assert {key: after.obsm[key].shape for key in after.obsm} == {
        "X_scdiffaug": (120, 80),
        "X_scdiffaug_2d": (120, 2),
    }
    assert list(after.obs) == list(before.obs)
    assert set(after.uns) == set(before.uns)
    assert (after.X != before.X).nnz == 0
    assert sorted(path.name for path in (folder / "made").iterdir()) == ["first.h5ad"]


def test_ctrl_c_ends_a_command_that_trains_and_leaves_nothing(
    tmp_path: Path, cells: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = DiffAugModule.update_ema

    def press_ctrl_c(module: DiffAugModule, decay: float) -> None:
        update(module, decay)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(DiffAugModule, "update_ema", press_ctrl_c)
    handler = signal.getsignal(signal.SIGINT)
    result = run("embed", cells, tmp_path / "out.h5ad", "--model", tmp_path / "half")
    assert result.exit_code == 130
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_model_that_is_not_saved_has_no_generator(folder: Path, cells: Path) -> None:
    out = folder / "unsaved.h5ad"
    result = run("embed", cells, out, "--max-epochs", 1, "--quiet")
    assert result.exit_code == 0, result.output
    model = scDiffAug(anndata.read_h5ad(cells), diffusion="none")
    model.train(1, enable_progress_bar=False)
    embedding = anndata.read_h5ad(out).obsm["X_scdiffaug"]
    np.testing.assert_array_equal(embedding, model.get_latent_representation())


def test_embedding_adds_to_a_file_and_takes_nothing_from_it(
    tmp_path: Path, cells: Path, model: Path
) -> None:
    adata = anndata.read_h5ad(cells)
    adata.obs["_scvi_labels"], adata.uns["_scvi_note"] = 7, "mine"
    adata.raw = adata
    adata.obsm["X_scdiffaug"] = adata.obsm["X_scdiffaug_3d"] = np.zeros((len(adata), 3))
    adata.write_h5ad(tmp_path / "cells.h5ad")
    words = ("embed", tmp_path / "cells.h5ad", tmp_path / "cells.h5ad", "--model", model)
    for _ in range(2):
        result = run(*words, "--overwrite")
        assert result.exit_code == 0, result.output
    found = anndata.read_h5ad(tmp_path / "cells.h5ad")
    assert list(found.obsm) == ["X_scdiffaug", "X_scdiffaug_2d"]
    pd.testing.assert_frame_equal(found.obs, adata.obs)
    assert found.uns["_scvi_note"] == "mine"
    assert found.raw.shape == adata.shape


def test_sizes_by_name_are_json(folder: Path, cells: Path, model: Path) -> None:
    words = ("--model", model, "--groupby", "cell_type", "--steps", 1, "--json")
    name = anndata.read_h5ad(cells).obs["cell_type"].value_counts().index[0]
    target = json.dumps({name: 60})
    result = run("augment", cells, folder / "named.h5ad", *words, "--target", target)
    assert result.exit_code == 0, result.output
    assert set(anndata.read_h5ad(folder / "named.h5ad").obs["cell_type"]) == {name}
    assert "target='{'" in failure("augment", cells, folder / "x.h5ad", *words, "--target", "{")


def test_values_of_a_wrong_type_are_one_sentence(tmp_path: Path) -> None:
    anndata.AnnData(np.ones((30, 5), dtype=complex)).write_h5ad(tmp_path / "cells.h5ad")
    said = failure("embed", tmp_path / "cells.h5ad", tmp_path / "out.h5ad")
    assert "complex" in said


def test_a_saved_model_embeds_alike(folder: Path, cells: Path, model: Path) -> None:
    out = folder / "again.h5ad"
    result = run("embed", cells, out, "--model", model, "--key-added", "X_mine")
    assert result.exit_code == 0, result.output
    assert "obsm['X_mine'] (120, 80) and obsm['X_mine_2d'] (120, 2)" in result.output
    first = anndata.read_h5ad(folder / "made" / "first.h5ad")
    np.testing.assert_array_equal(anndata.read_h5ad(out).obsm["X_mine"], first.obsm["X_scdiffaug"])


def test_cells_of_a_new_batch_are_mapped_if_asked_for(
    folder: Path, cells: Path, caplog: pytest.LogCaptureFixture
) -> None:
    adata = anndata.read_h5ad(cells)
    adata.obs["donor"] = ["a", "b", "c"] * 40
    reference, query = folder / "reference.h5ad", folder / "query.h5ad"
    is_query = adata.obs["donor"] == "c"
    adata[~is_query].copy().write_h5ad(reference)
    adata[is_query].copy().write_h5ad(query)
    place = folder / "knows donors"
    first = folder / "of reference.h5ad"
    asked = ("--model", place, "--batch-key", "donor", "--max-epochs", 2)
    assert run("embed", reference, first, *asked, "--quiet").exit_code == 0
    out = folder / "mapped.h5ad"
    for words in [], ["--backed", "--overwrite"]:
        result = run("embed", query, out, "--model", place, "--map-batches", *words)
        assert result.exit_code == 0, result.output
        y = anndata.read_h5ad(out).obsm["X_scdiffaug"]
        mapped = scDiffAug.load_query_data(anndata.read_h5ad(query), place)
        np.testing.assert_allclose(y, mapped.get_latent_representation(), atol=1e-5)
    adata[is_query, :150].copy().write_h5ad(folder / "fewer.h5ad")
    caplog.clear()
    place = ("--model", place, "--map-batches", "--overwrite")
    assert run("embed", folder / "fewer.h5ad", out, *place).exit_code == 0
    assert caplog.text.count("The cells lack") == 1
    message = (
        "--map-batches maps cells onto a model that is trained: name its folder with --model."
    )
    assert failure("embed", query, folder / "none.h5ad", "--map-batches") == f"Error: {message}"


def test_a_model_whose_replacement_was_killed_is_used_and_kept(
    tmp_path: Path, cells: Path, model: Path
) -> None:
    left = shutil.copytree(model, tmp_path / ".model.old-0123abcd")
    out = tmp_path / "out.h5ad"
    result = run("embed", cells, out, "--model", tmp_path / "model", "--max-epochs", 1)
    assert "holds a model already, which --max-epochs cannot change" in result.output
    result = run("embed", cells, out, "--model", tmp_path / "model")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in left.iterdir()) == sorted(p.name for p in model.iterdir())


def test_augment_makes_counts_with_the_names_of_their_sources(cells: Path, new: Path) -> None:
    made, real = anndata.read_h5ad(new), anndata.read_h5ad(cells)
    assert list(made.obs["source_obs_name"]) == list(real.obs_names)
    np.testing.assert_array_equal(made.X.sum(1), real.X.sum(1))
    assert not [key for key in (*made.obs, *made.uns) if key.startswith("_scvi")]


def test_backed_files_are_embedded_and_augmented(folder: Path, cells: Path, model: Path) -> None:
    words = ("--model", model, "--backed")
    for command, place in (("embed", "on_disk"), ("augment", "new_on_disk")):
        result = run(command, cells, folder / "on_disk" / f"{place}.h5ad", *words)
        assert result.exit_code == 0, result.output
    first = anndata.read_h5ad(folder / "made" / "first.h5ad")
    after = anndata.read_h5ad(folder / "on_disk" / "on_disk.h5ad")
    np.testing.assert_array_equal(after.obsm["X_scdiffaug"], first.obsm["X_scdiffaug"])
    assert (after.X != first.X).nnz == 0
    assert list(after.obs) == list(first.obs)
    made = anndata.read_h5ad(folder / "on_disk" / "new_on_disk.h5ad")
    np.testing.assert_array_equal(made.X.sum(1), first.X.sum(1))
    files = sorted(path.name for path in (folder / "on_disk").iterdir())
    assert files == ["new_on_disk.h5ad", "on_disk.h5ad"]


def test_augment_options_reach_the_model(folder: Path, cells: Path, model: Path) -> None:
    out = folder / "chosen.h5ad"
    words = ("--groupby", "cell_type", "--target", 20, "--depth", 300, "--keep", "consistent")
    more = ("--strength", 0.1, "--steps", 2, "--json")
    result = run("augment", cells, out, "--model", model, *words, *more)
    assert result.exit_code == 0, result.output
    made, summary = anndata.read_h5ad(out), json.loads(result.stdout)
    assert summary["n_cells"] == made.n_obs
    assert summary["kept_share"] == made.uns["scdiffaug"]["kept_share"]
    assert (made.X.sum(1) == 300).all()
    assert (made.obs["augmentation_strength"] == 0.1).all()


def test_same_seed_same_cells_without_a_saved_model(folder: Path, cells: Path) -> None:
    made = []
    for name in ("a.h5ad", "b.h5ad"):
        words = ("--batch-key", "phase", "--max-epochs", 1, "--steps", 2, "--quiet")
        result = run("augment", cells, folder / name, *words)
        assert result.exit_code == 0, result.output
        made.append(anndata.read_h5ad(folder / name).X.toarray())
    np.testing.assert_array_equal(*made)


def test_the_seed_is_the_model_s_unless_one_is_named(folder: Path, cells: Path) -> None:
    adata = anndata.read_h5ad(cells)
    model = scDiffAug(adata, seed=5)
    model.train(1, enable_progress_bar=False)
    model.save(folder / "five")
    for words, seed in (((), 5), (("--seed", 0), 0)):
        out = folder / f"of_{seed}.h5ad"
        result = run("augment", cells, out, "--model", folder / "five", "--steps", 1, *words)
        assert result.exit_code == 0, result.output
        expected = model.augment(adata, steps=1, seed=seed)
        np.testing.assert_array_equal(anndata.read_h5ad(out).X.toarray(), expected.X.toarray())


def test_numbers_may_be_written_with_an_exponent(folder: Path, cells: Path, model: Path) -> None:
    words = ("--groupby", "cell_type", "--target", "2e1", "--depth", "3e2", "--steps", 1)
    result = run("augment", cells, folder / "exponents.h5ad", "--model", model, *words)
    assert result.exit_code == 0, result.output
    assert (anndata.read_h5ad(folder / "exponents.h5ad").X.sum(1) == 300).all()


def test_report_is_a_page_and_a_summary(folder: Path, cells: Path, new: Path, model: Path) -> None:
    words = ("report", cells, new, folder / "report.html", "--model", model)
    summary = json.loads(run(*words, "--groupby", "cell_type", "--json").stdout)
    assert summary["checks"]["depth"]["verdict"] == "good"
    assert summary["n_cells"] == 60
    assert (folder / "report.html").read_text().startswith("<!")
    assert "exists already: pass --overwrite" in failure(*words)
    told = run(*words, "--overwrite").output.splitlines()
    assert told[0] == f"Wrote {folder / 'report.html'}"
    assert len(told) > 1


def test_what_is_there_is_kept(folder: Path, cells: Path, model: Path) -> None:
    out = folder / "there.h5ad"
    out.write_text("mine")
    words = ("embed", cells, out, "--model", model)
    assert "exists already: pass --overwrite to replace it." in failure(*words)
    assert out.read_text() == "mine"
    assert run(*words, "--overwrite").exit_code == 0
    assert "X_scdiffaug" in anndata.read_h5ad(out).obsm


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--layer", "absent"], "layer"),
        (["--batch-key", "absent"], "absent"),
        (["--feature-space", "reads"], "use 'auto', 'counts', 'peaks', 'log' or 'raw'"),
        (["--target", "max"], "target='max' needs groupby"),
        (["--target", "most", "--groupby", "cell_type"], "target='most'"),
        (["--groupby", "absent"], "groupby='absent'"),
        (["--strength", "0"], "strength=0.0 must be above 0"),
        (["--depth", "deep"], "depth='deep'"),
        (["--keep", "best"], "keep='best'"),
        (["--steps", "0"], "steps=0"),
        (["--n-per-cell", "0"], "n_per_cell=0"),
    ],
)
def test_bad_options_fail_before_training(
    tmp_path: Path, cells: Path, words: list[str], expected: str
) -> None:
    place = tmp_path / "model"
    said = failure("augment", cells, tmp_path / "new.h5ad", "--model", place, *words)
    assert expected in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("backed", [(), ("--backed",)])
def test_a_zarr_folder_is_read_like_a_file(
    tmp_path: Path, cells: Path, model: Path, backed: tuple[str, ...]
) -> None:
    adata = anndata.read_h5ad(cells)
    pytest.importorskip("zarr")
    with warnings.catch_warnings():
        # Of what zarr and anndata will do by default in their next versions.
        warnings.simplefilter("ignore")
        adata.write_zarr(tmp_path / "cells.zarr")
    made, embedded = tmp_path / "new.h5ad", tmp_path / "embedded.h5ad"
    result = run("augment", tmp_path / "cells.zarr", made, "--model", model, *backed)
    assert result.exit_code == 0, result.output
    assert anndata.read_h5ad(made).obs["source_obs_name"].tolist() == adata.obs_names.tolist()
    words = ("embed", tmp_path / "cells.zarr", embedded, "--max-epochs", 1)
    if backed:
        assert "leave out --backed" in failure(*words, *backed)
        return
    assert run(*words, "--quiet").exit_code == 0
    found = anndata.read_h5ad(embedded)
    np.testing.assert_array_equal(found.X.toarray(), adata.X.toarray())
    assert found.uns.keys() == adata.uns.keys()
    assert found.obsm["X_scdiffaug"].shape == (120, 80)


def test_bad_files_are_named(tmp_path: Path, cells: Path, model: Path) -> None:
    text, out = tmp_path / "text.h5ad", tmp_path / "out.h5ad"
    text.write_text("cells")
    assert f"{text} cannot be read as .h5ad" in failure("embed", text, out)
    assert "is not a file" in failure("embed", tmp_path / "absent.h5ad", out)
    assert "must end in .h5ad" in failure("embed", cells, tmp_path / "out.csv")
    assert "must end in .html" in failure("report", cells, cells, tmp_path / "out.pdf")
    assert "no saved scDiffAug model" in failure("embed", cells, out, "--model", tmp_path)
    assert "--max-epochs cannot change" in failure(
        "embed", cells, out, "--model", model, "--max-epochs", 3
    )
    fewer = tmp_path / "fewer.h5ad"
    anndata.read_h5ad(cells)[:, :19].copy().write_h5ad(fewer)
    assert "adata lacks 181 of the model's 200 features" in failure(
        "embed", fewer, out, "--model", model
    )
    assert not out.exists()


@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_a_truncated_file_is_named(tmp_path: Path, cells: Path, share: float) -> None:
    cut, content = tmp_path / "cut.h5ad", cells.read_bytes()
    cut.write_bytes(content[: int(share * len(content))])
    assert f"{cut} cannot be read as .h5ad" in failure("embed", cut, tmp_path / "out.h5ad")
    assert [path.name for path in tmp_path.iterdir()] == ["cut.h5ad"]


def test_real_cells_are_not_replaced_by_new_ones(tmp_path: Path, cells: Path, model: Path) -> None:
    same = tmp_path / "same.h5ad"
    same.write_bytes(cells.read_bytes())
    said = failure("augment", same, same, "--model", model, "--overwrite")
    assert "holds the real cells" in said
    assert same.read_bytes() == cells.read_bytes()


def test_a_key_that_no_file_can_hold_is_refused(tmp_path: Path, cells: Path) -> None:
    said = failure("embed", cells, tmp_path / "out.h5ad", "--key-added", "a/b")
    assert "key_added='a/b' has a slash" in said


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_registration_leaves_nothing_in_the_output(
    tmp_path: Path, cells: Path, suffix: str
) -> None:
    adata = anndata.read_h5ad(cells)
    adata.obs["batch"] = pd.Categorical(["a", "b"] * 60)
    place = tmp_path / f"cells.{suffix}"
    with warnings.catch_warnings():
        # Of what zarr and anndata will do by default in their next versions.
        warnings.simplefilter("ignore")
        getattr(adata, f"write_{suffix}")(place)
    out = tmp_path / "out.h5ad"
    result = run("embed", place, out, "--batch-key", "batch", "--max-epochs", 1, "--quiet")
    assert result.exit_code == 0, result.output
    assert list(anndata.read_h5ad(out).obs) == list(adata.obs)


def test_a_file_of_an_old_anndata_is_embedded(tmp_path: Path, cells: Path) -> None:
    old, out = tmp_path / "old.h5ad", tmp_path / "out.h5ad"
    shutil.copyfile(cells, old)
    with h5py.File(old, "r+") as file:
        del file["obsm"]
        table = np.zeros(120, dtype=[("X_pca", "f4", (2,))])
        file.create_dataset("obsm", data=table)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", anndata.OldFormatWarning)
        assert "old anndata" in failure("embed", old, out, "--backed", "--quiet")
        result = run("embed", old, out, "--max-epochs", 1, "--quiet")
    assert result.exit_code == 0, result.output
    assert {"X_pca", "X_scdiffaug"} <= set(anndata.read_h5ad(out).obsm)


def test_a_report_trains_no_model_in_a_folder_that_has_none(
    tmp_path: Path, cells: Path, model: Path
) -> None:
    new, page = tmp_path / "new.h5ad", tmp_path / "report.html"
    assert run("augment", cells, new, "--model", model, "--steps", 1).exit_code == 0
    typo = tmp_path / "typo"
    assert f"{typo} holds no model: name" in failure("report", cells, new, page, "--model", typo)
    assert not typo.exists()


@pytest.mark.parametrize("is_saved", [True, False])
def test_a_folder_of_a_model_that_is_not_trained_gets_one_that_is(
    tmp_path: Path, cells: Path, is_saved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was saved before training, or what Finder leaves in a folder that it showed."""
    if is_saved:
        scDiffAug(anndata.read_h5ad(cells)).save(tmp_path / "model")
    else:
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / ".DS_Store").touch()
    monkeypatch.setattr(budget, "default_epochs", lambda *_, **__: 1)
    result = run("embed", cells, tmp_path / "out.h5ad", "--model", tmp_path / "model")
    assert result.exit_code == 0, result.output
    assert scDiffAug.load(tmp_path / "model").is_trained


def test_a_folder_without_a_model_is_not_said_to_have_one(tmp_path: Path, cells: Path) -> None:
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "notes.txt").touch()
    words = ("--model", tmp_path / "junk", "--max-epochs", 2)
    assert "no saved scDiffAug model" in failure("embed", cells, tmp_path / "out.h5ad", *words)
