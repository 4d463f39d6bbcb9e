"""What training starts from: the cells drawn, their inputs, neighbours and communities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from anndata import AnnData
from numpy.typing import NDArray

from scdiffaug import data, matrices, neighbors
from scdiffaug._randomness import seed_of
from scdiffaug._threads import torch_threads_kept
from scdiffaug.batch_offsets import BatchOffsets
from scdiffaug.components import PrincipalAxes
from scdiffaug.contract import DataContract
from scdiffaug.layouts import community_layout
from scdiffaug.matrices import Matrix, Rows, StoredMatrix, drawn_rows, row_blocks, subsample, taken
from scdiffaug.neighborhood import neighbor_weights
from scdiffaug.neighbors import NeighborWalks
from scdiffaug.pairs import PairBatches
from scdiffaug.repulsion import USUAL_BALANCE, USUAL_RELATEDNESS, Repulsion
from scdiffaug.residuals import ResidualProjection, n_residual


def training_cells(
    contract: DataContract,
    adata: AnnData,
    *,
    n_components: int,
    batch_size: int,
    n_cells: int | None = None,
    balance: float = USUAL_BALANCE,
    relatedness: float = USUAL_RELATEDNESS,
    n_projection: int = 2,
    generator_batch: int | None = None,
    n_processes: int = 1,
) -> tuple[PairBatches, PrincipalAxes]:
    """Batches of cells, each with a nearby one, and the axes of the encoder's inputs.

    ``n_cells``: how many cells are drawn to train on; all by default.
    """
    cells, x = contract.read(adata)
    if n_cells is not None and n_cells < cells.n_obs:
        rows = drawn_rows(cells.n_obs, n_cells, seed=seed_of(contract.seed, "training cells"))
        cells, x = cells[rows], taken(x, rows)
    components, axes = components_of(contract, x, n_components=n_components)
    covariates = contract.covariates(cells, np.arange(cells.n_obs))
    offsets = _batch_offsets(contract, components, covariates, blocks=axes.blocks)
    inputs = components if offsets is None else offsets.corrected(components, covariates)
    axes = replace(axes, offsets=offsets)
    near = _neighbors(contract, cells, axes.search_space(inputs))
    walks = NeighborWalks(near)
    communities = walks.communities(seed=seed_of(contract.seed, "communities"))
    repulsion = Repulsion.fit(inputs, communities, balance=balance, relatedness=relatedness)
    pairs = PairBatches(
        x=x.map(contract.values) if isinstance(x, StoredMatrix) else contract.values(x),
        inputs=inputs,
        walks=walks,
        neighbor_weights=_weights_of(inputs, near, blocks=axes.blocks),
        repulsion=repulsion,
        places=_places(
            contract, walks, repulsion, batch_size=batch_size, n_projection=n_projection
        ),
        covariates=covariates,
        batch_size=batch_size,
        generator_batch=generator_batch,
        # With more cells, each is seen too seldom to be memorised.
        mixes=contract.space.is_counts and x.shape[0] <= matrices.SUBSAMPLED,
        rng=np.random.default_rng(seed_of(contract.seed, "batches")),
        n_processes=n_processes,
    )
    return pairs, axes


def components_of(
    contract: DataContract, x: Matrix | StoredMatrix, *, n_components: int
) -> tuple[NDArray[np.float32], PrincipalAxes]:
    """Components of all cells, those of residuals included, and their axes."""
    seen, seed = contract.seen(subsample(x)[1]), seed_of(contract.seed, "components")
    axes = PrincipalAxes.fit(
        seen[:, : len(contract.selected)],
        n_components=n_components,
        seed=seed,
        tf_idf=contract.space.kind == "peaks",
    )
    if further := n_residual(*axes.axes.shape, sees_depth=contract.space.sees_depth):
        residuals = ResidualProjection(len(contract.selected), further)
        residuals.fit(seen, seed=seed)
        axes = replace(axes, residuals=residuals)
    parts = [axes.transform(contract.seen(x[rows])) for rows in row_blocks(x)]
    return np.concatenate(parts), axes


def _batch_offsets(
    contract: DataContract,
    components: NDArray[np.float32],
    covariates: NDArray[np.int64],
    *,
    blocks: Sequence[slice],
) -> BatchOffsets | None:
    if contract.covariate != "batch_key":
        return None
    offsets = BatchOffsets(
        len(components),
        len(contract.category_names),
        components.shape[1],
        blocks=blocks,
    )
    offsets.fit(components, covariates, seed=seed_of(contract.seed, "offsets"))
    return offsets


def _places(
    contract: DataContract,
    walks: NeighborWalks,
    repulsion: Repulsion,
    *,
    batch_size: int,
    n_projection: int,
) -> NDArray[np.float32]:
    """Where each cell begins in the 2-D embedding, shape ``(n, n_projection)``."""
    communities = repulsion.communities
    layout = community_layout(
        walks.crossings(communities, seed=seed_of(contract.seed, "crossings")),
        repulsion.weights,
        repulsion.sizes,
        batch_size=batch_size,
        n_dimensions=n_projection,
        seed=seed_of(contract.seed, "layout"),
    )
    return layout[communities]


def _neighbors(
    contract: DataContract, cells: AnnData, points: NDArray[np.float32]
) -> NDArray[np.int64]:
    key = contract.setup["neighbors_key"]
    if key is not None:
        data.check_graph(cells, key)
        neighbors.check_enough(cells.n_obs, contract.n_neighbors)
        graph = cells.obsp[cells.uns[key]["distances_key"]]
        return neighbors.knn_from_graph(graph, contract.n_neighbors)
    seed = seed_of(contract.seed, "neighbors")
    with torch_threads_kept():
        return neighbors.knn_indices(points, contract.n_neighbors, seed=seed)


def _weights_of(
    inputs: NDArray[np.float32], near: Rows, *, blocks: Sequence[slice]
) -> NDArray[np.float32]:
    """Weight of each neighbour in a cell's neighbourhood, shape ``(n, n_neighbors)``."""
    x, weights = torch.from_numpy(inputs), np.empty(near.shape, dtype=np.float32)
    for rows in row_blocks(inputs):
        around = x[torch.from_numpy(near[rows])]
        weights[rows] = neighbor_weights(x[rows], around, blocks).numpy()
    return weights
