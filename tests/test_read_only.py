"""Folders that may not be written to: said in a sentence, before the work where that is long."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from refusals import Bench
from typer.testing import CliRunner

from scdiffaug.checkpoint import Checkpoints, Progress
from scdiffaug.cli import app
from scdiffaug.storage import write_whole

SAID = "{} cannot be written to: name another folder, or change who may write there."


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that others may enter, as those of pytest are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Nobody may write here; a root user, who may anywhere, is nobody for a while."""
    folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        folder.chmod(0o755)


def _checkpoint(folder: Path) -> None:
    progress = Progress(records=[], generators={}, tensors={"w": torch.zeros(2)})
    Checkpoints(folder, {}).write(progress)


WRITERS: dict[str, Callable[[Bench, Path], object]] = {
    "save": lambda bench, folder: bench.model.save(folder / "model"),
    "save in place of another": lambda bench, folder: bench.model.save(
        folder / "there", overwrite=True
    ),
    "checkpoint": lambda _, folder: _checkpoint(folder),
    "file": lambda _, folder: write_whole(folder / "file", lambda aside: aside.write_text("new")),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_read_only_folder_is_named(
    bench: Bench, folder: Path, write: Callable[[Bench, Path], object]
) -> None:
    bench.model.save(folder / "there")
    with _locked(folder), pytest.raises(PermissionError) as caught:
        write(bench, folder)
    assert str(caught.value) == SAID.format(folder)
    assert [path.name for path in folder.iterdir()] == ["there"]
    write(bench, folder)


@pytest.mark.parametrize("command", ["embed", "augment"])
@pytest.mark.parametrize("place", ["results", "models"])
def test_commands_try_their_places_before_they_train(
    bench: Bench, folder: Path, command: str, place: str
) -> None:
    bench.adata.write_h5ad(folder / "cells.h5ad")
    for name in ("results", "models"):
        (folder / name).mkdir()
        (folder / name).chmod(0o777)
    words = [command, folder / "cells.h5ad", folder / "results" / "out.h5ad"]
    words += ["--model", folder / "models" / "model"]
    with _locked(folder / place):
        run = CliRunner().invoke(app, [*map(str, words)])
    assert run.exit_code == 1
    assert run.output == f"Error: {SAID.format(folder / place)}\n"
    assert not list((folder / "models").iterdir())
