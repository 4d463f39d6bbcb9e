"""Fit a model to the cells at hand: build its module anew, and train it."""

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
from scdiffaug.saved_model import SavedModel
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


def build_anew(model: SavedModel, contract: DataContract, config: dict[str, Any]) -> None:
    """Build an untrained module for the cells at hand; a loaded model may know others."""
    assert model.adata is not None
    n_cells, model.is_trained_ = model.adata.n_obs, False
    n_components = min(contract.n_components, n_cells - 1, len(contract.selected))
    fitted = {"n_components": n_components, "n_references": min(n_cells, SUBSAMPLED)}
    model._build(contract, config | fitted)


def cells_to_train_on(model: SavedModel) -> AnnData:
    """The model's cells; an error if it has none, or would lose what was mapped onto it."""
    if names := model._contract.query_batches:
        raise RuntimeError(
            f"Cells of other batches, e.g. {names[0]!r}, were mapped onto the model by "
            "load_query_data, which needs no training: call get_latent_representation. To "
            "learn from them too, train a new model on all cells together."
        )
    if model.adata is None:
        raise ValueError("The model has no cells: pass adata=... to load.")
    return model.adata


def fit_anew(
    model: SavedModel,
    options: TrainingOptions,
    *,
    budget: Budget,
    hardware: Hardware,
    enable_progress_bar: bool,
    checkpoint_dir: str | Path | None,
) -> bool:
    """Train from the beginning, and say whether Ctrl-C ended it; on errors nothing changes."""
    with _unchanged_on_error(model):
        build_anew(model, _contract_of_adata(model), model._module_config)
        batches = _training_cells(model, budget, options)
        checkpoints = None
        if checkpoint_dir is not None:
            settings = {
                **model._module_config,
                **asdict(options),
                "max_epochs": budget.max_epochs,
                "accelerator": hardware.accelerator,
                "n_processes": hardware.n_processes,
            }
            run = described(model._contract, batches, settings)
            checkpoints = Checkpoints(Path(checkpoint_dir), run)
        model.history_, was_interrupted = fit(
            model.module,
            batches,
            options,
            budget=budget,
            hardware=hardware,
            enable_progress_bar=enable_progress_bar,
            checkpoints=checkpoints,
        )
        hardware.share(model.module)
        model.is_trained_ = True
    return was_interrupted


def _contract_of_adata(model: SavedModel) -> DataContract:
    """The contract to train by; the encoder sees what varies in the cells at hand."""
    if not model._has_contract_of_adata:
        model._contract = model._contract.refit(model.adata)
        model._has_contract_of_adata = True
    return model._contract


def _training_cells(model: SavedModel, budget: Budget, options: TrainingOptions) -> PairBatches:
    """Batches of the training cells; fits to them what training does not change."""
    batches, axes = training_cells(
        model._contract,
        model.adata,
        n_components=model._module_config["n_components"],
        batch_size=budget.batch_size,
        n_cells=budget.n_cells,
        balance=options.balance,
        relatedness=options.relatedness,
        n_projection=model._module_config["n_projection"],
        generator_batch=budget.generator_batch,
        n_processes=budget.n_processes,
    )
    model.module.fit_cells(subsample(batches.x)[1], batches.inputs, axes)
    return batches


@contextmanager
def _unchanged_on_error(model: SavedModel) -> Iterator[None]:
    before = dict(model.__dict__)
    try:
        yield
    # Ctrl-C, too, while cells are prepared.
    except BaseException:
        model.__dict__.update(before)
        raise
