"""From published files to an AnnData, one function per layout.

Every loader takes the files in the order of the registry's ``reads``, and a function that chooses
rows of ``obs``: where a matrix is larger than memory, only the chosen rows are read.
"""

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from scdiffaug.datasets._archives import members
from scdiffaug.datasets._pbmc68k import pbmc68k_reduced

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

Rows = Callable[["pd.DataFrame"], NDArray[np.intp]]
Loader = Callable[[Sequence[Path], Rows], "AnnData"]

_ROWS_AT_ONCE = 2048


def _read_h5ad(paths: Sequence[Path], rows: Rows) -> "AnnData":
    """One AnnData as published."""
    with _open_h5ad(paths[0]) as opened:
        chosen = rows(opened.obs)
        whole = len(chosen) == opened.n_obs
        return opened.to_memory() if whole else opened[chosen].to_memory()


def _read_atlas(paths: Sequence[Path], rows: Rows) -> "AnnData":
    """An AnnData and a sheet of cells (HCL, MCA 1.1).

    The matrix is stored dense, 65 GB in the HCL: it is read in blocks and made sparse.
    """
    import pandas as pd
    from anndata import AnnData

    cells = pd.read_excel(paths[1], index_col="cellnames")
    with _open_h5ad(paths[0]) as opened:
        obs = _join_atlas(opened.obs, cells)
        chosen = rows(obs)
        x_ng = _sparse_rows(opened.X, chosen)
        return AnnData(X=x_ng, obs=obs.iloc[chosen], var=opened.var)


@contextmanager
def _open_h5ad(path: Path) -> Iterator["AnnData"]:
    import anndata

    with warnings.catch_warnings():
        # The user cannot change how old the format of a published file is.
        warnings.simplefilter("ignore", anndata.OldFormatWarning)
        opened = anndata.read_h5ad(path, backed="r")
        try:
            yield opened
        finally:
            opened.file.close()


def _join_atlas(obs: "pd.DataFrame", cells: "pd.DataFrame") -> "pd.DataFrame":
    names = _atlas_names(obs.index.str.replace(r"-\d+$", "", regex=True))
    cells = cells.set_axis(_atlas_names(cells.index))
    absent = ~names.isin(cells.index)
    if absent.any():
        raise ValueError(
            f"{absent.sum()} of {len(obs)} cells are not in the sheet of cells, such as "
            f"{obs.index[absent][0]!r}: fetch matrix and sheet of one release"
        )
    cells = cells.drop(columns=obs.columns, errors="ignore")
    return obs.join(_categorical(cells.loc[names]).set_axis(obs.index))


# Only the matrix, not the sheet, spells AdultJeJunum, AdultGallBladder and FetalFemaleGonald so.
def _atlas_names(names: "pd.Index") -> "pd.Index":
    return names.str.casefold().str.replace("gonald", "gonad")


def _sparse_rows(x_ng: Any, chosen: NDArray[np.intp]) -> sparse.csr_matrix:
    blocks = []
    for start in range(0, x_ng.shape[0], _ROWS_AT_ONCE):
        stop = start + _ROWS_AT_ONCE
        within = chosen[(chosen >= start) & (chosen < stop)] - start
        if len(within):
            blocks.append(sparse.csr_matrix(x_ng[start:stop][within], dtype=np.float32))
    return sparse.vstack(blocks, format="csr")


def _read_mca_2018(paths: Sequence[Path], rows: Rows) -> "AnnData":
    """An archive of one table per sample, and the table of the cells that have a type."""
    import pandas as pd

    cells = pd.read_csv(paths[1], index_col="Cell.name")
    cells = cells.set_axis(_mca_names(cells.index)).drop(columns="Unnamed: 0", errors="ignore")
    samples = {}
    for name, stream in members(paths[0], "dge.txt.gz"):
        table = _read_table(stream, " ")
        table.obs_names = _mca_names(table.obs_names)
        samples[name] = table[table.obs_names.isin(cells.index)].copy()
    adata = _concat(samples)
    adata.obs = _categorical(cells.loc[adata.obs_names])
    return _choose(adata, rows)


# The tables spell two samples differently from the list of cells.
def _mca_names(names: "pd.Index") -> "pd.Index":
    names = names.str.replace("Female(fetal)Gonad", "FetalFemaleGonad", regex=False)
    return names.str.replace("NeontalBrain", "NeonatalBrain", regex=False)


def _read_gse134520(paths: Sequence[Path], rows: Rows) -> "AnnData":
    """An archive of one table per sample, such as ``GSM3954946_processed_NAG1.txt.gz``."""
    samples = {}
    for name, stream in members(paths[0], ".txt.gz"):
        sample = name.removesuffix(".txt.gz").rsplit("_", 1)[-1]
        table = _read_table(stream, "\t")
        table.obs_names = f"{sample}_" + table.obs_names
        table.obs = table.obs.assign(sample=sample, stage=re.sub(r"\d+$", "", sample))
        samples[sample] = table
    adata = _concat(samples)
    adata.obs = _categorical(adata.obs)
    return _choose(adata, rows)


def _read_table(stream: IO[bytes], delimiter: str) -> "AnnData":
    """A gzipped table of genes by cells, as R writes it: the header may lack the first name."""
    import pandas as pd
    from anndata import AnnData

    blocks, genes = [], []
    options = {"sep": delimiter, "compression": "gzip", "chunksize": _ROWS_AT_ONCE}
    for block in pd.read_csv(stream, **options):
        # With one name too few, pandas has made the first column the index by itself.
        has_names = not isinstance(block.index, pd.RangeIndex)
        table = block if has_names else block.set_index(block.columns[0])
        genes.extend(table.index)
        blocks.append(sparse.csr_matrix(table.to_numpy(np.float32)))
        cells = table.columns
    x_ng = sparse.vstack(blocks).T.tocsr()
    return AnnData(X=x_ng, obs=pd.DataFrame(index=cells), var=pd.DataFrame(index=genes))


def _concat(samples: dict[str, "AnnData"]) -> "AnnData":
    import anndata

    # A sample's table leaves out the genes without a read in it.
    return anndata.concat(list(samples.values()), join="outer", fill_value=0)


def _read_h5_xy(paths: Sequence[Path], rows: Rows) -> "AnnData":
    """``X``, cells by genes without names, and ``Y``, the types (the scDCC collection)."""
    import h5py
    import pandas as pd
    from anndata import AnnData

    with h5py.File(paths[0]) as file:
        labels = file["Y"]
        types = labels.asstr()[:] if h5py.check_string_dtype(labels.dtype) else labels[:]
        obs = pd.DataFrame({"cell_type": pd.Categorical(types.astype(str))})
        obs.index = obs.index.astype(str)
        chosen = rows(obs)
        x_ng = _sparse_rows(file["X"], chosen)
    return AnnData(X=x_ng, obs=obs.iloc[chosen])


def _read_samusik(paths: Sequence[Path], rows: Rows) -> "AnnData":
    """R's ``SummarizedExperiment`` of HDCytoData: raw intensities, cells in rows."""
    import pandas as pd
    from anndata import AnnData

    from scdiffaug.datasets._rda import read_named

    keys = ["exprs", "sample_id", "population_id", "marker_name", "marker_class"]
    found = read_named(paths[0], keys)
    obs = pd.DataFrame({key: pd.Categorical(found[key]) for key in keys[1:3]})
    obs.index = obs.index.astype(str)
    typing = found["marker_class"] == "type"
    chosen = rows(obs)
    x_ng = found["exprs"][np.ix_(chosen, typing)].astype(np.float32)
    var = pd.DataFrame(index=found["marker_name"][typing])
    return AnnData(X=x_ng, obs=obs.iloc[chosen], var=var)


def _read_pbmc68k_reduced(_: Sequence[Path], rows: Rows) -> "AnnData":
    return _choose(pbmc68k_reduced(), rows)


def _choose(adata: "AnnData", rows: Rows) -> "AnnData":
    return adata[rows(adata.obs)].copy()


def _categorical(obs: "pd.DataFrame") -> "pd.DataFrame":
    text = obs.select_dtypes(include="object").columns
    return obs.assign(**{key: obs[key].astype("category") for key in text})


LOADERS: dict[str, Loader] = {
    "atlas": _read_atlas,
    "gse134520": _read_gse134520,
    "h5_xy": _read_h5_xy,
    "h5ad": _read_h5ad,
    "mca_2018": _read_mca_2018,
    "pbmc68k_reduced": _read_pbmc68k_reduced,
    "samusik": _read_samusik,
}
