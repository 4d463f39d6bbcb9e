"""Communities of many cells leave room in the plane to those of few."""

from __future__ import annotations

import numpy as np
import pytest
from anndata import AnnData

from scdiffaug import scDiffAug
from scdiffaug.contract import balanced_repulsion

SIZES = (400, 50, 50)


@pytest.mark.parametrize(("balance", "ratio"), [(0.0, 1.0), (0.5, 2.0), (1.0, 4.0)])
def test_repulsion_falls_with_the_size_of_the_community(balance: float, ratio: float) -> None:
    repulsion = balanced_repulsion(np.repeat([0, 1], [8, 2]), balance)
    assert repulsion.shape == (10,)
    assert repulsion.mean() == pytest.approx(1)
    assert repulsion[9] / repulsion[0] == pytest.approx(ratio)


def unequal_groups() -> AnnData:
    """Poisson counts of three groups, each with genes of its own."""
    rng = np.random.default_rng(0)
    profiles = np.where(np.arange(60) // 20 == np.arange(3)[:, None], 6.0, 1.0)
    counts = rng.poisson(np.repeat(profiles, SIZES, axis=0)).astype(np.float32)
    return AnnData(counts)


def share_of_room(balance: float) -> float:
    """Variance of z within the largest group, as a share of all variance."""
    model = scDiffAug(unequal_groups(), diffusion="none")
    model.train(max_epochs=60, balance=balance, enable_progress_bar=False)
    z = model.get_latent_representation(representation="projection")
    return float(z[: SIZES[0]].var(0).sum() / z.var(0).sum())


def test_the_largest_group_takes_less_room_where_communities_are_balanced() -> None:
    assert share_of_room(1.0) < 0.7 * share_of_room(0.0)
