"""What a matrix holds, how the networks see it, and which features the encoder sees."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import pandas as pd
import scanpy as sc
import torch
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse
from sklearn.decomposition import PCA

Kind = Literal["counts", "log", "raw"]
Matrix: TypeAlias = NDArray[np.float32] | sparse.csr_matrix

# Log-normalised values stay below log1p of a cell's whole library; intensities do not.
_LARGEST_LOG_VALUE = 30.0
# The cofactor cytometrists use for mass cytometry.
_ARCSINH_COFACTOR = 5.0


def to_dense(x: Matrix) -> NDArray[np.float32]:
    """A dense or CSR matrix as a dense one."""
    return x.toarray() if isinstance(x, sparse.csr_matrix) else x


def stored_values(x: Matrix) -> NDArray[np.float32]:
    """All values of a dense matrix, the stored ones of a CSR matrix."""
    return x.data if isinstance(x, sparse.csr_matrix) else x


@dataclass(frozen=True)
class FeatureSpace:
    """What a matrix holds, and how the networks see it.

    Parameters
    ----------
    kind
        ``"counts"``: seen as log1p per 10,000 of the cell. ``"log"``: non-negative logarithms,
        seen as they are. ``"raw"``: any real values, seen as they are or by arcsinh.
    cofactor
        Divides raw intensities before arcsinh; ``None`` leaves the values alone.
    """

    kind: Kind
    cofactor: float | None = None

    @classmethod
    def decide(cls, x: Matrix, requested: str = "auto") -> FeatureSpace:
        """Choose the space from the values, or check the requested one against them.

        Raises
        ------
        ValueError
            If the request is unknown, or ``"counts"`` where values are not whole numbers, or
            ``"counts"`` or ``"log"`` where values are negative.
        """
        if requested not in ("auto", *get_args(Kind)):
            raise ValueError(
                f"feature_space={requested!r} is unknown: use 'auto', 'counts', 'log' or 'raw'."
            )
        values = stored_values(x)
        lowest, highest = float(values.min(initial=0)), float(values.max(initial=0))
        is_whole = bool((values == np.rint(values)).all())
        if requested == "auto":
            requested = _guess(lowest, highest, is_whole=is_whole)
        if requested != "raw" and lowest < 0:
            raise ValueError(
                f"feature_space={requested!r} needs non-negative values, found {lowest:g}: pass "
                "raw counts (layer=...) or feature_space='raw'."
            )
        if requested == "counts" and not is_whole:
            raise ValueError(
                "feature_space='counts' needs whole numbers, found fractions: pass the layer "
                "that holds raw counts, or feature_space='log'."
            )
        is_intensity = requested == "raw" and lowest >= 0 and highest > _LARGEST_LOG_VALUE
        return cls(requested, _ARCSINH_COFACTOR if is_intensity else None)  # type: ignore[arg-type]

    def transform(self, x: Matrix) -> Matrix:
        """Values as the networks see them; ``x`` is left unchanged."""
        if self.kind == "counts":
            cells = AnnData(x.copy())
            sc.pp.normalize_total(cells, target_sum=1e4)
            sc.pp.log1p(cells)
            return cells.X
        if self.cofactor is None:
            return x
        return np.arcsinh(x / np.float32(self.cofactor))

    def transform_tensor(self, x: torch.Tensor) -> torch.Tensor:
        """:meth:`transform` of generated cells, shape ``(n, d)``; real values already are."""
        if self.kind != "counts":
            return x
        return torch.log1p(x * (1e4 / x.sum(1, keepdim=True).clamp_min(1)))

    def inverse(self, x: Matrix) -> Matrix:
        """Values of generated cells in the AnnData's own space."""
        if self.kind == "log":
            return np.maximum(x, 0)
        return x if self.cofactor is None else np.sinh(x) * np.float32(self.cofactor)


def _guess(lowest: float, highest: float, *, is_whole: bool) -> Kind:
    if lowest < 0:
        return "raw"
    if is_whole:
        return "counts"
    return "log" if highest <= _LARGEST_LOG_VALUE else "raw"


def select_features(
    x: Matrix, space: FeatureSpace, *, n_top: int, batch: Sequence[Any] | None
) -> NDArray[np.int64]:
    """Positions of the most variable features, ascending; all where there are not more.

    Scanpy's ``highly_variable_genes`` on transformed values, within batches where they are given.
    """
    if x.shape[1] <= n_top:
        return np.arange(x.shape[1])
    cells = AnnData(space.transform(x))
    # Silences scanpy's advice about log1p: the transform is known.
    cells.uns["log1p"] = {"base": None}
    if batch is not None:
        cells.obs["batch"] = pd.Categorical(batch)
    with warnings.catch_warnings():
        # Fewer features than n_top vary at all: then all of those are taken.
        warnings.filterwarnings("ignore", message=".*> number of normalized dispersions")
        genes = sc.pp.highly_variable_genes(
            cells, n_top_genes=n_top, batch_key=None if batch is None else "batch", inplace=False
        )
    return np.flatnonzero(genes["highly_variable"].to_numpy())


def principal_components(x: Matrix, *, n_components: int = 50, seed: int) -> NDArray[np.float32]:
    """Principal components of encoder inputs, in which neighbours are searched."""
    n_components = min(n_components, *(size - 1 for size in x.shape))
    dense = to_dense(x)
    if n_components < 1:
        return dense
    return PCA(n_components, random_state=seed).fit_transform(dense)
