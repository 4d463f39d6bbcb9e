"""From which score on a reader should worry about new cells, and the words that say so."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["good", "look", "worry"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """A score of new cells, that of real ones, and what to make of them."""

    title: str
    value: float
    real: float
    verdict: Verdict
    words: str
    how_to_read: str


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How one score is judged.

    Parameters
    ----------
    title, how_to_read
        What the score is, and what its values mean.
    good, below, above
        What to say where new cells do as real ones do, or score below or above them.
    excess
        How far the score of new cells is from that of real ones, in the bad direction.
    limits
        Distances up to which the score is good, and up to which it deserves a look.
    """

    title: str
    how_to_read: str
    good: str
    below: str
    above: str
    excess: Callable[[float, float], float]
    limits: tuple[float, float]


def judge(name: str, value: float, real: float) -> Check:
    """Judge a score by one of ``RULES``."""
    rule = RULES[name]
    excess = rule.excess(value, real)
    verdict: Verdict = "worry"
    if excess <= rule.limits[1]:
        verdict = "good" if excess <= rule.limits[0] else "look"
    bad = rule.below if value < real else rule.above
    return Check(
        title=rule.title,
        value=value,
        real=real,
        verdict=verdict,
        words=rule.good if verdict == "good" else bad,
        how_to_read=rule.how_to_read,
    )


def _apart(value: float, real: float) -> float:
    return abs(value - real)


def _above(value: float, real: float) -> float:
    return value - real


def _below(value: float, real: float) -> float:
    return real - value


def _times_apart(value: float, real: float) -> float:
    return abs(math.log(value / real)) if value > 0 and real > 0 else math.inf


# The limits are conventions, not tests: a generator that is well trained on hundreds of cells
# stays within the first limit in all checks but those of nearness to the sources.
RULES = {
    "two_sample_auc": Rule(
        title="A random forest tells new cells from real ones",
        how_to_read="ROC-AUC of a random forest: 0.5 where it cannot, 1 where it always can; "
        "well below 0.5 where new cells are near copies.",
        good="A random forest hardly tells new cells from real ones.",
        below="A random forest is wrong more often than by chance: each new cell has a real one "
        "that it is nearly the same as. See the checks of copies.",
        above="A random forest tells new cells from real ones. Do not test genes on a mixture of "
        "both; training for longer or on more cells may help, unless the model never saw cells "
        "like the sources.",
        excess=lambda value, real: abs(value - 0.5) - abs(real - 0.5),
        limits=(0.1, 0.25),
    ),
    "zero_share": Rule(
        title="Zeros",
        how_to_read="Share of values that are exactly zero.",
        good="New cells have as many zeros as real ones.",
        below="New cells have too few zeros: they are smoother than real cells, so genes will "
        "seem to be found in more cells than they are.",
        above="New cells have too many zeros: weakly expressed genes are lost in them.",
        excess=_apart,
        limits=(0.02, 0.05),
    ),
    "depth": Rule(
        title="Counts per cell",
        how_to_read="Kolmogorov-Smirnov distance to other real cells: 0 for the same "
        "distribution, 1 where no two cells overlap.",
        good="New cells have as many counts as real ones.",
        below="",
        above="New cells do not have the library sizes of real ones. That is right if you asked "
        "for it with depth=...; normalise before you compare cells.",
        excess=_above,
        limits=(0.1, 0.3),
    ),
    "detected_genes": Rule(
        title="Genes found per cell",
        how_to_read="Kolmogorov-Smirnov distance to other real cells: 0 for the same "
        "distribution, 1 where no two cells overlap.",
        good="New cells express as many genes as real ones.",
        below="",
        above="New cells express more or fewer genes than real ones: see zeros and counts, and do "
        "not filter both kinds of cells by one threshold.",
        excess=_above,
        limits=(0.1, 0.3),
    ),
    "gene_means": Rule(
        title="Means of genes",
        how_to_read="Pearson correlation of the means of genes with those of other real cells.",
        good="Genes have the means that they have in real cells.",
        below="Genes have other means than in real cells: the new cells are not a fair sample of "
        "their sources. Train for longer, or on cells like the sources, before you use them.",
        above="",
        excess=_below,
        limits=(0.02, 0.1),
    ),
    "gene_variances": Rule(
        title="Variances of genes",
        how_to_read="Variance of a gene over that in other real cells, median over genes: 1 is "
        "the same.",
        good="Genes vary as much as they do in real cells.",
        below="Genes vary too little: new cells are too smooth, and p-values from them will be "
        "too small.",
        above="Genes vary too much: new cells are noisier than real ones.",
        excess=_times_apart,
        limits=(math.log(1.2), math.log(1.6)),
    ),
    "gene_correlations": Rule(
        title="Genes that vary together",
        how_to_read="Correlations of pairs of genes, regressed on those in other real cells: 1 "
        "where they are as strong, 0 where genes vary alone. Within groups if these are named, "
        "else mostly of the differences between cell types.",
        good="Genes vary together as they do in real cells.",
        below="Genes vary together less than in real cells: do not look for gene programmes or "
        "networks in new cells.",
        above="Genes vary together more than in real cells: new cells exaggerate what they have "
        "in common.",
        excess=_times_apart,
        limits=(math.log(1.25), math.log(1.6)),
    ),
    "nearest_distance": Rule(
        title="Distance to the nearest source cell",
        how_to_read="Median distance to the nearest source cell, over that of other real cells: "
        "1 for cells as new as real ones, near 0 for copies.",
        good="New cells are as far from the source cells as other real cells are.",
        below="New cells lie closer to the source cells than real cells do: they are partly "
        "copies. Raise strength where it is below 1, and do not share them in place of private "
        "data.",
        above="New cells lie farther from the source cells than real cells do: they are off the "
        "data. Lower strength or, where that was not done, use keep='consistent'.",
        excess=_times_apart,
        limits=(math.log(1.2), math.log(1.6)),
    ),
    "near_copies": Rule(
        title="Near copies",
        how_to_read="Share of cells closer to a source cell than all but 1% of real cells are.",
        good="There are hardly more near copies than among real cells.",
        below="",
        above="Some new cells are near copies of a source cell. Raise strength where it is below "
        "1, and do not share them in place of private data.",
        excess=_above,
        limits=(0.03, 0.1),
    ),
    "exact_copies": Rule(
        title="Exact copies",
        how_to_read="Share of cells that equal a source cell in every value.",
        good="No more new cells equal a source cell than real cells do.",
        below="",
        above="Some new cells equal a source cell in every value: leave them out.",
        excess=_above,
        limits=(0.001, 0.01),
    ),
    "repeats": Rule(
        title="Repeats",
        how_to_read="Share of all new cells that equal another of them in every value.",
        good="New cells do not repeat each other.",
        below="",
        above="Some new cells are the same as others: calls with one seed give the same cells. "
        "Leave the repeats out, or make more by n_per_cell or another seed.",
        excess=_above,
        limits=(0.001, 0.01),
    ),
    "own_source": Rule(
        title="Nearest to their own source",
        how_to_read="Share of new cells whose nearest source cell, of those compared, is the one "
        "they were made from; beside it, the same of real cells, one drawn from the 15 nearest to "
        "each source. Of few sources each is nearest more easily.",
        good="New cells are seldom nearest to the cell they were made from.",
        below="",
        above="Many new cells are nearest to the very cell they were made from: they are "
        "variants of it. Keep a cell and what was made from it on the same side of a "
        "train-test split.",
        excess=_above,
        limits=(0.1, 0.4),
    ),
    "group_kept": Rule(
        title="Group kept",
        how_to_read="Share of cells that a classifier of real cells (logistic regression) puts "
        "into their source's group; beside it, the same of real cells. Groups that it finds fewer "
        "than half of the real cells of are left out.",
        good="New cells stay in their group as real cells do.",
        below="New cells leave their group more often than real cells are found outside it: "
        "the labels they carry are partly wrong. Lower strength or, where that was not done, use "
        "keep='consistent' with groupby.",
        above="",
        excess=_below,
        limits=(0.05, 0.15),
    ),
}
