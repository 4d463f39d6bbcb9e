"""What changes with the step of training, as functions of the step alone."""

from __future__ import annotations

import math


def one_cycle(step: int, *, n_steps: int) -> tuple[float, float]:
    """Share of the peak learning rate, and momentum, at a step (Smith and Topin 2018).

    Torch's ``OneCycleLR`` has one length for all parameters. As there, the rate rises for a tenth
    of the steps, then falls to nothing, and stays so; momentum falls and rises.
    """
    # A rise of no step would be a division by zero.
    peak = max(0.1 * (n_steps + 1), 2) - 1
    if step <= peak:
        return _between(1 / 25, 1, step / peak), _between(0.95, 0.85, step / peak)
    fallen = min(1, (step - peak) / max(n_steps - peak, 1))
    return _between(1, 1 / 250_000, fallen), _between(0.85, 0.95, fallen)


def _between(start: float, end: float, share: float) -> float:
    """From start to end along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def layout_weight(step: int, *, n_steps: int) -> float:
    """Weight of the layout of communities: 1 at first, none after a fifth of the steps.

    The layout is where cells begin (benchmarks/NOTES.md, experiment 39).
    """
    return max(0.0, 1 - 5 * step / n_steps)
