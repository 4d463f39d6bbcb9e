"""Plots of benchmark results and of genes."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import same_color
from matplotlib.figure import Figure

from scdiffaug import pl
from scdiffaug._colours import HIGHLIGHT, OKABE_ITO

mpl.use("Agg")


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def embeddings() -> pd.DataFrame:
    """Three methods on two datasets, two seeds; tsne failed on one of them."""
    scores = {
        ("a", "scdiffaug"): [0.8, 0.9],
        ("a", "umap"): [0.7, 0.7],
        ("a", "tsne"): [0.6, 0.6],
        ("b", "scdiffaug"): [0.5, 0.5],
        ("b", "umap"): [0.6, 0.6],
    }
    return pd.DataFrame(
        {
            "dataset": dataset,
            "method": method,
            "representation": representation,
            "seed": seed,
            "metric": metric,
            "value": value * factor,
        }
        for (dataset, method), values in scores.items()
        for seed, value in enumerate(values)
        for metric, factor in (("knn_accuracy", 1), ("silhouette", 0.5))
        for representation in ("2d", "80d")
    )


def made(settings: dict[str, str]) -> pd.DataFrame:
    """Scores of methods with these settings, the n-th of which scores n in sample."""
    return pd.DataFrame(
        {
            "dataset": "a",
            "setting": setting,
            "method": method,
            "seed": seed,
            "metric": metric,
            "type": "",
            "value": place + seed / 10,
            "settings": words,
        }
        for place, (method, words) in enumerate(settings.items())
        for setting in ("in_sample", "held_out")
        for metric in ("two_sample_auc", "mmd", "type_kept_neighbors")
        for seed in range(2)
    )


STEPS = {
    "scdiffaug": "steps=16 strength=1.0",
    "scdiffaug_steps_1": "steps=1 strength=1.0",
    "scdiffaug_strength_0.2": "steps=16 strength=0.2",
    "scdiffaug_strength_0.4": "steps=16 strength=0.4",
    "scdiffaug_ddim": "steps=4 strength=1.0 sampler=ddim",
    "real": "",
}


def y_names(ax: Axes) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def numbers(ax: Axes) -> list[list[str]]:
    texts = np.array([text.get_text() for text in ax.texts])
    return texts.reshape(len(y_names(ax)), -1).tolist()


def test_heatmap_of_metrics_is_in_the_mean_over_datasets_best_first() -> None:
    ax = pl.benchmark_heatmap(embeddings(), show=False)
    assert y_names(ax) == ["scdiffaug", "umap", "tsne"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["knn accuracy", "silhouette"]
    # (0.85 + 0.5) / 2 and (0.7 + 0.6) / 2, half of that; no mean where a method failed.
    assert numbers(ax) == [["0.68", "0.34"], ["0.65", "0.32"], ["–", "–"]]


def test_heatmap_of_a_metric_has_a_column_for_each_dataset() -> None:
    figure = pl.benchmark_heatmap(embeddings(), metric="knn_accuracy", return_fig=True)
    ax, bar = figure.axes
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "b", "mean"]
    assert numbers(ax) == [["0.85", "0.50", "0.68"], ["0.70", "0.60", "0.65"], ["0.60", "–", "–"]]
    # Columns are scaled one by one.
    shades = ax.images[0].get_array()
    np.testing.assert_allclose(shades[:, 0], [1, 0.4, 0])
    np.testing.assert_allclose(shades[:, 1].filled(-1), [0, 1, -1])
    assert y_names(bar) == ["worst", "best"]
    assert same_color(ax.get_yticklabels()[0].get_color(), HIGHLIGHT)
    assert same_color(ax.get_yticklabels()[1].get_color(), "black")


def test_heatmap_knows_where_low_is_good_and_puts_real_cells_first() -> None:
    values = {"scdiffaug": 0.01, "mixup": 0.03, "scvi_posterior": 0.2, "real": 0.0}
    rows = {"dataset": "a", "setting": "held_out", "metric": "mmd", "type": ""}
    results = pd.DataFrame({**rows, "method": m, "value": v} for m, v in values.items())
    per_type = results.assign(type="B cell", value=9.0)
    ax = pl.benchmark_heatmap(pd.concat([results, per_type]), show=False)
    assert y_names(ax) == ["real", "scdiffaug", "mixup", "scvi_posterior"]
    assert numbers(ax)[0] == ["0"]
    np.testing.assert_allclose(ax.images[0].get_array()[:, 0], [1, 1, 17 / 19, 0])


def test_results_that_were_read_from_a_file_are_drawn_the_same(tmp_path: Any) -> None:
    results = made(STEPS)
    results.to_csv(tmp_path / "results.csv", index=False)
    read = pd.read_csv(tmp_path / "results.csv")
    drawn, again = (pl.benchmark_heatmap(each, show=False) for each in (results, read))
    assert numbers(drawn) == numbers(again)
    curves, again = (pl.benchmark_quality(each, show=False) for each in (results, read))
    assert curves[0].lines[0].get_xdata().tolist() == again[0].lines[0].get_xdata().tolist()


def test_many_methods_and_datasets_get_the_room_they_need() -> None:
    one = embeddings()
    many = pd.concat(
        one.assign(dataset=one["dataset"] + str(i), method=one["method"] + f"_{i}")
        for i in range(10)
    )
    figure = pl.benchmark_heatmap(many, metric="knn_accuracy", return_fig=True)
    figure.canvas.draw()
    ax = figure.axes[0]
    boxes = [text.get_window_extent() for text in ax.texts[:21]]
    assert all(left.x1 <= right.x0 for left, right in pairwise(boxes))
    assert boxes[0].height < ax.bbox.height / len(y_names(ax))
    assert figure.get_tightbbox().width <= figure.get_size_inches()[0] + 0.1


def test_ranks_are_per_dataset_and_the_mean_is_a_bar() -> None:
    ax = pl.benchmark_ranks(embeddings(), metric="knn_accuracy", color="blue", show=False)
    assert y_names(ax) == ["tsne", "scdiffaug", "umap"]
    drawn = {
        y_names(ax)[place]: (points.get_xdata().tolist(), bar.get_xdata())
        for place, (points, bar) in enumerate(zip(ax.lines[::2], ax.lines[1::2], strict=True))
    }
    assert drawn == {"tsne": ([3], [3]), "umap": ([2, 1], [1.5]), "scdiffaug": ([1, 2], [1.5])}
    assert [line.get_color() for line in ax.lines[::2]] == ["blue", HIGHLIGHT, "blue"]


def test_real_cells_have_no_rank() -> None:
    ax = pl.benchmark_ranks(made(STEPS), metric="mmd", show=False)
    assert "real" not in y_names(ax)
    assert y_names(ax)[-1] == "scdiffaug"


@pytest.mark.parametrize(
    ("along", "values"), [("steps", [1.0, 16.0]), ("strength", [0.2, 0.4, 1.0])]
)
def test_quality_takes_the_methods_of_its_axis_alone(along: Any, values: list[float]) -> None:
    axes = pl.benchmark_quality(made(STEPS), along=along, show=False)
    assert [ax.get_title() for ax in axes] == ["two sample auc", "mmd", "type kept neighbors"]
    in_sample, held_out, floor = axes[0].lines
    assert in_sample.get_xdata().tolist() == held_out.get_xdata().tolist() == values
    place = list(STEPS).index("scdiffaug_strength_0.2")
    expected = {"steps": [1.05, 0.05], "strength": [place + 0.05, place + 1.05, 0.05]}[along]
    np.testing.assert_allclose(in_sample.get_ydata(), expected)
    np.testing.assert_allclose(floor.get_ydata(), list(STEPS).index("real") + 0.05)
    band = axes[0].collections[0].get_datalim(axes[0].transData)
    assert band.ymin == pytest.approx(0.05 - np.std([0, 0.1], ddof=1))


def test_the_legend_of_many_datasets_is_beside_the_panels() -> None:
    results = pd.concat(made(STEPS).assign(dataset=f"dataset {i}") for i in range(20))
    figure = pl.benchmark_quality(results, return_fig=True)
    figure.canvas.draw()
    last = figure.axes[-1]
    box = last.get_legend().get_window_extent()
    assert last.bbox.x1 < box.x0
    assert box.x1 <= figure.bbox.x1
    assert box.height <= figure.bbox.height
    names = [text.get_text() for text in last.get_legend().get_texts()]
    assert names[-4:] == ["dataset 19", "in sample", "held out", "real"]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: pl.benchmark_heatmap({}), TypeError, "results must be of type DataFrame, found"),
        (
            lambda: pl.benchmark_heatmap(embeddings().drop(columns="value")),
            KeyError,
            "column 'value' not found in results: they have",
        ),
        (
            lambda: pl.benchmark_heatmap(embeddings(), setting="3d"),
            KeyError,
            r"setting='3d' not found in results: they have \['2d', '80d'\]",
        ),
        (
            lambda: pl.benchmark_ranks(embeddings(), metric="mmd"),
            KeyError,
            r"metric='mmd' not found in results: they have \['knn_accuracy', 'silhouette'\]",
        ),
        (
            lambda: pl.benchmark_ranks(embeddings().assign(metric="own"), metric="own"),
            KeyError,
            "metric='own' is unknown: use one of",
        ),
        (
            lambda: pl.benchmark_heatmap(
                made({"scdiffaug": ""}).assign(metric="zero_share"), metric="zero_share"
            ),
            KeyError,
            "metric='zero_share' is judged by the method 'real', which has no scores",
        ),
        (
            lambda: pl.benchmark_quality(embeddings()),
            KeyError,
            "column 'setting' not found in results",
        ),
        (
            lambda: pl.benchmark_quality(made({"scdiffaug": STEPS["scdiffaug"]})),
            ValueError,
            "results have 1 values of steps, but a curve needs two",
        ),
        (
            lambda: pl.benchmark_quality(made(STEPS), along="depth"),
            ValueError,
            "along='depth' is unknown: use 'steps' or 'strength'",
        ),
        (
            lambda: pl.benchmark_quality(made(STEPS), metrics="mmd"),
            TypeError,
            r"metrics='mmd' must be a list of names: pass \['mmd'\]",
        ),
        (
            lambda: pl.benchmark_quality(made(STEPS), ax=plt.figure().subplots()),
            ValueError,
            "ax has 1 axes for 3 metrics: pass one for each",
        ),
        (
            lambda: pl.benchmark_ranks(embeddings(), metric="silhouette", ax="here"),
            TypeError,
            "ax must be of type Axes, found str",
        ),
    ],
)
def test_errors_say_what_is_there(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_results_are_drawn_where_they_are_told() -> None:
    figure, axes = plt.subplots(2, 3)
    assert pl.benchmark_heatmap(embeddings(), ax=axes[0, 0]) is axes[0, 0]
    assert pl.benchmark_ranks(embeddings(), metric="silhouette", ax=axes[0, 1]) is axes[0, 1]
    assert pl.benchmark_quality(made(STEPS), ax=axes[1]) == list(axes[1])
    assert pl.benchmark_quality(made(STEPS), ax=axes[1], return_fig=True) is figure


def named(x: Any, names: str = "abcd") -> AnnData:
    return AnnData(
        np.asarray(x, dtype=np.float32), var=pd.DataFrame(index=list(names[: np.shape(x)[1]]))
    )


def test_genes_are_compared_by_name_whatever_their_order() -> None:
    real = named([[0.5, 1, 2, 3], [0, 2, 2, 6.5]])
    new = named([[4.5, 3, 2, 0], [6, 2, 0, 0.5]], "dcba")[:, ["d", "b", "c", "a"]]
    mean, variance, zeros = pl.gene_agreement(real, new, n_names=1, show=False)
    points = mean.collections[0].get_offsets().tolist()
    assert points == [[0.25, 0.25], [1.5, 1], [2, 2.5], [4.75, 5.25]]
    assert variance.get_title().startswith("variance, r = ")
    assert zeros.get_title().startswith("zeros, difference ")
    assert mean.collections[0].get_rasterized()


def test_the_genes_furthest_from_the_line_are_named() -> None:
    real, new = named([[0.5, 1, 2, 3]] * 2), named([[0.5, 1.25, 2, 1]] * 2)
    (ax,) = pl.gene_agreement(real, new, keys=["mean"], n_names=2, show=False)
    assert ax.texts[0].get_text() == "d\nb"
    assert ax.collections[1].get_offsets().tolist() == [[3, 1], [1, 1.25]]
    (ax,) = pl.gene_agreement(real, new, keys=["mean"], n_names=0, show=False)
    assert not ax.texts[0].get_text()


def test_new_cells_are_compared_with_their_sources_each_as_often_as_it_was_one() -> None:
    real = named([[0.5, 1, 2, 3], [6.5, 4, 0, 1], [9, 9, 9, 9]])
    real.obs_names = ["a", "b", "of another type"]
    new = named(real.X[[0, 0, 1]])
    new.obs["source_obs_name"] = ["a", "a", "b"]
    (ax,) = pl.gene_agreement(real, new, keys=["mean"], show=False)
    x, y = ax.collections[0].get_offsets().T
    np.testing.assert_array_equal(x, y)
    # By chance, a name of another sample may be there; and one cell has no variance.
    for names in (["a", "b", "unknown"], ["a", "a", "a"]):
        new.obs["source_obs_name"] = names
        (ax,) = pl.gene_agreement(real, new, keys=["mean"], show=False)
        assert ax.collections[0].get_offsets()[:, 0].max() > 5


def test_the_scale_is_that_of_all_real_cells_whatever_the_sources() -> None:
    """Some intensities are below 30, as logarithms are, and so may those of all sources be."""
    real = named([[0.5, 1, 2, 3], [6.5, 4, 0.5, 1], [900, 90, 9, 9]])
    real.obs_names = ["a", "b", "bright"]
    new = named(real.X[:2] + 0.25)
    new.obs["source_obs_name"] = ["a", "b"]
    (ax,) = pl.gene_agreement(real, new, keys=["mean"], show=False)
    x, y = ax.collections[0].get_offsets().T
    np.testing.assert_allclose(x, np.arcsinh(real.X[:2] / 5).mean(0), rtol=1e-5)
    np.testing.assert_allclose(y, np.arcsinh(new.X / 5).mean(0), rtol=1e-5)
    logarithms = real[:2].copy()
    with pytest.raises(ValueError, match="new must hold 'log' values, as adata does"):
        pl.gene_agreement(logarithms, named(new.X + 31), show=False)


def test_depth_moves_no_gene_of_counts() -> None:
    real = named([[1, 2, 3, 0], [2, 0, 1, 4]])
    deep = named(10 * real.X)
    mean, variance, zeros = pl.gene_agreement(real, deep, show=False)
    for ax in (mean, variance, zeros):
        x, y = ax.collections[0].get_offsets().T
        np.testing.assert_allclose(x, y, rtol=1e-5)
    assert mean.get_title() == "mean, r = 1.000"
    assert zeros.get_title() == "zeros, difference 0.000"


def test_gene_plots_say_what_does_not_fit() -> None:
    counts, fractions = named([[1, 2, 3, 4]] * 2), named([[0.5, 1, 2, 3]] * 2)
    with pytest.raises(ValueError, match="lacks 1 of"):
        pl.gene_agreement(counts, counts[:, :3])
    with pytest.raises(ValueError, match="needs whole numbers, found fractions"):
        pl.gene_agreement(counts, fractions)
    with pytest.raises(ValueError, match="keys='median' is unknown: use 'mean'"):
        pl.gene_agreement(counts, counts, keys=["median"])
    with pytest.raises(TypeError, match="new must be of type AnnData, found ndarray"):
        pl.gene_agreement(counts, counts.X)
    with pytest.raises(KeyError, match="layer='logs' not found"):
        pl.gene_agreement(counts, counts, layer="logs")
    assert not plt.get_fignums()


def test_gene_plots_follow_the_conventions() -> None:
    real = named([[1, 2, 3, 0], [2, 0, 1, 4]])
    before = real.copy()
    _, (left, right) = plt.subplots(1, 2)
    drawn = pl.gene_agreement(real, real, keys=["mean", "variance"], ax=[left, right])
    assert drawn == [left, right]
    assert same_color(left.collections[0].get_facecolor()[0], OKABE_ITO[0])
    assert isinstance(pl.gene_agreement(real, real, return_fig=True), Figure)
    np.testing.assert_array_equal(real.X, before.X)
