"""Corrupt and hostile model folders: one clear error each, and nothing in them is run."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from anndata import AnnData
from scvi.model import SCVI

from scdiffaug import datasets, scDiffAug
from scdiffaug.storage import SCHEMA_VERSION, sealed, sha256

Damage = Callable[[Path], None]


class _Bomb:
    def __init__(self, folder: Path) -> None:
        self.trace = folder.parent / "exploded"

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.fixture(scope="module")
def adata() -> AnnData:
    return datasets.pbmc68k_reduced()[:60, :40].copy()


@pytest.fixture(scope="module")
def whole(adata: AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = scDiffAug(adata, n_semantic=8)
    model.train(max_epochs=2, enable_progress_bar=False)
    folder = tmp_path_factory.mktemp("saved") / "model"
    model.save(folder, save_anndata=True)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def _pickle_bomb(name: str) -> Damage:
    return lambda folder: _write(folder / name, pickle.dumps(_Bomb(folder))) and None


def _torch_bomb(folder: Path) -> None:
    torch.save({"weights": _Bomb(folder)}, folder / "model.safetensors")
    _reseal(folder)


def _sealed_bomb(folder: Path) -> None:
    _pickle_bomb("model.safetensors")(folder)
    _reseal(folder)


def _sealed_bomb_of_cells(folder: Path) -> None:
    _pickle_bomb("adata.h5ad")(folder)
    digest = sha256((folder / "adata.h5ad").read_bytes())
    _reseal(folder, lambda said: said.update(adata_sha256=digest))


def _write(path: Path, content: bytes) -> int:
    return path.write_bytes(content)


def _truncated(name: str, share: float) -> Damage:
    def damage(folder: Path) -> None:
        content = (folder / name).read_bytes()
        _write(folder / name, content[: int(len(content) * share)])

    return damage


def _flipped(name: str, place: float) -> Damage:
    def damage(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[int(len(content) * place)] ^= 1
        _write(folder / name, bytes(content))

    return damage


def _json_text(text: bytes) -> Damage:
    return lambda folder: _write(folder / "model.json", text) and None


def _reseal(folder: Path, change: Callable[[dict[str, Any]], object] = lambda _: None) -> None:
    """Change the JSON as a forger would, who can compute digests too."""
    said = json.loads((folder / "model.json").read_text())
    for name in ("schema_version", "weights_sha256", "description_sha256"):
        del said[name]
    change(said)
    text = json.dumps(sealed(said, (folder / "model.safetensors").read_bytes()))
    (folder / "model.json").write_text(text)


def _field(*path: str, value: Any) -> Damage:
    def change(said: dict[str, Any]) -> None:
        for name in path[:-1]:
            said = said[name]
        said[path[-1]] = value

    return lambda folder: _reseal(folder, change)


def _weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / "model.safetensors"
        weights = safetensors.torch.load(path.read_bytes())
        change(weights)
        _write(path, safetensors.torch.save(weights))
        _reseal(folder)

    return damage


def _declared(shape: list[int], offsets: list[int]) -> Damage:
    """A safetensors file whose header promises what its body cannot hold."""

    def damage(folder: Path) -> None:
        said = {"mean": {"dtype": "F32", "shape": shape, "data_offsets": offsets}}
        header = json.dumps(said).encode()
        _write(
            folder / "model.safetensors", len(header).to_bytes(8, "little") + header + bytes(16)
        )
        _reseal(folder)

    return damage


def _huge_header(folder: Path) -> None:
    _write(folder / "model.safetensors", (2**63).to_bytes(8, "little") + b"{}")
    _reseal(folder)


def _huge_file(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(2**40)


def _swapped_genes(said: dict[str, Any]) -> None:
    names = said["contract"]["var_names"]
    names[0], names[1] = names[1], names[0]


def _linked(name: str, target: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to(target)

    return damage


def _traversal(folder: Path) -> None:
    (folder.parent / "outside.safetensors").write_bytes(b"secret")
    _reseal(folder, lambda said: said.update(weights="../outside.safetensors"))


def _as_folder(name: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return damage


def _fifo(folder: Path) -> None:
    (folder / "model.json").unlink()
    os.mkfifo(folder / "model.json")


def _other_model(folder: Path) -> None:
    _weights(lambda weights: weights["inputs.axes.centre"].add_(1))(folder)
    shutil.copy(folder / "model.safetensors", folder.parent / "other")
    _weights(lambda weights: weights["inputs.axes.centre"].sub_(1))(folder)
    shutil.copy(folder.parent / "other", folder / "model.safetensors")


def _nan(weights: dict[str, torch.Tensor]) -> None:
    weights["inputs.axes.scale"][3] = torch.nan


def _infinite(weights: dict[str, torch.Tensor]) -> None:
    weights["inputs.axes.scale"][0] = -torch.inf


W, J, A = "model.safetensors", "model.json", "adata.h5ad"
HOSTILE: dict[str, tuple[Damage, str]] = {
    "pickle for weights": (_pickle_bomb(W), "model.safetensors is not what was saved"),
    "pickle for JSON": (_pickle_bomb(J), "model.json is not JSON"),
    "sealed pickle": (_sealed_bomb, "model.safetensors is not of this format"),
    "sealed torch file": (_torch_bomb, "model.safetensors is not of this format"),
    "pickle for cells": (_pickle_bomb(A), "adata.h5ad is not what was saved"),
    "sealed pickle for cells": (_sealed_bomb_of_cells, "adata.h5ad cannot be read"),
    "empty weights": (_truncated(W, 0), "model.safetensors is not what was saved"),
    "weights cut at half": (_truncated(W, 0.5), "model.safetensors is not what was saved"),
    "weights short of a byte": (_truncated(W, 0.99999), "model.safetensors is not what was"),
    "empty JSON": (_truncated(J, 0), "model.json is not JSON"),
    "JSON cut at half": (_truncated(J, 0.5), "model.json is not JSON"),
    "cells cut at half": (_truncated(A, 0.5), "adata.h5ad is not what was saved"),
    "bit of the cells": (_flipped(A, 0.5), "adata.h5ad is not what was saved"),
    "no cells": (lambda folder: (folder / A).unlink(), "adata.h5ad is missing or not a file"),
    "bit of the header": (_flipped(W, 0.0001), "sha256 differs"),
    "bit of the weights": (_flipped(W, 0.7), "sha256 differs"),
    "bit of the JSON": (_flipped(J, 0.3), "model.json is not"),
    "no UTF-8": (_json_text(b'{"\xff\xfe": 1}'), "model.json is not JSON .*utf-8"),
    "no object": (_json_text(b"[1, 2]"), "model.json holds no JSON object"),
    "nested lists": (_json_text(b"[" * 10**6), "model.json is not JSON .*recursion"),
    "nested objects": (_json_text(b'{"a":' * 10**6), "model.json is not JSON .*recursion"),
    "a number of 10,000 digits": (_json_text(b"1" * 10_000), "model.json is not JSON"),
    "first version": (_json_text(b'{"schema_version": 1}'), "has schema version 1"),
    "older version": (
        _json_text(b'{"schema_version": 2}'),
        "has schema version 2, .*: load it with the version that saved it, or train it again",
    ),
    "other maker": (
        _json_text(b'{"schema_version": 99, "saved_by": "scdiffaug 2.0"}'),
        r"has schema version 99 \(scdiffaug 2.0\), this scdiffaug reads",
    ),
    "newer version": (_json_text(b'{"schema_version": 99}'), "has schema version 99"),
    "version as text": (_json_text(b'{"schema_version": "5"}'), "has schema version '5'"),
    "no seal": (
        _json_text(b'{"schema_version": %d}' % SCHEMA_VERSION),
        "model.json is not what was saved",
    ),
    "huge declared shape": (_declared([2**40], [0, 2**42]), "is not of this format"),
    "shape that overflows": (_declared([2**62, 2**62], [0, 16]), "is not of this format"),
    "negative offsets": (_declared([4], [-16, 0]), "is not of this format"),
    "shape beyond its bytes": (_declared([400], [0, 16]), "is not of this format"),
    "huge header": (_huge_header, "is not of this format"),
    "a terabyte of zeros": (_huge_file, "model.safetensors is larger than the"),
    "wrong shape": (
        _weights(lambda w: w.update({"inputs.axes.centre": torch.zeros(41)})),
        r"'inputs.axes.centre' as torch.float32 of shape \(41,\), not torch.float32 of shape "
        r"\(40,\)",
    ),
    "wrong type": (
        _weights(lambda w: w.update({"inputs.axes.centre": w["inputs.axes.centre"].double()})),
        r"'inputs\.axes\.centre' as torch.float64",
    ),
    "missing weights": (
        _weights(lambda w: w.pop("inputs.axes.scale")),
        "lacks 1 weights, e.g. 'inputs.axes.scale'",
    ),
    "extra weights": (
        _weights(lambda w: w.update(x=w["inputs.axes.centre"].clone())),
        "adds 1 weights, e.g. 'x'",
    ),
    "NaN in the weights": (_weights(_nan), "NaN or infinite values in 'inputs.axes.scale'"),
    "infinite weights": (_weights(_infinite), "NaN or infinite values in 'inputs.axes.scale'"),
    "weights of another model": (_other_model, "model.safetensors is not what was saved"),
    "other encoder features": (
        _weights(lambda w: w.update({"inputs.selected": w["inputs.selected"].flip(0)})),
        "name different features for the encoder",
    ),
    "swapped genes": (
        lambda folder: _reseal(folder, _swapped_genes),
        "var_names are not the saved ones, or not in their order",
    ),
    "genes of numbers": (_field("contract", "var_names", value=[1, 2]), "must be a list of str"),
    "batches repeat": (
        _field("contract", "query_batches", value=["a", "a"]),
        "category_names and query_batches repeat a name",
    ),
    "selected beyond": (_field("contract", "selected", value=[0, 999]), "ascending positions"),
    "selected repeats": (_field("contract", "selected", value=[0, 0]), "ascending positions"),
    "selected negative": (_field("contract", "selected", value=[-1, 3]), "ascending positions"),
    "selected of booleans": (_field("contract", "selected", value=[True]), "list of int"),
    "contract of text": (_field("contract", value="pickle"), "contract must be an object"),
    "setup calls for more": (
        _field("contract", "setup", "__class__", value="os.system"),
        "setup lacks or adds the fields",
    ),
    "layer of a list": (_field("contract", "setup", "layer", value=["x"]), "setup.layer="),
    "unknown space": (_field("contract", "space", "kind", value="tpm"), "space.kind='tpm'"),
    "cofactor of 0": (_field("contract", "space", "cofactor", value=0), "space.cofactor=0"),
    "binary of a number": (_field("contract", "space", "is_binary", value=1), "space.is_binary"),
    "ends of a number": (_field("contract", "space", "has_ends", value=1), "space.has_ends"),
    "negative seed": (_field("contract", "seed", value=-1), "seed=-1 must be at least 0"),
    "seed of text": (_field("contract", "seed", value="0"), "seed='0' must be a whole number"),
    "no neighbours": (_field("contract", "n_neighbors", value=0), "n_neighbors=0 must be"),
    "gigantic width": (_field("module", "n_semantic", value=10**15), "n_semantic=1000000000"),
    "few references": (_field("module", "n_references", value=3), "n_references=3"),
    "gigantic references": (
        _field("module", "n_references", value=10**15),
        "n_references=1000000",
    ),
    "large width": (_field("module", "n_semantic", value=60_000), "model.safetensors has"),
    "unknown objective": (_field("module", "objective", value="os"), "objective='os' is unknown"),
    "extra argument": (_field("module", "hook", value="os.system"), "adds the fields .'hook'"),
    "trained by text": (_field("is_trained", value="yes"), "is_trained='yes' must be True"),
    "history of text": (_field("history", "loss", value=["a"]), "history.loss must be a list"),
    "history of a list": (_field("history", value=[1]), "history must be an object"),
    "unknown field": (_field("code", value="import os"), "adds the fields .'code'"),
    "path traversal": (_traversal, "adds the fields .'weights'"),
    "weights linked to a device": (_linked(W, "/dev/zero"), "model.safetensors is missing or not"),
    "JSON linked to a device": (_linked(J, "/dev/zero"), "model.json is missing or not a file"),
    "cells linked to a device": (_linked(A, "/dev/zero"), "adata.h5ad is missing or not a file"),
    "weights linked to nowhere": (_linked(W, "gone"), "model.safetensors is missing or not a"),
    "weights linked to themselves": (_linked(W, W), "model.safetensors is missing or not a file"),
    "weights linked to a file of the user": (_linked(W, __file__), "is not what was saved"),
    "cells linked to a file of the user": (_linked(A, __file__), "is not what was saved"),
    "JSON linked to a file of the user": (_linked(J, __file__), "model.json is not JSON"),
    "no weights": (lambda folder: (folder / W).unlink(), "model.safetensors is missing"),
    "a folder for weights": (_as_folder(W), "model.safetensors is missing or not a file"),
    "a folder for cells": (_as_folder(A), "adata.h5ad is missing or not a file"),
    "a pipe for JSON": (_fifo, "model.json is missing or not a file"),
}


@pytest.mark.parametrize(("damage", "message"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_folder_is_refused_and_runs_nothing(
    folder: Path, damage: Damage, message: str
) -> None:
    damage(folder)
    with pytest.raises(ValueError, match=message) as caught:
        scDiffAug.load(folder)
    assert str(folder) in str(caught.value)
    assert not (folder.parent / "exploded").exists()


def test_the_bomb_is_live(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(_Bomb(tmp_path / "model")))
    assert (tmp_path / "exploded").is_dir()


def test_a_forger_who_changes_nothing_is_believed(folder: Path, adata: AnnData) -> None:
    _reseal(folder)
    loaded = scDiffAug.load(folder)
    assert loaded.get_latent_representation(adata).shape == (60, 8)


def test_links_of_a_cache_are_followed(folder: Path, adata: AnnData, tmp_path: Path) -> None:
    """Hugging Face's cache: snapshots/REVISION/NAME is a link to blobs/DIGEST."""
    snapshot = tmp_path / "cache" / "snapshots" / "main"
    blobs = tmp_path / "cache" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in folder.iterdir():
        digest = sha256(path.read_bytes())
        path.rename(blobs / digest)
        (snapshot / path.name).symlink_to(Path("../../blobs") / digest)
    loaded = scDiffAug.load(snapshot)
    assert loaded.get_latent_representation().shape == (60, 8)
    np.testing.assert_array_equal(loaded.adata.X.toarray(), adata.X.toarray())


def test_cells_given_stand_in_for_damaged_ones(folder: Path, adata: AnnData) -> None:
    (folder / A).unlink()
    loaded = scDiffAug.load(folder, adata.copy())
    assert loaded.get_latent_representation().shape == (60, 8)


@pytest.mark.parametrize("method", ["load_registry", "view_setup_args", "convert_legacy_save"])
def test_methods_of_scvi_tools_that_unpickle_are_refused(folder: Path, method: str) -> None:
    torch.save({"attr_dict": _Bomb(folder)}, folder / "model.pt")
    given = [folder, folder.parent / "new"][: 2 if method == "convert_legacy_save" else 1]
    with pytest.raises(NotImplementedError, match=f"{method} would unpickle .* scDiffAug.load"):
        getattr(scDiffAug, method)(*map(str, given))
    assert not (folder.parent / "exploded").exists()


def test_a_pickle_beside_the_model_is_not_read(folder: Path, adata: AnnData) -> None:
    torch.save({"attr_dict": _Bomb(folder)}, folder / "model.pt")
    assert scDiffAug.load(folder).get_latent_representation(adata).shape == (60, 8)
    assert not (folder.parent / "exploded").exists()


def test_loaders_of_scvi_tools_find_nothing_of_theirs(folder: Path, adata: AnnData) -> None:
    with pytest.raises(ValueError, match="Failed to load model file"):
        SCVI.load(str(folder), adata)


def test_large_declared_sizes_take_no_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _field("module", "n_projection", value=60_000)(folder)
    devices = []
    linear = torch.nn.Linear.__init__

    def spy(layer: torch.nn.Linear, *sizes: int, **options: Any) -> None:
        linear(layer, *sizes, **options)
        devices.append(layer.weight.device.type)

    monkeypatch.setattr(torch.nn.Linear, "__init__", spy)
    with pytest.raises(ValueError, match=r"model\.safetensors has"):
        scDiffAug.load(folder)
    assert set(devices) == {"meta"}


def test_digests_are_of_the_files(folder: Path) -> None:
    said = json.loads((folder / "model.json").read_text())
    assert said["weights_sha256"] == sha256((folder / "model.safetensors").read_bytes())
    assert said["contract"]["var_names_sha256"] == sha256(
        json.dumps(said["contract"]["var_names"]).encode()
    )


def test_models_with_spoiled_weights_are_not_saved(adata: AnnData, tmp_path: Path) -> None:
    model = scDiffAug(adata, n_semantic=8)
    with torch.no_grad():
        model.module.inputs.axes.centre[0] = np.nan
    with pytest.raises(ValueError, match=r"weights 'inputs\.axes\.centre' are NaN or infinite"):
        model.save(tmp_path / "model")
    assert not list(tmp_path.iterdir())
