"""Cells in two dimensions: real ones, and augmented ones over them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from scdiffaug import data
from scdiffaug._checks import check_cells, check_name, check_number
from scdiffaug._colours import GREY, HIGHLIGHT, Palette, colouring, has_values, legend_handle
from scdiffaug.pl._figure import check_axes, new_axes, result

if TYPE_CHECKING:
    from scdiffaug.model import scDiffAug

Points: TypeAlias = NDArray[np.floating[Any]]

_FAINT = (1, 1, 1, 0.4)
_AXIS_NAMES = {"scdiffaug_2d": "scDiffAug", "umap": "UMAP", "pca": "PC", "tsne": "t-SNE"}


def embedding(
    adata: AnnData,
    *,
    color: str | None = None,
    basis: str = "X_scdiffaug_2d",
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    size: float | None = None,
    palette: Palette | None = None,
    cmap: str = "viridis",
    title: str | None = None,
) -> Axes | Figure | None:
    """Scatter the cells of an AnnData in two dimensions.

    Parameters
    ----------
    adata
        Cells; left unchanged.
    color
        Column of obs or name of a feature; ``None`` for grey. Categories take the colours of
        ``.uns[f"{color}_colors"]`` where there is one for each.
    basis
        Key of ``.obsm``, shape ``(n, k)`` with k of 2 or more, of which two are drawn; as in
        scanpy ``"umap"`` finds ``"X_umap"``.
    ax
        Where to draw; by default a new figure, as wide as its legend needs.
    show
        Show the figure. By default only a new one, and only in an interactive session.
    return_fig
        Return the figure and do not show it.
    size
        Area of a cell's marker in square points.
    palette
        Colours of categories: a list with one for each, in their order; a dict of them by
        category; or the name of a matplotlib colormap.
    cmap
        Matplotlib colormap of numbers.
    title
        By default ``color``.

    Returns
    -------
    The figure if ``return_fig``, nothing if it was shown, else the axes.

    Raises
    ------
    KeyError
        If ``basis`` or ``color`` is missing.
    TypeError
        If an argument is of the wrong type.
    ValueError
        If the basis has fewer than two dimensions, ``size`` is not above 0, or ``palette`` or
        ``cmap`` lacks or misnames a colour.

    Examples
    --------
    >>> import scdiffaug
    >>> adata = scdiffaug.datasets.pbmc68k_reduced()
    >>> adata.obsm["X_scdiffaug_2d"] = adata.obs[["n_genes", "percent_mito"]].to_numpy()
    >>> ax = scdiffaug.pl.embedding(adata, color="cell_type", show=False)
    >>> len(ax.get_legend().get_texts())
    10
    """
    check_cells("adata", adata)
    _check_look(ax, size)
    points = _points(adata, basis)
    colours = colouring(adata, color, palette=palette, cmap=cmap)
    drawn = _square_axes() if ax is None else ax
    size = _marker_size(len(points)) if size is None else size
    _scatter(drawn, points, colours.rgba(adata), order=colours.order(adata), size=size)
    _frame(drawn, basis, title or color)
    colours.explain(drawn)
    return result(drawn, new=ax is None, show=show, return_fig=return_fig)


def augmentation(
    adata: AnnData,
    new: AnnData,
    *,
    model: scDiffAug,
    color: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    size: float | None = None,
    palette: Palette | None = None,
    cmap: str = "viridis",
    title: str | None = None,
) -> Axes | Figure | None:
    """Overlay augmented cells on the real ones in the model's two-dimensional embedding.

    Real cells are filled, augmented ones open circles.

    Parameters
    ----------
    adata, new
        Real and augmented cells; left unchanged. Both are embedded anew.
    model
        The trained model that made the new cells.
    color
        Column of obs, or name of a feature, which is shown as the model sees it: counts as log1p
        of 10,000 per cell, and for which the cells need all features of the model. Where real
        cells lack the column, as ``"interpolation"``, they are grey, as they are by default; where
        new ones do, these are of one colour.
    ax, show, return_fig, size, palette, cmap, title
        As in :func:`embedding`.

    Returns
    -------
    The figure if ``return_fig``, nothing if it was shown, else the axes.

    Raises
    ------
    KeyError
        If ``color`` is missing in both.
    RuntimeError
        If the model is not trained.
    TypeError
        If an argument is of the wrong type.
    ValueError
        If real and augmented cells are swapped, features of the model are missing, ``color`` is
        of numbers in real cells alone, ``size`` is not above 0, or ``palette`` or ``cmap`` lacks
        or misnames a colour.

    Examples
    --------
    >>> import scdiffaug
    >>> adata = scdiffaug.datasets.pbmc68k_reduced()
    >>> model = scdiffaug.scDiffAug(adata)
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> new = scdiffaug.tl.augment(adata, model, indices=[0, 1, 2])
    >>> ax = scdiffaug.pl.augmentation(adata, new, model=model, show=False)
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['real', 'augmented']
    """
    check_cells("adata", adata)
    check_cells("new", new)
    data.check_not_swapped(adata, new, first="real")
    _check_look(ax, size)
    if color is not None:
        check_name("color", color)
    real, made = _projection(adata, model), _projection(new, model)
    if color is not None and color not in adata.obs and color in model._contract.var_names:
        # Values of X may be logarithms in one and counts in the other.
        adata, new = (_with_feature(cells, str(color), model) for cells in (adata, new))
    has_color = has_values(new, color)
    is_of_new = has_color and not has_values(adata, color)
    colours = colouring(new if is_of_new else adata, color, palette=palette, cmap=cmap)
    # Cells that lack what is shown are grey.
    base = colouring(adata, None) if is_of_new else colours
    rgba_made = colours.rgba(new) if has_color else HIGHLIGHT
    drawn = _square_axes() if ax is None else ax
    size = _marker_size(len(real)) if size is None else size
    _scatter(drawn, real, base.rgba(adata) * _FAINT, order=base.order(adata), size=size)
    rings: Any = {"facecolors": "none", "edgecolors": rgba_made, "linewidths": 0.6}
    drawn.scatter(made[:, 0], made[:, 1], s=size, rasterized=True, **rings)
    _frame(drawn, "X_scdiffaug_2d", title or color)
    ring = legend_handle("augmented", "black" if has_color else HIGHLIGHT, filled=False)
    colours.explain(drawn, legend_handle("real", GREY), ring)
    return result(drawn, new=ax is None, show=show, return_fig=return_fig)


def _check_look(ax: object, size: object) -> None:
    check_axes(ax)
    if size is not None:
        check_number("size", size, above=0)


def _points(cells: AnnData, basis: str) -> Points:
    key = basis if basis in cells.obsm else f"X_{basis}"
    if key not in cells.obsm:
        raise KeyError(
            f"basis={basis!r} not found in adata.obsm: it has {list(cells.obsm)}; run "
            "scdiffaug.tl.embed(adata, model) first, or pass one of these."
        )
    return _first_two(np.asarray(cells.obsm[key]), key)


def _projection(cells: AnnData, model: scDiffAug) -> Points:
    # An embedding in obsm may come from another model, and both must come from this one.
    points = model.get_latent_representation(cells, representation="projection")
    return _first_two(points, "projection")


def _with_feature(cells: AnnData, name: str, model: scDiffAug) -> AnnData:
    values = model._contract.feature(cells, name)
    return AnnData(obs=pd.DataFrame({name: values}, index=cells.obs_names))


def _first_two(points: Points, name: str) -> Points:
    if points.ndim != 2 or points.shape[1] < 2:
        raise ValueError(f"{name} has shape {points.shape}: a plot needs two dimensions or more.")
    return points[:, :2]


def _square_axes() -> Axes:
    ax = new_axes()
    # Centred, square axes would leave half of the free room on the side away from the legend.
    ax.set_anchor("W")
    return ax


def _marker_size(n_cells: int) -> float:
    return float(np.clip(20_000 / max(n_cells, 1), 0.3, 20))


def _scatter(
    ax: Axes, points: Points, rgba_n4: Points, *, order: NDArray[np.intp], size: float
) -> None:
    x, y = points[order].T
    # Rasterised: no viewer opens a vector file with a path for each of a million cells.
    ax.scatter(x, y, size, rgba_n4[order], linewidths=0, rasterized=True)


def _frame(ax: Axes, basis: str, title: str | None) -> None:
    name = basis.removeprefix("X_")
    name = _AXIS_NAMES.get(name, name)
    ax.set(xticks=[], yticks=[], xlabel=f"{name} 1", ylabel=f"{name} 2", title=title or "")
    ax.set_box_aspect(1)
