import sys
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import same_color, to_rgba
from matplotlib.figure import Figure
from small_cells import logs_of_no_counts

from scdiffaug import pl, scDiffAug
from scdiffaug._colours import GREY, HIGHLIGHT, OKABE_ITO

mpl.use("Agg")

HISTORY_KEYS = ["loss", "contrastive", "diffusion", "layout", "generated_share", "gradient_norm"]


@pytest.fixture(autouse=True)
def _close_figures() -> Any:
    yield
    plt.close("all")


class Plane:
    """A model of no features whose plane is what the cells have in obsm."""

    _contract = SimpleNamespace(var_names=())

    def get_latent_representation(self, cells: AnnData, *, representation: str) -> np.ndarray:
        assert representation == "projection"
        return np.asarray(cells.obsm["X_scdiffaug_2d"])


PLANE = Plane()


def make_cells(n_types: int = 3, n_cells: int = 120) -> AnnData:
    rng = np.random.default_rng(0)
    types = [f"type {code:02d}" for code in np.arange(n_cells) % n_types]
    obs = pd.DataFrame(
        {"cell_type": pd.Categorical(types), "depth": rng.normal(size=n_cells)},
        index=[f"cell{i}" for i in range(n_cells)],
    )
    adata = AnnData(rng.poisson(2.0, (n_cells, 3)).astype(np.float32), obs=obs)
    adata.obsm["X_scdiffaug_2d"] = rng.normal(size=(n_cells, 2))
    return adata


def legend_of(ax: Axes) -> dict[str, Any]:
    legend = ax.get_legend()
    assert legend is not None
    names = [text.get_text() for text in legend.get_texts()]
    return {
        name: handle.get_color() for name, handle in zip(names, legend.legend_handles, strict=True)
    }


def recorded(n_epochs: int = 4) -> Any:
    frames = {key: pd.DataFrame({key: np.arange(n_epochs)}) for key in HISTORY_KEYS}
    return SimpleNamespace(history={k: f.rename_axis("epoch") for k, f in frames.items()})


def test_few_categories_are_safe_for_colour_blind_readers() -> None:
    adata = make_cells(3)
    ax = pl.embedding(adata, color="cell_type", show=False)
    assert legend_of(ax) == dict(
        zip(adata.obs["cell_type"].cat.categories, OKABE_ITO, strict=False)
    )
    assert ax.get_title() == "cell_type"
    assert ax.get_xlabel() == "scDiffAug 1"


def test_genes_that_raw_alone_has_are_drawn() -> None:
    adata = make_cells(3)
    adata.raw = adata
    gene, few = adata.var_names[0], adata[:, 1:].copy()
    wanted, found = (pl.embedding(c, color=gene, show=False).collections[0] for c in (adata, few))
    np.testing.assert_array_equal(found.get_array(), wanted.get_array())


def test_cells_keep_their_place_and_take_the_colour_of_their_type() -> None:
    adata = make_cells(3)
    (cells,) = pl.embedding(adata, color="cell_type", show=False).collections
    assert cells.get_rasterized()
    drawn = {
        tuple(place): tuple(colour)
        for place, colour in zip(cells.get_offsets().tolist(), cells.get_facecolor(), strict=True)
    }
    for place, code in zip(
        adata.obsm["X_scdiffaug_2d"].tolist(), adata.obs["cell_type"].cat.codes, strict=True
    ):
        assert drawn[tuple(place)] == to_rgba(OKABE_ITO[code])


def test_sixty_categories_get_a_colour_each_and_several_columns_beside_the_cells() -> None:
    figure = pl.embedding(make_cells(60), color="cell_type", return_fig=True)
    (ax,) = figure.axes
    figure.canvas.draw()
    legend, cells = ax.get_legend(), ax.get_window_extent()
    assert len(set(legend_of(ax).values())) == 60
    box = legend.get_window_extent()
    assert cells.x1 < box.x0
    assert box.x1 <= figure.bbox.x1
    assert box.height <= figure.bbox.height
    assert cells.width == pytest.approx(cells.height, rel=0.01)
    assert cells.width > 0.7 * figure.bbox.height


def test_more_categories_than_any_palette_still_draw() -> None:
    adata = make_cells(110, n_cells=220)
    # A name for each cell or two is no legend, but makes a picture of metres.
    assert pl.embedding(adata, color="cell_type", show=False).get_legend() is None


@pytest.mark.parametrize(
    ("given", "is_used"),
    [
        (["red", "lime", "blue"], True),
        (["red", "lime"], False),
        (["red", "lime", "no colour"], False),
    ],
)
def test_colours_in_uns_are_used_only_where_they_fit(given: list[str], is_used: bool) -> None:
    adata = make_cells(3)
    adata.uns["cell_type_colors"] = given
    drawn = legend_of(pl.embedding(adata, color="cell_type", show=False)).values()
    assert list(drawn) == (given if is_used else list(OKABE_ITO[:3]))


@pytest.mark.parametrize(
    "palette",
    [
        ["red", "lime", "blue", "black"],
        {"type 02": "blue", "type 00": "red", "type 01": "lime", "none": "black"},
        pd.Series({"type 02": "blue", "type 00": "red", "type 01": "lime"}),
        "brg",
    ],
)
def test_a_palette_outdoes_colours_in_uns(palette: Any) -> None:
    adata = make_cells(3)
    adata.uns["cell_type_colors"] = ["black"] * 3
    drawn = legend_of(pl.embedding(adata, color="cell_type", palette=palette, show=False))
    is_map = isinstance(palette, str)
    wanted = ["blue", "#fe0100", "lime"] if is_map else ["red", "lime", "blue"]
    assert list(drawn) == ["type 00", "type 01", "type 02"]
    assert all(map(same_color, drawn.values(), wanted))


def test_new_cells_take_colours_of_the_palette_and_numbers_those_of_the_colormap() -> None:
    adata = make_cells(2)
    options: dict[str, Any] = {"model": PLANE, "show": False, "cmap": "magma"}
    palette = {0: "red", 1: "blue"}
    adata.obs["group"] = adata.obs["cell_type"].cat.rename_categories([0, 1])
    ax = pl.augmentation(adata, adata[:1], color="group", palette=palette, **options)
    assert same_color(ax.collections[1].get_edgecolors()[0], "red")
    ax = pl.augmentation(adata, adata[:1], color="depth", **options)
    lowest = ax.collections[0].get_facecolors()[0][:3]
    assert lowest == pytest.approx(mpl.colormaps["magma"](0)[:3])


def test_a_subset_keeps_the_colours_of_the_whole() -> None:
    adata = make_cells(3)
    adata.obs["cell_type"] = adata.obs["cell_type"].where(adata.obs["cell_type"] != "type 01")
    assert legend_of(pl.embedding(adata, color="cell_type", show=False)) == {
        "type 00": OKABE_ITO[0],
        "type 02": OKABE_ITO[2],
        "missing": GREY,
    }


def test_cells_without_a_category_lie_beneath_the_others() -> None:
    adata = make_cells()
    adata.obs.loc[adata.obs_names[::2], "cell_type"] = np.nan
    colours = pl.embedding(adata, color="cell_type", show=False).collections[0].get_facecolors()
    is_grey = [same_color(colour, GREY) for colour in colours]
    assert is_grey == [True] * 60 + [False] * 60


def test_text_and_booleans_are_categories() -> None:
    adata = make_cells(3)
    adata.obs["is_doublet"] = np.arange(adata.n_obs) % 2 == 0
    assert list(legend_of(pl.embedding(adata, color="is_doublet", show=False))) == [
        "False",
        "True",
    ]
    adata.obs["text"] = np.where(adata.obs["is_doublet"], "b", "a")
    assert list(legend_of(pl.embedding(adata, color="text", show=False))) == ["a", "b"]
    adata.obs["cluster"] = np.resize(["10", "2", "1"], adata.n_obs)
    assert list(legend_of(pl.embedding(adata, color="cluster", show=False))) == ["1", "2", "10"]


def test_a_column_of_mixed_types_is_of_texts_and_one_named_missing_keeps_its_colour() -> None:
    adata = make_cells(3)
    adata.obs["mixed"] = np.resize(np.array([1, "1", 2, None], dtype=object), adata.n_obs)
    shown = legend_of(pl.embedding(adata, color="mixed", show=False))
    assert list(shown) == ["1", "2", "missing"]
    adata.obs["gaps"] = np.resize(np.array(["missing", "there", None], dtype=object), adata.n_obs)
    assert legend_of(pl.embedding(adata, color="gaps", show=False)) == {
        "missing": OKABE_ITO[0],
        "there": OKABE_ITO[1],
        "missing values": GREY,
    }


@pytest.mark.parametrize("color", ["depth", "2"])
def test_numbers_and_features_get_viridis_and_a_colour_bar(color: str) -> None:
    adata = make_cells()
    adata.obs.loc["cell0", "depth"] = np.nan
    figure = pl.embedding(adata, color=color, return_fig=True)
    ax, bar = figure.axes
    values = adata.obs["depth"] if color == "depth" else pd.Series(adata.X[:, 2])
    assert bar.get_ylim() == pytest.approx((values.min(), values.max()))
    assert ax.get_legend() is None
    shades = ax.collections[0].get_facecolor()
    assert same_color(shades[-1], mpl.colormaps["viridis"](1.0))
    assert same_color(shades[0], GREY if color == "depth" else mpl.colormaps["viridis"](0.0))


def test_a_column_without_any_number_is_grey() -> None:
    adata = make_cells()
    adata.obs["depth"] = np.nan
    (cells,) = pl.embedding(adata, color="depth", show=False).collections
    assert same_color(cells.get_facecolor()[0], GREY)


def test_without_colour_there_is_no_legend() -> None:
    ax = pl.embedding(make_cells(), color=None, title="cells", show=False)
    assert ax.get_legend() is None
    assert ax.get_title() == "cells"


def test_a_basis_is_found_as_in_scanpy_and_may_have_more_dimensions() -> None:
    adata = make_cells()
    adata.obsm["X_pca"] = np.arange(adata.n_obs * 5.0).reshape(-1, 5)
    ax = pl.embedding(adata, color="cell_type", basis="pca", show=False)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("PC 1", "PC 2")
    assert {tuple(p) for p in ax.collections[0].get_offsets().tolist()} == {
        tuple(p) for p in adata.obsm["X_pca"][:, :2].tolist()
    }
    adata.obsm["X_one"] = adata.obsm["X_pca"][:, :1]
    with pytest.raises(ValueError, match=r"X_one has shape \(120, 1\): a plot needs two"):
        pl.embedding(adata, basis="X_one", show=False)


def test_a_missing_field_is_named_with_what_is_there() -> None:
    adata = make_cells()
    message = r"color='batch' not found in adata: its obs has \['cell_type', 'depth'\]"
    with pytest.raises(KeyError, match=message):
        pl.embedding(adata, color="batch", show=False)
    message = r"basis='X_umap' not found in adata.obsm: it has \['X_scdiffaug_2d'\]; run scdiff"
    with pytest.raises(KeyError, match=message):
        pl.embedding(adata, basis="X_umap", show=False)
    assert not plt.get_fignums()


def test_axes_and_size_are_honoured() -> None:
    figure, ax = plt.subplots()
    before = figure.get_size_inches().tolist()
    assert pl.embedding(make_cells(), ax=ax, size=7, show=False) is ax
    assert ax.collections[0].get_sizes() == [7]
    assert figure.get_size_inches().tolist() == before


@pytest.mark.parametrize(
    ("show", "prompt", "backend", "is_shown"),
    [
        (None, False, "inline", False),
        (None, True, "inline", True),
        (None, True, "agg", False),
        (True, False, "agg", True),
        (False, True, "inline", False),
    ],
)
def test_figures_are_shown_only_where_someone_looks(
    show: bool | None,
    prompt: bool,
    backend: str,
    is_shown: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[bool] = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(True))
    monkeypatch.setattr(plt, "get_backend", lambda: backend)
    monkeypatch.delattr(sys, "ps1", raising=False)
    if prompt:
        monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    result = pl.embedding(make_cells(), show=show)
    assert bool(shown) is is_shown
    assert (result is None) is is_shown
    assert isinstance(pl.embedding(make_cells(), show=True, return_fig=True), Figure)
    assert bool(shown) is is_shown


def test_history_has_a_panel_for_each_curve() -> None:
    axes = pl.history(recorded(), show=False)
    assert [ax.get_title().replace(" ", "_") for ax in axes] == HISTORY_KEYS
    assert len(axes[0].figure.axes) == len(HISTORY_KEYS)
    (line,) = axes[0].lines
    assert line.get_xydata().tolist() == [[i, i] for i in range(4)]


def test_history_draws_where_it_is_told() -> None:
    figure, (left, right) = plt.subplots(1, 2)
    assert pl.history(recorded(), keys=["diffusion"], ax=right, color="red") == [right]
    assert right.lines[0].get_color() == "red"
    assert not left.lines
    assert pl.history(recorded(), keys=["loss"], ax=left, return_fig=True) is figure
    with pytest.raises(ValueError, match="ax has 1 axes for 6 curves"):
        pl.history(recorded(), ax=left)


def test_no_keys_are_no_picture(pbmc: AnnData) -> None:
    model = scDiffAug(pbmc)
    model.train(1, enable_progress_bar=False)
    with pytest.raises(ValueError, match="There are no curves to draw"):
        pl.history(model, keys=[])
    with pytest.raises(ValueError, match="There are no keys to draw"):
        pl.gene_agreement(pbmc, pbmc, keys=[])


def test_history_errors_say_what_to_do(pbmc: AnnData) -> None:
    with pytest.raises(RuntimeError, match=r"no history: call model\.train\(\) first"):
        pl.history(scDiffAug(pbmc), show=False)
    with pytest.raises(KeyError, match=r"keys=\['kl'\] not found in model.history: it has \['los"):
        pl.history(recorded(), keys=["loss", "kl"], show=False)


def test_augmented_cells_are_rings_over_real_ones() -> None:
    real, made = make_cells(n_cells=60), make_cells(n_cells=30)
    ax = pl.augmentation(real, made, model=PLANE, show=False)
    filled, rings = ax.collections
    assert (len(filled.get_offsets()), len(rings.get_offsets())) == (60, 30)
    assert same_color(filled.get_facecolor()[0][:3], GREY)
    assert len(rings.get_facecolor()) == 0
    assert list(legend_of(ax)) == ["real", "augmented"]


def test_augmented_cells_take_the_colours_of_the_real_ones() -> None:
    real, made = make_cells(3), make_cells(3)
    made = made[made.obs["cell_type"] == "type 02"].copy()
    ax = pl.augmentation(real, made, model=PLANE, color="cell_type", show=False)
    assert list(legend_of(ax)) == ["real", "augmented", "type 00", "type 01", "type 02"]
    assert all(same_color(edge, OKABE_ITO[2]) for edge in ax.collections[1].get_edgecolor())


def test_swapped_cells_are_refused() -> None:
    adata = make_cells()
    new = adata.copy()
    new.obs["is_augmented"] = True
    with pytest.raises(ValueError, match="adata holds augmented cells, new does not"):
        pl.augmentation(new, adata, model=PLANE, show=False)


def test_cells_that_lack_what_is_shown_are_of_one_colour() -> None:
    real, made = make_cells(3), make_cells(3)
    made.obs = made.obs.drop(columns="cell_type")
    ax = pl.augmentation(real, made, model=PLANE, color="cell_type", show=False)
    assert list(legend_of(ax)) == ["real", "augmented", "type 00", "type 01", "type 02"]
    assert all(same_color(edge, HIGHLIGHT) for edge in ax.collections[1].get_edgecolor())
    made.obs["interpolation"] = np.linspace(0, 1, made.n_obs)
    ax = pl.augmentation(real, made, model=PLANE, color="interpolation", show=False)
    assert all(same_color(face[:3], GREY) for face in ax.collections[0].get_facecolor())
    edges = ax.collections[1].get_edgecolor()
    assert same_color(edges[0], mpl.colormaps["viridis"](0.0))
    with pytest.raises(KeyError, match="color='absent' not found"):
        pl.augmentation(real, made, model=PLANE, color="absent", show=False)


def test_names_are_not_drawn_on_a_scale_of_numbers() -> None:
    adata, new = make_cells(), make_cells(n_cells=10)
    new.obs["depth"] = "shallow"
    with pytest.raises(ValueError, match="color='depth' holds numbers in real cells and names in"):
        pl.augmentation(adata, new, model=PLANE, color="depth", show=False)


def test_augmented_cells_share_the_scale_of_the_real_ones() -> None:
    figure = pl.augmentation(
        make_cells(), make_cells(n_cells=9), model=PLANE, color="depth", return_fig=True
    )
    assert len(figure.axes) == 2
    assert list(legend_of(figure.axes[0])) == ["real", "augmented"]


def test_the_model_places_cells_that_have_no_embedding(pbmc: AnnData) -> None:
    model = scDiffAug(pbmc)
    model.is_trained_ = True  # its first weights place cells as well as any
    new = model.augment(indices=[0, 1, 2], steps=1)
    ax = pl.augmentation(pbmc, new, model=model, show=False)
    expected = model.get_latent_representation(new, representation="projection")
    np.testing.assert_allclose(ax.collections[1].get_offsets(), expected, rtol=1e-5)
    assert not pbmc.obsm
    assert not new.obsm


def test_both_sides_are_drawn_in_the_plane_of_the_model_not_in_one_that_was_stored(
    pbmc: AnnData,
) -> None:
    model = scDiffAug(pbmc)
    model.is_trained_ = True
    new = model.augment(indices=[0, 1, 2], steps=1)
    expected = model.get_latent_representation(pbmc, representation="projection")
    pbmc.obsm["X_scdiffaug_2d"] = expected[::-1] + 1
    ax = pl.augmentation(pbmc, new, model=model, show=False)
    drawn = np.asarray(ax.collections[0].get_offsets())
    np.testing.assert_allclose(np.sort(drawn, axis=0), np.sort(expected, axis=0), rtol=1e-4)


def test_plots_leave_their_data_unchanged() -> None:
    adata, new = make_cells(), make_cells(n_cells=12)
    before = adata.copy()
    for color in ("cell_type", "depth", "1", None):
        pl.embedding(adata, color=color, show=False)
        pl.augmentation(adata, new, model=PLANE, color=color, show=False)
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    np.testing.assert_array_equal(adata.X, before.X)
    np.testing.assert_array_equal(adata.obsm["X_scdiffaug_2d"], before.obsm["X_scdiffaug_2d"])
    assert not adata.uns


def test_a_gene_has_the_values_of_the_model_in_real_and_new_cells(pbmc: AnnData) -> None:
    """X holds logarithms in the real cells, counts in the new ones: both are told."""
    pbmc.layers["counts"] = pbmc.X.copy()
    sc.pp.normalize_total(pbmc, target_sum=1e4)
    sc.pp.log1p(pbmc)
    scDiffAug.setup_anndata(pbmc, layer="counts")
    model = scDiffAug(pbmc)
    model.train(max_epochs=1, enable_progress_bar=False)
    new = model.augment(steps=2)
    new.X = new.layers["counts"].copy()
    gene = new.var_names[0]
    ax = pl.augmentation(pbmc, new, model=model, color=gene, show=False)
    bar = ax.collections[0].colorbar if ax.collections[0].colorbar else ax.figure.axes[1]
    highest = np.asarray(pbmc[:, gene].X.max())
    assert bar.get_ylim()[1] == pytest.approx(float(highest), rel=1e-5)
    titles = [ax.get_title() for ax in pl.gene_agreement(pbmc, new, show=False)]
    of_counts = pl.gene_agreement(pbmc, new, layer="counts", show=False)
    assert titles == [ax.get_title() for ax in of_counts]
    pbmc.X = logs_of_no_counts(pbmc.layers["counts"])
    with pytest.raises(ValueError, match="adata holds 'log' values, and new counts"):
        pl.gene_agreement(pbmc, new, show=False)
