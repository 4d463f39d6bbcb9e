"""The scale on which Gaussian noise is added: standardised values, or normal scores."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import sparse, stats
from torch import Tensor

from scdiffaug.marginals import FeatureScale
from scdiffaug.nn import LOWEST_SCORE, NEVER

N, D = 300, 12


def values(zero_share: float) -> NDArray[np.float32]:
    draw = np.random.default_rng(0)
    x = draw.gamma(2, size=(N, D)) * (draw.random((N, D)) >= zero_share)
    return x.astype(np.float32)


def fitted(x: NDArray[np.float32] | sparse.csr_matrix) -> FeatureScale:
    scale = FeatureScale(x.shape[1])
    scale.fit(x)
    return scale


def scaled(scale: FeatureScale, x: NDArray[np.float32]) -> Tensor:
    return scale(torch.from_numpy(x), rng=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("zero_share", [0.3, 0.8])
def test_inverse_brings_values_back_and_stays_within_their_bounds(zero_share: float) -> None:
    x = values(zero_share)
    for matrix in (x, sparse.csr_matrix(x)):
        scale = fitted(matrix)
        back = scale.inverse(scaled(scale, x)).numpy()
        np.testing.assert_array_equal(back == 0, x == 0)
        np.testing.assert_allclose(back, x, rtol=1e-5, atol=1e-5)
        far = scale.inverse(torch.tensor([[-99.0] * D, [99.0] * D])).numpy()
        np.testing.assert_allclose(far, [x.min(0), x.max(0)])


def test_few_lowest_values_are_spread_below_the_others() -> None:
    x = values(0.3)
    scale = fitted(x)
    assert (scale.lowest_log_odds == NEVER).all()
    noised = scaled(scale, x)
    zeros = noised[:, 0][x[:, 0] == 0]
    assert len(zeros.unique()) == len(zeros)
    assert zeros.max() < noised[:, 0][x[:, 0] > 0].min()


@pytest.mark.parametrize("zero_share", [0.3, 0.8])
def test_a_scale_that_was_loaded_is_the_one_that_was_saved(zero_share: float) -> None:
    x = values(zero_share)
    scale, other = fitted(x), fitted(values(1.1 - zero_share))
    other.load_state_dict(scale.state_dict())
    assert torch.equal(scaled(other, x), scaled(scale, x))


def test_many_lowest_values_have_one_place_and_the_others_are_normal() -> None:
    x = values(0.8)
    scale = fitted(x)
    noised = scaled(scale, x).numpy()
    assert (noised[x == 0] == np.float32(LOWEST_SCORE)).all()
    assert stats.kstest(noised[x > 0], "norm").pvalue > 0.01
    odds = (x == 0).sum(0) / (x > 0).sum(0)
    np.testing.assert_allclose(scale.lowest_log_odds, np.log(odds), atol=0.02)


def test_values_that_many_cells_have_are_spread_over_their_scores() -> None:
    x = np.zeros((N, 2), np.float32)
    x[:90, 0], x[90:120, 0], x[0, 1] = 1, 3, 7
    scale = fitted(x)
    noised = scaled(scale, x)
    ones = noised[:90, 0]
    assert ones.std() > 0.5
    assert ones.max() < noised[90:120, 0].max()
    back = scale.inverse(noised).numpy()
    np.testing.assert_allclose(np.unique(back[:, 1]), [0, 7])
    assert np.isin(back[:, 0].round(3), [0, 1, 3]).mean() > 0.95


def test_a_feature_that_never_varies_stays_what_it_is() -> None:
    x = values(0.8)
    x[:, 3] = 0
    scale = fitted(x)
    assert (scale.inverse(scaled(scale, x))[:, 3] == 0).all()
    assert (scale.inverse(torch.full((1, D), 2.0))[:, 3] == 0).all()
