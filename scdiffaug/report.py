"""Checks of new cells against real ones, each beside what real cells reach."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from scdiffaug import _report_page, metrics, storage
from scdiffaug._checks import check_path
from scdiffaug._report_page import Drawn
from scdiffaug._report_sides import Sides
from scdiffaug._verdicts import Check, judge
from scdiffaug.contract import DataContract
from scdiffaug.embedding import encode
from scdiffaug.features import FeatureSpace
from scdiffaug.matrices import Matrix, depths, stacked
from scdiffaug.metrics._spaces import pca_of
from scdiffaug.metrics.genes import means
from scdiffaug.module import DiffAugModule
from scdiffaug.neighbors import nearest

Scores = dict[str, Callable[[], tuple[float, float]]]
Kept = tuple[dict[str, float], dict[str, float]]

_NEAR = 0.01
# Least correlation of gene means among real cells, and least share of real cells that are found
# in their own group; below them, those of new cells say nothing.
_LEAST_CORRELATION, _LEAST_KEPT = 0.5, 0.5
# Least slope of gene–gene correlations among real cells; below it, noise in those of new cells
# would be a worry of its own (benchmarks/NOTES.md, 67).
_LEAST_SLOPE = 0.4
# Most likely that so few cells of a group stay by chance, for a worry.
_UNLIKELY = 0.05


def check_page(path: str | Path | None) -> None:
    """Raise TypeError or IsADirectoryError if no page can be written there."""
    if path is None:
        return
    check_path("path", path)
    if Path(path).is_dir():
        raise IsADirectoryError(f"path={str(path)!r} is a folder: name a file.")


def write(
    module: DiffAugModule, contract: DataContract, sides: Sides, *, path: str | Path | None
) -> dict[str, Any]:
    """Score both kinds of cells, judge, draw and write the page.

    Parameters
    ----------
    module, contract
        Those of a trained model.
    sides
        What to compare.
    path
        Where to write the page, whole or not at all; None writes no file.
    """
    kept = _kept_by_group(sides)
    checks, skipped = _judged(_scores(sides, contract.space, kept))
    groups = _groups(sides, kept)
    if kept[1] and (unjudged := [name for name, of in groups.items() if of["value"] is None]):
        skipped["groups"] = (
            f"{', '.join(unjudged)}: of each too few real cells are found in it, or none of its "
            "new cells was compared."
        )
    if sides.own is None:
        skipped["own_source"] = "new.obs['source_obs_name'] is missing or names no cells of adata."
    report = {
        "checks": {name: asdict(check) for name, check in checks.items()},
        "worries": [
            *(check.words for check in checks.values() if check.verdict != "good"),
            *(of["words"] for of in groups.values() if of["words"]),
        ],
        "skipped": skipped,
        "groups": groups,
        "n_cells": sides.made.x.shape[0],
        "n_new": sides.n_new,
        "made_with": {name: _plain(value) for name, value in sides.provenance.items()},
    }
    report["html"] = _report_page.page(report, _drawn(module, contract, sides))
    if path is not None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        storage.write_whole(target, lambda aside: aside.write_text(report["html"], "utf-8"))
    return report


def _scores(sides: Sides, space: FeatureSpace, kept: Kept) -> Scores:
    """Every check that makes sense for these cells: the score of new cells and of real ones."""
    made, sources, others = (side.seen for side in (sides.made, sides.sources, sides.others))
    seed = sides.seed
    forest = partial(metrics.two_sample_auc, others, seed=seed)
    spread = metrics.gene_variance_ratio
    scores: Scores = {
        "two_sample_auc": lambda: (forest(made), forest(sources)),
        "gene_means": lambda: _same_means(others, made, sources),
        "gene_correlations": lambda: _same_correlations(sides),
        "repeats": lambda: sides.repeats,
        "gene_variances": lambda: (spread(others, made), spread(others, sources)),
        **_count_scores(sides, space),
        **_novelty_scores(sides),
    }
    if len(sides.made.groups):
        scores["group_kept"] = lambda: _kept_in_all(sides, kept)
    return scores


def _kept_in_all(sides: Sides, kept: Kept) -> tuple[float, float]:
    if not kept[1]:
        raise ValueError("All real cells are of one group: there is none to stray into.")
    told = _told(kept)
    if not told & kept[0].keys():
        raise ValueError(
            "Real cells are not found in their own groups: these are too small or too alike."
        )
    pairs = zip(kept, (sides.made, sides.sources), strict=True)
    made, real = (
        np.mean([shares[name] for name in side.groups if name in told]) for shares, side in pairs
    )
    return float(made), float(real)


def _told(kept: Kept) -> set[str]:
    """Groups that the judges find most real cells of."""
    return {name for name, share in kept[1].items() if share >= _LEAST_KEPT}


def _same_means(others: Matrix, made: Matrix, sources: Matrix) -> tuple[float, float]:
    real = metrics.gene_mean_correlation(others, sources)
    if real < _LEAST_CORRELATION:
        raise ValueError(
            f"Means of real cells correlate with r = {real:.2f} only, as where genes are centred."
        )
    return metrics.gene_mean_correlation(others, made), real


def _same_correlations(sides: Sides) -> tuple[float, float]:
    """Slopes of gene–gene correlations on those of other real cells, within groups if named."""
    others, named = sides.others, len(sides.made.groups) > 0
    made, real = (
        metrics.gene_gene_correlation_agreement(
            others.seen,
            side.seen,
            real_groups=others.groups if named else None,
            made_groups=side.groups if named else None,
        )["slope"]
        for side in (sides.made, sides.sources)
    )
    if real < _LEAST_SLOPE:
        raise ValueError(
            f"Genes of two halves of the real cells do not correlate alike (slope {real:.2f}): "
            "it takes more cells, or genes that vary together more strongly."
        )
    return made, real


def _count_scores(sides: Sides, space: FeatureSpace) -> Scores:
    """Scores for which zeros must mean no expression, or values must be counts."""
    made, sources, others = (side.x for side in (sides.made, sides.sources, sides.others))
    if space.kind == "raw":
        return {}
    genes, depth = partial(metrics.detected_genes_distance, others), metrics.depth_distance
    scores: Scores = {
        "zero_share": lambda: (metrics.zero_share(made), metrics.zero_share(sources)),
        "detected_genes": lambda: (genes(made), genes(sources)),
    }
    if space.is_counts:
        scores["depth"] = lambda: (depth(others, made), depth(others, sources))
    return scores


def _novelty_scores(sides: Sides) -> Scores:
    made, sources, others = (side.seen for side in (sides.made, sides.sources, sides.others))
    seed = sides.seed
    copies = partial(metrics.duplicate_share, sources, others, quantile=_NEAR, seed=seed)
    distance = partial(metrics.nearest_training_distance_ratio, sources, others, seed=seed)
    scores: Scores = {
        "nearest_distance": lambda: (distance(made), 1.0),
        "near_copies": lambda: (copies(made)["near"], _NEAR),
        "exact_copies": lambda: (copies(made)["exact"], copies(others)["exact"]),
    }
    if sides.own is not None:
        own = partial(metrics.own_source_share, sources, made, sources=sides.own, seed=seed)
        scores["own_source"] = lambda: (
            own(),
            metrics.own_source_share_of_real(sources, others, seed=seed),
        )
    return scores


def _judged(scores: Scores) -> tuple[dict[str, Check], dict[str, str]]:
    """Verdicts, and why some scores have none."""
    checks, skipped = {}, {}
    for name, score in scores.items():
        try:
            value, real = score()
        except ValueError as error:
            skipped[name] = str(error)
            continue
        if math.isnan(value) or math.isnan(real):
            skipped[name] = "It is not defined for these cells."
        else:
            checks[name] = judge(name, value, real)
    return checks, skipped


def _kept_by_group(sides: Sides) -> Kept:
    """Share of new cells, and of their sources, that are found in their group, by its name.

    Nothing where no groups are named, or all judges are of one.
    """
    if not len(sides.made.groups):
        return {}, {}
    seen = stacked([side.seen for side in sides.judges])
    groups = np.concatenate([side.groups for side in sides.judges])
    if len(set(groups)) < 2:
        return {}, {}
    # Of fifteen neighbours a rare group never has the majority.
    kept = partial(metrics.type_kept_per_type, seen, groups, judge="logistic", seed=sides.seed)
    made, sources = sides.made, sides.sources
    return kept(made.seen, expected=made.groups), kept(sources.seen, expected=sources.groups)


def _groups(sides: Sides, kept: Kept) -> dict[str, dict[str, Any]]:
    """Share of new and of real cells kept in each group, how many new cells it has, and worries.

    Of groups that real cells are not found in, or of which no cell was compared, there is none.
    """
    (made, real), told = kept, _told(kept)
    found: dict[str, dict[str, Any]] = {
        name: {
            "value": made.get(name) if name in told else None,
            "real": real.get(name),
            "n_cells": int((sides.made.groups == name).sum()),
            "n_new": n_new,
        }
        for name, n_new in sides.n_new_of.items()
    }
    return {name: {**of, "words": _worry(name, **of)} for name, of in found.items()}


def _worry(
    name: str, *, value: float | None, real: float | None, n_cells: int, n_new: int
) -> str | None:
    """What is said of a group if fewer than half as many new cells as real ones stay in it."""
    if value is None or real is None or value >= real / 2:
        return None
    # Of a few real cells all may have stayed by luck.
    usual = (real * n_cells + 1) / (n_cells + 2)
    if binom.cdf(round(value * n_cells), n_cells, usual) > _UNLIKELY:
        return None
    return (
        f"Of the new cells of {name!r} only {value:.0%} are found in it ({n_cells} of {n_new} "
        f"compared), of real cells {real:.0%}."
    )


def _drawn(module: DiffAugModule, contract: DataContract, sides: Sides) -> Drawn:
    """Data for the report's figures."""
    made, sources, others = (side.seen for side in (sides.made, sides.sources, sides.others))
    reference, *points = pca_of(sources, (sources, made, others), n_pcs=50, seed=sides.seed)
    distances = [nearest(reference, cells, 1)[0][:, 0] for cells in points]
    z_others, z_made = (
        encode(module, contract, side.x, batches=side.batches)[1]
        for side in (sides.others, sides.made)
    )
    return Drawn(
        means=(means(others), means(made)),
        distances=(distances[1], distances[0]),
        depths=_depths(sides) if contract.space.is_counts else None,
        projection=(z_others, z_made),
    )


def _depths(sides: Sides) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return depths(sides.others.x), depths(sides.made.x)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
