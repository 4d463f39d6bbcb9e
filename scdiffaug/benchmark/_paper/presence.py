"""Which of the paper's datasets are here, and what stands in for those that are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scdiffaug import datasets
from scdiffaug.benchmark.inputs import Dataset, prepare_cells
from scdiffaug.datasets import Entry


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One dataset of the paper.

    Parameters
    ----------
    name
        The paper's name.
    entry
        Its name in the registry of datasets.
    stand_ins
        Smaller datasets of its kind, by their names in the registry.
    note
        What else there is to know.
    """

    name: str
    entry: str
    stand_ins: tuple[str, ...] = ()
    note: str = ""


WANTED = (
    Wanted(
        name="HCL",
        entry="hcl",
        note="Of its parts only hcl_fetal_thymus is at hand, whose labels are predictions.",
    ),
    Wanted(
        name="Gast",
        entry="gastric",
        stand_ins=("gastrulation_seqfish",),
        note="The paper's own file is not public.",
    ),
    Wanted(name="SAM", entry="samusik", stand_ins=("cytof_immune_20k",)),
    Wanted(name="MCA", entry="mca_1_1", stand_ins=("mca_stomach_intestine", "mca_bladder")),
)


def present(*, max_cells: int, cache: Path) -> tuple[list[Dataset], list[str]]:
    """Prepared datasets, named after the paper's, and what is missing, in words.

    Raises
    ------
    FileNotFoundError
        If none of them is here, nor any stand-in.
    """
    known = datasets.registry()
    found: dict[str, Entry] = {}
    said: list[str] = []
    for wanted in WANTED:
        if _is_usable(known[wanted.entry]):
            found[wanted.name] = known[wanted.entry]
            continue
        here = [known[name] for name in wanted.stand_ins if _is_usable(known[name])]
        found |= {f"{wanted.name} stand-in {entry.name}": entry for entry in here}
        said.append(_missing(wanted, known[wanted.entry], here))
    if not found:
        raise FileNotFoundError(f"No dataset of the paper is here. {' '.join(said)}")
    prepared = [
        prepare_cells(
            datasets.load(entry, progress=False),
            name,
            label_key=str(entry.label_key),
            cache=cache,
            max_cells=max_cells,
        )
        for name, entry in found.items()
    ]
    return prepared, said


def _is_usable(entry: Entry) -> bool:
    return entry.label_key is not None and datasets.whereabouts(entry) == "here"


def _missing(wanted: Wanted, entry: Entry, here: Sequence[Entry]) -> str:
    if entry.label_key is None:
        way = "no types are recorded for it, so that it could not be scored"
    elif datasets.whereabouts(entry) == "by hand":
        way = f"put {' and '.join(entry.reads)} into SCDIFFAUG_DATA_DIR"
    else:
        way = f"get it by 'scdiffaug data fetch {entry.name}'"
    instead = [f"{each.name} ({each.title}, {each.n_cells} cells)" for each in here]
    words = f"{' and '.join(instead)} in its place." if instead else "Nothing stands in for it."
    return f"{wanted.name} is missing ({entry.title}): {way}. {words} {wanted.note}".strip()
