"""Batches: new cells are of their source's, and the embedding is corrected for them."""

from pathlib import Path
from typing import Literal

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from scdiffaug import distributed, scDiffAug
from scdiffaug.preparing import training_cells

N_GENES = 60
QUICK = {"max_epochs": 500, "enable_progress_bar": False}


@pytest.fixture(scope="module")
def two_batches() -> AnnData:
    """Cells of three types, of which those of batch "b" have five genes that those of "a" lack.

    Of the rarest, a cell's fifteen neighbours are of both batches.
    """
    rng = np.random.default_rng(0)
    types, batch = np.repeat(["x", "y", "rare"], [150, 150, 16]), np.tile(["a", "b"], 158)
    rate = np.stack([rng.gamma(0.5, 2, N_GENES) for _ in range(3)])
    rate = rate[np.unique(types, return_inverse=True)[1]]
    rate[:, :5] = np.where(batch == "b", 4, 0.02)[:, None]
    cells = AnnData(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)))
    cells.obs["kind"], cells.obs["batch"] = types, batch
    return cells


@pytest.fixture(scope="module")
def told(two_batches: AnnData) -> scDiffAug:
    scDiffAug.setup_anndata(two_batches, batch_key="batch")
    model = scDiffAug(two_batches)
    model.train(**QUICK)
    return model


def of_batch(new: AnnData) -> NDArray[np.bool_]:
    """Whether the five genes of batch "b" are there, or lacking, as the batch of the cell says."""
    has = np.asarray(new[:, :5].X.sum(1)).ravel() > 5
    return has == (new.obs["batch"] == "b").to_numpy()


def test_new_cells_are_of_the_batch_of_their_source(told: scDiffAug) -> None:
    new = told.augment(n_per_cell=2)
    assert of_batch(new).mean() > 0.98
    assert of_batch(new[new.obs["kind"] == "rare"]).mean() > 0.9


def test_without_being_told_rare_cells_lose_their_batch(two_batches: AnnData) -> None:
    cells = two_batches.copy()
    scDiffAug.setup_anndata(cells)
    model = scDiffAug(cells)
    model.train(**QUICK)
    new = model.augment(n_per_cell=2)
    assert of_batch(new[new.obs["kind"] == "rare"]).mean() < 0.8


def test_batches_outlast_the_file_and_are_read_block_by_block(
    told: scDiffAug, two_batches: AnnData, tmp_path: Path
) -> None:
    told.save(tmp_path / "model")
    loaded = scDiffAug.load(tmp_path / "model", adata=False)
    assert (loaded.augment(two_batches).X != told.augment(two_batches).X).nnz == 0
    two_batches.write_h5ad(tmp_path / "cells.h5ad")
    out = tmp_path / "new.h5ad"
    distributed.augment(tmp_path / "model", tmp_path / "cells.h5ad", out, block_size=100)

    assert of_batch(anndata.read_h5ad(out)).mean() > 0.97


def test_of_a_batch_that_was_never_learnt_no_cells_are_made(
    told: scDiffAug, two_batches: AnnData
) -> None:
    other = two_batches[:40].copy()
    other.obs["batch"] = "c"
    with pytest.raises(ValueError, match="has 1 batches that the model was not trained on"):
        told.augment(other)
    del other.obs["batch"]
    with pytest.raises(KeyError, match="batch_key='batch' not found"):
        told.augment(other)
    # To be embedded, a cell needs no batch, nor does one of which none are made.
    assert told.get_latent_representation(other).shape == (40, 80)
    other.obs["batch"] = pd.Series(["a", "c", None, *["b"] * 37], index=other.obs_names)
    assert told.augment(other, indices=[0, 3]).obs["batch"].tolist() == ["a", "b"]
    with pytest.raises(ValueError, match="has 1 missing values"):
        told.augment(other, indices=[0, 2])


def test_a_model_of_one_batch_makes_no_cells_of_another(two_batches: AnnData) -> None:
    cells = two_batches[two_batches.obs["batch"] == "a"].copy()
    scDiffAug.setup_anndata(cells, batch_key="batch")
    model = scDiffAug(cells)
    model.train(max_epochs=2, enable_progress_bar=False)
    with pytest.raises(ValueError, match=r"e\.g\. 'b': leave those cells out, or train on such"):
        model.augment(two_batches)


def test_a_single_cell_can_be_attached_but_not_learnt_from(
    told: scDiffAug, two_batches: AnnData, tmp_path: Path
) -> None:
    told.save(tmp_path / "model")
    one = scDiffAug.load(tmp_path / "model", two_batches[:1].copy())
    assert one.get_latent_representation().shape == (1, 80)
    partly = two_batches.copy()
    partly.obs["batch"] = partly.obs["batch"].astype(object)
    partly.obs.iloc[0, 1] = None
    model = scDiffAug.load(tmp_path / "model", partly)
    with pytest.raises(ValueError, match="batch_key='batch' has 1 missing values"):
        model.train(max_epochs=2, enable_progress_bar=False)


def test_an_unknown_batch_is_said_before_any_block_is_made(
    told: scDiffAug, two_batches: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told.save(tmp_path / "model")
    cells = two_batches.copy()
    cells.obs["batch"] = [*two_batches.obs["batch"][:-1], "z"]
    cells.write_h5ad(tmp_path / "cells.h5ad")
    monkeypatch.setattr(distributed, "_make", lambda *_: pytest.fail("a block was made"))
    with pytest.raises(ValueError, match="has 1 batches that the model was not trained on"):
        distributed.augment(
            tmp_path / "model", tmp_path / "cells.h5ad", tmp_path / "new.h5ad", block_size=20
        )


def test_cells_between_two_batches_are_of_the_nearer_end(told: scDiffAug) -> None:
    way = told.interpolate(start="0", end="1", n_cells=20)
    assert way.obs["batch"].tolist() == ["a"] * 10 + ["b"] * 10
    has = np.asarray(way[:, :5].X.sum(1)).ravel() > 5
    assert (has == (way.obs["interpolation"] >= 0.5)).mean() >= 0.9


def test_a_column_of_single_cells_is_no_batch(two_batches: AnnData) -> None:
    cells = two_batches.copy()
    cells.obs["share"] = np.linspace(0, 1, cells.n_obs)
    scDiffAug.setup_anndata(cells, batch_key="share")
    with pytest.raises(ValueError, match="batch_key='share' has 316 batches of 316 cells"):
        scDiffAug(cells)


def mixing(y: NDArray[np.float32], cells: AnnData) -> float:
    """Share of the ten nearest cells that are of the other batch, which has half of all cells."""
    near = NearestNeighbors(n_neighbors=10).fit(y).kneighbors(return_distance=False)
    batch = cells.obs["batch"].to_numpy()
    return float((batch[near] != batch[:, None]).mean())


@pytest.fixture(scope="module")
def corrected(two_batches: AnnData) -> scDiffAug:
    cells = two_batches.copy()
    scDiffAug.setup_anndata(cells, batch_key="batch")
    model = scDiffAug(cells, diffusion="none")
    model.train(max_epochs=50, enable_progress_bar=False)
    return model


def test_batches_meet_in_the_embedding_and_types_do_not(
    corrected: scDiffAug, two_batches: AnnData
) -> None:
    cells = two_batches.copy()
    scDiffAug.setup_anndata(cells)
    as_they_are = scDiffAug(cells, diffusion="none")
    as_they_are.train(max_epochs=50, enable_progress_bar=False)
    assert mixing(as_they_are.get_latent_representation(), cells) < 0.3
    for representation in ("semantic", "projection"):
        y = corrected.get_latent_representation(representation=representation)
        assert mixing(y, cells) > 0.4
        near = NearestNeighbors(n_neighbors=10).fit(y).kneighbors(return_distance=False)
        kinds = cells.obs["kind"].to_numpy()
        assert (kinds[near] == kinds[:, None]).mean() > 0.95


def test_cells_that_training_did_not_see_are_corrected_too(two_batches: AnnData) -> None:
    # Batches alternate from cell to cell.
    rows = np.arange(two_batches.n_obs) % 4 < 2
    learnt, query = two_batches[rows].copy(), two_batches[~rows].copy()
    scDiffAug.setup_anndata(learnt, batch_key="batch")
    model = scDiffAug(learnt, diffusion="none")
    model.train(max_epochs=50, enable_progress_bar=False)
    strange = query.copy()
    strange.obs["batch"] = "z"
    told, not_told = (model.get_latent_representation(cells) for cells in (query, strange))
    # Half of the nearest are of the other batch where batches do not matter.
    assert mixing(told, query) > 0.45
    assert mixing(told, query) > mixing(not_told, query) + 0.1


def test_cells_of_no_known_batch_are_embedded_as_they_are(
    corrected: scDiffAug, two_batches: AnnData, caplog: pytest.LogCaptureFixture
) -> None:
    cells = two_batches.copy()
    cells.obs["batch"] = np.where(cells.obs["batch"] == "b", "z", "a")
    found = corrected.get_latent_representation(cells)
    wanted = "158 of 316 cells are of batches that training did not see, e.g. 'z' where it saw 'a'"
    assert wanted in caplog.text
    assert "batch_key='batch'" in caplog.text
    is_known = (cells.obs["batch"] == "a").to_numpy()
    y = corrected.get_latent_representation(two_batches)
    np.testing.assert_allclose(found[is_known], y[is_known], atol=1e-5)
    assert not np.allclose(found[~is_known], y[~is_known], atol=0.1)
    assert "load_query_data(adata, model) maps such cells" in caplog.text
    caplog.clear()
    cells.obs["batch"] = True
    corrected.get_latent_representation(cells)
    assert "e.g. 'True' where it saw 'a'" in caplog.text
    caplog.clear()
    cells.obs["batch"] = None
    corrected.get_latent_representation(cells)
    assert "no known batch, as that column has no value for them" in caplog.text
    caplog.clear()
    del cells.obs["batch"]
    corrected.get_latent_representation(cells)
    assert "316 of 316 cells are of no known batch, as adata.obs has no such" in caplog.text


def test_blocks_of_a_file_are_corrected_as_cells_in_memory_are(
    corrected: scDiffAug,
    two_batches: AnnData,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    corrected.save(tmp_path / "model")
    two_batches.write_h5ad(tmp_path / "cells.h5ad")
    distributed.embed(
        tmp_path / "model", tmp_path / "cells.h5ad", tmp_path / "y.h5ad", block_size=100
    )
    y = anndata.read_h5ad(tmp_path / "y.h5ad").obsm["X_scdiffaug"]
    expected = corrected.get_latent_representation(two_batches)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    assert "without correction" not in caplog.text
    cells = two_batches.copy()
    cells.obs["batch"] = "z"
    cells.write_h5ad(tmp_path / "others.h5ad")
    distributed.embed(
        tmp_path / "model", tmp_path / "others.h5ad", tmp_path / "z.h5ad", block_size=100
    )
    assert caplog.text.count("316 of 316 cells are of batches that training did not see") == 1


def test_cells_that_lack_genes_are_corrected(corrected: scDiffAug, two_batches: AnnData) -> None:
    cells = two_batches[:, :40].copy()
    assert mixing(corrected.get_latent_representation(cells), cells) > 0.4


def test_to_be_corrected_training_cells_need_their_batch(two_batches: AnnData) -> None:
    cells = two_batches.copy()
    scDiffAug.setup_anndata(cells, batch_key="batch")
    model = scDiffAug(cells, diffusion="none")
    del cells.obs["batch"]
    model.adata = cells
    with pytest.raises(KeyError, match="batch_key='batch' not found"):
        model.train(max_epochs=2, enable_progress_bar=False)


@pytest.mark.parametrize("condition", ["labels", "random"])
def test_ablations_are_told_no_batches(
    two_batches: AnnData, condition: Literal["labels", "random"]
) -> None:
    cells = two_batches.copy()
    scDiffAug.setup_anndata(cells, labels_key="kind", batch_key="batch")
    model = scDiffAug(cells, condition=condition)
    model.train(max_epochs=2, enable_progress_bar=False)
    assert model.module.inputs.offsets is None
    del cells.obs["batch"]
    assert model.augment().n_obs == cells.n_obs


def test_reports_and_consistent_cells_say_what_batches_they_do_not_know(
    told: scDiffAug, two_batches: AnnData, caplog: pytest.LogCaptureFixture
) -> None:
    new = told.augment(two_batches)
    new.obs["batch"] = "z"
    told.augmentation_report(new, two_batches)
    assert caplog.text.count("without correction") == 1
    caplog.clear()
    cells = two_batches.copy()
    cells.obs["batch"] = ["a", *["z"] * 315]
    told.augment(cells, indices=[0], keep="consistent")
    assert "315 of 316 cells are of batches that training did not see" in caplog.text


def test_reads_are_mixed_with_a_near_cell_of_the_same_batch(told: scDiffAug) -> None:
    batches, _ = training_cells(
        told._contract, told.adata, n_components=50, batch_size=316, generator_batch=316
    )
    cells, rng = np.arange(316), np.random.default_rng(0)
    near = batches.walks.draw(cells, rng)
    before = near.copy()
    found = batches._of_same_batch(cells, near, rng=rng)
    np.testing.assert_array_equal(near, before)
    assert (batches.covariates[found] == batches.covariates).all()
    # About half of the walks ended in the other batch; few found no way back.
    assert (found == cells).mean() < 0.2


def test_stimulated_and_control_blood_cells_meet(data_dir: Path) -> None:
    cells = anndata.read_h5ad(data_dir / "ifnb_pbmc_2800.h5ad")[::2].copy()
    scDiffAug.setup_anndata(cells, batch_key="batch")
    model = scDiffAug(cells, diffusion="none")
    model.train(max_epochs=60, enable_progress_bar=False)
    y, batch = model.get_latent_representation(), cells.obs["batch"].astype(str)
    assert mixing(y, cells) > 0.35
    types = cells.obs["cell_type"].astype(str)
    judge = KNeighborsClassifier(15).fit(y[batch == "CTRL"], types[batch == "CTRL"])
    assert judge.score(y[batch != "CTRL"], types[batch != "CTRL"]) > 0.85
