"""Whatever container holds the cells, and in whatever order, the encoder gets the same inputs."""

import tempfile
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import sparse

from scdiffaug.components import PrincipalAxes
from scdiffaug.contract import DataContract
from scdiffaug.features import FeatureSpace

DTYPES = (
    *(np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64),
    *(np.float16, np.float32, np.float64),
)
# Explaining a failure takes minutes and says what shrinking shows already.
_PHASES = (Phase.generate, Phase.shrink)
REPEATABLE = settings(
    derandomize=True, deadline=None, max_examples=40, database=None, phases=_PHASES
)
Array = NDArray[np.generic]


@st.composite
def counts(draw: st.DrawFn) -> NDArray[np.int64]:
    """Counts that fit into 8 bits, with empty and constant genes and cells that occur twice."""
    shape = draw(st.tuples(st.integers(4, 16), st.integers(3, 12)))
    x = draw(hnp.arrays(np.int64, shape, elements=st.integers(0, 60), fill=st.just(0)))
    x[:, draw(st.integers(0, shape[1] - 1))] = 0
    x[:, draw(st.integers(0, shape[1] - 1))] = 3
    x[draw(st.integers(0, shape[0] - 1))] = x[0]
    # Cells without counts, and all alike, are refused.
    x[:, 0] += 1
    x[0, :2], x[1, :2] = (7, 0), (1, 5)
    return x


def _names(kind: str, n: int) -> list[str]:
    alphabet = {"plain": "gene-{}", "unicode": "Δ基因 {}\u200d🧬", "numbers": "{}"}
    return [alphabet[kind].format(place) for place in range(n)]


def _cells(x: Array | sparse.sparray, names: str = "plain") -> AnnData:
    kinds = pd.Categorical(["a"] * x.shape[0], categories=["a", "never"])
    obs = pd.DataFrame({"kind": kinds}, index=_names(names, x.shape[0]))
    return AnnData(x, obs=obs, var=pd.DataFrame(index=_names(names, x.shape[1])))


def _wide(x: Array) -> sparse.csr_matrix:
    csr = sparse.csr_matrix(x)
    csr.indptr, csr.indices = csr.indptr.astype(np.int64), csr.indices.astype(np.int64)
    return csr


def _unsorted(x: Array) -> sparse.csr_matrix:
    csr = sparse.csr_matrix(x)
    for start, stop in zip(csr.indptr[:-1], csr.indptr[1:], strict=True):
        csr.indices[start:stop] = csr.indices[start:stop][::-1].copy()
        csr.data[start:stop] = csr.data[start:stop][::-1].copy()
    csr.has_sorted_indices = False
    return csr


def _repeated(x: Array) -> sparse.csr_matrix:
    """Every value in two parts that are stored apart, the greater one first in every other row."""
    csr = sparse.csr_matrix(x)
    part = np.minimum(csr.data, 1).astype(x.dtype)
    data = np.stack([csr.data - part, part], axis=1).astype(x.dtype)
    repeated = (data.ravel(), np.repeat(csr.indices, 2), csr.indptr * 2)
    return sparse.csr_matrix(repeated, shape=x.shape)


def _explicit_zeros(x: Array) -> sparse.csr_matrix:
    n, d = x.shape
    return sparse.csr_matrix((x.ravel(), np.tile(np.arange(d), n), np.arange(n + 1) * d), x.shape)


def _view(x: Array) -> AnnData:
    return _cells(np.concatenate([x, x]))[: x.shape[0]]


def _layer(x: Array) -> AnnData:
    cells = _cells(np.zeros(x.shape, np.float32))
    cells.layers["mine"] = sparse.csr_matrix(x)
    return cells


CONTAINERS: dict[str, Callable[[Array], AnnData]] = {
    "dense": _cells,
    "fortran": lambda x: _cells(np.asfortranarray(x)),
    "csr": lambda x: _cells(sparse.csr_matrix(x)),
    "csc": lambda x: _cells(sparse.csc_matrix(x)),
    "csr_array": lambda x: _cells(sparse.csr_array(x)),
    "csc_array": lambda x: _cells(sparse.csc_array(x)),
    "64-bit pointers": lambda x: _cells(_wide(x)),
    "unsorted": lambda x: _cells(_unsorted(x)),
    "repeated": lambda x: _cells(_repeated(x)),
    "explicit zeros": lambda x: _cells(_explicit_zeros(x)),
    "view": _view,
    "layer": _layer,
}
# scipy's sparse classes hold no float16.
DENSE = ("dense", "fortran", "view")


def _contract(adata: AnnData, *, layer: str | None = None, n_top: int = 5) -> DataContract:
    setup = {"layer": layer, "labels_key": None, "batch_key": None, "neighbors_key": None}
    return DataContract.fit(
        adata,
        setup,
        feature_space="auto",
        n_top_features=n_top,
        n_neighbors=2,
        covariate=None,
        seed=0,
    )


def _inputs(adata: AnnData, contract: DataContract) -> tuple[Array, Array, Array]:
    """Values, selected features and the encoder's inputs, dense."""
    x = contract.read(adata)[1]
    features = contract.features(x)
    axes = PrincipalAxes.fit(features, n_components=3, seed=0)
    return _dense(contract.values(x)), _dense(features), axes.transform(features)


def _dense(x: Array | sparse.csr_matrix) -> Array:
    return x.toarray() if sparse.issparse(x) else np.asarray(x)


def _assert_same(adata: AnnData, reference: AnnData) -> None:
    layer = "mine" if "mine" in adata.layers else None
    found, wanted = _contract(adata, layer=layer), _contract(reference)
    assert found.selected == wanted.selected
    assert found.space == wanted.space
    for one, other in zip(_inputs(adata, found), _inputs(reference, wanted), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == np.float32


@pytest.mark.parametrize("container", CONTAINERS)
@REPEATABLE
@given(x=counts(), dtype=st.sampled_from(DTYPES))
def test_any_container_of_counts_gives_the_same_inputs(
    container: str, x: NDArray[np.int64], dtype: type
) -> None:
    if dtype is np.float16 and container not in DENSE:
        dtype = np.float32
    given_x = x.astype(dtype)
    adata = CONTAINERS[container](given_x)
    before = _dense(adata.X).copy()
    _assert_same(adata, _cells(x.astype(np.float32)))
    np.testing.assert_array_equal(_dense(adata.X), before)


@pytest.mark.parametrize("container", sorted(set(CONTAINERS) - {"repeated"}))
@REPEATABLE
@given(x=counts(), dtype=st.sampled_from([np.float32, np.float64]))
def test_any_container_of_logarithms_gives_the_same_inputs(
    container: str, x: NDArray[np.int64], dtype: type
) -> None:
    logs = np.log1p(x).astype(np.float32)
    _assert_same(CONTAINERS[container](logs.astype(dtype)), _cells(logs))


FIXED = np.random.default_rng(0).poisson(1.0, (12, 7)) + np.eye(12, 7, dtype=int)
ON_DISK: dict[str, Callable[[Array], Array | sparse.spmatrix]] = {
    "dense": np.asarray,
    "csr": sparse.csr_matrix,
    "csc": sparse.csc_matrix,
}


def _held(containers: Iterable[str]) -> list[tuple[str, type]]:
    """Each container with each type of numbers that it can hold."""
    pairs = product(containers, DTYPES)
    return [(name, dtype) for name, dtype in pairs if dtype is not np.float16 or name in DENSE]


@pytest.mark.parametrize(("container", "dtype"), _held(CONTAINERS))
def test_every_container_with_every_type_of_numbers(container: str, dtype: type) -> None:
    _assert_same(CONTAINERS[container](FIXED.astype(dtype)), _cells(FIXED.astype(np.float32)))


@pytest.mark.parametrize("place", ["X", "layer"])
@pytest.mark.parametrize(("container", "dtype"), _held(ON_DISK))
def test_every_container_on_disk_with_every_type_of_numbers(
    tmp_path: Path, container: str, dtype: type, place: str
) -> None:
    values = ON_DISK[container](FIXED.astype(dtype))
    adata = _cells(values if place == "X" else np.zeros(FIXED.shape, np.float32))
    if place == "layer":
        adata.layers["mine"] = values
    adata.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    _assert_same(backed, _cells(FIXED.astype(np.float32)))
    backed.file.close()


@pytest.mark.parametrize("as_sparse", [False, True])
@settings(REPEATABLE, max_examples=15)
@given(x=counts())
def test_a_file_gives_the_same_inputs(as_sparse: bool, x: NDArray[np.int64]) -> None:
    values = x.astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cells.h5ad"
        _cells(sparse.csr_matrix(values) if as_sparse else values).write_h5ad(path)
        backed = ad.read_h5ad(path, backed="r")
        _assert_same(backed, _cells(values))
        backed.file.close()


@REPEATABLE
@given(x=counts(), names=st.sampled_from(["plain", "unicode", "numbers"]), data=st.data())
def test_order_of_genes_changes_nothing(
    x: NDArray[np.int64], names: str, data: st.DataObject
) -> None:
    adata = _cells(sparse.csr_matrix(x.astype(np.float32)), names)
    contract = _contract(adata)
    order = data.draw(st.permutations(range(x.shape[1])))
    for one, other in zip(
        _inputs(adata[:, order].copy(), contract), _inputs(adata, contract), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@REPEATABLE
@given(x=counts(), data=st.data())
def test_order_of_cells_is_kept(x: NDArray[np.int64], data: st.DataObject) -> None:
    adata = _cells(x.astype(np.float32))
    contract = _contract(adata)
    order = data.draw(st.permutations(range(x.shape[0])))
    whole, permuted = contract.read(adata)[1], contract.read(adata[order].copy())[1]
    features = contract.features(whole)
    np.testing.assert_array_equal(contract.features(permuted), features[order])
    axes = PrincipalAxes.fit(features, n_components=3, seed=0)
    # A matrix product rounds a row by where it stands.
    np.testing.assert_allclose(
        axes.transform(contract.features(permuted)), axes.transform(features)[order], atol=1e-5
    )


@REPEATABLE
@given(x=counts(), data=st.data())
def test_indices_select_what_they_name(x: NDArray[np.int64], data: st.DataObject) -> None:
    adata = _cells(x.astype(np.float32))
    contract, n = _contract(adata), x.shape[0]
    rows = data.draw(st.lists(st.integers(-n, n - 1), min_size=1, unique_by=lambda i: i % n))
    cells, found = contract.read(adata, rows)
    np.testing.assert_array_equal(found, x[rows])
    assert list(cells.obs_names) == list(adata.obs_names[rows])


@REPEATABLE
@given(x=counts())
def test_depth_of_transformed_counts_is_one(x: NDArray[np.int64]) -> None:
    values = x.astype(np.float32)
    seen = FeatureSpace("counts").transform(values)
    np.testing.assert_allclose(np.expm1(seen).sum(1), 1e4, rtol=1e-4)
    assert ((seen == 0) == (values == 0)).all()


@REPEATABLE
@given(x=counts())
def test_contract_survives_its_file(x: NDArray[np.int64]) -> None:
    contract = _contract(_cells(x.astype(np.float32), "unicode"))
    assert DataContract.from_dict(contract.to_dict()) == contract
