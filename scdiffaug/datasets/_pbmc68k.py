"""A dataset to start with, which scanpy ships."""

from typing import TYPE_CHECKING

from scipy import sparse

if TYPE_CHECKING:
    from anndata import AnnData


def pbmc68k_reduced() -> "AnnData":
    """700 blood cells as counts: scanpy's ``pbmc68k_reduced``, its normalisation undone.

    Scanpy ships log-normalised values. Each cell's smallest non-zero value is a single read, from
    which the reads of all its genes follow.

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

    from scdiffaug.normalized import recover_counts

    source = sc.datasets.pbmc68k_reduced()
    obs = source.obs.assign(cell_type=source.obs["bulk_labels"])
    var = source.raw.var.copy()
    return AnnData(recover_counts(sparse.csr_matrix(source.raw.X), "log1p"), obs=obs, var=var)
