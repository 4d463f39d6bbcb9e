"""Scale of new cells in X, and in the layer that a model reads: that of the real ones."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from anndata import AnnData
from scipy import sparse

from scdiffaug import data
from scdiffaug.contract import DataContract
from scdiffaug.matrices import Matrix, Rows, StoredMatrix, row_blocks
from scdiffaug.normalized import Held, LogScale, Normalization

logger = logging.getLogger("scdiffaug")


@dataclass(frozen=True, eq=False)
class Scales:
    """How real cells hold what the model learnt from; X and the layer are opened once.

    Parameters
    ----------
    contract
        That of the model.
    cells, x
        Real cells and their values, as :meth:`DataContract.read` gives them.
    """

    contract: DataContract
    cells: AnnData
    x: Matrix | StoredMatrix

    def learnt_as(self, rows: Rows) -> Held:
        """How what the model reads holds the counts of some cells (ascending), for X too."""
        if self.scale is None:
            return Held(None, None)
        values, x, parts = self._learnt, self.x, _blocks(rows)
        found = [Normalization.fit(values[part], x[part], self.scale) for part in parts]
        joined = _joined(self._usual, found)
        return Held(joined, joined)

    def held_as(self, rows: Rows) -> Held:
        """The same, but with X as in these cells, which may be on another scale than a layer.

        If X holds something else than the values of the layer, a warning says so.
        """
        as_read, layer = self.learnt_as(rows), self.contract.layer_of(self.cells)
        if layer is None or not data.has_x(self.cells):
            return as_read
        values, x = self._in_x, self.x
        parts: list[slice | Rows] = [row_blocks(x)[0], *_blocks(rows)]
        if values is not None:
            if all(_are_equal(values[part], x[part]) for part in parts):
                return Held(None, as_read.learnt)
            if self.contract.space.is_counts and (found := _beside(values, x, parts)) is not None:
                return Held(found, as_read.learnt)
        logger.warning(
            "adata.X holds other values than layer %r, so that X of new cells holds what that "
            "layer does: before real and new cells are put together, give both the same.",
            layer,
        )
        return as_read

    @cached_property
    def scale(self) -> LogScale | None:
        """On which scale the cells hold counts; None for counts themselves, and other values."""
        as_stored = isinstance(self.x, StoredMatrix) and self.x.applied is None
        if as_stored or not self.contract.space.is_counts:
            return None
        return self.contract.space.on_scale_of(self._learnt).scale

    @cached_property
    def _learnt(self) -> Matrix | StoredMatrix:
        return data.read_matrix(self.cells, self.contract.layer_of(self.cells))

    @cached_property
    def _usual(self) -> Normalization:
        """Normalisation of the first cells, whichever cells are asked about."""
        first = row_blocks(self.x)[0]
        assert self.scale is not None
        return Normalization.fit(self._learnt[first], self.x[first], self.scale)

    @cached_property
    def _in_x(self) -> Matrix | StoredMatrix | None:
        try:
            return data.read_matrix(self.cells, None)
        except (TypeError, ValueError):
            # Nothing was learnt from X: it may be anything.
            return None


def _blocks(rows: Rows) -> list[Rows]:
    """The rows in blocks of some thousand."""
    return [rows[block] for block in row_blocks(rows)] if len(rows) else []


def _beside(
    values: Matrix | StoredMatrix, x: Matrix | StoredMatrix, parts: Sequence[slice | Rows]
) -> Normalization | None:
    found: list[Normalization] = []
    for part in parts:
        one = Normalization.beside(values[part], x[part])
        if one is None or (found and one.scale != found[0].scale):
            return None
        found.append(one)
    return _joined(found[0], found[1:])


def _joined(usual: Normalization, parts: Sequence[Normalization]) -> Normalization:
    """Normalisation of all parts; the usual cells tell whether counts were normalised."""
    totals = np.concatenate([usual.totals[:0], *(part.totals for part in parts)])
    return replace(usual, totals=totals)


def _are_equal(one: Matrix, other: Matrix) -> bool:
    return not (sparse.csr_matrix(one) != sparse.csr_matrix(other)).nnz
