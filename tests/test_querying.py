"""Cells of batches that a model did not learn from are mapped onto it without training."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse
from sklearn.neighbors import KNeighborsClassifier

from scdiffaug import distributed, scDiffAug

N_GENES = 60
QUICK = {"max_epochs": 50, "enable_progress_bar": False}


@pytest.fixture(scope="module")
def cells() -> AnnData:
    """Cells of three types and batches, each of which has a third of the genes in excess."""
    rng = np.random.default_rng(1)
    types, batch = np.repeat(["x", "y", "z"], 120), np.tile(["a", "b", "c"], 120)
    rate = rng.gamma(0.5, 2, (3, N_GENES))[np.unique(types, return_inverse=True)[1]]
    third = np.arange(N_GENES) % 3 == np.unique(batch, return_inverse=True)[1][:, None]
    found = AnnData(sparse.csr_matrix(rng.poisson(rate + 6 * third).astype(np.float32)))
    found.obs["kind"], found.obs["batch"] = types, batch
    return found


def of(cells: AnnData, *batches: str) -> AnnData:
    return cells[cells.obs["batch"].isin(batches)].copy()


@pytest.fixture(scope="module")
def model(cells: AnnData) -> scDiffAug:
    """A model of batches "a" and "b"."""
    reference = of(cells, "a", "b")
    scDiffAug.setup_anndata(reference, batch_key="batch")
    model = scDiffAug(reference, n_neighbors=5)
    model.train(**QUICK)
    return model


def told(model: scDiffAug, y: NDArray[np.float32], query: AnnData) -> float:
    """Share of query cells whose type the nearest of the reference say."""
    judge = KNeighborsClassifier(15).fit(
        model.get_latent_representation(), model.adata.obs["kind"]
    )
    return float(judge.score(y, query.obs["kind"]))


def test_query_cells_lie_where_their_types_do(model: scDiffAug, cells: AnnData) -> None:
    query = of(cells, "c")
    before = model.get_latent_representation(query)
    mapped = scDiffAug.load_query_data(query, model)
    assert told(model, before, query) < 0.8
    assert told(model, mapped.get_latent_representation(), query) > 0.95


def test_the_reference_stays_as_it_is(model: scDiffAug, cells: AnnData) -> None:
    weights = {name: value.clone() for name, value in model.module.state_dict().items()}
    y = model.get_latent_representation()
    mapped = scDiffAug.load_query_data(of(cells, "c"), model)
    for name, value in model.module.state_dict().items():
        assert value.equal(weights[name])
    np.testing.assert_array_equal(mapped.get_latent_representation(model.adata), y)
    assert model._model_summary_string.endswith("batches 'a' and 'b'")
    assert mapped._model_summary_string.endswith("batches 'a' and 'b', mapped 'c'")


def test_batches_that_the_model_knows_stay_as_they_are(model: scDiffAug, cells: AnnData) -> None:
    alone = scDiffAug.load_query_data(of(cells, "c"), model)
    among = scDiffAug.load_query_data(cells.copy(), model)
    for batches in "c", "a":
        query = of(cells, batches)
        np.testing.assert_array_equal(
            among.get_latent_representation(query), alone.get_latent_representation(query)
        )


def test_a_training_batch_of_another_name_gets_its_own_offsets(
    model: scDiffAug, cells: AnnData
) -> None:
    query = of(cells, "a")
    query.obs["batch"] = "like a"
    mapped = scDiffAug.load_query_data(query, model)
    own, _, found = mapped.module.inputs.offsets[0].offsets
    assert (found - own).norm() < 0.1 * own.norm()


def test_known_batches_alone_are_said_to_need_no_mapping(
    model: scDiffAug, cells: AnnData, caplog: pytest.LogCaptureFixture
) -> None:
    mapped = scDiffAug.load_query_data(of(cells, "a"), model)
    assert "learnt from all batches of these cells, e.g. 'a': none is mapped" in caplog.text
    assert mapped._contract.query_batches == ()
    caplog.clear()
    scDiffAug.load_query_data(of(cells, "a", "c"), model)
    assert not caplog.text


def test_more_cells_of_a_batch_are_mapped_anew(
    model: scDiffAug, cells: AnnData, caplog: pytest.LogCaptureFixture
) -> None:
    query = of(cells, "c")
    few = scDiffAug.load_query_data(query[:10].copy(), model)
    assert "was mapped before" not in caplog.text
    then_all = scDiffAug.load_query_data(query, few)
    assert "'c' was mapped before: what sets it apart is found anew, from the 120" in caplog.text
    at_once = scDiffAug.load_query_data(query, model)
    np.testing.assert_array_equal(
        then_all.get_latent_representation(), at_once.get_latent_representation()
    )
    assert then_all._contract.query_batches == ("c",)


def test_a_single_cell_is_mapped_to_where_it_lies(model: scDiffAug, cells: AnnData) -> None:
    query = of(cells, "c")[:1].copy()
    mapped = scDiffAug.load_query_data(query, model)
    assert np.isfinite(mapped.get_latent_representation()).all()


def test_queries_may_follow_each_other(model: scDiffAug, cells: AnnData) -> None:
    later = of(cells, "c")
    later.obs["batch"] = "d"
    first = scDiffAug.load_query_data(of(cells, "c"), model)
    second = scDiffAug.load_query_data(later, first)
    assert second._contract.query_batches == ("c", "d")
    np.testing.assert_array_equal(
        second.get_latent_representation(), first.get_latent_representation()
    )


def test_what_was_mapped_outlasts_the_file_and_is_read_block_by_block(
    model: scDiffAug, cells: AnnData, tmp_path: Path
) -> None:
    query = of(cells, "c")
    model.save(tmp_path / "reference")
    mapped = scDiffAug.load_query_data(query, tmp_path / "reference")
    y = mapped.get_latent_representation()
    mapped.save(tmp_path / "mapped")
    loaded = scDiffAug.load(tmp_path / "mapped", adata=False)
    np.testing.assert_array_equal(loaded.get_latent_representation(query), y)

    query.write_h5ad(tmp_path / "query.h5ad")
    distributed.embed(
        tmp_path / "mapped", tmp_path / "query.h5ad", tmp_path / "y.h5ad", block_size=50
    )
    found = anndata.read_h5ad(tmp_path / "y.h5ad").obsm["X_scdiffaug"]
    np.testing.assert_allclose(found, y, atol=1e-5)


def test_cells_on_disk_are_mapped(model: scDiffAug, cells: AnnData, tmp_path: Path) -> None:
    query = of(cells, "c")
    query.write_h5ad(tmp_path / "query.h5ad")
    y = scDiffAug.load_query_data(query, model).get_latent_representation()
    backed = anndata.read_h5ad(tmp_path / "query.h5ad", backed="r")
    mapped = scDiffAug.load_query_data(backed, model)
    np.testing.assert_allclose(mapped.get_latent_representation(), y, atol=1e-5)
    backed.file.close()
    query[:, ::-1].copy().write_h5ad(tmp_path / "reversed.h5ad")
    backed = anndata.read_h5ad(tmp_path / "reversed.h5ad", backed="r")
    mapped = scDiffAug.load_query_data(backed, model)
    np.testing.assert_allclose(mapped.get_latent_representation(backed), y, atol=1e-5)
    backed.file.close()


def test_cells_that_lack_genes_are_mapped_and_passed_to_each_method(
    model: scDiffAug, cells: AnnData
) -> None:
    query = of(cells, "c")[:, :45].copy()
    mapped = scDiffAug.load_query_data(query, model)
    assert mapped.adata is None
    assert told(model, mapped.get_latent_representation(query), query) > 0.9


def test_markers_that_a_query_lacks_have_no_offset() -> None:
    rng = np.random.default_rng(1)
    kind = np.repeat([0, 1], 100)
    panel = AnnData(rng.normal(size=(200, 12)) + 3 * rng.normal(size=(2, 12))[kind])
    panel.var_names = [f"marker {i}" for i in range(12)]
    panel.obs["batch"] = np.tile(["a", "b"], 100)
    scDiffAug.setup_anndata(panel, batch_key="batch")
    model = scDiffAug(panel, diffusion="none")
    model.train(max_epochs=2, enable_progress_bar=False)
    query = panel[:, :8].copy()
    query.X = query.X + 2
    query.obs["batch"] = "c"
    mapped = scDiffAug.load_query_data(query, model)
    offsets = mapped.module.inputs.offsets[0].offsets[2]
    assert not offsets[:, 8:].any()
    assert (offsets[:, :8].mean(0) > 0).all()


def test_of_a_batch_that_was_only_mapped_nothing_is_learnt_or_made(
    model: scDiffAug, cells: AnnData
) -> None:
    mapped = scDiffAug.load_query_data(of(cells, "c"), model)
    with pytest.raises(ValueError, match="has cells of 'c', which were mapped by load_query_data"):
        mapped.augment()
    with pytest.raises(RuntimeError, match="which needs no training: call get_latent"):
        mapped.train(**QUICK)
    assert mapped.is_trained_
    assert mapped.augment(of(cells, "a")).n_obs == 120


def test_what_cannot_be_mapped_is_refused(model: scDiffAug, cells: AnnData) -> None:
    query = of(cells, "c")
    with pytest.raises(TypeError, match="reference_model must be a scDiffAug or the folder of on"):
        scDiffAug.load_query_data(query, model.module)
    without = query.copy()
    del without.obs["batch"]
    with pytest.raises(KeyError, match=r"not found in adata\.obs: name the batch of each cell"):
        scDiffAug.load_query_data(without, model)
    partly = query.copy()
    partly.obs["batch"] = pd.Series([None, *["c"] * 119], index=partly.obs_names)
    with pytest.raises(ValueError, match="batch_key='batch' has 1 missing values"):
        scDiffAug.load_query_data(partly, model)
    single = query.copy()
    single.obs["batch"] = single.obs_names
    with pytest.raises(ValueError, match="batch_key='batch' has 120 batches of 120 cells"):
        scDiffAug.load_query_data(single, model)


def test_a_model_has_to_know_batches(cells: AnnData) -> None:
    reference = of(cells, "a")
    scDiffAug.setup_anndata(reference, batch_key="batch")
    model = scDiffAug(reference)
    with pytest.raises(RuntimeError, match="train"):
        scDiffAug.load_query_data(of(cells, "b"), model)
    scDiffAug.setup_anndata(reference)
    knows_none = scDiffAug(reference, diffusion="none")
    knows_none.train(max_epochs=2, enable_progress_bar=False)
    with pytest.raises(ValueError, match="reference_model is not corrected for batches"):
        scDiffAug.load_query_data(of(cells, "b"), knows_none)


def test_stimulated_blood_cells_are_told_by_control_cells(data_dir: Path) -> None:
    blood = anndata.read_h5ad(data_dir / "ifnb_pbmc_2800.h5ad")[::2].copy()
    is_control = (blood.obs["batch"] == "CTRL").to_numpy()
    reference, query = blood[is_control].copy(), blood[~is_control].copy()
    scDiffAug.setup_anndata(reference, batch_key="batch")
    model = scDiffAug(reference, diffusion="none")
    model.train(max_epochs=100, enable_progress_bar=False)
    judge = KNeighborsClassifier(15).fit(
        model.get_latent_representation(), reference.obs["cell_type"].astype(str)
    )
    types = query.obs["cell_type"].astype(str)
    mapped = scDiffAug.load_query_data(query, model)
    before = judge.score(model.get_latent_representation(query), types)
    assert judge.score(mapped.get_latent_representation(), types) > max(0.7, before + 0.2)
