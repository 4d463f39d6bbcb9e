"""Where a cell lies among others, on the device that trains: weights, means, the nearest."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Leading principal components whose direction says which cells are near.
_N_SEARCHED = 30
# Distances of so many cells to some ten thousand references stay where memory is fast; a GPU
# would wait for the next call.
_CELLS_AT_ONCE, _CELLS_AT_ONCE_ON_GPU = 128, 4096
# References of which the nearest alone is looked at first.
_GROUPED = 64


def search_space(components: Tensor, *, n_features: int) -> Tensor:
    """Points in which neighbours are searched: directions of the first 30 components.

    Their Euclidean order is the cosine's, which a cell's depth moves less. A panel of no more
    features than components is searched as it is.

    Parameters
    ----------
    components
        Shape ``(..., n_components)``.
    n_features
        Features that the components were made of.
    """
    if n_features <= components.shape[-1]:
        return components
    return nn.functional.normalize(components[..., :_N_SEARCHED], dim=-1)


def neighbor_weights(x: Tensor, neighbors: Tensor, *, n_features: int) -> Tensor:
    """What each neighbour of a cell counts for in their mean, shape ``(n, k)``; rows sum to 1.

    A Gaussian kernel whose width is the distance to the third neighbour. A cell of a rare type
    may have only a few neighbours of its own, which keep most of the weight.

    Parameters
    ----------
    x
        Cells, shape ``(n, n_components)``.
    neighbors
        Those of each, shape ``(n, k, n_components)``.
    n_features
        Features that the components were made of.
    """
    cells, around = (search_space(part, n_features=n_features) for part in (x, neighbors))
    sq_distance = (around - cells[:, None]).square().sum(2)
    width = sq_distance.kthvalue(min(3, neighbors.shape[1]), dim=1, keepdim=True).values
    return torch.softmax(-sq_distance / width.clamp_min(1e-12), dim=1)


def neighbor_mean(
    x: Tensor, neighbors: Tensor, *, n_features: int, rng: torch.Generator | None = None
) -> Tensor:
    """Weighted mean of a cell's neighbours, of the shape ``(n, n_components)`` of the cells.

    Parameters
    ----------
    x, neighbors, n_features
        As of :func:`neighbor_weights`.
    rng
        Makes each neighbour count for more or less: weights of the Bayesian bootstrap (Rubin
        1981).
    """
    weights = neighbor_weights(x, neighbors, n_features=n_features)
    if rng is not None:
        weights = weights * torch.empty_like(weights).exponential_(generator=rng)
        weights = weights / weights.sum(1, keepdim=True)
    return (weights[:, :, None] * neighbors).sum(1)


def largest(values: Tensor, k: int) -> Tensor:
    """Places of the k largest of each row, the largest first, shape ``(n, k)``.

    They stand in the k groups of the largest maxima, which are found in half of the time.
    """
    n_values = values.shape[1]
    whole = n_values // _GROUPED * _GROUPED
    if whole < k * _GROUPED:
        return values.topk(k, dim=1).indices
    maxima = values[:, :whole].unflatten(1, (-1, _GROUPED)).amax(2)
    places = torch.arange(n_values, device=values.device)
    inside = places[:whole].view(-1, _GROUPED)[maxima.topk(k, dim=1).indices].flatten(1)
    candidates = torch.cat([inside, places[whole:].expand(len(values), -1)], dim=1)
    return candidates.gather(1, values.gather(1, candidates).topk(k, dim=1).indices)


class NeighborMean(nn.Module):
    """Mean of a cell's nearest reference cells, the cell itself left out.

    Parameters
    ----------
    n_cells, n_components
        Number of references and width of their inputs.
    n_features
        Features that the components were made of.
    n_neighbors
        References in a mean.
    """

    references: Tensor

    def __init__(
        self, n_cells: int, n_components: int, *, n_features: int, n_neighbors: int
    ) -> None:
        super().__init__()
        self.n_features, self.n_neighbors = n_features, n_neighbors
        self.register_buffer("references", torch.zeros(n_cells, n_components))

    def forward(self, x: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """Means, of the shape ``(n, n_components)`` of the cells; see :func:`neighbor_mean`."""
        known = self._points(self.references)
        half_squares = known.square().sum(1) / 2
        at_once = _CELLS_AT_ONCE if x.device.type == "cpu" else _CELLS_AT_ONCE_ON_GPU
        parts = [
            neighbor_mean(
                part, self._nearest(part, known, half_squares), n_features=self.n_features, rng=rng
            )
            for part in x.split(at_once)
        ]
        return torch.cat(parts)

    def _points(self, cells: Tensor) -> Tensor:
        return search_space(cells, n_features=self.n_features)

    def _nearest(self, x: Tensor, known: Tensor, half_squares: Tensor) -> Tensor:
        # In float32 and of few cells at once: cells by references.
        with torch.autocast(x.device.type, enabled=False):
            nearness = (self._points(x) @ known.T).sub_(half_squares)
        nearest = largest(nearness, self.n_neighbors + 1)
        is_itself = torch.isclose(self.references[nearest[:, 0]], x, atol=1e-3).all(1)
        others = torch.where(is_itself[:, None], nearest[:, 1:], nearest[:, :-1])
        # In the order of references, that the same cells have the same mean to the last bit.
        return self.references[others.sort(1).values]
