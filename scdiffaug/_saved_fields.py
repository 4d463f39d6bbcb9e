"""What a model's JSON may say: every field is checked before anything is built from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, get_args

from scdiffaug._checks import check_choice, check_flag, check_number, check_seed, check_whole
from scdiffaug.contract import Covariate, DataContract
from scdiffaug.features import FeatureSpace, Kind
from scdiffaug.module import Condition, Diffusion
from scdiffaug.normalized import LogScale
from scdiffaug.objectives import ObjectiveName

_LARGEST_WIDTH = 65_536
_SETUP = ("layer", "labels_key", "batch_key", "neighbors_key")
_WIDTHS = ("n_components", "n_references", "n_semantic", "n_projection")
_CHOICES = {
    "objective": get_args(ObjectiveName),
    "condition": get_args(Condition),
    "diffusion": get_args(Diffusion),
}


@dataclass(frozen=True, kw_only=True)
class SavedFields:
    """A saved model without its weights.

    Parameters
    ----------
    contract
        What it agreed with its AnnData.
    module
        Arguments of its module.
    is_trained
        Whether it was trained.
    history
        Values per epoch of each recorded quantity.
    weights_sha256, adata_sha256
        Digests of the file of weights, and of that of the cells where there is one.
    """

    contract: DataContract
    module: dict[str, Any]
    is_trained: bool
    history: dict[str, list[float]]
    weights_sha256: str
    adata_sha256: str | None

    @classmethod
    def of(cls, saved: dict[str, Any]) -> SavedFields:
        """Check what the JSON says.

        Raises
        ------
        TypeError
            If a field is of the wrong type.
        ValueError
            If one is missing, unknown or out of range.
        """
        digests = ("weights_sha256", "adata_sha256")
        names = ("contract", "module", "is_trained", "history", *digests)
        of_file = ("schema_version", "saved_by", "description_sha256")
        _check_fields("model.json", saved, (*names, *of_file))
        check_flag("is_trained", saved["is_trained"])
        _check_contract(saved["contract"])
        _check_module(saved["module"])
        check_whole(
            "n_references",
            saved["module"]["n_references"],
            at_least=saved["contract"]["n_neighbors"] + 1,
        )
        _check_history(saved["history"])
        found = {name: saved[name] for name in names}
        return cls(**{**found, "contract": DataContract.from_dict(found["contract"])})


def _check_contract(contract: Any) -> None:
    names = [part.name for part in fields(DataContract)]
    _check_fields("contract", contract, (*names, "var_names_sha256"))
    _check_fields("setup", contract["setup"], _SETUP)
    for name, value in contract["setup"].items():
        if not isinstance(value, str | None):
            raise TypeError(f"setup.{name}={value!r} must be a name or null")
    _check_fields("space", contract["space"], [part.name for part in fields(FeatureSpace)])
    check_choice("space.kind", contract["space"]["kind"], get_args(Kind))
    if contract["space"]["scale"] is not None:
        check_choice("space.scale", contract["space"]["scale"], get_args(LogScale))
    if contract["space"]["cofactor"] is not None:
        check_number("space.cofactor", contract["space"]["cofactor"], above=0)
    for name in ("is_binary", "has_ends"):
        check_flag(f"space.{name}", contract["space"][name])
    if contract["covariate"] is not None:
        check_choice("covariate", contract["covariate"], get_args(Covariate))
    for name in ("var_names", "category_names", "query_batches"):
        _check_list(name, contract[name], str)
    _check_list("selected", contract["selected"], int)
    batches = [*contract["category_names"], *contract["query_batches"]]
    if len(set(batches)) < len(batches):
        raise ValueError("category_names and query_batches repeat a name")
    _check_selected(contract["selected"], len(contract["var_names"]))
    if contract["n_top_features"] is not None:
        check_whole("n_top_features", contract["n_top_features"])
    check_whole("n_components", contract["n_components"])
    check_whole("n_neighbors", contract["n_neighbors"])
    check_seed(contract["seed"])
    if contract["depth"] is not None:
        _check_list("depth", contract["depth"], float)
        if len(contract["depth"]) != 2:
            raise ValueError("depth must be two numbers or null")


def _check_selected(selected: list[int], n_features: int) -> None:
    in_range = selected and selected[0] >= 0 and selected[-1] < n_features
    if not in_range or selected != sorted(set(selected)):
        raise ValueError(f"selected must be ascending positions among {n_features} features")


def _check_module(module: Any) -> None:
    _check_fields("module", module, (*_WIDTHS, *_CHOICES))
    for name in _WIDTHS:
        check_whole(name, module[name], at_most=_LARGEST_WIDTH)
    for name, choices in _CHOICES.items():
        check_choice(name, module[name], choices)


def _check_history(history: Any) -> None:
    if not isinstance(history, dict):
        raise TypeError(f"history must be an object, found {type(history).__name__}")
    for name, values in history.items():
        _check_list(f"history.{name}", values, float)


def _check_fields(name: str, value: Any, fields: Iterable[str]) -> None:
    if not isinstance(value, dict):
        raise TypeError(f"{name} must be an object, found {type(value).__name__}")
    if value.keys() != set(fields):
        differing = sorted(value.keys() ^ set(fields))
        raise ValueError(f"{name} lacks or adds the fields {differing[:5]}")


def _check_list(name: str, value: Any, kind: type) -> None:
    # Exact types, as True is an int.
    if not isinstance(value, list) or any(type(item) is not kind for item in value):
        raise TypeError(f"{name} must be a list of {kind.__name__}")
