"""How much cells push each other away in the plane, by the communities they are of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics.pairwise import cosine_similarity

from scdiffaug.matrices import Rows

# What evens out the room of groups without tearing rare ones apart (benchmarks/NOTES.md, 24).
USUAL_BALANCE = 0.5
# What holds communities together and lets alike ones be near (experiment 37).
USUAL_RELATEDNESS = 0.3


@dataclass(frozen=True)
class Repulsion:
    r"""How much each cell repels each other one.

    .. math:: R_{ij} \propto (s_a s_b)^{-b}\,(1 - r\cos(m_a, m_b))

    for cells i and j of communities a and b, of sizes s and mean inputs m. As its cosine with
    itself is 1, each community is held together, by 1 - r; alike ones may come closer.

    Parameters
    ----------
    communities
        That of each cell, shape ``(n,)``.
    sizes
        Cells of each community, shape ``(k,)``.
    weights
        R of each two communities, shape ``(k, k)``.
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
        """Weights of cells of known communities.

        Parameters
        ----------
        inputs
            What the encoder sees of the cells, centred, shape ``(n, n_components)``.
        communities
            Shape ``(n,)``.
        balance
            b; at 0 all cells repel alike, at 1 all communities do.
        relatedness
            r; at 0 it is of no matter how alike communities are.
        """
        sizes = np.bincount(communities)
        by_size = sizes.astype(np.float64) ** -balance
        by_size /= np.average(by_size, weights=sizes)
        sums = np.zeros((len(sizes), inputs.shape[1]))
        np.add.at(sums, communities, inputs)
        weights = np.outer(by_size, by_size) * (1 - relatedness * cosine_similarity(sums))
        return cls(communities, sizes, weights.astype(np.float32))

    def among(self, cells: Rows) -> NDArray[np.float32]:
        """R of each two of the cells, shape ``(m, m)``."""
        found = self.communities[cells]
        # Columns, then whole rows: ten times faster than both at once, at every step.
        return self.weights.take(found, axis=1)[found]
