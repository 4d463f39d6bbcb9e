"""The part of the model that maps cells into its embedding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self, get_args

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from scdiffaug import querying
from scdiffaug._checks import check_choice, check_whole
from scdiffaug.embedding import contract_for, encode, fit_query
from scdiffaug.matrices import SUBSAMPLED, drawn_rows
from scdiffaug.saved_model import SavedModel

Representation = Literal["semantic", "projection"]


class EmbeddingModel(SavedModel):
    """A saved model with the methods that use its encoder."""

    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        *,
        representation: Representation = "semantic",
        batch_size: int | None = None,
    ) -> NDArray[np.float32]:
        """Embed cells, training cells and others by the same rule.

        A cell is moved two thirds of the way to its nearest training cells (:doc:`/how_it_works`).

        Parameters
        ----------
        adata
            Cells with the model's features in any order; by default those it was set up with.
            If they lack some of those that the encoder sees, but have a tenth of them or more,
            the embedding is estimated from these. Cells of a batch known neither from training
            nor from :meth:`load_query_data` are not corrected. A warning counts either.
        indices
            Which of these cells; all by default.
        representation
            ``"semantic"``: y, shape ``(n, 80)``. ``"projection"``: z, shape ``(n, 2)``.
        batch_size
            Cells per forward pass, 4,096 by default; half as many if memory runs out.

        Raises
        ------
        KeyError
            If the layer of the model is missing.
        RuntimeError
            If the model is not trained.
        TypeError
            If an argument is of the wrong type.
        ValueError
            If an argument is out of range or unknown, or more than nine tenths of the features
            that the encoder sees are missing.
        IndexError
            If there is no cell at an index.

        Examples
        --------
        >>> import scdiffaug
        >>> model = scdiffaug.scDiffAug(scdiffaug.datasets.pbmc68k_reduced())
        >>> model.train(max_epochs=2, enable_progress_bar=False)
        >>> model.get_latent_representation(representation="projection").shape
        (700, 2)
        """
        check_choice("representation", representation, get_args(Representation))
        y, z = self._embed(adata, indices, batch_size=batch_size)
        return y if representation == "semantic" else z

    def _embed(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        *,
        batch_size: int | None = None,
        warns: bool = True,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Both embeddings, y and z, in the time that one takes."""
        if batch_size is not None:
            check_whole("batch_size", batch_size)
        self._check_if_trained(warn=False)
        cells = self._given(adata)
        contract, measured = contract_for(cells, self._contract, warns=warns)
        cells, x = contract.read(cells, indices)
        contract.warn_of_depth(x)
        batches = contract.batches(cells)
        if warns:
            contract.warn_of_batches(cells)
        return encode(
            self.module, contract, x, batches=batches, measured=measured, batch_size=batch_size
        )

    @classmethod
    def load_query_data(cls, adata: AnnData, reference_model: str | Path | Self) -> Self:
        """Map cells of batches that a trained model did not learn from onto it, without training.

        The offsets of each query batch from the training cells are estimated from its own cells
        (as in Symphony, Kang et al. 2021), and subtracted before they are embedded. All else
        stays: cells of the model's own batches are embedded as before, and new cells are made of
        these batches alone. Pass all cells of a query batch at once. A batch of one or two types,
        such as sorted cells, may lose a part of what distinguishes these types.

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
        reference = querying.reference(cls, reference_model)
        reader, measured = contract_for(adata, reference._contract)
        cells, x = reader.read(adata)
        reader.warn_of_depth(x)
        # A view of cells on disk cannot be registered.
        is_attached = measured is None and not (cells.is_view and cells.isbacked)
        model = querying.with_batches_of(reference, cells, attached=adata if is_attached else None)
        batches = model._contract.batches(cells)
        querying.say_what_is_mapped(reference._contract, cells, batches)
        is_mapped = batches >= len(model._contract.category_names)
        for code in np.unique(batches[is_mapped]):
            rows = np.flatnonzero(batches == code)
            rows = rows[drawn_rows(len(rows), SUBSAMPLED)]
            fit_query(model.module, reader, x[rows], code=int(code), measured=measured)
        return model
