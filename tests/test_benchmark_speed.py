"""The speed benchmark, on so few cells that its figures mean nothing."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scdiffaug import benchmark
from scdiffaug.benchmark._speed import gauges, study
from scdiffaug.benchmark._speed.gauges import GAUGES, Size

TINY = Size(cells=120, features=40, density=0.3, epochs=2, made=20, steps=(1, 3))


@pytest.mark.parametrize("density", [0.05, 0.3, 0.9])
def test_simulated_counts_are_as_dense_as_asked(density: float) -> None:
    size = Size(cells=1500, features=200, density=density, epochs=1, made=1, steps=())
    x = gauges.simulated_counts(size)
    assert x.shape == (1500, 200)
    assert x.nnz / np.prod(x.shape) == pytest.approx(density, rel=0.2)
    assert (x.data == np.rint(x.data)).all()
    assert x.sum(1).min() >= 1
    assert (x != gauges.simulated_counts(size)).nnz == 0


@pytest.mark.parametrize(
    "name", ["train_scdiffaug", "sample_scdiffaug", "load_csr", "load_backed", "load_lazy"]
)
def test_gauges_measure_rates(name: str) -> None:
    measured = GAUGES[name](TINY)
    assert measured
    assert all(np.isfinite(value) and value > 0 for value in measured.values())


def test_flops_are_those_of_the_networks() -> None:
    measured = gauges.train_scdiffaug(TINY)
    # Each weight is multiplied at least once forwards and twice backwards, in two views.
    assert measured["flops_per_cell"] > 2 * 3 * 2 * (40 * 500 + 500 * 300 + 2 * 80 * 500)


def test_what_the_machine_multiplies_is_measured_at_its_best(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gauges, "_GEMM_SECONDS", 0.0)
    assert gauges.matrix_product(TINY)["flops_per_second"] > 1e8


def test_rounds_are_measured_in_turn_and_a_failure_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def measured(gauge: str, _size: Size, *, timeout: float) -> dict[str, float]:
        assert timeout > 0
        asked.append(gauge)
        if gauge == "sample_scvi":
            raise RuntimeError("no scVI here")
        rates = {"cells_per_second": 100.0 * len(asked), "peak_mb": 7}
        return rates | {"flops_per_second": 1e9, "flops_per_cell": 1e5, "bits": 16}

    monkeypatch.setattr(study, "_measured", measured)
    results = benchmark.speed(n_cells=100, n_rounds=2, out=tmp_path, show_progress=False)
    assert asked == [*GAUGES, *GAUGES]
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "results.csv", keep_default_na=False, na_values={"value": ""}),
        results,
        check_dtype=False,
    )
    said = (tmp_path / "summary.md").read_text()
    assert "scdiffaug benchmark speed --cells 100" in said
    assert "| training | 650 (200–1,100) | 750 (300–1,200) | 0.8 (0.7–0.9) |" in said
    assert "no scVI here" in said


def test_a_measurement_has_a_process_of_its_own() -> None:
    found = study._measured("load_dense", TINY, timeout=120)
    assert found["cells_per_second"] > 0
    assert found["peak_mb"] > 10
