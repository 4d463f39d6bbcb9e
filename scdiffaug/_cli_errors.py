"""How the command line fails: one sentence on standard error, exit status 1."""

from collections.abc import Callable
from typing import TypeVar

import typer

_T = TypeVar("_T")
_MENDABLE = (
    FloatingPointError,
    ImportError,
    KeyError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def or_fail(run: Callable[[], _T]) -> _T:
    """Call, and turn what a user can mend into one sentence and exit status 1."""
    try:
        return run()
    except _MENDABLE as error:
        reason = error.args[0] if isinstance(error, KeyError) else error
        typer.echo(f"Error: {reason}", err=True)
        raise typer.Exit(1) from error
