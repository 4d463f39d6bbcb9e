"""What the tests of scores share: small cells, and distances by the book."""

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


def blobs(rng: np.random.Generator, *, spread: float, n: int = 120) -> tuple[Array, NDArray[Any]]:
    """Cells of four types in the plane, of which two lie close together."""
    centres = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [1.0, 5.0]])
    types = rng.integers(4, size=n)
    return centres[types] + spread * rng.normal(size=(n, 2)), np.array(list("dacb"))[types]
