"""What the number of cells decides: cells to train on, steps, and how the generator learns."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

from scdiffaug._checks import check_whole
from scdiffaug.matrices import SUBSAMPLED
from scdiffaug.pairs import batch_bounds

logger = logging.getLogger("scdiffaug")

_STEPS = 800
_STEPS_OF_ENCODER_ALONE = 500
_FEW_CELLS, _FEW_OF_THE_EPOCHS = 100, 4


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Epochs and steps of a training run, and how its generator learns.

    Parameters
    ----------
    n_cells
        Cells that are trained on.
    n_processes
        Processes among which they are shared.
    batch_size
        Cells per step, in each process.
    epochs_asked
        Epochs that the user asks for; None for the default.
    n_passes
        How often a generator may see a cell; 0 if there is none to train.
    alternates
        Whether encoder and generator learn in alternate epochs, not in the same steps.
    """

    n_cells: int
    n_processes: int
    batch_size: int
    epochs_asked: int | None
    n_passes: int
    alternates: bool = False

    @classmethod
    def chosen(
        cls,
        n_cells: int,
        *,
        n_processes: int,
        batch_size: int,
        max_epochs: int | None,
        n_passes: int,
        alternates: bool = False,
    ) -> Budget:
        """The budget of a user's wishes; no batch is larger than a process has cells.

        Raises
        ------
        ValueError
            If there are more processes than cells.
        """
        if n_cells < n_processes:
            raise ValueError(
                f"{n_processes} processes cannot share {n_cells} cells: ask for fewer devices."
            )
        return cls(
            n_cells=n_cells,
            n_processes=n_processes,
            batch_size=min(batch_size, n_cells // n_processes),
            epochs_asked=max_epochs,
            n_passes=n_passes,
            alternates=alternates,
        )

    @property
    def max_epochs(self) -> int:
        """Epochs to train."""
        return self.epochs_asked or self.usual_epochs

    @property
    def usual_epochs(self) -> int:
        """Default number of epochs."""
        epochs = default_epochs(self.n_cells, self.batch_size, n_steps=self._usual_steps)
        return max(2, epochs) if self.alternates else epochs

    @property
    def n_steps(self) -> int:
        """Optimiser steps in all."""
        return self.max_epochs * self._n_batches

    @property
    def encoder_share(self) -> float:
        """Share of the steps after which the encoder is done: it learns as without a generator.

        See ``benchmarks/NOTES.md``, experiment 38.
        """
        if not self.n_passes:
            return 1.0
        until = _STEPS_OF_ENCODER_ALONE * (2 if self.alternates else 1)
        return until / self._usual_steps

    @property
    def generator_batch(self) -> int:
        """Cells per batch that the generator learns from; fewer if it would see them too often."""
        n_seen = self.n_passes * self._n_cells_of_a_process
        n_steps = self.n_steps * (self._steps_of_generator / self._usual_steps)
        return min(self.batch_size, math.ceil(n_seen / n_steps)) if n_seen else 0

    @property
    def generator_epsilon(self) -> float:
        """AdamW's epsilon for the generator: 2e-5 at 1,300 cells, falling as their square.

        It is at most 2e-4, for 411 cells and fewer. With AdamW's own 1e-8, reached at 58,000, a
        rare gene's weights move at full rate whenever one cell has it, and small datasets are
        memorised (benchmarks/NOTES.md, 20, 23, 26 and 43).
        """
        return min(2e-4, max(1e-8, 2e-5 * (1_300 / self.n_cells) ** 2))

    def warn_of_little(self) -> None:
        """Warn if a model cannot learn much."""
        if self.n_cells < _FEW_CELLS:
            logger.warning(
                "%d cells are few to learn from: see whether other seeds agree, or add cells.",
                self.n_cells,
            )
        if self.max_epochs < self.usual_epochs / _FEW_OF_THE_EPOCHS:
            logger.warning(
                "%d steps of training are few, the default for these cells is %d: raise "
                "max_epochs.",
                self.n_steps,
                self.usual_epochs * self._n_batches,
            )

    @property
    def _steps_of_generator(self) -> float:
        return _STEPS * _growth(self.n_cells) if self.n_passes else 0

    @property
    def _usual_steps(self) -> float:
        """Default number of steps; a generator's are the encoder's too, unless they alternate."""
        if self.n_passes and not self.alternates:
            return self._steps_of_generator
        return _STEPS_OF_ENCODER_ALONE + self._steps_of_generator

    @property
    def _n_cells_of_a_process(self) -> int:
        return self.n_cells // self.n_processes

    @property
    def _n_batches(self) -> int:
        return len(batch_bounds(self._n_cells_of_a_process, self.batch_size)) - 1


def n_trained_on(n_cells: int, max_cells: int | None, *, has_graph: bool) -> int:
    """Number of cells to train on; all with a graph, in which a subset would lack neighbours."""
    if max_cells is not None:
        # The model keeps as many, among which every cell is embedded.
        max_cells = check_whole("max_cells", max_cells, at_least=SUBSAMPLED)
    if max_cells is None or max_cells >= n_cells or has_graph:
        return n_cells
    logger.info("Training on %d of %d cells, drawn at random.", max_cells, n_cells)
    return max_cells


def default_epochs(n_cells: int, batch_size: int, *, n_steps: float) -> int:
    """Epochs that make up a number of steps; at least one."""
    return max(1, round(n_steps / (len(batch_bounds(n_cells, batch_size)) - 1)))


def _growth(n_cells: int) -> float:
    """Steps grow with the root of the cells: ten times the cells cost three times the work.

    The encoder alone gained nothing from more steps, up to 116,595 cells (benchmarks/NOTES.md,
    experiments 30 and 32).
    """
    return max(1.0, math.sqrt(n_cells / 10_000))
