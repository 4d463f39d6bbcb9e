"""What the number of cells decides: steps of training, and how the generator learns."""

from __future__ import annotations

import logging
import math

from scdiffaug.pairs import LARGEST_GENERATOR_BATCH

logger = logging.getLogger("scdiffaug")

_STEPS = 800
_STEPS_OF_ENCODER_ALONE = 500
_FEW_CELLS, _FEW_OF_THE_STEPS = 100, 4
_GENERATOR_PASSES = 75


def default_epochs(n_cells: int, batch_size: int, *, generates: bool) -> int:
    """Epochs that make up the default budget of steps.

    800 steps, which beyond 10,000 cells grow with the square root of the cells, so that ten times
    the cells cost three times the work. The encoder alone has 500 and gained nothing from more,
    up to 116,595 cells (benchmarks/NOTES.md, experiments 30 and 32).
    """
    n_steps = _STEPS * _growth(n_cells) if generates else _STEPS_OF_ENCODER_ALONE
    return max(1, round(n_steps / math.ceil(n_cells / batch_size)))


def encoder_share(n_cells: int) -> float:
    """Share of the steps in which an encoder learns beside a generator: as long as one alone.

    See ``benchmarks/NOTES.md``, experiment 38.
    """
    return _STEPS_OF_ENCODER_ALONE / (_STEPS * _growth(n_cells))


def _growth(n_cells: int) -> float:
    return max(1.0, math.sqrt(n_cells / 10_000))


def generator_batch(n_cells: int, n_steps: int) -> int:
    """Cells of a batch that the generator learns from: 256, or fewer where it sees them often.

    It needs more steps than the encoder, not more cells in each; after some 75 passes over the
    cells it begins to learn them by heart (benchmarks/NOTES.md, experiment 19).
    """
    return min(LARGEST_GENERATOR_BATCH, math.ceil(_GENERATOR_PASSES * n_cells / n_steps))


def generator_epsilon(n_cells: int) -> float:
    """AdamW's epsilon for the generator: 2e-5 at 1,300 cells, falling as their square.

    At most 2e-4, for 411 cells and fewer. With AdamW's own 1e-8, which is reached at 58,000, a
    rare gene's weights move at full rate whenever one cell has it, and few cells are learnt by
    heart (benchmarks/NOTES.md, 20, 23, 26 and 43).
    """
    return min(2e-4, max(1e-8, 2e-5 * (1_300 / n_cells) ** 2))


def say_of_little(n_cells: int, n_steps: int, *, default_steps: int) -> None:
    """Warn where a model cannot have learnt much."""
    if n_cells < _FEW_CELLS:
        logger.warning(
            "%d cells are few to learn from: see whether other seeds agree, or add cells.", n_cells
        )
    if n_steps < default_steps / _FEW_OF_THE_STEPS:
        logger.warning(
            "%d steps of training are few, the default for these cells is %d: raise max_epochs.",
            n_steps,
            default_steps,
        )
