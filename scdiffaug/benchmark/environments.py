"""Separate environments for peers whose dependencies clash with ours."""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path

from scdiffaug.datasets import _fetch
from scdiffaug.storage import written_aside

# ivis pins an old TensorFlow: it is installed without its pins, beside what it imports.
_REQUIREMENTS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "keras": (
        ("tensorflow-cpu==2.21.0", "tf-keras", "umap-learn", "annoy", "dill", "tqdm", "h5py"),
        ("--no-deps", "ivis"),
    ),
    "dmt": (("torch==2.13.0",), ("dmt-learn", "pytorch-lightning")),
}
NAMES = tuple(_REQUIREMENTS)


def cache_folder(chosen: str | Path | None = None) -> Path:
    """Folder in which prepared inputs, runs and environments are remembered."""
    return _fetch.cache_folder() / "benchmark" if chosen is None else Path(chosen)


def requirements(name: str) -> str:
    """The packages of an environment, in one line."""
    return " ".join(word for command in _REQUIREMENTS[name] for word in command)


def python(name: str, cache: Path) -> Path:
    """Interpreter of an environment.

    Raises
    ------
    FileNotFoundError
        If the environment was not made.
    """
    if name == "main":
        return Path(sys.executable)
    found = cache / "environments" / name / "bin" / "python"
    if not found.exists():
        raise FileNotFoundError(
            f"environment {name!r} is not made: run 'scdiffaug benchmark setup {name}'"
        )
    return found


def make(name: str, cache: Path) -> Path:
    """Make an environment and install its packages.

    Raises
    ------
    ValueError
        If there is no such environment.
    RuntimeError
        If a package could not be installed.
    """
    if name not in NAMES:
        raise ValueError(f"environment {name!r} is unknown: use one of {', '.join(NAMES)}.")
    folder = cache / "environments" / name
    with written_aside(folder) as aside:
        venv.create(aside, with_pip=True)
        for packages in _REQUIREMENTS[name]:
            _install(aside / "bin" / "python", packages)
    return python(name, cache)


def _install(interpreter: Path, packages: tuple[str, ...]) -> None:
    command = [str(interpreter), "-m", "pip", "install", "--quiet", *packages]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        reason = run.stderr.strip().splitlines()[-1:]
        raise RuntimeError(f"pip could not install {' '.join(packages)}: {''.join(reason)}")
