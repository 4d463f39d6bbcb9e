"""The contract that users of scverse models rely on."""

from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import torch
from anndata import AnnData
from refusals import Bench
from scipy import sparse
from sklearn.neighbors import NearestNeighbors
from small_cells import logs_of_no_counts

import scdiffaug
from scdiffaug import augmentation, fitting, metrics, scDiffAug, tl
from scdiffaug.preparing import training_cells

QUICK = {"max_epochs": 3, "enable_progress_bar": False}


@pytest.fixture(scope="module")
def trained() -> scDiffAug:
    model = scDiffAug(scdiffaug.datasets.pbmc68k_reduced())
    model.train(**QUICK)
    return model


def test_embedding_shapes_and_types(trained: scDiffAug) -> None:
    semantic = trained.get_latent_representation()
    projection = trained.get_latent_representation(representation="projection")
    assert semantic.shape == (700, 80)
    assert projection.shape == (700, 2)
    assert semantic.dtype == projection.dtype == np.float32
    assert np.isfinite(semantic).all()


def test_a_cell_has_one_embedding_whatever_its_batch(trained: scDiffAug) -> None:
    whole = trained.get_latent_representation()
    alone = trained.get_latent_representation(indices=[5])
    blocks = trained.get_latent_representation(batch_size=64)
    np.testing.assert_allclose(alone[0], whole[5], atol=1e-4)
    np.testing.assert_allclose(blocks, whole, atol=1e-4)


def test_new_cells_lie_among_training_cells_as_these_lie_among_each_other(pbmc: AnnData) -> None:
    """Seen by themselves, training cells are known by heart: new ones lay 1.2 times off."""
    is_new = np.random.default_rng(0).permutation(pbmc.n_obs) < 175
    model = scDiffAug(pbmc[~is_new].copy(), diffusion="none")
    model.train(enable_progress_bar=False)
    search = NearestNeighbors(n_neighbors=1).fit(model.get_latent_representation())
    far = search.kneighbors(model.get_latent_representation(pbmc[is_new].copy()))[0]
    assert np.median(far) / np.median(search.kneighbors()[0]) == pytest.approx(1, abs=0.1)


def test_unknown_representation_is_refused(trained: scDiffAug) -> None:
    with pytest.raises(ValueError, match="representation='umap' is unknown"):
        trained.get_latent_representation(representation="umap")


def test_made_cells_are_counts_of_their_sources_depth(trained: scDiffAug) -> None:
    new = trained.augment()
    assert sparse.issparse(new.X)
    np.testing.assert_array_equal(new.X.data, np.rint(new.X.data))
    depth = np.asarray(trained.adata.X.sum(1)).ravel()
    np.testing.assert_array_equal(np.asarray(new.X.sum(1)).ravel(), depth)
    assert (new.X != trained.adata.X).nnz > 0
    np.testing.assert_allclose(np.expm1(new.layers["log1p_norm"][:9].toarray()).sum(1), 1e4, 1e-3)


def test_made_cells_carry_their_sources_annotations(trained: scDiffAug) -> None:
    adata = trained.adata
    new = trained.augment(indices=[7, 3], n_per_cell=2, strength=0.5, seed=11, steps=4)
    assert new.obs["source_obs_name"].tolist() == list(adata.obs_names[[7, 7, 3, 3]])
    assert new.obs["cell_type"].tolist() == adata.obs["cell_type"].iloc[[7, 7, 3, 3]].tolist()
    assert new.obs_names.is_unique
    assert new.obs["is_augmented"].all()
    assert (new.obs["augmentation_strength"] == 0.5).all()
    assert new.var_names.equals(adata.var_names)
    said = new.uns["scdiffaug"]
    assert said["seed"] == 11
    assert said["steps"] == 4
    assert said["sampler"] == "thicken"
    assert said["version"] == scdiffaug.__version__


def test_strength_moves_cells_away_monotonically(trained: scDiffAug) -> None:
    x = trained.adata.X.toarray()
    moved = [
        np.abs(trained.augment(strength=s, steps=4).X.toarray() - x).sum()
        for s in (0.05, 0.2, 0.4, 0.7, 1.0)
    ]
    assert moved == sorted(moved)
    assert moved[0] < 0.11 * x.sum()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": 0.0}, "strength=0.0 must be above 0"),
        ({"strength": 1.5}, "strength=1.5 must be above 0"),
        ({"n_per_cell": 0}, "n_per_cell=0 must be at least 1"),
        ({"steps": 0}, "steps=0 must be at least 1"),
        ({"sampler": "ddim"}, "sampler='ddim' does not fit"),
    ],
)
def test_bad_augmentation_is_refused(
    trained: scDiffAug, options: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        trained.augment(**options)


def test_untrained_model_says_so(pbmc: AnnData) -> None:
    with pytest.raises(RuntimeError, match="train"):
        scDiffAug(pbmc).get_latent_representation()


def test_same_seed_same_bits_other_seed_other_cells(pbmc: AnnData) -> None:
    def run(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        model = scDiffAug(pbmc.copy(), seed=seed)
        model.train(**QUICK, startup=0.2)
        return (
            model.get_latent_representation(),
            model.get_latent_representation(representation="projection"),
            model.augment().X.toarray(),
        )

    first, again, other = run(1), run(1), run(2)
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert (a != c).any()


def test_global_random_state_is_not_moved(pbmc: AnnData) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    before_numpy = np.random.get_state()[1].copy()  # noqa: NPY002
    model = scDiffAug(pbmc)
    model.train(**QUICK)
    model.augment(indices=[0])
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], before_numpy)  # noqa: NPY002


def test_saved_model_gives_the_same_bits(trained: scDiffAug, tmp_path: Path) -> None:
    trained.save(tmp_path / "model", save_anndata=True)
    loaded = scDiffAug.load(tmp_path / "model")
    np.testing.assert_array_equal(
        loaded.get_latent_representation(), trained.get_latent_representation()
    )
    np.testing.assert_array_equal(loaded.augment().X.toarray(), trained.augment().X.toarray())
    assert loaded.is_trained_
    assert loaded.history["loss"].equals(trained.history["loss"])


def test_loaded_model_without_cells_takes_queries(trained: scDiffAug, tmp_path: Path) -> None:
    trained.save(tmp_path / "model")
    loaded = scDiffAug.load(tmp_path / "model")
    query = scdiffaug.datasets.pbmc68k_reduced()
    np.testing.assert_array_equal(
        loaded.get_latent_representation(query), trained.get_latent_representation()
    )
    with pytest.raises(ValueError, match="has no cells"):
        loaded.get_latent_representation()


def test_saving_over_is_refused_unless_told(trained: scDiffAug, tmp_path: Path) -> None:
    trained.save(tmp_path / "model")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        trained.save(tmp_path / "model")
    trained.save(tmp_path / "model", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    (tmp_path / "model" / "figures").mkdir()
    with pytest.raises(FileExistsError, match="holds 'figures' too, which would be lost"):
        trained.save(tmp_path / "model", overwrite=True)
    assert (tmp_path / "model" / "figures").is_dir()
    (tmp_path / "data").mkdir()
    trained.adata.write_h5ad(tmp_path / "data" / "adata.h5ad")
    with pytest.raises(FileExistsError, match=r"but holds .adata\.h5ad. too"):
        trained.save(tmp_path / "data", overwrite=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"but holds .thesis\.txt. too"):
        trained.save(tmp_path / "mine", overwrite=True)


def test_damaged_model_is_refused(trained: scDiffAug, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no saved"):
        scDiffAug.load(tmp_path)
    trained.save(tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="damaged"):
        scDiffAug.load(tmp_path / "model")


def test_a_view_that_has_an_embedding_keeps_it_until_it_has_another(trained: scDiffAug) -> None:
    adata = trained.adata.copy()
    tl.embed(adata, trained)
    part = adata[:50]
    with pytest.warns(ad.ImplicitModificationWarning, match="Setting element") as found:
        tl.embed(part, trained)
    assert not [w for w in found if "Removing" in str(w.message)]


def test_query_features_are_aligned_by_name(trained: scDiffAug) -> None:
    shuffled = trained.adata[:, ::-1].copy()
    np.testing.assert_array_equal(
        trained.get_latent_representation(shuffled), trained.get_latent_representation()
    )
    with pytest.raises(ValueError, match=r"lacks 700 of the model's 765 features, e\.g\. "):
        trained.get_latent_representation(trained.adata[:, :65].copy())


def test_fractions_are_refused_by_a_counts_model(trained: scDiffAug) -> None:
    query = trained.adata.copy()
    sc.pp.normalize_total(query)
    with pytest.raises(ValueError, match="needs whole numbers"):
        trained.get_latent_representation(query)


def test_summary_and_setup_are_shown(
    trained: scDiffAug, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "765 features as counts" in f"{trained}"
    assert "Trained" in repr(trained)
    assert not capsys.readouterr().out
    trained.view_anndata_setup()
    assert "scDiffAug" in capsys.readouterr().out


def test_tools_write_and_train(pbmc: AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    for budget in ("_STEPS", "_STEPS_OF_ENCODER_ALONE"):
        monkeypatch.setattr(f"scdiffaug.budget.{budget}", 4)
    encoder_alone = scDiffAug(pbmc.copy(), diffusion="none")
    encoder_alone.train(enable_progress_bar=False)
    scdiffaug.tl.embed(pbmc)
    np.testing.assert_array_equal(
        pbmc.obsm["X_scdiffaug"], encoder_alone.get_latent_representation()
    )
    assert pbmc.obsm["X_scdiffaug"].shape == (700, 80)
    assert pbmc.obsm["X_scdiffaug_2d"].shape == (700, 2)
    new = scdiffaug.tl.augment(pbmc, n_per_cell=2)
    assert new.shape == (1400, 765)
    sc.pp.neighbors(pbmc, use_rep="X_scdiffaug")
    both = ad.concat([pbmc, new], join="outer")
    assert both.n_obs == 2100


def test_made_cells_write_and_read_back(trained: scDiffAug, tmp_path: Path) -> None:
    new = trained.augment(indices=range(20))
    new.write_h5ad(tmp_path / "new.h5ad")
    back = ad.read_h5ad(tmp_path / "new.h5ad")
    np.testing.assert_array_equal(back.X.toarray(), new.X.toarray())
    assert dict(back.uns["scdiffaug"]) == new.uns["scdiffaug"]


def test_layer_is_used_and_filled(pbmc: AnnData) -> None:
    pbmc.layers["counts"] = pbmc.X.copy()
    sc.pp.normalize_total(pbmc)
    scDiffAug.setup_anndata(pbmc, layer="counts")
    model = scDiffAug(pbmc)
    model.train(**QUICK)
    new = model.augment()
    np.testing.assert_array_equal(new.layers["counts"].toarray(), new.X.toarray())
    np.testing.assert_array_equal(new.X.sum(1), pbmc.layers["counts"].sum(1))


def test_log_model_makes_log_values(pbmc: AnnData) -> None:
    pbmc.X = logs_of_no_counts(pbmc.X)
    model = scDiffAug(pbmc)
    model.train(**QUICK)
    new = model.augment(steps=3)
    assert new.X.min() >= 0
    assert new.X.max() < 30
    assert "log1p_norm" not in new.layers


def test_raw_intensities_come_back_as_intensities() -> None:
    rng = np.random.default_rng(0)
    x = np.sinh(rng.normal(3, 1, size=(200, 12)).clip(0)).astype(np.float32) * 5
    model = scDiffAug(AnnData(x))
    model.train(**QUICK)
    for sampler in ("dpmpp_2m", "ddim", "ddpm"):
        new = model.augment(sampler=sampler, steps=6)
        assert new.X.max() > 30
        assert np.isfinite(new.X).all()


def test_gaussian_diffusion_of_counts_still_makes_counts(pbmc: AnnData) -> None:
    model = scDiffAug(pbmc, diffusion="gaussian")
    model.train(**QUICK)
    new = model.augment(steps=3)
    np.testing.assert_array_equal(new.X.data, np.rint(new.X.data))
    assert new.X.min() >= 0


def test_values_with_zeros_get_new_cells_with_as_many(pbmc: AnnData) -> None:
    lengths = np.random.default_rng(0).uniform(0.5, 2, pbmc.n_vars).astype(np.float32)
    pbmc.X = sparse.csr_matrix(pbmc.X.multiply(1 / lengths)).log1p()
    model = scDiffAug(pbmc)
    model.train(**QUICK)
    new = model.augment()
    assert new.uns["scdiffaug"]["steps"] == 32
    assert metrics.zero_share(new.X) == pytest.approx(metrics.zero_share(pbmc.X), abs=0.03)
    assert (new.X.max(0).toarray() <= pbmc.X.max(0).toarray() + 1e-5).all()


@pytest.mark.parametrize(
    "options",
    [
        {"objective": "infonce"},
        {"condition": "labels"},
        {"condition": "random"},
        {"diffusion": "none"},
    ],
)
def test_ablations_run(pbmc: AnnData, options: dict[str, str]) -> None:
    scDiffAug.setup_anndata(pbmc, labels_key="cell_type")
    model = scDiffAug(pbmc, **options)
    model.train(**QUICK, startup=0.0, schedule="alternating")
    assert np.isfinite(model.get_latent_representation()).all()


def test_without_diffusion_there_is_nothing_to_augment_with(pbmc: AnnData) -> None:
    model = scDiffAug(pbmc, diffusion="none")
    model.train(**QUICK)
    with pytest.raises(ValueError, match="diffusion='none' has no generator"):
        model.augment()


def test_each_training_begins_anew(pbmc: AnnData) -> None:
    model = scDiffAug(pbmc)
    model.train(**QUICK)
    first = model.get_latent_representation()
    model.train(max_epochs=1, enable_progress_bar=False)
    assert len(model.history["loss"]) == 1
    model.train(**QUICK)
    np.testing.assert_array_equal(model.get_latent_representation(), first)


@pytest.mark.parametrize("n_cells", [20, 60, 300])
def test_a_loaded_model_is_trained_on_other_cells(
    trained: scDiffAug, pbmc: AnnData, tmp_path: Path, n_cells: int
) -> None:
    """As one that is built for them, but for the features that the saved one sees."""
    trained.save(tmp_path / "model")
    cells = pbmc[:n_cells].copy()
    model = scDiffAug.load(tmp_path / "model", cells)
    model.train(**QUICK)
    built = scDiffAug(cells)
    built.train(**QUICK)
    np.testing.assert_array_equal(
        model.get_latent_representation(), built.get_latent_representation()
    )
    assert len(model.module.inputs.neighborhood.references) == n_cells


@pytest.mark.parametrize("how", ["load", "assign", "assign to none"])
def test_training_on_other_cells_sees_the_features_that_vary_in_them(
    pbmc: AnnData, tmp_path: Path, how: str
) -> None:
    types = pbmc.obs["cell_type"]
    first, other = pbmc[types == types.iloc[0]].copy(), pbmc[types != types.iloc[0]].copy()
    # Of the first cells fewer features vary than may be seen.
    first.X = sparse.csr_matrix(first.X.multiply(np.arange(765) < 30))
    options = {"n_top_features": 40, "diffusion": "none"}
    model = scDiffAug(first[np.asarray(first.X.sum(1)).ravel() > 0].copy(), **options)
    seen = model._contract.selected
    model.save(tmp_path / "model")
    if how == "load":
        model = scDiffAug.load(tmp_path / "model", other)
    elif how == "assign to none":
        model = scDiffAug.load(tmp_path / "model")
    model.adata = other
    model.train(**QUICK)
    built = scDiffAug(other, **options)
    built.train(**QUICK)
    assert model._contract == built._contract
    assert model._contract.selected != seen
    np.testing.assert_array_equal(
        model.get_latent_representation(), built.get_latent_representation()
    )


def test_labels_of_other_cells_are_learnt_from(pbmc: AnnData) -> None:
    scDiffAug.setup_anndata(pbmc, labels_key="cell_type")
    model = scDiffAug(pbmc, condition="labels")
    other = pbmc.copy()
    other.obs["cell_type"] = other.obs["cell_type"].astype(str) + " of another donor"
    model.adata = other
    model.train(**QUICK)
    assert set(model._contract.category_names) == set(other.obs["cell_type"])


def test_an_interruption_before_the_first_step_leaves_a_trained_model(
    trained: scDiffAug, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    before = trained.get_latent_representation()
    monkeypatch.setattr(fitting, "training_cells", interrupt)
    with pytest.raises(KeyboardInterrupt):
        trained.train(**QUICK)
    np.testing.assert_array_equal(trained.get_latent_representation(), before)


def test_numbers_of_numpy_are_numbers(pbmc: AnnData, tmp_path: Path) -> None:
    model = scDiffAug(
        pbmc, n_top_features=np.int64(300), n_neighbors=np.int64(10), seed=np.int64(1)
    )
    model.train(
        np.int64(2),
        batch_size=np.int32(256),
        alpha=np.float32(0.25),
        num_nodes=np.int64(1),
        checkpoint_dir=tmp_path / "run",
        enable_progress_bar=False,
    )
    model.save(tmp_path / "model")
    loaded = scDiffAug.load(tmp_path / "model", pbmc)
    weak, strong = (
        loaded.augment(
            indices=[0], strength=np.float32(strength), path=tmp_path / f"{strength}.h5ad"
        )
        for strength in (0.25, 0.75)
    )
    assert weak.uns["scdiffaug"]["strength"] == 0.25
    assert strong.uns["scdiffaug"]["strength"] == 0.75


def test_new_cells_need_not_have_what_training_asked_for(pbmc: AnnData, tmp_path: Path) -> None:
    pbmc.obs["batch"] = np.repeat(["a", "b"], 350)
    sc.pp.neighbors(pbmc, use_rep="X", key_added="mine")
    keys = {"labels_key": "cell_type", "batch_key": "batch", "neighbors_key": "mine"}
    scDiffAug.setup_anndata(pbmc, **keys)
    model = scDiffAug(pbmc)
    model.train(**QUICK)
    model.save(tmp_path / "model")
    assert scDiffAug.load(tmp_path / "model", pbmc).registry["setup_args"] == {
        "layer": None,
        **keys,
    }
    bare = scDiffAug.load(tmp_path / "model", AnnData(pbmc.X[:9], var=pbmc.var[[]]))
    assert bare.get_latent_representation().shape == (9, 80)
    with pytest.raises(KeyError, match="batch_key='batch' not found"):
        bare.train(**QUICK)
    bare.adata.obs["batch"] = np.resize(["a", "b"], 9)
    with pytest.raises(KeyError, match="neighbors_key='mine' not found"):
        bare.train(**QUICK)


def test_a_copy_is_registered_as_its_original(pbmc: AnnData) -> None:
    pbmc.layers["counts"] = pbmc.X.copy()
    scDiffAug.setup_anndata(pbmc, layer="counts")
    part = pbmc[pbmc.obs["cell_type"] == "Dendritic"].copy()
    assert scDiffAug(part).registry["setup_args"]["layer"] == "counts"
    assert scDiffAug(pbmc[:50]).registry["setup_args"]["layer"] == "counts"
    assert scDiffAug(pbmc).adata is pbmc


@pytest.mark.parametrize("diffusion", ["auto", "none"])
def test_sparse_intensities_are_learnt_from(pbmc: AnnData, diffusion: str) -> None:
    sc.pp.normalize_total(pbmc, target_sum=1e4)
    model = scDiffAug(pbmc, diffusion=diffusion)
    model.train(**QUICK)
    assert model.feature_space == "raw"
    assert np.isfinite(model.get_latent_representation()).all()
    seen, expected = (model._contract.values(x) for x in (pbmc.X, pbmc.X.toarray()))
    assert seen.dtype == expected.dtype == np.float32
    np.testing.assert_array_equal(seen.toarray(), expected)


def test_cells_of_very_many_reads_are_made_a_few_at_once(
    pbmc: AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    pbmc.X = pbmc.X * 100
    model = scDiffAug(pbmc)
    model.train(max_epochs=2, startup=0.0, alpha=1.0, enable_progress_bar=False)
    at_once = []
    sample = model.module.sample

    def watched(x: torch.Tensor, *args: object, **options: object) -> torch.Tensor:
        at_once.append(len(x))
        return sample(x, *args, **options)

    monkeypatch.setattr(model.module, "sample", watched)
    monkeypatch.setattr(augmentation, "_MOST_READS_AT_ONCE", 10 * pbmc.X[:25].sum(1).mean())
    new = model.augment(indices=range(25), steps=2)
    assert at_once == [10, 10, 5]
    np.testing.assert_array_equal(new.X.sum(1), pbmc.X[:25].sum(1))


def test_labels_that_condition_are_asked_for(pbmc: AnnData, tmp_path: Path) -> None:
    scDiffAug.setup_anndata(pbmc, labels_key="cell_type")
    model = scDiffAug(pbmc, condition="labels")
    model.train(**QUICK)
    model.save(tmp_path / "model")
    with pytest.raises(KeyError, match="labels_key='cell_type' not found"):
        scDiffAug.load(tmp_path / "model", AnnData(pbmc.X[:9], var=pbmc.var[[]]))


def test_labels_change_nothing_unless_asked(pbmc: AnnData) -> None:
    plain, labelled = pbmc.copy(), pbmc.copy()
    scDiffAug.setup_anndata(labelled, labels_key="cell_type")
    embeddings = []
    for adata in (plain, labelled):
        model = scDiffAug(adata)
        model.train(**QUICK)
        embeddings.append(model.get_latent_representation())
    np.testing.assert_array_equal(*embeddings)
    with pytest.raises(ValueError, match="condition='labels' needs labels"):
        scDiffAug(plain, condition="labels")


def test_neighbors_of_scanpy_are_used(pbmc: AnnData) -> None:
    rng = np.random.default_rng(0)
    distances = sparse.random(700, 700, density=0.02, random_state=rng, format="csr")
    pbmc.obsp["mine_distances"] = distances + sparse.eye(700, k=1) + sparse.eye(700, k=-1)
    pbmc.uns["mine"] = {"distances_key": "mine_distances"}
    scDiffAug.setup_anndata(pbmc, neighbors_key="mine")
    model = scDiffAug(pbmc)
    batches, _ = training_cells(model._contract, pbmc, n_components=50, batch_size=64)
    found = batches.walks.neighbors
    graph = pbmc.obsp["mine_distances"]
    assert all((graph[[cell], found[cell]] > 0).all() for cell in (0, 350, 699))


def test_noise_on_counts_leaves_no_cell_empty(pbmc: AnnData) -> None:
    model = scDiffAug(pbmc, diffusion="gaussian")
    model.train(**QUICK)
    depth = np.asarray(model.augment(depth=2, steps=2).X.sum(1))
    assert depth.min() >= 1
    assert np.median(np.asarray(model.augment(depth=500, steps=2).X.sum(1))) == pytest.approx(
        500, rel=0.5
    )


@pytest.mark.parametrize(("diffusion", "is_said"), [("auto", True), ("none", False)])
def test_values_with_zeros_that_are_no_counts_are_said(
    pbmc: AnnData, caplog: pytest.LogCaptureFixture, diffusion: str, is_said: bool
) -> None:
    pbmc.X = logs_of_no_counts(pbmc.X)
    scDiffAug(pbmc, diffusion=diffusion)
    assert ("new cells will be less like real ones" in caplog.text) == is_said


def test_a_copy_that_lacks_what_its_original_was_registered_with_is_registered_without(
    pbmc: AnnData, caplog: pytest.LogCaptureFixture
) -> None:
    """As ``adata.raw.to_adata()``, which we advise, and which copies uns but no layer."""
    pbmc.raw, pbmc.layers["scaled"] = pbmc, pbmc.X.toarray() * 1.5
    pbmc.obs["batch"] = "a"
    scDiffAug.setup_anndata(pbmc, layer="scaled", batch_key="batch")
    setup = scDiffAug(pbmc.raw.to_adata()).registry["setup_args"]
    assert setup["layer"] is None
    assert setup["batch_key"] == "batch"
    assert "registered with layer='scaled', which it lacks" in caplog.text


def test_saved_cells_need_not_be_loaded(trained: scDiffAug, tmp_path: Path) -> None:
    trained.save(tmp_path / "model", save_anndata=True)
    bare = scDiffAug.load(tmp_path / "model", adata=False)
    assert bare.adata is None
    with pytest.raises(ValueError, match=r"has no cells: pass adata=... to load"):
        bare.view_anndata_setup()
    np.testing.assert_array_equal(
        bare.get_latent_representation(trained.adata), trained.get_latent_representation()
    )


def test_an_interrupted_call_that_keeps_no_model_writes_nothing(
    pbmc: AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scDiffAug, "train", lambda model: setattr(model, "_was_interrupted", True))
    with pytest.raises(KeyboardInterrupt):
        tl.embed(pbmc)
    with pytest.raises(KeyboardInterrupt):
        tl.augment(pbmc)
    assert not [key for key in pbmc.obsm if key.startswith("X_scdiffaug")]


def test_a_plane_of_another_model_is_not_left_beside_the_embedding(
    trained: scDiffAug,
) -> None:
    adata = trained.adata.copy()
    adata.obsm["X_scdiffaug"] = np.zeros((len(adata), 80))
    adata.obsm["X_scdiffaug_3d"] = adata.obsm["X_other_3d"] = np.zeros((len(adata), 3))
    for key in ("X_scdiffaug", "X_other"):
        tl.embed(adata, trained, key_added=key)
        assert {key, f"{key}_2d", "X_other_3d"} <= set(adata.obsm)
    assert "X_scdiffaug_3d" not in adata.obsm


def test_features_are_known_without_cells(trained: scDiffAug, tmp_path: Path) -> None:
    trained.save(tmp_path / "model")
    loaded = scDiffAug.load(tmp_path / "model", adata=False)
    assert list(loaded.get_var_names()) == list(trained.get_var_names())
    assert list(trained.get_var_names()) == list(trained.adata.var_names)


def test_rare_labels_are_no_warning(pbmc: AnnData) -> None:
    pbmc.obs["rare"] = ["one"] + ["other"] * 699
    scDiffAug.setup_anndata(pbmc, labels_key="rare")
    assert scDiffAug(pbmc.copy()).registry["setup_args"]["labels_key"] == "rare"


def test_labels_that_became_floats_are_the_same_labels(pbmc: AnnData) -> None:
    pbmc.obs["cluster"] = np.arange(pbmc.n_obs) % 3
    scDiffAug.setup_anndata(pbmc, labels_key="cluster")
    model = scDiffAug(pbmc, condition="labels")
    model.train(1, enable_progress_bar=False)
    other = pbmc[:4].copy()
    other.obs["cluster"] = other.obs["cluster"].astype(float)
    assert model.augment(other, steps=1).n_obs == 4


def test_embeddings_of_models_of_any_dimensions_replace_each_other(pbmc: AnnData) -> None:
    cells = pbmc[:80].copy()
    for n_projection in (1, 4, 2):
        model = scDiffAug(cells, n_projection=n_projection)
        model.train(1, enable_progress_bar=False)
        tl.embed(cells, model)
    ours = {key for key in cells.obsm if key.startswith("X_scdiffaug")}
    assert ours == {"X_scdiffaug", "X_scdiffaug_2d"}


def test_a_batch_size_of_none_is_the_default(bench: Bench) -> None:
    model = scDiffAug.load(bench.folder / "model", adata=False)
    y = model.get_latent_representation(bench.adata, batch_size=None)
    np.testing.assert_array_equal(y, model.get_latent_representation(bench.adata))
