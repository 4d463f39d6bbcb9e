"""What a model agreed with its AnnData, and which of its features the encoder sees."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import compress
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scdiffaug import data, doubts, neighbors
from scdiffaug._checks import check_cells
from scdiffaug.components import N_COMPONENTS
from scdiffaug.features import FeatureSpace, select_features
from scdiffaug.fragments import fragments_of
from scdiffaug.matrices import (
    Matrix,
    Rows,
    StoredMatrix,
    beside,
    depths,
    row_blocks,
    subsample,
    to_dense,
)

logger = logging.getLogger("scdiffaug")

# Depths of queries may lie beyond most training cells' by this factor.
_ROOM_OF_DEPTH = 2

# Of fewer of its features than this share, no cell is embedded (benchmarks/NOTES.md, 57).
_LEAST_MEASURED = 0.1

# Which argument names the covariate that networks see: batches, or labels in place of y.
Covariate = Literal["labels_key", "batch_key"]

# Where files of new cells record that X holds what real cells hold in a layer.
X_HOLDS = "x_holds_layer"


@dataclass(frozen=True, kw_only=True)
class DataContract:
    """What a model agreed with its AnnData, by which every later AnnData is read.

    Parameters
    ----------
    setup
        Arguments of ``setup_anndata``: layer, labels_key, batch_key, neighbors_key.
    space
        Feature space of the values.
    var_names
        Features in the model's order.
    selected
        Positions of the features that the encoder sees.
    covariate, category_names
        Which argument of ``setup_anndata`` names the covariate that the networks see of each
        cell, None for none; and the categories there, empty for none.
    query_batches
        Batches mapped after training (``load_query_data``): cells of these are embedded only.
    n_top_features, n_components
        How many features the encoder may see, None for the default, and how many components.
    n_neighbors, seed
        Neighbours of a cell in the graph; seed of their search and of the batches.
    depth
        1st and 99th percentile of the sums of the training cells' values; for counts, of depths.
    """

    setup: Mapping[str, str | None]
    space: FeatureSpace
    var_names: tuple[str, ...]
    selected: tuple[int, ...]
    covariate: Covariate | None
    category_names: tuple[str, ...]
    n_top_features: int | None
    n_components: int
    n_neighbors: int
    seed: int
    depth: tuple[float, float] | None = None
    query_batches: tuple[str, ...] = ()

    @classmethod
    def fit(
        cls,
        adata: AnnData,
        setup: Mapping[str, str | None],
        *,
        feature_space: str,
        n_top_features: int | None,
        n_components: int = N_COMPONENTS,
        n_neighbors: int,
        covariate: Covariate | None,
        seed: int,
    ) -> DataContract:
        """Check an AnnData and decide the feature space and the encoder's features.

        Raises
        ------
        ValueError
            If the values do not fit, or there are too few cells.
        """
        x = data.read_matrix(adata, setup["layer"])
        space = FeatureSpace.decide(x, feature_space, names=adata.var_names)
        x = space.read(x)
        data.check_depth(x, adata.obs_names, space)
        if feature_space == "auto":
            doubts.warn_of_guess(adata, x, space)
        neighbors.check_enough(adata.n_obs, n_neighbors)
        contract = cls(
            setup=setup,
            space=space,
            var_names=tuple(adata.var_names),
            selected=(),
            covariate=covariate,
            category_names=(),
            n_top_features=n_top_features,
            n_components=n_components,
            n_neighbors=n_neighbors,
            seed=seed,
        )
        return contract._fitted(adata, x)

    def refit(self, adata: AnnData) -> DataContract:
        """The same, but with the variable features, depths and categories of other cells."""
        return self._fitted(*self.read(adata))

    def _fitted(self, cells: AnnData, x: Matrix | StoredMatrix) -> DataContract:
        doubts.warn_of_made(cells.obs, "are learnt from")
        rows, few = subsample(x)
        key = self.setup["batch_key"]
        batch = cells.obs[key].iloc[rows] if data.is_complete(cells.obs, key) else None
        selected = select_features(few, self.space, n_top=self.n_top_features, batch=batch)
        return replace(
            self,
            selected=tuple(selected.tolist()),
            category_names=self._categories_of(cells),
            query_batches=(),
            depth=_usual_depth(x),
        )

    def _categories_of(self, cells: AnnData) -> tuple[str, ...]:
        """Names of all labels of cells, or of all their batches."""
        if self.covariate is None:
            return ()
        key = self.setup[self.covariate]
        data.check_column(cells, self.covariate, key)
        if self.covariate == "batch_key":
            data.check_several_of_each(cells.obs[key])
        return tuple(sorted(set(data.named_groups(cells.obs[key]))))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON, with a digest of the features in their order."""
        return {**asdict(self), "var_names_sha256": _digest(self.var_names)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DataContract:
        """Inverse of :meth:`to_dict`, from JSON's lists.

        Raises
        ------
        ValueError
            If the features or their order are not those of the digest.
        """
        values = dict(values)
        if values.pop("var_names_sha256") != _digest(values["var_names"]):
            raise ValueError("var_names are not the saved ones, or not in their order")
        lists = [key for key, value in values.items() if isinstance(value, list)]
        as_tuples = {key: tuple(values[key]) for key in lists}
        return cls(**{**values, **as_tuples, "space": FeatureSpace(**values["space"])})

    def read(
        self,
        adata: AnnData,
        indices: Sequence[int] | None = None,
        *,
        argument: str = "adata",
    ) -> tuple[AnnData, Matrix | StoredMatrix]:
        """Cells with their features in the model's order, and their values, checked."""
        cells = data.align_features(adata, pd.Index(self.var_names), indices, argument=argument)
        layer = self.layer_of(cells)
        if layer is not None and layer not in cells.layers:
            raise KeyError(
                f"{argument} has no layer {layer!r}, which the model reads: it has "
                f"{list(cells.layers)}. If X holds such values: {argument}.layers[{layer!r}] = "
                f"{argument}.X.copy()."
            )
        x = data.read_matrix(cells, layer, argument=argument)
        place = f"{argument}.X" if layer is None else f"layer {layer!r}"
        try:
            # Fractions given to a counts model are an error, not an embedding.
            x = self.space.on_scale_of(x).read(x)
        except ValueError as error:
            how = ", raw or log-normalised" if self.space.is_counts else ""
            raise ValueError(
                f"The model reads {self.space.kind!r} values{how} from {place}: put such values "
                f"there ({str(error).split(':')[0]})."
            ) from error
        data.check_depth(x, cells.obs_names, self.space)
        return cells, x

    def measured_in(self, adata: AnnData) -> NDArray[np.bool_] | None:
        """Mask of the features that the cells have, shape ``(d,)``.

        None if they have all, or none of those that the encoder sees.

        Raises
        ------
        ValueError
            If they have fewer than a tenth of those.
        """
        check_cells("adata", adata)
        names = pd.Index(self.var_names)
        there = names.isin(adata.var_names)
        share = there[list(self.selected)].mean()
        if 0 < share < _LEAST_MEASURED:
            raise data.features_missing(
                names[~there],
                adata,
                of=len(names),
                advice=f"of those that the embedding is made of {share:.0%} are there, and a "
                "tenth is needed; train on features that all cells share",
            )
        return there if share and not there.all() else None

    def of_measured(self, measured: NDArray[np.bool_]) -> DataContract:
        """The contract of cells that have these features alone; it expects no depth of them."""
        place = np.cumsum(measured) - 1
        return replace(
            self,
            var_names=tuple(compress(self.var_names, measured)),
            selected=tuple(int(place[column]) for column in self.selected if measured[column]),
            depth=None,
        )

    def layer_of(self, cells: AnnData) -> str | None:
        """The layer to read; None for X, which is where files of new cells have what it holds."""
        return layer_or_x(self.setup["layer"], cells.layers, cells.uns.get("scdiffaug"))

    def warn_of_depth(self, x: Matrix | StoredMatrix) -> None:
        """Warn if cells differ from the training cells in depth or, if not counts, in scale."""
        if self.depth is None:
            return
        (low, high), median = self.depth, np.median(depths(x))
        # Cells of one type may be less deep than most: platelets are.
        room = _ROOM_OF_DEPTH if self.space.is_counts else 1
        if not low / room <= median <= high * room:
            of, kind = (
                ("counts", "depth") if self.space.is_counts else ("as sum of values", "scale")
            )
            logger.warning(
                "These cells have %.6g %s (median), most that the model learnt from %.6g to %.6g: "
                "where they lie may say more of %s than of type.",
                median,
                of,
                low,
                high,
                kind,
            )

    def warn_of_batches(self, cells: AnnData) -> None:
        """Warn of cells of batches that training did not see."""
        if self.covariate != "batch_key" or not (unknown := self.batches(cells) < 0).any():
            return
        key, advice = self.covariate_column, ""
        if key not in cells.obs:
            of = "no known batch, as adata.obs has no such column"
            advice = "; once it names one, scDiffAug.load_query_data(adata, model) maps them"
        elif not len(named := cells.obs[key][unknown].dropna()):
            of = "no known batch, as that column has no value for them"
        else:
            known, found = self.category_names[0], data.group_name(named.iloc[0])
            of = f"batches that training did not see, e.g. {found!r} where it saw {known!r}"
            advice = "; scDiffAug.load_query_data(adata, model) maps such cells"
        logger.warning(
            "%d of %d cells are of %s (batch_key=%r): they are embedded without correction%s.",
            unknown.sum(),
            len(unknown),
            of,
            key,
            advice,
        )

    def values(self, x: Matrix) -> Matrix:
        """All features as the generator sees them: counts, fragments, else transformed."""
        if self.space.has_ends:
            return fragments_of(x)
        return x if self.space.is_counts else self.space.transform(x)

    def features(self, x: Matrix) -> Matrix:
        """Selected features, from which the encoder's components are made, shape ``(n, k)``."""
        return self.space.features(x)[:, list(self.selected)]

    def seen(self, x: Matrix) -> Matrix:
        """What the encoder sees of cells: selected features; after them depths, if of genes."""
        features = self.features(x)
        if not self.space.sees_depth:
            return features
        return beside(features, depths(x)[:, None])

    @property
    def selected_names(self) -> pd.Index:
        """Names of the features that the encoder sees."""
        return pd.Index(self.var_names)[list(self.selected)]

    def feature(self, cells: AnnData, name: str) -> NDArray[np.float32]:
        """One feature of cells as it is compared and plotted, shape ``(n,)``."""
        x, column = self.read(cells)[1], [self.var_names.index(name)]
        parts = [to_dense(self.space.transform(x[rows])[:, column]) for rows in row_blocks(x)]
        return np.concatenate(parts)[:, 0]

    def covariates(self, cells: AnnData, rows: Rows) -> NDArray[np.int64]:
        """Codes of the covariate of some cells, shape ``(m,)``; zeros if there is none.

        Raises
        ------
        KeyError
            If the column is missing.
        ValueError
            If one of the cells has no value in it, or one that training did not see.
        """
        argument, key = str(self.covariate), self.covariate_column
        if key is None:
            return np.zeros(len(rows), dtype=np.int64)
        data.check_key(cells, argument, key)
        of_rows = pd.DataFrame({key: cells.obs[key].iloc[rows]})
        data.check_no_missing(of_rows, argument, key)
        names = data.named_groups(of_rows[key])
        if mapped := sorted(set(names) & set(self.query_batches)):
            raise ValueError(
                f"{argument}={key!r} has cells of {mapped[0]!r}, which were mapped by "
                "load_query_data, for the embedding alone: new cells are made of the batches that "
                f"training saw, e.g. {self.category_names[0]!r}."
            )
        data.check_known(names, self.category_names, argument=argument)
        return pd.Index(self.category_names).get_indexer(names)

    def batches(self, cells: AnnData, rows: Rows | slice = slice(None)) -> NDArray[np.int64]:
        """Codes of some cells' batches, shape ``(m,)``; -1 of one that training did not see."""
        if self.covariate != "batch_key" or self.covariate_column not in cells.obs:
            return np.full(cells.n_obs, -1)[rows]
        names = data.named_groups(cells.obs[self.covariate_column].iloc[rows])
        return pd.Index(self.category_names + self.query_batches).get_indexer(names)

    def with_batches_of(self, cells: AnnData) -> DataContract:
        """The same, with those batches of cells that it lacks.

        Raises
        ------
        KeyError
            If the column is missing.
        ValueError
            If a cell has no value in it, or most have one of their own.
        """
        key = self.covariate_column
        if key not in cells.obs:
            raise KeyError(
                f"batch_key={key!r} not found in adata.obs: name the batch of each cell there, or "
                f"of all, adata.obs[{key!r}] = 'my_sample'."
            )
        data.check_column(cells, "batch_key", key)
        names = data.named_groups(cells.obs[key])
        if cells.n_obs > 1:
            data.check_several_of_each(names)
        known = {*self.category_names, *self.query_batches}
        return replace(self, query_batches=(*self.query_batches, *sorted(set(names) - known)))

    @property
    def covariate_column(self) -> str | None:
        """Column of obs with the covariate that the networks see; None if there is none."""
        return None if self.covariate is None else self.setup[self.covariate]


def layer_or_x(layer: str | None, layers: Container[str], provenance: object) -> str | None:
    """A layer, or None for X if cells lack the layer and record that X holds what it would."""
    is_in_x = isinstance(provenance, Mapping) and provenance.get(X_HOLDS) == layer
    return None if is_in_x and layer not in layers else layer


def _usual_depth(x: Matrix | StoredMatrix) -> tuple[float, float]:
    low, high = np.percentile(depths(x), [1, 99])
    return float(low), float(high)


def _digest(names: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(names)).encode()).hexdigest()
