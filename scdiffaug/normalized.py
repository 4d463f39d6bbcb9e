"""Recover counts from normalised values, which many an AnnData holds instead, and back.

Normalisation multiplied each cell's counts by a number of its own, and took log(1 + x). Without
the logarithm, a cell's smallest value is one read, or a few, and all are multiples of that read.
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

LogScale = Literal["log1p", "log2", "log10"]

_LOG_OF_BASE: dict[LogScale, float] = {"log1p": 1.0, "log2": math.log(2), "log10": math.log(10)}
# Log-normalised values stay below log1p of a cell's whole library; intensities do not.
LARGEST_LOG_VALUE = 30.0
# The base that scanpy records in .uns["log1p"].
SCANPY_BASES: dict[LogScale, int | None] = {"log1p": None, "log2": 2, "log10": 10}
# Most reads that a cell's smallest value may stand for: while the scale is being found, and once
# it is known, as cells that come later may have few genes and many reads.
_MOST_READS, _MOST_READS_OF_NEW = 5, 100
# Least mean number of values beside a cell's smallest: a few may be multiples by chance.
_FEWEST_VALUES = 10
_LOOKED_AT_FIRST = 100
# Relative distance allowed between a logarithm and a multiple's; in float32 mostly some 1e-7.
_TOLERANCE = 1e-5
# Values differ from the logarithms of counts beside them by no more than a rounded decimal.
_MOST_OFF = 1e-3
# Text files hold values rounded to such steps; these are of use if all are so many steps or more.
_DECIMALS, _FEWEST_STEPS = (1e-3, 1e-4, 1e-5), 500


@dataclass(frozen=True)
class Normalization:
    """How values hold the counts of cells.

    Parameters
    ----------
    scale
        The logarithm that was taken.
    totals
        Sum of each cell before the logarithm, shape ``(n,)``.
    is_normalised
        Whether the counts were scaled to these totals; otherwise these are their own sums.
    """

    scale: LogScale
    totals: NDArray[np.float32]
    is_normalised: bool

    @classmethod
    def fit(cls, values: Matrix, counts: Matrix, scale: LogScale) -> Normalization:
        """Normalisation of values that hold these counts on a scale, both ``(n, d)``."""
        total = _totals(values, scale)
        return cls(scale, total, not np.allclose(total, depths(counts), rtol=1e-3))

    @classmethod
    def beside(cls, values: Matrix, counts: Matrix) -> Normalization | None:
        """Normalisation of values that hold these very counts on some scale; None if on none."""
        if not 0 <= values.min() <= values.max() <= LARGEST_LOG_VALUE:
            return None
        for scale in _LOG_OF_BASE:
            total = _totals(values, scale)
            off = _nonzero(values) - _nonzero(_normalized(counts, total, scale))
            if total.all() and abs(off).max() < _MOST_OFF:
                return cls.fit(values, counts, scale)
        return None

    def values(self, counts: Matrix) -> Matrix:
        """Values that hold counts in this way, shape ``(n, d)``; the reverse of recovery."""
        total = self.totals if self.is_normalised else depths(counts)
        return _normalized(counts, total, self.scale)


class Held(NamedTuple):
    """How X, and what a model reads, hold counts; None where they hold the counts themselves."""

    x: Normalization | None
    learnt: Normalization | None

    def of_other_cells(
        self, totals_of: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    ) -> Held:
        """The same for other cells, whose totals are a function of these."""
        return Held(*(part and replace(part, totals=totals_of(part.totals)) for part in self))


def find_scale(x: Matrix | StoredMatrix) -> LogScale | None:
    """Scale on which values hold normalised counts; None if not every cell does.

    Parameters
    ----------
    x
        Values from 0 to 30, shape ``(n, d)``.
    """
    blocks = row_blocks(x)
    if not _has_enough_values(x[blocks[0]]):
        return None
    # Other values mostly show in the first cells.
    blocks.insert(0, slice(0, _LOOKED_AT_FIRST))
    for scale in _LOG_OF_BASE:
        if all(_counts(x[rows], scale, _MOST_READS)[1].all() for rows in blocks):
            return scale
    return None


def likely_scale(x: Matrix | StoredMatrix, usual: LogScale | None) -> LogScale | None:
    """Scale on which most of the first cells may hold counts; the usual one if it is none.

    Unlike :func:`find_scale` it takes for granted that they hold counts, and tries the usual scale
    first, as of cells with few values any may fit.
    """
    some = x[row_blocks(x)[0]]
    for scale in (usual, find_scale(some), *_LOG_OF_BASE):
        if scale is not None and _counts(some, scale, _MOST_READS)[1].mean() > 1 / 2:
            return scale
    return usual


def recover_counts(x: Matrix, scale: LogScale) -> Matrix:
    """Counts before normalisation, of the type and shape ``(n, d)`` of ``x``.

    Raises
    ------
    ValueError
        If some cells do not hold normalised counts.
    """
    parts = []
    for rows in row_blocks(x):
        counts, is_whole = _counts(x[rows], scale, _MOST_READS_OF_NEW)
        if not is_whole.all():
            n_others = np.count_nonzero(~is_whole)
            raise ValueError(f"{n_others} cells hold no {scale} of normalised counts")
        parts.append(counts)
    return stacked(parts)


def odd_cell(x: Matrix | StoredMatrix) -> tuple[LogScale, int] | None:
    """Scale on which most of the first cells hold counts, and the first cell that does not."""
    blocks = row_blocks(x)
    first = x[blocks[0]]
    for scale in _LOG_OF_BASE if _has_enough_values(first) else ():
        if _counts(first, scale, _MOST_READS)[1].mean() <= 1 / 2:
            continue
        for rows in blocks:
            is_whole = _counts(x[rows], scale, _MOST_READS)[1]
            if not is_whole.all():
                return scale, rows.start + int(is_whole.argmin())
    return None


def _has_enough_values(x: Matrix) -> bool:
    """Whether cells have values enough not to be multiples of one number by chance."""
    n_values = np.diff(_nonzero(x).indptr)
    return bool(np.maximum(n_values - 1, 0).mean() >= _FEWEST_VALUES)


def _totals(x: Matrix, scale: LogScale) -> NDArray[np.float32]:
    """Total to which each cell's counts were normalised, shape ``(n,)``."""
    values = _nonzero(x)
    values.data = _linear(values.data, scale)
    return depths(values)


def _normalized(counts: Matrix, total: NDArray[np.float32], scale: LogScale) -> Matrix:
    values = _nonzero(counts)
    factor = total / np.maximum(depths(values), 1)
    linear = values.data * np.repeat(factor, np.diff(values.indptr))
    values.data = (np.log1p(linear) / _LOG_OF_BASE[scale]).astype(np.float32)
    return _as(counts, values)


def _nonzero(x: Matrix) -> sparse.csr_matrix:
    """A sparse copy without stored zeros."""
    values = sparse.csr_matrix(x, copy=True)
    values.eliminate_zeros()
    return values


def _as(x: Matrix, values: sparse.csr_matrix) -> Matrix:
    """The values, dense if ``x`` is."""
    return values if sparse.issparse(x) else values.toarray()


def _linear(values: NDArray[np.float32], scale: LogScale) -> NDArray[np.float64]:
    return np.expm1(values.astype(np.float64) * _LOG_OF_BASE[scale])


def _counts(x: Matrix, scale: LogScale, most: int) -> tuple[Matrix, NDArray[np.bool_]]:
    """Values as multiples of one read of their cell, and in which cells all are whole numbers.

    ``most``: most reads that the smallest value of a cell may stand for.
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
    """Step to which values were rounded; 0 if they have all the decimals of float32."""
    for step in _DECIMALS if len(logs) else ():
        decimals = logs / step
        is_rounded = np.abs(decimals - np.rint(decimals)) < np.maximum(3e-7 * decimals, 1e-3)
        if decimals.min() >= _FEWEST_STEPS and is_rounded.all():
            return step
    return 0.0
