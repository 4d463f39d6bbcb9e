"""Bad input: one clear error that names the field; good input: any container, one result."""

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import torch
from anndata import AnnData
from scipy import sparse

from scdiffaug import scDiffAug
from scdiffaug.data import read_matrix
from scdiffaug.features import FeatureSpace
from scdiffaug.neighbors import NeighborWalks
from scdiffaug.pairs import PairBatches
from scdiffaug.repulsion import Repulsion
from scdiffaug.tensors import to_csr, to_tensor


def _small(pbmc: AnnData) -> AnnData:
    return pbmc[:60, :40].copy()


def _set(cell: int, gene: int, value: float) -> Callable[[AnnData], None]:
    def damage(adata: AnnData) -> None:
        x = adata.X.toarray()
        x[cell, gene] = value
        adata.X = x

    return damage


def _empty_cell(adata: AnnData) -> None:
    adata.X = adata.X.multiply(np.r_[0, np.ones(59)][:, None]).tocsr()


def _repeat_obs(adata: AnnData) -> None:
    adata.obs_names = ["same"] * 2 + list(adata.obs_names[2:])


def _repeat_var(adata: AnnData) -> None:
    adata.var_names = ["same"] * 2 + list(adata.var_names[2:])


@pytest.mark.filterwarnings("ignore:.*names are not unique")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_set(3, 3, np.nan), r"adata\.X has 1 NaN or infinite values"),
        (_set(3, 3, np.inf), r"adata\.X has 1 NaN or infinite values"),
        (_empty_cell, "1 cells have no counts, e.g. 'AAAGCCTGGCTAAC-1'"),
        (_repeat_obs, r"adata\.obs_names has 1 duplicate names, e\.g\. 'same'"),
        (_repeat_var, r"adata\.var_names has 1 duplicate names, e\.g\. 'same'"),
    ],
)
def test_bad_values_are_refused_and_left_alone(
    pbmc: AnnData, damage: Callable[[AnnData], None], message: str
) -> None:
    adata = _small(pbmc)
    damage(adata)
    before = adata.copy()
    with pytest.raises(ValueError, match=message):
        scDiffAug(adata)
    assert adata.obs.equals(before.obs)
    assert set(adata.layers) == set(before.layers)
    np.testing.assert_array_equal(_array(adata.X), _array(before.X))


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_empty_adata_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"found {shape[0]} cells x {shape[1]} features"):
        scDiffAug(AnnData(np.zeros(shape, dtype=np.float32)))


def test_negative_counts_are_refused(pbmc: AnnData) -> None:
    adata = _small(pbmc)
    _set(0, 0, -1.0)(adata)
    with pytest.raises(ValueError, match="needs non-negative values, found -1"):
        scDiffAug(adata, feature_space="counts")


def test_fewer_cells_than_neighbors_is_refused(pbmc: AnnData) -> None:
    with pytest.raises(ValueError, match="needs more than 15 cells, found 12"):
        scDiffAug(pbmc[:12].copy())
    scDiffAug(pbmc[:12].copy(), n_neighbors=11)


@pytest.mark.parametrize("option", ["layer", "labels_key", "batch_key", "neighbors_key"])
def test_missing_keys_are_named(pbmc: AnnData, option: str) -> None:
    with pytest.raises(KeyError, match=f"{option}='absent' not found in adata"):
        scDiffAug.setup_anndata(pbmc, **{option: "absent"})
    assert "_scvi_uuid" not in pbmc.uns


def test_unknown_choices_are_refused(pbmc: AnnData) -> None:
    with pytest.raises(ValueError, match="feature_space='tpm' is unknown"):
        scDiffAug(pbmc, feature_space="tpm")
    with pytest.raises(ValueError, match="diffusion='cold' is unknown"):
        scDiffAug(pbmc, diffusion="cold")
    with pytest.raises(ValueError, match="diffusion='counts' thins reads"):
        scDiffAug(pbmc, feature_space="raw", diffusion="counts")


@pytest.mark.parametrize(
    ("values", "kind", "cofactor"),
    [
        ([[0, 3], [1, 900]], "counts", None),
        ([[0.0, 2.5], [1.2, 9.9]], "log", None),
        ([[0.0, 2.5], [1.2, 4000.5]], "raw", 5.0),
        ([[-1.0, 2.5], [1.2, 4.0]], "raw", None),
    ],
)
def test_feature_space_is_decided_from_values(
    values: list[list[float]], kind: str, cofactor: float | None
) -> None:
    space = FeatureSpace.decide(np.array(values, dtype=np.float32))
    assert (space.kind, space.cofactor) == (kind, cofactor)


def test_transform_of_counts_is_scanpys_and_leaves_them_alone(pbmc: AnnData) -> None:
    space, before = FeatureSpace("counts"), pbmc.X.copy()
    seen = space.transform(pbmc.X)
    np.testing.assert_allclose(np.expm1(seen.toarray()).sum(1), 1e4, rtol=1e-4)
    assert (before != pbmc.X).nnz == 0


def _backed(adata: AnnData, folder: Path) -> AnnData:
    adata.write_h5ad(folder / "cells.h5ad")
    return ad.read_h5ad(folder / "cells.h5ad", backed="r")


CONTAINERS: dict[str, Callable[[AnnData, Path], AnnData]] = {
    "dense": lambda a, _: AnnData(a.X.toarray(), a.obs, a.var),
    "fortran": lambda a, _: AnnData(np.asfortranarray(a.X.toarray()), a.obs, a.var),
    "csc": lambda a, _: AnnData(a.X.tocsc(), a.obs, a.var),
    "float64": lambda a, _: AnnData(a.X.astype(np.float64), a.obs, a.var),
    "int32": lambda a, _: AnnData(a.X.astype(np.int32), a.obs, a.var),
    "view": lambda a, _: ad.concat([a, a], index_unique="-")[: a.n_obs],
    "backed": _backed,
}


def _embedding(adata: AnnData) -> np.ndarray:
    model = scDiffAug(adata)
    model.train(max_epochs=2, enable_progress_bar=False)
    return model.get_latent_representation()


@pytest.fixture(scope="module")
def reference() -> np.ndarray:
    from scdiffaug import datasets

    return _embedding(datasets.pbmc68k_reduced()[:150, :200].copy())


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_gives_the_same_embedding(
    pbmc: AnnData, reference: np.ndarray, container: str, tmp_path: Path
) -> None:
    adata = CONTAINERS[container](pbmc[:150, :200].copy(), tmp_path)
    np.testing.assert_array_equal(_embedding(adata), reference)


@pytest.mark.parametrize("kind", [sparse.csc_matrix, sparse.csr_array, sparse.csc_array, np.array])
def test_counts_in_a_layer_of_any_kind_are_seen(
    pbmc: AnnData, kind: type, caplog: pytest.LogCaptureFixture
) -> None:
    counts = pbmc.X[:80, :50].toarray()
    scaled = AnnData(counts - counts.mean(0), layers={"counts": kind(counts)})
    scDiffAug(scaled)
    assert "Layer 'counts' holds counts: call setup_anndata" in caplog.text


def test_constant_genes_are_harmless(pbmc: AnnData) -> None:
    x = pbmc.X[:80, :50].toarray()
    x[:, :3], x[:, 3] = 0, 2
    for space in ("counts", "log"):
        model = scDiffAug(AnnData(x), feature_space=space)
        model.train(max_epochs=2, enable_progress_bar=False)
        assert np.isfinite(model.get_latent_representation()).all()
        assert np.isfinite(_array(model.augment(steps=2).X)).all()


@pytest.mark.parametrize(("n", "sizes"), [(9, [4, 5]), (10, [4, 4, 2]), (3, [3]), (4, [4])])
def test_batches_cover_all_cells_and_leave_none_alone(n: int, sizes: list[int]) -> None:
    x = np.arange(n, dtype=np.float32)[:, None]
    neighbors = np.roll(np.arange(n), 1)[:, None]
    batches = PairBatches(
        x=x,
        inputs=x * 2,
        walks=NeighborWalks(neighbors, max_steps=1),
        neighbor_weights=np.ones((n, 1), dtype=np.float32),
        repulsion=Repulsion(np.zeros(n, np.int64), np.array([n]), np.ones((1, 1), np.float32)),
        places=np.zeros((n, 2), dtype=np.float32),
        covariates=np.zeros(n, dtype=np.int64),
        batch_size=4,
        rng=np.random.default_rng(0),
    )
    drawn = list(batches)
    assert [len(batch["x"]) for batch in drawn] == sizes
    assert len(batches) == len(sizes)
    cells = np.concatenate([batch["x"].numpy().ravel() for batch in drawn])
    assert sorted(cells) == list(range(n))
    seen = np.concatenate([batch["neighbor_inputs"].numpy().ravel() for batch in drawn])
    np.testing.assert_array_equal(seen, 2 * neighbors[cells.astype(int), 0])


def test_a_remainder_of_one_cell_trains(pbmc: AnnData) -> None:
    model = scDiffAug(pbmc[:101].copy())
    model.train(max_epochs=2, batch_size=50, enable_progress_bar=False)
    assert np.isfinite(model.history["loss"]["loss"]).all()


def _array(x: np.ndarray | sparse.spmatrix) -> np.ndarray:
    return x.toarray() if sparse.issparse(x) else x


def test_an_adata_without_values_is_refused() -> None:
    empty = AnnData(obs={"a": ["x"] * 3}, var={"b": ["y"] * 2})
    with pytest.raises(ValueError, match=r"adata.X is empty .None.: set X or pass layer"):
        read_matrix(empty, None)


def test_dense_cells_become_csr_as_scipy_makes_it() -> None:
    x = np.random.default_rng(0).poisson(0.3, (40, 30)).astype(np.float32)
    x[[0, 7, 39]] = 0
    made, known = to_csr(torch.from_numpy(x)), sparse.csr_matrix(x)
    for part in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(made, part), getattr(known, part))
        assert getattr(made, part).dtype == getattr(known, part).dtype
    assert made.shape == known.shape
    assert made.has_canonical_format
    back = to_tensor(made, torch.device("cpu"))
    assert back.dtype == torch.float32
    np.testing.assert_array_equal(back.numpy(), x)


@pytest.mark.parametrize("as_sparse", [False, True])
def test_digest_of_batches_is_that_of_cells_their_order_and_labels(as_sparse: bool) -> None:
    x = np.arange(12, dtype=np.float32).reshape(6, 2)

    def digest(values: np.ndarray, label: int = 0) -> str:
        return PairBatches(
            x=sparse.csr_matrix(values) if as_sparse else values,
            inputs=values,
            walks=NeighborWalks(np.zeros((6, 1), dtype=np.int64)),
            neighbor_weights=np.ones((6, 1), dtype=np.float32),
            repulsion=Repulsion(np.zeros(6, np.int64), np.array([6]), np.ones((1, 1), np.float32)),
            places=np.zeros((6, 2), dtype=np.float32),
            covariates=np.full(6, label),
            batch_size=3,
            rng=np.random.default_rng(0),
        ).digest()

    changed = x.copy()
    changed[0, 1] = 9
    assert digest(x) == digest(x.copy())
    assert len({digest(x), digest(x[::-1]), digest(changed), digest(x, 1)}) == 4
