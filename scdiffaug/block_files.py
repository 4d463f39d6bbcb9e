"""AnnData files by blocks of rows: appended to one another as they are made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import pandas as pd
from anndata import AnnData
from anndata.io import sparse_dataset, write_elem
from numpy.typing import NDArray
from scipy import sparse


def write_blocks(
    path: Path, blocks: Iterator[AnnData], *, obs: pd.DataFrame, uns: dict[str, Any]
) -> None:
    """Write an .h5ad file of blocks below one another, of which one is in memory at a time.

    Parameters
    ----------
    path
        The file.
    blocks
        Cells with the same features, layers and embeddings; their other fields are left out.
    obs, uns
        Of all cells.
    """
    with h5py.File(path, "w") as store:
        first = next(blocks)
        write_elem(store, "/", AnnData(obs=obs, var=first.var, uns=uns))
        _append(store, first)
        for block in blocks:
            _append(store, block)


def _append(store: h5py.File, block: AnnData) -> None:
    if block.X is not None:
        _extend(store, "X", block.X)
    for field in ("layers", "obsm"):
        for key, values in getattr(block, field).items():
            _extend(store[field], key, values)


def _extend(group: h5py.Group, key: str, values: sparse.csr_matrix | NDArray[Any]) -> None:
    if key not in group:
        # A million cells have more values than 32 bits can count.
        room = {"maxshape": (None, *values.shape[1:]), "chunks": True}
        room = {"indptr_dtype": "int64"} if sparse.issparse(values) else room
        write_elem(group, key, values, dataset_kwargs=room)
    elif sparse.issparse(values):
        sparse_dataset(group[key]).append(values)
    else:
        stored = group[key]
        n_before = len(stored)
        stored.resize(n_before + len(values), axis=0)
        stored[n_before:] = values
