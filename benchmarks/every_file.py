"""The three usage lines on every file of the data folder, with default settings.

``python benchmarks/every_file.py [NAME ...]`` writes ``results/every_file.{csv,md}``.
"""

from __future__ import annotations

import json
import resource
import sys
import time
import warnings

from common import DATA, in_own_process, load, write_table


def measure(name: str) -> dict[str, float | int | str]:
    """One file: seconds to train and to augment, peak memory, warnings met."""
    import scdiffaug
    from scdiffaug import scDiffAug

    adata = load(name)
    with warnings.catch_warnings(record=True) as met:
        warnings.simplefilter("default")
        start = time.perf_counter()
        model = scDiffAug(adata)
        model.train()
        trained = time.perf_counter()
        made = scdiffaug.tl.augment(adata, model)
        end = time.perf_counter()
    return {
        "file": name,
        "cells": adata.n_obs,
        "features": adata.n_vars,
        "space": model.feature_space,
        "epochs": len(model.history["loss"]),
        "train (s)": round(trained - start, 1),
        "augment (s)": round(end - trained, 1),
        "cells made per s": round(made.n_obs / (end - trained)),
        "peak memory (MB)": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "warnings": "; ".join(sorted({str(w.message)[:80] for w in met})) or "none",
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(sys.argv[2])))
    else:
        names = sys.argv[1:] or sorted(path.stem for path in DATA.glob("*.h5ad"))
        rows = []
        for name in names:
            rows.append(in_own_process("every_file.py", "--one", name))
            print(rows[-1], flush=True)
            write_table(
                rows,
                "every_file",
                title="Default settings on every file, 2 cores",
                command="python benchmarks/every_file.py",
            )
