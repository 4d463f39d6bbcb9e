"""Batches of cells, each with a cell near it: what training reads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from scdiffaug import matrices
from scdiffaug.matrices import Matrix, Rows, StoredMatrix, batches, mixed_reads, shuffled
from scdiffaug.neighbors import NeighborWalks
from scdiffaug.repulsion import Repulsion
from scdiffaug.tensors import to_sparse_tensor

# Walks from a cell until one ends in its own batch.
_MOST_WALKS = 8


def batch_bounds(n_cells: int, batch_size: int) -> list[int]:
    """Where batches begin, and where the last one ends."""
    bounds = [*range(0, n_cells, batch_size), n_cells]
    # A few cells left over join the batch before them: by themselves they would have little to
    # contrast, and move the networks as much. Batches of equal size are no better (NOTES, 52).
    if len(bounds) > 2 and bounds[-1] - bounds[-2] < max(2, batch_size // 64):
        del bounds[-2]
    return bounds


class PairBatches:
    """Shuffled mini-batches of cells, each with a cell near it drawn at random.

    Parameters
    ----------
    x
        Cells, shape ``(n, d)``, which the generator learns from.
    inputs
        Their encoder inputs, shape ``(n, k)``.
    walks
        Random walks, which draw a neighbour of each cell.
    neighbor_weights
        Weight of each neighbour in the mean of a cell's neighbours, shape
        ``(n, n_neighbors)``.
    repulsion
        How much each cell repels the others in the 2-D embedding.
    places
        Where cells are to begin there, shape ``(n, n_projection)``.
    covariates
        Code of each cell's label or batch, shape ``(n,)``; zeros if the networks see none.
    batch_size, generator_batch
        Cells per batch, and those of them that the generator learns from, by default all. With
        none (0), batches bring neither cells nor neighbourhoods, and nothing is read.
    mixes
        Whether half of the cells that the generator learns from get reads of the cell near them
        (:func:`~scdiffaug.matrices.mixed_reads`), so that it meets few cells twice.
    rng
        Draws the order of the cells, their neighbours and the weights of these, and mixtures.
    n_processes
        Processes that train together. Each epoch deals the cells out to them; cells that are
        left over, fewer than processes, wait for the next epoch.
    """

    process = 0
    """Which of the processes this is."""

    def __init__(
        self,
        *,
        x: Matrix | StoredMatrix,
        inputs: NDArray[np.float32],
        walks: NeighborWalks,
        neighbor_weights: NDArray[np.float32],
        repulsion: Repulsion,
        places: NDArray[np.float32],
        covariates: NDArray[np.integer[Any]],
        batch_size: int,
        rng: np.random.Generator,
        generator_batch: int | None = None,
        mixes: bool = False,
        n_processes: int = 1,
    ) -> None:
        self.x, self.inputs, self.covariates, self.rng = x, inputs, covariates, rng
        self.walks, self.neighbor_weights, self.repulsion = walks, neighbor_weights, repulsion
        self.places, self.batch_size, self.generator_batch = places, batch_size, generator_batch
        self.n_processes, self.generates = n_processes, generator_batch != 0
        self.mixes = mixes and self.generates
        self._read = x if self.generates else sparse.csr_matrix((x.shape[0], 0), dtype=np.float32)

    def __len__(self) -> int:
        return len(batch_bounds(self.x.shape[0] // self.n_processes, self.batch_size)) - 1

    def digest(self) -> str:
        """sha256 of the cells in their order, and of their covariates."""
        found = hashlib.sha256(matrices.digest(self.x).encode())
        found.update(np.ascontiguousarray(self.covariates).data)
        return found.hexdigest()

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        order, rng = self._dealt(shuffled(self._read, self.rng))
        bounds = batch_bounds(len(order), self.batch_size)
        for cells, x in batches(self._read, order, bounds, rng=rng):
            near = self.walks.draw(cells, rng)
            around = cells if self.generates else cells[:0]
            yield {
                "x": to_sparse_tensor(
                    self._learnt(x[: self.generator_batch], cells, near, rng=rng)
                ),
                "depth": torch.from_numpy(np.asarray(x.sum(1)).ravel()),
                "inputs": torch.from_numpy(self.inputs[cells]),
                "neighbor_inputs": torch.from_numpy(self.inputs[near]),
                "neighborhood": torch.from_numpy(self._neighborhoods(around, rng)),
                "repulsion": torch.from_numpy(self.repulsion.among(cells)),
                "places": torch.from_numpy(self.places[cells]),
                "covariates": torch.from_numpy(self.covariates[cells]),
            }

    def _learnt(
        self, x: Matrix, cells: Rows, near: NDArray[np.integer[Any]], *, rng: np.random.Generator
    ) -> Matrix:
        """Values for the generator to learn from, half of them mixed with nearby ones if asked."""
        if not self.mixes:
            return x
        n_mixed = x.shape[0] // 2
        near = self._of_same_batch(cells[:n_mixed], near[:n_mixed], rng=rng)
        mixed = mixed_reads(x[:n_mixed], self._read[near], rng=rng)
        return sparse.vstack([mixed, x[n_mixed:]], format="csr")

    def _of_same_batch(
        self, cells: Rows, near: NDArray[np.integer[Any]], *, rng: np.random.Generator
    ) -> NDArray[np.integer[Any]]:
        """A nearby cell of the same batch for each cell, or itself if none is found.

        Reads of another batch would teach the generator to mix batches (NOTES, 60).
        """
        near = near.copy()
        for _ in range(_MOST_WALKS):
            strange = self.covariates[near] != self.covariates[cells]
            if not strange.any():
                return near
            near[strange] = self.walks.draw(cells[strange], rng)
        return np.where(self.covariates[near] == self.covariates[cells], near, cells)

    def _neighborhoods(self, cells: Rows, rng: np.random.Generator) -> NDArray[np.float32]:
        """Means of the cells' neighbours, with the weight of each neighbour varied at random.

        A mean that never changed would identify a cell, and the generator would memorise the cell
        (weights of the Bayesian bootstrap, Rubin 1981; benchmarks/NOTES.md, 26).
        """
        weights = self.neighbor_weights[cells]
        weights = weights * rng.standard_exponential(weights.shape, dtype=np.float32)
        weights /= weights.sum(1, keepdims=True)
        return (weights[:, None] @ self.inputs[self.walks.neighbors[cells]])[:, 0]

    def _dealt(self, order: Rows) -> tuple[Rows, np.random.Generator]:
        """The part of an epoch's order for this process, and random numbers for its batches."""
        if self.n_processes == 1:
            return order, self.rng
        n_cells = len(order) // self.n_processes
        # The order must stay the same in all processes, whatever they draw for their batches.
        rng = np.random.default_rng([int(self.rng.integers(2**63)), self.process])
        return order[self.process * n_cells :][:n_cells], rng
