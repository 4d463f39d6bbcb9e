"""What the tests of scores on made cells share: small cells, and distances by the book."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


def far(one: Array, other: Array) -> Array:
    """All distances, from the definition."""
    return np.array([[np.sqrt(((a - b) ** 2).sum()) for b in other] for a in one])


def counts(rng: np.random.Generator, *, n: int = 60, d: int = 12) -> Array:
    """Cells of uneven depth whose genes go together in two programmes."""
    programme = rng.gamma(1.0, size=(n, 2)) @ rng.gamma(1.0, size=(2, d))
    return rng.poisson(programme).astype(float)
