"""Embed cells by a trained module, and put the embeddings where scanpy looks for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from anndata import AnnData
from numpy.typing import NDArray
from sklearn.utils import gen_batches
from torch import Tensor

from scdiffaug import doubts
from scdiffaug._memory import halved_once
from scdiffaug.contract import DataContract
from scdiffaug.matrices import Matrix, StoredMatrix
from scdiffaug.module import DiffAugModule
from scdiffaug.neighborhood import Within
from scdiffaug.tensors import to_tensor

_CELLS_AT_ONCE = 4096


def contract_for(
    cells: AnnData, contract: DataContract, *, warns: bool = True
) -> tuple[DataContract, NDArray[np.bool_] | None]:
    """The contract by which cells are embedded, and which features they have if not all."""
    measured = contract.measured_in(cells)
    if measured is None:
        return contract, None
    if warns:
        doubts.warn_of_unmeasured(contract.selected_names, cells)
    return contract.of_measured(measured), measured


@torch.inference_mode()
def encode(
    module: DiffAugModule,
    contract: DataContract,
    x: Matrix | StoredMatrix,
    *,
    batches: NDArray[np.int64],
    measured: NDArray[np.bool_] | None = None,
    batch_size: int | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Embeddings of cells, given as the AnnData holds them: y ``(n, 80)`` and z ``(n, 2)``.

    Both are computed at once, as the search for a cell's neighbours takes most of the time.
    ``batches``: codes, shape ``(n,)``, as :meth:`DataContract.batches` gives them. If only some
    features were ``measured``, ``contract`` and ``x`` are of these.
    """
    mask = None if measured is None else torch.from_numpy(measured).to(module.device)
    y, z = _by_blocks(
        lambda cells, codes, _: module.embed(cells, codes, measured=mask),
        contract,
        x,
        batches=batches,
        device=module.device,
        batch_size=batch_size or _CELLS_AT_ONCE,
    )
    return y, z


@torch.inference_mode()
def fit_query(
    module: DiffAugModule,
    contract: DataContract,
    x: Matrix | StoredMatrix,
    *,
    code: int,
    measured: NDArray[np.bool_] | None,
) -> None:
    """Find the offsets of a batch that came after training, from cells of it.

    ``code``: that of the batch. ``measured``: as in :func:`encode`.
    """
    mask = None if measured is None else torch.from_numpy(measured).to(module.device)
    (components,) = _by_blocks(
        lambda cells, *_: (module.inputs.components(cells, measured=mask),),
        contract,
        x,
        batches=np.full(x.shape[0], code),
        device=module.device,
    )
    module.inputs.fit_query(components, code, measured=mask)


def by_key(
    key: str, y: NDArray[np.float32], z: NDArray[np.float32]
) -> dict[str, NDArray[np.float32]]:
    """Both embeddings as they are named in ``.obsm``."""
    return {key: y, f"{key}_{z.shape[1]}d": z}


def replaced(obsm: Mapping[str, Any], key: str) -> list[str]:
    """What an earlier embedding of this key left in ``.obsm``, maybe by another model."""
    of_key = re.compile(rf"{re.escape(key)}(_\d+d)?")
    return [name for name in obsm if of_key.fullmatch(name)] if key in obsm else []


def put(adata: AnnData, embeddings: Mapping[str, NDArray[np.float32]]) -> None:
    """Write what :func:`by_key` gives into ``.obsm``, in place of an earlier embedding."""
    for name in set(replaced(adata.obsm, next(iter(embeddings)))) - set(embeddings):
        del adata.obsm[name]
    for name, values in embeddings.items():
        adata.obsm[name] = values


@torch.inference_mode()
def describe_neighborhoods(
    module: DiffAugModule,
    contract: DataContract,
    x: Matrix | StoredMatrix,
    *,
    batches: NDArray[np.int64],
    within: Within | None = None,
) -> NDArray[np.float32]:
    """Semantic vectors of the cells' neighbourhoods, weights not varied, shape ``(n, 80)``.

    ``within``: groups that neighbours share with the cell, if any.
    """

    def described(cells: Tensor, codes: Tensor, rows: slice) -> tuple[Tensor]:
        of_rows = None if within is None else within.block(rows)
        return (module.describe_neighborhoods(cells, codes, within=of_rows),)

    (y,) = _by_blocks(described, contract, x, batches=batches, device=module.device)
    return y


@torch.inference_mode()
def find_references(
    module: DiffAugModule,
    contract: DataContract,
    x: Matrix | StoredMatrix,
    *,
    batches: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Which of the training cells that the module keeps each cell is, -1 if none, ``(n,)``."""
    inputs = module.inputs
    (found,) = _by_blocks(
        lambda cells, codes, _: (inputs.neighborhood.find(inputs(cells, codes)),),
        contract,
        x,
        batches=batches,
        device=module.device,
    )
    return found


@torch.inference_mode()
def encode_references(module: DiffAugModule) -> NDArray[np.float32]:
    """Semantic embeddings of the training cells that the module keeps, shape ``(r, 80)``."""
    return module.embed_references().cpu().numpy()


def _by_blocks(
    function: Callable[[Tensor, Tensor, slice], tuple[Tensor, ...]],
    contract: DataContract,
    x: Matrix | StoredMatrix,
    *,
    batches: NDArray[np.int64],
    device: torch.device,
    batch_size: int = _CELLS_AT_ONCE,
) -> list[NDArray[Any]]:
    """Apply a function to features, batches and rows, to as many cells as memory allows."""

    def of(rows: slice) -> list[Tensor]:
        features = to_tensor(contract.seen(x[rows]), device)
        found = function(features, torch.from_numpy(batches[rows]).to(device), rows)
        return [part.cpu() for part in found]

    def computed(size: int) -> list[NDArray[Any]]:
        blocks = [of(rows) for rows in gen_batches(x.shape[0], size)]
        return [torch.cat(parts).numpy() for parts in zip(*blocks, strict=True)]

    return halved_once(min(batch_size, x.shape[0]), computed)
