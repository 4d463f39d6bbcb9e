"""Checks of new cells against real ones, each beside what real cells reach."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scdiffaug import _report_page, data, metrics, storage
from scdiffaug._randomness import seed_of
from scdiffaug._report_page import Drawn
from scdiffaug._verdicts import Check, judge
from scdiffaug.augmentation import encode
from scdiffaug.choosing import Names, group_names
from scdiffaug.contract import DataContract
from scdiffaug.features import FeatureSpace
from scdiffaug.matrices import (
    SUBSAMPLED,
    Matrix,
    Rows,
    StoredMatrix,
    depths,
    drawn_rows,
    stacked,
)
from scdiffaug.metrics._spaces import pca_of
from scdiffaug.metrics.genes import means
from scdiffaug.module import DiffAugModule
from scdiffaug.neighbors import nearest

Cells = tuple[AnnData, Matrix | StoredMatrix]
Scores = dict[str, Callable[[], tuple[float, float]]]
Kept = tuple[dict[str, float], dict[str, float]]

logger = logging.getLogger("scdiffaug")

_FEWEST_CELLS = 20
_NEAR = 0.01
# Least correlation of gene means among real cells; below it, those of new cells say nothing.
_LEAST_CORRELATION = 0.5


@dataclass(frozen=True, kw_only=True)
class Side:
    """A set of cells: values and, if asked for, groups.

    Parameters
    ----------
    x, seen
        Values as in the AnnData, and as they are compared, shape ``(n, d)``.
    groups
        Shape ``(n,)``, or ``(0,)`` where no column was named.
    """

    x: Matrix
    seen: Matrix
    groups: Names

    @classmethod
    def of(cls, cells: Cells, rows: Rows, *, space: FeatureSpace, groupby: str | None) -> Side:
        """Take some rows of the cells."""
        x, groups = cells[1][rows], group_names(cells[0], groupby)
        return cls(
            x=x,
            seen=space.transform(x),
            groups=np.array([], dtype=str) if groups is None else groups[rows],
        )


@dataclass(frozen=True, kw_only=True)
class Sides:
    """The sets of cells that a report compares, the first three of the same size.

    Parameters
    ----------
    made
        New cells, one from each of the ``sources`` if these are known.
    sources
        Cells that they were made from.
    others
        Real cells that they were not made from.
    judges
        Real cells whose groups decide in which group a cell is: the ``others``, and cells of which
        nothing was made, as new cells may stray into any group.
    own
        Row in ``sources`` of each new cell's source, if known.
    repeats
        Share of all new cells, and of all real ones, that equal another one; of 20,000 drawn if
        there are more.
    seed
        Seed of all random draws.
    provenance
        What the new cells record about how they were made.
    """

    made: Side
    sources: Side
    others: Side
    judges: tuple[Side, ...]
    own: Rows | None
    repeats: tuple[float, float]
    seed: int
    provenance: dict[str, Any]


def split(
    real: Cells,
    new: Cells,
    *,
    held_out: Cells | None,
    space: FeatureSpace,
    groupby: str | None,
    max_cells: int,
    seed: int,
) -> Sides:
    """Split cells into the sets to compare; see :meth:`scdiffaug.scDiffAug.augmentation_report`.

    Parameters
    ----------
    real, new, held_out
        Cells and their values, as :meth:`DataContract.read` gives them.
    space
        Feature space of the model.
    groupby, max_cells, seed
        As in that method.

    Raises
    ------
    ValueError
        If there are too few cells to compare, or new cells are passed in place of the real ones.
    """
    _check_sides(real[0], new[0], held_out)
    rng = np.random.default_rng(seed_of(seed, "split"))
    link = data.source_rows(new[0].obs, real[0].obs_names)
    _warn_of_unknown(new[0], link)
    is_linked = bool((link >= 0).any())
    candidates = rng.permutation(np.unique(link[link >= 0]) if is_linked else real[0].n_obs)
    if held_out is None:
        half = len(candidates) // 2
        (sources, others), place = np.split(candidates[: 2 * half], 2), real
    else:
        sources, others, place = candidates, rng.permutation(held_out[0].n_obs), held_out
    made = rng.permutation(new[0].n_obs)
    if is_linked:
        made = _one_of_each(made, link, sources)
    n = min(max_cells, *map(len, (sources, others, made)))
    _require_enough(n, made=made, sources=sources, others=others)
    side = partial(Side.of, space=space, groupby=groupby)
    rest = rng.permutation(np.setdiff1d(np.arange(real[0].n_obs), candidates))[:max_cells]
    compared = side(place, others[:n])
    return Sides(
        made=side(new, made[:n]),
        sources=side(real, sources[:n]),
        others=compared,
        judges=(compared, side(real, rest)) if groupby is not None and len(rest) else (compared,),
        own=np.arange(n) if is_linked else None,
        repeats=(_repeats(new[1]), _repeats(real[1])),
        seed=seed,
        provenance=dict(new[0].uns.get("scdiffaug", {})),
    )


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
    if sides.own is None:
        skipped["own_source"] = "new.obs['source_obs_name'] is missing or names no cells of adata."
    report = {
        "checks": {name: asdict(check) for name, check in checks.items()},
        "worries": [check.words for check in checks.values() if check.verdict != "good"],
        "skipped": skipped,
        "groups": _groups(sides, kept),
        "n_cells": sides.made.x.shape[0],
        "made_with": {name: _plain(value) for name, value in sides.provenance.items()},
    }
    report["html"] = _report_page.page(report, _drawn(module, contract, sides))
    if path is not None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        storage.write_whole(target, lambda aside: aside.write_text(report["html"], "utf-8"))
    return report


def _check_sides(real: AnnData, new: AnnData, held_out: Cells | None) -> None:
    if "is_augmented" not in new.obs and data.are_made(real.obs):
        raise ValueError("adata holds augmented cells, new does not: pass the new cells first.")
    if held_out is None:
        return
    if n_known := int(held_out[0].obs_names.isin(real.obs_names).sum()):
        logger.warning(
            "%d of %d held-out cells have names of real cells that new ones were made from: pass "
            "cells that the model never saw.",
            n_known,
            held_out[0].n_obs,
        )


def _warn_of_unknown(new: AnnData, link: Rows) -> None:
    n_unknown = int((link < 0).sum())
    if n_unknown and "source_obs_name" in new.obs:
        logger.warning(
            "The source_obs_name of %d of %d new cells names none of the real cells: pass those "
            "that they were made from as adata.",
            n_unknown,
            len(link),
        )


def _repeats(x: Matrix | StoredMatrix) -> float:
    return metrics.repeat_share(x[drawn_rows(x.shape[0], SUBSAMPLED)])


def _one_of_each(made: Rows, link: Rows, sources: Rows) -> Rows:
    """The first new cell of each source, in the order of the sources."""
    first = pd.Series(made, index=link[made])
    return first[~first.index.duplicated()].loc[sources].to_numpy()


def _require_enough(n: int, *, made: Rows, sources: Rows, others: Rows) -> None:
    if n < _FEWEST_CELLS:
        raise ValueError(
            f"A report compares at least {_FEWEST_CELLS} cells a side, found {len(made)} new "
            f"cells of different sources, {len(sources)} sources and {len(others)} other real "
            "cells, max_cells aside: report on cells of 40 sources or more (20 with held_out). "
            "For fewer, scdiffaug.metrics.type_kept and pl.augmentation show where they lie."
        )


def _scores(sides: Sides, space: FeatureSpace, kept: Kept) -> Scores:
    """Every check that makes sense for these cells: the score of new cells and of real ones."""
    made, sources, others = (side.seen for side in (sides.made, sides.sources, sides.others))
    seed = sides.seed
    forest = partial(metrics.two_sample_auc, others, seed=seed)
    spread = metrics.gene_variance_ratio
    scores: Scores = {
        "two_sample_auc": lambda: (forest(made), forest(sources)),
        "gene_means": lambda: _same_means(others, made, sources),
        "repeats": lambda: sides.repeats,
        "gene_variances": lambda: (spread(others, made), spread(others, sources)),
        **_count_scores(sides, space),
        **_novelty_scores(sides),
    }
    if len(sides.made.groups):
        scores["group_kept"] = lambda: _kept_in_all(sides, kept)
    return scores


def _kept_in_all(sides: Sides, kept: Kept) -> tuple[float, float]:
    if len({name for side in sides.judges for name in side.groups}) < 2:
        raise ValueError("All real cells are of one group: there is none to stray into.")
    pairs = zip(kept, (sides.made, sides.sources), strict=True)
    made, real = (np.mean([shares[name] for name in side.groups]) for shares, side in pairs)
    return float(made), float(real)


def _same_means(others: Matrix, made: Matrix, sources: Matrix) -> tuple[float, float]:
    real = metrics.gene_mean_correlation(others, sources)
    if real < _LEAST_CORRELATION:
        raise ValueError(
            f"Means of real cells correlate with r = {real:.2f} only, as where genes are centred."
        )
    return metrics.gene_mean_correlation(others, made), real


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
    """Share of new cells, and of their sources, that are found in their group, by its name."""
    if not len(sides.made.groups):
        return {}, {}
    seen = stacked([side.seen for side in sides.judges])
    groups = np.concatenate([side.groups for side in sides.judges])
    kept = partial(metrics.type_kept_per_type, seen, groups, seed=sides.seed)
    made, sources = sides.made, sides.sources
    return kept(made.seen, expected=made.groups), kept(sources.seen, expected=sources.groups)


def _groups(sides: Sides, kept: Kept) -> dict[str, dict[str, float | None]]:
    """Share of new and of real cells kept in each group, and how many new cells it has."""
    made, real = kept
    return {
        name: {
            "value": share,
            "real": real.get(name),
            "n_cells": int((sides.made.groups == name).sum()),
        }
        for name, share in made.items()
    }


def _drawn(module: DiffAugModule, contract: DataContract, sides: Sides) -> Drawn:
    """Data for the report's figures."""
    made, sources, others = (side.seen for side in (sides.made, sides.sources, sides.others))
    reference, *points = pca_of(sources, (sources, made, others), n_pcs=50, seed=sides.seed)
    distances = [nearest(reference, cells, 1)[0][:, 0] for cells in points]
    _, z_others = encode(module, contract, sides.others.x)
    _, z_made = encode(module, contract, sides.made.x)
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
