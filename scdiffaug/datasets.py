"""Datasets to start with, and the registry of those worth having."""

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from scipy import sparse

if TYPE_CHECKING:
    from anndata import AnnData

_COUNT_TOLERANCE = 1e-2


def registry() -> dict[str, dict[str, Any]]:
    """Read what is known of each dataset in ``data_registry.yaml``.

    Returns
    -------
    Dataset name to its entry; the keys of an entry are described at the top of the file. What is
    not known is ``None``.

    Examples
    --------
    >>> import scdiffaug
    >>> scdiffaug.datasets.registry()["pbmc3k"]["n_cells"]
    2638
    """
    packaged = resources.files("scdiffaug") / "data_registry.yaml"
    # An editable install has no copy inside the package: the file stands beside it.
    found = packaged if packaged.is_file() else Path(__file__).parents[1] / "data_registry.yaml"
    entries: dict[str, dict[str, Any]] = yaml.safe_load(found.read_text(encoding="utf-8"))
    return entries


def pbmc68k_reduced() -> "AnnData":
    """700 blood cells as counts: scanpy's ``pbmc68k_reduced``, its normalisation undone.

    Scanpy ships log-normalised values. Each cell's smallest non-zero one is a single read, which
    gives back the reads of all its genes.

    Returns
    -------
    700 cells by 765 genes: ``.X`` CSR float32 counts, ``.obs["cell_type"]`` the 10 sorted
    populations of Zheng et al. 2017.

    Raises
    ------
    ValueError
        If scanpy's values do not give back whole reads.

    Examples
    --------
    >>> import scdiffaug
    >>> adata = scdiffaug.datasets.pbmc68k_reduced()
    >>> adata.shape
    (700, 765)
    """
    import scanpy as sc
    from anndata import AnnData

    source = sc.datasets.pbmc68k_reduced()
    obs = source.obs.assign(cell_type=source.obs["bulk_labels"])
    var = source.raw.var.copy()
    return AnnData(X=_undo_log_normalisation(sparse.csr_matrix(source.raw.X)), obs=obs, var=var)


def _undo_log_normalisation(x_ng: sparse.csr_matrix) -> sparse.csr_matrix:
    reads = np.expm1(x_ng.data.astype(np.float64))
    one_read_n = np.minimum.reduceat(reads, x_ng.indptr[:-1])
    reads /= np.repeat(one_read_n, np.diff(x_ng.indptr))
    counts = np.rint(reads)
    error = np.abs(reads / counts - 1).max()
    if error > _COUNT_TOLERANCE:
        raise ValueError(f"expected log-normalised counts; the reads are off by {error:.1%}")
    return sparse.csr_matrix(
        (counts.astype(np.float32), x_ng.indices, x_ng.indptr), shape=x_ng.shape
    )
