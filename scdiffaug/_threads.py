"""The number of threads that torch computes with, which other libraries change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def torch_threads_kept() -> Iterator[None]:
    """Leave torch with the number of threads that it had.

    Numba, which scanpy and pynndescent compute with, tells OpenMP at its first parallel loop to
    use all cores, whatever ``OMP_NUM_THREADS`` or ``torch.set_num_threads`` said before. Two
    processes with a core each would then starve each other.
    """
    n_threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
