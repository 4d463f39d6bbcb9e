"""The end of training: the projection averaged over the neighbour graph, and learnt as such."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scdiffaug._randomness import seed_of
from scdiffaug.module import DiffAugModule
from scdiffaug.neighbors import NeighborWalks
from scdiffaug.training import one_cycle

_BATCH = 512
_LEARNING_RATE = 1e-3
_WEIGHT_DECAY = 1e-2


def propagate_projection(
    module: DiffAugModule,
    inputs: NDArray[np.float32],
    walks: NeighborWalks,
    *,
    mean_steps: float,
    n_steps: int,
    seed: int,
) -> None:
    """Average z over random walks between cells, and teach the averages to the projection head.

    Walks seldom leave a group of cells, so that each group draws together where it is. Predictions
    are propagated after learning, as by Gasteiger et al. 2019; the head learns the result, since
    new cells have no place on the graph. The semantic vectors stay as they are.

    Parameters
    ----------
    module
        The trained module, whose head is changed in place.
    inputs
        Principal components of the training cells, shape ``(n, n_components)``.
    walks
        Walks on the graph of these cells.
    mean_steps
        Mean length of the walks.
    n_steps
        Optimiser steps of the head.
    seed
        Seed of the batches.
    """
    y, z = _embedded(module, inputs)
    target = walks.average(z.cpu().numpy(), mean_steps=mean_steps)
    _learn(
        module.encoder.projection,
        y,
        torch.from_numpy(target).to(z),
        n_steps=n_steps,
        rng=np.random.default_rng(seed_of(seed, "head")),
    )


@torch.no_grad()
def _embedded(module: DiffAugModule, inputs: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
    parts = [
        module.inference(part.to(module.device)) for part in torch.from_numpy(inputs).split(4096)
    ]
    return torch.cat([part["y"] for part in parts]), torch.cat([part["z"] for part in parts])


def _learn(
    head: nn.Module, y: Tensor, target: Tensor, *, n_steps: int, rng: np.random.Generator
) -> None:
    optimizer = torch.optim.AdamW(
        head.parameters(), _LEARNING_RATE, weight_decay=_WEIGHT_DECAY, fused=True
    )
    rate = one_cycle(optimizer, [_LEARNING_RATE], n_steps=n_steps)
    variance = target.var(0).sum().clamp_min(torch.finfo(target.dtype).tiny)
    head.train()
    for _ in range(n_steps):
        cells = torch.from_numpy(rng.integers(len(y), size=min(_BATCH, len(y)))).to(y.device)
        loss = (head(y[cells]) - target[cells]).square().sum(1).mean() / variance
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
    head.eval()
