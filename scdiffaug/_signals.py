"""How training reacts to signals, and which of Lightning's messages users do not see."""

from __future__ import annotations

import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

import lightning.pytorch as pl
from lightning.pytorch.utilities.exceptions import SIGTERMException


class _Quiet:
    """Silences what a user cannot act on while any thread is within, and then as it was."""

    def __init__(self) -> None:
        self._lock, self._n_within, self._undone = threading.Lock(), 0, ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._n_within:
                self._silence()
            self._n_within += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._n_within -= 1
            if not self._n_within:
                self._undone.close()

    def _silence(self) -> None:
        for part in ("pytorch", "fabric"):
            chatter = logging.getLogger(f"lightning.{part}")
            self._undone.callback(chatter.setLevel, chatter.level)
            chatter.setLevel(logging.WARNING)
        self._undone.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        # With DDP, scvi-tools says so even if nobody asked for early stopping.
        warnings.filterwarnings("ignore", message="early_stopping was automatically disabled")


# Lightning's messages; one for all threads, which share loggers and filters.
WITHOUT_CHATTER = _Quiet()


@contextmanager
def failing_on_termination() -> Iterator[None]:
    """Let SIGTERM end the process as shells expect; Lightning's exception means success."""
    try:
        yield
    except SIGTERMException as stopped:
        raise SystemExit(128 + signal.SIGTERM) from stopped


class EndingTogether(pl.Callback):
    """Lets SIGTERM end several processes; with Lightning's handler they wait for each other."""

    def on_train_start(self, trainer: pl.Trainer, _: pl.LightningModule) -> None:
        """Take the place of Lightning's handler, until Lightning sets back what was before."""

        def end(number: int, _: FrameType | None) -> None:
            if trainer.strategy.launcher is not None:
                trainer.strategy.launcher.kill(number)
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, end)


@contextmanager
def stop_on_interrupt(trainer: pl.Trainer) -> Iterator[None]:
    """Let Ctrl-C end training after the batch at hand, leaving a usable model.

    Several processes would not stop after the same batch, and would wait for each other, so
    Lightning ends them.
    """
    in_main = threading.current_thread() is threading.main_thread()
    # A handler that is not Python's, as R's, could not be put back.
    if trainer.world_size > 1 or not in_main or signal.getsignal(signal.SIGINT) is None:
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        trainer.should_stop = True

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
