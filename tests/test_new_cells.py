"""Whatever is asked for: new cells follow their sources, and survive their file."""

import tempfile
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import Bench
from scipy import sparse

from scdiffaug import scDiffAug

FEW = settings(derandomize=True, deadline=None, max_examples=8, database=None)
WISHES = st.fixed_dictionaries(
    {"strength": st.floats(0.05, 1), "seed": st.integers(0, 2**32 - 1)},
    optional={
        "depth": st.sampled_from(["source", "sampled", 30]),
        "keep": st.sampled_from(["all", "consistent"]),
        "n_per_cell": st.integers(1, 3),
    },
)


def _values(new: AnnData) -> np.ndarray:
    return new.X.toarray() if sparse.issparse(new.X) else new.X


@FEW
@given(rows=st.lists(st.integers(0, 59), min_size=1, unique=True), strength=st.floats(0.05, 1))
def test_selecting_before_and_after_are_the_same(
    bench: Bench, rows: list[int], strength: float
) -> None:
    named = bench.model.augment(indices=rows, strength=strength, steps=2)
    selected = bench.model.augment(bench.adata[rows].copy(), strength=strength, steps=2)
    assert list(named.obs_names) == list(selected.obs_names)
    pd.testing.assert_frame_equal(named.obs, selected.obs)
    np.testing.assert_array_equal(_values(named).sum(1), _values(selected).sum(1))
    # A matrix product rounds a row by where it stands, which may turn a draw.
    assert (_values(named) == _values(selected)).mean() > 0.98


@FEW
@given(order=st.permutations(range(40)))
def test_the_order_of_genes_makes_the_same_cells(bench: Bench, order: list[int]) -> None:
    new = bench.model.augment(steps=2)
    permuted = bench.model.augment(bench.adata[:, order].copy(), steps=2)
    assert list(permuted.var_names) == list(bench.adata.var_names)
    np.testing.assert_array_equal(_values(permuted), _values(new))


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix])
@FEW
@given(wishes=WISHES)
def test_new_cells_write_and_read_back_equal(
    bench: Bench, container: type, wishes: dict[str, object]
) -> None:
    source = bench.adata.copy()
    source.X = container(source.X.toarray())
    source.obs_names = [f"细胞 {place}" for place in range(60)]
    new = bench.model.augment(source, steps=2, **wishes)
    assert sparse.issparse(new.X) == sparse.issparse(source.X)
    with tempfile.TemporaryDirectory() as folder:
        new.write_h5ad(Path(folder) / "new.h5ad")
        back = ad.read_h5ad(Path(folder) / "new.h5ad")
    np.testing.assert_array_equal(_values(back), _values(new))
    pd.testing.assert_frame_equal(back.obs, new.obs)
    pd.testing.assert_frame_equal(back.var, new.var)
    assert list(back.layers) == ["log1p_norm"]
    assert dict(back.uns["scdiffaug"]) == new.uns["scdiffaug"]


def test_two_cells_are_enough_to_run() -> None:
    cells = AnnData(np.random.default_rng(0).poisson(3.0, (2, 9)).astype(np.float32))
    model = scDiffAug(cells, n_semantic=8, n_neighbors=1)
    model.train(2, enable_progress_bar=False)
    assert np.isfinite(model.get_latent_representation()).all()
    np.testing.assert_array_equal(model.augment(steps=2).X.sum(1), cells.X.sum(1))


def test_new_cells_keep_the_colours_of_groups_and_the_name_of_the_index(pbmc: AnnData) -> None:
    pbmc.obs.index.name = "barcode"
    colours = [f"#0000{n:02d}" for n in range(pbmc.obs["cell_type"].nunique())]
    pbmc.uns["cell_type_colors"], pbmc.uns["phase_colors"] = colours, ["#000000"]
    model = scDiffAug(pbmc)
    model.is_trained_ = True
    new = model.augment(steps=1)
    assert new.obs.index.name == "barcode"
    assert list(new.obs["cell_type"].cat.categories) == list(pbmc.obs["cell_type"].cat.categories)
    assert new.uns["cell_type_colors"] == colours
    # Of other categories than there are.
    assert "phase_colors" not in new.uns


def test_groups_without_new_cells_are_no_categories(pbmc: AnnData, tmp_path: Path) -> None:
    """As of a subset of cells; scanpy stops at groups that have none."""
    names = list(pbmc.obs["cell_type"].cat.categories)
    pbmc.uns["cell_type_colors"] = [f"#0000{n:02d}" for n in range(len(names))]
    model = scDiffAug(pbmc)
    model.train(max_epochs=1, enable_progress_bar=False)
    wishes = {"groupby": "cell_type", "target": {names[1]: 200, names[4]: 200}, "steps": 1}
    for new in (model.augment(**wishes), model.augment(**wishes, path=tmp_path / "new.h5ad")):
        assert list(new.obs["cell_type"].cat.categories) == [names[1], names[4]]
        assert list(new.uns["cell_type_colors"]) == ["#000001", "#000004"]
    assert len(pbmc.obs["cell_type"].cat.categories) == len(names)


def test_ordered_groups_keep_their_order_beside_the_real_cells(pbmc: AnnData) -> None:
    stages = ["early", "middle", "late"]
    pbmc.obs["stage"] = pd.Categorical(np.resize(stages, 700), stages, ordered=True)
    model = scDiffAug(pbmc)
    model.train(max_epochs=1, enable_progress_bar=False)
    new = model.augment(groupby="stage", target={"early": 300}, steps=1)
    together = ad.concat([pbmc, new])
    assert list(together.obs["stage"].cat.categories) == stages
    assert together.obs["stage"].cat.ordered


def test_new_cells_of_new_cells_are_written_too(pbmc: AnnData, tmp_path: Path) -> None:
    """Their sources' names are text here, and categories in the file."""
    model = scDiffAug(pbmc)
    model.train(max_epochs=1, enable_progress_bar=False)
    new = model.augment(indices=range(30), steps=1, n_per_cell=3)
    again = model.augment(new, steps=1, n_per_cell=2, path=tmp_path / "new.h5ad")
    assert again.n_obs == 180


def test_an_index_that_is_a_column_too_is_written(pbmc: AnnData, tmp_path: Path) -> None:
    """As pandas leaves it after ``set_index(..., drop=False)``; new cells have other names."""
    pbmc.obs["barcode"] = pbmc.obs_names
    pbmc.obs.index.name = "barcode"
    model = scDiffAug(pbmc)
    model.train(max_epochs=1, enable_progress_bar=False)
    new = model.augment(steps=1, indices=[0, 1])
    new.write_h5ad(tmp_path / "new.h5ad")
    assert new.obs["barcode"].tolist() == pbmc.obs_names[:2].tolist()
    on_disk = model.augment(steps=1, indices=[0, 1], path=tmp_path / "blocks.h5ad")
    assert list(on_disk.obs_names) == list(new.obs_names)


def test_categories_without_cells_stay_if_anndata_is_told_so(pbmc: AnnData) -> None:
    model = scDiffAug(pbmc)
    model.train(max_epochs=1, enable_progress_bar=False)
    with ad.settings.override(remove_unused_categories=False):
        new = model.augment(steps=1, indices=[0])
    assert list(new.obs["cell_type"].cat.categories) == list(pbmc.obs["cell_type"].cat.categories)
