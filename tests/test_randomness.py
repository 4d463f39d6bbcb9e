"""One seed, several streams that do not meet."""

from concurrent.futures import ThreadPoolExecutor
from typing import get_args

import numpy as np
import pytest
import torch
from anndata import AnnData
from refusals import Bench

from scdiffaug import scDiffAug
from scdiffaug._randomness import Stream, seed_of
from scdiffaug.pairs import PairBatches

STREAMS = get_args(Stream)
FIRST = [1359667461, 988181306, 1590903676]


def test_no_two_streams_meet_in_a_hundred_seeds() -> None:
    seeds = [seed_of(seed, stream) for seed in range(100) for stream in STREAMS]
    parts = [seed_of(0, "blocks", number) for number in range(100)]
    assert len({*seeds, *parts}) == len(seeds) + len(parts)


def test_a_stream_stays_what_it_is() -> None:
    """A model's result would change with them: a changed number here is a changelog entry."""
    assert [seed_of(0, "noise"), seed_of(0, "batches"), seed_of(7, "blocks", 3)] == FIRST


def test_what_noise_draws_does_not_move_the_order_of_the_cells(
    pbmc: AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seen = PairBatches.__iter__, []

    def spied(batches: PairBatches) -> object:
        for batch in real(batches):
            seen[-1].append(batch["inputs"].numpy())
            yield batch

    monkeypatch.setattr(PairBatches, "__iter__", spied)
    for alpha in (0.0, 1.0):
        seen.append([])
        scDiffAug(pbmc).train(max_epochs=2, alpha=alpha, enable_progress_bar=False)
    assert len(seen[0]) == len(seen[1])
    for one, other in zip(*seen, strict=True):
        np.testing.assert_array_equal(one, other)


def test_models_built_in_threads_at_once_begin_alike(pbmc: AnnData) -> None:
    parts = [pbmc[:60, :40].copy() for _ in range(16)]
    with ThreadPoolExecutor(4) as pool:
        models = list(pool.map(lambda cells: scDiffAug(cells, n_semantic=8), parts))
    first, *others = (model.module.state_dict() for model in models)
    for other in others:
        assert all(torch.equal(first[name], other[name]) for name in first)


def test_new_cells_made_in_threads_at_once_are_the_same_and_the_model_stays(bench: Bench) -> None:
    model = scDiffAug.load(bench.folder / "model", adata=False)
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(lambda _: model.augment(bench.adata, seed=1).X.toarray(), range(9)))
    for other in made[1:]:
        np.testing.assert_array_equal(other, made[0])
    for name, value in model.module.state_dict().items():
        assert value.dtype == before[name].dtype, name
        assert torch.equal(value, before[name]), name
