"""A disk that is full while something is written: an error, and the old one is whole."""

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch
from refusals import Bench
from typer.testing import CliRunner

from scdiffaug import scDiffAug
from scdiffaug.checkpoint import Checkpoints, Progress
from scdiffaug.cli import app


@contextmanager
def _room_for(n_bytes: int) -> Iterator[None]:
    """No file may grow beyond so many bytes, as on a disk that has no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("n_bytes", [0, 10_000, 1_000_000])
def test_the_old_model_stays(bench: Bench, tmp_path: Path, n_bytes: int) -> None:
    bench.model.save(tmp_path / "model")
    with _room_for(n_bytes), pytest.raises(OSError, match="File too large"):
        bench.model.save(tmp_path / "model", overwrite=True, save_anndata=True)
    loaded = scDiffAug.load(tmp_path / "model", bench.adata.copy())
    wanted = bench.model.get_latent_representation()
    np.testing.assert_array_equal(loaded.get_latent_representation(), wanted)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_old_checkpoint_stays(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, {})
    old, new = (
        Progress(records=[{"loss": at}], generators={}, tensors={"w": torch.full((9_000,), at)})
        for at in (1.0, 2.0)
    )
    kept.write(old)
    with _room_for(10_000), pytest.raises(OSError, match="File too large"):
        kept.write(new)
    left = kept.read(old.tensors)
    assert left is not None
    assert left.records == old.records
    assert torch.equal(left.tensors["w"], old.tensors["w"])
    assert len(list(tmp_path.iterdir())) == 1


def test_the_old_file_stays(bench: Bench, tmp_path: Path) -> None:
    bench.model.save(tmp_path / "model")
    bench.adata.write_h5ad(tmp_path / "cells.h5ad")
    bench.adata.write_h5ad(tmp_path / "out.h5ad")
    command = ["embed", *(str(tmp_path / name) for name in ("cells.h5ad", "out.h5ad"))]
    command += ["--model", str(tmp_path / "model"), "--overwrite", "--quiet"]
    # In a process of its own: HDF5 complains of a file that it could not close until the end, and
    # may crash there.
    script = f"""
import resource
from scdiffaug.cli import app
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
app({command!r})
"""
    full = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert full.returncode != 0
    assert "Error: " in full.stderr
    assert "File too large" in full.stderr
    assert "X_scdiffaug" not in anndata.read_h5ad(tmp_path / "out.h5ad").obsm
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["cells.h5ad", "model", "out.h5ad"]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert "X_scdiffaug" in anndata.read_h5ad(tmp_path / "out.h5ad").obsm
