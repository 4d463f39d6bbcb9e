"""Real cells that new ones are made from, and what a trained module makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from anndata import AnnData
from numpy.typing import NDArray

from scdiffaug.contract import DataContract
from scdiffaug.embedding import encode, encode_references, find_references
from scdiffaug.groups import NO_GROUP, Names, members
from scdiffaug.matrices import Matrix, Rows, StoredMatrix
from scdiffaug.module import DiffAugModule
from scdiffaug.neighborhood import Within


@dataclass(frozen=True, kw_only=True)
class RealCells:
    """Real cells, and the model that makes new ones of them.

    What a trained module makes of the cells is computed once, when it is needed.

    Parameters
    ----------
    module, contract
        Those of the model.
    cells, x
        The cells and their values, as :meth:`DataContract.read` gives them.
    groups
        Group of each cell, shape ``(n,)``, if a column is named.
    """

    module: DiffAugModule
    contract: DataContract
    cells: AnnData
    x: Matrix | StoredMatrix
    groups: Names | None

    @cached_property
    def y(self) -> NDArray[np.float32]:
        """Semantic embeddings, shape ``(n, 80)``."""
        return encode(self.module, self.contract, self.x, batches=self._batches)[0]

    def within(self, rows: Rows) -> Within | None:
        """Groups that the neighbours of these cells share with them; None if there are none."""
        return None if self._within is None else self._within.block(rows)

    @cached_property
    def _within(self) -> Within | None:
        if self.groups is None:
            return None
        references = self.reference_groups
        codes = np.unique(np.concatenate([references, self.groups]), return_inverse=True)[1]
        of_references, of_cells = np.split(codes, [len(references)])
        return Within(torch.from_numpy(of_references), torch.from_numpy(of_cells))

    @cached_property
    def reference_groups(self) -> Names:
        """Group of each training cell that the module keeps, shape ``(r,)``.

        Those that are not among these cells, or have no group there, are assigned to one, or to
        ``NO_GROUP`` if they are far from all.
        """
        assert self.groups is not None
        found = find_references(self.module, self.contract, self.x, batches=self._batches)
        is_known = (found >= 0) & (self.groups != NO_GROUP)
        n_references = len(self.module.inputs.neighborhood.references)
        names = np.full(n_references, NO_GROUP, np.result_type(self.groups, np.str_(NO_GROUP)))
        is_open = np.ones(n_references, bool)
        names[found[is_known]], is_open[found[is_known]] = self.groups[is_known], False
        if is_open.any():
            y = encode_references(self.module)[is_open]
            names[is_open] = members(y, self.y, self.groups)
        return names

    @property
    def _batches(self) -> NDArray[np.int64]:
        return self.contract.batches(self.cells)
