import os
from pathlib import Path

import numpy as np
import pytest
import torch
from anndata import AnnData
from refusals import Bench

from scdiffaug import datasets

# The tests' matrices are too small to share: two threads would mostly wait for each other.
torch.set_num_threads(1)


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
