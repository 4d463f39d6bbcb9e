"""On what scale new cells are held in X and in the layer that a model reads: as real ones are."""

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
from scdiffaug.normalized import Held, Normalization

logger = logging.getLogger("scdiffaug")


@dataclass(frozen=True, eq=False)
class Scales:
    """How real cells hold what the model learnt from; X and the layer are opened once.

    Parameters
    ----------
    contract
        Of the model.
    cells, x
        Real cells and their values, as :meth:`DataContract.read` gives them.
    """

    contract: DataContract
    cells: AnnData
    x: Matrix | StoredMatrix

    def learnt_as(self, rows: Rows) -> Held:
        """As what the model reads holds the counts of some cells, ascending, in X too."""
        scale = self.contract.space.scale
        if scale is None:
            return Held(None, None)
        values, x = self._learnt, self.x
        parts = _parts(x, rows)
        found = _joined([Normalization.fit(values[part], x[part], scale) for part in parts])
        return Held(found, found)

    def held_as(self, rows: Rows) -> Held:
        """The same, but X as that of the cells is, which beside a layer may be on another scale.

        Where X holds something else than the values of the layer, a warning says so.
        """
        learnt, layer = self.learnt_as(rows), self.contract.setup["layer"]
        if layer is None or not data.has_x(self.cells):
            return learnt
        values, x, parts = self._in_x, self.x, _parts(self.x, rows)
        if values is not None:
            if all(_are_equal(values[part], x[part]) for part in parts):
                return Held(None, learnt.layer)
            if self.contract.space.is_counts and (found := _beside(values, x, parts)) is not None:
                return Held(found, learnt.layer)
        logger.warning(
            "adata.X holds other values than layer %r, so that X of new cells holds what that "
            "layer does: before real and new cells are put together, give both the same.",
            layer,
        )
        return learnt

    @cached_property
    def _learnt(self) -> Matrix | StoredMatrix:
        return data.read_matrix(self.cells, self.contract.setup["layer"])

    @cached_property
    def _in_x(self) -> Matrix | StoredMatrix | None:
        try:
            return data.read_matrix(self.cells, None)
        except (TypeError, ValueError):
            # Nothing was learnt from X: it may be anything.
            return None


def _parts(x: Matrix | StoredMatrix, rows: Rows) -> list[slice | Rows]:
    """The first cells, whatever is asked about, then blocks of those that are."""
    blocks = row_blocks(rows) if len(rows) else []
    return [row_blocks(x)[0], *(rows[block] for block in blocks)]


def _beside(
    values: Matrix | StoredMatrix, x: Matrix | StoredMatrix, parts: Sequence[slice | Rows]
) -> Normalization | None:
    found: list[Normalization] = []
    for part in parts:
        one = Normalization.beside(values[part], x[part])
        if one is None or (found and one.scale != found[0].scale):
            return None
        found.append(one)
    return _joined(found)


def _joined(parts: Sequence[Normalization]) -> Normalization:
    """Of all cells but the first ones, by which it is told whether counts were normalised."""
    usual, *others = parts
    totals = np.concatenate([usual.totals[:0], *(part.totals for part in others)])
    return replace(usual, totals=totals)


def _are_equal(one: Matrix, other: Matrix) -> bool:
    return not (sparse.csr_matrix(one) != sparse.csr_matrix(other)).nnz
