"""Counts out of normalised values, which many an AnnData holds in their place, and back.

A cell's counts were multiplied by a number of its own, and a logarithm was taken of that and one.
Its smallest value is then one read, or a few, and the others are multiples of it.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from scdiffaug.matrices import Matrix, depths, row_blocks, stacked

Scale = Literal["log1p", "log2", "log10"]

_LOG_OF_BASE: dict[Scale, float] = {"log1p": 1.0, "log2": math.log(2), "log10": math.log(10)}
# Reads that the smallest value of a cell may stand for.
_MOST_OF_THE_SMALLEST = 5
# Mean distance of a cell's multiples from whole numbers; at random it is a quarter. Files of
# values with three decimals have some hundredths.
_TOLERANCE = 0.05
# Of fewer values beside the smallest of each cell all may be whole by chance.
_FEWEST_VALUES = 100
_LOOKED_AT_FIRST = 100


def find_scale(x: Matrix) -> Scale | None:
    """How logarithms hold normalised counts; None where they do not in every cell.

    Parameters
    ----------
    x
        Values from 0 to 30, shape ``(n, d)``.
    """
    blocks = row_blocks(x)
    first = _nonzero(x[blocks[0]])
    n_beside = first.nnz - np.count_nonzero(np.diff(first.indptr))
    if n_beside < _FEWEST_VALUES:
        return None
    # What is not so is mostly seen at once.
    blocks.insert(0, slice(0, _LOOKED_AT_FIRST))
    fit = (
        scale for scale in _LOG_OF_BASE if all(_counts(x[rows], scale)[1].all() for rows in blocks)
    )
    return next(fit, None)


def recover_counts(x: Matrix, scale: Scale) -> Matrix:
    """Counts that were normalised, of the kind and shape ``(n, d)`` of ``x``.

    Raises
    ------
    ValueError
        If some cells do not hold such.
    """
    parts, whole = zip(*(_counts(x[rows], scale) for rows in row_blocks(x)), strict=True)
    is_whole = np.concatenate(whole)
    if not is_whole.all():
        raise ValueError(
            f"{np.count_nonzero(~is_whole)} cells hold no normalised counts on the scale "
            f"{scale!r}, the first of them cell {is_whole.argmin()}"
        )
    return stacked(parts)


def totals(x: Matrix, scale: Scale) -> NDArray[np.float32]:
    """What each cell's counts were normalised to, shape ``(n,)``."""
    values = _nonzero(x)
    values.data = _linear(values.data, scale)
    return depths(values)


def normalize(counts: Matrix, total: NDArray[np.float32], scale: Scale) -> Matrix:
    """Counts normalised to a total of each cell, on a scale; the reverse of recovering them."""
    values = _nonzero(counts)
    factor = total / np.maximum(depths(values), 1)
    linear = values.data * np.repeat(factor, np.diff(values.indptr))
    values.data = (np.log1p(linear) / _LOG_OF_BASE[scale]).astype(np.float32)
    return _as(counts, values)


def _nonzero(x: Matrix) -> sparse.csr_matrix:
    """A copy without zeros that are stored."""
    values = sparse.csr_matrix(x, copy=True)
    values.eliminate_zeros()
    return values


def _as(x: Matrix, values: sparse.csr_matrix) -> Matrix:
    """The values, dense where ``x`` is."""
    return values if sparse.issparse(x) else values.toarray()


def _linear(values: NDArray[np.float32], scale: Scale) -> NDArray[np.float64]:
    return np.expm1(values.astype(np.float64) * _LOG_OF_BASE[scale])


def _counts(x: Matrix, scale: Scale) -> tuple[Matrix, NDArray[np.bool_]]:
    """Values as multiples of a read of their cell, and in which cells these are whole."""
    values = _nonzero(x)
    n_values = np.diff(values.indptr)
    # A reduction has no empty parts.
    cells = np.flatnonzero(n_values)
    starts, lengths = values.indptr[cells], n_values[cells]
    reads = _linear(values.data, scale)
    reads /= np.repeat(np.minimum.reduceat(reads, starts), lengths)
    smallest = np.zeros(len(cells))
    for multiple in range(_MOST_OF_THE_SMALLEST, 0, -1):
        off = np.abs(reads * multiple - np.rint(reads * multiple))
        smallest[np.add.reduceat(off, starts) < _TOLERANCE * lengths] = multiple
    is_whole = n_values == 0
    is_whole[cells] = smallest > 0
    values.data = np.rint(reads * np.repeat(smallest, lengths)).astype(np.float32)
    return _as(x, values), is_whole
