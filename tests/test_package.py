import socket
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest
from scipy import sparse
from typer.testing import CliRunner

import scdiffaug
from scdiffaug import cli, datasets


@pytest.mark.parametrize(
    "statement",
    [
        "import scdiffaug; scdiffaug.__version__; dir(scdiffaug)",
        "from scdiffaug.cli import app; app(['--help'], standalone_mode=False)",
        "from scdiffaug.cli import app; app(['data', 'list'], standalone_mode=False)",
    ],
)
def test_light_entry_points_import_nothing_heavy(statement: str) -> None:
    heavy = "{'anndata', 'scanpy', 'scvi', 'torch'}"
    code = f"{statement}; import sys; sys.exit(' '.join({heavy} & sys.modules.keys()) or 0)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_version_is_that_of_the_distribution() -> None:
    assert scdiffaug.__version__ == version("scdiffaug")
    result = CliRunner().invoke(cli.app, ["--version"])
    assert result.exit_code == 0
    assert result.output == f"scdiffaug {scdiffaug.__version__}\n"


@pytest.mark.parametrize("name", scdiffaug.__all__)
def test_public_names_resolve(name: str) -> None:
    assert name in dir(scdiffaug)
    found = getattr(scdiffaug, name)
    assert name == "__version__" or found.__name__.split(".")[-1] == name


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        scdiffaug.absent  # noqa: B018


def test_pbmc68k_reduced_is_counts() -> None:
    adata = datasets.pbmc68k_reduced()
    assert adata.shape == (700, 765)
    assert sparse.isspmatrix_csr(adata.X)
    assert adata.X.dtype == np.float32
    assert adata.X.data.min() == 1
    np.testing.assert_array_equal(adata.X.data, np.rint(adata.X.data))
    assert adata.obs["cell_type"].nunique() == 10
    assert not adata.obsm


@pytest.mark.parametrize("host", ["192.0.2.1", "pypi.org"])
def test_no_test_reaches_beyond_this_machine(host: str) -> None:
    with pytest.raises(RuntimeError, match=f"it asked for {host}"):
        socket.create_connection((host, 80), timeout=1)
