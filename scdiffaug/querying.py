"""Map cells of batches that a model did not learn from: the reference, and room for them."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from anndata import AnnData
from numpy.typing import NDArray

from scdiffaug.contract import DataContract
from scdiffaug.saved_model import SavedModel

logger = logging.getLogger("scdiffaug")

_OFFSETS = re.compile(r"inputs\.offsets\.\d+\.offsets")

Model = TypeVar("Model", bound=SavedModel)


def reference(kind: type[Model], model: str | Path | Model) -> Model:
    """The model, loaded if need be, which has to be trained and to know batches."""
    if isinstance(model, str | Path):
        model = kind.load(model, adata=False)
    if not isinstance(model, kind):
        raise TypeError(
            f"reference_model must be a {kind.__name__} or the folder of one, found "
            f"{type(model).__name__}."
        )
    model._check_if_trained(warn=False)
    if model._contract.covariate != "batch_key":
        raise ValueError(
            "reference_model is not corrected for batches, so new ones cannot be mapped onto "
            "it: train it after setup_anndata(adata, batch_key=...), with the default "
            "condition='semantic'."
        )
    return model


def with_batches_of(model: Model, cells: AnnData, *, attached: AnnData | None) -> Model:
    """The model, with room for the batches of cells, of which nothing is taken off yet."""
    contract = model._contract.with_batches_of(cells)
    n_new = len(contract.query_batches) - len(model._contract.query_batches)
    weights = model.module.state_dict()
    for name in filter(_OFFSETS.fullmatch, list(weights)):
        room = weights[name].new_zeros(n_new, *weights[name].shape[1:])
        weights[name] = torch.cat([weights[name], room])
    roomy = model._restored(
        contract, model._module_config, weights, cells=attached, device=model.module.device
    )
    roomy.is_trained_, roomy.history_ = True, dict(model.history_ or {})
    return roomy


def say_what_is_mapped(contract: DataContract, cells: AnnData, batches: NDArray[np.int64]) -> None:
    """``batches``: codes in the model that knows all; ``contract``: that of the reference."""
    n_trained, key = len(contract.category_names), contract.covariate_column
    names, is_mapped = cells.obs[key].astype(str), batches >= n_trained
    if not is_mapped.any():
        logger.warning(
            "The model learnt from all batches of these cells, e.g. %r: none is mapped. If "
            "they are others of the same name, rename them in adata.obs[%r].",
            names.iloc[0],
            key,
        )
        return
    known = is_mapped & (batches < n_trained + len(contract.query_batches))
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
