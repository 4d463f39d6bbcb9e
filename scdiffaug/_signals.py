"""How training hears signals, and what of Lightning a user does not hear."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import lightning.pytorch as pl
from lightning.pytorch.utilities.exceptions import SIGTERMException


@contextmanager
def without_chatter() -> Iterator[None]:
    """Silence what Lightning says of itself and a user cannot act on."""
    chatter = logging.getLogger("lightning.pytorch")
    level = chatter.level
    chatter.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")
            warnings.filterwarnings("ignore", message=".*does not have many workers")
            yield
    finally:
        chatter.setLevel(level)


@contextmanager
def failing_on_termination() -> Iterator[None]:
    """Let SIGTERM end the process as shells expect; Lightning's exception means success."""
    try:
        yield
    except SIGTERMException as stopped:
        raise SystemExit(128 + signal.SIGTERM) from stopped


@contextmanager
def stop_on_interrupt(trainer: pl.Trainer) -> Iterator[None]:
    """Let Ctrl-C end training after the batch at hand, leaving a usable model."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_signal: int, _frame: FrameType | None) -> None:
        trainer.should_stop = True

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
