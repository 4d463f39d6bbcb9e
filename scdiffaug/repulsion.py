"""How much cells repel each other in the 2-D embedding, by the communities they belong to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics.pairwise import cosine_similarity

from scdiffaug.matrices import Rows

# Evens out the room of groups without tearing rare ones apart (benchmarks/NOTES.md, 24).
USUAL_BALANCE = 0.5
# Holds communities together and lets similar ones be near each other (experiment 37).
USUAL_RELATEDNESS = 0.3


@dataclass(frozen=True)
class Repulsion:
    r"""How much each cell repels every other cell.

    .. math:: R_{ij} \propto (s_a s_b)^{-b}\,(1 - r\cos(m_a, m_b))

    for cells i and j of communities a and b, of sizes s and mean inputs m. A community's cosine
    with itself is 1, and the factor 1 - r holds it together; similar ones may come closer.

    Parameters
    ----------
    communities
        Community of each cell, shape ``(n,)``.
    sizes
        Cells of each community, shape ``(k,)``.
    weights
        R of each pair of communities, shape ``(k, k)``.
    """

    communities: NDArray[np.int64]
    sizes: NDArray[np.int64]
    weights: NDArray[np.float32]

    @classmethod
    def fit(
        cls,
        inputs: NDArray[np.float32],
        communities: NDArray[np.int64],
        *,
        balance: float,
        relatedness: float,
    ) -> Repulsion:
        """Fit the weights to cells of known communities.

        Parameters
        ----------
        inputs
            What the encoder sees of the cells, centred, shape ``(n, n_components)``.
        communities
            Community of each cell, shape ``(n,)``.
        balance
            b; at 0 all cells repel alike, at 1 all communities do.
        relatedness
            r; at 0 it does not matter how alike communities are.
        """
        sizes = np.bincount(communities)
        by_size = sizes.astype(np.float64) ** -balance
        by_size /= np.average(by_size, weights=sizes)
        sums = np.zeros((len(sizes), inputs.shape[1]))
        np.add.at(sums, communities, inputs)
        weights = np.outer(by_size, by_size) * (1 - relatedness * cosine_similarity(sums))
        return cls(communities, sizes, weights.astype(np.float32))

    def among(self, cells: Rows) -> NDArray[np.float32]:
        """R of each pair of the cells, shape ``(m, m)``."""
        found = self.communities[cells]
        # Columns, then whole rows: ten times faster than both at once, at every step.
        return self.weights.take(found, axis=1)[found]
