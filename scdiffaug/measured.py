"""Cells that lack some of a model's features: what those that were measured say of the others."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import normalize
from torch import Tensor

from scdiffaug.features import FeatureSpace
from scdiffaug.matrices import Matrix


def mean_shares(x: Matrix, space: FeatureSpace) -> NDArray[np.floating[Any]]:
    """Mean share of each feature in a cell's counts, or in its open peaks, shape ``(d,)``.

    Parameters
    ----------
    x
        Counts, shape ``(n, d)``.
    space
        Their feature space.
    """
    shares = space.features(x) if space.kind == "peaks" else normalize(x, norm="l1")
    return np.asarray(shares.mean(0)).ravel()


def as_of_whole_cells(features: Tensor, share: Tensor, space: FeatureSpace) -> Tensor:
    """Features of cells as if the unmeasured ones had their usual share of the counts.

    Counts are read per 10,000 of a cell, or peaks as a share of all that are open, and a cell
    whose abundant genes were not measured would seem to express the others too much.

    Parameters
    ----------
    features
        Features that were measured, shape ``(n, k)``.
    share
        What all measured features have of a training cell's counts, on average.
    space
        Feature space of the cells.
    """
    if space.kind == "peaks":
        return features * share
    return (features.expm1() * share).log1p() if space.kind == "counts" else features
