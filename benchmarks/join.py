"""Rows of several runs of the embedding benchmark in one table.

``python benchmarks/join.py results/embedding MORE.csv [...]`` adds the rows of more
``results.csv`` to those of a folder, in place of older ones of the same dataset, method and seed,
and makes its tables and ranks anew. What stands above the tables in ``summary.md`` stays: say
there which rows are of which run.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from scdiffaug.benchmark import pages
from scdiffaug.benchmark._embedding import report

RUN = ["dataset", "method", "seed"]


def joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """All rows; where runs are in several tables, those of the last."""
    results = tables[0]
    for more in tables[1:]:
        is_new = pd.MultiIndex.from_frame(results[RUN]).isin(pd.MultiIndex.from_frame(more[RUN]))
        results = pd.concat([results[~is_new], more], ignore_index=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("more", nargs="*", type=Path)
    given = parser.parse_args()
    kept = given.folder / "results.csv"
    results = joined([pd.read_csv(path) for path in (kept, *given.more)])
    summary = given.folder / "summary.md"
    above = summary.read_text("utf-8").split("\n## ")[0].rstrip()
    page = report.Page(title="", command="")
    text = pages.joined([above, *report.tables(results, page=page)])
    pages.write(given.folder, results, summary=text)
    pages.save(report.ranks_figure(results, names=page.names), given.folder / "ranks.png")


if __name__ == "__main__":
    main()
