"""Counts that are held normalised: told, recovered, learnt from, made."""

from collections.abc import Callable
from itertools import product
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from scipy import sparse
from small_cells import logs_of_no_counts

from scdiffaug import distributed, matrices, pl, scDiffAug
from scdiffaug.features import FeatureSpace
from scdiffaug.normalized import Normalization, find_scale, recover_counts

QUICK = {"max_epochs": 2, "enable_progress_bar": False}
BASES = {"log1p": np.e, "log2": 2, "log10": 10}


def _normalized(adata: AnnData, *, base: float = np.e, target_sum: float = 1e4) -> AnnData:
    cells = adata.copy()
    sc.pp.normalize_total(cells, target_sum=target_sum)
    sc.pp.log1p(cells, base=base)
    del cells.uns["log1p"]
    return cells


@pytest.mark.parametrize("scale", BASES)
@pytest.mark.parametrize("target_sum", [30.0, 1e4, 1e6])
@pytest.mark.parametrize("is_dense", [True, False])
def test_counts_come_back(pbmc: AnnData, scale: str, target_sum: float, is_dense: bool) -> None:
    logs = _normalized(pbmc, base=BASES[scale], target_sum=target_sum).X
    logs = logs.toarray() if is_dense else logs
    assert find_scale(logs) == scale
    counts = recover_counts(logs, scale)
    assert type(counts) is type(logs)
    assert counts.dtype == np.float32
    assert not (counts != (pbmc.X.toarray() if is_dense else pbmc.X)).sum()
    found = Normalization.fit(logs, counts, scale)
    np.testing.assert_allclose(found.totals, target_sum, rtol=1e-4)
    again = found.values(counts)
    assert type(again) is type(logs)
    np.testing.assert_allclose(np.asarray((again - logs).sum(1)), 0, atol=1e-2)


def test_values_of_three_decimals_hold_counts() -> None:
    """As scanpy ships these 700 cells."""
    logs = sparse.csr_matrix(sc.datasets.pbmc68k_reduced().raw.X)
    assert find_scale(logs) == "log1p"


def test_the_smallest_value_may_stand_for_several_reads() -> None:
    counts = np.random.default_rng(0).poisson(9, size=(50, 30)).astype(np.float32)
    counts[:, 0], counts[counts < 3] = 3, 0
    counts[7] = 0
    np.testing.assert_array_equal(recover_counts(np.log1p(counts / 7), "log1p"), counts)


@pytest.mark.parametrize(
    "spoil",
    [
        logs_of_no_counts,
        lambda counts: np.log1p(counts + 0.3137),
        lambda counts: np.log1p(counts.astype(float) ** 0.9),
        lambda counts: np.arcsinh(counts / 5),
        lambda counts: np.sqrt(counts),
        lambda counts: np.log1p(counts)[:3, :20],
        # Of few genes a cell's smallest count is often two.
        lambda counts: np.log1p(counts)[:, :20],
        lambda counts: np.minimum(np.log1p(counts), 1.5),
        lambda counts: np.log1p(counts) * np.where(np.arange(765) < 15, 1.3, 1),
        # Normalised, but no logarithms.
        lambda counts: counts / counts.sum(1, keepdims=True),
        lambda counts: counts / counts.sum(1, keepdims=True) * 10,
        # Grids.
        lambda counts: np.minimum(counts, 2) / 2,
        lambda counts: np.minimum(counts, 255) / 255,
        lambda counts: np.minimum(counts, 255) / 1000,
    ],
)
def test_other_values_hold_none(pbmc: AnnData, spoil: object) -> None:
    values = np.asarray(spoil(pbmc.X.toarray()), dtype=np.float32)
    assert find_scale(values) is None
    assert FeatureSpace.decide(values).kind == "log"


def test_one_cell_that_holds_none_decides(pbmc: AnnData) -> None:
    logs = _normalized(pbmc).X.tolil()
    logs[650] = logs[650] * 1.1
    assert find_scale(logs.tocsr()) is None
    with pytest.raises(ValueError, match="1 cells hold no log1p of normalised counts"):
        recover_counts(logs.tocsr(), "log1p")


def test_a_cell_that_holds_none_is_named(pbmc: AnnData, caplog: pytest.LogCaptureFixture) -> None:
    logs = _normalized(pbmc)
    scDiffAug(logs.copy(), feature_space="log")
    assert "does not" not in caplog.text
    logs.X[650] *= 1.1
    scDiffAug(logs)
    said = f"Most cells hold log1p of normalised counts, but {logs.obs_names[650]!r} does not"
    assert said in caplog.text
    caplog.clear()
    logs.X = logs_of_no_counts(pbmc.X)
    scDiffAug(logs)
    assert "Most cells hold" not in caplog.text


def test_an_odd_cell_beyond_the_first_block_is_named(
    pbmc: AnnData, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrices, "_ROWS_AT_ONCE", 200)
    logs = _normalized(pbmc)
    logs.X = (logs.X / np.float32(np.log(2))).tocsr()
    logs.X[650] *= 1.1
    scDiffAug(logs)
    said = f"Most cells hold log2 of normalised counts, but {logs.obs_names[650]!r} does not"
    assert said in caplog.text


def test_the_model_is_that_of_the_counts(pbmc: AnnData) -> None:
    models = []
    for cells in (pbmc, _normalized(pbmc)):
        models.append(scDiffAug(cells))
        models[-1].train(**QUICK)
    one, other = models
    assert other.feature_space == "counts"
    np.testing.assert_array_equal(
        one.get_latent_representation(), other.get_latent_representation()
    )
    new = other.augment(steps=2)
    assert not (new.layers["counts"] != one.augment(steps=2).X).sum()
    assert not (new.layers["log1p_norm"] != one.augment(steps=2).layers["log1p_norm"]).sum()
    np.testing.assert_allclose(np.expm1(new.X.toarray()).sum(1), 1e4, rtol=1e-4)
    report = other.augmentation_report(new, max_cells=60)
    assert report["checks"]["depth"]["verdict"] == "good"


def test_new_cells_are_normalised_as_their_sources(pbmc: AnnData) -> None:
    """As where variable genes were kept after all genes were normalised."""
    cells = _normalized(pbmc)[:, :400].copy()
    model = scDiffAug(cells)
    model.train(**QUICK)
    total = dict(zip(cells.obs_names, np.expm1(cells.X.toarray()).sum(1), strict=True))
    assert np.std(list(total.values())) > 100
    for options in ({"n_per_cell": 2}, {"depth": 90}, {"indices": [5, 3], "keep": "consistent"}):
        new = model.augment(steps=2, **options)
        of_source = [total[name] for name in new.obs["source_obs_name"]]
        np.testing.assert_allclose(np.expm1(new.X.toarray()).sum(1), of_source, rtol=1e-4)
    between = model.interpolate(start=0, end=5, n_cells=3, steps=2)
    found = np.expm1(between.X.toarray()).sum(1)
    ends = total[cells.obs_names[0]], total[cells.obs_names[5]]
    np.testing.assert_allclose(found, [ends[0], np.mean(ends), ends[1]], rtol=1e-4)


def test_the_report_reads_new_cells_of_few_genes_and_many_reads(pbmc: AnnData) -> None:
    cells = _normalized(pbmc)[:, :60].copy()
    model = scDiffAug(cells)
    model.train(**QUICK)
    new = model.augment(steps=2, depth=3000)
    assert new.layers["counts"].toarray().max(1).min() > 50
    assert model.augmentation_report(new, max_cells=60)["n_cells"]


def test_counts_that_were_not_normalised_are_not(pbmc: AnnData) -> None:
    pbmc.X = pbmc.X.log1p()
    model = scDiffAug(pbmc)
    model.train(**QUICK)
    new = model.augment(depth=90, steps=2)
    np.testing.assert_allclose(new.X.expm1().sum(1), 90, rtol=1e-5)


@pytest.mark.parametrize("layer", ["norm", "counts", "log1p_norm"])
def test_a_layer_may_hold_them(pbmc: AnnData, layer: str) -> None:
    pbmc.layers[layer] = _normalized(pbmc).X
    cells = pbmc.copy()
    cells.X = cells.layers[layer].copy()
    scDiffAug.setup_anndata(cells, layer=layer)
    model = scDiffAug(cells)
    model.train(**QUICK)
    new = model.augment(steps=2)
    np.testing.assert_array_equal(new.layers[layer].toarray(), new.X.toarray())
    # Counts in X, these normalised in a layer, as other formats are exported.
    beside = model.augment(pbmc, steps=2)
    np.testing.assert_array_equal(beside.layers[layer].toarray(), new.layers[layer].toarray())
    np.testing.assert_array_equal(beside.X.sum(1), pbmc.X.sum(1))


def test_peaks_that_are_open_or_not_are_no_logarithms_of_themselves(
    rng: np.random.Generator,
) -> None:
    peaks = AnnData(sparse.csr_matrix(rng.random((90, 200)) < 0.1, dtype=np.float32))
    peaks.layers["peaks"] = peaks.X.copy()
    scDiffAug.setup_anndata(peaks, layer="peaks")
    model = scDiffAug(peaks)
    model.train(**QUICK)
    new = model.augment(steps=2)
    np.testing.assert_array_equal(new.X.toarray(), new.layers["peaks"].toarray())


def test_a_file_of_new_cells_has_what_the_model_reads(pbmc: AnnData, tmp_path: Path) -> None:
    cells = _normalized(pbmc)
    cells.layers["counts"] = pbmc.X.copy()
    scDiffAug.setup_anndata(cells, layer="counts")
    model = scDiffAug(cells)
    model.train(**QUICK)
    new = model.augment(steps=2, path=tmp_path / "new.h5ad")
    x = new.X[:]
    assert (x.data % 1 == 0).all()
    np.testing.assert_array_equal(x.sum(1), pbmc.X.sum(1))
    assert "log1p" not in new.uns
    # The model that made it reads it as it is, though it has no layer of counts.
    new = ad.read_h5ad(tmp_path / "new.h5ad")
    y = model.get_latent_representation(new)
    assert model.augment(new, steps=1, indices=[0]).X.sum() == new.X[0].sum()
    assert model.augmentation_report(new, max_cells=60)["checks"]["depth"]["verdict"] == "good"
    model.save(tmp_path / "model")
    again = scDiffAug.load(tmp_path / "model", new)
    np.testing.assert_array_equal(again.get_latent_representation(), y)
    distributed.embed(tmp_path / "model", tmp_path / "new.h5ad", tmp_path / "y.h5ad")
    np.testing.assert_allclose(ad.read_h5ad(tmp_path / "y.h5ad").obsm["X_scdiffaug"], y, atol=1e-5)
    distributed.augment(tmp_path / "model", tmp_path / "new.h5ad", tmp_path / "more.h5ad", steps=1)
    assert ad.read_h5ad(tmp_path / "more.h5ad").X.sum() == new.X.sum()
    new.layers["counts"] = new.X.copy()
    np.testing.assert_array_equal(model.get_latent_representation(new), y)
    del new.layers["counts"], new.uns["scdiffaug"]
    with pytest.raises(KeyError, match="adata has no layer 'counts', which the model reads"):
        model.get_latent_representation(new)


def test_layers_of_new_cells_are_their_own(pbmc: AnnData) -> None:
    pbmc.layers["logs"] = _normalized(pbmc).X
    scDiffAug.setup_anndata(pbmc, layer="logs")
    model = scDiffAug(pbmc)
    model.train(**QUICK)
    new = model.augment(steps=1)
    parts = [new.X, *new.layers.values()]
    for place, one in enumerate(parts):
        assert not any(np.shares_memory(one.data, other.data) for other in parts[:place])


@pytest.mark.parametrize("base", [np.e, 2])
def test_a_file_of_new_cells_goes_on_with_scanpy(
    pbmc: AnnData, tmp_path: Path, base: float
) -> None:
    cells = _normalized(pbmc, base=base)
    model = scDiffAug(cells)
    model.train(**QUICK)
    model.augment(steps=2, path=tmp_path / "new.h5ad")
    new = ad.read_h5ad(tmp_path / "new.h5ad")
    assert new.X.indptr.dtype == new.X.indices.dtype == np.int32
    assert new.uns["log1p"].get("base") == (None if base == np.e else 2)
    sc.pp.pca(new, n_comps=5)
    sc.tl.rank_genes_groups(new, "phase")
    assert model.augment(steps=2, indices=[0, 1]).uns["log1p"] == new.uns["log1p"]


def test_a_file_without_x_has_its_layer(pbmc: AnnData, tmp_path: Path) -> None:
    pbmc.layers["counts"], pbmc.X = pbmc.X, None
    pbmc.write_h5ad(tmp_path / "cells.h5ad")
    cells = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    scDiffAug.setup_anndata(cells, layer="counts")
    model = scDiffAug(cells)
    model.train(**QUICK)
    new = model.augment(steps=2)
    np.testing.assert_array_equal(new.X.toarray(), new.layers["counts"].toarray())


@pytest.mark.parametrize("base", [np.e, 2])
@pytest.mark.parametrize("is_subset", [False, True])
def test_x_is_on_the_scale_of_the_real_cells_where_a_layer_has_the_counts(
    pbmc: AnnData, base: float, is_subset: bool
) -> None:
    """As in scvi-tools' tutorials: X normalised and logged, variable genes kept, counts beside."""
    cells = _normalized(pbmc, base=base, target_sum=None)
    cells.layers["counts"], cells.uns["log1p"] = pbmc.X.copy(), {"base": base}
    if is_subset:
        cells = cells[:, :400].copy()
    scDiffAug.setup_anndata(cells, layer="counts")
    model = scDiffAug(cells)
    model.train(**QUICK)
    new = model.augment(steps=2, n_per_cell=2)
    total = pd.Series(_sums(cells.X, base), index=cells.obs_names)
    of_source = total[new.obs["source_obs_name"].astype(str)]
    np.testing.assert_allclose(_sums(new.X, base), of_source, rtol=1e-4)
    assert (new.layers["counts"].data % 1 == 0).all()
    found = Normalization.beside(new.X, new.layers["counts"])
    assert found is not None
    assert found.scale == ("log1p" if base == np.e else "log2")
    assert new.uns["log1p"] == {"base": None if base == np.e else base}
    assert model.augmentation_report(new, max_cells=60)["checks"]["depth"]["verdict"] == "good"
    between = model.interpolate(start=0, end=5, n_cells=2, steps=2)
    np.testing.assert_allclose(_sums(between.X, base), total.iloc[[0, 5]], rtol=1e-4)


def _sums(logs: sparse.csr_matrix, base: float) -> np.ndarray:
    return np.expm1(logs.toarray() * np.log(base)).sum(1)


def _scaled(x: sparse.csr_matrix) -> np.ndarray:
    dense = np.log1p(x.toarray())
    return (dense - dense.mean(0)) / (dense.std(0) + 1)


def _with_nan(x: sparse.csr_matrix) -> np.ndarray:
    dense = np.log1p(x.toarray())
    dense[0, 0] = np.nan
    return dense


def _negative_at_the_end(x: sparse.csr_matrix) -> np.ndarray:
    """Where nobody looks at first."""
    dense = np.log1p(x.toarray())
    dense[-1] = -1
    return dense


@pytest.mark.parametrize(
    ("x", "is_said"),
    [
        (lambda counts: counts, False),
        (lambda _: None, False),
        (lambda counts: counts * 0, True),
        (_with_nan, True),
        (_negative_at_the_end, True),
        (_scaled, True),
        (logs_of_no_counts, True),
        (lambda counts: counts * 1e3, True),
    ],
)
def test_x_has_the_counts_of_a_layer_where_that_of_the_real_cells_is_something_else(
    pbmc: AnnData,
    x: Callable[[sparse.csr_matrix], object],
    is_said: bool,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(matrices, "_ROWS_AT_ONCE", 100)
    pbmc.layers["counts"], pbmc.uns["log1p"] = pbmc.X.copy(), {}
    pbmc.X = x(pbmc.X)
    scDiffAug.setup_anndata(pbmc, layer="counts")
    model = scDiffAug(pbmc)
    model.train(**QUICK)
    with caplog.at_level("WARNING", logger="scdiffaug"):
        new = model.augment(steps=2)
    assert ("other values than layer 'counts'" in caplog.text) == is_said
    np.testing.assert_array_equal(new.X.toarray(), new.layers["counts"].toarray())
    assert (new.X.data % 1 == 0).all()
    assert "log1p" not in new.uns


def test_cells_on_another_scale_are_read_alike(pbmc: AnnData, tmp_path: Path) -> None:
    logs = _normalized(pbmc)
    model = scDiffAug(logs)
    model.train(**QUICK)
    model.save(tmp_path / "model")
    loaded = scDiffAug.load(tmp_path / "model")
    known = model.get_latent_representation()
    np.testing.assert_array_equal(loaded.get_latent_representation(logs), known)
    of_counts = scDiffAug(pbmc)
    of_counts.train(**QUICK)
    for cells in (pbmc, _normalized(pbmc, base=2), logs):
        for each in (loaded, of_counts):
            np.testing.assert_array_equal(each.get_latent_representation(cells), known)
            new = each.augment(cells, range(9), steps=1)
            base = {id(pbmc): None, id(logs): {"base": None}}.get(id(cells), {"base": 2})
            assert new.uns.get("log1p") == base
            as_counts = new.layers.get("counts", new.X).toarray()
            np.testing.assert_array_equal(as_counts.sum(1), pbmc.X[:9].toarray().sum(1))
    for spoilt, model in product(
        (pbmc.X * -0.5, pbmc.X * 0.5, np.expm1(logs.X)), (loaded, of_counts)
    ):
        with pytest.raises(ValueError, match=r"reads 'counts' values, raw or log-normalised"):
            model.get_latent_representation(AnnData(spoilt, var=pbmc.var))


def test_logarithms_may_be_wanted(pbmc: AnnData) -> None:
    cells = _normalized(pbmc)
    model = scDiffAug(cells, feature_space="log")
    assert model.feature_space == "log"
    model.train(**QUICK)
    pl.gene_agreement(cells, model.augment(steps=2), show=False)
    assert scDiffAug(_normalized(pbmc), feature_space="counts").feature_space == "counts"


def test_open_peaks_are_told(rng: np.random.Generator) -> None:
    peaks = AnnData(sparse.csr_matrix(rng.random((90, 200)) < 0.1, dtype=np.float32))
    assert scDiffAug(_normalized(peaks)).feature_space == "peaks"


def test_cells_on_disk_hold_them(
    pbmc: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrices, "SUBSAMPLED", 100)
    monkeypatch.setattr(matrices, "_ROWS_AT_ONCE", 64)
    logs = _normalized(pbmc[:200])
    logs.write_h5ad(tmp_path / "logs.h5ad")
    models = []
    for cells in (pbmc[:200].copy(), ad.read_h5ad(tmp_path / "logs.h5ad", backed="r")):
        models.append(scDiffAug(cells))
        models[-1].train(**QUICK, max_cells=None)
    one, other = (model.augment(steps=2) for model in models)
    assert models[1].feature_space == "counts"
    np.testing.assert_allclose(np.expm1(other.X.toarray()).sum(1), 1e4, rtol=1e-4)
    written = models[1].augment(steps=2, path=tmp_path / "new.h5ad")
    np.testing.assert_allclose(np.expm1(written.X[:].toarray()).sum(1), 1e4, rtol=1e-4)
    assert other.layers["counts"].sum() == one.X.sum()
    logs.X[150] *= 1.1
    logs.write_h5ad(tmp_path / "bad.h5ad")
    bad = ad.read_h5ad(tmp_path / "bad.h5ad", backed="r")
    assert scDiffAug(bad).feature_space == "log"
    with pytest.raises(ValueError, match="1 cells hold no log1p of normalised counts"):
        models[1].get_latent_representation(bad)


def test_few_cells_are_read_on_the_scale_of_the_others(pbmc: AnnData) -> None:
    logs = _normalized(pbmc)
    of_counts, of_log2 = scDiffAug(pbmc), scDiffAug(_normalized(pbmc, base=2))
    for model in (of_counts, of_log2):
        model.train(**QUICK)
    # A cell of few values, too few to tell a scale from.
    shallow = pbmc[:1].copy()
    kept = np.flatnonzero(shallow.X.toarray()[0])[:8]
    shallow.X = sparse.csr_matrix(np.isin(np.arange(pbmc.n_vars), kept)[None].astype(np.float32))
    expected = of_counts.get_latent_representation(shallow)
    found = of_counts.get_latent_representation(_normalized(shallow))
    np.testing.assert_array_equal(found, expected)
    new = of_log2.augment(_normalized(shallow, base=2), steps=1)
    assert new.uns["log1p"] == {"base": 2}
    np.testing.assert_allclose((2 ** new.X.toarray() - 1).sum(), 1e4, rtol=1e-3)
    assert of_counts.get_latent_representation(logs[:1].copy()).shape == (1, 80)
