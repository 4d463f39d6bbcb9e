"""Counts of accessible regions: told from counts of genes, and seen by which are open."""

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import sparse
from sklearn.decomposition import PCA

from scdiffaug import scDiffAug
from scdiffaug.benchmark.inputs import prepare_cells
from scdiffaug.components import PrincipalAxes
from scdiffaug.features import FeatureSpace, select_features
from scdiffaug.fragments import ends_of, fragments_of
from scdiffaug.preparing import training_cells

N_CELLS, N_PEAKS = 240, 400
# Three kinds of cells, each with regions of its own that are open more often.
TYPES = np.repeat(["a", "b", "c"], N_CELLS // 3)


@pytest.fixture
def peaks(rng: np.random.Generator) -> AnnData:
    """Ends of fragments: mostly two where a region is open."""
    share = rng.gamma(0.5, 0.06, size=(3, N_PEAKS)).clip(max=0.9)
    fragments = rng.poisson(share[np.searchsorted(["a", "b", "c"], TYPES)]).astype(np.float32)
    # Of some fragments the other end lies outside.
    x = np.maximum(2 * fragments - (rng.random(fragments.shape) < 0.3), 0)
    x[np.arange(N_CELLS), rng.integers(N_PEAKS, size=N_CELLS)] += 2
    obs = pd.DataFrame({"cell_type": TYPES}, index=[f"c{i}" for i in range(N_CELLS)])
    return AnnData(sparse.csr_matrix(x), obs=obs)


def _named(n: int, name: str) -> list[str]:
    return [name.format(start=100 * i, end=100 * i + 50) for i in range(n)]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("chr1:{start}-{end}", "peaks"),
        ("chrX_{start}_{end}", "peaks"),
        ("GL000194.1-{start}-{end}", "peaks"),
        ("HLA-DRB{start}", "counts"),
        ("ENSG{start}.{end}", "counts"),
    ],
)
def test_peaks_are_told_by_their_names(
    name: str, kind: str, rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    x = sparse.csr_matrix(rng.poisson(0.1, size=(30, 20)).astype(np.float32))
    assert FeatureSpace.decide(x, names=_named(20, name)).kind == kind
    assert FeatureSpace.decide(x, "counts", names=_named(20, name)).kind == "counts"
    assert "read as counts of peaks" not in caplog.text


def test_peaks_are_told_by_the_two_ends_of_a_fragment(
    peaks: AnnData, rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING", logger="scdiffaug"):
        assert scDiffAug(AnnData(peaks.X)).feature_space == "peaks"
    assert "pass feature_space='counts' if they are of genes" in caplog.text
    assert FeatureSpace.decide(peaks.X.toarray()).kind == "peaks"
    assert FeatureSpace.decide((peaks.X > 0).astype(np.float32)).kind == "peaks"
    genes = rng.negative_binomial(0.1, 0.2, size=(200, 300)).astype(np.float32)
    assert FeatureSpace.decide(genes).kind == "counts"
    # All of them none: that no cell has counts is said elsewhere.
    assert FeatureSpace.decide(np.zeros((20, 30), dtype=np.float32)).kind == "counts"
    # Most often two, but seldom none: a panel of proteins.
    proteins = rng.poisson(2.5, size=(200, 30)).astype(np.float32)
    assert FeatureSpace.decide(proteins).kind == "counts"


def test_fractions_are_no_peaks() -> None:
    with pytest.raises(ValueError, match="feature_space='peaks' needs whole numbers"):
        FeatureSpace.decide(np.array([[0.5, 2.0]], dtype=np.float32), "peaks")


def test_components_are_those_of_tf_idf(peaks: AnnData) -> None:
    space = FeatureSpace("peaks")
    frequencies = space.features(peaks.X)
    axes = PrincipalAxes.fit(frequencies, n_components=5, seed=0, tf_idf=True)
    documents = (peaks.X.toarray() > 0).sum(0)
    wanted = frequencies.toarray() * np.log(1 + N_CELLS / documents.clip(1))
    found = axes.transform(frequencies)
    pca = PCA(5, random_state=0).fit(wanted)
    points = pca.transform(wanted) / np.sqrt(pca.explained_variance_.mean())
    signs = np.sign((found * points).sum(0))
    np.testing.assert_allclose(found * signs, points, atol=1e-3)


def test_the_number_of_reads_does_not_matter_but_which_peaks_are_open(peaks: AnnData) -> None:
    space = FeatureSpace("peaks")
    seen = space.features(peaks.X).toarray()
    np.testing.assert_allclose(seen.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(seen, space.features(peaks.X * 3).toarray())
    np.testing.assert_allclose(seen, space.features(peaks.X.toarray()), rtol=1e-6)
    tensor = torch.from_numpy(peaks.X.toarray())
    np.testing.assert_allclose(space.features_tensor(tensor).numpy(), seen, rtol=1e-5)


def test_peaks_that_are_open_in_most_cells_are_seen(peaks: AnnData) -> None:
    x = peaks.X.toarray()
    x[:, :3], x[:, 3] = 0, 2
    space, n_open = FeatureSpace("peaks"), (x > 0).sum(0)
    few = select_features(sparse.csr_matrix(x), space, n_top=10, batch=None)
    assert 3 in few
    assert list(few) == sorted(few)
    assert n_open[few].min() >= np.sort(n_open)[-10]
    most = select_features(x, space, n_top=N_PEAKS - 1, batch=None)
    assert not set(range(3)) & set(most)


def test_a_model_of_peaks_embeds_and_makes_counts(peaks: AnnData, tmp_path: Path) -> None:
    model = scDiffAug(peaks, n_semantic=8)
    model.train(4, batch_size=64, alpha=1.0, enable_progress_bar=False)
    assert model.feature_space == "peaks"
    new = model.augment(steps=2, depth="sampled")
    assert (new.X.data == np.rint(new.X.data)).all()
    assert "log1p_norm" in new.layers
    model.save(tmp_path / "model")
    again = scDiffAug.load(tmp_path / "model", adata=peaks)
    y = model.get_latent_representation()
    np.testing.assert_array_equal(again.get_latent_representation(), y)
    # Twice the reads are the same peaks.
    more = AnnData(peaks.X * 2, peaks.obs, peaks.var)
    np.testing.assert_array_equal(model.get_latent_representation(more), y)


@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_peaks_that_are_open_or_not_make_peaks_that_are(peaks: AnnData, strength: float) -> None:
    peaks.X = (peaks.X > 0).astype(np.float32)
    model = scDiffAug(peaks, n_semantic=8)
    model.train(4, batch_size=64, alpha=1.0, enable_progress_bar=False)
    new = model.augment(strength=strength)
    assert set(new.X.data) == {1.0}
    np.testing.assert_array_equal(new.X.sum(1), peaks.X.sum(1))


def test_fragments_are_half_of_their_ends_rounded_up() -> None:
    ends = np.array([[0, 1, 2, 3, 4], [5, 0, 0, 0, 0]], dtype=np.float32)
    fragments = [[0, 1, 1, 2, 2], [3, 0, 0, 0, 0]]
    np.testing.assert_array_equal(fragments_of(ends), fragments)
    np.testing.assert_array_equal(fragments_of(sparse.csr_matrix(ends)).toarray(), fragments)


def test_ends_sum_up_to_what_is_wanted_in_the_same_peaks(rng: np.random.Generator) -> None:
    fragments = torch.from_numpy(rng.poisson(0.3, size=(200, 50)).astype(np.float32))
    n_open = (fragments > 0).sum(1)
    n_ends = 2 * fragments.sum(1) - (n_open / 2).floor()
    ends = ends_of(fragments, n_ends, torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(ends.sum(1), n_ends)
    np.testing.assert_array_equal(fragments_of(ends.numpy()), fragments)
    # Each open peak is as likely as any other to lack one.
    n_times = (fragments > 0).sum(0).numpy()
    lacking = (2 * fragments - ends).sum(0).numpy() / n_times
    assert abs(lacking - lacking.mean()).max() < 5 * np.sqrt(0.25 / n_times.min())


@pytest.mark.parametrize(
    ("strength", "depth"), [(1.0, "source"), (0.4, "source"), (1.0, "sampled"), (0.4, 60)]
)
def test_counts_of_ends_make_counts_of_ends(
    peaks: AnnData, strength: float, depth: int | str
) -> None:
    model = scDiffAug(peaks, n_semantic=8)
    model.train(4, batch_size=64, alpha=1.0, enable_progress_bar=False)
    new = model.augment(strength=strength, depth=depth)
    one, two, three = (np.count_nonzero(new.X.data == number) for number in (1, 2, 3))
    assert two > max(one, three)
    is_even = [np.mean(cells.X.data % 2 == 0) for cells in (peaks, new)]
    assert is_even[1] == pytest.approx(is_even[0], abs=0.05)
    total = np.asarray(new.X.sum(1)).ravel()
    if depth == "sampled":
        assert set(total) <= set(np.asarray(peaks.X.sum(1)).ravel())
    else:
        wanted = np.asarray(peaks.X.sum(1)).ravel() if depth == "source" else depth
        np.testing.assert_array_equal(total, wanted)


def test_interpolated_cells_have_two_ends_for_most_fragments_too(peaks: AnnData) -> None:
    model = scDiffAug(peaks, n_semantic=8)
    model.train(2, batch_size=64, enable_progress_bar=False)
    new = model.interpolate(start="a", end="b", groupby="cell_type", n_cells=60)
    assert FeatureSpace.decide(new.X).has_ends


def test_counts_of_genes_keep_each_read(peaks: AnnData) -> None:
    model = scDiffAug(peaks, feature_space="counts", n_semantic=8)
    model.train(2, batch_size=64, enable_progress_bar=False)
    assert not FeatureSpace.decide(model.augment().X).has_ends


def test_peers_start_from_thirty_components_of_tf_idf(peaks: AnnData, tmp_path: Path) -> None:
    dataset = prepare_cells(peaks, "peaks", label_key="cell_type", cache=tmp_path)
    ours = np.load(dataset.folder / "pca_standardised.npy")
    assert dataset.kind == "peaks"
    assert ours.shape == (N_CELLS, 50)
    np.testing.assert_array_equal(dataset.pca, ours[:, :30])


def test_real_peaks_are_told_from_genes_and_their_types_are_near(data_dir: Path) -> None:
    adata = ad.read_h5ad(data_dir / "scatac_granja_hemato_14125.h5ad")[:2000].copy()
    model = scDiffAug(adata)
    assert model.feature_space == "peaks"
    as_genes = scDiffAug(adata, feature_space="counts")
    types = adata.obs["cell_type"].to_numpy()
    shares = []
    for each in (model, as_genes):
        batches, _ = training_cells(each._contract, adata, n_components=50, batch_size=512)
        shares.append((types[batches.walks.neighbors] == types[:, None]).mean())
    assert shares[0] > shares[1] + 0.02
