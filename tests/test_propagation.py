"""The projection averaged over the graph at the end of training."""

from __future__ import annotations

import numpy as np
from anndata import AnnData
from scipy.spatial.distance import cdist

from scdiffaug import scDiffAug


def trained(cells: AnnData, **options: float) -> scDiffAug:
    model = scDiffAug(cells, diffusion="none")
    model.train(max_epochs=60, enable_progress_bar=False, **options)
    return model


def spread_of_neighbours(model: scDiffAug, cells: AnnData) -> float:
    """Distance to the tenth neighbour in the plane, as a share of that to any cell."""
    z = model.get_latent_representation(cells, representation="projection")
    distances = np.sort(cdist(z, z), axis=1)
    return float(distances[:, 10].mean() / distances.mean())


def test_groups_draw_together_and_semantic_vectors_stay(pbmc: AnnData) -> None:
    plain, propagated = trained(pbmc, propagation=0), trained(pbmc)
    assert spread_of_neighbours(propagated, pbmc) < 0.8 * spread_of_neighbours(plain, pbmc)
    np.testing.assert_array_equal(
        plain.get_latent_representation(), propagated.get_latent_representation()
    )


def test_new_cells_draw_together_too(pbmc: AnnData) -> None:
    rng = np.random.default_rng(0)
    new = rng.random(pbmc.n_obs) < 0.2
    old, held_out = pbmc[~new].copy(), pbmc[new].copy()
    plain, propagated = trained(old, propagation=0), trained(old)
    assert spread_of_neighbours(propagated, held_out) < 0.95 * spread_of_neighbours(
        plain, held_out
    )
