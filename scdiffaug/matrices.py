"""Matrices of cells: in memory, or stored elsewhere and read by blocks of rows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils import gen_batches

Matrix: TypeAlias = NDArray[np.float32] | sparse.csr_matrix
Rows: TypeAlias = NDArray[np.int64]

# A matrix of no more rows than this is its own subsample, so that it is read whole.
SUBSAMPLED = 20_000
_ROWS_AT_ONCE = 4096
# Training reads runs of so many rows, and mixes so many rows at once.
_RUN, _MIXED = 256, 16_384
# Reading up to so many rows too many costs less than reading twice.
_GAP = 64


def to_dense(x: Matrix) -> NDArray[np.float32]:
    """A dense or CSR matrix as a dense one in row order, which decides how sums are rounded."""
    return np.ascontiguousarray(x.toarray() if isinstance(x, sparse.csr_matrix) else x)


def beside(x: Matrix, columns: NDArray[np.float32]) -> Matrix:
    """A matrix with further columns at its end."""
    if sparse.issparse(x):
        return sparse.hstack([x, sparse.csr_matrix(columns)], format="csr")
    return np.hstack([x, columns])


def stored_values(x: Matrix) -> NDArray[np.float32]:
    """All values of a dense matrix, the stored ones of a CSR matrix."""
    return x.data if isinstance(x, sparse.csr_matrix) else x


def depths(x: Matrix | StoredMatrix) -> NDArray[np.float32]:
    """Sum of each row, shape ``(n,)``: for counts, the reads of each cell."""
    if isinstance(x, StoredMatrix):
        assert x.sums is not None
        return x.sums
    return np.asarray(x.sum(1), dtype=np.float32).ravel()


def as_float32(source: Any, place: str) -> Matrix:
    """Any matrix in memory as float32, CSR in canonical format where it is sparse.

    Raises
    ------
    TypeError
        If values are not real numbers.
    ValueError
        If values are NaN or infinite; the message begins with the place.
    """
    if source.dtype.kind not in "biuf":
        raise TypeError(
            f"{place} has values of type {source.dtype}: convert them to real numbers, e.g. with "
            ".astype('float32')."
        )
    # Numbers too large for float32 become infinite, which the error below says.
    with np.errstate(over="ignore"):
        if sparse.issparse(source):
            x = sparse.csr_matrix(source, dtype=np.float32)
        else:
            x = np.ascontiguousarray(source, dtype=np.float32)
    # Sums run over stored values: their order, and repeats, must not decide the rounding.
    if sparse.issparse(x) and not x.has_canonical_format:
        x = x.copy()
        x.sum_duplicates()
    finite = np.isfinite(stored_values(x))
    if not finite.all():
        raise ValueError(
            f"{place} has {int((~finite).sum())} NaN or infinite values as float32: remove those "
            "cells or features, or fill the values, before setup."
        )
    return x


class Bounds(NamedTuple):
    """Lowest and highest value, zero included, and whether all are whole numbers."""

    lowest: float
    highest: float
    is_whole: bool

    @classmethod
    def of(cls, x: Matrix) -> Self:
        """Bounds of a matrix in memory."""
        values = stored_values(x)
        is_whole = bool((values == np.rint(values)).all())
        return cls(float(values.min(initial=0)), float(values.max(initial=0)), is_whole)

    def widened(self, other: Bounds) -> Bounds:
        """Bounds of two matrices together."""
        return Bounds(
            min(self.lowest, other.lowest),
            max(self.highest, other.highest),
            self.is_whole and other.is_whole,
        )


_OF_NOTHING = Bounds(0.0, 0.0, True)


@dataclass(frozen=True, eq=False, kw_only=True)
class StoredMatrix:
    """A matrix that is on disk, or computed by dask, and read by blocks of rows.

    Parameters
    ----------
    source
        What gives rows when it is sliced: a sparse dataset of anndata, or an array of h5py, zarr
        or dask.
    rows, columns
        Positions in the source; all columns if None.
    place
        Name of the matrix in messages.
    bounds, sums
        What :meth:`surveyed` found: bounds of the values, sum of each row.
    applied
        Function that is applied to the rows that are read.
    """

    source: Any
    rows: Rows
    columns: Rows | None
    place: str
    bounds: Bounds = _OF_NOTHING
    sums: NDArray[np.float32] | None = None
    applied: Callable[[Matrix], Matrix] | None = None

    def surveyed(self) -> Self:
        """The same matrix, all rows read once and checked; errors as in :func:`as_float32`."""
        bounds, sums = _OF_NOTHING, np.zeros(len(self.rows), np.float32)
        for block in row_blocks(self):
            x = self[block]
            bounds = bounds.widened(Bounds.of(x))
            sums[block] = depths(x)
        return replace(self, bounds=bounds, sums=sums)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.rows), self.source.shape[1] if self.columns is None else len(self.columns)

    @property
    def run(self) -> int:
        """Rows that are best read together, as a chunk is read or computed whole."""
        chunks = getattr(self.source, "chunks", None)
        return max(_RUN, int(np.max(chunks[0]))) if chunks else _RUN

    def __getitem__(self, rows: slice | NDArray[np.integer[Any]]) -> Matrix:
        wanted, place = np.unique(self.rows[rows], return_inverse=True)
        x = stacked([self._read(part) for part in _runs(wanted)])
        if not np.array_equal(place, np.arange(len(wanted))):
            x = x[place]
        return x if self.applied is None else self.applied(x)

    def take(self, rows: Rows) -> Self:
        """Some of the rows, which are not read yet."""
        sums = None if self.sums is None else self.sums[rows]
        return replace(self, rows=self.rows[rows], sums=sums)

    def map(self, function: Callable[[Matrix], Matrix]) -> Self:
        """The same matrix, with one more function applied to the rows that are read."""
        if (first := self.applied) is None:
            return replace(self, applied=function)
        return replace(self, applied=lambda rows: function(first(rows)))

    def _read(self, wanted: Rows) -> Matrix:
        """Sorted rows of the source, by one read from the first to the last of them."""
        found = self.source[int(wanted[0]) : int(wanted[-1]) + 1]
        found = found.compute() if hasattr(found, "compute") else found
        if len(wanted) < found.shape[0]:
            found = found[wanted - wanted[0]]
        if self.columns is not None:
            found = found[:, self.columns]
        return as_float32(found, f"{self.place} (cells {wanted[0]} to {wanted[-1]})")


def _runs(wanted: Rows) -> list[Rows]:
    """Sorted positions, split where reading what lies between would not pay or be too much."""
    apart = (np.diff(wanted) > _GAP) | (np.diff(wanted // _MIXED) > 0)
    return np.split(wanted, np.flatnonzero(apart) + 1)


def is_stored(source: object) -> bool:
    """Whether a matrix is of a kind that is not in memory."""
    return not (isinstance(source, np.ndarray) or sparse.issparse(source))


def opened(source: Any, rows: Rows, columns: Rows | None, *, place: str) -> Matrix | StoredMatrix:
    """Rows of a stored matrix: up to 20,000 are read, more are surveyed.

    Raises
    ------
    TypeError
        If values are not real numbers.
    ValueError
        If values are NaN or infinite, or too many cells are stored by columns (CSC).
    """
    if len(rows) > SUBSAMPLED and getattr(source, "format", None) == "csc":
        raise ValueError(
            f"{place} is stored by columns (CSC), of which no rows can be read alone: write it as "
            "CSR, e.g. with anndata.experimental.write_elem, or read it into memory first."
        )
    found = StoredMatrix(source=source, rows=rows, columns=columns, place=place)
    return found.surveyed() if len(rows) > SUBSAMPLED else found[:]


def stacked(parts: Sequence[Matrix]) -> Matrix:
    """Matrices below one another, sparse if they are."""
    if len(parts) == 1:
        return parts[0]
    return sparse.vstack(parts, "csr") if sparse.issparse(parts[0]) else np.concatenate(parts)


def digest(x: Matrix | StoredMatrix | Rows) -> str:
    """sha256 of all values in their order."""
    blocks = (x[rows] for rows in row_blocks(x)) if isinstance(x, StoredMatrix) else (x,)
    found = hashlib.sha256()
    block: Any
    for block in blocks:
        is_sparse = sparse.issparse(block)
        for part in (block.indptr, block.indices, block.data) if is_sparse else (block,):
            found.update(np.ascontiguousarray(part).data)
    return found.hexdigest()


def row_blocks(x: Matrix | StoredMatrix) -> list[slice]:
    """Slices of some thousand rows that together cover all."""
    return list(gen_batches(x.shape[0], _ROWS_AT_ONCE))


def subsample(x: Matrix | StoredMatrix) -> tuple[Rows, Matrix]:
    """Rows that stand for all (20,000 of a stored matrix, else all): positions, and values."""
    if not isinstance(x, StoredMatrix):
        return np.arange(x.shape[0]), x
    rows = drawn_rows(x.shape[0], SUBSAMPLED)
    return rows, x[rows]


def taken(x: Matrix | StoredMatrix, rows: Rows) -> Matrix | StoredMatrix:
    """Some rows, far apart; if they are many rows of a stored dense matrix, they are not read.

    Few rows come into memory, as do sparse ones: with what lies between these, training would
    read all rows of the matrix again in each epoch.
    """
    if not isinstance(x, StoredMatrix):
        return x[rows]
    return x[rows] if len(rows) <= SUBSAMPLED or sparse.issparse(x[:1]) else x.take(rows)


def drawn_rows(n_rows: int, n_drawn: int, *, seed: int = 0) -> Rows:
    """Positions of ``n_drawn`` rows drawn at random, ascending; of all if there are no more."""
    n_drawn = min(n_rows, n_drawn)
    return np.sort(np.random.default_rng(seed).choice(n_rows, n_drawn, replace=False))


def shuffled(x: Matrix | StoredMatrix, rng: np.random.Generator) -> Rows:
    """All rows in random order; those of a stored matrix stay together in runs of 256 or more."""
    if not isinstance(x, StoredMatrix):
        return rng.permutation(x.shape[0])
    n_rows, run = x.shape[0], x.run
    starts = rng.permutation(np.arange(0, n_rows, run))
    return np.concatenate([np.arange(start, min(start + run, n_rows)) for start in starts])


def batches(
    x: Matrix | StoredMatrix, order: Rows, bounds: Sequence[int], *, rng: np.random.Generator
) -> Iterator[tuple[Rows, Matrix]]:
    """Positions in the order of :func:`shuffled`, by batches, with the rows that are there.

    Of a stored matrix the rows of some batches, 64 runs of 256, are read at once and mixed again.

    Parameters
    ----------
    x
        Shape ``(n, d)``.
    order
        Positions of rows.
    bounds
        Where in the order batches begin, and where the last one ends.
    rng
        Mixes what is read at once.
    """
    ends = list(pairwise(bounds))
    if not isinstance(x, StoredMatrix):
        yield from ((order[start:stop], x[order[start:stop]]) for start, stop in ends)
        return
    n_at_once = max(1, max(_MIXED, x.run) // (bounds[1] - bounds[0]))
    for place in range(0, len(ends), n_at_once):
        here = ends[place : place + n_at_once]
        first, last = here[0][0], here[-1][1]
        mixed = rng.permutation(order[first:last])
        rows = x[mixed]
        for start, stop in here:
            part = slice(start - first, stop - first)
            yield mixed[part], rows[part]


def mixed_reads(cells: Matrix, others: Matrix, *, rng: np.random.Generator) -> sparse.csr_matrix:
    """Cells in which up to half of the reads are replaced by reads of another cell.

    Parameters
    ----------
    cells, others
        Counts of reads, shape ``(n, d)``; row i of the others gives to cell i.
    rng
        Draws how much each gives, and which reads.
    """
    kept = np.asarray(rng.uniform(0.5, 1, cells.shape[0]))
    share_given = (1 - kept) * depths(cells) / np.maximum(depths(others), 1)
    given = np.minimum(share_given, 1)
    return _thinned(cells, kept, rng) + _thinned(others, given, rng)


def _thinned(x: Matrix, share: NDArray[np.floating[Any]], rng: np.random.Generator) -> Any:
    reads = sparse.csr_matrix(x)
    left = rng.binomial(reads.data.astype(np.int64), np.repeat(share, np.diff(reads.indptr)))
    parts = (left.astype(np.float32), reads.indices, reads.indptr)
    return sparse.csr_matrix(parts, shape=x.shape)
