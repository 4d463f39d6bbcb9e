"""One seed, several streams: draws for one purpose never change the draws for another."""

from __future__ import annotations

import zlib
from typing import Literal

import numpy as np

Stream = Literal[
    "weights",  # at the start
    "training cells",  # which are trained on, if there are too many
    "components",  # the solver of principal components
    "offsets",  # first clusters in which batches are compared
    "neighbors",  # their approximate search
    "communities",  # of the neighbour graph
    "crossings",  # walks between communities that are counted
    "layout",  # starts of the communities' layout
    "batches",  # order of the cells, walks between them, weights of neighbours
    "positives",  # which batches have generated ones
    "noise",  # mixing, diffusion and generated cells in training
    "sources",  # which cells new ones are made from, and how deep
    "cells",  # the new cells themselves
    "tries",  # new cells in place of rejected ones
    "blocks",  # new cells of each block of a file
    "split",  # the halves of a report
]


def seed_of(seed: int, stream: Stream, *numbers: int) -> int:
    """Seed of a named stream, or of one of its numbered parts; below 2³².

    Examples
    --------
    >>> seed_of(0, "noise") == seed_of(0, "noise")
    True
    >>> len({seed_of(0, "noise"), seed_of(0, "batches"), seed_of(1, "noise")})
    3
    """
    key = (zlib.crc32(stream.encode()), *numbers)
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1)[0])
