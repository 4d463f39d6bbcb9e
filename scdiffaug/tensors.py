"""Matrices as tensors, and tensors as matrices."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse

from scdiffaug.matrices import Matrix, to_dense


def to_tensor(x: Matrix, device: torch.device) -> torch.Tensor:
    """A matrix as a dense float32 tensor on a device; zeros of CSR are not transferred."""
    return to_sparse_tensor(x).to(device).to_dense()


def to_csr(x: torch.Tensor) -> sparse.csr_matrix:
    """A dense tensor on any device as a CSR matrix in memory; zeros are not transferred."""
    n, d = x.shape
    values = x.flatten()
    place = values.nonzero()[:, 0]
    indptr = torch.searchsorted(place, torch.arange(n + 1, device=x.device) * d)
    parts = (values[place], place % d, indptr)
    return sparse.csr_matrix(tuple(part.cpu().numpy() for part in parts), shape=(n, d))


def to_sparse_tensor(x: Matrix) -> torch.Tensor:
    """A CSR matrix as a sparse float32 tensor in coordinate form; a dense one as it is."""
    if not isinstance(x, sparse.csr_matrix):
        return torch.from_numpy(to_dense(x))
    row = np.repeat(np.arange(x.shape[0]), np.diff(x.indptr))
    places, values = torch.from_numpy(np.stack([row, x.indices])), torch.from_numpy(x.data)
    return torch.sparse_coo_tensor(
        places, values, x.shape, check_invariants=False, is_coalesced=True
    )
