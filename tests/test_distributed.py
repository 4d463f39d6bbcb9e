"""A file made by blocks is the same whoever makes them, and whichever worker dies of it."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from anndata.io import write_elem
from distributed import Client, LocalCluster
from refusals import Bench

from scdiffaug import block_files, distributed, scDiffAug


@pytest.fixture(scope="module")
def cells(bench: Bench) -> Path:
    """The cells of the bench in a file, 8 blocks of them."""
    path = bench.folder / "cells.h5ad"
    bench.raw(X=bench.adata.X, obs=bench.adata.obs, var=bench.adata.var).write_h5ad(path)
    return path


def _model(bench: Bench) -> Path:
    return bench.folder / "model"


def _same(one: Path, other: Path) -> None:
    a, b = anndata.read_h5ad(one), anndata.read_h5ad(other)
    pd.testing.assert_frame_equal(a.obs, b.obs)
    pd.testing.assert_frame_equal(a.var, b.var)
    assert (a.X is None) == (b.X is None)
    if a.X is not None:
        np.testing.assert_array_equal(a.X.toarray(), b.X.toarray())
    assert a.obsm.keys() == b.obsm.keys()
    for key in a.obsm:
        np.testing.assert_array_equal(a.obsm[key], b.obsm[key])


def _die_at_the_second_block(marker: str) -> None:
    """Run on a worker: its process is killed in the middle of the work."""
    read = block_files.read_block

    def read_and_die(*args: Any, **options: Any) -> AnnData:
        if os.path.exists(marker):
            os.kill(os.getpid(), signal.SIGKILL)
        Path(marker).touch()
        return read(*args, **options)

    block_files.read_block = read_and_die


def test_a_killed_worker_changes_nothing(bench: Bench, cells: Path, tmp_path: Path) -> None:
    call = {"n_per_cell": 2, "seed": 3, "steps": 2, "block_size": 8}
    distributed.augment(_model(bench), cells, tmp_path / "alone.h5ad", **call)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        before = client.run(os.getpid)
        victim = min(before)
        client.run(_die_at_the_second_block, str(tmp_path / "armed"), workers=[victim])
        distributed.augment(_model(bench), cells, tmp_path / "new.h5ad", client=client, **call)
        client.wait_for_workers(2, timeout=60)
        assert before[victim] not in client.run(os.getpid).values()
    _same(tmp_path / "alone.h5ad", tmp_path / "new.h5ad")
    assert anndata.read_h5ad(tmp_path / "new.h5ad").n_obs == 120
    assert {path.name for path in tmp_path.iterdir()} == {"alone.h5ad", "new.h5ad", "armed"}


# What anndata will write by default is of no matter here.
@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
@pytest.mark.parametrize("kind", ["csr.h5ad", "dense.h5ad", "csr.zarr"])
def test_blocks_are_embedded_as_the_whole(bench: Bench, tmp_path: Path, kind: str) -> None:
    adata = bench.raw(obs=bench.adata.obs, var=bench.adata.var)
    if kind.startswith("csr"):
        adata.X = bench.adata.X
    path = tmp_path / kind
    (adata.write_zarr if kind.endswith("zarr") else adata.write_h5ad)(path)
    distributed.embed(_model(bench), path, tmp_path / "out.h5ad", block_size=25)
    out = anndata.read_h5ad(tmp_path / "out.h5ad")
    np.testing.assert_allclose(
        out.obsm["X_scdiffaug"], bench.model.get_latent_representation(adata), atol=1e-5
    )
    assert out.obsm["X_scdiffaug_2d"].shape == (60, 2)
    pd.testing.assert_frame_equal(out.obs, block_files.read_names(path)[0])


def test_new_cells_are_those_of_their_sources(bench: Bench, cells: Path, tmp_path: Path) -> None:
    for seed in (1, 2):
        distributed.augment(
            _model(bench), cells, tmp_path / f"{seed}.h5ad", seed=seed, steps=2, block_size=25
        )
    one, other = (anndata.read_h5ad(tmp_path / f"{seed}.h5ad") for seed in (1, 2))
    assert list(one.obs["source_obs_name"]) == list(bench.adata.obs_names)
    assert list(one.obs_names) == [f"{name}-aug0" for name in bench.adata.obs_names]
    assert list(one.obs["cell_type"]) == list(bench.adata.obs["cell_type"])
    np.testing.assert_array_equal(one.X.sum(1), bench.adata.X.sum(1))
    assert not one.layers
    assert (one.X != other.X).nnz
    said = one.uns["scdiffaug"]
    assert (said["seed"], said["block_size"], said["steps"]) == (1, 25, 2)


def test_new_cells_say_of_scale_and_colours_what_those_of_a_path_do(
    bench: Bench, tmp_path: Path
) -> None:
    logs = bench.adata.copy()
    sc.pp.normalize_total(logs, target_sum=1e4)
    sc.pp.log1p(logs)
    logs.uns["cell_type_colors"] = ["#112233"] * logs.obs["cell_type"].nunique()
    logs.write_h5ad(tmp_path / "logs.h5ad")
    model = scDiffAug(logs)
    model.train(max_epochs=1, enable_progress_bar=False)
    model.save(tmp_path / "model")
    path = tmp_path / "of_path.h5ad"
    wanted = model.augment(steps=2, path=path)
    distributed.augment(tmp_path / "model", tmp_path / "logs.h5ad", tmp_path / "new.h5ad", steps=2)
    found = anndata.read_h5ad(tmp_path / "new.h5ad")
    assert set(found.uns) == set(wanted.uns) == {"scdiffaug", "log1p", "cell_type_colors"}
    assert found.uns["log1p"] == wanted.uns["log1p"]
    assert list(found.uns["cell_type_colors"]) == list(wanted.uns["cell_type_colors"])
    assert list(found.layers) == list(wanted.layers) == []
    np.testing.assert_allclose(np.expm1(found.X.toarray()).sum(1), 1e4, rtol=1e-3)


def test_random_numbers_of_blocks_differ(bench: Bench, tmp_path: Path) -> None:
    """The same cells in two blocks: one stream for both would make the same cells twice."""
    twice = anndata.concat([bench.adata] * 2, merge="same", index_unique="-")
    twice.write_h5ad(tmp_path / "cells.h5ad")
    distributed.augment(
        _model(bench), tmp_path / "cells.h5ad", tmp_path / "new.h5ad", steps=2, block_size=60
    )
    new = anndata.read_h5ad(tmp_path / "new.h5ad").X
    assert (new[:60] != new[60:]).nnz


def _interrupted_at_read(number: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """First rows of the blocks that are read from now on; Ctrl-C is pressed at one of them."""
    read, seen = block_files.read_block, []

    def watched(path: Path, rows: slice, **options: Any) -> AnnData:
        seen.append(rows.start)
        if len(seen) == number:
            raise KeyboardInterrupt
        return read(path, rows, **options)

    monkeypatch.setattr(block_files, "read_block", watched)
    return seen


def test_what_was_interrupted_goes_on(
    bench: Bench, cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = {"steps": 2, "block_size": 10}
    distributed.augment(_model(bench), cells, tmp_path / "whole.h5ad", **call)
    seen = _interrupted_at_read(4, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        distributed.augment(_model(bench), cells, tmp_path / "new.h5ad", **call)
    assert not (tmp_path / "new.h5ad").exists()
    distributed.augment(_model(bench), cells, tmp_path / "new.h5ad", **call)
    # Each call tells the scale of all blocks from the first.
    assert seen == [0, 0, 10, 20, 0, 20, 30, 40, 50]
    _same(tmp_path / "whole.h5ad", tmp_path / "new.h5ad")
    assert {path.name for path in tmp_path.iterdir()} == {"whole.h5ad", "new.h5ad"}


def test_blocks_of_another_version_are_not_gone_on_with(
    bench: Bench, cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = _interrupted_at_read(3, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        distributed.embed(_model(bench), cells, tmp_path / "x.h5ad", block_size=30)
    monkeypatch.setattr(distributed, "version", lambda _: "0.0.1")
    distributed.embed(_model(bench), cells, tmp_path / "x.h5ad", block_size=30)
    # Each call first tells the scale from the first block.
    assert seen == [0, 0, 30, 0, 0, 30]


def test_without_dask_it_says_what_to_install(
    bench: Bench, cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r"needs Dask, .* pip install 'scdiffaug\[dask\]'"):
        distributed.embed(_model(bench), cells, tmp_path / "x.h5ad", client="tcp://localhost:1")


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"depth": "sampled"}, ValueError, "depth='sampled' would look beyond"),
        ({"cells": "absent.h5ad"}, FileNotFoundError, "absent.h5ad does not exist"),
        ({"dir_path": "absent"}, FileNotFoundError, "absent holds no saved"),
        ({"out": "new.zarr"}, ValueError, r"new\.zarr' must end in \.h5ad"),
        ({"out": "there.h5ad"}, FileExistsError, r"there\.h5ad exists already"),
        ({"block_size": 0}, ValueError, "block_size=0 must be at least 1"),
        ({"seed": -1}, ValueError, "seed=-1 must be"),
        ({"strength": 2.0}, ValueError, r"strength=2\.0 must be"),
        ({"client": 3}, TypeError, "client must be of type Client, found int"),
    ],
)
def test_bad_arguments_are_refused(
    bench: Bench,
    cells: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changed: dict[str, Any],
    error: type[Exception],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.h5ad").touch()
    call = {"dir_path": _model(bench), "cells": cells, "out": "new.h5ad", **changed}
    with pytest.raises(error, match=words):
        distributed.augment(**call)


def test_bad_files_are_refused(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "bad.h5ad"
    bench.raw(X=bench.adata.X.tocsc(), var=bench.adata.var).write_h5ad(path)
    with pytest.raises(ValueError, match="by columns"):
        distributed.embed(_model(bench), path, tmp_path / "new.h5ad")
    with h5py.File(path, "a") as store:
        write_elem(store, "obs", pd.DataFrame(index=["a"] * 60))
    with pytest.raises(ValueError, match=r"1 duplicate names, e\.g\. 'a'"):
        distributed.embed(_model(bench), path, tmp_path / "new.h5ad")
    assert list(tmp_path.iterdir()) == [path]
