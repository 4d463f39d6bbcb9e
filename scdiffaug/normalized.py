"""Counts out of normalised values, which many an AnnData holds in their place, and back.

A cell's counts were multiplied by a number of its own, and a logarithm was taken of that and one.
Its smallest value is then one read, or a few, and the others are multiples of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from scdiffaug.matrices import Matrix, StoredMatrix, depths, row_blocks, stacked

Scale = Literal["log1p", "log2", "log10"]

_LOG_OF_BASE: dict[Scale, float] = {"log1p": 1.0, "log2": math.log(2), "log10": math.log(10)}
# Log-normalised values stay below log1p of a cell's whole library; intensities do not.
LARGEST_LOG_VALUE = 30.0
# What scanpy says of them in .uns["log1p"].
SCANPY_BASES: dict[Scale, int | None] = {"log1p": None, "log2": 2, "log10": 10}
# Reads that a cell's smallest value may stand for, where the scale is to be found, and where it
# is known: new cells may be of few genes and many reads.
_MOST_READS, _MOST_READS_OF_NEW = 5, 100
# Values beside the smallest, in the mean of cells: of few, all may be even by chance.
_FEWEST_VALUES = 10
_LOOKED_AT_FIRST = 100
# A logarithm's distance from that of a multiple, in float32 mostly some 1e-7 of it.
_TOLERANCE = 1e-5
# Logarithms of counts that stand beside them are off by no more than a rounded decimal.
_MOST_OFF = 1e-3
# Files of text have rounded values, which say something where they are so many steps and more.
_DECIMALS, _FEWEST_STEPS = (1e-3, 1e-4, 1e-5), 500


@dataclass(frozen=True)
class Normalization:
    """How values hold counts of cells.

    Parameters
    ----------
    scale
        The logarithm that was taken.
    totals
        Sums of what it was taken of, shape ``(n,)``.
    is_normalised
        Whether the counts were brought to these totals, which are else their own sums.
    """

    scale: Scale
    totals: NDArray[np.float32]
    is_normalised: bool

    @classmethod
    def fit(cls, values: Matrix, counts: Matrix, scale: Scale) -> Normalization:
        """Of values that hold these counts on a scale, both of shape ``(n, d)``."""
        total = _totals(values, scale)
        return cls(scale, total, not np.allclose(total, depths(counts), rtol=1e-3))

    @classmethod
    def beside(cls, values: Matrix, counts: Matrix) -> Normalization | None:
        """Of values that hold these very counts on some scale; None where they do on none."""
        if not 0 <= values.min() <= values.max() <= LARGEST_LOG_VALUE:
            return None
        for scale in _LOG_OF_BASE:
            total = _totals(values, scale)
            off = _nonzero(values) - _nonzero(_normalized(counts, total, scale))
            if total.all() and abs(off).max() < _MOST_OFF:
                return cls.fit(values, counts, scale)
        return None

    def values(self, counts: Matrix) -> Matrix:
        """What holds counts so, shape ``(n, d)``; the reverse of recovering them."""
        total = self.totals if self.is_normalised else depths(counts)
        return _normalized(counts, total, self.scale)


class Held(NamedTuple):
    """How X, and what a model reads, hold counts; None where they hold them as such."""

    x: Normalization | None
    learnt: Normalization | None

    def of_other_cells(
        self, totals_of: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    ) -> Held:
        """The same of cells whose totals are a function of these."""
        return Held(*(part and replace(part, totals=totals_of(part.totals)) for part in self))


def find_scale(x: Matrix | StoredMatrix) -> Scale | None:
    """How logarithms hold normalised counts; None where they do not in every cell.

    Parameters
    ----------
    x
        Values from 0 to 30, shape ``(n, d)``.
    """
    blocks = row_blocks(x)
    n_values = np.diff(_nonzero(x[blocks[0]]).indptr)
    if np.maximum(n_values - 1, 0).mean() < _FEWEST_VALUES:
        return None
    # What is not so is mostly seen at once.
    blocks.insert(0, slice(0, _LOOKED_AT_FIRST))
    for scale in _LOG_OF_BASE:
        if all(_counts(x[rows], scale, _MOST_READS)[1].all() for rows in blocks):
            return scale
    return None


def recover_counts(x: Matrix, scale: Scale) -> Matrix:
    """Counts that were normalised, of the kind and shape ``(n, d)`` of ``x``.

    Raises
    ------
    ValueError
        If some cells do not hold such.
    """
    parts = []
    for rows in row_blocks(x):
        counts, is_whole = _counts(x[rows], scale, _MOST_READS_OF_NEW)
        if not is_whole.all():
            n_others = np.count_nonzero(~is_whole)
            raise ValueError(f"{n_others} cells hold no {scale} of normalised counts")
        parts.append(counts)
    return stacked(parts)


def hold_counts(x: Matrix) -> NDArray[np.bool_]:
    """Which cells hold log1p of normalised counts, shape ``(n,)``."""
    return _counts(x, "log1p", _MOST_READS)[1]


def _totals(x: Matrix, scale: Scale) -> NDArray[np.float32]:
    """What each cell's counts were normalised to, shape ``(n,)``."""
    values = _nonzero(x)
    values.data = _linear(values.data, scale)
    return depths(values)


def _normalized(counts: Matrix, total: NDArray[np.float32], scale: Scale) -> Matrix:
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


def _counts(x: Matrix, scale: Scale, most: int) -> tuple[Matrix, NDArray[np.bool_]]:
    """Values as multiples of a read of their cell, and in which cells all are whole.

    ``most``: reads that the smallest value of a cell may stand for.
    """
    values = _nonzero(x)
    logs, linear = values.data, _linear(values.data, scale)
    row = np.repeat(np.arange(x.shape[0]), np.diff(values.indptr))
    smallest = np.full(x.shape[0], np.inf)
    np.minimum.at(smallest, row, linear)
    tolerance = _TOLERANCE * logs + 2 * _step(logs)
    counts, open_at = np.zeros_like(logs), np.arange(len(logs))
    for n_reads in range(1, most + 1):
        if not len(open_at):
            break
        read = smallest[row[open_at]] / n_reads
        n = np.rint(linear[open_at] / read)
        off = np.abs(np.log1p(n * read) / _LOG_OF_BASE[scale] - logs[open_at])
        n_off = np.bincount(row[open_at], off > tolerance[open_at], minlength=x.shape[0])
        is_open = n_off[row[open_at]] > 0
        counts[open_at[~is_open]] = n[~is_open]
        open_at = open_at[is_open]
    is_whole = np.ones(x.shape[0], dtype=bool)
    is_whole[row[open_at]] = False
    values.data = counts
    return _as(x, values), is_whole


def _step(logs: NDArray[np.float32]) -> float:
    """Of the decimals that values were rounded to; 0 where they have as many as float32 has."""
    for step in _DECIMALS if len(logs) else ():
        decimals = logs / step
        is_rounded = np.abs(decimals - np.rint(decimals)) < np.maximum(3e-7 * decimals, 1e-3)
        if decimals.min() >= _FEWEST_STEPS and is_rounded.all():
            return step
    return 0.0
