"""What all plots share: new figures, given axes, and what a plot returns."""

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
    """Raise TypeError if ``ax`` is given but is not matplotlib's axes."""
    if ax is not None:
        check_is("ax", ax, Axes, advice="pass matplotlib's axes")


def new_axes(width: float = 4, height: float = 4) -> Axes:
    """Axes in a new figure of this size in inches."""
    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def panels(ax: Axes | Sequence[Axes] | None, n: int, *, of: str) -> list[Axes]:
    """The given axes, or ``n`` in a new figure, in rows of three.

    Raises
    ------
    ValueError
        If there are not ``n`` axes, or none. The message calls what the panels show by ``of``.
    """
    if not n:
        raise ValueError(f"There are no {of} to draw: name one or more.")
    if ax is None:
        return _new_panels(n)
    axes = list(np.ravel(np.asarray(ax, dtype=object)))
    for each in axes:
        check_axes(each)
    if len(axes) != n:
        raise ValueError(f"ax has {len(axes)} axes for {n} {of}: pass one for each.")
    return axes


def first_row_end(axes: Sequence[Axes]) -> Axes:
    """The rightmost panel of the first row, with room beside it for the legend of all."""
    rows = [None if (spec := ax.get_subplotspec()) is None else spec.rowspan for ax in axes]
    return [ax for ax, row in zip(axes, rows, strict=True) if row == rows[0]][-1]


def words(name: str) -> str:
    """The name of a metric or a setting as plots write it."""
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
    """The figure, nothing if it was shown, or the axes, as scanpy's plots return them.

    Parameters
    ----------
    drawn
        Axes that were drawn in.
    new
        Whether their figure is new. A new one grows by its legend, and is shown at a prompt.
    show, return_fig
        As the user passed them.
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
    """Widen a figure by the legend beside its axes, which would otherwise squeeze them."""
    legend = ax.get_legend()
    if legend is not None:
        beyond = legend.get_window_extent().x1 - ax.get_window_extent().x1
        width, height = figure.get_size_inches()
        figure.set_size_inches(width + max(beyond, 0) / figure.dpi, height)


def _is_interactive() -> bool:
    """Whether this is a prompt or a notebook, with a backend that can show figures."""
    return hasattr(sys, "ps1") and plt.get_backend().lower() not in _BACKENDS_WITHOUT_WINDOW
