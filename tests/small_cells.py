"""What the tests of scores share: small cells, and distances by the book."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

Array = NDArray[np.floating[Any]]


def far(one: Array, other: Array) -> Array:
    """All distances, from the definition."""
    return np.array([[np.sqrt(((a - b) ** 2).sum()) for b in other] for a in one])


def counts(rng: np.random.Generator, *, n: int = 60, d: int = 12) -> Array:
    """Cells of uneven depth whose genes go together in two programmes."""
    programme = rng.gamma(1.0, size=(n, 2)) @ rng.gamma(1.0, size=(2, d))
    return rng.poisson(programme).astype(float)


def logs_of_no_counts(counts: Any) -> Any:
    """Logarithms of counts per kilobase of transcript: no multiples of a read any more."""
    lengths = np.random.default_rng(0).uniform(0.5, 5, counts.shape[1])
    if sparse.issparse(counts):
        return (counts @ sparse.diags(1 / lengths)).log1p().tocsr().astype(np.float32)
    return np.log1p(counts / lengths).astype(np.float32)


def blobs(rng: np.random.Generator, *, spread: float, n: int = 120) -> tuple[Array, NDArray[Any]]:
    """Cells of four types in the plane, of which two lie close together."""
    centres = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [1.0, 5.0]])
    types = rng.integers(4, size=n)
    return centres[types] + spread * rng.normal(size=(n, 2)), np.array(list("dacb"))[types]


def write_counts(path: Path, sizes: Mapping[str, int]) -> Path:
    """An .h5ad file of types of such sizes, each with a profile of its own."""
    rng = np.random.default_rng(0)
    labels = np.repeat(list(sizes), list(sizes.values()))
    profile_of = {name: rng.gamma(0.7, size=40) for name in sizes}
    profiles = np.stack([profile_of[name] for name in labels])
    rate = 3 * profiles * rng.uniform(0.7, 1.4, size=(len(labels), 1)) + 0.1
    adata = AnnData(
        sparse.csr_matrix(rng.poisson(rate).astype(np.float32)),
        obs=pd.DataFrame(
            {"cell_type": pd.Categorical(labels)}, index=[f"c{i}" for i in range(len(labels))]
        ),
    )
    adata.write_h5ad(path)
    return path
