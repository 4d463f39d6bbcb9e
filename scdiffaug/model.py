"""``scDiffAug``: the model that users set up, train, query, save and load."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

from anndata import AnnData

from scdiffaug import data, doubts, fitting
from scdiffaug._checks import check_choice, check_flag, check_seed, check_whole
from scdiffaug.budget import Budget, n_trained_on
from scdiffaug.checkpoint import check_place
from scdiffaug.components import N_COMPONENTS
from scdiffaug.contract import Covariate, DataContract
from scdiffaug.generating import GeneratingModel
from scdiffaug.module import Condition
from scdiffaug.objectives import ObjectiveName
from scdiffaug.processes import Hardware, Strategy, check_draws_counts
from scdiffaug.registration import register_if_new, registered_for_now
from scdiffaug.repulsion import USUAL_BALANCE, USUAL_RELATEDNESS
from scdiffaug.training import Precision, Schedule, TrainingOptions, best_precision

logger = logging.getLogger("scdiffaug")

# With three, a tenth of the new cells that keep their type leave it (benchmarks/NOTES.md, 58).
_FEWEST_SEMANTIC = 8


class scDiffAug(GeneratingModel):
    """Label-free embedding and augmentation of single-cell omics.

    A semantic encoder and a conditional diffusion generator are trained together (DiffAug, Zang
    et al. 2023). The encoder gives each cell y, its semantic embedding, and z, a 2-D projection
    of y. It pulls each cell towards its positive: a cell near it, or one that the generator made.
    The generator is conditioned on the y of a cell's neighbourhood.

    Parameters
    ----------
    adata
        Cells to learn from, registered with defaults if :meth:`setup_anndata` was not called.
    feature_space
        What the matrix holds. ``"counts"``: the encoder sees log1p of 10,000 counts per cell, the
        generator sees the counts themselves, and new cells are counts. Log-normalised counts are
        recovered first, and new cells are normalised as their sources are. ``"peaks"``: counts of
        accessible regions; the encoder sees which are open (TF-IDF), all else is as with counts.
        ``"log"``: non-negative logarithms, used as they are. ``"raw"``: any real values; arcsinh
        with cofactor 5 is applied to intensities (the largest above 30, and none negative or a
        tenth above 5). ``"auto"`` takes negative values as raw, whole numbers and log-normalised
        counts as counts, others up to 30 as logarithms, all else as raw. It takes counts as peaks
        if most features are named as regions (``chr1:9776-10668``), or if most values are zero
        and, of the others, 2 is more frequent than 1 and 3 (a fragment has two ends) or all are 1.
    n_top_features
        Highly variable features that the encoder sees, or for peaks those open in the most cells;
        2,000 by default, 20,000 for peaks. The generator makes all features.
    n_components
        Principal components of the standardised variable features (for peaks: of TF-IDF) that
        enter the encoder's first layer. A panel with no more features than this is only centred
        and divided by one number. Of counts of genes, up to 20 components of Pearson residuals
        stand beside these, by which cells are compared.
    n_neighbors
        Neighbours per cell, in the graph on which positives are drawn and communities found, and
        in the neighbourhood that the generator is conditioned on.
    n_semantic, n_projection
        Dimensions of the two embeddings, y and z; of y eight or more where it guides a generator.
    objective
        What the encoder learns from the positives: the paper's soft contrastive loss, or
        ``"infonce"`` (SimCLR), ``"byol"``, ``"simsiam"``, ``"moco"`` or ``"vicreg"``. The last
        four train y; the soft contrastive loss then fits z to y, without changing y.
    condition
        What the generator is conditioned on. ``"labels"`` and ``"random"`` are the paper's
        ablations; only ``"labels"`` ever shows labels to training.
    diffusion
        ``"counts"`` thins counts, ``"gaussian"`` adds noise as in the paper, ``"none"`` leaves
        the generator out. ``"auto"`` takes thinning for counts and noise for all else.
    seed
        Seed of all randomness in the model and its training, and of new cells unless a call
        passes its own.

    Raises
    ------
    TypeError
        If an argument or the values are of the wrong type.
    ValueError
        If an argument is out of range; if values are NaN or infinite, do not fit the feature
        space, or cells have no counts; if names repeat, or there are no more cells than
        neighbours.
    KeyError
        If a layer or a column of obs is missing.

    Examples
    --------
    >>> import scdiffaug
    >>> adata = scdiffaug.datasets.pbmc68k_reduced()
    >>> model = scdiffaug.scDiffAug(adata)
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> model.get_latent_representation().shape
    (700, 80)
    """

    # Whether Ctrl-C was pressed in the last training.
    _was_interrupted = False

    def __init__(
        self,
        adata: AnnData,
        *,
        feature_space: Literal["auto", "counts", "peaks", "log", "raw"] = "auto",
        n_top_features: int | None = None,
        n_components: int = N_COMPONENTS,
        n_neighbors: int = 15,
        n_semantic: int = 80,
        n_projection: int = 2,
        objective: ObjectiveName = "soft_contrastive",
        condition: Condition = "semantic",
        diffusion: Literal["auto", "counts", "gaussian", "none"] = "auto",
        seed: int = 0,
    ) -> None:
        n_components = check_whole("n_components", n_components)
        n_neighbors = check_whole("n_neighbors", n_neighbors)
        n_semantic = check_whole("n_semantic", n_semantic)
        n_projection = check_whole("n_projection", n_projection)
        if n_top_features is not None:
            n_top_features = check_whole("n_top_features", n_top_features)
        check_choice("objective", objective, get_args(ObjectiveName))
        check_choice("condition", condition, get_args(Condition))
        if n_semantic < _FEWEST_SEMANTIC and condition == "semantic" and diffusion != "none":
            raise ValueError(
                f"n_semantic={n_semantic} cannot tell the generator where a cell lies: pass "
                f"{_FEWEST_SEMANTIC} or more, or diffusion='none'."
            )
        seed = check_seed(seed)
        data.check_frame(adata)
        with registered_for_now(type(self), adata, if_it_fails=True):
            register_if_new(type(self), adata)
            super().__init__(adata)
            setup = self.registry["setup_args"]
            contract = DataContract.fit(
                adata,
                setup,
                feature_space=feature_space,
                n_top_features=n_top_features,
                n_components=n_components,
                n_neighbors=n_neighbors,
                covariate=_covariate(condition, setup),
                seed=seed,
            )
            logger.info(
                "Feature space: %s (%s requested).", contract.space.description, feature_space
            )
            process = fitting.choose_diffusion(diffusion, contract.space)
            if process == "gaussian" and contract.space.kind == "log":
                doubts.warn_of_sparse_values(
                    data.read_matrix(adata[:1000], contract.setup["layer"])
                )
            config = {
                "n_semantic": n_semantic,
                "n_projection": n_projection,
                "objective": objective,
                "condition": condition,
                "diffusion": process,
            }
            self._has_contract_of_adata = True
            fitting.build_anew(self, contract, config)

    def train(
        self,
        max_epochs: int | None = None,
        *,
        batch_size: int = 512,
        max_cells: int | None = 50_000,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        strategy: Strategy = "auto",
        num_nodes: int = 1,
        precision: Precision = "auto",
        alpha: float = 0.5,
        startup: float = 0.5,
        balance: float = USUAL_BALANCE,
        relatedness: float = USUAL_RELATEDNESS,
        schedule: Schedule = "joint",
        learning_rate: float = 3e-3,
        weight_decay: float = 1e-2,
        enable_progress_bar: bool = True,
        checkpoint_dir: str | Path | None = None,
        resume: bool = False,
    ) -> None:
        """Train encoder and generator; each call starts from the weights that the seed gives.

        Parameters
        ----------
        max_epochs
            Passes over the cells; by default enough for 800 steps, or 500 without a generator,
            divided among processes. Beyond 10,000 cells the 800 grow as the square root of their
            number. The encoder learns for 500 steps, or that share of another number of epochs.
            In alternate epochs both learn for as many steps as in joint ones, as nearly as whole
            epochs allow.
        batch_size
            Cells per step, in each process if there are several.
        max_cells
            Train on a random subset of this size if there are more cells, which bounds memory and
            time; at least 20,000. With None, or a neighbour graph of your own, all are used.
        accelerator, devices, strategy, num_nodes
            As in Lightning, except that ``devices="auto"`` means one device, Apple's GPU is used
            only with ``accelerator="mps"``, and ``strategy`` is ``"auto"``, ``"ddp"`` or
            ``"ddp_find_unused_parameters_true"``. Several devices or nodes train together, with
            one process per device (:doc:`/guide/distributed`).
        precision
            ``"32-true"`` or ``"bf16-mixed"``; ``"auto"`` takes bfloat16 autocast if the hardware
            multiplies bfloat16 natively, as new cells are made whatever this is.
        alpha
            Probability, once startup is over, that all positives of a step are mixtures with
            generated cells instead of with neighbours.
        startup
            Share of the encoder's training before generated positives begin.
        balance, relatedness
            How (Leiden) communities share the 2-D embedding. Cells of two communities, of sizes s
            and t, repel each other by (s t) to the power of minus ``balance``, and less the more
            alike the two are, by up to the share ``relatedness``. With 0 and 0 all cells repel
            alike, as in the paper, and a community's room grows with its cells. With
            ``objective="infonce"`` both only decide where communities begin.
        schedule
            ``"joint"``: both losses at every step. ``"alternating"``: the two losses in alternate
            epochs (the paper's "EM").
        learning_rate, weight_decay
            Peak learning rate of the one-cycle schedule; weight decay of AdamW.
        enable_progress_bar
            Show progress.
        checkpoint_dir
            Folder for a checkpoint, which is replaced at the end of an epoch, at most once a
            minute, and after the last epoch.
        resume
            Continue from the checkpoint of an interrupted run, or start afresh if there is none.
            On CPU the result equals that of an uninterrupted run bit for bit.

        Raises
        ------
        FileExistsError
            If there is a checkpoint and ``resume`` is false.
        FloatingPointError
            If loss or gradient become NaN or infinite.
        KeyError
            If the layer, labels, batches or graph are missing in cells that were assigned later.
        MemoryError
            If memory runs out.
        NotADirectoryError
            If ``checkpoint_dir`` is a file.
        PermissionError
            If no checkpoint can be written in the folder.
        RuntimeError
            If cells were mapped onto the model by :meth:`load_query_data`.
        TypeError
            If an argument is of the wrong type.
        ValueError
            If an argument is out of range, or the model has no cells; if the
            checkpoint is damaged, or belongs to a run with other cells or arguments.
        SystemExit
            With status 143, if the process was told to end (SIGTERM).

        Examples
        --------
        >>> import scdiffaug
        >>> model = scdiffaug.scDiffAug(scdiffaug.datasets.pbmc68k_reduced())
        >>> model.train(max_epochs=2, enable_progress_bar=False)
        >>> len(model.history["loss"])
        2
        """
        cells = fitting.cells_to_train_on(self)
        batch_size = check_whole("batch_size", batch_size, at_least=2)
        alternates = schedule == "alternating" and self.module.process is not None
        if max_epochs is not None:
            max_epochs = check_whole("max_epochs", max_epochs)
            if alternates and max_epochs == 1:
                raise ValueError(
                    "max_epochs=1 has no epoch for the generator with schedule='alternating': "
                    "pass 2 or more."
                )
        has_graph = self._contract.setup["neighbors_key"] is not None
        check_choice("precision", precision, get_args(Precision))
        check_flag("enable_progress_bar", enable_progress_bar)
        check_place(checkpoint_dir, resume=resume)
        hardware = Hardware.chosen(
            accelerator, devices, strategy=strategy, num_nodes=num_nodes, alternates=alternates
        )
        if self.module.makes_counts:
            check_draws_counts(hardware.accelerator)
        budget = Budget.chosen(
            n_trained_on(cells.n_obs, max_cells, has_graph=has_graph),
            n_processes=hardware.n_processes,
            batch_size=batch_size,
            max_epochs=max_epochs,
            n_passes=0 if self.module.process is None else self.module.process.n_passes,
            alternates=alternates,
        )
        options = TrainingOptions(
            alpha=alpha,
            startup=startup,
            schedule=schedule,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            balance=balance,
            relatedness=relatedness,
            precision=best_precision(hardware.accelerator) if precision == "auto" else precision,
            seed=self._contract.seed,
        )
        budget.warn_of_little()
        self._was_interrupted = fitting.fit_anew(
            self,
            options,
            budget=budget,
            hardware=hardware,
            enable_progress_bar=enable_progress_bar,
            checkpoint_dir=checkpoint_dir,
        )


def _covariate(condition: Condition, setup: Mapping[str, str | None]) -> Covariate | None:
    """Which covariate the networks see of a cell: its batch or, in place of y, its label."""
    if condition == "labels" and setup["labels_key"] is None:
        raise ValueError("condition='labels' needs labels: setup_anndata(labels_key=...).")
    if condition == "semantic" and setup["batch_key"] is not None:
        return "batch_key"
    return "labels_key" if condition == "labels" else None
