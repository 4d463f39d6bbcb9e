"""How a stage that writes files is killed, and what is asked of what it leaves."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Literal

import numpy as np

Action = Callable[[], object]
State = Literal["old", "new", "none"]
_FILE_EVENTS = ("open", "os.", "shutil.", "tempfile.")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Something that writes into a folder.

    Parameters
    ----------
    prepare
        Makes what is to be replaced, if anything.
    act
        What is killed.
    left
        Which state it finds; raises where it is none of them.
    states
        Those that a kill may leave.
    """

    prepare: Callable[[Path], object]
    act: Callable[[Path], object]
    left: Callable[[Path], State]
    states: tuple[State, ...]


# How a process is killed.


def forked(action: Action) -> int:
    """Run in a process of its own, in a group of its own; its number."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    try:
        action()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def ended(child: int) -> bool:
    """Wait; whether it was killed. Raises where it failed."""
    status = os.waitpid(child, 0)[1]
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return True
    assert status == 0, f"the stage failed by itself, with status {status}"
    return False


def before_file_event(action: Action, at: int) -> bool:
    """Kill an action before its ``at``-th call to the file system; whether it came so far."""

    def armed() -> None:
        seen = count(1)
        sys.addaudithook(
            lambda event, _: event.startswith(_FILE_EVENTS) and next(seen) == at and _die()
        )
        action()

    return ended(forked(armed))


def before_call(action: Action, at: int) -> bool:
    """Kill an action before its ``at``-th call of a function of C; whether it came so far."""

    def armed() -> None:
        seen = count(1)
        sys.setprofile(lambda _, event, __: event == "c_call" and next(seen) == at and _die())
        action()

    return ended(forked(armed))


def after_seconds(action: Action, seconds: float) -> bool:
    """Kill an action after a while; whether it was still at work."""
    child = forked(action)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return ended(child)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def n_calls(action: Action) -> int:
    """Calls of functions of C that an action makes."""
    reader, writer = os.pipe()

    def counted() -> None:
        calls = Counter[str]()
        sys.setprofile(lambda _, event, __: calls.update((event,)))
        action()
        sys.setprofile(None)
        os.write(writer, str(calls["c_call"]).encode())

    assert not ended(forked(counted))
    found = int(os.read(reader, 20))
    os.close(reader)
    os.close(writer)
    return found


# What is done to a stage.


def systematic(stage: Stage) -> Counter[str]:
    """Kill before each file operation, until the stage outlives them all."""
    counts = Counter[str]()
    for at in count(1):
        with place(stage) as folder:
            if not before_file_event(partial(stage.act, folder), at):
                return counts
            counts += found_after(stage, folder)
    raise AssertionError


def at_random(stage: Stage, n_kills: int, *, last: float = 1.0) -> Counter[str]:
    """Kill before calls drawn at random from the ``last`` share of all."""
    with place(stage) as folder:
        total = n_calls(partial(stage.act, folder))
    rng, counts = np.random.default_rng(0), Counter[str]()
    while counts["kills"] < n_kills:
        with place(stage) as folder:
            if before_call(partial(stage.act, folder), _drawn(rng, total, last)):
                counts += found_after(stage, folder)
    return counts


def _drawn(rng: np.random.Generator, total: int, last: float) -> int:
    return int(rng.integers(1 + (1 - last) * total, total))


def in_time(stage: Stage, n_kills: int) -> Counter[str]:
    """Kill after times drawn at random."""
    with place(stage) as folder:
        start = time.monotonic()
        assert not ended(forked(partial(stage.act, folder)))
        whole = time.monotonic() - start
    rng, counts = np.random.default_rng(0), Counter[str]()
    while counts["kills"] < n_kills:
        with place(stage) as folder:
            if after_seconds(partial(stage.act, folder), rng.uniform(0, whole)):
                counts += found_after(stage, folder)
    return counts


@contextmanager
def place(stage: Stage) -> Iterator[Path]:
    """A folder in which the stage was prepared."""
    with tempfile.TemporaryDirectory() as name:
        stage.prepare(Path(name))
        yield Path(name)


def found_after(stage: Stage, folder: Path) -> Counter[str]:
    """What a kill left; then the stage is run to its end."""
    found = stage.left(folder)
    assert found in stage.states, found
    assert not ended(forked(partial(stage.act, folder)))
    assert stage.left(folder) == "new"
    aside = [path for path in folder.rglob("*") if path.name.startswith(".")]
    assert not aside, aside
    return Counter(("kills", found))
