"""What to do if memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

_SIGNS = ("DefaultCPUAllocator", "MPS backend out of memory")
_T = TypeVar("_T")
logger = logging.getLogger("scdiffaug")


def halved_once(batch_size: int, run: Callable[[int], _T]) -> _T:
    """Run with batches of a size; if memory runs out, run once more with half of it.

    Raises
    ------
    MemoryError
        If memory runs out again.
    """
    half = max(1, batch_size // 2)
    if half < batch_size:
        try:
            return run(batch_size)
        except (MemoryError, RuntimeError) as error:
            if not _is_of_memory(error):
                raise
            logger.warning("No memory for %d cells at once: trying %d.", batch_size, half)
    # Only out here is the error gone, which holds on to the tensors.
    with memory_errors_named(half):
        return run(half)


@contextmanager
def memory_errors_named(batch_size: int) -> Iterator[None]:
    """Turn what torch raises if memory runs out into one sentence.

    Raises
    ------
    MemoryError
        If memory runs out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_of_memory(error):
            raise
        smaller = "pass a smaller batch_size to the model's method, or " if batch_size > 1 else ""
        raise MemoryError(
            f"No memory for {batch_size} cells at once: {smaller}free memory."
        ) from error


def _is_of_memory(error: Exception) -> bool:
    # On CPU and on Apple's devices torch has no error class of its own for it.
    kinds, words = (MemoryError, torch.OutOfMemoryError), str(error)
    return isinstance(error, kinds) or any(sign in words for sign in _SIGNS)
