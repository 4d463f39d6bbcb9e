"""On what scale new cells are held in X and in the layer that a model reads: as real ones are."""

from __future__ import annotations

import logging
from dataclasses import replace

from anndata import AnnData
from scipy import sparse

from scdiffaug import data
from scdiffaug.contract import DataContract
from scdiffaug.matrices import Matrix, Rows, StoredMatrix
from scdiffaug.normalized import Held, Normalization

logger = logging.getLogger("scdiffaug")

# Cells by which it is told what X holds.
_LOOKED_AT = 1000


def learnt_as(
    contract: DataContract, cells: AnnData, x: Matrix | StoredMatrix, *, rows: Rows
) -> Held:
    """How what the model reads holds the counts of some cells, in X too.

    Parameters
    ----------
    contract
        Of the model.
    cells, x
        Real cells and their values, as :meth:`DataContract.read` gives them.
    rows
        Ascending positions of the cells that are asked about.
    """
    scale = contract.space.scale
    if scale is None:
        return Held(None, None)
    values = data.read_matrix(cells, contract.setup["layer"])
    usual = Normalization.fit(values[:_LOOKED_AT], x[:_LOOKED_AT], scale)
    found = Normalization.fit(values[rows], x[rows], scale)
    found = replace(found, is_normalised=usual.is_normalised)
    return Held(found, found)


def held_as(
    contract: DataContract, cells: AnnData, x: Matrix | StoredMatrix, *, rows: Rows
) -> Held:
    """The same, but X as that of the cells is, which beside a layer may be on another scale.

    Where X holds something else than the values of the layer, a warning says so.
    """
    layer, learnt = contract.setup["layer"], learnt_as(contract, cells, x, rows=rows)
    if layer is None or not data.has_x(cells):
        return learnt
    parts, known = _parts_of_x(cells, rows), (x[:_LOOKED_AT], x[rows])
    if parts is not None:
        if all(map(_are_equal, parts, known)):
            return Held(None, learnt.layer)
        usual, found = map(Normalization.beside, parts, known)
        if contract.space.is_counts and usual is not None and found is not None:
            return Held(replace(found, is_normalised=usual.is_normalised), learnt.layer)
    logger.warning(
        "adata.X holds other values than layer %r, so that X of new cells holds what that layer "
        "does: before real and new cells are put together, give both the same.",
        layer,
    )
    return learnt


def _parts_of_x(cells: AnnData, rows: Rows) -> tuple[Matrix, Matrix] | None:
    """X of the first cells and of those that are asked about, if it can be read."""
    try:
        x = data.read_matrix(cells, None)
    except (TypeError, ValueError):
        # Nothing was learnt from X: it may be anything.
        return None
    return x[:_LOOKED_AT], x[rows]


def _are_equal(one: Matrix, other: Matrix) -> bool:
    return not (sparse.csr_matrix(one) != sparse.csr_matrix(other)).nnz
