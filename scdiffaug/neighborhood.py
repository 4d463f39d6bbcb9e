"""A cell's neighbourhood, computed on the device that trains: nearest cells, weights, means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

# Leading principal components whose direction says which cells are near.
_N_COMPARED = 30
# Distances of so many cells to some ten thousand references stay in fast memory; a GPU, with so
# few cells, would mostly wait for the next call.
_CELLS_AT_ONCE, _CELLS_AT_ONCE_ON_GPU = 128, 4096
# Size of the groups of references of which only the nearest is looked at first.
_GROUPED = 64


def compared_blocks(n_features: int, n_components: int) -> tuple[slice, ...]:
    """Blocks of the encoder's inputs by whose directions cells are compared.

    The first 30 principal components, and all components of residuals that follow them. None for
    a panel of no more features than components, whose cells are compared as they are.
    """
    if n_features <= n_components:
        return ()
    return slice(0, min(_N_COMPARED, n_components)), slice(n_components, None)


def search_space(components: Tensor, blocks: Sequence[slice]) -> Tensor:
    """Points among which neighbours are searched: the directions of each block.

    Euclidean distances rank them as sums of cosines do, which a cell's depth affects less.
    Neighbours by two blocks, of logarithms and of residuals, are more often of the same type than
    those by either (benchmarks/NOTES.md, 66).

    Parameters
    ----------
    components
        Shape ``(..., n_components)``.
    blocks
        As in :func:`compared_blocks`.
    """
    if not blocks:
        return components
    parts = [nn.functional.normalize(components[..., block], dim=-1) for block in blocks]
    return torch.cat(parts, dim=-1)


def neighbor_weights(x: Tensor, neighbors: Tensor, blocks: Sequence[slice]) -> Tensor:
    """Weight of each neighbour in the mean of a cell's neighbours, ``(n, k)``; rows sum to 1.

    A Gaussian kernel whose width is the distance to the third neighbour. A cell of a rare type
    may have only a few neighbours of its own, which keep most of the weight.

    Parameters
    ----------
    x
        Cells, shape ``(n, n_components)``.
    neighbors
        Neighbours of each cell, shape ``(n, k, n_components)``.
    blocks
        As in :func:`compared_blocks`.
    """
    cells, around = (search_space(part, blocks) for part in (x, neighbors))
    sq_distance = (around - cells[:, None]).square().sum(2)
    width = sq_distance.kthvalue(min(3, neighbors.shape[1]), dim=1, keepdim=True).values
    return torch.softmax(-sq_distance / width.clamp_min(1e-12), dim=1)


def neighbor_mean(
    x: Tensor,
    neighbors: Tensor,
    blocks: Sequence[slice],
    *,
    rng: torch.Generator | None = None,
    known: Tensor | None = None,
) -> Tensor:
    """Weighted mean of a cell's neighbours, of the shape ``(n, n_components)`` of the cells.

    Parameters
    ----------
    x, neighbors, blocks
        As in :func:`neighbor_weights`.
    rng
        Varies the weight of each neighbour at random, as in the Bayesian bootstrap (Rubin 1981).
    known
        Mask of the components by which cells are compared, shape ``(n_components,)``; in ``x``
        the others are 0. By default all.
    """
    compared = neighbors if known is None else neighbors * known
    weights = neighbor_weights(x, compared, blocks)
    if rng is not None:
        weights = weights * torch.empty_like(weights).exponential_(generator=rng)
        weights = weights / weights.sum(1, keepdim=True)
    return (weights[:, :, None] * neighbors).sum(1)


def largest(values: Tensor, k: int) -> Tensor:
    """Places of the k largest of each row, the largest first, shape ``(n, k)``.

    They stand in the k groups with the largest maxima; to find these first halves the time.
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


@dataclass(frozen=True)
class Within:
    """Groups that neighbours share with the cell.

    A group of no more references than a neighbourhood has does not fill it: in training, cells of
    such a group always had others among their neighbours, and so they have here.

    Parameters
    ----------
    references, cells
        Codes of the groups of all references and of the cells, shapes ``(r,)`` and ``(n,)``.
    """

    references: Tensor
    cells: Tensor

    def block(self, rows: slice | NDArray[np.int64]) -> Within:
        """The same for some of the cells."""
        return replace(self, cells=self.cells[rows])

    def excluded(self, device: torch.device, *, n_neighbors: int) -> Tensor:
        """Which references may not be neighbours of which cells, shape ``(n, r)``."""
        others = self.cells.to(device)[:, None] != self.references.to(device)
        return others & ((~others).sum(1, keepdim=True) > n_neighbors)


class NeighborMean(nn.Module):
    """Mean of a cell's nearest reference cells, the cell itself left out.

    Parameters
    ----------
    n_cells, n_components
        Number of references and width of their inputs.
    blocks
        As in :func:`compared_blocks`.
    n_neighbors
        References per mean.
    """

    references: Tensor

    def __init__(
        self, n_cells: int, n_components: int, *, blocks: Sequence[slice], n_neighbors: int
    ) -> None:
        super().__init__()
        self.blocks, self.n_neighbors = blocks, n_neighbors
        self.register_buffer("references", torch.zeros(n_cells, n_components))

    def forward(
        self,
        x: Tensor,
        *,
        rng: torch.Generator | None = None,
        known: Tensor | None = None,
        within: Within | None = None,
    ) -> Tensor:
        """Means, of the shape ``(n, n_components)`` of the cells; see :func:`neighbor_mean`.

        ``within``: groups that neighbours share with the cell; by default all are one.
        """
        points = self._points(self.references if known is None else self.references * known)
        half_squares = points.square().sum(1) / 2
        parts = []
        for rows in self._at_once(x):
            excluded = None
            if within is not None:
                excluded = within.block(rows).excluded(x.device, n_neighbors=self.n_neighbors)
            near = self._nearest(x[rows], points, half_squares, excluded=excluded)
            parts += [neighbor_mean(x[rows], near, self.blocks, rng=rng, known=known)]
        return torch.cat(parts)

    def find(self, x: Tensor) -> Tensor:
        """Which reference each cell is, -1 where it is none, shape ``(n,)``."""
        points = self._points(self.references)
        half_squares = points.square().sum(1) / 2
        parts = []
        for rows in self._at_once(x):
            nearest = self._nearness(x[rows], points, half_squares).argmax(1)
            parts += [torch.where(self._is_itself(x[rows], nearest), nearest, -1)]
        return torch.cat(parts)

    def _at_once(self, x: Tensor) -> list[slice]:
        size = _CELLS_AT_ONCE if x.device.type == "cpu" else _CELLS_AT_ONCE_ON_GPU
        return [slice(start, start + size) for start in range(0, len(x), size)]

    def _points(self, cells: Tensor) -> Tensor:
        return search_space(cells, self.blocks)

    def _nearness(self, x: Tensor, points: Tensor, half_squares: Tensor) -> Tensor:
        # In float32 and for few cells at once. Kept while the next cells are compared, such a
        # matrix would cost half as much time again, as memory is then asked for anew each time.
        with torch.autocast(x.device.type, enabled=False):
            return (self._points(x) @ points.T).sub_(half_squares)

    def _nearest(
        self, x: Tensor, points: Tensor, half_squares: Tensor, *, excluded: Tensor | None
    ) -> Tensor:
        """Nearest references of each cell without itself, ``(n, k, n_components)``."""
        nearness = self._nearness(x, points, half_squares)
        if excluded is not None:
            nearness.masked_fill_(excluded, -torch.inf)
        nearest = largest(nearness, self.n_neighbors + 1)
        is_itself = self._is_itself(x, nearest[:, 0])
        others = torch.where(is_itself[:, None], nearest[:, 1:], nearest[:, :-1])
        # In the order of references, so that the same ones have the same mean to the last bit.
        return self.references[others.sort(1).values]

    def _is_itself(self, x: Tensor, found: Tensor) -> Tensor:
        return torch.isclose(self.references[found], x, atol=1e-3).all(1)
