"""The part of the model that says where in an AnnData it finds what it needs."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# scvi-tools uses rich.pretty in view_anndata_setup without importing it.
import rich.pretty  # noqa: F401
from anndata import AnnData
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data._constants import _SCVI_UUID_KEY
from scvi.data.fields import CategoricalObsField, LayerField

from scdiffaug import data
from scdiffaug.generating import GeneratingModel

logger = logging.getLogger("scdiffaug")


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
            setup = _still_there(adata, manager.registry["setup_args"])
            logger.info("Registering adata as what it is a copy of: %s.", setup)
            cls.setup_anndata(adata, **setup)

    @classmethod
    def _is_registered(cls, adata: AnnData) -> bool:
        """Whether adata itself is registered, not just what it is a copy or view of."""
        manager = cls._manager_in(adata)
        return manager is not None and manager.adata is adata

    @classmethod
    @contextmanager
    def _registered_for_now(cls, adata: AnnData) -> Iterator[None]:
        """Drop a registration made within, which scvi-tools would keep, and the cells with it."""
        was_registered, known = cls._is_registered(adata), adata.uns.get(_SCVI_UUID_KEY)
        try:
            yield
        finally:
            if cls._is_registered(adata) and not was_registered:
                uuid = adata.uns.pop(_SCVI_UUID_KEY)
                of_instances = cls._per_instance_manager_store.values()
                for store in (cls._setup_adata_manager_store, *of_instances):
                    store.pop(uuid, None)
                if known is not None:
                    # That of the cells that these are a copy of.
                    adata.uns[_SCVI_UUID_KEY] = known

    @classmethod
    def _part_from_original(cls, adata: AnnData) -> None:
        # A copy carries its original's identity, and would take over its registration.
        if cls._manager_in(adata) is not None and not cls._is_registered(adata):
            del adata.uns[_SCVI_UUID_KEY]

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
            # Of a label or batch, from which training does not learn.
            warnings.filterwarnings("ignore", message="Category .* has fewer than 3 cells")
            manager.register_fields(adata)
        cls.register_manager(manager)


def _still_there(adata: AnnData, setup: Mapping[str, str | None]) -> dict[str, str | None]:
    """A registration without what this copy lacks, of which a warning tells."""
    checks = {
        "layer": lambda key: data.check_layer(adata, key),
        "labels_key": lambda key: data.check_key(adata, "labels_key", key),
        "batch_key": lambda key: data.check_key(adata, "batch_key", key),
        "neighbors_key": lambda key: data.check_graph(adata, key),
    }
    kept = dict(setup)
    for argument, key in setup.items():
        try:
            checks[argument](key)
        except KeyError:
            logger.warning(
                "adata is a copy of cells that were registered with %s=%r, which it lacks: it is "
                "registered without; to choose yourself, call setup_anndata.",
                argument,
                key,
            )
            kept[argument] = None
    return kept
