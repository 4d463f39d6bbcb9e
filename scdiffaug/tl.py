"""Tools: embed and augment an AnnData in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from anndata import AnnData

from scdiffaug.diffusion import Sampler
from scdiffaug.model import scDiffAug


def embed(
    adata: AnnData, model: scDiffAug | None = None, *, key_added: str = "X_scdiffaug"
) -> None:
    """Write both embeddings of a model into an AnnData.

    Parameters
    ----------
    adata
        Cells to embed, with the model's features in any order.
    model
        A trained model; by default one is trained on ``adata`` with default settings.
    key_added
        Key of ``.obsm`` for the semantic embedding; the projection's ends in ``_2d``.

    Returns
    -------
    Nothing; writes ``.obsm["X_scdiffaug"]``, shape ``(n, 80)``, and
    ``.obsm["X_scdiffaug_2d"]``, shape ``(n, 2)``.

    Raises
    ------
    ValueError
        If features of the model are missing.

    Examples
    --------
    >>> import scdiffaug
    >>> adata = scdiffaug.datasets.pbmc68k_reduced()
    >>> model = scdiffaug.scDiffAug(adata)
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> scdiffaug.tl.embed(adata, model)
    >>> adata.obsm["X_scdiffaug_2d"].shape
    (700, 2)
    """
    model = _trained(adata) if model is None else model
    semantic = model.get_latent_representation(adata)
    projection = model.get_latent_representation(adata, representation="projection")
    adata.obsm[key_added], adata.obsm[f"{key_added}_2d"] = semantic, projection


def augment(
    adata: AnnData,
    model: scDiffAug | None = None,
    *,
    indices: Sequence[int] | None = None,
    n_per_cell: int = 1,
    strength: float = 1.0,
    sampler: Sampler | Literal["auto"] = "auto",
    steps: int | None = None,
    seed: int | None = None,
) -> AnnData:
    """Make new cells from those of an AnnData.

    Parameters
    ----------
    adata
        Source cells, with the model's features in any order.
    model
        A trained model; by default one is trained on ``adata`` with default settings.
    indices, n_per_cell, strength, sampler, steps, seed
        As in :meth:`scdiffaug.scDiffAug.augment`.

    Returns
    -------
    AnnData of the new cells; see :meth:`scdiffaug.scDiffAug.augment`.

    Raises
    ------
    ValueError
        If an argument is out of range or features of the model are missing.

    Examples
    --------
    >>> import scdiffaug
    >>> adata = scdiffaug.datasets.pbmc68k_reduced()
    >>> model = scdiffaug.scDiffAug(adata)
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> new = scdiffaug.tl.augment(adata, model, indices=[0, 1], n_per_cell=3)
    >>> new.obs["source_obs_name"].value_counts().tolist()
    [3, 3]
    """
    model = _trained(adata) if model is None else model
    return model.augment(
        adata,
        indices,
        n_per_cell=n_per_cell,
        strength=strength,
        sampler=sampler,
        steps=steps,
        seed=seed,
    )


def _trained(adata: AnnData) -> scDiffAug:
    model = scDiffAug(adata)
    model.train()
    return model
