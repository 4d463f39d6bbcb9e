"""Logarithms of TPM made of counts, which hold no counts: what the generator makes of them.

``python benchmarks/tpm.py NAME [NAME…]`` writes ``NAME_tpm.h5ad`` into the working directory, for
``scdiffaug benchmark augmentation --data NAME_tpm.h5ad`` (``results/augmentation_tpm``).
"""

from __future__ import annotations

import sys

import anndata as ad
import numpy as np
import scanpy as sc
from common import load
from scipy import sparse

# Spread of the logarithms of the genes' lengths, about a factor of two.
_SPREAD = 0.7


def as_tpm(adata: ad.AnnData, *, seed: int = 0) -> ad.AnnData:
    """Counts over lengths of genes drawn at random, 10,000 per cell, log1p."""
    lengths = np.random.default_rng(seed).lognormal(sigma=_SPREAD, size=adata.n_vars)
    made = ad.AnnData(sparse.csr_matrix(adata.X.multiply(1 / lengths)), obs=adata.obs)
    made.var_names = adata.var_names
    sc.pp.normalize_total(made, target_sum=1e4)
    sc.pp.log1p(made)
    made.X = made.X.astype(np.float32)
    return made


if __name__ == "__main__":
    for name in sys.argv[1:]:
        as_tpm(load(name)).write_h5ad(f"{name}_tpm.h5ad")
