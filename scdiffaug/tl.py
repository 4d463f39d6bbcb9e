"""Tools: embed, augment and interpolate an AnnData in one call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from anndata import AnnData

from scdiffaug import data
from scdiffaug._checks import check_cells, check_is, check_key_added
from scdiffaug.choosing import Depth, Keep, Target
from scdiffaug.diffusion import Sampler
from scdiffaug.embedding import by_key, put
from scdiffaug.model import scDiffAug
from scdiffaug.registration import registered_for_now

logger = logging.getLogger("scdiffaug")


def embed(
    adata: AnnData, model: scDiffAug | None = None, *, key_added: str = "X_scdiffaug"
) -> None:
    """Write both embeddings of a model into an AnnData.

    Parameters
    ----------
    adata
        Cells to embed, with the model's features in any order; those that lack some are embedded
        by the others, with a warning.
    model
        A trained model; by default one is trained on ``adata`` with default settings but without
        the generator, whose cells change the embedding little (``benchmarks/results/alpha``),
        though somewhat more where cells are few. That model is not kept: to embed further cells
        in the same way, or to augment too, train a :class:`~scdiffaug.scDiffAug` and pass it.
    key_added
        Key of ``.obsm`` for the 80-D embedding; that of the 2-D embedding ends in ``_2d``, or in
        another number if the model has another ``n_projection``.

    Returns
    -------
    Nothing; writes ``.obsm["X_scdiffaug"]``, shape ``(n, 80)``, and
    ``.obsm["X_scdiffaug_2d"]``, shape ``(n, 2)``. Where there was such an embedding before, it is
    replaced, the 2-D one included.

    Raises
    ------
    KeyError
        If the layer of the model is missing.
    RuntimeError
        If the model that is passed is not trained.
    TypeError
        If an argument is of the wrong type.
    ValueError
        If more than nine tenths of the features that the encoder sees are missing.

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
    check_cells("adata", adata)
    check_key_added(key_added)
    data.check_no_view_on_disk(adata)
    with _trained(adata, model, diffusion="none") as model:
        embeddings = by_key(key_added, *model._embed(adata))
    put(adata, embeddings)


def augment(
    adata: AnnData,
    model: scDiffAug | None = None,
    *,
    indices: Sequence[int] | None = None,
    groupby: str | None = None,
    target: Target | None = None,
    n_per_cell: int = 1,
    strength: float = 1.0,
    depth: Depth = "source",
    keep: Keep = "all",
    sampler: Sampler | Literal["auto"] = "auto",
    steps: int | None = None,
    seed: int | None = None,
    path: str | Path | None = None,
) -> AnnData:
    """Make new cells from those of an AnnData.

    Parameters
    ----------
    adata
        Source cells, with the model's features in any order.
    model
        A trained model; by default one is trained on ``adata`` with default settings, and not
        kept.
    indices, groupby, target, n_per_cell, strength, depth, keep, sampler, steps, seed, path
        As in :meth:`scdiffaug.scDiffAug.augment`.

    Returns
    -------
    AnnData of the new cells; see :meth:`scdiffaug.scDiffAug.augment`.

    Raises
    ------
    FileExistsError
        If there is a file at the path.
    IndexError
        If there is no cell at an index.
    KeyError
        If the column of obs, or a group that the target names, is missing.
    RuntimeError
        If the model that is passed is not trained.
    TypeError
        If an argument is of the wrong type.
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

    Bring every cell type up to the size of the largest:

    >>> new = scdiffaug.tl.augment(adata, model, groupby="cell_type", target="max")
    >>> together = adata.obs["cell_type"].value_counts() + new.obs["cell_type"].value_counts()
    >>> together.nunique()
    1
    """
    options: dict[str, Any] = {
        "groupby": groupby,
        "target": target,
        "n_per_cell": n_per_cell,
        "strength": strength,
        "depth": depth,
        "keep": keep,
        "sampler": sampler,
        "steps": steps,
        "seed": seed,
        "path": path,
    }
    with _trained(
        adata, model, check=lambda fresh: fresh._plan(adata, indices, **options)
    ) as model:
        return model.augment(adata, indices, **options)


def interpolate(
    adata: AnnData,
    model: scDiffAug | None = None,
    *,
    start: str | int,
    end: str | int,
    n_cells: int = 10,
    groupby: str | None = None,
    sampler: Sampler | Literal["auto"] = "auto",
    steps: int | None = None,
    seed: int | None = None,
) -> AnnData:
    """Make cells on the way from one cell, or one group, to another.

    Parameters
    ----------
    adata
        Real cells, with the model's features in any order.
    model
        A trained model; by default one is trained on ``adata`` with default settings, and not
        kept.
    start, end, n_cells, groupby, sampler, steps, seed
        As in :meth:`scdiffaug.scDiffAug.interpolate`.

    Returns
    -------
    AnnData of the new cells; see :meth:`scdiffaug.scDiffAug.interpolate`.

    Raises
    ------
    KeyError
        If the column, a cell or a group is missing.
    RuntimeError
        If the model that is passed is not trained.
    TypeError
        If an argument is of the wrong type.
    ValueError
        If an argument is out of range or features of the model are missing.

    Examples
    --------
    >>> import scdiffaug
    >>> adata = scdiffaug.datasets.pbmc68k_reduced()
    >>> model = scdiffaug.scDiffAug(adata)
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> new = scdiffaug.tl.interpolate(
    ...     adata, model, start="CD34+", end="Dendritic", groupby="cell_type", n_cells=5
    ... )
    >>> new.shape
    (5, 765)
    """
    options: dict[str, Any] = {
        "start": start,
        "end": end,
        "n_cells": n_cells,
        "groupby": groupby,
        "sampler": sampler,
        "steps": steps,
        "seed": seed,
    }
    with _trained(
        adata, model, check=lambda fresh: fresh._interpolation(adata, **options)
    ) as model:
        return model.interpolate(adata, **options)


@contextmanager
def _trained(
    adata: AnnData,
    model: scDiffAug | None,
    *,
    diffusion: Literal["auto", "none"] = "auto",
    check: Callable[[scDiffAug], object] = lambda _: None,
) -> Iterator[scDiffAug]:
    """Yield the model, or train one; ``check`` raises errors before the training begins."""
    if model is not None:
        check_is("model", model, scDiffAug, advice="pass a trained scdiffaug.scDiffAug")
        yield model
        return
    check_cells("adata", adata)
    with registered_for_now(scDiffAug, adata):
        fresh = scDiffAug(adata, diffusion=diffusion)
        check(fresh)
        fresh.train()
        if fresh._was_interrupted:
            logger.warning("No model was passed that could be kept, and nothing was written.")
            raise KeyboardInterrupt
        yield fresh
