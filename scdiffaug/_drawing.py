"""Drawings that plots, reports and benchmarks have in common."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


def draw_agreement(ax: Axes, real: Array, made: Array, *, color: str, size: float) -> None:
    """Draw a point per feature, new cells against real ones, and the line of equality.

    Parameters
    ----------
    ax
        Where to draw.
    real, made
        One value per feature, shape ``(d,)``.
    color, size
        Colour of the points; their area in square points.
    """
    ends = [min(real.min(), made.min()), max(real.max(), made.max())]
    ax.plot(ends, ends, color="0.75", linewidth=1)
    ax.scatter(real, made, s=size, color=color, linewidths=0, rasterized=True)
    ax.set(xlabel="real cells", ylabel="new cells")
    ax.spines[["top", "right"]].set_visible(False)
