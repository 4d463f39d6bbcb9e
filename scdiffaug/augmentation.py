"""Drawing new cells from a trained module and giving them back as an AnnData."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from scdiffaug.contract import DataContract
from scdiffaug.data import to_tensor
from scdiffaug.diffusion import Sampler
from scdiffaug.features import Matrix
from scdiffaug.module import DiffAugModule


@dataclass(frozen=True, kw_only=True)
class Draw:
    """How new cells are drawn: strength, solver, its steps, seed."""

    strength: float
    sampler: Sampler
    steps: int
    seed: int

    @classmethod
    def check(
        cls, module: DiffAugModule, *, strength: float, sampler: str, steps: int | None, seed: int
    ) -> Draw:
        """Resolve the automatic choices; ValueError where one does not fit the module."""
        process = module.process
        if process is None:
            raise ValueError("diffusion='none' has no generator: build the model with another.")
        if not 0 < strength <= 1:
            raise ValueError(f"strength={strength} must be above 0 and at most 1.")
        offered: dict[str, Sampler] = {name: name for name in process.samplers}
        offered["auto"] = process.samplers[0]
        if sampler not in offered:
            raise ValueError(
                f"sampler={sampler!r} does not fit this model: use one of "
                f"{', '.join(map(repr, offered))}."
            )
        steps = process.default_steps if steps is None else steps
        if steps < 1:
            raise ValueError(f"steps={steps} must be at least 1.")
        return cls(strength=strength, sampler=offered[sampler], steps=steps, seed=seed)


def augment(
    module: DiffAugModule,
    contract: DataContract,
    cells: AnnData,
    *,
    x: Matrix,
    n_per_cell: int,
    draw: Draw,
    batch_size: int,
) -> AnnData:
    """New cells from source cells; see :meth:`scdiffaug.scDiffAug.augment`.

    Parameters
    ----------
    module, contract
        Of a trained model.
    cells, x
        Source cells and their values, as :meth:`DataContract.read` gives them.
    n_per_cell, draw, batch_size
        New cells per source, how they are drawn, and how many at once.
    """
    source_of = np.repeat(np.arange(cells.n_obs), n_per_cell)
    labels = contract.label_codes(cells)
    rng = torch.Generator(module.device).manual_seed(draw.seed)
    blocks = np.split(source_of, range(batch_size, len(source_of), batch_size))
    made = [
        _make(module, contract, x[rows], labels=labels[rows], draw=draw, rng=rng)
        for rows in blocks
    ]
    return _as_anndata(made, cells, source_of, contract=contract, draw=draw)


@torch.inference_mode()
def _make(
    module: DiffAugModule,
    contract: DataContract,
    x: Matrix,
    *,
    labels: NDArray[np.int64],
    draw: Draw,
    rng: torch.Generator,
) -> Matrix:
    """One block of new cells in the space of the AnnData, sparse where the source is."""
    y = module.inference(to_tensor(contract.encoder_inputs(x)).to(module.device))["y"]
    made = module.sample(
        to_tensor(contract.values(x)).to(module.device),
        y,
        torch.from_numpy(labels).to(module.device),
        strength=draw.strength,
        n_steps=draw.steps,
        sampler=draw.sampler,
        rng=rng,
    )
    values = contract.space.inverse(made.cpu().numpy())
    return sparse.csr_matrix(values) if sparse.issparse(x) else values


def _as_anndata(
    made: list[Matrix],
    cells: AnnData,
    source_of: NDArray[np.integer[Any]],
    *,
    contract: DataContract,
    draw: Draw,
) -> AnnData:
    obs = cells.obs.iloc[source_of].drop(columns=["_scvi_batch", "_scvi_labels"], errors="ignore")
    obs = obs.assign(
        source_obs_name=cells.obs_names[source_of].astype(str),
        augmentation_strength=draw.strength,
        is_augmented=True,
    )
    copies = pd.Series(source_of).groupby(source_of).cumcount()
    obs.index = [f"{name}-aug{copy}" for name, copy in zip(obs.index, copies, strict=True)]
    x = (sparse.vstack if sparse.issparse(made[0]) else np.vstack)(made)
    provenance = {"version": version("scdiffaug"), **asdict(draw)}
    new = AnnData(x, obs=obs, var=cells.var.copy(), uns={"scdiffaug": provenance})
    layer = contract.setup["layer"]
    if layer is not None:
        new.layers[layer] = new.X.copy()
    if contract.space.kind == "counts":
        new.layers["log1p_norm"] = contract.space.transform(new.X)
    return new
