"""What would otherwise go wrong without a word: said in one sentence, and only when it is so."""

from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
from anndata import AnnData
from refusals import Bench
from small_cells import logs_of_no_counts

from scdiffaug import budget, datasets, scDiffAug, tl
from scdiffaug.budget import Budget
from scdiffaug.contract import DataContract


def _query(bench: Bench, factor: float) -> AnnData:
    """The cells with their counts thinned or multiplied."""
    x = bench.adata.X.toarray()
    rng = np.random.default_rng(0)
    x = rng.binomial(x.astype(int), factor) if factor < 1 else x * factor
    x[:, 0] += x.sum(1) == 0
    query = bench.adata.copy()
    query.X = x.astype(np.float32)
    return query


@pytest.mark.parametrize(("factor", "is_said"), [(1.0, False), (0.02, True), (40.0, True)])
def test_a_depth_that_training_did_not_see_is_said(
    bench: Bench, caplog: pytest.LogCaptureFixture, factor: float, is_said: bool
) -> None:
    query = _query(bench, factor)
    bench.model.get_latent_representation(query)
    said = [words for words in caplog.messages if "may say more of depth than of type" in words]
    assert bool(said) is is_said
    if said:
        depth = np.median(query.X.sum(1))
        low, high = np.percentile(bench.adata.X.toarray().sum(1), [1, 99])
        assert said[0].startswith(
            f"These cells have {depth:.6g} counts (median), most that the model learnt from "
            f"{low:.6g} to {high:.6g}:"
        )


def test_the_least_deep_of_training_cells_are_not_called_unseen(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    least = bench.adata[[bench.adata.X.toarray().sum(1).argmin()]].copy()
    bench.model.get_latent_representation(least)
    assert not caplog.messages
    least.X = np.floor(least.X.toarray() / 2)
    bench.model.get_latent_representation(least)
    assert "may say more of depth than of type" in caplog.text


def test_another_scale_is_said(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    query = bench.log.adata.copy()
    bench.log.get_latent_representation(query)
    assert "more of scale than of type" not in caplog.text
    query.X = query.X * np.float32(3)
    bench.log.get_latent_representation(query)
    assert "more of scale than of type" in caplog.text


def test_depth_is_remembered(bench: Bench) -> None:
    assert bench.loose._contract == bench.model._contract
    assert bench.loose._contract.depth is not None
    assert DataContract.from_dict(bench.log._contract.to_dict()) == bench.log._contract


def test_counts_do_not_go_into_a_model_of_logarithms(bench: Bench) -> None:
    counts = bench.raw(X=bench.adata.X.toarray() * 20)
    learnt = r"reads 'log' values from adata\.X: put such values there \(.*found \d+\)\.$"
    with pytest.raises(ValueError, match=learnt):
        bench.log.get_latent_representation(AnnData(counts.X))
    with pytest.raises(ValueError, match="feature_space='log' needs logarithms, found"):
        scDiffAug(counts, feature_space="log")


def test_genes_of_another_species_are_told_by_their_capitals() -> None:
    adata = datasets.pbmc68k_reduced()[:60, :40].copy()
    model = scDiffAug(adata, n_semantic=8)
    model.train(1, enable_progress_bar=False)
    mouse = adata.copy()
    mouse.var_names = mouse.var_names.str.capitalize()
    n_changed = (mouse.var_names != adata.var_names).sum()
    with pytest.raises(
        ValueError, match=f" {n_changed} are there in other capitals: another spec"
    ):
        model.get_latent_representation(mouse)
    mouse.var_names = [f"gene-{place}" for place in range(40)]
    mouse.var_names = [*adata.var_names[:1], *mouse.var_names[1:]]
    with pytest.raises(ValueError, match=r"train on features that all cells share\.$"):
        model.get_latent_representation(mouse)


def test_counts_that_are_not_used_are_said(caplog: pytest.LogCaptureFixture) -> None:
    adata = datasets.pbmc68k_reduced()
    adata.layers["reads"], adata.raw = adata.X.copy(), adata
    scDiffAug(adata.copy())
    assert "counts" not in caplog.text
    adata.X = adata.X.log1p()
    scDiffAug(adata.copy())
    assert "holds counts" not in caplog.text
    adata.X = logs_of_no_counts(adata.layers["reads"])
    scDiffAug(adata)
    assert "setup_anndata(adata, layer='reads')" in caplog.text
    assert "adata.raw.to_adata()" in caplog.text


def _scaled(logs: AnnData) -> AnnData:
    """As scanpy's tutorials leave cells: X scaled, the logarithms beside it."""
    cells = logs.copy()
    cells.X = cells.X.toarray()
    sc.pp.scale(cells, max_value=10)
    return cells


def test_counts_that_could_be_recovered_are_said(caplog: pytest.LogCaptureFixture) -> None:
    logs = datasets.pbmc68k_reduced()
    sc.pp.normalize_total(logs)
    sc.pp.log1p(logs)
    scaled = _scaled(logs)
    scDiffAug(scaled.copy())
    # What is no log-normalised counts either, however odd.
    scaled.layers["velocity"] = scaled.X * np.where(np.arange(765) == 3, np.nan, 1)
    scaled.layers["tpm"] = logs_of_no_counts(logs.X) * 500
    scDiffAug(scaled.copy())
    assert "holds" not in caplog.text
    scaled.raw, scaled.layers["logs"] = logs, logs.X
    scDiffAug(scaled)
    assert "adata.raw holds log-normalised counts: pass adata.raw.to_adata()" in caplog.text
    assert "'logs' holds log-normalised counts: call setup_anndata(adata, layer='logs')" in (
        caplog.text
    )


@pytest.mark.parametrize("estimated", ["ambient removed", "halves"])
def test_estimated_counts_are_said_to_be_read_as_intensities(
    estimated: str, rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    cells = datasets.pbmc68k_reduced()
    counts = cells.X.toarray()
    removed = np.where(rng.random(counts.shape) < 0.3, rng.uniform(0.8, 1, counts.shape), 1)
    cells.X = counts * removed if estimated == "ambient removed" else counts / 2
    scDiffAug(cells, diffusion="none")
    assert "read as intensities" in caplog.text
    assert "pass np.rint; of normalised" in caplog.text
    assert "without their logarithm" not in caplog.text


def test_normalised_counts_without_their_logarithm_are_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cells = datasets.pbmc68k_reduced()
    sc.pp.normalize_total(cells, target_sum=1e4)
    scDiffAug(cells.copy())
    assert "normalised counts without their logarithm: call sc.pp.log1p(adata)" in caplog.text
    caplog.clear()
    cells.X = np.rint(cells.X.toarray())
    scDiffAug(cells.copy())
    assert "The smallest value of most cells is" in caplog.text


@pytest.mark.parametrize("name", ["counts", "proteins", "intensities"])
def test_counts_and_intensities_are_not_called_normalised(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(0)
    cells = {
        "counts": lambda: datasets.pbmc68k_reduced().X,
        "proteins": lambda: 3 + rng.poisson(20, (300, 25)),
        "intensities": lambda: rng.gamma(0.5, 90, (300, 30)),
    }[name]()
    scDiffAug(AnnData(cells.astype(np.float32)))
    assert "smallest value" not in caplog.text
    assert "without their logarithm" not in caplog.text


def test_features_of_several_kinds_are_said(caplog: pytest.LogCaptureFixture) -> None:
    cells = datasets.pbmc68k_reduced()
    cells.var["feature_types"] = "Gene Expression"
    scDiffAug(cells.copy())
    assert "feature_types" not in caplog.text
    cells.var["feature_types"] = ["Gene Expression"] * 745 + ["Antibody Capture"] * 20
    scDiffAug(cells)
    assert "has 745 'Gene Expression' and 20 'Antibody Capture', which are learnt as one" in (
        caplog.text
    )


def test_new_cells_by_themselves_are_said_to_have_a_plane_of_their_own(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "_STEPS_OF_ENCODER_ALONE", 2)
    new = bench.model.augment(steps=2)
    tl.embed(new, bench.model)
    assert "60 of 60 cells are augmented" not in caplog.text
    together = ad.concat([bench.adata, new], join="outer")
    together.obs_names_make_unique()
    tl.embed(together)
    assert "60 of 60 cells are augmented" not in caplog.text
    tl.embed(new)
    assert "60 of 60 cells are augmented themselves" in caplog.text
    assert "to embed these, the model that made them" in caplog.text


def test_a_layer_that_the_model_reads_is_named(bench: Bench) -> None:
    cells = bench.adata.copy()
    cells.layers["counts"] = cells.X.copy()
    scDiffAug.setup_anndata(cells, layer="counts")
    model = scDiffAug(cells, n_semantic=8)
    model.train(max_epochs=1, enable_progress_bar=False)
    with pytest.raises(KeyError, match="adata has no layer 'counts', which the model reads"):
        model.get_latent_representation(bench.adata)


def test_little_to_learn_from_is_said(caplog: pytest.LogCaptureFixture) -> None:
    adata = datasets.pbmc68k_reduced()[:99, :40].copy()
    model = scDiffAug(adata, n_semantic=8)
    caplog.clear()
    model.train(2, batch_size=50, enable_progress_bar=False)
    assert caplog.messages == [
        "99 cells are few to learn from: see whether other seeds agree, or add cells.",
        "4 steps of training are few, the default for these cells is 800: raise max_epochs.",
    ]


def test_enough_to_learn_from_needs_no_words(caplog: pytest.LogCaptureFixture) -> None:
    options = {"n_processes": 1, "batch_size": 100, "n_passes": 75}
    Budget.chosen(100, max_epochs=200, **options).warn_of_little()
    assert not caplog.messages
    Budget.chosen(100, max_epochs=199, **options).warn_of_little()
    assert len(caplog.messages) == 1


def test_normalised_counts_of_few_zeros_are_said_too(caplog: pytest.LogCaptureFixture) -> None:
    """As of a panel of genes, of which most are found in most cells."""
    rates = np.random.default_rng(0).gamma(4, 1, size=(1, 40)) + 2
    counts = np.random.default_rng(1).poisson(rates * np.linspace(0.5, 2, 200)[:, None])
    cells = AnnData(counts.astype(np.float32))
    cells.obs_names, cells.var_names = cells.obs_names + "-c", "g" + cells.var_names
    sc.pp.normalize_total(cells, target_sum=1e4)
    assert np.mean(cells.X > 0) > 0.8
    scDiffAug(cells)
    assert "normalised counts without their logarithm" in caplog.text
    caplog.clear()
    intensities = np.random.default_rng(0).gamma(2, 50, size=(200, 20)).astype(np.float32)
    scDiffAug(AnnData(intensities))
    assert "logarithm" not in caplog.text


def test_counts_beside_values_on_disk_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cells = _scaled(datasets.pbmc68k_reduced())
    cells.layers["reads"] = datasets.pbmc68k_reduced().X
    cells.write_h5ad(tmp_path / "cells.h5ad")
    scDiffAug(ad.read_h5ad(tmp_path / "cells.h5ad", backed="r"))
    assert "setup_anndata(adata, layer='reads')" in caplog.text


def test_augmented_cells_among_real_ones_are_said(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    new = bench.model.augment(indices=range(10), steps=1)
    assert "augmented themselves" not in caplog.text
    both = ad.concat([bench.adata, new], join="outer")
    scDiffAug(both)
    assert f"10 of {both.n_obs} cells are augmented themselves, and are learnt from" in caplog.text
    caplog.clear()
    bench.model.augment(both, steps=1)
    assert f"10 of {both.n_obs} cells are augmented themselves, and serve as" in caplog.text
    caplog.clear()
    bench.model.augment(both, indices=range(20), steps=1)
    assert "augmented themselves" not in caplog.text
