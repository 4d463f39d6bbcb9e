"""Runs in separate processes, remembered by a hash of all that decides their outcome."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from joblib import parallel_config
from threadpoolctl import threadpool_limits

from scdiffaug.storage import write_whole

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True)
class Run:
    """The outcome of a job: scores of each representation, or why there are none."""

    seconds: float
    peak_mb: float
    versions: dict[str, str]
    scores: dict[str, dict[str, float]]
    error: str = ""

    @classmethod
    def failed(cls, error: Exception) -> Run:
        """The outcome of a job that raised an error."""
        nan = float("nan")
        return cls(seconds=nan, peak_mb=nan, versions={}, scores={}, error=str(error))


def digest_of(files: Iterable[Path]) -> str:
    """Hash of the contents of files."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def named_by_hash(cache: Path, name: str, decides: Mapping[str, Any]) -> Path:
    """Folder in which a run is remembered, given all that decides its outcome."""
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
    return cache / "runs" / f"{name}-{digest[:16]}"


@contextmanager
def _ending_on_termination() -> Iterator[None]:
    """Let SIGTERM end this process by an exception, so that subprocess ends the worker too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def call(command: list[str], *, timeout: float, passive: bool = True) -> None:
    """Run a worker; RuntimeError if it fails, with its last line, or takes too long.

    The worker ends with this process: on Ctrl-C, and on SIGTERM by SystemExit with status 143.
    With ``passive``, idle threads sleep, because spinning OpenMP threads of one library starve
    those of the next. A single library is faster if its threads spin.
    """
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    environment |= {"OMP_WAIT_POLICY": "passive"} if passive else {}
    with _ending_on_termination(), tempfile.TemporaryFile("w+", errors="replace") as log:
        try:
            done = subprocess.run(
                command, stdout=log, stderr=log, timeout=timeout, check=False, env=environment
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"took longer than {timeout:g} s") from None
        if done.returncode:
            log.seek(0)
            lines = [line.strip() for line in log if line.strip()]
            raise RuntimeError(lines[-1] if lines else f"ended with status {done.returncode}")


@contextmanager
def mapped(
    function: Callable[[_Item], _Result], items: Iterable[_Item], *, n_jobs: int
) -> Iterator[Iterator[_Result]]:
    """Results in the order of the items; ``n_jobs`` are computed at once and share the cores.

    Processes and their workers end with this one, as in :func:`call`.
    """
    if n_jobs == 1:
        yield map(function, items)
        return
    n_threads = max(1, (os.cpu_count() or 1) // n_jobs)
    pool = multiprocessing.get_context("spawn").Pool(n_jobs, _take_cores, (n_threads,))
    with _ending_on_termination(), pool:
        yield pool.imap(function, items)


def _take_cores(n_threads: int) -> None:
    """Limit the cores of this process and its workers, also for scikit-learn's forests."""
    names = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "LOKY_MAX_CPU_COUNT")
    os.environ |= dict.fromkeys(names, str(n_threads))
    threadpool_limits(n_threads)
    # A process of a pool may not start others, as joblib would by default.
    parallel_config("threading")


def remembered(
    path: Path, compute: Callable[[], dict[str, dict[str, float]]]
) -> dict[str, dict[str, float]]:
    """Scores read from a JSON file, or computed and written there the first time."""
    if path.exists():
        found: dict[str, dict[str, float]] = json.loads(path.read_text())
        return found
    scores = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda aside: aside.write_text(json.dumps(scores)))
    return scores
