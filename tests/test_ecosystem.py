"""scdiffaug among its neighbours: a scanpy pipeline, MuData, scib-metrics."""

import gc
import warnings
import weakref
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData, ImplicitModificationWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors
from typer.testing import CliRunner

import scdiffaug
from scdiffaug import budget, scDiffAug
from scdiffaug.cli import app
from scdiffaug.registration import is_registered


@pytest.fixture(scope="module")
def embedded() -> AnnData:
    """Blood cells after training; tests copy them."""
    adata = scdiffaug.datasets.pbmc68k_reduced()
    model = scDiffAug(adata)
    model.train(60, enable_progress_bar=False)
    scdiffaug.tl.embed(adata, model)
    return adata


def test_cells_embedded_without_a_model_are_let_go_and_registrations_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(budget, "default_epochs", lambda *_, **__: 1)
    adata = scdiffaug.datasets.pbmc68k_reduced()[:60].copy()
    scdiffaug.tl.embed(adata)
    alive = weakref.ref(adata)
    del adata
    gc.collect()
    assert alive() is None
    adata = scdiffaug.datasets.pbmc68k_reduced()[:60].copy()
    adata.layers["counts"], adata.X = adata.X, adata.X * 0.5
    scDiffAug.setup_anndata(adata, layer="counts")
    scdiffaug.tl.embed(adata)
    assert scDiffAug(adata)._contract.setup["layer"] == "counts"


def test_copies_and_failures_are_let_go_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "default_epochs", lambda *_, **__: 1)
    adata = scdiffaug.datasets.pbmc68k_reduced()[:60].copy()
    scDiffAug.setup_anndata(adata)
    n_before = len(scDiffAug._setup_adata_manager_store)
    scdiffaug.tl.embed(adata.copy())
    scdiffaug.tl.embed(adata[:50].copy())
    with pytest.raises(ValueError, match="cells"):
        scdiffaug.tl.embed(adata[:5].copy())
    assert len(scDiffAug._setup_adata_manager_store) == n_before
    assert is_registered(scDiffAug, adata)


def test_a_copy_stays_set_up_like_its_original(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "default_epochs", lambda *_, **__: 1)
    adata = scdiffaug.datasets.pbmc68k_reduced()[:60].copy()
    adata.layers["counts"], adata.X = adata.X, adata.X * 0.5
    scDiffAug.setup_anndata(adata, layer="counts")
    copy = adata.copy()
    scdiffaug.tl.embed(copy)
    first = copy.obsm["X_scdiffaug"].copy()
    with pytest.raises(IndexError):
        scdiffaug.tl.augment(copy, indices=[99999])
    scdiffaug.tl.embed(copy)
    np.testing.assert_array_equal(copy.obsm["X_scdiffaug"], first)
    assert scDiffAug(copy).registry["setup_args"]["layer"] == "counts"


def test_a_view_is_embedded_with_the_one_warning_that_anndata_has_for_it() -> None:
    adata = scdiffaug.datasets.pbmc68k_reduced()
    model = scDiffAug(adata, diffusion="none")
    model.train(1, enable_progress_bar=False)
    some = adata[:60]
    with pytest.warns(ImplicitModificationWarning) as warned:
        scdiffaug.tl.embed(some, model)
    assert len(warned) == 1
    assert some.obsm["X_scdiffaug_2d"].shape == (60, 2)
    assert "X_scdiffaug" not in adata.obsm


def test_scanpy_goes_on_from_the_embedding(embedded: AnnData) -> None:
    adata = embedded.copy()
    sc.pp.neighbors(adata, use_rep="X_scdiffaug")
    sc.tl.leiden(adata, flavor="igraph", n_iterations=2)
    sc.tl.umap(adata)
    assert adata.obsm["X_umap"].shape == (700, 2)
    # By chance it would be 0.
    assert adjusted_rand_score(adata.obs["cell_type"], adata.obs["leiden"]) > 0.3
    ax = scdiffaug.pl.embedding(adata, basis="umap", color="leiden", show=False)
    assert len(ax.get_legend().get_texts()) == adata.obs["leiden"].nunique()


def test_new_cells_join_the_real_ones_in_a_pipeline(embedded: AnnData) -> None:
    model = scDiffAug(embedded)
    model.train(2, enable_progress_bar=False)
    both = ad.concat(
        {"real": embedded, "new": scdiffaug.tl.augment(embedded, model)},
        label="origin",
        index_unique="-",
    )
    scdiffaug.tl.embed(both, model)
    sc.pp.neighbors(both, use_rep="X_scdiffaug")
    assert both.obs["origin"].value_counts().to_dict() == {"real": 700, "new": 700}
    assert both.obsp["connectivities"].shape == (1400, 1400)


@pytest.fixture
def mdata() -> Any:
    """Blood cells with a second modality."""
    mudata = pytest.importorskip("mudata")
    rna = scdiffaug.datasets.pbmc68k_reduced()
    protein = AnnData(np.ones((700, 3), dtype=np.float32), obs=rna.obs[[]].copy())
    # mudata 0.3 warns of the default of 0.4, which is this one.
    with mudata.set_options(pull_on_update=False):
        yield mudata.MuData({"rna": rna, "protein": protein})


def test_a_modality_of_a_mudata_is_embedded_in_place(mdata: Any, tmp_path: Path) -> None:
    scDiffAug.setup_anndata(mdata["rna"])
    model = scDiffAug(mdata["rna"])
    model.train(2, enable_progress_bar=False)
    scdiffaug.tl.embed(mdata["rna"], model)
    assert mdata["rna"].obsm["X_scdiffaug"].shape == (700, 80)
    assert not mdata["protein"].obsm
    assert scdiffaug.tl.augment(mdata["rna"], model, indices=[0, 1]).n_obs == 2
    mdata.write(tmp_path / "cells.h5mu")
    again = type(mdata)(dict(mdata.mod))
    scdiffaug.tl.embed(again["rna"], model, key_added="again")
    np.testing.assert_array_equal(again["rna"].obsm["again"], mdata["rna"].obsm["X_scdiffaug"])


@pytest.mark.parametrize(
    "call",
    [
        scDiffAug,
        scDiffAug.setup_anndata,
        scdiffaug.tl.embed,
        scdiffaug.pl.embedding,
        lambda mdata: scdiffaug.pl.gene_agreement(mdata["rna"], mdata),
    ],
)
def test_a_whole_mudata_is_refused_by_its_modalities(call: Any, mdata: Any) -> None:
    message = r"is a MuData with the modalities \['rna', 'protein'\]: pass one of them, e\.g\. mda"
    with pytest.raises(TypeError, match=message):
        call(mdata)


def test_a_file_of_several_modalities_is_refused(mdata: Any, tmp_path: Path) -> None:
    mdata.write(tmp_path / "cells.h5mu")
    arguments = ["embed", str(tmp_path / "cells.h5mu"), str(tmp_path / "out.h5ad")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "holds several modalities (MuData): save the one that you want" in result.output
    assert not (tmp_path / "out.h5ad").exists()


def test_scib_metrics_take_our_keys(embedded: AnnData) -> None:
    with warnings.catch_warnings():
        # What jax, scanpy and scib-metrics warn of one another is theirs to mend.
        warnings.simplefilter("ignore")
        benchmark = pytest.importorskip("scib_metrics.benchmark")
        adata = embedded.copy()
        adata.obs["batch"] = pd.Categorical(np.where(np.arange(700) % 2, "odd", "even"))
        keys = ["X_scdiffaug", "X_scdiffaug_2d"]
        bench = benchmark.Benchmarker(
            adata,
            batch_key="batch",
            label_key="cell_type",
            embedding_obsm_keys=keys,
            bio_conservation_metrics=benchmark.BioConservation(
                isolated_labels=False,
                nmi_ari_cluster_labels_leiden=False,
                nmi_ari_cluster_labels_kmeans=False,
                silhouette_label=False,
                clisi_knn=True,
            ),
            batch_correction_metrics=benchmark.BatchCorrection(
                bras=False,
                ilisi_knn=True,
                kbet_per_label=False,
                graph_connectivity=False,
                pcr_comparison=False,
            ),
            progress_bar=False,
        )
        bench.prepare(neighbor_computer=_exact_neighbors)
        bench.benchmark()
        results = bench.get_results(min_max_scale=False).loc[keys].astype(float)
    assert (results["cLISI"] > 0.5).all()
    # Cells were called odd and even by their row: nothing tells such batches apart.
    assert (results["iLISI"] > 0.8).all()


def _exact_neighbors(x: np.ndarray, k: int) -> Any:
    from scib_metrics.nearest_neighbors import NeighborsResults

    distances, indices = NearestNeighbors(n_neighbors=k).fit(x).kneighbors()
    return NeighborsResults(indices=indices, distances=distances)


def test_a_copy_that_is_set_up_takes_nothing_from_its_original() -> None:
    SCVI = pytest.importorskip("scvi").model.SCVI
    adata = scdiffaug.datasets.pbmc68k_reduced()[:60].copy()
    SCVI.setup_anndata(adata)
    copy = adata[:40].copy()
    copy.layers["counts"], copy.X = copy.X, copy.X * 0.5
    scDiffAug.setup_anndata(copy, layer="counts")
    assert scDiffAug(adata)._contract.setup["layer"] is None
    assert SCVI(adata).adata is adata
    sharing = AnnData(adata.X, obs=adata.obs, var=adata.var, uns=adata.uns)
    scDiffAug.setup_anndata(sharing)
    assert SCVI(adata).adata is adata


def test_what_fails_or_ends_leaves_no_mark_of_a_registration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(budget, "default_epochs", lambda *_, **__: 1)
    adata = scdiffaug.datasets.pbmc68k_reduced()[:60].copy()
    before, n_before = dict(adata.uns), len(scDiffAug._setup_adata_manager_store)
    with pytest.raises(ValueError, match="n_neighbors=100"):
        scDiffAug(adata, n_neighbors=100)
    assert adata.uns.keys() == before.keys()
    scdiffaug.tl.embed(adata)
    assert adata.uns.keys() == before.keys()
    assert len(scDiffAug._setup_adata_manager_store) == n_before


def test_a_copy_with_missing_labels_is_embedded_without_them(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(budget, "default_epochs", lambda *_, **__: 1)
    adata = scdiffaug.datasets.pbmc68k_reduced()[:60].copy()
    scDiffAug.setup_anndata(adata, labels_key="cell_type")
    copy = adata.copy()
    copy.obs["cell_type"] = copy.obs["cell_type"].where(np.arange(60) > 0)
    scdiffaug.tl.embed(copy)
    assert copy.obsm["X_scdiffaug"].shape == (60, 80)
    assert "labels_key='cell_type', which it lacks or has in part" in caplog.text
