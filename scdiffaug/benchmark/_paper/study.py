"""The tables and figures of Zang et al. 2023, each from one call."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from scdiffaug._checks import check_whole
from scdiffaug.benchmark import environments, methods
from scdiffaug.benchmark._embedding.report import Page
from scdiffaug.benchmark._embedding.study import Plan, compare
from scdiffaug.benchmark._paper import alphas, latents
from scdiffaug.benchmark._paper.presence import present

_TABLE_2 = (*methods.DEFAULT, "pumap", "ivis", "dmtev")


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table of the paper.

    Parameters
    ----------
    title
        Heading of the table.
    names
        The paper's name for each of our methods.
    notes
        What the methods are.
    representations
        Embeddings that are scored in tables of their own.
    """

    title: str
    names: Mapping[str, str]
    notes: tuple[str, ...] = ()
    representations: tuple[str, ...] = ("2d", "80d")


TABLES: Mapping[str, Table] = {
    "table2": Table(
        title="Table 2: embedding methods",
        names={name: name for name in _TABLE_2},
        representations=("2d",),
    ),
    "table4": Table(
        title="Table 4: what the generator is conditioned on",
        names={
            "scdiffaug_label_condition": "supervised",
            "scdiffaug_random_condition": "random",
            "scdiffaug": "semantic",
        },
        notes=("The types (only here are they ever trained on), noise, or y.",),
    ),
    "table5": Table(
        title="Table 5: parts of the method",
        names={
            "scdiffaug_simclr": "SimCLR",
            "scdiffaug_no_diffusion": "no diffusion",
            "scdiffaug_infonce": "no scl",
            "scdiffaug_alternating": "EM",
            "scdiffaug": "joint",
        },
        notes=(
            "SimCLR: InfoNCE without a generator. No diffusion: the soft contrastive loss without "
            "one. No scl: InfoNCE with one. EM: one of both losses every other epoch. Joint: both "
            "at every step, the default.",
        ),
    ),
}
NAMES = (*TABLES, "figure3", "figure4")


def paper(
    what: str,
    *,
    out: str | Path,
    n_seeds: int | None = None,
    max_cells: int = 60_000,
    max_cells_svm: int | None = None,
    max_epochs: int | None = None,
    timeout: float = 3600,
    cache: str | Path | None = None,
    show_progress: bool = True,
) -> pd.DataFrame:
    """Make a table or figure of the paper on those of its datasets that are here.

    - ``"table2"``: our embedding and its peers.
    - ``"table4"``: a generator conditioned on types, on noise or on y.
    - ``"table5"``: InfoNCE without diffusion (SimCLR), the soft contrastive loss without
      diffusion, InfoNCE with diffusion (no scl), both losses in turn (EM) or jointly.
    - ``"figure3"``: t-SNE of latent spaces.
    - ``"figure4"``: scores against α, with a box over the seeds.

    Where HCL, Gast, SAM or MCA is missing, smaller datasets of its kind stand in and are named as
    stand-ins. The report says what is missing. Only "supervised" in table 4 ever trains on types.

    Parameters
    ----------
    what
        Table or figure to make.
    out
        Folder of ``results.csv``, ``summary.md`` and pictures.
    n_seeds
        Number of runs of each method; by default three, but five for figure 4 and one for
        figure 3.
    max_cells
        Draw this many cells at random from larger datasets.
    max_cells_svm, timeout, cache, show_progress
        As in :func:`embedding`.
    max_epochs
        Number of epochs of scDiffAug; its own by default.

    Returns
    -------
    The table of :func:`embedding`.

    Raises
    ------
    FileNotFoundError
        If no dataset is here.
    ValueError
        If there is no such table or figure.

    Examples
    --------
    >>> from scdiffaug import benchmark
    >>> results = benchmark.paper("table5", out="table5")  # doctest: +SKIP
    >>> benchmark.paper("table1", out="table1")
    Traceback (most recent call last):
        ...
    ValueError: 'table1' is unknown: use one of table2, table4, table5, figure3, figure4.
    """
    if what not in NAMES:
        raise ValueError(f"{what!r} is unknown: use one of {', '.join(NAMES)}.")
    if n_seeds is None:
        n_seeds = {"figure3": 1, "figure4": 5}.get(what, 3)
    check_whole("n_seeds", n_seeds)
    folder = environments.cache_folder(cache)
    datasets, missing = present(max_cells=max_cells, cache=folder)
    plan = Plan(
        n_seeds=n_seeds,
        cache=folder,
        timeout=timeout,
        max_cells_svm=max_cells_svm,
        max_epochs=max_epochs,
        show_progress=show_progress,
    )
    notes = (*missing, *plan.notes)
    command = _command(what, plan, max_cells=max_cells)
    if what == "figure3":
        return latents.figure(datasets, plan, notes=notes, command=command, out=Path(out))
    if what == "figure4":
        return alphas.figure(datasets, plan, notes=notes, command=command, out=Path(out))
    table = TABLES[what]
    page = Page(
        title=table.title,
        command=command,
        notes=(*table.notes, *notes),
        names=table.names,
        representations=table.representations,
    )
    return compare(datasets, tuple(table.names), plan, page=page, out=Path(out))


def _command(what: str, plan: Plan, *, max_cells: int) -> str:
    words = ["scdiffaug", "paper", what, "--seeds", plan.n_seeds, "--max-cells", max_cells]
    for name in ("max_cells_svm", "max_epochs"):
        value = getattr(plan, name)
        words += [] if value is None else [f"--{name.replace('_', '-')}", value]
    return shlex.join(map(str, words))
