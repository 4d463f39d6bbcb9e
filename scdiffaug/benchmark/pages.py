"""What the reports of all benchmarks are made of: tables in Markdown, and files."""

from __future__ import annotations

import math
import os
import platform
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from scdiffaug.storage import write_whole


def markdown(table: pd.DataFrame) -> str:
    """A table in Markdown; names may hold what would end a column or begin a tag."""
    cells = table.astype(str).map(_escaped)
    head = [_escaped(str(column)) for column in cells.columns]
    rows = [head, ["---"] * len(head), *cells.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def hardware(*, gpu: bool = False) -> str:
    """What a benchmark runs on, in words."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    named = [platform.system(), _processor(), f"Python {platform.python_version()}"]
    words = f"{cores} cores ({', '.join(name for name in named if name)})"
    if not gpu:
        return words
    import torch

    return f"one {torch.cuda.get_device_name()}, {words}"


def _processor() -> str:
    """Name of the processor, which Linux alone tells in a file."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def command_line(study: str, data: Sequence[str | Path], options: Mapping[str, object]) -> str:
    """The equivalent command line; options that are None or False are left out."""
    words = ["scdiffaug", "benchmark", study]
    words += [word for path in data for word in ("--data", str(path))]
    for name, value in options.items():
        if value is True:
            words.append(f"--{name}")
        elif value is not None and value is not False:
            words += [f"--{name}", str(value)]
    return shlex.join(words)


def n_seeds(results: pd.DataFrame) -> str:
    """How many seeds there are, in words; methods and datasets may differ in it."""
    found = results.groupby(["method", "dataset"])["seed"].nunique()
    few, many = found.min(), found.max()
    if few < many:
        return f"{few} to {many} seeds"
    return f"{many} seed" if many == 1 else f"{many} seeds"


def interval(low: float, high: float) -> str:
    """An interval in words."""
    return "–" if math.isnan(low) else f"{low:+.1f} to {high:+.1f}"


def write(out: Path, results: pd.DataFrame, *, summary: str) -> None:
    """Write the table and the report of a study into a folder, each whole or not at all."""
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / "results.csv", lambda aside: results.to_csv(aside, index=False))
    write_whole(out / "summary.md", lambda aside: aside.write_text(summary, encoding="utf-8"))


def joined(parts: Iterable[str]) -> str:
    """Parts of a report in Markdown, with a blank line between them."""
    return "\n\n".join(parts) + "\n"


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all, without a display."""
    FigureCanvasAgg(figure)
    write_whole(path, lambda aside: figure.savefig(aside, dpi=110))


def failures(results: pd.DataFrame) -> list[str]:
    """Runs without a result and their reasons, in Markdown; empty where there are none."""
    failed = results[results["note"].fillna("") != ""]
    if failed.empty:
        return []
    table = failed[["dataset", "method", "note"]].drop_duplicates()
    return ["## Runs without a result", markdown(table)]


def versions(results: pd.DataFrame) -> str:
    """Versions that each method ran with, in Markdown."""
    known = results[results["versions"].fillna("") != ""]
    return markdown(known[["method", "versions"]].drop_duplicates())
