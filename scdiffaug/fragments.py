"""Fragments of open chromatin from counts of their ends, as Cell Ranger has them, and back.

A fragment has two ends, so real counts of ends are mostly even, and drawing ends one by one would
open too many peaks. A generator therefore learns from fragments (Martens et al. 2023).
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from scdiffaug.diffusion import draw_closed
from scdiffaug.matrices import Matrix


def fragments_of(ends: Matrix) -> Matrix:
    """Fragments with so many ends, shape ``(n, d)``: half as many, rounded up."""
    if isinstance(ends, sparse.csr_matrix):
        return sparse.csr_matrix((fragments_of(ends.data), ends.indices, ends.indptr), ends.shape)
    return np.ceil(ends / np.float32(2))


def n_fragments(n_ends: Tensor, *, fragments: Tensor, ends: Tensor) -> Tensor:
    """Fragments that have so many ends, shape ``(n,)``, if a source cell has these of both."""
    by_source = n_ends * (fragments / ends).nan_to_num_(nan=1.0)
    return by_source.round().maximum((n_ends / 2).ceil())


def ends_of(fragments: Tensor, n_ends: Tensor, rng: torch.Generator) -> Tensor:
    """Ends of fragments, shape ``(n, d)``: two each, but for one less in some open peaks.

    These peaks are drawn at random, as many as leave ``n_ends``, shape ``(n,)``, if there are.
    """
    n_single = 2 * fragments.sum(1) - n_ends
    place = draw_closed(torch.ones_like(fragments), n_single, rng, kept=fragments == 0)
    return (2 * fragments).put_(place, fragments.new_ones(len(place)).neg_(), accumulate=True)
