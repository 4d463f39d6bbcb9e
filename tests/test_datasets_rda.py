"""The loader of Samusik_all on a small R file of the layout that HDCytoData saves."""

import gzip
import struct
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scdiffaug import datasets

pytest.importorskip("rdata")

SYM, LIST, ENV, CHAR, INT, REAL, STR, VEC, S4 = 1, 2, 4, 9, 13, 14, 16, 19, 25
EMPTY, NIL, REF = 242, 254, 255

RAW = np.array([[0.5, -1.0, 2.25, 7.0], [3.0, 0.0, 0.125, 8.0], [1.0, 4.0, 5.0, 9.0]])
MARKERS = ["Time", "CD45.2", "B220", "DNA1"]


@dataclass
class Slots:
    """An object of an S4 class."""

    of: str
    values: dict[str, object]


class Environment(dict[str, object]):
    """What R keeps by reference."""


class Writer:
    """R's serialisation, version 2, as far as the file needs it."""

    def __init__(self) -> None:
        self.out = bytearray(b"RDX2\nX\n" + struct.pack(">3i", 2, 0x30500, 0x20300))
        self.seen: list[object] = []

    def put(self, *numbers: int) -> None:
        self.out += struct.pack(f">{len(numbers)}i", *numbers)

    def put_text(self, text: str) -> None:
        self.put(CHAR | 64 << 12, len(text))
        self.out += text.encode()

    def put_symbol(self, name: str) -> None:
        # R writes a symbol once, and then where it was.
        if name in self.seen:
            self.put(REF | (self.seen.index(name) + 1) << 8)
        else:
            self.put(SYM)
            self.seen.append(name)
            self.put_text(name)

    def put_pairs(self, pairs: dict[str, object]) -> None:
        for name, value in pairs.items():
            self.put(LIST | 1 << 10)
            self.put_symbol(name)
            self.put_value(value)
        self.put(NIL)

    def put_value(self, value: object) -> None:
        if value is None:
            self.put(NIL)
        elif isinstance(value, Environment):
            self.seen.append(value)
            self.put(ENV, 0, EMPTY)
            self.put_pairs(value)
            self.put(NIL, NIL)
        elif isinstance(value, Slots):
            self.put(S4 | 3 << 8 | 16 << 12)
            self.put_pairs(value.values | {"class": [value.of]})
        elif isinstance(value, dict):
            self.put(VEC | 1 << 9, len(value))
            for item in value.values():
                self.put_value(item)
            self.put_pairs({"names": list(value)})
        else:
            self.put_vector(value)

    def put_vector(self, value: object) -> None:
        if isinstance(value, pd.Categorical):
            self.put(INT | 3 << 8, len(value), *(value.codes + 1))
            self.put_pairs({"levels": list(value.categories), "class": ["factor"]})
        elif isinstance(value, np.ndarray):
            self.put(REAL | 1 << 9, value.size)
            self.out += value.astype(">f8").tobytes(order="F")
            self.put_pairs({"dim": tuple(value.shape)})
        elif isinstance(value, tuple):
            self.put(INT, len(value), *value)
        else:
            self.put(STR, len(value))
            for text in value:
                self.put_text(text)


def frame(**columns: object) -> Slots:
    about = {"rownames": None, "nrows": (3,), "listData": dict(columns)}
    return Slots("DataFrame", about | {"elementType": ["ANY"], "metadata": {}})


def old_assays() -> Slots:
    listed = Slots("SimpleList", {"listData": {"exprs": RAW}, "elementType": ["ANY"]})
    return Slots("ShallowSimpleListAssays", {".xData": Environment(data=listed)})


def new_assays() -> Slots:
    listed = Slots("SimpleList", {"listData": {"exprs": RAW}, "elementType": ["ANY"]})
    return Slots("SimpleAssays", {"data": listed})


def write_samusik(folder: Path, assays: Slots) -> None:
    classes = pd.Categorical(["none", "type", "type", "none"], ["none", "type", "state"])
    rows = frame(
        sample_id=pd.Categorical(["01", "01", "02"]),
        population_id=pd.Categorical(["unassigned", "B-cells", "unassigned"]),
    )
    columns = frame(channel_name=list("abcd"), marker_name=MARKERS, marker_class=classes)
    slots = {"colData": columns, "assays": assays, "NAMES": None, "elementMetadata": rows}
    writer = Writer()
    writer.put_pairs({"d_SE_all": Slots("SummarizedExperiment", slots | {"metadata": {}})})
    (folder / "Samusik_all_SE.rda").write_bytes(gzip.compress(bytes(writer.out)))


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> datasets.Entry:
    monkeypatch.setenv("SCDIFFAUG_DATA_DIR", str(tmp_path))
    known = datasets.registry()["samusik"]
    files = tuple(replace(file, size=None) for file in known.files)
    return replace(known, files=files, n_cells=None, n_features=None)


@pytest.mark.parametrize("assays", [old_assays(), new_assays()])
def test_samusik_has_the_markers_of_types(
    tmp_path: Path, entry: datasets.Entry, assays: Slots
) -> None:
    write_samusik(tmp_path, assays)
    adata = datasets.load(entry)
    np.testing.assert_array_equal(adata.X, RAW[:, 1:3])
    assert adata.X.dtype == np.float32
    assert list(adata.var_names) == ["CD45.2", "B220"]
    assert list(adata.obs["population_id"]) == ["unassigned", "B-cells", "unassigned"]
    assert list(adata.obs["sample_id"]) == ["01", "01", "02"]
    part = datasets.load(entry, subset={"sample_id": "02"})
    np.testing.assert_array_equal(part.X, RAW[2:, 1:3])


def test_r_file_without_the_matrix_is_refused(tmp_path: Path, entry: datasets.Entry) -> None:
    write_samusik(tmp_path, Slots("SimpleAssays", {"data": None}))
    with pytest.raises(ValueError, match="has no 'exprs': fetch it again"):
        datasets.load(entry)


def test_r_files_need_rdata(
    tmp_path: Path, entry: datasets.Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_samusik(tmp_path, old_assays())
    monkeypatch.setitem(sys.modules, "rdata", None)
    with pytest.raises(ImportError, match=r"pip install 'scdiffaug\[datasets\]'"):
        datasets.load(entry)
