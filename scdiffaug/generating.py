"""The part of the model that makes new cells and reports on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from anndata import AnnData

from scdiffaug import block_files, choosing, data, report, streaming
from scdiffaug._checks import check_seed, check_whole
from scdiffaug._report_sides import split
from scdiffaug.augmentation import Sampling, made_at_once
from scdiffaug.choosing import Choice, Depth, Keep, Target
from scdiffaug.diffusion import Sampler
from scdiffaug.embedding_model import EmbeddingModel
from scdiffaug.groups import group_names
from scdiffaug.matrices import Matrix, Rows, StoredMatrix
from scdiffaug.planning import Interpolation, Plan, planned
from scdiffaug.real_cells import RealCells
from scdiffaug.scales import Scales


class GeneratingModel(EmbeddingModel):
    """An embedding model with the methods that use its generator."""

    def augment(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        *,
        groupby: str | None = None,
        target: Target | None = None,
        n_per_cell: int = 1,
        strength: float = 1.0,
        depth: Depth = "source",
        keep: Keep = "all",
        sampler: Sampler | Literal["auto"] = "auto",
        steps: int | None = None,
        batch_size: int | None = None,
        seed: int | None = None,
        path: str | Path | None = None,
    ) -> AnnData:
        """Make new cells.

        Parameters
        ----------
        adata
            Real cells with the model's features in any order; by default those it was set up with.
        indices
            Which are sources: positions, none of them twice, or a boolean mask; all by default.
        groupby
            Column of obs with groups, unseen in training. A new cell is made from neighbours in
            its source's group, if more training cells are in it than in a neighbourhood; groups of
            those not passed are guessed. Cells that ``indices`` or ``target`` leave out need none.
        target
            Size that the sources of each group are to reach with their new cells: a number, the
            ``"max"`` or ``"median"`` of the group sizes, or a size for each of some groups, as in
            ``{"CD34+": 40}``. Sources are drawn at random, none twice before all of its group
            were drawn. Larger groups, and groups that are not named, get no new cells.
        n_per_cell
            New cells per source cell, if there is no target.
        strength
            The paper's control of semantic deviation, in (0, 1]: near 0 a new cell is its source,
            at 1 it starts from pure noise. For counts, it is the share drawn anew.
        depth
            Total counts of a new cell, if the data are counts: those of its ``"source"``; those of
            a random cell of ``adata`` (``"sampled"``), of the source's group if there is a
            ``groupby``; or a number. Exact with thinning, approximate with Gaussian noise. Counts
            beyond the source's own are drawn anew, whatever the strength.
        keep
            ``"consistent"`` rejects new cells that left their source's place in the semantic
            embedding: with ``groupby``, if linear discriminants of the real cells' groups give
            them to another group; without, if they are farther from their source than its own 15
            nearest cells. A rejected cell is drawn again, up to ten times in all, and then left
            out; a warning names its group. The share of draws that was kept is logged.
        sampler
            ``"thicken"`` with count thinning, else ``"dpmpp_2m"``, ``"ddim"`` or ``"ddpm"``.
        steps
            Denoising steps; by default 8 with count thinning, 32 with Gaussian noise.
        batch_size
            Cells made at once, by default 512, up to 8192 on a GPU. Other sizes give other cells.
        seed
            Seed of the draws; by default the model's.
        path
            An .h5ad file to write. The new cells are returned backed by it, with X as the model
            reads it and no layers, so that only some thousand are in memory at a time. To resume
            a call that was interrupted, repeat it. The cells differ from those made without a
            path, since each block has a seed of its own.

        Returns
        -------
        AnnData of the new cells alone, with the model's features and X on the scale of the real
        cells' X. For counts, ``.layers["log1p_norm"]`` holds log1p of 10,000 per cell; if X is
        normalised, the counts are in the layer of setup, or else in ``"counts"``. ``.obs`` is that
        of the sources with ``source_obs_name``, ``augmentation_strength`` and ``is_augmented``;
        cells are named ``NAME-aug0``, ``NAME-aug1``, ...; ``.uns["scdiffaug"]`` says how they were
        made and, with ``keep="consistent"``, the ``kept_share``.

        Raises
        ------
        FileExistsError
            If there is a file at the path.
        IndexError
            If there is no cell at an index.
        KeyError
            If a column of obs (groups, batches), or a group that the target names, is missing.
        RuntimeError
            If the model is not trained.
        TypeError
            If an argument is of the wrong type.
        ValueError
            If an argument is out of range or does not fit the others, the sampler does not fit
            the model, features are missing, a batch is unknown, no group is below its target, or
            the model was built with ``diffusion="none"``.

        Examples
        --------
        >>> import scdiffaug
        >>> model = scdiffaug.scDiffAug(scdiffaug.datasets.pbmc68k_reduced())
        >>> model.train(max_epochs=2, enable_progress_bar=False)
        >>> new = model.augment(groupby="cell_type", target=40, depth="sampled")
        >>> (new.obs["cell_type"] == "CD34+").sum().item()
        27
        """
        self._check_if_trained(warn=False)
        plan = self._plan(
            adata,
            indices,
            groupby=groupby,
            target=target,
            n_per_cell=n_per_cell,
            strength=strength,
            depth=depth,
            keep=keep,
            sampler=sampler,
            steps=steps,
            batch_size=batch_size,
            seed=seed,
            path=path,
        )
        plan.warn()
        new = plan.make() if path is None else streaming.write_new_cells(Path(path), plan)
        plan.warn_of_kept(new.obs)
        return new

    def _plan(
        self,
        adata: AnnData | None,
        indices: Sequence[int] | None = None,
        *,
        groupby: str | None,
        target: Target | None,
        n_per_cell: int,
        strength: float,
        depth: Depth,
        keep: Keep,
        sampler: str = "auto",
        steps: int | None,
        batch_size: int | None = None,
        seed: int | None,
        path: str | Path | None = None,
    ) -> Plan:
        """Plan of what :meth:`augment` makes, all arguments checked; needs no trained model."""
        choice = Choice(
            groupby=groupby, target=target, n_per_cell=n_per_cell, depth=depth, keep=keep
        )
        choice.check(self._contract.space)
        batch_size = made_at_once(self.module, self._contract, batch_size)
        sampling = Sampling.resolved(
            self.module, strength=strength, sampler=sampler, steps=steps, seed=self._seed(seed)
        )
        if path is not None:
            block_files.check_new("path", path)
        cells, x, rows = self._sources(adata, indices, choice)
        return planned(
            self.module,
            self._contract,
            cells,
            x=x,
            rows=rows,
            choice=choice,
            sampling=sampling,
            batch_size=batch_size,
        )

    def interpolate(
        self,
        adata: AnnData | None = None,
        *,
        start: str | int,
        end: str | int,
        n_cells: int = 10,
        groupby: str | None = None,
        sampler: Sampler | Literal["auto"] = "auto",
        steps: int | None = None,
        batch_size: int | None = None,
        seed: int | None = None,
    ) -> AnnData:
        """Make cells on the way from one cell, or one group, to another.

        The generator is conditioned on ``(1 - s) y_start + s y_end``, where each y is that of
        the cell's neighbourhood and s goes from 0 to 1 in even steps. Total counts are
        interpolated in the same way. Nothing else is taken from the two cells.

        Parameters
        ----------
        adata
            Real cells with the model's features in any order; by default those it was set up with.
        start, end
            A cell's name in ``obs_names`` or its position; with ``groupby``, the name of a group,
            from which a member is drawn at random for each new cell.
        n_cells
            Number of new cells, those at both ends included.
        groupby
            Column of obs with the groups; neighbours are chosen as in :meth:`augment`.
        sampler, steps, batch_size, seed
            As in :meth:`augment`.

        Returns
        -------
        AnnData of the new cells, as from :meth:`augment`. ``.obs`` has ``start_obs_name``,
        ``end_obs_name``, ``start_group`` and ``end_group`` (with ``groupby``), ``interpolation``
        (s) and ``is_augmented``.

        Raises
        ------
        KeyError
            If the column, a cell or a group is missing.
        RuntimeError
            If the model is not trained.
        TypeError
            If an argument is of the wrong type.
        ValueError
            If ``n_cells`` is below 2, another argument is out of range, features are missing, a
            batch is unknown, or the generator is not conditioned on y.

        Examples
        --------
        >>> import scdiffaug
        >>> model = scdiffaug.scDiffAug(scdiffaug.datasets.pbmc68k_reduced())
        >>> model.train(max_epochs=2, enable_progress_bar=False)
        >>> new = model.interpolate(start=0, end=5, n_cells=3)
        >>> new.obs["interpolation"].tolist()
        [0.0, 0.5, 1.0]
        """
        self._check_if_trained(warn=False)
        return self._interpolation(
            adata,
            start=start,
            end=end,
            n_cells=n_cells,
            groupby=groupby,
            sampler=sampler,
            steps=steps,
            batch_size=batch_size,
            seed=seed,
        ).make()

    def _interpolation(
        self,
        adata: AnnData | None,
        *,
        start: str | int,
        end: str | int,
        n_cells: int,
        groupby: str | None,
        sampler: str,
        steps: int | None,
        batch_size: int | None = None,
        seed: int | None,
    ) -> Interpolation:
        """Plan of what :meth:`interpolate` makes, as :meth:`_plan` is for :meth:`augment`."""
        if self.module.condition_on != "semantic":
            raise ValueError(
                f"condition={self.module.condition_on!r}: cells are interpolated through y, which "
                "this generator does not see; build the model with condition='semantic'."
            )
        check_whole("n_cells", n_cells, at_least=2)
        batch_size = made_at_once(self.module, self._contract, batch_size)
        sampling = Sampling.resolved(
            self.module, strength=1.0, sampler=sampler, steps=steps, seed=self._seed(seed)
        )
        cells, x = self._read(adata, None)
        groups = group_names(cells, groupby, needed=np.arange(0))
        named = {} if groupby is None else {"groupby": groupby}
        return Interpolation(
            real=RealCells(
                module=self.module, contract=self._contract, cells=cells, x=x, groups=groups
            ),
            scales=Scales(self._contract, cells, x),
            ends=choosing.both_ends(cells, start, end, groups=groups),
            n_cells=n_cells,
            sampling=sampling,
            batch_size=batch_size,
            provenance={"start": start, "end": end, **named},
        )

    def augmentation_report(
        self,
        new: AnnData,
        adata: AnnData | None = None,
        *,
        held_out: AnnData | None = None,
        groupby: str | None = None,
        path: str | Path | None = None,
        max_cells: int = 1000,
        seed: int | None = None,
    ) -> dict[str, Any]:
        """Check new cells against real ones, and say in plain words what to worry about.

        The source cells are split at random. New cells made from one half, one per source, are
        compared with the other half. Beside every score stands that of the first half itself,
        which is what real cells reach. So groups that were enlarged do not distort the scores,
        and no labels are needed.

        Parameters
        ----------
        new
            Cells that :meth:`augment` made from ``adata``. If ``source_obs_name`` names no cell
            of ``adata``, a random half of ``adata`` stands in for the sources, and the check of
            own sources is skipped.
        adata
            Real cells; by default those that the model was set up with.
        held_out
            Real cells that the model was not trained on, drawn like the sources: a harder test.
        groupby
            Column of obs of all cells; adds the share of new cells that stayed in their group, and
            leaves out cells that have none.
        path
            Where to write the page, a single HTML file that loads nothing; an existing file is
            replaced. By default the page is only returned.
        max_cells
            Largest number of cells per side, drawn at random if there are more.
        seed
            Seed of the split, the draws and the judges; by default the model's.

        Returns
        -------
        ``"checks"``: by name, each with ``title``, ``value``, ``real`` (that of real cells),
        ``verdict`` (``"good"``, ``"look"`` or ``"worry"``), ``words`` and ``how_to_read``;
        ``"worries"``: words of checks that are not good, and of groups whose new cells left them;
        ``"skipped"``: why some were left out; ``"groups"``: each with ``value`` (share that
        stayed, None if unknown), ``real``, ``n_cells`` compared of ``n_new``, ``words``;
        ``"made_with"``: options of :meth:`augment`; ``"n_cells"`` per side; ``"html"``: the page.

        Raises
        ------
        IsADirectoryError
            If the path is a folder.
        KeyError
            If the column of obs is missing.
        RuntimeError
            If the model is not trained.
        TypeError
            If an argument is of the wrong type.
        ValueError
            If features are missing, or there are fewer than 20 cells on a side.

        Examples
        --------
        >>> import scdiffaug
        >>> model = scdiffaug.scDiffAug(scdiffaug.datasets.pbmc68k_reduced())
        >>> model.train(max_epochs=2, enable_progress_bar=False)
        >>> found = model.augmentation_report(model.augment(), max_cells=60)
        >>> found["checks"]["depth"]["verdict"]
        'good'
        """
        self._check_if_trained(warn=False)
        data.check_made(new)
        check_whole("max_cells", max_cells)
        seed = check_seed(self._seed(seed))
        report.check_page(path)
        read = self._contract.read
        sides = split(
            self._read(adata, None),
            read(new, argument="new"),
            held_out=None if held_out is None else read(held_out, argument="held_out"),
            contract=self._contract,
            groupby=groupby,
            max_cells=max_cells,
            seed=seed,
        )
        return report.write(self.module, self._contract, sides, path=path)

    def _seed(self, seed: int | None) -> int:
        return self._contract.seed if seed is None else seed

    def _sources(
        self, adata: AnnData | None, indices: Sequence[int] | None, choice: Choice
    ) -> tuple[AnnData, Matrix | StoredMatrix, Rows]:
        """Cells on which the choice depends, their values, and rows that may be sources."""
        if indices is None or not choice.looks_beyond_sources:
            cells, x = self._read(adata, indices)
            return cells, x, np.arange(cells.n_obs)
        cells, x = self._read(adata, None)
        return cells, x, data.check_indices(indices, cells.n_obs)
