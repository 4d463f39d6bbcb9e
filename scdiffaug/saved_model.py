"""The part of the model that is set up, saved and loaded: contract, module and history."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, Self

import anndata
import numpy as np
import pandas as pd
import rich.pretty  # noqa: F401 (view_anndata_setup of scvi-tools uses it without importing it)
import torch
from anndata import AnnData
from numpy.typing import NDArray
from scvi.model.base import BaseModelClass
from torch import Tensor

from scdiffaug import data, registration, storage
from scdiffaug._checks import check_flag, check_path
from scdiffaug._randomness import seed_of
from scdiffaug._saved_fields import SavedFields
from scdiffaug.contract import DataContract
from scdiffaug.matrices import Matrix, StoredMatrix
from scdiffaug.module import DiffAugModule
from scdiffaug.processes import check_draws_counts, is_first_process, placed_alone

# Two threads that build models share torch's generator, from which modules draw their weights.
_LOCK = threading.Lock()


class SavedModel(BaseModelClass):
    """An scvi-tools model whose module is built from a data contract; saved without pickle."""

    # False where the contract's variable features are those of other cells.
    _has_contract_of_adata = False

    def _build(self, contract: DataContract, config: dict[str, Any]) -> None:
        """Build the module; its weights depend on the seed alone, and no global state changes."""
        self._contract, self._module_config = contract, config
        with _LOCK, torch.random.fork_rng(devices=[]):
            # torch.manual_seed would seed every GPU too.
            torch.default_generator.manual_seed(seed_of(contract.seed, "weights"))
            self.module = _module(contract, config)
        self._model_summary_string = (
            f"scDiffAug: {len(contract.var_names)} features as {contract.space.description}, "
            f"encoder sees {len(contract.selected)}, objective {config['objective']}, diffusion "
            f"{config['diffusion']}, condition {config['condition']}"
        )
        if contract.covariate == "batch_key":
            self._model_summary_string += f", batches {_named(contract.category_names)}"
            if contract.query_batches:
                self._model_summary_string += f", mapped {_named(contract.query_batches)}"

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
            Column of obs with batches (samples, donors, conditions). The embedding is corrected
            for them, highly variable features are selected within them (not of peaks), and new
            cells are of the batch of their source. Leave it out to see how batches differ. Where
            ``condition`` is an ablation, it only chooses features.
        neighbors_key
            Key of ``adata.uns`` under which ``sc.pp.neighbors`` left a graph to use in training
            instead of the model's own search. To make new cells the model still searches itself.

        Raises
        ------
        KeyError
            If a layer, column or graph is missing.
        TypeError
            If an argument is of the wrong type.
        ValueError
            If adata is empty, names repeat, or labels or batches are missing; or if it is a view
            of cells on disk.

        Examples
        --------
        >>> import scdiffaug
        >>> adata = scdiffaug.datasets.pbmc68k_reduced()
        >>> adata.layers["counts"] = adata.X.copy()
        >>> scdiffaug.scDiffAug.setup_anndata(adata, layer="counts")
        """
        data.check_setup(adata, layer, labels_key=labels_key, batch_key=batch_key)
        data.check_graph(adata, neighbors_key)
        data.check_no_view_on_disk(adata)
        registration.register(
            cls,
            adata,
            layer=layer,
            labels_key=labels_key,
            batch_key=batch_key,
            neighbors_key=neighbors_key,
        )

    def __repr__(self) -> str:
        return self.summary_string

    @property
    def adata(self) -> AnnData | None:
        """Cells attached to the model; others can be assigned, features in any order."""
        return self._adata

    @adata.setter
    def adata(self, adata: AnnData) -> None:
        cells = registration.registered_by(type(self), adata, self._contract)
        manager = self._get_most_recent_anndata_manager(cells, required=True)
        self._register_manager_for_instance(manager)
        BaseModelClass.adata.fset(self, cells)
        self._has_contract_of_adata = False

    def save(
        self, dir_path: str | Path, *, overwrite: bool = False, save_anndata: bool = False
    ) -> None:
        """Save weights as safetensors, all else as JSON; the folder appears whole or not at all.

        If several processes trained together, only the first one writes.

        Parameters
        ----------
        dir_path
            Folder to create.
        overwrite
            Replace a model that is there already.
        save_anndata
            Save the AnnData beside the model.

        Raises
        ------
        FileExistsError
            If the folder exists and may not be replaced.
        PermissionError
            If nothing can be written there.
        TypeError
            If an argument is of the wrong type.
        ValueError
            If weights are NaN or infinite, or there is no AnnData to save.

        Examples
        --------
        >>> import scdiffaug
        >>> model = scdiffaug.scDiffAug(scdiffaug.datasets.pbmc68k_reduced())
        >>> model.train(max_epochs=2, enable_progress_bar=False)
        >>> model.save("my_model")
        """
        check_path("dir_path", dir_path)
        check_flag("overwrite", overwrite)
        check_flag("save_anndata", save_anndata)
        if save_anndata and self.adata is None:
            raise ValueError("save_anndata=True, but the model has no cells.")
        if not is_first_process():
            return
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
        adata: AnnData | Literal[False] | None = None,
        *,
        accelerator: str = "auto",
        device: int | str = "auto",
    ) -> Self:
        """Load a saved model.

        Parameters
        ----------
        dir_path
            Folder that :meth:`save` made.
        adata
            Cells to attach, features in any order; by default those saved with the model, if any.
            With False, or if there are none, pass ``adata`` to each method.
        accelerator, device
            Where to put the model: ``"auto"``, or the number of a GPU.

        Raises
        ------
        FileNotFoundError
            If the folder holds no model.
        KeyError
            If the layer of the model is missing in ``adata``.
        TypeError
            If an argument is of the wrong type.
        ValueError
            If the files are damaged or of another version, features of the model are missing, or
            the model cannot be put there.

        Examples
        --------
        >>> import scdiffaug
        >>> adata = scdiffaug.datasets.pbmc68k_reduced()
        >>> model = scdiffaug.scDiffAug(adata)
        >>> model.train(max_epochs=2, enable_progress_bar=False)
        >>> model.save("my_model")
        >>> scdiffaug.scDiffAug.load("my_model").get_latent_representation(adata).shape
        (700, 80)
        """
        check_path("dir_path", dir_path)
        target = placed_alone(accelerator, device)
        folder = storage.standing(Path(dir_path))
        saved, weights = _fields_and_weights(folder)
        if adata is None:
            adata = _cells_beside(folder, saved.adata_sha256)
        cells = None if adata is False else adata
        model = cls._restored(saved.contract, saved.module, weights, cells=cells, device=target)
        model.is_trained_ = saved.is_trained
        model.history_ = {
            name: pd.DataFrame({name: values}).rename_axis("epoch")
            for name, values in saved.history.items()
        }
        return model

    @classmethod
    def _restored(
        cls,
        contract: DataContract,
        config: dict[str, Any],
        weights: Mapping[str, Tensor],
        *,
        cells: AnnData | None,
        device: torch.device,
    ) -> Self:
        model = cls.__new__(cls)
        model._attach(cells, contract)
        model._build(contract, config)
        if model.module.makes_counts:
            check_draws_counts(device.type)
        model.module.load_state_dict(weights)
        model.to_device(device)
        model.module.eval()
        return model

    @staticmethod
    def load_registry(*_: object, **__: object) -> NoReturn:
        """Refuse what scvi-tools would unpickle."""
        raise _no_pickle("load_registry")

    @staticmethod
    def view_setup_args(*_: object, **__: object) -> NoReturn:
        """Refuse what scvi-tools would unpickle."""
        raise _no_pickle("view_setup_args")

    @staticmethod
    def convert_legacy_save(*_: object, **__: object) -> NoReturn:
        """Refuse what scvi-tools would unpickle."""
        raise _no_pickle("convert_legacy_save")

    def view_anndata_setup(
        self, adata: AnnData | None = None, hide_state_registries: bool = False
    ) -> None:
        """Print how cells were registered, as in scvi-tools.

        Parameters
        ----------
        adata
            Cells that were registered; by default the model's own.
        hide_state_registries
            Leave out what the fields hold.

        Raises
        ------
        ValueError
            If there are no cells, or they were not registered.

        Examples
        --------
        >>> import scdiffaug
        >>> model = scdiffaug.scDiffAug(scdiffaug.datasets.pbmc68k_reduced())
        >>> model.view_anndata_setup(hide_state_registries=True)  # doctest: +ELLIPSIS
        Anndata setup with scvi-tools version...
        """
        cells = self.adata if adata is None else adata
        if cells is None:
            raise ValueError("The model has no cells: pass adata=... to load.")
        manager = self._get_most_recent_anndata_manager(cells, required=True)
        manager.view_registry(hide_state_registries=hide_state_registries)

    def _attach(self, adata: AnnData | None, contract: DataContract) -> None:
        if adata is None:
            super().__init__(registry={"setup_args": dict(contract.setup), "field_registries": {}})
            return
        super().__init__(registration.registered_by(type(self), adata, contract))

    def get_var_names(self, legacy_mudata_format: bool = False) -> NDArray[np.object_]:
        """Names of the model's features, shape ``(d,)``, also if it was loaded without cells.

        Parameters
        ----------
        legacy_mudata_format
            As in scvi-tools; of no consequence, as the model knows one modality.

        Examples
        --------
        >>> import scdiffaug
        >>> model = scdiffaug.scDiffAug(scdiffaug.datasets.pbmc68k_reduced())
        >>> len(model.get_var_names())
        765
        """
        return pd.Index(self._contract.var_names).to_numpy()

    @property
    def feature_space(self) -> str:
        """Feature space that was chosen: ``"counts"``, ``"peaks"``, ``"log"`` or ``"raw"``."""
        return self._contract.space.kind

    def _read(
        self, adata: AnnData | None, indices: Sequence[int] | None
    ) -> tuple[AnnData, Matrix | StoredMatrix]:
        cells, x = self._contract.read(self._given(adata), indices)
        self._contract.warn_of_depth(x)
        return cells, x

    def _given(self, adata: AnnData | None) -> AnnData:
        """The cells that were passed, by default the model's own."""
        adata = self.adata if adata is None else adata
        if adata is None:
            raise ValueError("The model has no cells: pass adata=...")
        return adata


def _named(batches: Sequence[str]) -> str:
    return " and ".join(map(repr, batches)) if len(batches) <= 2 else str(len(batches))


def _no_pickle(method: str) -> NotImplementedError:
    return NotImplementedError(
        f"{method} would unpickle the folder's files, which can run code: scDiffAug models hold "
        "no pickles, read them with scDiffAug.load."
    )


def _module(contract: DataContract, config: dict[str, Any]) -> DiffAugModule:
    return DiffAugModule(
        len(contract.var_names),
        contract.selected,
        contract.space,
        n_categories=len(contract.category_names),
        n_query_batches=len(contract.query_batches),
        n_neighbors=contract.n_neighbors,
        **config,
    )


def _fields_and_weights(folder: Path) -> tuple[SavedFields, dict[str, Tensor]]:
    """Fields and weights that fit each other; ValueError where the files are damaged."""
    description = storage.read_description(folder)
    try:
        saved = SavedFields.of(description)
        # The meta device gives shapes but takes no memory, however large a file claims to be.
        with torch.device("meta"):
            expected = _module(saved.contract, saved.module).state_dict()
    except (TypeError, ValueError, RuntimeError) as error:
        raise storage.damaged(folder, f"model.json: {str(error).rstrip('.')}") from error
    weights = storage.read_weights(folder, saved.weights_sha256, expected=expected)
    if tuple(weights["inputs.selected"].tolist()) != saved.contract.selected:
        raise storage.damaged(folder, "its two files name different features for the encoder")
    return saved, weights


def _cells_beside(folder: Path, digest: str | None) -> AnnData | None:
    path = storage.saved_adata(folder, digest)
    try:
        return None if path is None else anndata.read_h5ad(path)
    # HDF5 and anndata raise a different exception for every kind of damage.
    except Exception as error:
        raise storage.damaged(
            folder, f"{path} cannot be read ({error}), pass adata=... to do without it"
        ) from error
