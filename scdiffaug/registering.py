"""The part of the model that says where in an AnnData it finds what it needs."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# scvi-tools uses rich.pretty in view_anndata_setup without importing it.
import rich.pretty  # noqa: F401
from anndata import AnnData
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data._constants import _MANAGER_UUID_KEY, _SCVI_UUID_KEY
from scvi.data.fields import CategoricalObsField, LayerField
from scvi.model.base import BaseModelClass

from scdiffaug import data
from scdiffaug.generating import GeneratingModel
from scdiffaug.saved_model import fitting_setup

logger = logging.getLogger("scdiffaug")

# Where scvi-tools marks cells as registered.
_IDENTITIES = (_SCVI_UUID_KEY, _MANAGER_UUID_KEY)


class RegisteringModel(GeneratingModel):
    """A model with which cells are registered, as in scvi-tools."""

    @classmethod
    def _manager_in(cls, adata: AnnData) -> AnnDataManager | None:
        """The manager registered for adata, or for the AnnData that it was copied from."""
        return cls._setup_adata_manager_store.get(adata.uns.get(_SCVI_UUID_KEY))

    @classmethod
    def _ensure_set_up(cls, adata: AnnData) -> None:
        """Register cells that are not yet: like those they are a copy of, or with defaults."""
        manager = cls._manager_in(adata)
        if manager is None:
            logger.info("Registering adata with defaults: X, no labels, no batches.")
            cls.setup_anndata(adata)
        elif manager.adata is not adata:
            original = manager.registry["setup_args"]
            setup = fitting_setup(adata, original)
            for argument in (name for name in setup if setup[name] != original[name]):
                logger.warning(
                    "adata is a copy of cells that were registered with %s=%r, which it lacks or "
                    "has in part: it is registered without; to choose yourself, call "
                    "setup_anndata.",
                    argument,
                    original[argument],
                )
            logger.info("Registering adata as what it is a copy of: %s.", setup)
            cls.setup_anndata(adata, **setup)

    @classmethod
    def _is_registered(cls, adata: AnnData) -> bool:
        """Whether adata itself is registered, not just what it is a copy or view of."""
        manager = cls._manager_in(adata)
        return manager is not None and manager.adata is adata

    @classmethod
    @contextmanager
    def _registered_for_now(cls, adata: AnnData, *, if_it_fails: bool = False) -> Iterator[None]:
        """Undo a registration made within, which scvi-tools would keep, and the cells with it.

        ``if_it_fails``: only if an exception is raised.
        """
        was_registered = cls._is_registered(adata)
        known = {key: adata.uns[key] for key in _IDENTITIES if key in adata.uns}
        columns, is_kept = set(adata.obs), False
        try:
            yield
            is_kept = if_it_fails
        finally:
            if cls._is_registered(adata) and not was_registered and not is_kept:
                cls._forget(adata.uns[_SCVI_UUID_KEY])
                for key in _IDENTITIES:
                    adata.uns.pop(key, None)
                # Those of another model, or of the cells that these are a copy of.
                adata.uns.update(known)
                # Codes of labels and batches.
                adata.obs.drop(columns=set(adata.obs) - columns, inplace=True)

    @classmethod
    def _forget(cls, uuid: str) -> None:
        for store in _stores(cls):
            store.pop(uuid, None)

    @staticmethod
    def _part_from_original(adata: AnnData) -> None:
        # A copy carries its original's identity, and would take over what is registered for it.
        managers = _managers_of(adata.uns.get(_SCVI_UUID_KEY))
        if not any(manager.adata is adata for manager in managers):
            # Other cells may share this dict.
            adata.uns = {key: value for key, value in adata.uns.items() if key not in _IDENTITIES}

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
            for them, variable features are chosen within them, and new cells are of the batch of
            their source. Leave it out to see how batches differ. Where ``condition`` is an
            ablation, it only chooses features.
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
        if adata.is_view:
            adata._init_as_actual(adata.copy())
        cls._part_from_original(adata)
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
            # Advice on few cells of a label, which training does not see, or of a batch.
            warnings.filterwarnings("ignore", message="Category .* has fewer than 3 cells")
            manager.register_fields(adata)
        cls.register_manager(manager)


def _managers_of(uuid: str | None) -> Iterator[AnnDataManager]:
    """What is registered under an identity, with any of scvi-tools' models."""
    models = [BaseModelClass]
    for model in models:
        models += model.__subclasses__()
        yield from (store[uuid] for store in _stores(model) if uuid in store)


def _stores(model: type[BaseModelClass]) -> list[dict[str, AnnDataManager]]:
    """Where a model's class, and each of its instances, keep what is registered."""
    return [model._setup_adata_manager_store, *model._per_instance_manager_store.values()]
