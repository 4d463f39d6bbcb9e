"""Whether genes of augmented cells look like those of real ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from scdiffaug import data, metrics
from scdiffaug._checks import check_cells, check_choice, check_whole
from scdiffaug._colours import HIGHLIGHT, OKABE_ITO
from scdiffaug._drawing import draw_agreement
from scdiffaug.contract import layer_or_x
from scdiffaug.features import FeatureSpace
from scdiffaug.matrices import Matrix, Rows, StoredMatrix, subsample
from scdiffaug.metrics import genes
from scdiffaug.pl._figure import panels, result

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class _Statistic:
    """A number for each gene, and a score of how well augmented cells agree with real ones."""

    of: Callable[[Matrix], Array]
    score: Callable[[Matrix, Matrix], float]
    title: str


_STATISTICS: Mapping[str, _Statistic] = {
    "mean": _Statistic(genes.means, metrics.gene_mean_correlation, "mean, r = {:.3f}"),
    "variance": _Statistic(
        genes.variances, metrics.gene_variance_correlation, "variance, r = {:.3f}"
    ),
    "zero_share": _Statistic(
        genes.zero_shares, metrics.gene_zero_share_difference, "zeros, difference {:.3f}"
    ),
}


def gene_agreement(
    adata: AnnData,
    new: AnnData,
    *,
    layer: str | None = None,
    keys: Sequence[str] = tuple(_STATISTICS),
    n_names: int = 3,
    color: str = OKABE_ITO[0],
    ax: Axes | Sequence[Axes] | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> list[Axes] | Figure | None:
    """Draw a statistic of each gene in augmented cells against the same one in real cells.

    Each gene is a point, on the grey line where both agree. The genes furthest from the line are
    named, the furthest first. Titles give the Pearson correlation over genes or, for shares of
    zeros, the mean difference. Values are compared as the model sees them, counts as log1p of
    10,000 counts per cell. Of more than 20,000 cells on disk, 20,000 are drawn at random.

    Parameters
    ----------
    adata, new
        Real and augmented cells, the genes of ``adata`` in both; left unchanged. If all new cells
        name sources in ``adata``, and not a single one, they are compared with these, each as
        often as it was one: new cells of one type are not compared with all types.
    layer
        Layer of both; by default X.
    keys
        Statistics to draw, a panel each, out of ``"mean"``, ``"variance"`` and ``"zero_share"``.
    n_names
        How many genes are named in each panel.
    color
        Colour of the genes.
    ax
        Where to draw, one for each key; by default a new figure.
    show, return_fig
        As in :func:`embedding`.

    Returns
    -------
    The figure if ``return_fig``, nothing if it was shown, else the axes.

    Raises
    ------
    KeyError
        If the layer is missing.
    TypeError
        If an argument is of the wrong type.
    ValueError
        If genes are missing in ``new`` or its values are of another kind, if a key is unknown, or
        if there are not as many axes as keys, or no keys.

    Examples
    --------
    >>> import scdiffaug
    >>> adata = scdiffaug.datasets.pbmc68k_reduced()
    >>> axes = scdiffaug.pl.gene_agreement(adata, adata[::2], show=False)
    >>> [ax.get_title() for ax in axes][2]
    'zeros, difference 0.012'
    """
    _check_keys(keys)
    check_whole("n_names", n_names, at_least=0)
    real, made = _as_seen(adata, new, layer)
    axes = panels(ax, len(keys), of="keys")
    for panel, key in zip(axes, keys, strict=True):
        statistic = _STATISTICS[key]
        values = statistic.of(real), statistic.of(made)
        size = float(np.clip(4000 / len(values[0]), 3, 15))
        draw_agreement(panel, *values, color=color, size=size)
        _name_furthest(panel, *values, names=adata.var_names, n_names=n_names)
        panel.set_title(statistic.title.format(statistic.score(real, made)))
    return result(axes, new=ax is None, show=show, return_fig=return_fig)


def _check_keys(keys: Sequence[str]) -> None:
    if isinstance(keys, str):
        raise TypeError(f"keys={keys!r} must be a list of names: pass [{keys!r}].")
    for key in keys:
        check_choice("keys", key, list(_STATISTICS))


def _as_seen(adata: AnnData, new: AnnData, layer: str | None) -> tuple[Matrix, Matrix]:
    """Values of the same genes of both, as the encoder sees them."""
    for name, cells in (("adata", adata), ("new", new)):
        check_cells(name, cells)
    aligned = data.align_features(new, adata.var_names, argument="new")
    made = subsample(_values(aligned, layer))[1]
    whole = _values(adata, layer)
    real = _some(whole, _sources(adata, new))
    # Of all real cells: the sources may be a few of low values.
    space, other = _spaces(whole, made)
    try:
        return space.transform(space.read(real)), space.transform(other.read(made))
    except ValueError as error:
        raise ValueError(
            f"new must hold {space.kind!r} values, as adata does: name the layer that has them in "
            f"both, layer=... ({str(error).split(':')[0]})."
        ) from error


def _spaces(
    real: Matrix | StoredMatrix, made: Matrix | StoredMatrix
) -> tuple[FeatureSpace, FeatureSpace]:
    """By which real and new cells are read: one may hold counts, the other normalised ones."""
    space, other = FeatureSpace.decide(real), FeatureSpace.decide(made)
    if (space.scale or other.scale) and not (space.is_counts and other.is_counts):
        # Too little is known of one side to recover its counts.
        as_logarithms = FeatureSpace.decide(real, "log")
        return as_logarithms, as_logarithms
    if other.is_counts and not space.is_counts:
        raise ValueError(
            f"adata holds {space.kind!r} values, and new counts: name the layer that has counts "
            "in both (layer=...)."
        )
    return space, other if other.is_counts else space


def _values(cells: AnnData, layer: str | None) -> Matrix | StoredMatrix:
    """Values of a layer, which files of new cells hold in X."""
    found = layer_or_x(layer, cells.layers, cells.uns.get("scdiffaug"))
    data.check_layer(cells, found)
    return data.read_matrix(cells, found)


def _sources(adata: AnnData, new: AnnData) -> Rows:
    """Row of each new cell's source; all rows if one is unknown, or there is only one."""
    rows = data.source_rows(new.obs, adata.obs_names)
    are_told = (rows >= 0).all() and (rows != rows[0]).any()
    return rows if are_told else np.arange(adata.n_obs)


def _some(x: Matrix | StoredMatrix, rows: Rows) -> Matrix:
    return subsample(x.take(rows) if isinstance(x, StoredMatrix) else x[rows])[1]


def _name_furthest(
    ax: Axes, real: Array, made: Array, *, names: Sequence[str], n_names: int
) -> None:
    """Colour the genes furthest from the line and name them in the corner away from it."""
    furthest = np.argsort(-np.abs(real - made), kind="stable")[:n_names]
    ax.scatter(real[furthest], made[furthest], s=12, color=HIGHLIGHT, linewidths=0)
    # Beside their points, names would overlap.
    text = "\n".join(names[gene] for gene in furthest)
    at_corner = {"ha": "left", "va": "top", "transform": ax.transAxes}
    ax.text(0.03, 0.98, text, at_corner, fontsize="x-small", color=HIGHLIGHT)
