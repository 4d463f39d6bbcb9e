import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anndata import AnnData
from refusals import Bench

from scdiffaug import datasets

# The tests' matrices are too small to share: two threads would mostly wait for each other.
torch.set_num_threads(1)

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def _stay_here(event: str, args: tuple[Any, ...]) -> None:
    """End any test that looks up or calls another machine."""
    host = None
    if event == "socket.getaddrinfo":
        host = args[0]
    # The address of a socket between processes is a path.
    elif event == "socket.connect" and isinstance(args[1], tuple):
        host = args[1][0]
    if host and host not in LOOPBACK:
        raise RuntimeError(f"A test must not reach beyond this machine: it asked for {host}.")


sys.addaudithook(_stay_here)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real datasets; tests that need it are skipped where it is absent."""
    beside_checkout = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SCDIFFAUG_DATA_DIR", beside_checkout))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set SCDIFFAUG_DATA_DIR to the folder that has it")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    """Fresh for every test."""
    return np.random.default_rng(0)


@pytest.fixture
def pbmc() -> AnnData:
    """700 cells by 765 genes, counts; fresh for every test."""
    return datasets.pbmc68k_reduced()


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """What bad arguments are tried on; no test leaves it changed."""
    return Bench(tmp_path_factory.mktemp("bench"))
