"""What the encoder sees of a cell: components without its batch's offset, moved to others'."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scdiffaug.batch_offsets import BatchOffsets
from scdiffaug.components import PrincipalAxes
from scdiffaug.features import FeatureSpace
from scdiffaug.matrices import Matrix, drawn_rows
from scdiffaug.neighborhood import NeighborMean, Within, compared_blocks
from scdiffaug.nn import FixedProjection
from scdiffaug.residuals import ResidualProjection, n_residual

# How far a cell is moved before it is embedded: 0 is the cell itself, 1 its neighbourhood.
_TO_NEIGHBORHOOD = 2 / 3


class EncoderInputs(nn.Module):
    """Principal components of cells, corrected for batches; training does not change them.

    Parameters
    ----------
    n_features
        Number of features of a cell.
    selected, space
        Positions of the features that the encoder sees, and the feature space of the cells.
    n_components
        Principal components of the selected features; of counts of genes, those of their
        residuals follow.
    n_batches, n_query_batches
        Number of batches whose offsets are taken off, 0 for none, and of those mapped later.
    n_references, n_neighbors
        Training cells that are kept as neighbours of other cells, and neighbours per cell.
    """

    selected: Tensor
    profile: Tensor

    def __init__(
        self,
        n_features: int,
        selected: Sequence[int],
        space: FeatureSpace,
        *,
        n_components: int,
        n_batches: int,
        n_query_batches: int,
        n_references: int,
        n_neighbors: int,
    ) -> None:
        super().__init__()
        self.space = space
        self.axes = FixedProjection(len(selected), n_components)
        self.residuals: ResidualProjection | None = None
        if further := n_residual(len(selected), n_components, sees_depth=space.sees_depth):
            self.residuals = ResidualProjection(len(selected), further)
        self.n_inputs = n_components + further
        blocks = compared_blocks(len(selected), n_components)
        self.offsets: BatchOffsets | None = None
        if n_batches:
            self.offsets = BatchOffsets(
                n_references,
                n_batches,
                self.n_inputs,
                blocks=blocks,
                n_query_batches=n_query_batches,
            )
        self.neighborhood = NeighborMean(
            n_references, self.n_inputs, blocks=blocks, n_neighbors=n_neighbors
        )
        self.register_buffer("selected", torch.as_tensor(selected))
        self.register_buffer("profile", torch.zeros(n_features))

    @torch.no_grad()
    def fit_profile(self, x: Matrix) -> None:
        """Keep each feature's mean share of a training cell's counts, or of its open peaks."""
        if self.space.is_counts:
            self.profile.copy_(torch.as_tensor(self.space.mean_shares(x)))

    @torch.no_grad()
    def fit_axes(self, axes: PrincipalAxes) -> None:
        """Take over the axes, and offsets of batches, that were fitted on the training cells."""
        for name in ("centre", "scale", "axes"):
            getattr(self.axes, name).copy_(torch.from_numpy(getattr(axes, name)))
        for mine, fitted in ((self.residuals, axes.residuals), (self.offsets, axes.offsets)):
            if mine is not None and fitted is not None:
                mine.load_state_dict(fitted.state_dict())

    @torch.no_grad()
    def fit_references(self, inputs: NDArray[np.float32]) -> None:
        """Keep the encoder inputs of training cells: of all, or of some drawn at random."""
        kept = self.neighborhood.references
        kept.copy_(torch.from_numpy(inputs[drawn_rows(len(inputs), len(kept))]))

    def fit_query(
        self, components: NDArray[np.float32], code: int, *, measured: Tensor | None
    ) -> None:
        """Find the offsets of a batch that came after training.

        Parameters
        ----------
        components
            Components of its cells, shape ``(n, n_inputs)``.
        code
            Its code.
        measured
            As in :meth:`components`.
        """
        assert self.offsets is not None
        references, known = self.neighborhood.references, self._known_of(measured)
        self.offsets.fit_query(components, code, references=references, known=known)

    def seen(self, cells: Tensor) -> Tensor:
        """What :meth:`forward` takes of cells of all features, as ``DataContract.seen``."""
        features = self.space.features_tensor(cells)[:, self.selected]
        if not self.space.sees_depth:
            return features
        return torch.cat([features, cells.sum(1, keepdim=True)], dim=1)

    def forward(self, seen: Tensor, batches: Tensor) -> Tensor:
        """Inputs of cells, shape ``(n, n_inputs)``.

        Parameters
        ----------
        seen
            The selected features, shape ``(n, k)``, and depths of counts (``DataContract.seen``).
        batches
            Codes of the cells' batches, shape ``(n,)``; -1 for one that is not known.
        """
        return self._corrected(self.components(seen, measured=None), batches)

    def around(
        self,
        seen: Tensor,
        batches: Tensor,
        *,
        rng: torch.Generator | None,
        within: Within | None,
    ) -> Tensor:
        """Mean inputs of the cells' neighbours, shape ``(n, n_inputs)``.

        ``rng`` varies the weight of each neighbour, and ``within`` says which it may be, as in
        :class:`NeighborMean`.
        """
        return self.neighborhood(self(seen, batches), rng=rng, within=within)

    def moved(self, seen: Tensor, batches: Tensor, *, measured: Tensor | None) -> Tensor:
        """Inputs two thirds of the way to the cells' neighbourhoods; see ``DiffAugModule.embed``.

        ``measured``: as in :meth:`components`.
        """
        known = self._known_of(measured)
        components = self.components(seen, measured=measured)
        inputs = self._corrected(components, batches, known=known)
        around = self.neighborhood(inputs, known=known)
        if known is not None:
            # Of a panel, components are the features themselves: some are not known at all.
            inputs = torch.where(known, inputs, around)
        return torch.lerp(inputs, around, _TO_NEIGHBORHOOD)

    def moved_references(self) -> Tensor:
        """Inputs two thirds of the way to their neighbourhoods, of the training cells kept."""
        references = self.neighborhood.references
        return torch.lerp(references, self.neighborhood(references), _TO_NEIGHBORHOOD)

    def components(self, seen: Tensor, *, measured: Tensor | None) -> Tensor:
        """Components of cells, not corrected for batches, shape ``(n, n_inputs)``.

        ``measured``: mask of the features that were measured, shape ``(d,)``; None for all.
        """
        features, depth = (seen[:, :-1], seen[:, -1]) if self.space.sees_depth else (seen, None)
        selected = None
        if measured is not None:
            share, selected = self.profile[measured].sum(), measured[self.selected]
            features = self.space.as_of_whole_cells(features, share)
            depth = None if depth is None else depth / share
        found = self.axes(features, measured=selected)
        if self.residuals is None:
            return found
        return torch.cat([found, self.residuals(features, depth, measured=selected)], dim=1)

    def _known_of(self, measured: Tensor | None) -> Tensor | None:
        """Mask of the components that are known of such cells; None for all."""
        if measured is None:
            return None
        projections = [self.axes]
        if self.residuals is not None:
            projections.append(self.residuals.projection)
        return torch.cat([part.known_of(measured[self.selected]) for part in projections])

    def _corrected(
        self, components: Tensor, batches: Tensor, *, known: Tensor | None = None
    ) -> Tensor:
        if self.offsets is None:
            return components
        return self.offsets(components, batches, known=known)
