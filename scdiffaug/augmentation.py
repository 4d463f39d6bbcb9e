"""Draw new cells from a trained module and return them as an AnnData."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from itertools import compress
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils import gen_batches

from scdiffaug._checks import check_number, check_seed, check_whole, is_one_of
from scdiffaug._memory import halved_once
from scdiffaug._randomness import seed_of
from scdiffaug.contract import DataContract
from scdiffaug.diffusion import Sampler
from scdiffaug.fragments import ends_of, n_fragments
from scdiffaug.matrices import Matrix, Rows, depths, stacked
from scdiffaug.module import DiffAugModule
from scdiffaug.neighborhood import Within
from scdiffaug.nn import multiplies_bfloat16
from scdiffaug.normalized import SCANPY_BASES, Held, LogScale
from scdiffaug.tensors import to_csr, to_tensor

_MADE_AT_ONCE = 512
# On a GPU a step takes as long for few cells as for many, up to this many cells and values.
_MOST_MADE_AT_ONCE, _MOST_VALUES_AT_ONCE = 8192, 2**24
# Each read that is drawn takes some 60 bytes until it is added to its cell.
_MOST_READS_AT_ONCE = 2**25


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How new cells are drawn: strength, solver, its steps, seed."""

    strength: float
    sampler: Sampler
    steps: int
    seed: int

    @classmethod
    def resolved(
        cls, module: DiffAugModule, *, strength: float, sampler: str, steps: int | None, seed: int
    ) -> Sampling:
        """Resolve automatic choices; TypeError or ValueError if an argument is not allowed."""
        process = module.process
        if process is None:
            raise ValueError("diffusion='none' has no generator: build the model with another.")
        strength = check_number("strength", strength, above=0, at_most=1)
        seed = check_seed(seed)
        offered: dict[str, Sampler] = {name: name for name in process.samplers}
        offered["auto"] = process.samplers[0]
        if not is_one_of(sampler, offered):
            raise ValueError(
                f"sampler={sampler!r} does not fit this model: use one of "
                f"{', '.join(map(repr, offered))}."
            )
        steps = check_whole("steps", process.default_steps if steps is None else steps)
        return cls(strength=strength, sampler=offered[sampler], steps=steps, seed=seed)


@dataclass(frozen=True, kw_only=True)
class Request:
    """New cells to make, one per row.

    Parameters
    ----------
    source_of
        Row of each cell's source, shape ``(m,)``.
    within
        Groups that the neighbours of the sources share with these; by default all are one.
    y
        Semantic vectors to condition on, shape ``(m, 80)``; by default those of the sources'
        neighbourhoods, with each neighbour's weight varied at random.
    covariates
        Code of each cell's label or batch, shape ``(m,)``; zeros if the generator sees none.
    depth
        Reads of each cell, shape ``(m,)``; by default the source's.
    """

    source_of: Rows
    covariates: NDArray[np.int64]
    within: Within | None = None
    y: NDArray[np.float32] | None = None
    depth: NDArray[np.float32] | None = None

    def block(self, rows: slice | Rows) -> Request:
        """Request for some of the cells."""
        y, depth = (None if part is None else part[rows] for part in (self.y, self.depth))
        return Request(
            source_of=self.source_of[rows],
            covariates=self.covariates[rows],
            within=None if self.within is None else self.within.block(rows),
            y=y,
            depth=depth,
        )


def made_at_once(module: DiffAugModule, contract: DataContract, batch_size: int | None) -> int:
    """How many cells are drawn together: what the user says, else what fits the device."""
    if batch_size is not None:
        return check_whole("batch_size", batch_size)
    if module.device.type == "cpu":
        return _MADE_AT_ONCE
    as_many = _MOST_VALUES_AT_ONCE // len(contract.var_names)
    return min(max(as_many, _MADE_AT_ONCE), _MOST_MADE_AT_ONCE)


def generate(
    module: DiffAugModule,
    contract: DataContract,
    x: Matrix,
    *,
    request: Request,
    sampling: Sampling,
    batch_size: int,
) -> Matrix:
    """Values of the requested cells in the space of the AnnData, sparse if the sources are."""

    def filled(size: int) -> Matrix:
        rng = torch.Generator(module.device).manual_seed(seed_of(sampling.seed, "cells"))
        made = [
            _make(module, contract, x, request=request.block(rows), sampling=sampling, rng=rng)
            for rows in gen_batches(len(request.source_of), size)
        ]
        return stacked(made)

    at_once = min(batch_size, len(request.source_of))
    if module.makes_counts:
        at_once = min(at_once, _most_at_once(x, request))
    return halved_once(at_once, filled)


def _most_at_once(x: Matrix, request: Request) -> int:
    """How many cells' reads, drawn one by one, fit in memory together; estimated from some."""
    some = request.source_of[:: 1 + len(request.source_of) // 1000]
    n_reads = depths(x[some]).mean()
    if request.depth is not None:
        n_reads = max(n_reads, request.depth.mean())
    return max(1, int(_MOST_READS_AT_ONCE / max(1, n_reads)))


@torch.inference_mode()
def _make(
    module: DiffAugModule,
    contract: DataContract,
    x: Matrix,
    *,
    request: Request,
    sampling: Sampling,
    rng: torch.Generator,
) -> Matrix:
    device, sources = module.device, x[request.source_of]
    covariates = torch.from_numpy(request.covariates).to(device)
    y = _condition(module, contract, sources, request=request, covariates=covariates, rng=rng)
    values = to_tensor(contract.values(sources), device)
    depth = None if request.depth is None else torch.from_numpy(request.depth).to(device)
    if contract.space.has_ends:
        n_ends = torch.from_numpy(depths(sources)).to(device)
        wanted = n_ends if depth is None else depth
        depth = n_fragments(wanted, fragments=values.sum(1), ends=n_ends)
    bfloat16 = multiplies_bfloat16(device.type)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bfloat16):
        made = module.sample(
            values,
            y,
            covariates,
            strength=sampling.strength,
            n_steps=sampling.steps,
            sampler=sampling.sampler,
            rng=rng,
            depth=depth,
        )
    made = contract.space.inverse(made)
    if contract.space.has_ends:
        made = ends_of(made, wanted, rng)
    return to_csr(made) if sparse.issparse(x) else made.cpu().numpy()


def _condition(
    module: DiffAugModule,
    contract: DataContract,
    sources: Matrix,
    *,
    request: Request,
    covariates: torch.Tensor,
    rng: torch.Generator,
) -> torch.Tensor:
    """The semantic embedding asked for, or that of each source's neighbourhood."""
    if request.y is not None:
        return torch.from_numpy(request.y).to(module.device)
    seen = to_tensor(contract.seen(sources), module.device)
    return module.describe_neighborhoods(seen, covariates, rng=rng, within=request.within)


def as_anndata(
    x: Matrix,
    cells: AnnData,
    obs: pd.DataFrame,
    *,
    contract: DataContract,
    provenance: Mapping[str, Any],
    held: Held,
) -> AnnData:
    """AnnData of new cells, with the var of the real ones, and how they were made.

    ``held``: how X and the layer that the model reads are to hold values.
    """
    layer, in_x = contract.setup["layer"], x if held.x is None else held.x.values(x)
    uns = made_uns(
        cells, obs, provenance=provenance, scale=None if held.x is None else held.x.scale
    )
    new = AnnData(in_x, obs=obs, var=cells.var.copy(), uns=uns)
    if layer is not None:
        new.layers[layer] = x.copy() if held.learnt is None else held.learnt.values(x)
    if contract.space.is_counts:
        # scanpy fails on an AnnData without cells.
        seen = contract.space.transform(x) if new.n_obs else x.copy()
        new.layers.setdefault("log1p_norm", seen)
    if held.learnt is not None:
        new.layers.setdefault("counts", x.copy())
    return new


def made_uns(
    cells: AnnData,
    obs: pd.DataFrame,
    *,
    provenance: Mapping[str, Any],
    scale: LogScale | None,
) -> dict[str, Any]:
    """How new cells were made, scanpy's record of log1p of X, and the colours of real groups."""
    logarithm = {} if scale is None else {"log1p": {"base": SCANPY_BASES[scale]}}
    return {
        "scdiffaug": {"version": version("scdiffaug"), **provenance},
        **made_colours(cells.obs, cells.uns, obs),
        **logarithm,
    }


def made_colours(
    real: pd.DataFrame, uns: Mapping[str, Any], made: pd.DataFrame
) -> dict[str, list[str]]:
    """Colours of the groups in ``made``, the obs of new cells, that real ones have in ``uns``."""
    colours = {}
    grouped = made.select_dtypes("category").columns
    for name in real.select_dtypes("category").columns.intersection(grouped):
        key, groups = f"{name}_colors", real[name].cat.categories
        if key in uns and np.shape(uns[key]) == groups.shape:
            kept = groups.isin(made[name].cat.categories)
            colours[key] = list(compress(uns[key], kept))
    return colours
