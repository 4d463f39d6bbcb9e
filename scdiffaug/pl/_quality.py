"""Quality of augmented cells along steps and strength."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from scdiffaug import _results
from scdiffaug._checks import check_choice
from scdiffaug._colours import legend_beside, palette_of
from scdiffaug._results import Along
from scdiffaug.pl._figure import first_row_end, panels, result, words

LineStyle = Literal["-", "--", ":"]

_STYLES: Mapping[str, LineStyle] = {"in_sample": "--", "held_out": "-", "novelty": "-"}
_FLOOR: LineStyle = ":"
# Rows of a legend that are as high as a panel.
_ROWS_OF_LEGEND = 9


def benchmark_quality(
    results: pd.DataFrame,
    *,
    along: Along = "steps",
    metrics: Sequence[str] = ("two_sample_auc", "mmd", "type_kept_neighbors"),
    ax: Axes | Sequence[Axes] | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> list[Axes] | Figure | None:
    """Draw how good augmented cells are with more steps, or with a stronger augmentation.

    Each dataset is a curve, with a band of one standard deviation over seeds around it. The
    dotted line is the score of real cells.

    Parameters
    ----------
    results
        The table that :func:`scdiffaug.benchmark.augmentation` returned, or its ``results.csv``,
        with several of the methods ``scdiffaug_steps_...`` or ``scdiffaug_strength_...``.
    along
        What varies along the x axis; the other one is as in most of the methods.
    metrics
        Scores, each in a panel of its own.
    ax
        Where to draw, one for each metric; by default a new figure.
    show, return_fig
        As in :func:`embedding`.

    Returns
    -------
    The figure if ``return_fig``, nothing if it was shown, else the axes.

    Raises
    ------
    KeyError
        If a column or a metric is missing in the results.
    TypeError
        If an argument is of the wrong type.
    ValueError
        If fewer than two values of ``along`` were run, or there are not as many axes as metrics.

    Examples
    --------
    >>> import pandas as pd
    >>> import scdiffaug
    >>> results = pd.DataFrame(
    ...     {
    ...         "dataset": "pbmc",
    ...         "setting": "held_out",
    ...         "method": ["scdiffaug_steps_1", "scdiffaug"],
    ...         "settings": ["steps=1 strength=1.0", "steps=16 strength=1.0"],
    ...         "metric": "mmd",
    ...         "value": [0.006, 0.002],
    ...     }
    ... )
    >>> (ax,) = scdiffaug.pl.benchmark_quality(results, metrics=["mmd"], show=False)
    >>> ax.lines[0].get_xdata().tolist()
    [1.0, 16.0]
    """
    check_choice("along", along, get_args(Along))
    rows = _checked_rows(results, along, metrics)
    axes = panels(ax, len(metrics), of="metrics")
    names = list(rows["dataset"].unique())
    colours = dict(zip(names, palette_of(len(names)), strict=False))
    for panel, metric in zip(axes, metrics, strict=True):
        for name, colour in colours.items():
            _draw_curves(panel, _of(rows, name, metric), colour)
            _draw_floor(panel, _of(results, name, metric), colour)
        _frame(panel, metric, along)
    _explain(first_row_end(axes), colours)
    return result(axes, new=ax is None, show=show, return_fig=return_fig)


def _checked_rows(results: pd.DataFrame, along: Along, metrics: Sequence[str]) -> pd.DataFrame:
    if isinstance(metrics, str):
        raise TypeError(f"metrics={metrics!r} must be a list of names: pass [{metrics!r}].")
    for metric in metrics:
        setting = "novelty" if metric in _results.IDEAL_BY_TABLE["novelty"] else None
        _results.check(results, metric=metric, setting=setting, columns=("setting", "settings"))
    rows = _results.along(results, along)
    if (n_values := rows["at"].nunique()) < 2:
        raise ValueError(
            f"results have {n_values} values of {along}, but a curve needs two: run the benchmark "
            f"with methods scdiffaug_{along}_... too."
        )
    return rows


def _of(rows: pd.DataFrame, dataset: str, metric: str) -> pd.DataFrame:
    return rows[(rows["dataset"] == dataset) & (rows["metric"] == metric)]


def _draw_curves(ax: Axes, rows: pd.DataFrame, colour: str) -> None:
    for setting, style in _STYLES.items():
        curve = _results.scored(rows, setting=setting).groupby("at")["value"]
        if not len(curve):
            continue
        mean, spread = curve.mean(), curve.std()
        ax.plot(mean.index, mean, style, marker="o", markersize=3, color=colour)
        band = (mean - spread, mean + spread)
        ax.fill_between(mean.index, *band, color=colour, alpha=0.15, linewidth=0)


def _draw_floor(ax: Axes, rows: pd.DataFrame, colour: str) -> None:
    real = rows[rows["method"] == "real"]
    for setting in ("held_out", "novelty"):
        floor = _results.scored(real, setting=setting)
        if len(floor):
            ax.axhline(floor["value"].mean(), linestyle=_FLOOR, linewidth=1, color=colour)


def _frame(ax: Axes, metric: str, along: Along) -> None:
    ax.set(title=words(metric), xlabel=along)
    ax.spines[["top", "right"]].set_visible(False)
    if along == "steps":
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter("{x:g}")


def _explain(ax: Axes, colours: Mapping[str, str]) -> None:
    styles = {"in sample": _STYLES["in_sample"], "held out": _STYLES["held_out"], "real": _FLOOR}
    handles = [Line2D([], [], color=colour, label=name) for name, colour in colours.items()]
    handles += [Line2D([], [], color="black", linestyle=s, label=n) for n, s in styles.items()]
    legend_beside(ax, handles, n_rows=_ROWS_OF_LEGEND)
