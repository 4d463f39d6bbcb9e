"""Register cells with a model's class; the only file that knows where scvi-tools keeps this."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import pandas as pd
from anndata import AnnData
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data._constants import _MANAGER_UUID_KEY, _SCVI_UUID_KEY
from scvi.data.fields import CategoricalObsField, LayerField
from scvi.model.base import BaseModelClass

from scdiffaug import data
from scdiffaug.contract import DataContract

logger = logging.getLogger("scdiffaug")

# Where scvi-tools marks cells as registered.
_IDENTITIES = (_SCVI_UUID_KEY, _MANAGER_UUID_KEY)


def register(model: type[BaseModelClass], adata: AnnData, **setup: str | None) -> None:
    """Register cells by checked arguments of ``setup_anndata``; a view becomes a copy."""
    if adata.is_view:
        adata._init_as_actual(adata.copy())
    _part_from_original(adata)
    fields = [LayerField(REGISTRY_KEYS.X_KEY, setup["layer"], is_count_data=False)]
    if setup["labels_key"] is not None:
        fields.append(CategoricalObsField(REGISTRY_KEYS.LABELS_KEY, setup["labels_key"]))
    if setup["batch_key"] is not None:
        fields.append(CategoricalObsField(REGISTRY_KEYS.BATCH_KEY, setup["batch_key"]))
    arguments = model._get_setup_method_args(cls=model, adata=adata, **setup)
    manager = AnnDataManager(fields=fields, setup_method_args=arguments)
    with warnings.catch_warnings():
        # Advice on memory layout, which our reader does not depend on.
        warnings.filterwarnings("ignore", message="Training will be faster when")
        # Advice on few cells of a label, which training does not see, or of a batch.
        warnings.filterwarnings("ignore", message="Category .* has fewer than 3 cells")
        manager.register_fields(adata)
    model.register_manager(manager)


def register_if_new(model: type[BaseModelClass], adata: AnnData) -> None:
    """Register cells that are not yet: like those they are a copy of, or with defaults."""
    manager = manager_in(model, adata)
    if manager is None:
        logger.info("Registering adata with defaults: X, no labels, no batches.")
        model.setup_anndata(adata)
    elif manager.adata is not adata:
        original = manager.registry["setup_args"]
        setup = _fitting_setup(adata, original)
        for argument in (name for name in setup if setup[name] != original[name]):
            logger.warning(
                "adata is a copy of cells that were registered with %s=%r, which it lacks or "
                "has in part: it is registered without; to choose yourself, call "
                "setup_anndata.",
                argument,
                original[argument],
            )
        logger.info("Registering adata as what it is a copy of: %s.", setup)
        model.setup_anndata(adata, **setup)


def registered_by(model: type[BaseModelClass], adata: AnnData, contract: DataContract) -> AnnData:
    """The cells with the model's features in its order, registered as the contract says."""
    cells = data.align_features(adata, pd.Index(contract.var_names))
    # What only training needs is left out if the cells lack it.
    setup = {**_fitting_setup(cells, contract.setup), "layer": contract.layer_of(cells)}
    if contract.covariate == "labels_key":
        setup["labels_key"] = contract.setup["labels_key"]
    model.setup_anndata(cells, **setup)
    return cells


@contextmanager
def registered_for_now(
    model: type[BaseModelClass], adata: AnnData, *, if_it_fails: bool = False
) -> Iterator[None]:
    """Undo a registration made within, which scvi-tools would keep, and the cells with it.

    ``if_it_fails``: only if an exception is raised.
    """
    was_registered = is_registered(model, adata)
    known = {key: adata.uns[key] for key in _IDENTITIES if key in adata.uns}
    columns, is_kept = set(adata.obs), False
    try:
        yield
        is_kept = if_it_fails
    finally:
        if is_registered(model, adata) and not was_registered and not is_kept:
            for store in _stores(model):
                store.pop(adata.uns[_SCVI_UUID_KEY], None)
            for key in _IDENTITIES:
                adata.uns.pop(key, None)
            # Those of another model, or of the cells that these are a copy of.
            adata.uns.update(known)
            # Codes of labels and batches.
            adata.obs.drop(columns=set(adata.obs) - columns, inplace=True)


def is_registered(model: type[BaseModelClass], adata: AnnData) -> bool:
    """Whether adata itself is registered, not just what it is a copy or view of."""
    manager = manager_in(model, adata)
    return manager is not None and manager.adata is adata


def manager_in(model: type[BaseModelClass], adata: AnnData) -> AnnDataManager | None:
    """The manager registered for adata, or for the AnnData that it was copied from."""
    return model._setup_adata_manager_store.get(adata.uns.get(_SCVI_UUID_KEY))


def _fitting_setup(adata: AnnData, setup: Mapping[str, str | None]) -> dict[str, str | None]:
    """A setup of other cells, without what these lack or have in part only."""
    checks: dict[str, Callable[[str | None], None]] = {
        "layer": partial(data.check_layer, adata),
        "labels_key": partial(data.check_column, adata, "labels_key"),
        "batch_key": partial(data.check_column, adata, "batch_key"),
        "neighbors_key": partial(data.check_graph, adata),
    }

    def fits(argument: str, key: str | None) -> bool:
        try:
            checks[argument](key)
        except (KeyError, TypeError, ValueError):
            return False
        return True

    return {argument: key if fits(argument, key) else None for argument, key in setup.items()}


def _part_from_original(adata: AnnData) -> None:
    # A copy carries its original's identity, and would take over what is registered for it.
    managers = _managers_of(adata.uns.get(_SCVI_UUID_KEY))
    if not any(manager.adata is adata for manager in managers):
        # Other cells may share this dict.
        adata.uns = {key: value for key, value in adata.uns.items() if key not in _IDENTITIES}


def _managers_of(uuid: str | None) -> Iterator[AnnDataManager]:
    """What is registered under an identity, with any of scvi-tools' models."""
    models = [BaseModelClass]
    for model in models:
        models += model.__subclasses__()
        yield from (store[uuid] for store in _stores(model) if uuid in store)


def _stores(model: type[BaseModelClass]) -> list[dict[str, AnnDataManager]]:
    """Where a model's class, and each of its instances, keep what is registered."""
    return [model._setup_adata_manager_store, *model._per_instance_manager_store.values()]
