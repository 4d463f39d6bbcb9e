"""AnnData files by blocks of rows: read from one, and appended to another as they are made."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.io import read_elem, sparse_dataset, write_elem
from numpy.typing import NDArray
from scipy import sparse

from scdiffaug._checks import check_path


def read_names(path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The whole tables of the cells and of the features."""
    with _opened(path) as store:
        for table in ("obs", "var"):
            if not hasattr(store[table], "keys"):
                raise ValueError(
                    f"{path} was written before anndata 0.7: write it again, with "
                    "anndata.read_h5ad(path).write_h5ad(path)."
                )
        return read_elem(store["obs"]), read_elem(store["var"])


def read_cells(path: Path, *, backed: bool = False) -> AnnData:
    """Cells of an .h5ad file or a .zarr folder; if ``backed``, their matrices stay on disk.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it cannot be read.
    """
    is_zarr = path.suffix == ".zarr" and path.is_dir()
    if not is_zarr and not path.is_file():
        raise FileNotFoundError(f"{path} is not a file: name an .h5ad file or a .zarr folder.")
    if path.suffix == ".h5mu":
        raise ValueError(
            f"{path} holds several modalities (MuData): save the one that you want as a file of "
            "its own, e.g. with mdata['rna'].write_h5ad('rna.h5ad')."
        )
    try:
        if is_zarr:
            return anndata.experimental.read_lazy(path) if backed else anndata.read_zarr(path)
        return anndata.read_h5ad(path, backed="r" if backed else None)
    except Exception as error:
        # What anndata raises on other files is of many types and of many lines.
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{path} cannot be read as {'.zarr' if is_zarr else '.h5ad'} ({first}): read it with "
            "scanpy and write it with adata.write_h5ad."
        ) from error


def read_field(path: Path, field: str) -> Any:
    """One field of a file, as in ``uns/scdiffaug``."""
    with _opened(path) as store:
        return read_elem(store[field])


def read_colours(path: Path) -> dict[str, Any]:
    """Colours of groups, which scanpy keeps in ``uns``."""
    with _opened(path) as store:
        names = [name for name in store.get("uns", ()) if name.endswith("_colors")]
        return {name: read_elem(store["uns"][name]) for name in names}


def read_layers(path: Path) -> tuple[list[str], dict[str, Any]]:
    """Names of the layers and, of new cells, how they were made."""
    with _opened(path) as store:
        made = read_elem(store["uns/scdiffaug"]) if "uns/scdiffaug" in store else {}
        return list(store["layers"]) if "layers" in store else [], made


def read_block(path: Path, rows: slice, *, layer: str | None, columns: Sequence[str]) -> AnnData:
    """Some rows of X or of a layer, with their names and these columns of obs.

    Raises
    ------
    KeyError
        If a layer or column is missing.
    ValueError
        If the matrix is stored by columns.
    """
    with _opened(path) as store:
        x = _rows(_found(store, "X" if layer is None else f"layers/{layer}", path), rows, path)
        table = store["obs"]
        obs = pd.DataFrame(
            {name: read_elem(_found(table, name, path))[rows] for name in columns},
            index=_texts(table[table.attrs["_index"]], rows),
        )
        kept = {"X": x} if layer is None else {"layers": {layer: x}}
        return AnnData(obs=obs, var=read_elem(store["var"]), **kept)


def check_new(argument: str, path: str | Path) -> None:
    """Raise if an .h5ad file could not be written.

    Raises
    ------
    FileExistsError
        If something is there already.
    TypeError
        If it is not a path; the message names the argument.
    ValueError
        If it does not end in .h5ad.
    """
    check_path(argument, path)
    place = Path(path)
    if place.suffix != ".h5ad":
        raise ValueError(f"{argument}={str(path)!r} must end in .h5ad.")
    if place.exists():
        raise FileExistsError(f"{place} exists already: remove it, or name another file.")


def check_writable_tables(adata: AnnData) -> None:
    """Raise TypeError, naming the column, if one is of a type that no file can hold.

    New cells have names of their own, but the features of the real ones.
    """
    for title, table in (("obs", adata.obs), ("var", adata.var)):
        for name in table:
            column = _one_of_each_type(table[[name]].dropna())
            plain = column.set_axis([str(row) for row in range(len(column))])
            _check_writable(plain, f"{title}[{name!r}]", table[name].dtype)
    _check_writable(adata.var[[]].iloc[:1], "var_names", adata.var_names.dtype)


def _check_writable(table: pd.DataFrame, title: str, kind: object) -> None:
    # Strings are written as categories, even if some are missing.
    cells = AnnData(obs=table)
    cells.strings_to_categoricals()
    # In memory; HDF5 would take two of its own files in memory, of one name, for one.
    with h5py.File(io.BytesIO(), "w") as store:
        try:
            write_elem(store, "obs", cells.obs)
        except Exception as error:
            # The errors that anndata raises are of several types.
            raise TypeError(
                f"{title} is of type {kind}, which no file holds: convert it, e.g. with "
                ".astype(str), or remove it."
            ) from error


def _one_of_each_type(column: pd.DataFrame) -> pd.DataFrame:
    """The first cell; of a column of objects, one cell for each type of value."""
    values = column.iloc[:, 0]
    if isinstance(values.dtype, pd.StringDtype):
        return column.iloc[:1].astype(object)
    if values.dtype != object:
        return column.iloc[:1]
    return column.loc[values.map(type).drop_duplicates().index]


@contextmanager
def waiting_beside(out: Path, digest: str, n_blocks: int) -> Iterator[list[Path]]:
    """Yield the places of blocks that are to be joined in ``out``, in a folder beside it.

    The folder is named by the digest of all that decides the blocks: where a call was
    interrupted, what it had finished is there when it is repeated. It is removed at the end.
    """
    folder = out.with_name(f".{out.name}.{digest[:16]}")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield [folder / f"{number}.h5ad" for number in range(n_blocks)]
        # A worker that Dask gave up on may still write there.
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        # Fails, as it should, if blocks are left for the next call.
        with suppress(OSError):
            folder.rmdir()


def write_blocks(
    path: Path,
    places: Sequence[Path],
    *,
    obs: pd.DataFrame,
    var: pd.DataFrame,
    uns: dict[str, Any],
) -> None:
    """Write files of blocks below one another in one, with one block in memory at a time.

    Parameters
    ----------
    path
        The file.
    places
        Files of cells with the same features, layers and embeddings; their other fields are left
        out.
    obs, var, uns
        Those of all cells.
    """
    with h5py.File(path, "w") as store:
        cells = AnnData(obs=obs, var=var, uns=uns)
        # As AnnData.write_h5ad does: strings cannot be written if some are missing.
        cells.strings_to_categoricals()
        write_elem(store, "/", cells)
        # A null raw, which AnnData takes for a real one when it reads a file backed.
        if "raw" in store:
            del store["raw"]
        for place in places:
            _append(store, anndata.read_h5ad(place))
        for matrix in (store.get("X"), *store["layers"].values()):
            _narrow(matrix)


def _narrow(stored: Any) -> None:
    """Make row pointers of a sparse matrix as wide as its indices, if they fit, for scanpy."""
    if not isinstance(stored, h5py.Group):
        return
    indptr, width = stored["indptr"][:], stored["indices"].dtype
    if indptr[-1] <= np.iinfo(width).max:
        del stored["indptr"]
        stored["indptr"] = indptr.astype(width)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if path.suffix == ".zarr":
        import zarr

        yield zarr.open_group(path, mode="r")
        return
    with h5py.File(path, "r") as store:
        yield store


def _found(store: Any, key: str, path: Path) -> Any:
    if key not in store:
        raise KeyError(f"{path} has no {key!r}: name the file that the model's setup fits.")
    return store[key]


def _rows(stored: Any, rows: slice, path: Path) -> sparse.csr_matrix | NDArray[Any]:
    # A dense matrix is an array, whose attributes older files lack.
    if not hasattr(stored, "keys"):
        return np.asarray(stored[rows])
    matrix = sparse_dataset(stored)
    if matrix.format != "csr":
        raise ValueError(
            f"{path} holds its matrix by columns (CSC), of which no rows can be read: write it "
            "again with adata.X = adata.X.tocsr()."
        )
    return matrix[rows]


def _texts(stored: Any, rows: slice) -> NDArray[np.object_]:
    if isinstance(stored, h5py.Dataset):
        stored = stored.asstr()
    elif hasattr(stored, "keys"):
        # pandas' own strings are stored as a group of values and a mask.
        stored = read_elem(stored)
    return np.asarray(stored[rows]).astype(object)


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
