"""The registry, loading by name, and the command line; no network."""

import json
import re
from dataclasses import asdict, fields
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from scdiffaug import cli, datasets
from scdiffaug.datasets._loaders import LOADERS

ENTRIES = datasets.registry()
REAL = [
    name
    for name, entry in ENTRIES.items()
    for file in entry.files
    if file.name in entry.reads and file.url is None and file.sha256
]

RECORDS = [record for entry in ENTRIES.values() for record in (entry, *entry.files)]
CORRECT = {
    "n_cells": r"[1-9]\d*",
    "n_features": r"[1-9]\d*",
    "size": r"[1-9]\d*",
    "sha256": "[0-9a-f]{64}",
    "md5": "[0-9a-f]{32}",
    "url": "https?://.+",
    # A name that leads elsewhere would be written outside the cache.
    "name": r"(?!\.)[^/\\]+",
    "feature_space": "counts|peaks|log|raw",
    "loader": "|".join(LOADERS),
}
TINY = datasets.Entry(
    name="tiny",
    title="Tiny",
    organism=None,
    assay=None,
    n_cells=4,
    n_features=2,
    label_key="cell_type",
    batch_key=None,
    feature_space="counts",
    licence=None,
    citation=None,
    note="of a test",
    loader="h5ad",
    reads=("tiny.h5ad",),
    files=(datasets.File("tiny.h5ad", url=None, size=None, sha256=None, md5=None, note="here"),),
)


def test_registry_has_the_datasets_of_the_paper_and_of_every_newcomer() -> None:
    wanted = ["hcl", "mca_1_1", "mca_2018", "gastric", "samusik", "gastrulation"]
    assert {*wanted, "pbmc3k", "pbmc68k_reduced", "pancreas_scib"} <= ENTRIES.keys()
    assert ENTRIES["hcl"].n_cells == 599_926
    assert ENTRIES["hcl"].files[1].md5 == "fe73a9b7129abb10d09dfcd355c19f12"


def test_registry_holds_what_the_metadata_of_the_downloads_says(data_dir: Path) -> None:
    known = {file.url: file for entry in ENTRIES.values() for file in entry.files}
    for download in json.loads((data_dir / "download_metadata.json").read_text()):
        file = known.get(download["url"])
        if file is not None and isinstance(download.get("bytes"), int):
            assert file.size == download["bytes"]
        for checksum in ("md5", "sha256"):
            assert file is None or getattr(file, checksum) == download.get(checksum)


class Strict(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML would keep the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, object]:
        keys = [key.value for key, _ in node.value]
        assert len(set(keys)) == len(keys), f"line {node.start_mark.line + 1}: {keys}"
        return super().construct_mapping(node, deep=deep)


def test_entries_hold_what_is_written_once() -> None:
    at = Path(__file__).parents[1] / "data_registry.yaml"
    written = yaml.load(at.read_text(encoding="utf-8"), Loader=Strict)
    # JSON has no tuples.
    read = json.loads(json.dumps({name: asdict(entry) for name, entry in ENTRIES.items()}))
    assert read == {name: {"name": name} | known for name, known in written.items()}


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_values_are_of_the_right_type_and_form(record: datasets.Entry | datasets.File) -> None:
    for field in fields(record):
        value = getattr(record, field.name)
        if field.name not in {"reads", "files"}:
            assert isinstance(value, field.type), field.name
            assert not isinstance(value, bool), field.name
        if value is not None and field.name in CORRECT:
            assert re.fullmatch(CORRECT[field.name], str(value)), field.name


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_a_note_says_why_something_is_not_known(record: datasets.Entry | datasets.File) -> None:
    assert record.note or None not in {getattr(record, field.name) for field in fields(record)}


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_what_a_loader_reads_is_among_the_files(entry: datasets.Entry) -> None:
    assert set(entry.reads) <= {file.name for file in entry.files}


def test_every_file_has_a_name_of_its_own() -> None:
    # Cache and mirror are one flat folder each.
    names = [file.name for entry in ENTRIES.values() for file in entry.files]
    assert len(set(names)) == len(names)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> datasets.Entry:
    """An entry of four cells in the local mirror."""
    obs = pd.DataFrame({"cell_type": list("aabb"), "tissue": list("xyxy")}, index=list("1234"))
    adata = ad.AnnData(np.arange(8, dtype=np.float32).reshape(4, 2), obs=obs)
    adata.write_h5ad(tmp_path / "tiny.h5ad")
    monkeypatch.setenv("SCDIFFAUG_DATA_DIR", str(tmp_path))
    return TINY


def test_load_without_a_subset_is_the_whole(tiny: datasets.Entry) -> None:
    adata = datasets.load(tiny)
    assert adata.shape == (4, 2)
    assert not adata.isbacked
    np.testing.assert_array_equal(adata.X, np.arange(8).reshape(4, 2))


def test_subset_by_number_is_random_but_repeatable(tiny: datasets.Entry) -> None:
    chosen = [tuple(datasets.load(tiny, subset=2, seed=seed).obs_names) for seed in range(20)]
    assert len(set(chosen)) > 2
    assert all(names == tuple(sorted(names)) for names in chosen)
    assert tuple(datasets.load(tiny, subset=2, seed=3).obs_names) == chosen[3]
    assert datasets.load(tiny, subset=4).n_obs == 4


@pytest.mark.parametrize(
    ("subset", "names"),
    [
        ({"tissue": "x"}, ["1", "3"]),
        ({"tissue": ["y"], "cell_type": ["a", "b"]}, ["2", "4"]),
        ({"tissue": "x", "cell_type": "b"}, ["3"]),
    ],
)
def test_subset_by_column(
    tiny: datasets.Entry, subset: dict[str, str | list[str]], names: list[str]
) -> None:
    adata = datasets.load(tiny, subset=subset)
    assert list(adata.obs_names) == names
    np.testing.assert_array_equal(adata.X[:, 0], [2 * (int(name) - 1) for name in names])


@pytest.mark.parametrize(
    ("subset", "message"),
    [
        (5, "subset=5 must be at least 1 and at most 4"),
        (0, "subset=0 must be at least 1 and at most 4"),
        ({"organ": "x"}, "subset has column 'organ': choose one of cell_type, tissue"),
        ({"tissue": "z"}, "which no cell is"),
    ],
)
def test_subset_that_is_not_there_is_refused(
    tiny: datasets.Entry, subset: int | dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        datasets.load(tiny, subset=subset)


def test_arguments_of_another_type_are_refused(tiny: datasets.Entry) -> None:
    with pytest.raises(
        TypeError, match=r"subset=1\.5 must be a whole number, at least 1 and at mo"
    ):
        datasets.load(tiny, subset=1.5)
    with pytest.raises(TypeError, match="dataset=3 must be one name, a str, not int"):
        datasets.load(3)


def test_file_that_is_not_what_the_registry_says(tiny: datasets.Entry, tmp_path: Path) -> None:
    obs = pd.DataFrame({"kind": list("ab")}, index=list("12"))
    ad.AnnData(np.ones((2, 3)), obs=obs).write_h5ad(tmp_path / "tiny.h5ad")
    with pytest.raises(ValueError, match="label_key of tiny is 'cell_type', its files have kind"):
        datasets.load(tiny)
    obs.columns = ["cell_type"]
    ad.AnnData(np.ones((2, 3)), obs=obs).write_h5ad(tmp_path / "tiny.h5ad")
    with pytest.warns(UserWarning, match=r"tiny is \(2, 3\), the registry says \(4, 2\)"):
        datasets.load(tiny)
    assert datasets.load(tiny, subset=1).shape == (1, 3)


@pytest.mark.parametrize("name", REAL)
def test_local_files_load(name: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCDIFFAUG_DATA_DIR", str(data_dir))
    entry = ENTRIES[name]
    adata = datasets.load(name)
    assert adata.shape == (entry.n_cells, entry.n_features)
    assert adata.obs[entry.label_key or "cell_type"].nunique() > 1
    part = datasets.load(name, subset=50)
    same = adata[part.obs_names].X - part.X
    assert abs(same).max() == 0


def test_there_are_thirteen_local_files() -> None:
    assert len(REAL) == 13


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli.app, ["data", *arguments], env={"COLUMNS": "150"})
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A local mirror and a cache without files."""
    monkeypatch.setenv("SCDIFFAUG_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("SCDIFFAUG_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


def test_list_shows_what_is_here(empty: Path) -> None:
    (empty / "pbmc3k_raw.h5ad").touch()
    code, shown, _ = run("list")
    lines = {line.split()[0]: line.rstrip() for line in shown.splitlines()}
    assert code == 0
    assert lines["pbmc3k_raw"].endswith("here")
    assert lines["pbmc3k"].endswith("by hand")
    assert "599,926" in lines["hcl"]
    assert lines["hcl"].endswith("download")


@pytest.mark.usefixtures("empty")
def test_list_for_programs_has_all_that_is_known() -> None:
    code, shown, _ = run("list", "--json")
    known = {entry["name"]: entry for entry in json.loads(shown)}
    assert code == 0
    assert known.keys() == ENTRIES.keys()
    assert known["hcl"]["files"][0]["size"] == 830_846_460
    assert known["pbmc68k_reduced"]["whereabouts"] == "here"


@pytest.mark.parametrize("command", ["fetch", "path"])
def test_paths_are_printed_one_a_line(empty: Path, command: str) -> None:
    at = empty / "pbmc3k_raw.h5ad"
    at.touch()
    assert run(command, "pbmc3k_raw")[:2] == (0, f"{at}\n")
    code, shown, _ = run(command, "pbmc3k_raw", "--json")
    assert (code, json.loads(shown)) == (0, {at.name: str(at)})


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize("command", ["fetch", "path"])
def test_a_dataset_without_files_says_how_it_comes(command: str) -> None:
    code, shown, error = run(command, "pbmc68k_reduced")
    assert (code, shown) == (0, "")
    assert "scdiffaug.datasets.load('pbmc68k_reduced') makes it" in error
    assert run(command, "pbmc68k_reduced", "--json")[1] == "{}\n"


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["path", "hcl"], "HCL_Fig1_adata.h5ad is not here: run `scdiffaug data fetch hcl`"),
        (["fetch", "pbmc3k"], "pbmc3k_named.h5ad is not here and has no direct download"),
        (["path", "pbmc3k"], "pbmc3k_named.h5ad is not here and has no direct download"),
        (["fetch", "pbmc3"], "there is no dataset 'pbmc3'"),
        (["path", "hcl", "--file", "x"], "hcl has no file 'x'"),
    ],
)
def test_failure_is_one_line_and_a_status(arguments: list[str], message: str) -> None:
    code, shown, error = run(*arguments)
    assert (code, shown) == (1, "")
    assert error.startswith(f"Error: {message}")
    assert error.count("\n") == 1
