"""What a matrix holds, and which features of it the encoder sees, and how."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import scanpy as sc
import torch
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse
from sklearn.preprocessing import StandardScaler, normalize

from scdiffaug import normalized
from scdiffaug._checks import check_choice
from scdiffaug._threads import torch_threads_kept
from scdiffaug.matrices import Bounds, Matrix, StoredMatrix, row_blocks, stored_values

Kind = Literal["counts", "peaks", "log", "raw"]

# The cofactor cytometrists use for mass cytometry.
_ARCSINH_COFACTOR = 5.0
# Share of the values beyond which those that may be negative are intensities.
_MANY_LARGE = 0.1
# A few variable genes say what a cell is, but it takes many open peaks.
_N_TOP_GENES, _N_TOP_PEAKS = 2000, 20_000
# Chromosome, start and end, as in "chr1:9776-10668".
_PEAK_NAME = re.compile(r"[\w.]+[:_-]\d+[_-]\d+")
# Peaks have a smaller share of values above zero; panels of proteins have fewer zeros.
_MOST_OPEN = 0.5
# Batches with fewer cells have no say in which features vary.
_FEWEST_OF_BATCH = 20
_TOO_MANY_READS = 2**31


@dataclass(frozen=True)
class FeatureSpace:
    """What a matrix holds, and how the encoder and a generator of values see it.

    Parameters
    ----------
    kind
        ``"counts"``: seen as log1p per 10,000 of the cell. ``"peaks"``: counts too, but the
        encoder sees which peaks are open. ``"log"``: non-negative logarithms, seen as
        they are. ``"raw"``: any real values, seen as they are or by arcsinh.
    cofactor
        Divides raw intensities before arcsinh; ``None`` leaves the values alone.
    scale
        Scale on which the AnnData holds normalised counts in place of counts, if it does.
    is_binary
        Whether counts are 0 or 1, as of peaks that are open or not.
    has_ends
        Whether counts of peaks are of the ends of fragments.
    """

    kind: Kind
    cofactor: float | None = None
    scale: normalized.LogScale | None = None
    is_binary: bool = False
    has_ends: bool = False

    @classmethod
    def decide(
        cls, x: Matrix | StoredMatrix, requested: str = "auto", *, names: Sequence[str] = ()
    ) -> FeatureSpace:
        """Choose the space from values and names, or check the requested one against the values.

        Raises
        ------
        ValueError
            If the request is unknown, or ``"counts"`` or ``"peaks"`` where values are neither
            whole numbers nor normalised counts, or any but ``"raw"`` where values are negative,
            or ``"log"`` where they are too large.
        """
        check_choice("feature_space", requested, ("auto", *get_args(Kind)))
        found = _bounds(x)
        may_be_counts = requested in ("auto", "counts", "peaks") and _guess(found) == "log"
        if may_be_counts and (scale := normalized.find_scale(x)) is not None:
            some = normalized.recover_counts(x[row_blocks(x)[0]], scale)
            decided = cls.decide(some, requested, names=names)
            # Some cells do not say what the others hold.
            return replace(decided, scale=scale, is_binary=False)
        may_be_peaks = requested in ("auto", "peaks") and _guess(found) == "counts"
        held = _peaks_hold(x) if may_be_peaks else None
        if requested == "auto":
            requested = _guess(found)
            if requested == "counts" and (held is not None or are_regions(names)):
                requested = "peaks"
        _check_fits(requested, found)
        is_intensity = requested == "raw" and _are_intensities(x, found)
        return cls(
            requested,  # type: ignore[arg-type]
            cofactor=_ARCSINH_COFACTOR if is_intensity else None,
            is_binary=requested in ("counts", "peaks") and found.highest == 1,
            has_ends=held == "ends",
        )

    @property
    def description(self) -> str:
        """The kind, for messages."""
        kind = f"{self.kind} (ends of fragments)" if self.has_ends else self.kind
        return kind if self.scale is None else f"{kind} normalised as {self.scale}"

    def on_scale_of(self, x: Matrix | StoredMatrix) -> FeatureSpace:
        """The same space, on the scale on which these values hold counts, if it can be told."""
        is_log = self.is_counts and _guess(_bounds(x)) == "log"
        return replace(self, scale=normalized.likely_scale(x, self.scale) if is_log else None)

    def read(self, x: Matrix | StoredMatrix) -> Matrix | StoredMatrix:
        """Values of this kind from those that an AnnData holds, checked.

        Raises
        ------
        ValueError
            If they are not of the kind that the space was chosen for.
        """
        if self.scale is None:
            _check_fits(self.kind, _bounds(x))
            return x
        if _guess(_bounds(x)) != "log":
            raise ValueError(f"found {_guess(_bounds(x))!r} values")
        recover = partial(normalized.recover_counts, scale=self.scale)
        return x.map(recover).surveyed() if isinstance(x, StoredMatrix) else recover(x)

    @property
    def is_counts(self) -> bool:
        """Whether values are counts, of genes or of peaks."""
        return self.kind in ("counts", "peaks")

    @property
    def sees_depth(self) -> bool:
        """Whether the encoder sees a cell's counts in all beside its features: those of genes."""
        return self.kind == "counts"

    def features(self, x: Matrix) -> Matrix:
        """Values from which the encoder's components are made; ``x`` is left unchanged.

        For peaks, each open one's share of all that are open in the cell (term frequency); else
        as in :meth:`transform`.
        """
        if self.kind != "peaks":
            return self.transform(x)
        return normalize((x > 0).astype(np.float32), norm="l1")

    def features_tensor(self, x: torch.Tensor) -> torch.Tensor:
        """:meth:`features` of generated cells, shape ``(n, d)``."""
        if self.kind != "peaks":
            return self.transform_tensor(x)
        return torch.nn.functional.normalize((x > 0).float(), p=1, dim=1)

    def mean_shares(self, x: Matrix) -> NDArray[np.floating[Any]]:
        """Mean share of each feature in a cell's counts, or in its open peaks, shape ``(d,)``."""
        shares = self.features(x) if self.kind == "peaks" else normalize(x, norm="l1")
        return np.asarray(shares.mean(0)).ravel()

    def as_of_whole_cells(self, features: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        """:meth:`features` as if those that were not measured had their usual share of a cell.

        Counts are read per 10,000 of a cell, or peaks as a share of all that are open, and a cell
        whose abundant genes were not measured would seem to express the others too much.

        Parameters
        ----------
        features
            Features that were measured, shape ``(n, k)``.
        share
            What all measured features have of a training cell's counts, on average.
        """
        if self.kind == "peaks":
            return features * share
        return (features.expm1() * share).log1p() if self.kind == "counts" else features

    def transform(self, x: Matrix) -> Matrix:
        """Values as they are compared and plotted; ``x`` is left unchanged."""
        if self.is_counts:
            cells = AnnData(x.copy())
            with torch_threads_kept():
                sc.pp.normalize_total(cells, target_sum=1e4)
                sc.pp.log1p(cells)
            return cells.X
        if self.cofactor is None:
            return x
        if sparse.issparse(x):
            # SciPy would divide in double precision.
            return sparse.csr_matrix((self.transform(x.data), x.indices, x.indptr), x.shape)  # type: ignore[union-attr]
        return np.arcsinh(x / np.float32(self.cofactor))

    def transform_tensor(self, x: torch.Tensor) -> torch.Tensor:
        """:meth:`transform` of generated cells, shape ``(n, d)``; real values already are."""
        if not self.is_counts:
            return x
        return torch.log1p(x * (1e4 / x.sum(1, keepdim=True).clamp_min(1)))

    def inverse(self, x: torch.Tensor) -> torch.Tensor:
        """Values of generated cells in the AnnData's own space, shape ``(n, d)``."""
        if self.kind == "log":
            return x.clamp_min(0)
        return x if self.cofactor is None else x.sinh() * self.cofactor


def _bounds(x: Matrix | StoredMatrix) -> Bounds:
    return x.bounds if isinstance(x, StoredMatrix) else Bounds.of(x)


def _guess(found: Bounds) -> Kind:
    if found.lowest < 0:
        return "raw"
    if found.is_whole and found.highest < _TOO_MANY_READS:
        return "counts"
    return "log" if found.highest <= normalized.LARGEST_LOG_VALUE else "raw"


def _are_intensities(x: Matrix | StoredMatrix, found: Bounds) -> bool:
    """Whether values are large; those of cytometers may be negative, and so are scaled ones.

    Of scaled values, which have a deviation of 1, hardly any are above the cofactor.
    """
    if found.highest <= normalized.LARGEST_LOG_VALUE:
        return False
    if found.lowest >= 0:
        return True
    some = x[row_blocks(x)[0]]
    n_large = np.count_nonzero(stored_values(some) > _ARCSINH_COFACTOR)
    return bool(n_large > _MANY_LARGE * some.shape[0] * some.shape[1])


def _check_fits(requested: str, found: Bounds) -> None:
    """Raise ValueError where values are not what was asked for."""
    if requested != "raw" and found.lowest < 0:
        raise ValueError(
            f"feature_space={requested!r} needs non-negative values, found {found.lowest:g}: pass "
            "raw counts (layer=...) or feature_space='raw'."
        )
    if requested in ("counts", "peaks") and _guess(found) != "counts":
        what = f"{found.highest:g}, too many reads" if found.is_whole else "fractions"
        raise ValueError(
            f"feature_space={requested!r} needs whole numbers, found {what}: pass the layer that "
            "holds raw counts, round estimated ones (np.rint), or leave feature_space out."
        )
    if requested == "log" and found.highest > normalized.LARGEST_LOG_VALUE:
        raise ValueError(
            f"feature_space='log' needs logarithms, found {found.highest:g}: call sc.pp.log1p, or "
            "pass feature_space='raw'."
        )


def are_regions(names: Sequence[str]) -> bool:
    """Whether most features are named as regions of the genome."""
    are = [bool(_PEAK_NAME.fullmatch(name)) for name in names]
    return sum(are) > len(are) / 2


def _peaks_hold(x: Matrix | StoredMatrix) -> Literal["ends", "open"] | None:
    """What counts are of if they are of peaks, as far as they tell; None for counts of genes.

    Most values of peaks are zero. A fragment has two ends, so where ends are counted (10x
    Genomics) 2 is more frequent than 1 and 3 (Martens et al. 2023); where peaks are open or not,
    1 is the only count. Counts of genes of which most are zero are mostly 1, but not all of them.
    """
    some = x[row_blocks(x)[0]]
    values = stored_values(some)
    n_open = np.count_nonzero(values)
    if not 0 < n_open < _MOST_OPEN * some.shape[0] * some.shape[1]:
        return None
    one, two, three = (np.count_nonzero(values == number) for number in (1, 2, 3))
    if two > max(one, three):
        return "ends"
    return "open" if one == n_open else None


def _most_open(x: Matrix, n_top: int) -> NDArray[np.int64]:
    """Positions of the peaks open in the most cells, and in at least one, ascending."""
    n_open = np.asarray((x > 0).sum(0)).ravel()
    most = np.argsort(-n_open, kind="stable")[:n_top]
    return np.sort(most[n_open[most] > 0])


def _most_varying(x: Matrix, n_top: int, batch: Sequence[Any] | None) -> NDArray[np.int64]:
    """Positions of the features of largest variance within batches, ascending.

    Scanpy's dispersions are of exponentials, which mean nothing for scaled values and residuals.
    """
    codes = (
        np.zeros(x.shape[0], dtype=int) if batch is None else pd.factorize(np.asarray(batch))[0]
    )
    weights = np.bincount(codes) / len(codes)
    within = [StandardScaler(with_mean=False).fit(x[codes == k]).var_ for k in range(len(weights))]
    return np.sort(np.argsort(-(weights @ np.stack(within)), kind="stable")[:n_top])


def _any_varies(x: Matrix) -> bool:
    lowest, highest = x.min(0), x.max(0)
    if sparse.issparse(x):
        lowest, highest = lowest.toarray(), highest.toarray()
    return bool((highest > lowest).any())


def select_features(
    x: Matrix, space: FeatureSpace, *, n_top: int | None, batch: Sequence[Any] | None
) -> NDArray[np.int64]:
    """Positions of the most variable features, ascending; all if there are no more.

    Scanpy's ``highly_variable_genes`` chooses them on logarithms, within batches if these are
    given. Raw values are chosen by their variance, and peaks by the number of cells in which they
    are open. The default is 2,000 features, or 20,000 peaks.

    Raises
    ------
    ValueError
        If no feature varies.
    """
    seen = space.transform(x)
    if not _any_varies(space.features(x) if space.kind == "peaks" else seen):
        raise ValueError(
            f"No feature of adata varies among its {x.shape[0]} cells: pass cells that differ."
        )
    n_top = n_top or (_N_TOP_PEAKS if space.kind == "peaks" else _N_TOP_GENES)
    if x.shape[1] <= n_top:
        return np.arange(x.shape[1])
    if space.kind == "peaks":
        return _most_open(x, n_top)
    if space.kind == "raw":
        return _most_varying(seen, n_top, batch)
    cells = AnnData(seen) if batch is None else _of_large_batches(seen, np.asarray(batch))
    # Silences scanpy's advice about log1p: the transform is known.
    cells.uns["log1p"] = {"base": None}
    with warnings.catch_warnings(), torch_threads_kept():
        # It warns if fewer features than n_top vary at all: then all of those are taken.
        warnings.filterwarnings("ignore", message=".*> number of normalized dispersions")
        genes = sc.pp.highly_variable_genes(
            cells,
            n_top_genes=n_top,
            batch_key="batch" if "batch" in cells.obs else None,
            inplace=False,
        )
    return np.flatnonzero(genes["highly_variable"].to_numpy())


def _of_large_batches(x: Matrix, batch: NDArray[Any]) -> AnnData:
    """Cells of batches large enough to compare dispersions; if there are none, all as one."""
    codes, _ = pd.factorize(batch)
    is_large = np.bincount(codes)[codes] >= _FEWEST_OF_BATCH
    if not is_large.any():
        return AnnData(x)
    cells = AnnData(x[is_large])
    # Made from values, not categories: one without cells would stop scanpy.
    cells.obs["batch"] = pd.Categorical(batch[is_large])
    return cells
