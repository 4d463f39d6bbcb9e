"""``scDiffAug``: the model that users set up, train, query, save and load."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import anndata
import numpy as np
import pandas as pd

# scvi-tools uses rich.pretty in view_anndata_setup without importing it.
import rich.pretty  # noqa: F401
import torch
from anndata import AnnData
from numpy.typing import NDArray
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data.fields import CategoricalObsField, LayerField
from scvi.model._utils import parse_device_args
from scvi.model.base import BaseModelClass

from scdiffaug import augmentation, data, storage
from scdiffaug.contract import DataContract
from scdiffaug.diffusion import Sampler
from scdiffaug.features import FeatureSpace, Matrix
from scdiffaug.module import Condition, DiffAugModule, Objective
from scdiffaug.training import Precision, Schedule, TrainingOptions, default_epochs, fit

logger = logging.getLogger("scdiffaug")

Representation = Literal["semantic", "projection"]


class scDiffAug(BaseModelClass):
    """Label-free embedding and augmentation of single-cell omics.

    A semantic encoder and a conditional diffusion generator learn together: the generator is
    conditioned on the encoder's embedding, and its cells come back as positives of the encoder's
    contrastive loss (DiffAug, Zang et al. 2023).

    Parameters
    ----------
    adata
        Cells to learn from. Registered with defaults where :meth:`setup_anndata` was not called.
    feature_space
        What the matrix holds. ``"counts"``: the networks see log1p of 10,000 reads per cell, and
        augmented cells are counts. ``"log"``: non-negative logarithms, used as they are.
        ``"raw"``: any real values, non-negative intensities by arcsinh with cofactor 5.
        ``"auto"`` decides from the values.
    n_top_features
        The encoder sees this many highly variable features; the generator makes all of them.
    n_neighbors
        Neighbours that startup positives are mixed with.
    n_semantic, n_projection
        Widths of the two embeddings.
    objective
        Contrastive loss: the paper's, or InfoNCE (SimCLR).
    condition
        What the generator is conditioned on. ``"labels"`` and ``"random"`` are the paper's
        ablations; only ``"labels"`` ever shows labels to training.
    diffusion
        ``"counts"`` thins reads, ``"gaussian"`` adds noise (the paper's), ``"none"`` leaves the
        generator out. ``"auto"`` takes thinning for counts and noise for all else.
    seed
        Seed of the initial weights, the feature reduction and the neighbour search.

    Raises
    ------
    ValueError
        If values are NaN or infinite, do not fit the feature space, or cells have no counts; if
        names repeat, or there are no more cells than neighbours.
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

    def __init__(
        self,
        adata: AnnData,
        *,
        feature_space: Literal["auto", "counts", "log", "raw"] = "auto",
        n_top_features: int = 2000,
        n_neighbors: int = 15,
        n_semantic: int = 80,
        n_projection: int = 2,
        objective: Objective = "soft_contrastive",
        condition: Condition = "semantic",
        diffusion: Literal["auto", "counts", "gaussian", "none"] = "auto",
        seed: int = 0,
    ) -> None:
        if self._get_most_recent_anndata_manager(adata) is None:
            logger.info("Registering adata with defaults: X, no labels, no batches.")
            self.setup_anndata(adata)
        super().__init__(adata)
        needs_labels = condition == "labels"
        if needs_labels and self.registry["setup_args"]["labels_key"] is None:
            raise ValueError(
                "condition='labels' needs labels: call setup_anndata(labels_key=...)."
            )
        contract = DataContract.fit(
            adata,
            self.registry["setup_args"],
            feature_space=feature_space,
            n_top_features=n_top_features,
            n_neighbors=n_neighbors,
            needs_labels=needs_labels,
            seed=seed,
        )
        logger.info("Feature space: %s (%s requested).", contract.space.kind, feature_space)
        self._build(
            contract,
            {
                "n_semantic": n_semantic,
                "n_projection": n_projection,
                "objective": objective,
                "condition": condition,
                "diffusion": _choose_diffusion(diffusion, contract.space),
            },
        )

    def _build(self, contract: DataContract, config: dict[str, Any]) -> None:
        """Make the module; its weights depend on the seed alone and move no global state."""
        self._contract, self._module_config = contract, config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(contract.seed)
            self.module = DiffAugModule(
                len(contract.var_names),
                contract.selected,
                contract.space,
                n_labels=len(contract.label_names),
                **config,
            )
        self._model_summary_string = (
            f"scDiffAug: {len(contract.var_names)} features as {contract.space.kind}, encoder "
            f"sees {len(contract.selected)}, objective {config['objective']}, diffusion "
            f"{config['diffusion']}, condition {config['condition']}"
        )

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        *,
        layer: str | None = None,
        labels_key: str | None = None,
        batch_key: str | None = None,
        neighbors_key: str | None = None,
    ) -> None:
        """Say where in an AnnData the model finds what it needs.

        Parameters
        ----------
        adata
            Annotated cells; a view becomes a copy.
        layer
            Layer to use instead of ``adata.X``.
        labels_key
            Column of obs with labels. Training sees them only with ``condition="labels"``.
        batch_key
            Column of obs with batches, within which variable features are chosen.
        neighbors_key
            Key of ``adata.uns`` under which ``sc.pp.neighbors`` left a graph to use instead of
            the model's own search.

        Raises
        ------
        KeyError
            If a layer, column or graph is missing.
        ValueError
            If adata is empty, or names repeat.
        """
        data.check_frame(adata)
        data.check_key(adata, "labels_key", labels_key)
        data.check_key(adata, "batch_key", batch_key)
        if layer is not None and layer not in adata.layers:
            raise KeyError(f"layer={layer!r} not found in adata.layers: {list(adata.layers)}.")
        if neighbors_key is not None and neighbors_key not in adata.uns:
            raise KeyError(
                f"neighbors_key={neighbors_key!r} not found in adata.uns: run "
                f"sc.pp.neighbors(adata, key_added={neighbors_key!r})."
            )
        if adata.is_view:
            adata._init_as_actual(adata.copy())
        setup_args = cls._get_setup_method_args(**locals())
        fields = [LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=False)]
        if labels_key is not None:
            fields.append(CategoricalObsField(REGISTRY_KEYS.LABELS_KEY, labels_key))
        if batch_key is not None:
            fields.append(CategoricalObsField(REGISTRY_KEYS.BATCH_KEY, batch_key))
        manager = AnnDataManager(fields=fields, setup_method_args=setup_args)
        with warnings.catch_warnings():
            # Advice on memory layout, which our reader does not depend on.
            warnings.filterwarnings("ignore", message="Training will be faster when")
            manager.register_fields(adata)
        cls.register_manager(manager)

    def train(
        self,
        max_epochs: int | None = None,
        *,
        batch_size: int = 512,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        precision: Precision = "auto",
        alpha: float = 0.1,
        startup: float = 0.5,
        schedule: Schedule = "joint",
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        enable_progress_bar: bool = True,
    ) -> None:
        """Train encoder and generator.

        Parameters
        ----------
        max_epochs
            Passes over the cells. By default a budget of 1,200 steps up to 10,000 cells that
            grows with the square root of the cells beyond.
        batch_size
            Cells per step.
        accelerator, devices
            As in Lightning.
        precision
            ``"auto"`` takes bfloat16 autocast where the hardware multiplies it.
        alpha
            Probability that a positive is a generated cell, once startup is over.
        startup
            Share of the training before generated positives begin.
        schedule
            Both losses at every step, or one of them every other epoch (the paper's "EM").
        learning_rate, weight_decay
            Peak of the one-cycle schedule; decay of AdamW.
        enable_progress_bar
            Show progress.

        Raises
        ------
        FloatingPointError
            If the loss becomes NaN or infinite.
        """
        accelerator, devices, device = parse_device_args(
            accelerator=accelerator, devices=devices, return_device="torch"
        )
        batch_size = min(batch_size, self.adata.n_obs)
        max_epochs = max_epochs or default_epochs(self.adata.n_obs, batch_size)
        batches = self._contract.pair_batches(self.adata, batch_size=batch_size)
        self.module.fit_scale(batches.x)
        options = TrainingOptions(
            n_steps=max_epochs * len(batches),
            alpha=alpha,
            startup=startup,
            schedule=schedule,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            seed=self._contract.seed,
        )
        self.history_ = fit(
            self.module,
            batches,
            options,
            max_epochs=max_epochs,
            accelerator=accelerator,
            devices=devices,
            precision=precision,
            enable_progress_bar=enable_progress_bar,
        )
        self.to_device(device)
        self.is_trained_ = True

    @torch.inference_mode()
    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        *,
        representation: Representation = "semantic",
        batch_size: int = 4096,
    ) -> NDArray[np.float32]:
        """Embed cells.

        Parameters
        ----------
        adata
            Cells with the model's features in any order; by default those it was set up with.
        indices
            Which of them; all by default.
        representation
            ``"semantic"``: y, shape ``(n, 80)``. ``"projection"``: z, shape ``(n, 2)``.
        batch_size
            Cells per forward pass.

        Raises
        ------
        ValueError
            If the representation is unknown, or features of the model are missing.
        """
        if representation not in ("semantic", "projection"):
            raise ValueError(
                f"representation={representation!r} is unknown: use 'semantic' or 'projection'."
            )
        self._check_if_trained(warn=False)
        inputs = self._contract.encoder_inputs(self._read(adata, indices)[1])
        key = "y" if representation == "semantic" else "z"

        def to_device(block: Matrix) -> torch.Tensor:
            return data.to_tensor(block).to(self.device)

        parts = [
            self.module.inference(to_device(inputs[start : start + batch_size]))[key].cpu()
            for start in range(0, inputs.shape[0], batch_size)
        ]
        return torch.cat(parts).numpy()

    def augment(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        *,
        n_per_cell: int = 1,
        strength: float = 1.0,
        sampler: Sampler | Literal["auto"] = "auto",
        steps: int | None = None,
        batch_size: int = 512,
        seed: int | None = None,
    ) -> AnnData:
        """Make new cells.

        Parameters
        ----------
        adata
            Source cells with the model's features in any order; by default those of setup.
        indices
            Which of them; all by default.
        n_per_cell
            New cells per source cell.
        strength
            The paper's control of semantic deviation, in (0, 1]: near 0 the cell itself, at 1 from
            pure noise. With counts, the share of the cell's reads that is drawn anew.
        sampler
            ``"thicken"`` for counts; ``"dpmpp_2m"``, ``"ddim"`` or ``"ddpm"`` for Gaussian noise.
        steps
            Denoising steps; 16 by default.
        batch_size
            Cells made at once.
        seed
            Seed of the draws; by default the model's.

        Returns
        -------
        AnnData with the model's features; counts from a counts model, with log1p of 10,000 per
        cell in ``.layers["log1p_norm"]``, else values in the data's own space. ``.obs`` is that
        of the source cells with ``source_obs_name``, ``augmentation_strength`` and
        ``is_augmented``; ``.uns["scdiffaug"]`` says how they were made.

        Raises
        ------
        ValueError
            If an argument is out of range, the sampler does not fit the model, features are
            missing, or the model was built with ``diffusion="none"``.
        """
        self._check_if_trained(warn=False)
        if n_per_cell < 1:
            raise ValueError(f"n_per_cell={n_per_cell} must be at least 1.")
        draw = augmentation.Draw.check(
            self.module,
            strength=strength,
            sampler=sampler,
            steps=steps,
            seed=self._contract.seed if seed is None else seed,
        )
        cells, x = self._read(adata, indices)
        return augmentation.augment(
            self.module,
            self._contract,
            cells,
            x=x,
            n_per_cell=n_per_cell,
            draw=draw,
            batch_size=batch_size,
        )

    def save(
        self, dir_path: str | Path, *, overwrite: bool = False, save_anndata: bool = False
    ) -> None:
        """Save weights as safetensors and all else as JSON; the folder appears whole or not.

        Parameters
        ----------
        dir_path
            Folder to make.
        overwrite
            Replace a model that is there already.
        save_anndata
            Save the AnnData beside the model.

        Raises
        ------
        FileExistsError
            If the folder exists and may not be replaced.
        """
        history = {name: frame[name].tolist() for name, frame in (self.history_ or {}).items()}
        description = {
            "contract": self._contract.to_dict(),
            "module": self._module_config,
            "is_trained": self.is_trained_,
            "history": history,
        }
        storage.write_model(
            Path(dir_path),
            {name: value.contiguous() for name, value in self.module.state_dict().items()},
            description,
            adata=self.adata if save_anndata else None,
            overwrite=overwrite,
        )

    @classmethod
    def load(
        cls,
        dir_path: str | Path,
        adata: AnnData | None = None,
        *,
        accelerator: str = "auto",
        device: int | str = "auto",
    ) -> scDiffAug:
        """Load a saved model.

        Parameters
        ----------
        dir_path
            Folder that :meth:`save` made.
        adata
            Cells to attach, features in any order; by default those saved with the model, if any.
            Without any, pass ``adata`` to each query.
        accelerator, device
            Where to put the model.

        Raises
        ------
        FileNotFoundError
            If the folder holds no model.
        ValueError
            If the files are damaged or too new, or features of the model are missing.
        """
        weights, saved = storage.read_model(Path(dir_path))
        contract = DataContract.from_dict(saved["contract"])
        beside = storage.saved_adata(Path(dir_path))
        if adata is None and beside is not None:
            adata = anndata.read_h5ad(beside)
        model = cls.__new__(cls)
        model._attach(adata, contract)
        model._build(contract, saved["module"])
        model.module.load_state_dict(weights)
        _, _, target = parse_device_args(accelerator, device, return_device="torch")
        model.to_device(target)
        model.module.eval()
        model.is_trained_ = saved["is_trained"]
        model.history_ = {
            name: pd.DataFrame({name: values}).rename_axis("epoch")
            for name, values in saved["history"].items()
        }
        return model

    def _attach(self, adata: AnnData | None, contract: DataContract) -> None:
        if adata is None:
            registry = {"setup_args": dict(contract.setup), "field_registries": {}}
            super().__init__(registry=registry)
            return
        cells = data.align_features(adata, pd.Index(contract.var_names))
        self.setup_anndata(cells, **contract.setup)
        super().__init__(cells)

    @property
    def feature_space(self) -> str:
        """The decision made at construction: ``"counts"``, ``"log"`` or ``"raw"``."""
        return self._contract.space.kind

    def _read(
        self, adata: AnnData | None, indices: Sequence[int] | None
    ) -> tuple[AnnData, Matrix]:
        adata = self.adata if adata is None else adata
        if adata is None:
            raise ValueError("The model was loaded without cells: pass adata=...")
        return self._contract.read(adata, indices)


def _choose_diffusion(requested: str, space: FeatureSpace) -> str:
    if requested not in ("auto", "counts", "gaussian", "none"):
        raise ValueError(
            f"diffusion={requested!r} is unknown: use 'auto', 'counts', 'gaussian' or 'none'."
        )
    if requested == "counts" and space.kind != "counts":
        raise ValueError(
            f"diffusion='counts' thins reads, but the data are {space.kind!r} values: pass the "
            "layer that holds raw counts, or diffusion='gaussian'."
        )
    if requested != "auto":
        return requested
    return "counts" if space.kind == "counts" else "gaussian"
