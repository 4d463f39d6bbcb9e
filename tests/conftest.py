import os
from pathlib import Path

import pytest
from anndata import AnnData

from scdiffaug import datasets


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real datasets; tests that need it are skipped where it is absent."""
    beside_checkout = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SCDIFFAUG_DATA_DIR", beside_checkout))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set SCDIFFAUG_DATA_DIR to the folder that has it")
    return folder


@pytest.fixture
def pbmc() -> AnnData:
    """700 cells by 765 genes, counts; fresh for every test."""
    return datasets.pbmc68k_reduced()
