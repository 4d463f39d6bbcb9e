"""Results of a benchmark: scores as a heatmap, and ranks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from scdiffaug import _results
from scdiffaug._colours import HIGHLIGHT, OKABE_ITO
from scdiffaug.pl._figure import check_axes, new_axes, result, words

_INCHES_PER_ROW, _INCHES_PER_COLUMN, _INCHES_PER_LETTER = 0.28, 0.5, 0.085
# Luminance of red, green and blue (Rec. 709): numbers are black on light colours.
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])


def benchmark_heatmap(
    results: pd.DataFrame,
    *,
    metric: str | None = None,
    setting: str | None = None,
    cmap: str = "viridis",
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Axes | Figure | None:
    """Draw the scores of a benchmark, methods in rows and the best on top.

    Each column has its own colour scale, from its worst method to its best, so that metrics on
    different scales can stand side by side. Methods are sorted by their mean colour, below the
    scores of ``real`` cells. Copies of real cells are as realistic as can be, so look at
    ``"novelty"`` too when the results are on augmented cells.

    Parameters
    ----------
    results
        The table that :func:`scdiffaug.benchmark.embedding` or
        :func:`scdiffaug.benchmark.augmentation` returned, or its ``results.csv``.
    metric
        Metric to show, with the datasets and their mean in columns. By default columns are the
        metrics, as means over datasets. A mean is missing where a dataset is.
    setting
        For embeddings the representation, by default ``"2d"``; for augmented cells
        ``"in_sample"``, ``"held_out"`` (the default), ``"novelty"`` or ``"use"``.
    cmap
        Name of matplotlib's colour map.
    ax, show, return_fig
        As in :func:`embedding`.

    Returns
    -------
    The figure if ``return_fig``, nothing if it was shown, else the axes.

    Raises
    ------
    KeyError
        If a column, the metric or the setting is missing in the results.
    TypeError
        If an argument is of the wrong type.

    Examples
    --------
    >>> import pandas as pd
    >>> import scdiffaug
    >>> results = pd.DataFrame(
    ...     {
    ...         "dataset": "pbmc",
    ...         "method": ["umap", "scdiffaug"],
    ...         "representation": "2d",
    ...         "metric": "knn_accuracy",
    ...         "value": [0.81, 0.87],
    ...     }
    ... )
    >>> ax = scdiffaug.pl.benchmark_heatmap(results, show=False)
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['scdiffaug', 'umap']
    """
    check_axes(ax)
    scores, goodness = _heatmap_tables(results, metric, setting)
    n_rows, n_columns = scores.shape
    names = list(map(words, scores.columns)) if metric is None else list(scores.columns)
    below, beside = (
        _INCHES_PER_LETTER * max(map(len, each))
        for each in (map(str, names), map(str, scores.index))
    )
    size = (
        1.2 + beside + _INCHES_PER_COLUMN * n_columns,
        0.6 + below + _INCHES_PER_ROW * n_rows,
    )
    drawn = new_axes(*size) if ax is None else ax
    image = drawn.imshow(goodness, cmap, vmin=0, vmax=1, aspect="auto")
    _write_numbers(drawn, scores, shades=image.to_rgba(goodness.to_numpy()))
    drawn.set_xticks(range(n_columns), names, rotation=90)
    drawn.set_title("" if metric is None else words(metric))
    drawn.spines[:].set_visible(False)
    drawn.tick_params(length=0)
    _name_methods(drawn, scores.index)
    bar = drawn.figure.colorbar(image, ax=drawn, fraction=0.05, pad=0.02, ticks=[0, 1])
    bar.ax.set_yticklabels(["worst", "best"], fontsize="small")
    return result(drawn, new=ax is None, show=show, return_fig=return_fig)


def benchmark_ranks(
    results: pd.DataFrame,
    *,
    metric: str,
    setting: str | None = None,
    color: str = OKABE_ITO[0],
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Axes | Figure | None:
    """Draw the rank of every method on every dataset, a point each, and the mean rank as a bar.

    Parameters
    ----------
    results, setting
        As in :func:`benchmark_heatmap`.
    metric
        Metric by which methods are ranked, as its mean over seeds.
    color
        Colour of the methods other than scdiffaug and its variants.
    ax, show, return_fig
        As in :func:`embedding`.

    Returns
    -------
    The figure if ``return_fig``, nothing if it was shown, else the axes.

    Raises
    ------
    KeyError
        If a column, the metric or the setting is missing in the results.
    TypeError
        If an argument is of the wrong type.

    Examples
    --------
    >>> import pandas as pd
    >>> import scdiffaug
    >>> results = pd.DataFrame(
    ...     {
    ...         "dataset": "pbmc",
    ...         "method": ["umap", "scdiffaug"],
    ...         "representation": "2d",
    ...         "metric": "knn_accuracy",
    ...         "value": [0.81, 0.87],
    ...     }
    ... )
    >>> ax = scdiffaug.pl.benchmark_ranks(results, metric="knn_accuracy", show=False)
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['umap', 'scdiffaug']
    """
    check_axes(ax)
    setting = _results.check(results, setting=setting, metric=metric)
    ranks = _results.ranks(results, metric, setting=setting)
    order = ranks.mean().sort_values(ascending=False, kind="stable").index
    drawn = new_axes(4.5, 1.2 + _INCHES_PER_ROW * len(order)) if ax is None else ax
    for place, method in enumerate(order):
        own, shade = ranks[method].dropna(), HIGHLIGHT if _is_ours(method) else color
        drawn.plot(own, np.full(len(own), place), "o", markersize=4, alpha=0.35, color=shade)
        drawn.plot(own.mean(), place, "|", markersize=14, markeredgewidth=2.5, color=shade)
    drawn.set(title=words(metric), xlabel="rank (1 is best; bar: mean over datasets)")
    drawn.spines[["top", "right"]].set_visible(False)
    _name_methods(drawn, order)
    return result(drawn, new=ax is None, show=show, return_fig=return_fig)


def _heatmap_tables(
    results: pd.DataFrame, metric: str | None, setting: str | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores, and how good each is within its column from 0 to 1; methods in rows."""
    setting = _results.check(results, setting=setting, metric=metric)
    names = _results.metrics_of(results, setting=setting) if metric is None else [metric]
    scores = {name: _results.mean_scores(results, name, setting=setting) for name in names}
    costs = {name: _results.costs(table, name) for name, table in scores.items()}
    lay_out = _by_metric if metric is None else _by_dataset
    goodness = _within_columns(lay_out(costs))
    is_reference = goodness.index.isin(_results.REFERENCES)
    order = goodness.assign(first=is_reference, mean=goodness.mean(axis=1))
    methods = order.sort_values(["first", "mean"], ascending=False, kind="stable").index
    return lay_out(scores).loc[methods], goodness.loc[methods]


def _by_metric(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    return pd.DataFrame({name: table.mean(skipna=False) for name, table in tables.items()})


def _by_dataset(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    (table,) = tables.values()
    columns = table.T
    return columns.assign(mean=table.mean(skipna=False)) if len(table) > 1 else columns


def _within_columns(costs: pd.DataFrame) -> pd.DataFrame:
    """0 for the worst method of a column, 1 for the best; references stay within these."""
    methods = costs.drop(list(_results.REFERENCES), errors="ignore")
    worst, best = methods.max(), methods.min()
    # Where all are equal, all are best.
    return 1 - ((costs - best) / (worst - best).where(worst > best, 1)).clip(0, 1)


def _write_numbers(ax: Axes, scores: pd.DataFrame, *, shades: NDArray[np.floating[Any]]) -> None:
    for (row, column), score in np.ndenumerate(scores.to_numpy()):
        is_light = np.isnan(score) or shades[row, column, :3] @ _LUMINANCE > 0.5
        text = "–" if np.isnan(score) else f"{score:.2g}" if abs(score) < 0.1 else f"{score:.2f}"
        colour = "black" if is_light else "white"
        ax.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)


def _name_methods(ax: Axes, methods: Iterable[str]) -> None:
    """Label each row with its method, ours in the highlight colour."""
    names = list(methods)
    ax.set_yticks(range(len(names)), names)
    for label, name in zip(ax.get_yticklabels(), names, strict=True):
        label.set_color(HIGHLIGHT if _is_ours(name) else "black")


def _is_ours(method: str) -> bool:
    return method.startswith("scdiffaug")
