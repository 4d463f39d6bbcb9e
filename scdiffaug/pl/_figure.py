"""What all plots share: new figures, axes that are given, and what comes back."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import TypeVar

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scdiffaug._checks import check_is

Drawn = TypeVar("Drawn", Axes, list[Axes])

_BACKENDS_WITHOUT_WINDOW = {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}
_MOST_COLUMNS = 3


def check_axes(ax: object) -> None:
    """Raise TypeError where something else than axes is given to draw in."""
    if ax is not None:
        check_is("ax", ax, Axes, advice="pass matplotlib's axes")


def new_axes(width: float = 4, height: float = 4) -> Axes:
    """Axes in a new figure, whose size is in inches."""
    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def panels(ax: Axes | Sequence[Axes] | None, n: int, *, of: str) -> list[Axes]:
    """Axes that were given, or as many in a new figure, in rows of three.

    Raises
    ------
    ValueError
        If there are not as many axes as panels of what ``of`` names.
    """
    if ax is None:
        return _new_panels(n)
    axes = list(np.ravel(np.asarray(ax, dtype=object)))
    for each in axes:
        check_axes(each)
    if len(axes) != n:
        raise ValueError(f"ax has {len(axes)} axes for {n} {of}: pass one for each.")
    return axes


def first_row_end(axes: Sequence[Axes]) -> Axes:
    """The rightmost of the first row of panels, beside which a legend of all has room."""
    return axes[min(len(axes), _MOST_COLUMNS) - 1]


def words(name: str) -> str:
    """A metric or a setting as it is written in a plot."""
    return name.replace("_", " ")


def _new_panels(n: int) -> list[Axes]:
    n_columns = min(n, _MOST_COLUMNS)
    shape = math.ceil(n / n_columns), n_columns
    size = (2.8 * shape[1], 2.4 * shape[0])
    axes = plt.subplots(*shape, figsize=size, layout="constrained", squeeze=False)[1].ravel()
    for empty in axes[n:]:
        empty.remove()
    return list(axes[:n])


def result(
    drawn: Drawn, *, new: bool, show: bool | None, return_fig: bool
) -> Drawn | Figure | None:
    """The figure, nothing if it was shown, or the axes, as scanpy's plots do.

    Parameters
    ----------
    drawn
        Axes that were drawn in.
    new
        Whether their figure is new: it grows by its legend, and is shown at a prompt.
    show, return_fig
        As the user said.
    """
    first = drawn if isinstance(drawn, Axes) else drawn[0]
    figure = first.figure.figure
    if new:
        for ax in [drawn] if isinstance(drawn, Axes) else drawn:
            _make_room(figure, ax)
    if return_fig:
        return figure
    if show or (show is None and new and _is_interactive()):
        plt.show()
        return None
    return drawn


def _make_room(figure: Figure, ax: Axes) -> None:
    """Widen a figure by a legend beside the axes, which would otherwise squeeze them."""
    legend = ax.get_legend()
    if legend is not None:
        beyond = legend.get_window_extent().x1 - ax.get_window_extent().x1
        width, height = figure.get_size_inches()
        figure.set_size_inches(width + max(beyond, 0) / figure.dpi, height)


def _is_interactive() -> bool:
    """Whether someone is at a prompt, in a notebook too, before a backend that can show."""
    return hasattr(sys, "ps1") and plt.get_backend().lower() not in _BACKENDS_WITHOUT_WINDOW
