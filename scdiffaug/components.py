"""Principal components of features, which the encoder sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.decomposition import PCA

from scdiffaug.batch_offsets import BatchOffsets
from scdiffaug.matrices import SUBSAMPLED, Matrix, row_blocks, to_dense
from scdiffaug.neighborhood import compared_blocks, search_space
from scdiffaug.nn import MOST_DEVIATIONS
from scdiffaug.residuals import ResidualProjection

# Components that the encoder sees, by default.
N_COMPONENTS = 50


@dataclass(frozen=True)
class PrincipalAxes:
    """Projection from features to the principal components that the encoder sees.

    Parameters
    ----------
    centre, scale
        Mean of each feature and what its values are divided by, shape ``(k,)``.
    axes
        Projection, shape ``(k, m)``.
    residuals
        Further components, of counts of genes: those of their Pearson residuals.
    offsets
        What is taken off the components for a cell's batch, if batches are known.
    """

    centre: NDArray[np.float32]
    scale: NDArray[np.float32]
    axes: NDArray[np.float32]
    residuals: ResidualProjection | None = None
    offsets: BatchOffsets | None = None

    @classmethod
    def fit(
        cls, features: Matrix, *, n_components: int = N_COMPONENTS, seed: int, tf_idf: bool = False
    ) -> PrincipalAxes:
        r"""Axes of standardised features, of at most 20,000 cells drawn at random.

        Standardised values are clipped at ten, and components divided by one standard deviation,
        that of them all. A panel of no more features than components is only centred and divided.

        Parameters
        ----------
        features
            Shape ``(n, k)``, on the scale the networks see.
        n_components
            Largest number of axes.
        seed
            Seed of the draw and of the decomposition.
        tf_idf
            Whether features are term frequencies, which are weighted by inverse document
            frequency, :math:`\log(1 + n / n_{open})`, and not standardised: latent semantic
            indexing (Cusanovich et al. 2015), except that features are centred.
        """
        if features.shape[0] > SUBSAMPLED:
            rng = np.random.default_rng(seed)
            features = features[rng.choice(features.shape[0], SUBSAMPLED, replace=False)]
        if tf_idf and features.shape[1] > n_components:
            return cls._of_frequencies(features, n_components=n_components, seed=seed)
        dense = to_dense(features)
        centre, n_features = dense.mean(0), dense.shape[1]
        if n_features <= n_components:
            spread = np.full(n_features, max(float((dense - centre).std()), 1e-3), np.float32)
            return cls(centre, spread, np.eye(n_features, dtype=np.float32))
        scale = np.maximum(dense.std(0), np.float32(1e-3))
        standardised = _standardised(dense, centre, scale)
        pca = PCA(min(n_components, len(dense) - 1), random_state=seed).fit(standardised)
        spread = np.sqrt(pca.explained_variance_.mean())
        return cls(centre, scale, (pca.components_.T / spread).astype(np.float32))

    @classmethod
    def _of_frequencies(cls, features: Matrix, *, n_components: int, seed: int) -> PrincipalAxes:
        frequencies = sparse.csr_matrix(features)
        n_open = np.asarray((frequencies > 0).sum(0)).ravel()
        weights = np.log1p(frequencies.shape[0] / np.maximum(n_open, 1))
        weighted = frequencies @ sparse.diags(weights.astype(np.float32))
        most = min(n_components, frequencies.shape[0] - 1)
        pca = PCA(most, svd_solver="arpack", random_state=seed).fit(weighted)
        spread = np.sqrt(pca.explained_variance_.mean())
        centre = np.asarray(frequencies.mean(0), dtype=np.float32).ravel()
        axes = (pca.components_.T / spread).astype(np.float32)
        return cls(centre, (1 / weights).astype(np.float32), axes)

    def transform(self, seen: Matrix) -> NDArray[np.float32]:
        """Components of cells, shape ``(n, m)``, then those of their residuals.

        ``seen``: features and, for residuals, the counts of each cell in a last column.
        """
        parts = [self._components(to_dense(seen[rows])) for rows in row_blocks(seen)]
        return np.concatenate(parts)

    def _components(self, seen: NDArray[np.float32]) -> NDArray[np.float32]:
        standardised = _standardised(seen[:, : len(self.axes)], self.centre, self.scale)
        found = standardised @ self.axes
        if self.residuals is None:
            return found
        return np.hstack([found, self.residuals.transform(seen)])

    @property
    def blocks(self) -> tuple[slice, ...]:
        """Components by whose directions cells are compared."""
        return compared_blocks(*self.axes.shape)

    def search_space(self, components: NDArray[np.float32]) -> NDArray[np.float32]:
        """Points among which neighbours are searched, as in :mod:`scdiffaug.neighborhood`."""
        points = torch.from_numpy(components)
        return search_space(points, self.blocks).numpy()


def _standardised(
    dense: NDArray[np.float32], centre: NDArray[np.float32], scale: NDArray[np.float32]
) -> NDArray[np.float32]:
    return np.clip((dense - centre) / scale, -MOST_DEVIATIONS, MOST_DEVIATIONS)
