"""How the values of cells become the colours of a plot, and its legend or colour bar."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, TypeAlias

import matplotlib as mpl
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize, is_color_like, to_hex, to_rgba_array
from matplotlib.lines import Line2D
from natsort import natsorted
from numpy.typing import NDArray
from pandas.api.types import is_list_like
from scanpy.plotting import palettes

from scdiffaug._checks import check_name

# Okabe & Ito 2008, safe for colour-blind readers; black and yellow, the hardest to see, last.
OKABE_ITO = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7"),
    *("#56B4E9", "#D55E00", "#F0E442", "#000000"),
)
GREY = "#BDBDBD"
HIGHLIGHT = "#D55E00"
_PALETTES = (OKABE_ITO, palettes.default_20, palettes.default_28, palettes.default_102)
_MISSING = "missing"
_LEGEND: Any = {"fontsize": "small", "frameon": False, "handletextpad": 0.2}

# A colormap of matplotlib, a colour for each category in order, or for each by its name.
Palette: TypeAlias = str | Sequence[str] | Mapping[str, str]


@dataclass(frozen=True)
class Categories:
    """Colours of the categories of ``field``; all cells are grey if that is ``None``."""

    field: str | None
    palette: dict[str, str]

    def rgba(self, cells: AnnData) -> NDArray[np.floating]:
        """Colour of each cell, shape ``(n, 4)``."""
        colours = to_rgba_array([*self.palette.values(), GREY])
        if self.field is None:
            return np.repeat(colours, cells.n_obs, axis=0)
        values = read_values(cells, self.field).astype(object)
        # What is not in the palette has index -1: the grey at the end.
        return colours[pd.Index(list(self.palette), dtype=object).get_indexer(values)]

    def order(self, cells: AnnData) -> NDArray[np.intp]:
        """Shuffled, so that no category hides the others for coming later; missing ones first."""
        order = np.random.default_rng(0).permutation(cells.n_obs)
        if self.field is None:
            return order
        is_known = read_values(cells, self.field).notna().to_numpy()
        return order[np.argsort(is_known[order], kind="stable")]

    def explain(self, ax: Axes, *extra: Line2D) -> None:
        """Add a legend outside the axes, in columns; of more than 102 categories none."""
        shown = self.palette if len(self.palette) <= len(_PALETTES[-1]) else {}
        handles = [*extra, *(legend_handle(*entry) for entry in shown.items())]
        if handles:
            legend_beside(ax, handles)


@dataclass(frozen=True)
class Continuum:
    """Colours of the numbers of ``field``."""

    field: str
    scale: ScalarMappable

    def rgba(self, cells: AnnData) -> NDArray[np.floating]:
        """Colour of each cell, shape ``(n, 4)``."""
        return np.asarray(self.scale.to_rgba(np.ma.masked_invalid(self._numbers(cells))))

    def order(self, cells: AnnData) -> NDArray[np.intp]:
        """Ascending, so that high values lie on top, and missing ones at the bottom."""
        return np.argsort(np.nan_to_num(self._numbers(cells), nan=-np.inf), kind="stable")

    def explain(self, ax: Axes, *extra: Line2D) -> None:
        """Add a colour bar beside the axes, and a legend below for what is extra."""
        ax.figure.colorbar(self.scale, ax=ax, fraction=0.05, pad=0.02)
        if extra:
            below: Any = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.08)}
            ax.legend(handles=list(extra), ncols=len(extra), **below, **_LEGEND)

    def _numbers(self, cells: AnnData) -> NDArray[np.floating]:
        values = read_values(cells, self.field)
        if isinstance(values.dtype, pd.CategoricalDtype):
            raise ValueError(
                f"color={self.field!r} holds numbers in real cells and names in new ones: give "
                "both the same."
            )
        return values.to_numpy(float)


Colouring: TypeAlias = Categories | Continuum


def colouring(
    adata: AnnData, field: str | None, *, palette: Palette | None = None, cmap: str = "viridis"
) -> Colouring:
    """Categories or a continuum, from the values of a column of obs or of a feature.

    Raises
    ------
    KeyError
        If there is neither.
    TypeError
        If palette or colormap are of the wrong type.
    ValueError
        If the palette lacks a colour, or there is no such colour or colormap.
    """
    if field is None:
        return Categories(None, {})
    check_name("color", field, advice="; sc.pl.embedding draws several")
    values = read_values(adata, field)
    if isinstance(values.dtype, pd.CategoricalDtype):
        stored = adata.uns.get(f"{field}_colors")
        return Categories(
            field, _palette(values, stored if palette is None else _chosen(palette, values))
        )
    finite = values[np.isfinite(values)]
    limits = (finite.min(), finite.max()) if len(finite) else (0, 1)
    colours = _colormap("cmap", cmap).with_extremes(bad=GREY)
    return Continuum(field, ScalarMappable(Normalize(*limits), colours))


def has_values(cells: AnnData, field: str | None) -> bool:
    """Whether there is such a column of obs, or a feature, also in ``raw``."""
    if field is None:
        return False
    in_raw = cells.raw is not None and field in cells.raw.var_names
    return field in cells.obs or field in cells.var_names or in_raw


def read_values(cells: AnnData, field: str) -> pd.Series:
    """A column of obs or a feature: numbers, or categories whose names are strings."""
    if field in cells.obs:
        values = cells.obs[field]
    elif field in cells.var_names:
        values = pd.Series(cells.obs_vector(field), index=cells.obs_names)
    elif cells.raw is not None and field in cells.raw.var_names:
        # Where scanpy looks for a gene that is not among those kept.
        values = pd.Series(cells.raw.obs_vector(field), index=cells.obs_names)
    else:
        raise KeyError(
            f"color={field!r} not found in adata: its obs has {list(cells.obs.columns)} and no "
            "feature has that name; pass one of these, a feature, or color=None."
        )
    is_bool = pd.api.types.is_bool_dtype(values.dtype)
    if pd.api.types.is_numeric_dtype(values.dtype) and not is_bool:
        return values
    # Of a mixed column 1 and "1" become one group, which leaves text; else categories keep order.
    names = values.astype("category").map(str, na_action="ignore").astype("category")
    if isinstance(values.dtype, pd.CategoricalDtype):
        return names
    # As anndata orders text when it makes categories of it: 2 before 10.
    return names.cat.reorder_categories(natsorted(names.cat.categories))


def legend_beside(ax: Axes, handles: Sequence[Line2D], *, n_rows: int = 20) -> None:
    """Add a legend outside the axes, on their right, in columns of ``n_rows``."""
    ax.legend(
        handles=handles,
        ncols=math.ceil(len(handles) / n_rows),
        loc="center left",
        bbox_to_anchor=(1.02, 0.5),
        borderaxespad=0,
        columnspacing=1,
        **_LEGEND,
    )


def palette_of(n: int) -> Sequence[str]:
    """The palette that tells ``n`` categories apart best; there are at most 102 colours."""
    return next((p for p in _PALETTES if len(p) >= n), _PALETTES[-1])


def legend_handle(label: str, colour: str, *, filled: bool = True) -> Line2D:
    """A circle and its label."""
    face = colour if filled else "none"
    return Line2D(
        [], [], linestyle="", marker="o", color=colour, markerfacecolor=face, label=label
    )


def _chosen(palette: Palette, values: pd.Series) -> Sequence[str]:
    """Colour of each category, as a user's palette has it."""
    names = list(values.cat.categories)
    if isinstance(palette, pd.Series):
        palette = palette.to_dict()
    if isinstance(palette, str):
        found = [to_hex(c) for c in _colormap("palette", palette)(np.linspace(0, 1, len(names)))]
    elif isinstance(palette, Mapping):
        by_name, occurring = {str(key): colour for key, colour in palette.items()}, set(values)
        if lacking := [name for name in names if name in occurring and name not in by_name]:
            raise ValueError(f"palette has no colour for {', '.join(lacking)}: add one for each.")
        found = [by_name.get(name, GREY) for name in names]
    elif not is_list_like(palette, allow_sets=False):
        raise TypeError(
            "palette must be the name of a colormap, colours, or a dict of them, found "
            f"{type(palette).__name__}."
        )
    elif len(palette) < len(names):
        raise ValueError(
            f"palette has {len(palette)} colours for {len(names)} categories: name as many."
        )
    else:
        found = list(palette)[: len(names)]
    if unknown := [colour for colour in found if not is_color_like(colour)]:
        raise ValueError(f"palette has {unknown[0]!r}, which is no colour of matplotlib.")
    return found


def _colormap(argument: str, name: str) -> Colormap:
    check_name(argument, name)
    if name not in mpl.colormaps:
        raise ValueError(f"{argument}={name!r} is no colormap of matplotlib, such as 'viridis'.")
    return mpl.colormaps[name]


def _palette(values: pd.Series, given: Sequence[str] | None) -> dict[str, str]:
    """Colour of each category that occurs, from the given colours if they fit."""
    names = list(values.cat.categories)
    if given is None or len(given) != len(names) or not all(map(is_color_like, given)):
        given = palette_of(len(names))
    occurring = set(values)
    palette = {
        name: colour
        for name, colour in zip(names, cycle(given), strict=False)
        if name in occurring
    }
    if not values.isna().any():
        return palette
    label = _MISSING if _MISSING not in palette else f"{_MISSING} values"
    return {**palette, label: GREY}
