"""Cells that are on disk, or computed by dask, are read by blocks, and new ones written so."""

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from anndata.io import sparse_dataset
from scipy import sparse
from small_cells import logs_of_no_counts, write_counts

import scdiffaug
from scdiffaug import (
    block_files,
    choosing,
    embedding,
    matrices,
    neighbors,
    pl,
    scDiffAug,
    streaming,
)
from scdiffaug._randomness import seed_of
from scdiffaug.contract import DataContract
from scdiffaug.features import FeatureSpace
from scdiffaug.matrices import StoredMatrix
from scdiffaug.module import DiffAugModule
from scdiffaug.planning import Plan
from scdiffaug.preparing import training_cells

N_CELLS = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same cells in files of every kind."""
    folder = tmp_path_factory.mktemp("large")
    path = write_counts(folder / "csr.h5ad", {"rare": 60, "common": 240})
    cells = ad.read_h5ad(path)
    dense = AnnData(cells.X.toarray(), cells.obs, cells.var)
    dense.write_h5ad(folder / "dense.h5ad")
    AnnData(cells.X.tocsc(), cells.obs, cells.var).write_h5ad(folder / "csc.h5ad")
    logs = AnnData(logs_of_no_counts(dense.X), cells.obs, cells.var)
    logs.write_h5ad(folder / "logs.h5ad")
    return folder


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few cells are many: what is true of a million is true of three hundred."""
    monkeypatch.setattr(matrices, "SUBSAMPLED", 100)
    monkeypatch.setattr(matrices, "_ROWS_AT_ONCE", 64)
    monkeypatch.setattr(matrices, "_RUN", 8)
    monkeypatch.setattr(matrices, "_MIXED", 64)
    monkeypatch.setattr(matrices, "_GAP", 4)
    monkeypatch.setattr(streaming, "_CELLS_OF_A_BLOCK", 70)


def _in_memory(folder: Path, name: str = "csr") -> AnnData:
    return ad.read_h5ad(folder / f"{name}.h5ad")


def _backed(folder: Path, name: str = "csr") -> AnnData:
    return ad.read_h5ad(folder / f"{name}.h5ad", backed="r")


def _small_model(adata: AnnData) -> scDiffAug:
    return scDiffAug(adata, n_top_features=30, n_neighbors=5, n_semantic=8)


def _zarr(folder: Path) -> AnnData:
    zarr = pytest.importorskip("zarr")
    cells = _in_memory(folder)
    group = zarr.open_group(folder / "cells.zarr", mode="w")
    with warnings.catch_warnings():
        # Of what zarr and anndata will do by default in their next versions.
        warnings.simplefilter("ignore")
        ad.io.write_elem(group, "X", cells.X)
    return AnnData(sparse_dataset(group["X"]), obs=cells.obs, var=cells.var)


def _dask(folder: Path) -> AnnData:
    pytest.importorskip("dask")
    import dask.array as da

    cells = _in_memory(folder)
    x = da.from_array(cells.X.toarray(), chunks=(30, 40))
    return AnnData(x.map_blocks(sparse.csr_matrix), obs=cells.obs, var=cells.var)


def _lazy(folder: Path) -> AnnData:
    pytest.importorskip("dask")
    pytest.importorskip("xarray")
    return ad.experimental.read_lazy(folder / "csr.h5ad")


STORED: dict[str, Callable[[Path], AnnData]] = {
    "h5ad": _backed,
    "dense h5ad": lambda folder: _backed(folder, "dense"),
    "zarr": _zarr,
    "dask": _dask,
    "read_lazy": _lazy,
}


def _contract(adata: AnnData, **changed: Any) -> DataContract:
    options = {"feature_space": "auto", "n_top_features": 30, "n_neighbors": 5, **changed}
    setup = {"layer": None, "labels_key": None, "batch_key": None, "neighbors_key": None}
    return DataContract.fit(adata, setup, covariate=None, seed=0, **options)


def _dense(x: Any) -> np.ndarray:
    return x.toarray() if sparse.issparse(x) else np.asarray(x)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("store", STORED)
def test_rows_are_those_of_the_matrix(folder: Path, store: str) -> None:
    wanted = _dense(_in_memory(folder).X)
    x = _contract(adata := STORED[store](folder)).read(adata)[1]
    assert isinstance(x, StoredMatrix)
    assert x.shape == wanted.shape
    np.testing.assert_array_equal(matrices.depths(x), wanted.sum(1))
    for rows in (slice(3, 7), slice(None), np.array([250, 3, 4, 3, 299]), np.array([17])):
        np.testing.assert_array_equal(_dense(x[rows]), wanted[rows])


@pytest.mark.usefixtures("small_blocks")
def test_genes_of_cells_on_disk_are_drawn_by_some_of_the_cells(folder: Path) -> None:
    drawn = matrices.drawn_rows(N_CELLS, 100)
    axes = pl.gene_agreement(_backed(folder), _backed(folder), show=False)
    of_drawn = pl.gene_agreement(*[_in_memory(folder)[drawn]] * 2, show=False)
    assert len(axes) == 3
    for ax, other in zip(axes, of_drawn, strict=True):
        points = ax.collections[0].get_offsets()
        np.testing.assert_allclose(points, other.collections[0].get_offsets(), rtol=1e-5)


def test_genes_of_sources_on_disk_are_those_of_sources_in_memory(folder: Path) -> None:
    known = _in_memory(folder)
    new = known[[7, 8, 9]].copy()
    new.obs["source_obs_name"] = known.obs_names[[250, 3, 250]]
    both = [pl.gene_agreement(real, new, show=False) for real in (_backed(folder), known)]
    for one, other in zip(*both, strict=True):
        np.testing.assert_allclose(*(ax.collections[0].get_offsets() for ax in (one, other)))


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("store", STORED)
def test_views_are_not_read_whole(folder: Path, store: str) -> None:
    known, adata = _in_memory(folder), STORED[store](folder)
    order = np.random.default_rng(0).permutation(40)
    rows = np.random.default_rng(1).permutation(N_CELLS)[:200]
    cells, x = _contract(known[:, order].copy()).read(adata, rows)
    assert isinstance(x, StoredMatrix)
    np.testing.assert_array_equal(_dense(x[:]), _dense(known.X)[rows][:, order])
    assert list(cells.obs_names) == list(known.obs_names[rows])


@pytest.mark.usefixtures("small_blocks")
def test_some_cells_of_a_view_of_cells_on_disk_are_read(folder: Path) -> None:
    """On disk, views have no views."""
    known, adata = _in_memory(folder), _backed(folder)
    contract, rows = _contract(known), [3, 1, 90]
    for some in (np.s_[::2], np.s_[:, ::-1], np.s_[100:, ::-1]):
        found, x = contract.read(adata[some], rows)
        wanted, values = contract.read(known[some], rows)
        np.testing.assert_array_equal(_dense(x[:]), _dense(values))
        assert list(found.obs_names) == list(wanted.obs_names)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("name", ["csr", "logs"])
def test_a_batch_holds_its_cells_and_an_epoch_all(folder: Path, name: str) -> None:
    known, adata = _in_memory(folder, name), _backed(folder, name)
    contract = _contract(adata)
    batches, _ = training_cells(contract, adata, n_components=10, batch_size=32)
    values = _dense(contract.values(known.X))
    drawn = list(batches)
    assert len(drawn) == len(batches) == 10
    x = np.concatenate([batch["x"].to_dense().numpy() for batch in drawn])
    inputs = np.concatenate([batch["inputs"].numpy() for batch in drawn])
    order = [np.flatnonzero((values == cell).all(1))[0] for cell in x]
    assert sorted(order) == list(range(N_CELLS))
    np.testing.assert_array_equal(inputs, batches.inputs[order])
    # Runs of 8 cells are mixed: neighbours in the file seldom follow one another.
    assert (np.diff(order) == 1).mean() < 0.1
    again = np.concatenate([batch["x"].to_dense().numpy() for batch in batches])
    assert (again != x).any()


@pytest.mark.usefixtures("small_blocks")
def test_axes_and_inputs_are_close_to_those_of_all_cells(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract = _contract(_in_memory(folder))
    monkeypatch.setattr(matrices, "SUBSAMPLED", N_CELLS - 1)
    stored = training_cells(contract, _backed(folder), n_components=3, batch_size=32)[0]
    known = training_cells(contract, _in_memory(folder), n_components=3, batch_size=32)[0]
    signs = np.sign((stored.inputs * known.inputs).sum(0))
    np.testing.assert_allclose(stored.inputs * signs, known.inputs, atol=0.2)
    assert stored.digest() != known.digest()


def _counted_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each read of a stored matrix from now on."""
    real, read = StoredMatrix.__getitem__, []

    def counted(x: StoredMatrix, rows: Any) -> Any:
        found = real(x, rows)
        read.append(found.shape[0])
        return found

    monkeypatch.setattr(StoredMatrix, "__getitem__", counted)
    return read


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("diffusion", "reads"), [("none", False), ("counts", True)])
def test_epochs_read_cells_only_for_the_generator(
    folder: Path, monkeypatch: pytest.MonkeyPatch, diffusion: str, reads: bool
) -> None:
    read = _counted_reads(monkeypatch)
    numbers = []
    for max_epochs in (1, 3):
        model = scDiffAug(
            _backed(folder), n_top_features=30, n_neighbors=5, n_semantic=8, diffusion=diffusion
        )
        read.clear()
        model.train(max_epochs=max_epochs, batch_size=32, enable_progress_bar=False)
        numbers.append(len(read))
    assert (numbers[1] > numbers[0]) == reads


@pytest.mark.usefixtures("small_blocks")
def test_never_more_than_some_blocks_are_read_at_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = _counted_reads(monkeypatch)
    monkeypatch.setitem(embedding.encode.__wrapped__.__kwdefaults__, "batch_size", 64)
    monkeypatch.setattr(embedding, "_CELLS_AT_ONCE", 64)
    adata = _backed(folder)
    model = _small_model(adata)
    model.train(max_epochs=2, batch_size=32, enable_progress_bar=False)
    model.get_latent_representation(batch_size=64)
    model.augment(steps=2, path=tmp_path / "new.h5ad")
    # The subsample; all else are blocks.
    assert max(read) == 100
    assert sorted(set(read) - {100})[-1] <= 70


@pytest.mark.usefixtures("small_blocks")
def test_a_backed_model_does_what_one_in_memory_does(folder: Path) -> None:
    adata, known = _backed(folder), _in_memory(folder)
    model = _small_model(adata)
    model.train(max_epochs=2, batch_size=32, enable_progress_bar=False)
    np.testing.assert_allclose(
        model.get_latent_representation(), model.get_latent_representation(known), atol=1e-5
    )
    np.testing.assert_array_equal(
        model.augment(steps=2, n_per_cell=2).X.toarray(),
        model.augment(known, steps=2, n_per_cell=2).X.toarray(),
    )
    ends = {"start": "rare", "end": "common", "groupby": "cell_type", "n_cells": 3, "steps": 2}
    np.testing.assert_array_equal(
        model.interpolate(**ends).X.toarray(), model.interpolate(known, **ends).X.toarray()
    )


@pytest.fixture
def small_subsample(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred cells are enough to be embedded among."""
    for module in (scdiffaug.budget, scdiffaug.fitting):
        monkeypatch.setattr(module, "SUBSAMPLED", 100)


@pytest.mark.usefixtures("small_blocks", "small_subsample")
def test_of_too_many_cells_some_are_trained_on_and_all_embedded(folder: Path) -> None:
    adata, known = _backed(folder), _in_memory(folder)
    for cells in (adata, known):
        model = _small_model(cells)
        model.train(2, batch_size=32, max_cells=150, enable_progress_bar=False)
        y = model.get_latent_representation()
        assert y.shape == (N_CELLS, 8)
        assert model.augment(steps=2).n_obs == N_CELLS
        np.testing.assert_allclose(y, model.get_latent_representation(known), atol=1e-5)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("name", "reads"), [("csr", False), ("dense", True)])
def test_drawn_cells_are_all_that_batches_hold(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, reads: bool
) -> None:
    known, adata = _in_memory(folder, name), _backed(folder, name)
    held, read = [], _counted_reads(monkeypatch)
    for cells in (known, adata):
        batches, _ = training_cells(
            _contract(adata), cells, n_components=10, batch_size=32, n_cells=150
        )
        read.clear()
        x = np.concatenate([batch["x"].to_dense().numpy() for batch in batches])
        held.append(x[np.lexsort(x.T)])
        # Components of logarithms, and as many of residuals.
        assert batches.inputs.shape == (150, 20)
        assert len(batches.walks.neighbors) == len(batches.covariates) == 150
        assert batches.repulsion.communities.shape == (150,)
    # Sparse cells came into memory.
    assert bool(read) == reads
    assert held[0].shape == (150, known.n_vars)
    np.testing.assert_array_equal(*held)
    assert {cell.tobytes() for cell in held[0]} < {cell.tobytes() for cell in _dense(known.X)}


@pytest.mark.usefixtures("small_blocks")
def test_few_drawn_cells_come_into_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adata, read = _backed(folder, "dense"), _counted_reads(monkeypatch)
    batches, _ = training_cells(
        _contract(adata), adata, n_components=10, batch_size=32, n_cells=100
    )
    read.clear()
    assert sum(len(batch["inputs"]) for batch in batches) == 100
    assert not read


@pytest.mark.usefixtures("small_subsample")
@pytest.mark.parametrize(
    ("max_cells", "neighbors_key", "n_trained"),
    [(150, None, 150), (None, None, N_CELLS), (N_CELLS, None, N_CELLS), (150, "mine", N_CELLS)],
)
def test_how_many_cells_are_trained_on(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    max_cells: int | None,
    neighbors_key: str | None,
    n_trained: int,
) -> None:
    adata, numbers = _in_memory(folder), []

    def watched(contract: DataContract, cells: AnnData, **how: Any) -> Any:
        found = training_cells(contract, cells, **how)
        numbers.append(len(found[0].inputs))
        return found

    monkeypatch.setattr(scdiffaug.fitting, "training_cells", watched)
    if neighbors_key is not None:
        sc.pp.neighbors(adata, n_neighbors=6, use_rep="X", key_added=neighbors_key)
        scDiffAug.setup_anndata(adata, neighbors_key=neighbors_key)
    _small_model(adata).train(1, max_cells=max_cells, enable_progress_bar=False)
    assert numbers == [n_trained]


@pytest.mark.usefixtures("small_blocks")
def test_cells_on_disk_are_saved_with_the_model(folder: Path, tmp_path: Path) -> None:
    adata = _backed(folder)
    model = _small_model(adata)
    model.save(tmp_path / "model", save_anndata=True)
    assert adata.filename == folder / "csr.h5ad"
    saved = ad.read_h5ad(tmp_path / "model" / "adata.h5ad")
    np.testing.assert_array_equal(_dense(saved.X), _dense(_in_memory(folder).X))


def test_a_view_of_cells_on_disk_is_not_set_up(folder: Path) -> None:
    with pytest.raises(ValueError, match="adata is a view of cells on disk: pass those"):
        scDiffAug(_backed(folder)[:200])


@pytest.mark.usefixtures("small_blocks")
def test_a_large_matrix_by_columns_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"adata\.X is stored by columns \(CSC\)"):
        scDiffAug(_backed(folder, "csc"))


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, r"adata\.X \(cells 256 to 299\) has 1 NaN or infinite values"),
        (-1.0, "needs non-negative values, found -1"),
        (0.5, "needs whole numbers, found fractions"),
    ],
)
def test_a_bad_value_in_the_last_block_is_found(
    folder: Path, tmp_path: Path, value: float, message: str
) -> None:
    cells = _in_memory(folder)
    cells.X.data[-1] = value
    cells.write_h5ad(tmp_path / "bad.h5ad")
    with pytest.raises(ValueError, match=message):
        scDiffAug(ad.read_h5ad(tmp_path / "bad.h5ad", backed="r"), feature_space="counts")


@pytest.fixture(scope="module")
def model(folder: Path) -> scDiffAug:
    model = _small_model(_in_memory(folder))
    model.train(max_epochs=2, batch_size=32, enable_progress_bar=False)
    return model


@pytest.mark.usefixtures("small_blocks")
def test_new_cells_are_written_by_blocks(model: scDiffAug, tmp_path: Path) -> None:
    new = model.augment(n_per_cell=2, steps=2, path=tmp_path / "new.h5ad")
    held = model.augment(n_per_cell=2, steps=2)
    assert new.isbacked
    assert new.obs.astype(str).equals(held.obs.astype(str))
    assert new.var.equals(held.var)
    assert new.uns.keys() == held.uns.keys()
    assert [path.name for path in tmp_path.iterdir()] == ["new.h5ad"]
    assert (new.X[:] != new.to_memory().X).nnz == 0
    # The first 70 cells are made by themselves, from 35 sources.
    seed = seed_of(0, "blocks", 0)
    first = model.augment(indices=range(35), n_per_cell=2, steps=2, seed=seed)
    np.testing.assert_array_equal(new.X[:70].toarray(), first.X.toarray())
    # Reads are those of the sources, to the last block.
    np.testing.assert_array_equal(_dense(new.X[:].sum(1)), _dense(held.X.sum(1)))


def test_a_column_of_mixed_types_is_refused_before_cells_are_made(
    folder: Path, model: scDiffAug, tmp_path: Path
) -> None:
    cells = _in_memory(folder)
    cells.obs["note"] = pd.Series(["text"] * 290 + [1] * 10, index=cells.obs_names, dtype=object)
    with pytest.raises(TypeError, match=r"obs\['note'\] is of type object, which no file holds"):
        model.augment(cells, path=tmp_path / "new.h5ad")
    assert not list(tmp_path.iterdir())


def test_names_that_no_file_holds_are_refused_before_cells_are_made(
    folder: Path, model: scDiffAug, tmp_path: Path
) -> None:
    cells = _in_memory(folder)
    cells.obs_names = cells.obs_names.astype("string")
    named = model.augment(cells, indices=[0, 1], steps=1, path=tmp_path / "new.h5ad")
    assert named.obs["source_obs_name"].tolist() == cells.obs_names[:2].tolist()
    cells.var_names = cells.var_names.astype("string")
    with pytest.raises(TypeError, match=r"var_names is of type string, which no file holds"):
        model.augment(cells, path=tmp_path / "others.h5ad")


def test_columns_are_checked_in_threads_at_once() -> None:
    tables = [
        AnnData(obs=pd.DataFrame({"a": [number], "b": ["text"]}, index=["x"]))
        for number in range(64)
    ]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(block_files.check_writable_tables, tables)) == [None] * 64


@pytest.mark.usefixtures("small_blocks")
def test_a_column_of_which_a_block_has_no_value_is_kept(
    folder: Path, model: scDiffAug, tmp_path: Path
) -> None:
    cells = _in_memory(folder)
    cells.obs["note"] = [np.nan] * 290 + ["kept"] * 10
    new = model.augment(cells, steps=2, path=tmp_path / "new.h5ad")
    assert new.obs["note"].isna().sum() == 290
    assert new.obs["note"].iloc[-10:].tolist() == ["kept"] * 10


@pytest.mark.usefixtures("small_blocks")
def test_groups_are_brought_up_to_a_size_on_disk(model: scDiffAug, tmp_path: Path) -> None:
    options: dict[str, Any] = {"groupby": "cell_type", "target": "max", "steps": 2}
    new = model.augment(**options, depth="sampled", path=tmp_path / "new.h5ad")
    assert new.obs["cell_type"].tolist() == ["rare"] * 180
    assert new.obs_names.is_unique
    kept = model.augment(**options, keep="consistent", path=tmp_path / "kept.h5ad")
    assert kept.n_obs / 1800 <= kept.uns["scdiffaug"]["kept_share"] <= kept.n_obs / 180


@pytest.mark.usefixtures("small_blocks")
def test_a_block_of_which_none_is_kept_counts_for_ten_draws_of_its_own_cells(
    model: scDiffAug, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """180 cells are wanted, in blocks of 70, 70 and 40; the first block is kept whole."""
    answers = iter([True])

    def consistent(_: Any, y_made: np.ndarray, *__: Any, **___: Any) -> np.ndarray:
        return np.full(len(y_made), next(answers, False))

    monkeypatch.setattr(choosing, "consistent", consistent)
    options: dict[str, Any] = {"groupby": "cell_type", "target": "max", "keep": "consistent"}
    new = model.augment(**options, steps=2, path=tmp_path / "new.h5ad")
    assert new.n_obs == 70
    assert new.uns["scdiffaug"]["kept_share"] == pytest.approx(70 / (70 + 10 * 70 + 10 * 40))


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("n_calls", [1, 5, 9])
def test_what_was_made_before_a_kill_is_not_made_again(
    model: scDiffAug, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_calls: int
) -> None:
    wanted = model.augment(n_per_cell=2, steps=2, path=tmp_path / "whole.h5ad")
    real, calls = DiffAugModule.sample, []

    def sample(module: DiffAugModule, x: Any, *rest: Any, **how: Any) -> Any:
        calls.append(len(x))
        if len(calls) == n_calls:
            raise KeyboardInterrupt
        return real(module, x, *rest, **how)

    monkeypatch.setattr(DiffAugModule, "sample", sample)
    with pytest.raises(KeyboardInterrupt):
        model.augment(n_per_cell=2, steps=2, path=tmp_path / "new.h5ad")
    assert not (tmp_path / "new.h5ad").exists()
    left = [path for path in tmp_path.iterdir() if path.name.startswith(".new.h5ad.")]
    # Of a call that had made nothing, nothing is left.
    assert len(left) == (n_calls > 1)
    for waiting in left:
        # What a kill leaves of the block at hand.
        (waiting / ".8.h5ad.new-01234567").mkdir()
        (waiting / ".8.h5ad.new-01234567" / "8.h5ad").write_bytes(b"half")
    model.augment(n_per_cell=2, steps=2, path=tmp_path / "new.h5ad")
    # Nine blocks, one of them tried twice.
    assert len(calls) == 10
    assert (tmp_path / "new.h5ad").read_bytes() == (tmp_path / "whole.h5ad").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.h5ad", "whole.h5ad"]
    wanted.file.close()


@pytest.mark.usefixtures("small_blocks")
def test_another_call_does_not_take_up_what_is_left(
    model: scDiffAug, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = model.augment(steps=2, seed=5, path=tmp_path / "whole.h5ad").X[:].toarray()
    with monkeypatch.context() as patch:
        patch.setattr(streaming, "_join", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            model.augment(steps=2, path=tmp_path / "new.h5ad")
    new = model.augment(steps=2, seed=5, path=tmp_path / "new.h5ad")
    np.testing.assert_array_equal(new.X[:].toarray(), wanted)


def test_places_that_new_cells_cannot_have(model: scDiffAug, tmp_path: Path) -> None:
    (tmp_path / "new.h5ad").write_text("mine")
    with pytest.raises(FileExistsError, match=r"new\.h5ad exists already: remove it"):
        model.augment(path=tmp_path / "new.h5ad")
    with pytest.raises(ValueError, match=r"path='cells\.csv' must end in \.h5ad"):
        model.augment(path="cells.csv")
    with pytest.raises(TypeError, match="path=3 must be a path"):
        model.augment(path=3)


def test_jaccard_weights_by_blocks_are_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    found = np.random.default_rng(0).integers(50, size=(50, 4))
    wanted = neighbors.jaccard_weights(found)
    monkeypatch.setattr(neighbors, "_CELLS_AT_ONCE", 7)
    np.testing.assert_array_equal(neighbors.jaccard_weights(found), wanted)


def test_bounds_of_parts_are_those_of_the_whole() -> None:
    one, other = np.array([[0, 2.0]], np.float32), np.array([[-1, 0.5]], np.float32)
    found = matrices.Bounds.of(one).widened(matrices.Bounds.of(other))
    assert found == (-1, 2, False) == matrices.Bounds.of(np.concatenate([one, other]))
    assert FeatureSpace.decide(other).kind == "raw"


def test_a_column_that_no_file_holds_is_named_before_cells_are_made(
    model: scDiffAug, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DiffAugModule, "sample", lambda *_, **__: pytest.fail("made"))
    cells = model.adata.copy()
    cells.obs["seen"] = pd.Timestamp("2026-01-01")
    with pytest.raises(TypeError, match=r"obs\['seen'\] is of type datetime64"):
        model.augment(cells, path=tmp_path / "new.h5ad")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("small_blocks")
def test_what_counts_were_normalised_to_is_surveyed_once_for_all_blocks(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = _in_memory(folder)
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    cells.write_h5ad(tmp_path / "normalised.h5ad")
    model = _small_model(_backed(tmp_path, "normalised"))
    assert model.feature_space == "counts"
    model.train(max_epochs=2, batch_size=32, enable_progress_bar=False)
    real, surveyed = StoredMatrix.surveyed, []

    def counted(x: StoredMatrix) -> StoredMatrix:
        surveyed.append(x)
        return real(x)

    monkeypatch.setattr(StoredMatrix, "surveyed", counted)
    numbers = []
    for n_per_cell in (1, 3):
        surveyed.clear()
        path = tmp_path / f"new{n_per_cell}.h5ad"
        assert model.augment(steps=2, n_per_cell=n_per_cell, path=path).n_obs == 300 * n_per_cell
        numbers.append(len(surveyed))
    assert numbers[0] == numbers[1] > 0


@pytest.mark.parametrize("changed", ["groups", "totals", "labels", "batches of others"])
def test_blocks_of_other_cells_are_not_gone_on_with(
    pbmc: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    """What decides them is more than the counts and the arguments."""
    sc.pp.normalize_total(pbmc, target_sum=1e4)
    sc.pp.log1p(pbmc)
    is_of_batches = changed == "batches of others"
    scDiffAug.setup_anndata(pbmc, **{"batch_key" if is_of_batches else "labels_key": "phase"})
    model = scDiffAug(pbmc, condition="labels" if changed == "labels" else "semantic")
    model.train(max_epochs=2, enable_progress_bar=False)
    other = pbmc.copy()
    if changed == "totals":
        other.X = (other.X.expm1() * 3).log1p()
    elif is_of_batches:
        other.obs.loc[other.obs_names[500:], "phase"] = "G1"
    else:
        other.obs[{"groups": "cell_type", "labels": "phase"}[changed]] = "G1"
    wishes = {"steps": 2, "groupby": "cell_type", "keep": "consistent", "indices": range(500)}
    path, part, real = tmp_path / "new.h5ad", Plan.part, []

    def interrupted(plan: Plan, rows: slice, **options: Any) -> Plan:
        if real:
            raise KeyboardInterrupt
        real.append(rows)
        return part(plan, rows, **options)

    monkeypatch.setattr(streaming, "_CELLS_OF_A_BLOCK", 400)
    monkeypatch.setattr(Plan, "part", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.augment(pbmc, path=path, **wishes)
    monkeypatch.setattr(Plan, "part", part)
    found = model.augment(other, path=path, **wishes)
    fresh = model.augment(other, path=tmp_path / "fresh.h5ad", **wishes)
    assert list(found.obs_names) == list(fresh.obs_names)
    np.testing.assert_array_equal(found.X[:].toarray(), fresh.X[:].toarray())


def test_features_are_described_as_when_the_blocks_are_joined(
    model: scDiffAug, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, part, made = tmp_path / "new.h5ad", Plan.part, []

    def interrupted(plan: Plan, rows: slice, **options: Any) -> Plan:
        made.append(rows)
        if len(made) == 2:
            raise KeyboardInterrupt
        return part(plan, rows, **options)

    monkeypatch.setattr(streaming, "_CELLS_OF_A_BLOCK", 200)
    monkeypatch.setattr(Plan, "part", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.augment(steps=2, path=path)
    model.adata.var["later"] = np.arange(model.adata.n_vars)
    new = model.augment(steps=2, path=path)
    n_blocks = -(-model.adata.n_obs // 200)
    # The first block is kept, the second was begun twice.
    assert len(made) == n_blocks + 1
    assert new.var["later"].tolist() == model.adata.var["later"].tolist()
    new.file.close()
