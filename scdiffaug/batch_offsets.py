"""Offsets of batches in the encoder's inputs, which are taken off before a cell is embedded."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn

from scdiffaug.matrices import SUBSAMPLED, drawn_rows
from scdiffaug.neighborhood import search_space

# Cells of a cluster and, unless clusters would be fewer than thirty, of each batch in it, in the
# mean. Few large clusters would mix types.
_CELLS_OF_A_CLUSTER, _CELLS_OF_A_BATCH = 30, 8
_FEW_CLUSTERS, _MOST_CLUSTERS = 30, 100
# Squared distance within which a cell belongs to several clusters, as a share of the variance.
_SOFTNESS = 0.1
# Variance within a batch along the first components, as a share of most batches', below which it
# has too few types of cells to be compared as a whole.
_N_WIDEST, _NARROW = 10, 0.5
# Cells in a cluster from which on a batch counts in full.
_PRESENT = 3
_MOST_ROUNDS, _TOLERANCE = 20, 0.01
# Weight of how far a batch is moved that came after training, beside how differently its cells.
_WHOLE = 0.05


class BatchOffsets(nn.ModuleList):
    """What sets a batch apart from the others near a cell; training does not change it.

    Each block of the encoder's inputs, components of logarithms or of residuals, is corrected as
    if it were alone: a batch moves both in different ways (benchmarks/NOTES.md, experiment 68).

    Parameters
    ----------
    n_cells, n_batches
        Numbers of training cells and of their batches, which say how many clusters there are.
    n_components
        Width of the encoder's inputs.
    blocks
        Blocks of them by whose directions cells are compared
        (:func:`~scdiffaug.neighborhood.compared_blocks`).
    n_query_batches
        Number of batches mapped after training; their codes follow those of the others.
    """

    def __init__(
        self,
        n_cells: int,
        n_batches: int,
        n_components: int,
        *,
        blocks: Sequence[slice],
        n_query_batches: int = 0,
    ) -> None:
        # A block ends where the next one begins; a panel is one, whose cells lie where they are.
        found = [block for block in blocks if block.start < n_components] or [slice(0, None)]
        bounds = [*(block.start for block in found), n_components]
        self.widths = [stop - start for start, stop in pairwise(bounds)]
        n_all = n_batches + n_query_batches
        n_clusters = _n_clusters(min(n_cells, SUBSAMPLED), n_batches)
        # In its own columns a block begins at 0.
        compared = [[slice(0, of.stop and of.stop - of.start)] if blocks else [] for of in found]
        super().__init__(
            _OffsetsOfBlock((n_all, n_clusters, width), compared=of)
            for width, of in zip(self.widths, compared, strict=True)
        )

    def forward(self, x: Tensor, batch: Tensor, *, known: Tensor | None = None) -> Tensor:
        """Inputs of cells without the offsets of their batches, shape ``(n, n_components)``.

        Parameters
        ----------
        x
            Inputs, shape ``(n, n_components)``.
        batch
            Codes of the cells' batches, shape ``(n,)``; of an unknown one, -1, nothing is taken.
        known
            Mask of the components that are known, shape ``(n_components,)``; in ``x`` the others
            are 0, and stay so. By default all.
        """
        known = torch.ones_like(x[0]) if known is None else known.to(x.dtype)
        parts = zip(self, self._split(x), self._split(known), strict=True)
        return torch.cat([block(part, batch, known=of) for block, part, of in parts], dim=1)

    def __iter__(self) -> Iterator[_OffsetsOfBlock]:
        return cast(Iterator[_OffsetsOfBlock], super().__iter__())

    def corrected(
        self, inputs: NDArray[np.float32], batch: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """The same of arrays."""
        return self(torch.from_numpy(inputs), torch.from_numpy(batch)).numpy()

    @torch.no_grad()
    def fit(self, inputs: NDArray[np.float32], batch: NDArray[np.int64], *, seed: int) -> None:
        """Find clusters and offsets, by at most 20,000 cells drawn at random.

        Parameters
        ----------
        inputs
            Encoder inputs of the training cells, shape ``(n, n_components)``.
        batch
            Codes of their batches, shape ``(n,)``.
        seed
            Seed of the draw and of the first clusters.
        """
        drawn = drawn_rows(len(inputs), SUBSAMPLED, seed=seed)
        parts = self._split(torch.from_numpy(inputs[drawn]).double())
        for block, part in zip(self, parts, strict=True):
            block.fit(part, batch[drawn], seed=seed)

    @torch.no_grad()
    def fit_query(
        self,
        inputs: NDArray[np.float32],
        code: int,
        *,
        references: Tensor,
        known: Tensor | None = None,
    ) -> None:
        """Find the offsets of a batch that came after training, in the clusters of the others.

        Parameters
        ----------
        inputs
            Inputs of its cells, shape ``(n, n_components)``.
        code
            Its code.
        references
            Inputs of training cells, without their offsets, shape ``(r, n_components)``.
        known
            As in :meth:`forward`.
        """
        # In double precision, which not all devices have.
        x, others = (part.cpu().double() for part in (torch.from_numpy(inputs), references))
        known = torch.ones_like(x[0]) if known is None else known.cpu().double()
        parts = zip(*map(self._split, (x, others, known)), strict=True)
        for block, (part, others_part, of) in zip(self, parts, strict=True):
            block.fit_query(part, code, references=others_part, known=of)

    def _split(self, x: Tensor) -> tuple[Tensor, ...]:
        return x.split(self.widths, dim=-1)


class _OffsetsOfBlock(nn.Module):
    r"""Offsets of batches in one block.

    Cells belong softly to clusters that all batches share. In each, a batch's offset is its mean
    less that of the batches there. Clusters and offsets are found in turn, as in Harmony
    (Korsunsky et al. 2019), with two differences. Clusters need not hold all batches. And the
    squared length of an offset has to exceed twice what is expected by chance, and counts only as
    far as it does (after James and Stein 1961), so that batches that do not differ are not moved
    (benchmarks/NOTES.md, experiment 61). A batch that comes after training is compared with
    the training cells of the same clusters, as in Symphony (Kang et al. 2021; experiment 62).

    Parameters
    ----------
    shape
        Numbers of batches, of clusters and of the block's components.
    compared
        Of these, those by whose direction cells are compared; none for a panel.
    """

    middle: Tensor
    offsets: Tensor
    width: Tensor

    def __init__(self, shape: tuple[int, int, int], *, compared: Sequence[slice]) -> None:
        super().__init__()
        self.compared = compared
        self.register_buffer("middle", torch.zeros(shape[1:]))
        self.register_buffer("offsets", torch.zeros(shape))
        self.register_buffer("width", torch.ones(()))

    def forward(self, x: Tensor, batch: Tensor, *, known: Tensor) -> Tensor:
        """Cells, in this block, without the offsets of their batches."""
        points, corrected = self._points(x), x.clone()
        with torch.autocast(x.device.type, enabled=False):
            centres = self._points((self.middle + self.offsets) * known)
            for code, rows in enumerate(_rows_of(batch, len(self.offsets))):
                if len(rows):
                    belongs = _belonging(points[rows], centres[code], self.width)
                    corrected[rows] -= belongs @ self.offsets[code] * known
        return corrected

    def fit(self, x: Tensor, batch: NDArray[np.int64], *, seed: int) -> None:
        """Find clusters and offsets."""
        rows_of = [torch.from_numpy(batch == code) for code in range(len(self.offsets))]
        corrected = _compared_as_wholes(x, rows_of)
        points = self._points(corrected)
        width = _SOFTNESS * points.var(0, correction=0).sum().clamp_min(1e-12)
        centres = _first_centres(points, self.offsets.shape[1], seed=seed)
        for _ in range(_MOST_ROUNDS):
            belongs = _belonging(points, centres, width)
            centres = belongs.T @ points / belongs.sum(0).clamp_min(1e-12)[:, None]
            middle, offsets = _offsets(x, belongs, rows_of)
            before, corrected = corrected, _without(x, offsets, belongs, rows_of=rows_of)
            points = self._points(corrected)
            if (corrected - before).square().mean().sqrt() < _TOLERANCE:
                break
        self.width.copy_(width)
        self.offsets.copy_(offsets)
        self.middle.copy_(middle)

    def fit_query(self, x: Tensor, code: int, *, references: Tensor, known: Tensor) -> None:
        """Find the offsets of a batch that came after training.

        They are what sets its cells apart from the references of each cluster, as far as it
        exceeds chance. Clusters are first looked for among its cells as they are, and less one
        offset for all, as it may have fewer types than the others, or lie far from them. Of the
        two results, that is kept which moves cells the most alike, and least, and the nearest to
        the references.
        """
        others = references * known
        centres, width = self._points(self.middle.cpu().double() * known), self.width.cpu()
        there = _Clusters.of(others, _belonging(self._points(others), centres, width))

        def found_from(corrected: Tensor) -> tuple[float, Tensor]:
            for _ in range(_MOST_ROUNDS):
                belongs = _belonging(self._points(corrected), centres, width)
                offsets = _Clusters.of(x, belongs).offsets_from(there)
                before, corrected = corrected, x - belongs @ offsets
                if (corrected - before).square().mean().sqrt() < _TOLERANCE:
                    break
            return _left(x - corrected, corrected - belongs @ there.means), offsets

        starts = x, x - x.mean(0) + others.mean(0)
        _, offsets = min(map(found_from, starts), key=lambda result: result[0])
        self.offsets[code].copy_(offsets)

    def _points(self, x: Tensor) -> Tensor:
        return search_space(x, self.compared)


def _n_clusters(n_cells: int, n_batches: int) -> int:
    by_batches = max(_FEW_CLUSTERS, n_cells // (_CELLS_OF_A_BATCH * n_batches))
    return max(1, min(_MOST_CLUSTERS, by_batches, n_cells // _CELLS_OF_A_CLUSTER))


def _rows_of(batch: Tensor, n_batches: int) -> tuple[Tensor, ...]:
    """Rows of the cells of each batch, ascending; the device is waited for but once."""
    order = batch.argsort(stable=True)
    # Where the code before ends; those of unknown batches, -1, come first.
    before = torch.arange(-1, n_batches - 1, device=batch.device)
    starts = torch.searchsorted(batch[order], before, right=True).tolist()
    return order.tensor_split(starts)[1:]


def _belonging(points: Tensor, centres: Tensor, width: Tensor) -> Tensor:
    """How far each cell belongs to each cluster, shape ``(n, k)``; rows sum to 1."""
    nearness = points @ centres.T - centres.square().sum(1) / 2
    return torch.softmax(2 * nearness / width, dim=1)


def _first_centres(points: Tensor, n_clusters: int, *, seed: int) -> Tensor:
    with warnings.catch_warnings():
        # Of cells that repeat there are fewer clusters.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = KMeans(n_clusters, n_init=1, random_state=seed).fit(points.numpy())
    return torch.from_numpy(found.cluster_centers_)


def _compared_as_wholes(x: Tensor, rows_of: list[Tensor]) -> Tensor:
    """Cells without one offset for all of a batch, where clusters are first looked for.

    Batches that lie far apart would share no cluster. A batch of one type, as sorted cells are,
    differs from the others by that type, and stays where it is.
    """
    found = [rows for rows in rows_of if rows.any()]
    widths = torch.stack([x[rows, :_N_WIDEST].var(0, correction=0).sum() for rows in found])
    is_wide = widths >= _NARROW * widths.median()
    wide = [rows for rows, wide in zip(found, is_wide, strict=True) if wide]
    whole = x.new_ones(len(x), 1)
    return _without(x, _offsets(x, whole, wide)[1], whole, rows_of=wide)


def _without(x: Tensor, offsets: Tensor, belongs: Tensor, *, rows_of: list[Tensor]) -> Tensor:
    """Cells without the offsets of their batches, shape ``(n, m)``."""
    corrected = x.clone()
    for rows, of_batch in zip(rows_of, offsets, strict=True):
        corrected[rows] -= belongs[rows] @ of_batch
    return corrected


def _offsets(x: Tensor, belongs: Tensor, rows_of: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Middle of each cluster, ``(k, m)``, and offsets of batches from it, ``(b, k, m)``."""
    parts = [_Clusters.of(x[rows], belongs[rows]) for rows in rows_of]
    clusters = _Clusters(*(torch.stack(column) for column in zip(*parts, strict=True)))
    # Within batches, and of all together, as some have a cell or two in a cluster.
    variance = clusters.scatter.sum(0) / clusters.sizes.sum(0).clamp_min(1e-12)
    # Batches count alike, however many cells they have there, but for those with hardly any.
    present = clusters.present
    middle = (present * clusters.means).sum(0) / present.sum(0).clamp_min(1e-12)
    away = clusters.means - middle
    return middle, present * _beyond(2 * variance * clusters.error, away)


class _Clusters(NamedTuple):
    """Soft clusters of some cells: sizes, means, sums of squares about these, errors.

    Of shapes ``(k,)`` and, the means, ``(k, m)``; all with a leading axis for several batches.
    The error is that of a mean, squared, as a share of the variance (Kish 1965).
    """

    sizes: Tensor
    means: Tensor
    scatter: Tensor
    error: Tensor

    @classmethod
    def of(cls, x: Tensor, belongs: Tensor) -> _Clusters:
        sizes = belongs.sum(0)
        weights = sizes.clamp_min(1e-12)
        means = belongs.T @ x / weights[:, None]
        scatter = belongs.T @ x.square().sum(1) - sizes * means.square().sum(1)
        error = belongs.square().sum(0) / weights.square()
        return cls(sizes, means, scatter.clamp_min(0), error)

    @property
    def present(self) -> Tensor:
        """How far each counts, shape ``(k, 1)``; fewer cells than three do not in full."""
        return (self.sizes / _PRESENT).clamp_max(1)[..., None]

    def offsets_from(self, others: _Clusters) -> Tensor:
        """Offsets from the same clusters of other cells, shape ``(k, m)``."""
        n_cells = (self.sizes + others.sizes).clamp_min(1e-12)
        variance = (self.scatter + others.scatter) / n_cells
        chance = variance * (self.error + others.error)
        return self.present * _beyond(chance, self.means - others.means)


def _beyond(chance: Tensor, away: Tensor) -> Tensor:
    """Offsets as far as their squared lengths exceed what is expected by chance."""
    exceeds = 1 - chance / away.square().sum(-1).clamp_min(1e-12)
    return exceeds.clamp_min(0)[..., None] * away


def _left(moved: Tensor, away: Tensor) -> float:
    """How differently cells are moved, how far they then lie away, and a little how far moved."""
    left = moved.var(0, correction=0) + away.square().mean(0) + _WHOLE * moved.square().mean(0)
    return float(left.sum())
