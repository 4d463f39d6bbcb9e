"""Components of Pearson residuals of counts, by which cells are compared beside logarithms."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch import Tensor, nn

from scdiffaug.matrices import Matrix, to_dense
from scdiffaug.nn import MOST_DEVIATIONS, FixedProjection

# More of them hold more noise (benchmarks/NOTES.md, 66).
_N_COMPONENTS = 20
# Of the negative binomial, for all genes, as in scanpy.
_THETA = 100.0
_SMALLEST_DEVIATION = 1e-6


def n_residual(n_features: int, n_components: int, *, sees_depth: bool) -> int:
    """How many components of residuals follow those of logarithms; none for a small panel."""
    return min(_N_COMPONENTS, n_components) if sees_depth and n_features > n_components else 0


class ResidualProjection(nn.Module):
    r"""Principal components of Pearson residuals (Lause et al. 2021); training moves none.

    Of a gene with the share p of all reads, a cell of n reads is expected to have
    :math:`\mu = np`; its residual is :math:`(x - \mu) / \sqrt{\mu + \mu^2 / \theta}`, clipped at
    ten. Logarithms of a shallow cell are noisier than those of a deep one and lie elsewhere, these
    hardly do. Components are divided by one standard deviation, that of them all.

    Parameters
    ----------
    n_input, n_output
        Number of features and of components.
    """

    profile: Tensor

    def __init__(self, n_input: int, n_output: int) -> None:
        super().__init__()
        self.register_buffer("profile", torch.zeros(n_input))
        self.projection = FixedProjection(n_input, n_output)

    @torch.no_grad()
    def fit(self, seen: Matrix, *, seed: int) -> None:
        """Find the axes of training cells, or of some that stand for all.

        Parameters
        ----------
        seen
            Logarithms of counts per 10,000, and counts in all, shape ``(n, n_input + 1)``.
        seed
            Seed of the decomposition.
        """
        cells = torch.from_numpy(to_dense(seen))
        features, depth = cells[:, :-1], cells[:, -1]
        shares = features.expm1() / 1e4
        self.profile.copy_(depth @ shares / depth.sum())
        residuals = pearson_residuals(features, depth, self.profile).numpy()
        pca = PCA(self.projection.axes.shape[1], random_state=seed).fit(residuals)
        axes = pca.components_.T / np.sqrt(pca.explained_variance_.mean())
        self.projection.centre.copy_(torch.from_numpy(pca.mean_))
        self.projection.axes.copy_(torch.from_numpy(axes))

    def forward(
        self, features: Tensor, depth: Tensor, *, measured: Tensor | None = None
    ) -> Tensor:
        """Components of cells, shape ``(n, n_output)``.

        Parameters
        ----------
        features
            Logarithms of counts per 10,000, shape ``(n, n_input)``, or ``measured`` ones alone.
        depth
            Counts of each cell in all, shape ``(n,)``.
        measured
            As in :class:`~scdiffaug.nn.FixedProjection`.
        """
        profile = self.profile if measured is None else self.profile[measured]
        residuals = pearson_residuals(features, depth, profile)
        return self.projection(residuals, measured=measured)

    @torch.no_grad()
    def transform(self, seen: NDArray[np.float32]) -> NDArray[np.float32]:
        """The same of an array of logarithms and, in its last column, counts in all."""
        cells = torch.from_numpy(seen)
        return self(cells[:, :-1], cells[:, -1]).numpy()


def pearson_residuals(features: Tensor, depth: Tensor, profile: Tensor) -> Tensor:
    """Clipped residuals of counts, shape ``(n, k)``, whose logarithms per 10,000 are given."""
    expected = depth[:, None] * profile
    deviation = (expected + expected.square() / _THETA).sqrt_().clamp_min_(_SMALLEST_DEVIATION)
    counts = features.expm1() * (depth / 1e4)[:, None]
    return (counts - expected).div_(deviation).clamp_(-MOST_DEVIATIONS, MOST_DEVIATIONS)
