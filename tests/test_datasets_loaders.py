"""Every loader on small files of the published layout."""

import gzip
import io
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scdiffaug import datasets
from scdiffaug.datasets import _loaders
from scdiffaug.datasets._archives import members

COUNTS = np.array([[1, 0, 2], [0, 0, 3], [4, 5, 0], [0, 6, 7], [8, 0, 9]], dtype=np.float32)


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCDIFFAUG_DATA_DIR", str(tmp_path))
    return tmp_path


def entry_of(name: str) -> datasets.Entry:
    """The registry's entry, but for what is true of the published files alone."""
    entry = datasets.registry()[name]
    nothing = {"size": None, "sha256": None, "md5": None}
    files = tuple(replace(file, **nothing) for file in entry.files)
    return replace(entry, files=files, n_cells=None, n_features=None)


def write_old_h5ad(at: Path, cells: list[str], tissue: list[str] | None = None) -> None:
    """Dense, and with compound tables and loose categories, as anndata wrote before 0.7."""
    columns = [("index", "S40")] + ([("tissue", "i1"), ("n_counts", "f4")] if tissue else [])
    obs = np.zeros(len(cells), dtype=columns)
    obs["index"] = [cell.encode() for cell in cells]
    with h5py.File(at, "w") as file:
        file.create_dataset("X", data=COUNTS, chunks=(2, 2), compression="gzip")
        if tissue:
            kinds, obs["tissue"] = np.unique(tissue, return_inverse=True)
            file["uns/tissue_categories"] = kinds.astype("S")
        file["obs"] = obs
        file["var"] = np.array([(b"A1BG",), (b"TP53",), (b"ZZZ3",)], dtype=[("index", "S20")])


HCL_CELLS = [
    "AdultJeJunum_1.AAA-0",
    "AdultJeJunum_1.CCC-0",
    "FetalFemaleGonald_1.AAA-1",
    "HESC_1.GGG-0",
    "HESC_1.TTT-0",
]


def write_hcl(mirror: Path) -> None:
    names = [name.rsplit("-", 1)[0] for name in HCL_CELLS]
    names = [name.replace("JeJ", "Jej").replace("Gonald", "Gonad") for name in names]
    write_old_h5ad(
        mirror / "HCL_Fig1_adata.h5ad", HCL_CELLS, [name.split("_")[0] for name in names]
    )
    cells = pd.DataFrame(
        {
            "cellnames": names,
            "sample": [name.split("_")[0] for name in names],
            "cluster": [3, 1, 2, 4, 4],
            "stage": ["Adult", "Adult", "Fetus", "hESC", "hESC"],
            "batch": [name.split(".")[0] for name in names],
            "donor": ["Donor1", "Donor1", "Donor2", None, None],
            "celltype": ["Enterocyte", "T cell", "Fetal stromal cell", "hESC", "hESC"],
        }
    )
    # The order is not relied upon.
    cells[::-1].to_excel(mirror / "HCL_Fig1_cell_Info.xlsx", index=False)


def test_hcl_joins_matrix_and_sheet(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openpyxl")
    monkeypatch.setattr(_loaders, "_ROWS_AT_ONCE", 2)
    write_hcl(mirror)
    adata = datasets.load(entry_of("hcl"))
    assert sparse.isspmatrix_csr(adata.X)
    np.testing.assert_array_equal(adata.X.toarray(), COUNTS)
    assert list(adata.obs_names) == HCL_CELLS
    assert list(adata.obs["celltype"])[:3] == ["Enterocyte", "T cell", "Fetal stromal cell"]
    assert list(adata.obs["tissue"])[:3] == ["AdultJejunum", "AdultJejunum", "FetalFemaleGonad"]
    assert {"sample", "cluster", "stage", "batch", "donor", "n_counts"} <= set(adata.obs)
    assert list(adata.var_names) == ["A1BG", "TP53", "ZZZ3"]


@pytest.mark.parametrize(
    ("subset", "rows"), [({"celltype": "hESC"}, [3, 4]), ({"stage": ["Fetus", "hESC"]}, [2, 3, 4])]
)
def test_hcl_subset_reads_its_rows_alone(
    mirror: Path,
    monkeypatch: pytest.MonkeyPatch,
    subset: dict[str, str | list[str]],
    rows: list[int],
) -> None:
    pytest.importorskip("openpyxl")
    monkeypatch.setattr(_loaders, "_ROWS_AT_ONCE", 2)
    write_hcl(mirror)
    adata = datasets.load(entry_of("hcl"), subset=subset)
    np.testing.assert_array_equal(adata.X.toarray(), COUNTS[rows])
    assert list(adata.obs_names) == [HCL_CELLS[row] for row in rows]


def test_sheet_of_another_release_is_refused(mirror: Path) -> None:
    pytest.importorskip("openpyxl")
    write_hcl(mirror)
    sheet = mirror / "HCL_Fig1_cell_Info.xlsx"
    pd.read_excel(sheet)[:3].to_excel(sheet, index=False)
    with pytest.raises(ValueError, match="2 of 5 cells are not in the sheet"):
        datasets.load(entry_of("hcl"))


def test_mca_1_1_joins_matrix_and_sheet(mirror: Path) -> None:
    pytest.importorskip("openpyxl")
    cells = [f"Bladder_1.{code}" for code in ("AAA", "CCC", "GGG", "TTT", "ACG")]
    write_old_h5ad(mirror / "MCA1.1_adata.h5ad", cells)
    table = {"cellnames": cells, "tissue": ["Bladder"] * 5, "celltype": list("abcab")}
    pd.DataFrame(table).to_excel(mirror / "MCA1.1_cell_info.xlsx", index=False)
    adata = datasets.load(entry_of("mca_1_1"), subset={"celltype": "a"})
    np.testing.assert_array_equal(adata.X.toarray(), COUNTS[[0, 3]])
    assert list(adata.obs["tissue"]) == ["Bladder"] * 2


def test_old_h5ad_is_read_without_a_warning(mirror: Path) -> None:
    write_old_h5ad(mirror / "pbmc3k_raw.h5ad", list("abcde"))
    adata = datasets.load(entry_of("pbmc3k_raw"), subset=5)
    np.testing.assert_array_equal(adata.X, COUNTS)


def table_of(genes: list[str], cells: dict[str, list[int]], delimiter: str, corner: str) -> bytes:
    """Genes by cells as R writes them, quoted; gzipped."""
    header = delimiter.join(f'"{cell}"' for cell in cells)
    lines = [
        delimiter.join([f'"{gene}"', *(str(reads[row]) for reads in cells.values())])
        for row, gene in enumerate(genes)
    ]
    return gzip.compress("\n".join([corner + header, *lines, ""]).encode())


def write_tar(at: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(at, "w:gz" if at.suffix == ".gz" else "w") as archive:
        for name, content in files.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))


def write_mca_2018(mirror: Path) -> None:
    bladder = {"Bladder_1.AAA": [1, 0], "Bladder_1.CCC": [0, 3], "Bladder_1.GGG": [9, 9]}
    gonad = {"Female(fetal)Gonad_1.AAA": [5, 6]}
    files = {
        "500more_dge/Bladder_dge.txt.gz": table_of(["Actb", "Krt5"], bladder, " ", ""),
        "500more_dge/FetalFemaleGonad_dge.txt.gz": table_of(["Actb", "Wt1"], gonad, " ", ""),
    }
    write_tar(mirror / "MCA_500more_dge.tar.gz", files)
    (mirror / "MCA_CellAssignments.csv").write_text(
        '"","Cell.name","ClusterID","Tissue","Batch","Cell.Barcode","Annotation"\n'
        '"1","Bladder_1.CCC","Bladder_2","Bladder","Bladder_1","CCC","Basal cell(Bladder)"\n'
        '"2","Bladder_1.AAA","Bladder_1","Bladder","Bladder_1","AAA","Stromal cell(Bladder)"\n'
        '"3","FetalFemaleGonad_1.AAA","Gonad_1","Gonad","Gonad_1","AAA","Germ cell(Gonad)"\n'
        '"4","Brain_1.AAA","Brain_1","Brain","Brain_1","AAA","Microglia(Brain)"\n'
    )


def test_mca_2018_has_the_cells_with_a_type(mirror: Path) -> None:
    write_mca_2018(mirror)
    adata = datasets.load(entry_of("mca_2018"))
    names = ["Bladder_1.AAA", "Bladder_1.CCC", "FetalFemaleGonad_1.AAA"]
    types = ["Stromal cell(Bladder)", "Basal cell(Bladder)", "Germ cell(Gonad)"]
    assert list(adata.obs_names) == names
    assert list(adata.obs["Annotation"]) == types
    assert list(adata.obs) == ["ClusterID", "Tissue", "Batch", "Cell.Barcode", "Annotation"]
    found = adata.to_df()[["Actb", "Krt5", "Wt1"]]
    np.testing.assert_array_equal(found, [[1, 0, 0], [0, 3, 0], [5, 0, 6]])
    part = datasets.load(entry_of("mca_2018"), subset={"Tissue": "Gonad"})
    assert list(part.obs_names) == names[2:]


@pytest.mark.parametrize("corner", ["", '"gene"\t'])
def test_gastric_samples_are_batches(mirror: Path, corner: str) -> None:
    nag = {"AAAC-1": [1, 0], "CCCG-1": [0, 2]}
    severe = {"AAAC-1": [3, 4]}
    files = {
        "GSM3954946_processed_NAG1.txt.gz": table_of(["GKN1", "TFF1"], nag, "\t", corner),
        "GSM3954955_processed_IMS2.txt.gz": table_of(["TFF1", "MUC2"], severe, "\t", corner),
    }
    write_tar(mirror / "GSE134520_RAW.tar", files)
    adata = datasets.load(entry_of("gastric"))
    assert list(adata.obs_names) == ["NAG1_AAAC-1", "NAG1_CCCG-1", "IMS2_AAAC-1"]
    assert list(adata.obs["sample"]) == ["NAG1", "NAG1", "IMS2"]
    assert list(adata.obs["stage"]) == ["NAG", "NAG", "IMS"]
    found = adata.to_df()[["GKN1", "TFF1", "MUC2"]]
    np.testing.assert_array_equal(found, [[1, 0, 0], [0, 2, 0], [0, 3, 4]])


@pytest.mark.parametrize("labels", [np.array([2, 1, 2, 1, 1]), np.array(list("baabb"), "O")])
def test_h5_of_x_and_y(mirror: Path, labels: np.ndarray) -> None:
    with h5py.File(mirror / "mouse_bladder_cell.h5", "w") as file:
        file["X"] = COUNTS.astype(np.float64)
        file["Y"] = labels
    adata = datasets.load(entry_of("mca_bladder_full"))
    np.testing.assert_array_equal(adata.X.toarray(), COUNTS)
    assert list(adata.obs["cell_type"]) == [str(label) for label in labels]
    part = datasets.load(entry_of("mca_bladder_full"), subset={"cell_type": str(labels[1])})
    np.testing.assert_array_equal(part.X.toarray(), COUNTS[labels == labels[1]])


def test_pbmc68k_reduced_needs_no_file() -> None:
    adata = datasets.load("pbmc68k_reduced", subset={"cell_type": "Dendritic"})
    whole = datasets.pbmc68k_reduced()
    wanted = whole[whole.obs["cell_type"] == "Dendritic"]
    assert 0 < adata.n_obs < 700
    assert list(adata.obs_names) == list(wanted.obs_names)


def write_zip(at: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(at, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("write", [write_tar, write_zip])
def test_members_of_an_archive(tmp_path: Path, write: object) -> None:
    write(tmp_path / "a", {"in/x.txt": b"1", "in/y.csv": b"2", "z.txt": b"3"})
    found = [(name, stream.read()) for name, stream in members(tmp_path / "a", ".txt")]
    assert found == [("x.txt", b"1"), ("z.txt", b"3")]
    with pytest.raises(ValueError, match="no file whose name ends with"):
        list(members(tmp_path / "a", ".mtx"))


@pytest.mark.parametrize("write", [write_tar, write_zip])
@pytest.mark.parametrize("name", ["../out.txt", "/tmp/out.txt", "in/../../out.txt", "..\\out.txt"])
def test_archive_that_leads_out_of_its_folder(tmp_path: Path, write: object, name: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    write(inside / "a", {name: b"evil"})
    with pytest.raises(ValueError, match="leads out of its folder: do not use it"):
        list(members(inside / "a", ".txt"))
    assert [at.name for at in tmp_path.rglob("*")] == ["inside", "a"]


def test_link_in_an_archive_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_bytes(b"secret")
    with tarfile.open(tmp_path / "a", "w") as archive:
        about = tarfile.TarInfo("link.txt")
        about.type = tarfile.SYMTYPE
        about.linkname = str(tmp_path / "secret.txt")
        archive.addfile(about)
    with pytest.raises(ValueError, match="no file whose name ends"):
        list(members(tmp_path / "a", ".txt"))
