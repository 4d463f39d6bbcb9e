"""On what scale new cells are held in X and in the layer that a model reads: as real ones are."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from anndata import AnnData
from scipy import sparse

from scdiffaug import data
from scdiffaug.contract import DataContract
from scdiffaug.matrices import Matrix, Rows, StoredMatrix, row_blocks
from scdiffaug.normalized import Held, Normalization

logger = logging.getLogger("scdiffaug")


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
    parts = _parts(x, rows)
    found = _joined([Normalization.fit(values[part], x[part], scale) for part in parts])
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
    values, parts = _x_of(cells), _parts(x, rows)
    if values is not None:
        if all(_are_equal(values[part], x[part]) for part in parts):
            return Held(None, learnt.layer)
        if contract.space.is_counts and (found := _beside(values, x, parts)) is not None:
            return Held(found, learnt.layer)
    logger.warning(
        "adata.X holds other values than layer %r, so that X of new cells holds what that layer "
        "does: before real and new cells are put together, give both the same.",
        layer,
    )
    return learnt


def _x_of(cells: AnnData) -> Matrix | StoredMatrix | None:
    try:
        return data.read_matrix(cells, None)
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
