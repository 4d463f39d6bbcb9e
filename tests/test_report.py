"""The report on new cells: what it finds, and the page it writes."""

import html
import json
import re
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
from anndata import AnnData
from small_cells import logs_of_no_counts

import scdiffaug
from scdiffaug import _verdicts, metrics, report, scDiffAug

QUICK = {"max_epochs": 3, "enable_progress_bar": False}
FEW = {"max_cells": 100}
UNLABELLED = {
    *("two_sample_auc", "gene_means", "gene_variances", "zero_share", "detected_genes", "depth"),
    *("nearest_distance", "near_copies", "exact_copies", "own_source", "repeats"),
    "gene_correlations",
}


@pytest.fixture(scope="module")
def trained() -> scDiffAug:
    model = scDiffAug(scdiffaug.datasets.pbmc68k_reduced())
    model.train(**QUICK)
    return model


@pytest.fixture(scope="module")
def new(trained: scDiffAug) -> AnnData:
    return trained.augment()


@pytest.fixture(autouse=True)
def small_forest(monkeypatch: pytest.MonkeyPatch) -> None:
    forest = partial(metrics.two_sample_auc, n_trees=30)
    monkeypatch.setattr("scdiffaug.report.metrics.two_sample_auc", forest)


def made_from(trained: scDiffAug, x: object) -> AnnData:
    """Cells that say they were made from the model's, with values of our own."""
    cells = AnnData(x, obs=trained.adata.obs.copy(), var=trained.adata.var.copy())
    cells.obs["source_obs_name"] = trained.adata.obs_names
    return cells


def test_every_check_stands_beside_what_real_cells_reach(trained: scDiffAug, new: AnnData) -> None:
    found = trained.augmentation_report(new, **FEW)
    assert set(found["checks"]) == UNLABELLED
    assert found["n_cells"] == 100
    for check in found["checks"].values():
        assert check["verdict"] in ("good", "look", "worry")
        assert np.isfinite([check["value"], check["real"]]).all()
        assert check["words"]
    assert abs(found["checks"]["two_sample_auc"]["real"] - 0.5) < 0.15
    assert found["made_with"]["sampler"] == "thicken"
    json.dumps(found)


def test_labels_add_the_groups(trained: scDiffAug, new: AnnData) -> None:
    found = trained.augmentation_report(new, groupby="cell_type", max_cells=200)
    assert set(found["checks"]) == {*UNLABELLED, "group_kept"}
    dendritic = found["groups"]["Dendritic"]
    assert 0 <= dendritic["value"] <= 1
    assert dendritic["n_cells"] > 10
    assert "Dendritic" in found["html"]
    with pytest.raises(KeyError, match="groupby='nothing' not found"):
        trained.augmentation_report(new, groupby="nothing")


def test_copies_are_found_out(trained: scDiffAug) -> None:
    checks = trained.augmentation_report(made_from(trained, trained.adata.X.copy()))["checks"]
    for name in ("nearest_distance", "near_copies", "exact_copies", "own_source"):
        assert checks[name]["verdict"] == "worry", name
    assert checks["exact_copies"]["value"] == checks["own_source"]["value"] == 1
    for name in ("zero_share", "depth", "gene_means", "gene_variances", "two_sample_auc"):
        assert checks[name]["verdict"] == "good", name


def test_cells_without_zeros_are_found_out(trained: scDiffAug) -> None:
    smooth = np.rint(trained.adata.X.toarray().mean(0, keepdims=True) + np.ones((700, 1)))
    checks = trained.augmentation_report(made_from(trained, smooth), **FEW)["checks"]
    for name in ("zero_share", "two_sample_auc", "detected_genes", "gene_variances"):
        assert checks[name]["verdict"] == "worry", name
    assert "too few zeros" in checks["zero_share"]["words"]
    assert "too smooth" in checks["gene_variances"]["words"]


def test_genes_that_vary_alone_are_found_out(trained: scDiffAug) -> None:
    rng, real = np.random.default_rng(0), trained.adata
    alone = real.X.toarray()
    for cells in real.obs.groupby("cell_type", observed=True).indices.values():
        alone[cells] = rng.permuted(alone[cells], axis=0)
    found = trained.augmentation_report(made_from(trained, alone))["checks"]
    assert found["gene_correlations"]["verdict"] == "good", "most is between types"
    within = partial(trained.augmentation_report, made_from(trained, alone), groupby="cell_type")
    assert within()["checks"]["gene_correlations"]["verdict"] == "worry"
    assert "do not correlate alike" in within(max_cells=30)["skipped"]["gene_correlations"]


def test_other_depth_is_seen(trained: scDiffAug) -> None:
    checks = trained.augmentation_report(trained.augment(depth=100, steps=2), **FEW)["checks"]
    assert checks["depth"]["verdict"] == "worry"
    assert "depth=..." in checks["depth"]["words"]


def test_balanced_cells_are_compared_with_their_own_sources(trained: scDiffAug) -> None:
    model = trained
    new = model.augment(groupby="cell_type", target=150, steps=4)
    rare = model.augmentation_report(made_from_sources(model, new), **FEW)["checks"]
    # Real cells under new names: a different mixture of types must not look like bad cells.
    assert rare["two_sample_auc"]["verdict"] == "good"
    assert rare["gene_means"]["verdict"] == "good"


def made_from_sources(model: scDiffAug, new: AnnData) -> AnnData:
    sources = model.adata[new.obs["source_obs_name"]]
    return AnnData(sources.X.copy(), obs=new.obs.copy(), var=model.adata.var.copy())


def test_same_seed_same_report(trained: scDiffAug, new: AnnData) -> None:
    first, again, other = (
        trained.augmentation_report(new, seed=seed, **FEW)["checks"] for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_cells_of_unknown_source_are_compared_as_a_whole(
    trained: scDiffAug, new: AnnData, caplog: pytest.LogCaptureFixture
) -> None:
    assert "that they were not made from" in trained.augmentation_report(new, **FEW)["html"]
    unknown = new.copy()
    unknown.obs["source_obs_name"] = "someone"
    with caplog.at_level("WARNING", logger="scdiffaug"):
        found = trained.augmentation_report(unknown, **FEW)
    assert set(found["checks"]) == UNLABELLED - {"own_source"}
    assert "names no cells" in found["skipped"]["own_source"]
    assert "names no cells" in found["html"]
    assert "that they were not made from" not in found["html"]
    n = new.n_obs
    assert f"source_obs_name of {n} of {n} new cells names none of the real cells" in caplog.text
    caplog.clear()
    # Cells that say nothing of their sources are not told that they name wrong ones.
    del unknown.obs["source_obs_name"]
    with caplog.at_level("WARNING", logger="scdiffaug"):
        assert "own_source" in trained.augmentation_report(unknown, **FEW)["skipped"]
    assert caplog.text == ""


def test_sources_that_are_not_there_are_said(
    trained: scDiffAug, caplog: pytest.LogCaptureFixture
) -> None:
    new = trained.augment(indices=range(300), steps=1)
    names = new.obs["source_obs_name"].astype(str).to_numpy()
    names[:20] = "someone"
    new.obs["source_obs_name"] = names
    with caplog.at_level("WARNING", logger="scdiffaug"):
        trained.augmentation_report(new, **FEW)
    assert "source_obs_name of 20 of 300 new cells names none of the real cells" in caplog.text


def test_held_out_cells_are_the_yardstick(trained: scDiffAug, new: AnnData) -> None:
    held_out = scdiffaug.datasets.pbmc68k_reduced()
    held_out.X = held_out.X * 3
    held_out.obs_names = [f"other-{name}" for name in held_out.obs_names]
    checks = trained.augmentation_report(new, held_out=held_out, **FEW)["checks"]
    assert checks["depth"]["real"] > 0.5


def test_log_values_have_no_depth(pbmc: AnnData) -> None:
    log = pbmc.copy()
    log.X = logs_of_no_counts(log.X)
    model = scDiffAug(log)
    model.train(**QUICK)
    checks = model.augmentation_report(model.augment(steps=2), **FEW)["checks"]
    assert set(checks) == UNLABELLED - {"depth"}


def test_signed_values_have_no_zeros_to_count() -> None:
    x = np.random.default_rng(0).normal(np.linspace(-2, 2, 12), size=(120, 12))
    model = scDiffAug(AnnData(x.astype(np.float32)))
    model.train(**QUICK)
    found = model.augmentation_report(model.augment(steps=2))
    without = {"depth", "zero_share", "detected_genes", "gene_correlations"}
    assert set(found["checks"]) == UNLABELLED - without
    assert "do not correlate alike" in found["skipped"]["gene_correlations"], "drawn independently"


def test_rare_groups_are_told_and_those_that_cannot_be_are_left_out(
    trained: scDiffAug, new: AnnData
) -> None:
    strayed = trained.augment(groupby="cell_type", target=60, strength=0.1)
    is_rare = (strayed.obs["cell_type"] == "CD34+").to_numpy()
    found = trained.augmentation_report(strayed, groupby="cell_type")["groups"]
    assert found["CD34+"]["value"] > 0.5
    assert found["CD34+"]["n_new"] == is_rare.sum()
    others = new[(new.obs["cell_type"] == "CD14+ Monocyte").to_numpy()]
    x = strayed.X.toarray()
    x[is_rare] = others.X[: is_rare.sum()].toarray()
    strayed.X = x
    report = trained.augmentation_report(strayed, groupby="cell_type")
    assert report["groups"]["CD34+"]["value"] < 0.2
    assert "Of the new cells of 'CD34+' only" in report["worries"][-1]
    assert html.escape(report["worries"][-1]) in report["html"]
    assert report["n_new"] == strayed.n_obs
    told = [name for name, of in report["groups"].items() if of["value"] is not None]
    assert all(report["groups"][name]["real"] >= 0.5 for name in told)
    untold = [name for name in report["groups"] if name not in told]
    assert report["skipped"]["groups"].startswith(f"{', '.join(untold)}: of each too few real")


def test_interpolated_cells_are_no_sample(trained: scDiffAug) -> None:
    between = trained.interpolate(start=0, end=1, n_cells=30, steps=1)
    with pytest.raises(ValueError, match="new holds interpolated cells"):
        trained.augmentation_report(between)


def test_too_few_cells_are_refused(trained: scDiffAug) -> None:
    few = trained.augment(indices=range(30), steps=2)
    with pytest.raises(
        ValueError, match=r"20 cells a side or more, found 15: 15 new cells of different sources"
    ):
        trained.augmentation_report(few)


class Page(HTMLParser):
    """Collects what a page would load, and checks that its tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_whole_and_loads_nothing(trained: scDiffAug, new: AnnData, tmp_path: Path) -> None:
    target = tmp_path / "reports" / "mine.html"
    found = trained.augmentation_report(new, path=target, **FEW)
    text = target.read_text("utf-8")
    assert text == found["html"]
    assert [path.name for path in target.parent.iterdir()] == ["mine.html"]
    page = Page()
    page.feed(text)
    assert page.open == []
    assert len(page.loaded) == 1
    assert page.loaded[0].startswith("data:image/png;base64,")
    assert not re.search(r"https?://|@import|url\(|<script|<link", text)
    for words in found["worries"]:
        assert html.escape(words) in text


def test_names_of_groups_cannot_break_the_page(trained: scDiffAug, new: AnnData) -> None:
    real, made = trained.adata.copy(), new.copy()
    for cells in (real, made):
        cells.obs["group"] = np.where(cells.obs["cell_type"] == "Dendritic", "<script>", "a & b")
    page = trained.augmentation_report(made, real, groupby="group", **FEW)["html"]
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "a &amp; b" in page


def test_every_rule_has_words_for_what_can_happen() -> None:
    for name, rule in _verdicts.RULES.items():
        for value, real in ((0.01, 0.9), (5.0, 0.9)):
            check = _verdicts.judge(name, value, real)
            assert check.words, (name, value)
        assert rule.limits[0] < rule.limits[1]


def test_a_forest_that_is_wrong_more_often_than_by_chance_tells_of_copies() -> None:
    check = _verdicts.judge("two_sample_auc", 0.06, 0.49)
    assert check.verdict == "worry"
    assert "nearly the same" in check.words
    assert _verdicts.judge("two_sample_auc", 0.44, 0.49).verdict == "good"
    assert _verdicts.judge("two_sample_auc", 0.56, 0.49).verdict == "good"


def test_scores_that_cannot_be_had_are_skipped_with_the_reason() -> None:
    def undefined() -> tuple[float, float]:
        raise ValueError("too few cells")

    scores = {"depth": lambda: (1.0, 1.0), "zeros": undefined, "mmd": lambda: (float("nan"), 0.0)}
    checks, skipped = report._judged(scores)
    assert checks.keys() == {"depth"}
    assert skipped == {"zeros": "too few cells", "mmd": "It is not defined for these cells."}


def test_means_that_say_nothing_are_skipped(pbmc: AnnData) -> None:
    """Of centred genes: halves of the cells have means that are not alike."""
    sc.pp.normalize_total(pbmc)
    sc.pp.log1p(pbmc)
    pbmc.X = pbmc.X.toarray()
    sc.pp.scale(pbmc)
    model = scDiffAug(pbmc)
    model.train(**QUICK)
    found = model.augmentation_report(model.augment(), **FEW)
    assert "gene_means" not in found["checks"]
    assert "as where genes are centred" in found["skipped"]["gene_means"]


def test_repeats_are_found_wherever_they_come_from(trained: scDiffAug, new: AnnData) -> None:
    twice = sc.concat([new, trained.augment()], index_unique="-")
    check = trained.augmentation_report(twice, **FEW)["checks"]["repeats"]
    assert (check["value"], check["verdict"]) == (1, "worry")
    other = sc.concat([new, trained.augment(seed=1)], index_unique="-")
    check = trained.augmentation_report(other, **FEW)["checks"]["repeats"]
    assert check["verdict"] == "good"


def test_swapped_cells_are_refused(trained: scDiffAug, new: AnnData) -> None:
    with pytest.raises(ValueError, match="pass the new cells first"):
        trained.augmentation_report(trained.adata, new)


def test_held_out_cells_that_are_known_are_said(
    trained: scDiffAug, new: AnnData, caplog: pytest.LogCaptureFixture
) -> None:
    held_out = trained.adata[:40].copy()
    held_out.obs_names = [
        f"new {k}" if k % 2 else name for k, name in enumerate(held_out.obs_names)
    ]
    trained.augmentation_report(new, held_out=held_out, **FEW)
    assert "20 of 40 held-out cells are real cells" in caplog.text


def test_other_cells_of_the_same_names_may_be_held_out(
    trained: scDiffAug, caplog: pytest.LogCaptureFixture
) -> None:
    """Cells that nobody named are called 0, 1 and so on, in any two files."""
    sources, held_out = trained.adata[:60].copy(), trained.adata[60:120].copy()
    for cells in (sources, held_out):
        cells.obs_names = [str(k) for k in range(cells.n_obs)]
    trained.augmentation_report(trained.augment(sources), sources, held_out=held_out, **FEW)
    assert "held-out cells are" not in caplog.text


def test_no_cell_on_disk_is_read_for_names_that_are_not_there(
    trained: scDiffAug, new: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scdiffaug.matrices.SUBSAMPLED", 50)
    held_out = trained.adata.copy()
    held_out.obs_names = [f"other {name}" for name in held_out.obs_names]
    held_out.write_h5ad(tmp_path / "held_out.h5ad")
    on_disk = ad.read_h5ad(tmp_path / "held_out.h5ad", backed="r")
    assert trained.augmentation_report(new, held_out=on_disk, **FEW)["n_cells"] == 100


def test_cells_that_strayed_into_a_group_of_which_none_are_made_are_found(
    trained: scDiffAug,
) -> None:
    """Where one group alone is enlarged, the others are where its new cells would stray."""
    real, types = trained.adata, trained.adata.obs["cell_type"]
    rows, others = (np.flatnonzero(types == name) for name in ("CD19+ B", "CD14+ Monocyte"))
    stayed = trained.augment(indices=rows, steps=2, strength=0.1)
    strayed = stayed.copy()
    strayed.X = real.X[np.resize(others, len(rows))]
    found = [
        trained.augmentation_report(new, groupby="cell_type", **FEW)["checks"]["group_kept"]
        for new in (stayed, strayed)
    ]
    assert found[0]["value"] > 0.9
    assert found[1]["value"] < 0.2
    assert found[1]["verdict"] == "worry"


def test_one_group_by_itself_has_none_to_stray_into(trained: scDiffAug) -> None:
    some = trained.adata[trained.adata.obs["cell_type"] == "CD14+ Monocyte"].copy()
    found = trained.augmentation_report(
        trained.augment(some, steps=1), some, groupby="cell_type", **FEW
    )
    assert "group_kept" not in found["checks"]
    assert "one group" in found["skipped"]["group_kept"]


def test_a_projection_of_one_dimension_is_drawn_too() -> None:
    model = scDiffAug(scdiffaug.datasets.pbmc68k_reduced(), n_projection=1)
    model.train(**QUICK)
    assert "data:image/png" in model.augmentation_report(model.augment(steps=1), **FEW)["html"]


@pytest.mark.parametrize("change", ["of unknown sources", "renamed"])
def test_groups_that_one_side_alone_has_are_no_error(trained: scDiffAug, change: str) -> None:
    types = trained.adata.obs["cell_type"]
    new = trained.augment(indices=np.flatnonzero(types.isin(["CD19+ B", "CD56+ NK"])), steps=1)
    if change == "of unknown sources":
        del new.obs["source_obs_name"]
    else:
        new.obs["cell_type"] = new.obs["cell_type"].cat.rename_categories({"CD56+ NK": "NK"})
    found = trained.augmentation_report(new, groupby="cell_type", max_cells=200)
    assert 0 <= found["checks"]["group_kept"]["value"] <= 1


def test_held_out_cells_of_one_group_are_told_from_the_others(trained: scDiffAug) -> None:
    types = trained.adata.obs["cell_type"]
    rows = np.flatnonzero(types == "CD14+ Monocyte")
    held_out = trained.adata[rows[60:]].copy()
    held_out.obs_names = held_out.obs_names + "-other"
    new = trained.augment(indices=rows[:60], steps=1)
    found = trained.augmentation_report(new, held_out=held_out, groupby="cell_type", **FEW)
    assert found["checks"]["group_kept"]["real"] > 0.9


def test_cells_without_a_group_are_left_out(trained: scDiffAug) -> None:
    adata = trained.adata.copy()
    adata.obs["known"] = adata.obs["cell_type"].where(np.arange(700) % 3 > 0)
    named = adata.obs["known"].value_counts()
    sizes = {name: int(size) + 60 for name, size in named[named > 60].items()}
    new = trained.augment(adata, groupby="known", target=sizes, steps=1)
    found = trained.augmentation_report(new, adata, groupby="known", **FEW)
    assert set(found["groups"]) <= set(sizes)
    every = trained.augment(adata, steps=1)
    again = trained.augmentation_report(every, adata, groupby="known", **FEW)
    assert sum(group["n_new"] for group in again["groups"].values()) == named.sum()


def test_errors_name_the_cells_that_they_are_about(trained: scDiffAug, new: AnnData) -> None:
    spoilt = new.copy()
    spoilt.X.data[0] = np.nan
    with pytest.raises(ValueError, match=r"new\.X has 1 NaN"):
        trained.augmentation_report(spoilt)
    nameless = new.copy()
    del nameless.obs["cell_type"]
    with pytest.raises(KeyError, match=r"groupby='cell_type' not found in new\.obs"):
        trained.augmentation_report(nameless, groupby="cell_type")


def test_held_out_cells_that_are_the_sources_are_refused(trained: scDiffAug, new: AnnData) -> None:
    with pytest.raises(ValueError, match="held_out holds the real cells"):
        trained.augmentation_report(new, held_out=trained.adata[:300].copy())
