"""Where communities of cells lie in the plane when training begins."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scdiffaug.losses import PROJECTION_DOF, log_t_similarity

_N_STARTS, _N_STEPS, _RATE = 16, 400, 0.1
# Pairs of communities, over all starts, that take a second or two.
_MOST_PAIRS = 160_000
# Share of the repulsion at the start, and the step from which it is full.
_FIRST_REPULSION, _REPELS_FULLY = 0.03, 200


def community_layout(
    crossings: NDArray[np.float64],
    weights: NDArray[np.float32],
    sizes: NDArray[np.int64],
    *,
    batch_size: int,
    n_dimensions: int,
    seed: int,
) -> NDArray[np.float32]:
    r"""Places of communities that minimise the projection's loss, shape ``(k, n_dimensions)``.

    .. math:: -\sum_{ab} W_{ab} \log Q_{ab} + (m - 1) f_a f_b R_{ab} \log(1 - Q_{ab})

    is the soft contrastive loss in expectation (:func:`~scdiffaug.losses.soft_contrastive`, P as
    the identity), if all cells of a community lie at one place. It has many minima, and a network
    that starts anywhere finds just one of them; for the few points that communities are, the best
    of several is cheap to find. Repulsion starts low, so that communities can pass each other to
    be beside similar ones, as in t-SNE's early exaggeration (van der Maaten and Hinton 2008).
    Laying out communities first is PAGA's idea (Wolf et al. 2019).

    With more than 100 communities there are fewer than sixteen starts. More than 400, as of a
    graph in many pieces, begin together in the middle, since all pairs would take minutes.

    Parameters
    ----------
    crossings
        W, share of the positives that go from community a to b, shape ``(k, k)``.
    weights
        R, how much communities repel each other, shape ``(k, k)``.
    sizes
        Cells of each community, shape ``(k,)``; f is their share.
    batch_size
        m; each cell is repelled by the other cells of its batch.
    n_dimensions
        Dimensions of the projection.
    seed
        Seed of the starts.
    """
    n_starts = min(_N_STARTS, _MOST_PAIRS // len(sizes) ** 2)
    if not n_starts:
        return np.zeros((len(sizes), n_dimensions), dtype=np.float32)
    shares = sizes / sizes.sum()
    pull = _without_diagonal(crossings)
    push = _without_diagonal((batch_size - 1) * np.outer(shares, shares) * weights)
    rng = torch.Generator().manual_seed(seed)
    places = torch.randn(n_starts, len(sizes), n_dimensions, generator=rng).requires_grad_()
    optimizer = torch.optim.Adam([places])
    for step in range(_N_STEPS):
        optimizer.param_groups[0]["lr"] = _RATE * (1 - step / _N_STEPS)
        optimizer.zero_grad()
        share = min(1.0, _FIRST_REPULSION ** (1 - step / _REPELS_FULLY))
        _losses(places, pull, share * push).sum().backward()
        optimizer.step()
    with torch.no_grad():
        best = places[_losses(places, pull, push).argmin()].numpy()
    return (best - shares @ best).astype(np.float32)


def _without_diagonal(matrix: NDArray[np.floating]) -> Tensor:
    return torch.tensor(matrix, dtype=torch.float32).fill_diagonal_(0)


def _losses(places: Tensor, pull: Tensor, push: Tensor) -> Tensor:
    """Loss of each of several layouts, shape ``(s, k, n_dimensions)`` to ``(s,)``."""
    sq_distances = (places[:, :, None] - places[:, None]).square().sum(3)
    log_q = log_t_similarity(sq_distances, PROJECTION_DOF)
    return -(pull * log_q + push * torch.log1p(-log_q.exp())).sum((1, 2))
