"""The part of the model that fits it to the cells at hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from anndata import AnnData

from scdiffaug._checks import check_choice
from scdiffaug.budget import Budget
from scdiffaug.checkpoint import Checkpoints, described
from scdiffaug.contract import DataContract
from scdiffaug.features import FeatureSpace
from scdiffaug.matrices import SUBSAMPLED, subsample
from scdiffaug.module import Diffusion
from scdiffaug.pairs import PairBatches
from scdiffaug.preparing import training_cells
from scdiffaug.processes import Hardware
from scdiffaug.querying import QueryingModel
from scdiffaug.training import TrainingOptions, fit


def choose_diffusion(requested: str, space: FeatureSpace) -> str:
    """Check the forward process against the data, or choose it from them."""
    check_choice("diffusion", requested, ("auto", *get_args(Diffusion)))
    if requested == "counts" and not space.is_counts:
        raise ValueError(
            f"diffusion='counts' thins reads, but the data are {space.kind!r} values: pass the "
            "layer that holds raw counts, or diffusion='gaussian'."
        )
    if requested != "auto":
        return requested
    return "counts" if space.is_counts else "gaussian"


class FittingModel(QueryingModel):
    """A model that builds its module anew for its cells, and trains it."""

    # Whether Ctrl-C was pressed in the last training.
    _was_interrupted = False

    def _build_anew(self, contract: DataContract, config: dict[str, Any]) -> None:
        """Build an untrained module for the cells at hand; a loaded model may know others."""
        assert self.adata is not None
        n_cells, self.is_trained_ = self.adata.n_obs, False
        n_components = min(contract.n_components, n_cells - 1, len(contract.selected))
        fitted = {"n_components": n_components, "n_references": min(n_cells, SUBSAMPLED)}
        self._build(contract, config | fitted)

    def _cells_to_train_on(self) -> AnnData:
        """The model's cells; an error if it has none, or would lose what was mapped onto it."""
        if names := self._contract.query_batches:
            raise RuntimeError(
                f"Cells of other batches, e.g. {names[0]!r}, were mapped onto the model by "
                "load_query_data, which needs no training: call get_latent_representation. To "
                "learn from them too, train a new model on all cells together."
            )
        if self.adata is None:
            raise ValueError("The model has no cells: pass adata=... to load.")
        return self.adata

    def _fit(
        self,
        options: TrainingOptions,
        *,
        budget: Budget,
        hardware: Hardware,
        enable_progress_bar: bool,
        checkpoint_dir: str | Path | None,
    ) -> None:
        """Train from the beginning; if that fails, the model stays as it was."""
        with self._unchanged_on_error():
            self._build_anew(self._contract_of_adata(), self._module_config)
            batches = self._training_cells(budget, options)
            checkpoints = None
            if checkpoint_dir is not None:
                settings = {
                    **self._module_config,
                    **asdict(options),
                    "max_epochs": budget.max_epochs,
                    "accelerator": hardware.accelerator,
                    "n_processes": hardware.n_processes,
                }
                run = described(self._contract, batches, settings)
                checkpoints = Checkpoints(Path(checkpoint_dir), run)
            self.history_, self._was_interrupted = fit(
                self.module,
                batches,
                options,
                budget=budget,
                hardware=hardware,
                enable_progress_bar=enable_progress_bar,
                checkpoints=checkpoints,
            )
            hardware.share(self.module)
            self.is_trained_ = True

    def _contract_of_adata(self) -> DataContract:
        """The contract to train by; the encoder sees what varies in the cells at hand."""
        if not self._has_contract_of_adata:
            self._contract = self._contract.refit(self.adata)
            self._has_contract_of_adata = True
        return self._contract

    def _training_cells(self, budget: Budget, options: TrainingOptions) -> PairBatches:
        """Batches of the training cells; fits to them what training does not change."""
        batches, axes = training_cells(
            self._contract,
            self.adata,
            n_components=self._module_config["n_components"],
            batch_size=budget.batch_size,
            n_cells=budget.n_cells,
            balance=options.balance,
            relatedness=options.relatedness,
            n_projection=self._module_config["n_projection"],
            generator_batch=budget.generator_batch,
            n_processes=budget.n_processes,
        )
        self.module.fit_cells(subsample(batches.x)[1], batches.inputs, axes)
        return batches

    @contextmanager
    def _unchanged_on_error(self) -> Iterator[None]:
        before = dict(self.__dict__)
        try:
            yield
        # Ctrl-C, too, while cells are prepared.
        except BaseException:
            self.__dict__.update(before)
            raise
