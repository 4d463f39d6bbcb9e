"""The scale on which Gaussian noise is added to values of features, and its inverse."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import norm
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from scdiffaug.matrices import Matrix
from scdiffaug.nn import LOWEST_SCORE, NEVER

# Largest normal score, and number of the scores at which quantiles are kept.
_MOST_SCORE, _N_KNOTS = 3.3, 67


class FeatureScale(nn.Module):
    r"""Scale on which each feature has about unit variance, fitted on training cells.

    If most values of the matrix are above the lowest of their feature, as in cytometry, they are
    standardised. The lowest are spread over one standard deviation below the others, as noise
    hides that many values are the very same.

    If most are the lowest, as in log-normalised TPM, those above are mapped to their normal
    scores, :math:`\Phi^{-1}` of their quantile (the nonparanormal of Liu et al. 2009), and the
    lowest to one place below. From the odds of the lowest, a network tells which values they are
    (:class:`~scdiffaug.nn.ValueGenerator`; benchmarks/NOTES.md, 48).

    Parameters
    ----------
    n_features
        Number of features.
    """

    mean: Tensor
    std: Tensor
    lowest: Tensor
    highest: Tensor
    knots: Tensor
    lowest_log_odds: Tensor
    scores: Tensor

    def __init__(self, n_features: int) -> None:
        super().__init__()
        for name, value in (("mean", 0.0), ("std", 1.0), ("lowest", 0.0), ("highest", 0.0)):
            self.register_buffer(name, torch.full((n_features,), value))
        self.register_buffer("knots", torch.zeros(n_features, _N_KNOTS))
        self.register_buffer("lowest_log_odds", torch.full((n_features,), NEVER))
        self.register_buffer(
            "scores", torch.linspace(-_MOST_SCORE, _MOST_SCORE, _N_KNOTS), persistent=False
        )
        # Told once, as a step would have to wait until a device tells it.
        self._has_place = False
        self.register_load_state_dict_post_hook(_tell_place)

    @torch.no_grad()
    def fit(self, x: Matrix) -> None:
        """Fit on training cells, shape ``(n, d)``."""
        scaler = StandardScaler(with_mean=not sparse.issparse(x)).fit(x)
        self.mean.copy_(torch.as_tensor(x.mean(0)).flatten())
        self.std.copy_(torch.as_tensor(scaler.scale_))
        for name, bound in (("lowest", x.min(0)), ("highest", x.max(0))):
            dense = bound.toarray() if sparse.issparse(bound) else bound
            getattr(self, name).copy_(torch.as_tensor(dense).flatten())
        self._fit_scores(x)
        _tell_place(self)

    def _fit_scores(self, x: Matrix) -> None:
        above = _values_above(x, self.lowest.cpu().numpy())
        n_above = np.array([len(values) for values in above])
        if n_above.mean() >= x.shape[0] / 2:
            self.lowest_log_odds.fill_(NEVER)
            return
        odds = (x.shape[0] - n_above + 0.5) / (n_above + 0.5)
        self.lowest_log_odds.copy_(torch.as_tensor(np.log(odds)))
        shares = norm.cdf(self.scores.cpu().numpy())
        # The outermost knots are the least and the largest value.
        shares[[0, -1]] = 0, 1
        for knots, values, lowest in zip(self.knots, above, self.lowest, strict=True):
            knots.copy_(torch.as_tensor(np.quantile(values, shares)) if len(values) else lowest)

    def forward(self, x: Tensor, *, rng: torch.Generator) -> Tensor:
        """Values on the scale, shape ``(n, d)``."""
        is_lowest = x <= self.lowest
        draws = torch.rand(x.shape, generator=rng, device=x.device)
        if not self._has_place:
            spread = torch.where(is_lowest, self.lowest - draws * self.std, x)
            return (spread - self.mean) / self.std
        # A value that many cells share gets any of the scores that it spans.
        scores = torch.lerp(self._scores(x, right=False), self._scores(x, right=True), draws)
        return torch.where(is_lowest, LOWEST_SCORE, scores)

    def inverse(self, scaled: Tensor) -> Tensor:
        """Values from scaled ones, shape ``(n, d)``, within the bounds of their features."""
        if not self._has_place:
            return (scaled * self.std + self.mean).clamp(self.lowest, self.highest)
        place = (scaled.clamp(-_MOST_SCORE, _MOST_SCORE) + _MOST_SCORE) / self._gap
        knot = place.long().clamp_max_(_N_KNOTS - 2).T
        left, right = self.knots.gather(1, knot).T, self.knots.gather(1, knot + 1).T
        values = torch.lerp(left, right, place - knot.T)
        is_lowest = scaled < (LOWEST_SCORE - _MOST_SCORE) / 2
        return torch.where(is_lowest, self.lowest, values)

    def _scores(self, x: Tensor, *, right: bool) -> Tensor:
        """Normal scores; the least or the largest if a value has several."""
        values = x.T.contiguous()
        knot = torch.searchsorted(self.knots, values, right=right).clamp_(1, _N_KNOTS - 1)
        left, width = self.knots.gather(1, knot - 1), self.knots.diff(dim=1).gather(1, knot - 1)
        share = ((values - left) / width.clamp_min(torch.finfo(width.dtype).tiny)).clamp_(0, 1)
        return (self.scores[0] + self._gap * (knot - 1 + share)).T

    @property
    def _gap(self) -> float:
        return 2 * _MOST_SCORE / (_N_KNOTS - 1)


def _tell_place(scale: FeatureScale, _keys: object = None) -> None:
    """Note whether the lowest values have a place below the others."""
    scale._has_place = bool((scale.lowest_log_odds > NEVER).all())


def _values_above(x: Matrix, lowest: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """For each feature, the values above its lowest."""
    columns: Any = sparse.csc_matrix(x) if sparse.issparse(x) else x
    above = []
    for j, least in enumerate(lowest):
        values = columns[:, [j]].toarray().ravel() if sparse.issparse(x) else columns[:, j]
        above.append(values[values > least])
    return above
