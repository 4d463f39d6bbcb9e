"""The page of an augmentation report: one file of HTML that loads nothing."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from scdiffaug._colours import GREY, HIGHLIGHT
from scdiffaug._drawing import draw_agreement

Array = NDArray[np.floating[Any]]

_VERDICTS = {"good": "good", "look": "have a look", "worry": "worry"}
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: left; vertical-align: top; padding: .4rem .6rem;
  border-bottom: 1px solid #ddd }
small { color: #555 } img { max-width: 100% }
.good, .look, .worry { font-weight: 600; white-space: nowrap }
.good { color: #00664b } .look { color: #8a5a00 } .worry { color: #b00020 }
"""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What the pictures show; in each pair the real cells come first, then the new ones.

    Parameters
    ----------
    means
        Means of the features, shape ``(d,)``.
    distances
        Distances to the nearest source cell, shape ``(n,)``.
    depths
        Reads per cell, shape ``(n,)``; for counts only.
    projection
        The two-dimensional embedding, shape ``(n, 2)``.
    """

    means: tuple[Array, Array]
    distances: tuple[Array, Array]
    depths: tuple[Array, Array] | None
    projection: tuple[Array, Array]


def page(report: Mapping[str, Any], drawn: Drawn) -> str:
    """HTML of a report.

    Parameters
    ----------
    report
        What :meth:`scdiffaug.scDiffAug.augmentation_report` returns, except for the page.
    drawn
        What the pictures show.
    """
    parts = [
        "<h1>Report on augmented cells</h1>",
        _summary(report),
        "<h2>Checks</h2>",
        _checks(report["checks"]),
        _skipped(report["skipped"]),
        _groups(report["groups"]),
        "<h2>Pictures</h2>",
        _picture(drawn),
        "<h2>How the cells were made</h2>",
        _table(("", ""), ((_text(k), _text(v)) for k, v in report["made_with"].items())),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Report on augmented cells</title><style>{_STYLE}</style></head>\n"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _summary(report: Mapping[str, Any]) -> str:
    verdicts = [check["verdict"] for check in report["checks"].values()]
    counted = f"{verdicts.count('good')} of {len(verdicts)} checks are good"
    bad = [check for check in report["checks"].values() if check["verdict"] != "good"]
    bad.sort(key=lambda check: check["verdict"] != "worry")
    items = "".join(f"<li>{_verdict(check)}: {escape(check['words'])}</li>" for check in bad)
    strayed = filter(None, (of["words"] for of in report["groups"].values()))
    items += "".join(f"<li>{escape(words)}</li>" for words in strayed)
    listed = f"<p>What to worry about:</p><ul>{items}</ul>" if items else ""
    # If sources are unknown, so is which real cells the new ones were not made from.
    others = "" if "own_source" in report["skipped"] else " that they were not made from"
    return (
        f"<p><strong>{counted}.</strong> Of {report['n_new']} new cells {report['n_cells']} were "
        f"compared with as many real cells{others}. Beside every score of new cells stands what "
        f"real cells reach, which is as good as new cells can be expected to be.</p>{listed}"
    )


def _checks(checks: Mapping[str, Any]) -> str:
    rows = (
        (
            f"{escape(check['title'])}<br><small>{escape(check['how_to_read'])}</small>",
            f"{check['value']:.3f}",
            f"{check['real']:.3f}",
            _verdict(check),
            escape(check["words"]),
        )
        for check in checks.values()
    )
    return _table(("Check", "New", "Real", "Verdict", "In words"), rows)


def _skipped(skipped: Mapping[str, str]) -> str:
    if not skipped:
        return ""
    items = "".join(
        f"<li>{escape(name.replace('_', ' '))}: {escape(why)}</li>"
        for name, why in skipped.items()
    )
    return f"<p>Not checked:</p><ul>{items}</ul>"


def _groups(groups: Mapping[str, Mapping[str, Any]]) -> str:
    if not groups:
        return ""
    rows = (
        (
            escape(name),
            str(of["n_new"]),
            str(of["n_cells"]),
            _share(of["value"]),
            _share(of["real"]),
        )
        for name, of in groups.items()
    )
    titles = ("Group", "New cells", "Compared", "Kept, new", "Kept, real")
    note = (
        "<p>– stands where no cell of a group was compared, one new cell of each source being "
        "enough, or where fewer than half of its real cells are found in it.</p>"
        if any(of["value"] is None for of in groups.values()) and _are_judged(groups)
        else ""
    )
    return f"<h2>Group by group</h2>{_table(titles, rows)}{note}"


def _are_judged(groups: Mapping[str, Mapping[str, Any]]) -> bool:
    return any(of["real"] is not None for of in groups.values())


def _table(titles: Iterable[str], rows: Iterable[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{title}</th>" for title in titles)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _verdict(check: Mapping[str, Any]) -> str:
    return f'<span class="{check["verdict"]}">{_VERDICTS[check["verdict"]]}</span>'


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _text(value: object) -> str:
    return escape(str(value))


def _picture(drawn: Drawn) -> str:
    # Not pyplot: a report must not touch the backend or the figures of a notebook.
    figure = Figure(figsize=(9.6, 8), layout="constrained")
    axes = figure.subplots(2, 2).ravel()
    _draw_projection(axes[0], drawn.projection)
    _draw_means(axes[1], drawn.means)
    _draw_histogram(axes[2], drawn.distances, "distance to the nearest source cell")
    if drawn.depths is None:
        axes[3].remove()
    else:
        _draw_histogram(axes[3], drawn.depths, "counts per cell")
    handles = axes[0].get_legend_handles_labels()
    # Not "best": matplotlib would look for the place among all points, and warn if it takes long.
    figure.legend(*handles, loc="outside upper right", ncols=2, frameon=False, markerscale=3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    data = base64.b64encode(buffer.getvalue()).decode()
    words = "Embedding, means of features and distances of real and of new cells"
    return f'<img alt="{words}" src="data:image/png;base64,{data}">'


def _draw_projection(ax: Axes, projection: tuple[Array, Array]) -> None:
    for points, colour, label in zip(projection, (GREY, HIGHLIGHT), ("real", "new"), strict=True):
        # A projection of one dimension is drawn on a line.
        x, y = np.pad(points, ((0, 0), (0, 1)))[:, :2].T
        ax.scatter(x, y, s=5, color=colour, linewidths=0, label=label)
    ax.set(xticks=[], yticks=[], title="embedding")


def _draw_means(ax: Axes, means: tuple[Array, Array]) -> None:
    draw_agreement(ax, *means, color=HIGHLIGHT, size=5)
    ax.set_title("means of features, as the model sees them")


def _draw_histogram(ax: Axes, values: tuple[Array, Array], label: str) -> None:
    bins = np.histogram_bin_edges(np.concatenate(values), bins=40).tolist()
    ax.hist(values[0], bins=bins, color=GREY)
    ax.hist(values[1], bins=bins, color=HIGHLIGHT, histtype="step", linewidth=1.5)
    ax.set(xlabel=label, ylabel="cells")
    ax.spines[["top", "right"]].set_visible(False)
