"""A dataset to start with, which scanpy ships."""

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from anndata import AnnData

_COUNT_TOLERANCE = 1e-2


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
