"""Plans of new cells: all that they are made from, and how to make all or some of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scdiffaug import choosing, data, doubts
from scdiffaug._randomness import seed_of
from scdiffaug.augmentation import Request, Sampling, as_anndata, generate
from scdiffaug.choosing import Choice
from scdiffaug.contract import DataContract
from scdiffaug.embedding import describe_neighborhoods, encode
from scdiffaug.groups import Names, group_names, warn_of_one, warn_of_strangers
from scdiffaug.matrices import Matrix, Rows, StoredMatrix, depths, stacked
from scdiffaug.module import DiffAugModule
from scdiffaug.normalized import Held
from scdiffaug.real_cells import RealCells
from scdiffaug.scales import Scales

logger = logging.getLogger("scdiffaug")

# How often a cell is drawn before keep="consistent" gives up on it.
MOST_TRIES = 10
# With so much of its source anew, a consistent cell of a rare group mostly stays in it.
_CAREFUL = 0.8
# Columns of obs that are a new cell's own; all others are copied from its source.
MADE = ["source_obs_name", "augmentation_strength", "is_augmented"]


@dataclass(frozen=True, kw_only=True)
class _NewCells:
    """What it takes to make new cells, augmented or interpolated.

    Parameters
    ----------
    real
        Real cells and the model.
    scales
        Scale on which X and the layer hold the values of the real cells.
    sampling, batch_size
        How new cells are drawn, and how many at once.
    """

    real: RealCells
    scales: Scales
    sampling: Sampling
    batch_size: int

    def _generate(self, x: Matrix, request: Request, seed: int) -> Matrix:
        return generate(
            self.real.module,
            self.real.contract,
            x,
            request=request,
            sampling=replace(self.sampling, seed=seed),
            batch_size=self.batch_size,
        )

    def _held(self, source_of: Rows, *, as_learnt: bool = False) -> Held:
        """How new cells hold their values, which is how their sources do."""
        rows, place = np.unique(source_of, return_inverse=True)
        found = self.scales.learnt_as(rows) if as_learnt else self.scales.held_as(rows)
        return found.of_other_cells(lambda totals: totals[place])


@dataclass(frozen=True, kw_only=True)
class Plan(_NewCells):
    """New cells to be made from real ones, and all that they are made from.

    Parameters
    ----------
    real, scales, sampling, batch_size
        The real cells, and how new ones are drawn; see ``_NewCells``.
    choice
        Which new cells are wanted.
    source_of, copy_of, depth
        For each new cell, shape ``(m,)``: the row of its source, how many earlier cells have the
        same source, and its reads; by default the source's.
    """

    choice: Choice
    source_of: Rows
    copy_of: Rows
    depth: NDArray[np.float32] | None

    @property
    def provenance(self) -> dict[str, Any]:
        """What is recorded as provenance."""
        return {**asdict(self.sampling), **self.choice.to_dict()}

    def warn(self) -> None:
        """Warn of choices that may not do what is expected of them."""
        # One column: of a million sources all others would be copied too.
        marks = self.real.cells.obs.filter(items=["is_augmented"])
        doubts.warn_of_made(marks.iloc[np.unique(self.source_of)], "serve as sources")
        if self.choice.keep == "consistent":
            # Cells that are no sources are judges.
            self.real.contract.warn_of_batches(self.real.cells)
        if self.real.groups is None:
            return
        warn_of_strangers(self.real.reference_groups)
        if self.choice.keep == "all" or self.sampling.strength > _CAREFUL:
            doubts.warn_of_rare(
                self.real.groups[self.source_of],
                self.real.reference_groups,
                n_neighbors=self.real.contract.n_neighbors,
            )
        if self.choice.keep == "consistent":
            warn_of_one(self.real.groups)
        elif self.choice.target is not None:
            doubts.warn_of_few(self.source_of, self.real.groups)

    def warn_of_kept(self, obs: pd.DataFrame) -> None:
        """Warn of groups of which rejection left new cells of few sources, or none."""
        if self.real.groups is None or self.choice.keep == "all":
            return
        rows = data.source_rows(obs, self.real.cells.obs_names)
        if self.choice.target is not None:
            doubts.warn_of_few(rows, self.real.groups)
        gone = np.setdiff1d(self.real.groups[self.source_of], self.real.groups[rows])
        if len(gone):
            logger.warning("No new cell of %s is left.", ", ".join(map(repr, gone.tolist())))

    def part(self, rows: slice, *, seed: int) -> Plan:
        """Plan of some of the new cells, with a seed of its own."""
        return replace(
            self,
            source_of=self.source_of[rows],
            copy_of=self.copy_of[rows],
            depth=None if self.depth is None else self.depth[rows],
            sampling=replace(self.sampling, seed=seed),
        )

    def make(self, *, as_learnt: bool = False) -> AnnData:
        """Make all new cells; X is as in real ones or, ``as_learnt``, as the model reads it."""
        made, rows, provenance = self._made()
        source_of = self.source_of[rows]
        sources = self.real.cells.obs_names[source_of]
        table = _made_table(sources, self.copy_of[rows], strength=self.sampling.strength)
        obs = source_obs(self.real.cells.obs, table)
        held = self._held(source_of, as_learnt=as_learnt)
        return as_anndata(
            made,
            self.real.cells,
            obs,
            contract=self.real.contract,
            provenance=provenance,
            held=held,
        )

    def _made(self) -> tuple[Matrix, Rows, dict[str, Any]]:
        """Values of the new cells, their rows in the plan, and what provenance records."""
        x, rows = self.real.x, self.source_of
        if isinstance(x, StoredMatrix):
            x, rows = x[rows], np.arange(len(rows))
        covariates = self.real.contract.covariates(self.real.cells, self.source_of)
        request = Request(
            source_of=rows,
            covariates=covariates,
            within=self.real.within(self.source_of),
            depth=self.depth,
        )
        if self.choice.keep == "all":
            made = self._generate(x, request, self.sampling.seed)
            return made, np.arange(len(rows)), self.provenance
        made, kept, share = self._consistent(x, request)
        groups = None if self.real.groups is None else self.real.groups[self.source_of]
        _warn_of_rejected(kept, share, groups, n_asked=len(rows))
        return made, kept, {**self.provenance, "kept_share": share}

    def _consistent(self, x: Matrix, request: Request) -> tuple[Matrix, Rows, float]:
        """Draw cells, and draw those rejected again, up to ten times in all.

        Returns
        -------
        The cells kept, in the request's order; their rows in it; the share of all draws kept.
        """
        real, seed = self.real, self.sampling.seed
        rng = np.random.default_rng(seed_of(seed, "tries"))
        open_rows, n_drawn = np.arange(len(request.source_of)), 0
        cells, rows = [], []
        for _ in range(MOST_TRIES):
            wanted = request.block(open_rows)
            made, source_of = self._generate(x, wanted, seed), self.source_of[open_rows]
            y_made, _ = encode(real.module, real.contract, made, batches=wanted.covariates)
            kept = choosing.consistent(real.y, y_made, source_of, groups=real.groups)
            cells.append(made[kept])
            rows.append(open_rows[kept])
            n_drawn += len(open_rows)
            open_rows = open_rows[~kept]
            if not len(open_rows):
                break
            seed = int(rng.integers(2**31))
        found = np.concatenate(rows)
        in_order = np.argsort(found)
        return stacked(cells)[in_order], found[in_order], len(found) / n_drawn


def planned(
    module: DiffAugModule,
    contract: DataContract,
    cells: AnnData,
    *,
    x: Matrix | StoredMatrix,
    rows: Rows,
    choice: Choice,
    sampling: Sampling,
    batch_size: int,
) -> Plan:
    """Plan new cells from source cells; see :meth:`scdiffaug.scDiffAug.augment`.

    ``rows``: the real cells that may be sources; for the rest see :class:`Plan`.
    """
    # Cells of no group are no judges; where groups are named, they are no sources either.
    needed = rows[:0] if isinstance(choice.target, Mapping) else rows
    groups = group_names(cells, choice.groupby, needed=needed)
    rng = np.random.default_rng(seed_of(sampling.seed, "sources"))
    source_of = choice.sources(rows, groups, rng=rng)
    return Plan(
        real=RealCells(module=module, contract=contract, cells=cells, x=x, groups=groups),
        scales=Scales(contract, cells, x),
        choice=choice,
        sampling=sampling,
        batch_size=batch_size,
        source_of=source_of,
        copy_of=pd.Series(source_of).groupby(source_of).cumcount().to_numpy(),
        depth=choice.wanted_depths(x, source_of, groups=groups, rng=rng),
    )


@dataclass(frozen=True, kw_only=True)
class Interpolation(_NewCells):
    """New cells to be made between pairs of cells.

    Parameters
    ----------
    real, scales, sampling, batch_size
        The real cells, and how new ones are drawn; see ``_NewCells``.
    ends
        Rows of the cells at either end; each new cell lies between one pair of them.
    n_cells
        How many new cells.
    provenance
        What else is recorded as provenance.
    """

    ends: tuple[Rows, Rows]
    n_cells: int
    provenance: Mapping[str, Any]

    def make(self) -> AnnData:
        """Make all new cells."""
        cells, contract = self.real.cells, self.real.contract
        rng = np.random.default_rng(seed_of(self.sampling.seed, "sources"))
        start, end = (choosing.drawn_in_turn(rows, self.n_cells, rng) for rows in self.ends)
        share = np.linspace(0, 1, self.n_cells, dtype=np.float32)
        nearer = np.where(share < 1 / 2, start, end)
        # If cells are on disk, only these are read, and only once.
        x_start, x_end = self.real.x[start], self.real.x[end]
        y_start, y_end = (
            describe_neighborhoods(
                self.real.module,
                contract,
                x,
                batches=contract.batches(cells, rows),
                within=self.real.within(rows),
            )
            for x, rows in ((x_start, start), (x_end, end))
        )
        request = Request(
            source_of=np.arange(self.n_cells),
            y=y_start + share[:, None] * (y_end - y_start),
            covariates=contract.covariates(cells, nearer),
            depth=np.rint(_between(depths(x_start), depths(x_end), share))
            if contract.space.is_counts
            else None,
        )
        made = self._generate(x_start, request, self.sampling.seed)
        return as_anndata(
            made,
            cells,
            self._obs(start, end, share).assign(**self._covariate_of(nearer)),
            contract=contract,
            provenance={**asdict(self.sampling), **self.provenance},
            held=self._held(np.concatenate([start, end])).of_other_cells(
                lambda totals: _between(totals[: self.n_cells], totals[self.n_cells :], share)
            ),
        )

    def _covariate_of(self, rows: Rows) -> dict[str, Any]:
        """The covariate of these cells, by which new ones are read."""
        key = self.real.contract.covariate_column
        return {} if key is None else {key: self.real.cells.obs[key].iloc[rows].to_numpy()}

    def _obs(self, start: Rows, end: Rows, share: NDArray[np.float32]) -> pd.DataFrame:
        names, groups = self.real.cells.obs_names.astype(str), self.real.groups
        columns = {"start_obs_name": names[start], "end_obs_name": names[end]}
        if groups is not None:
            columns |= {"start_group": groups[start], "end_group": groups[end]}
        index = [
            f"{a}-{b}-between{place}"
            for place, (a, b) in enumerate(zip(names[start], names[end], strict=True))
        ]
        return pd.DataFrame({**columns, "interpolation": share, "is_augmented": True}, index=index)


def _between(
    start: NDArray[np.float32], end: NDArray[np.float32], share: NDArray[np.float32]
) -> NDArray[np.float32]:
    return start + share * (end - start)


def source_obs(obs: pd.DataFrame, made: pd.DataFrame) -> pd.DataFrame:
    """Annotations of the source cells, under the names of the new ones.

    Parameters
    ----------
    obs
        Annotations of all cells, by cell name.
    made
        ``source_obs_name`` and the other columns of ``MADE``, by the name of the new cell.
    """
    sources = obs.drop(columns=["_scvi_batch", "_scvi_labels"], errors="ignore")
    sources = sources.loc[made["source_obs_name"].astype(str)]
    # No file holds an index that is named like a column with other values.
    index_name = None if obs.index.name in obs.columns else obs.index.name
    sources = sources.set_index(made.index.rename(index_name))
    # As for a subset of cells: scanpy fails on groups without cells.
    if anndata.settings.remove_unused_categories:
        for name in sources.select_dtypes("category"):
            # Without one of them, ordered ones would lose their order beside the real cells'.
            if not sources[name].cat.ordered:
                sources[name] = sources[name].cat.remove_unused_categories()
    return sources.assign(**{name: made[name] for name in MADE})


def bare(new: AnnData) -> AnnData:
    """New cells with what a block holds; layers of a backed AnnData would be in memory."""
    return AnnData(new.X, obs=new.obs[MADE], var=new.var, uns=new.uns)


def _made_table(sources: pd.Index, copy_of: Rows, *, strength: float) -> pd.DataFrame:
    names = [f"{name}-aug{copy}" for name, copy in zip(sources, copy_of, strict=True)]
    values = dict(zip(MADE, (sources.astype(str), strength, True), strict=True))
    return pd.DataFrame(values, index=names)


def _warn_of_rejected(
    rows: Rows, share: float, groups_asked: Names | None, *, n_asked: int
) -> None:
    logger.info("Kept %.1f%% of the cells drawn.", 100 * share)
    if len(rows) == n_asked:
        return
    of = ""
    if groups_asked is not None:
        missing = pd.Series(np.delete(groups_asked, rows)).value_counts()
        of = ": " + ", ".join(f"{n} of {name!r}" for name, n in missing.items())
    logger.warning(
        "%d of %d cells were rejected %d times and are left out%s. A lower strength keeps more.",
        n_asked - len(rows),
        n_asked,
        MOST_TRIES,
        of,
    )
