"""The part of the model that maps cells of batches that it did not learn from."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Self

import numpy as np
import torch
from anndata import AnnData
from numpy.typing import NDArray

from scdiffaug.embedding import fit_query
from scdiffaug.matrices import SUBSAMPLED, drawn_rows
from scdiffaug.registering import RegisteringModel

logger = logging.getLogger("scdiffaug")

_OFFSETS = "inputs.offsets.offsets"


class QueryingModel(RegisteringModel):
    """A registered model onto which cells of new batches can be mapped."""

    @classmethod
    def load_query_data(cls, adata: AnnData, reference_model: str | Path | Self) -> Self:
        """Map cells of batches that a trained model did not learn from onto it, without training.

        What sets each new batch apart from the training cells is found from its own cells (as in
        Symphony, Kang et al. 2021), and taken off before they are embedded. All else stays: cells
        of the model's own batches are embedded as before, and new cells are made of these batches
        alone. Pass all cells of a new batch at once. A batch of one or two types, such as sorted
        cells, may lose a part of what sets these types apart.

        Parameters
        ----------
        adata
            Cells to map, with the model's column of batches and its features in any order. Some
            features may be missing, as in :meth:`get_latent_representation`. The cells are
            attached to the new model; if features are missing or, on disk, in another order, pass
            them to each method instead.
        reference_model
            Model that was trained with ``setup_anndata(batch_key=...)``, or its folder. It stays
            as it is.

        Returns
        -------
        A model that knows the new batches too, and needs no training.

        Raises
        ------
        FileNotFoundError
            If the folder holds no model.
        KeyError
            If the model's layer or column of batches is missing.
        RuntimeError
            If the model is not trained.
        TypeError
            If an argument is of the wrong type.
        ValueError
            If the model knows no batches, or its files are damaged; if cells have no batch, or
            most have one of their own, or more than nine tenths of the features are missing.

        Examples
        --------
        >>> import scdiffaug
        >>> adata = scdiffaug.datasets.pbmc68k_reduced()
        >>> adata.obs["donor"] = ["a", "b", "c", "d"] * 175
        >>> is_query = adata.obs["donor"] == "d"
        >>> reference, query = adata[~is_query].copy(), adata[is_query].copy()
        >>> scdiffaug.scDiffAug.setup_anndata(reference, batch_key="donor")
        >>> model = scdiffaug.scDiffAug(reference)
        >>> model.train(max_epochs=2, enable_progress_bar=False)
        >>> mapped = scdiffaug.scDiffAug.load_query_data(query, model)
        >>> mapped.get_latent_representation().shape
        (175, 80)
        """
        reference = cls._reference(reference_model)
        reader, measured = reference._contract_for(adata)
        cells, x = reader.read(adata)
        reader.warn_of_depth(x)
        # A view of cells on disk cannot be registered.
        is_attached = measured is None and not (cells.is_view and cells.isbacked)
        model = reference._with_batches_of(cells, attached=adata if is_attached else None)
        batches = model._contract.batches(cells)
        is_mapped = batches >= len(model._contract.category_names)
        reference._say_what_is_mapped(cells, batches)
        for code in np.unique(batches[is_mapped]):
            rows = np.flatnonzero(batches == code)
            rows = rows[drawn_rows(len(rows), SUBSAMPLED)]
            fit_query(model.module, reader, x[rows], code=int(code), measured=measured)
        return model

    @classmethod
    def _reference(cls, model: str | Path | Self) -> Self:
        """The model, loaded if need be, which has to be trained and to know batches."""
        if isinstance(model, str | Path):
            model = cls.load(model, adata=False)
        if not isinstance(model, cls):
            raise TypeError(
                f"reference_model must be a {cls.__name__} or the folder of one, found "
                f"{type(model).__name__}."
            )
        model._check_if_trained(warn=False)
        if model._contract.told_by != "batch_key":
            raise ValueError(
                "reference_model is not corrected for batches, so new ones cannot be mapped onto "
                "it: train it after setup_anndata(adata, batch_key=...), with the default "
                "condition='semantic'."
            )
        return model

    def _with_batches_of(self, cells: AnnData, *, attached: AnnData | None) -> Self:
        """The model, with room for the batches of cells, of which nothing is taken off yet."""
        contract = self._contract.with_batches_of(cells)
        n_new = len(contract.query_batches) - len(self._contract.query_batches)
        weights = self.module.state_dict()
        offsets = weights[_OFFSETS]
        room = offsets.new_zeros(n_new, *offsets.shape[1:])
        weights[_OFFSETS] = torch.cat([offsets, room])
        model = self._restored(
            contract, self._module_config, weights, cells=attached, device=self.module.device
        )
        model.is_trained_, model.history_ = True, dict(self.history_ or {})
        return model

    def _say_what_is_mapped(self, cells: AnnData, batches: NDArray[np.int64]) -> None:
        """``batches``: codes of the cells' batches in the model that knows all of them."""
        n_trained, key = len(self._contract.category_names), self._contract.told_column
        names, is_mapped = cells.obs[key], batches >= n_trained
        if not is_mapped.any():
            logger.warning(
                "The model learnt from all batches of these cells, e.g. %r: none is mapped. If "
                "they are others of the same name, rename them in adata.obs[%r].",
                names.iloc[0],
                key,
            )
            return
        known = is_mapped & (batches < n_trained + len(self._contract.query_batches))
        if known.any():
            logger.warning(
                "%r was mapped before: what sets it apart is found anew, from the %d cells here "
                "alone. Pass all cells of a batch at once.",
                names[known].iloc[0],
                (names == names[known].iloc[0]).sum(),
            )
        logger.info(
            "Mapping %d cells of new batches, e.g. %r; %d are of batches that training saw.",
            is_mapped.sum(),
            names[is_mapped].iloc[0],
            (~is_mapped).sum(),
        )
