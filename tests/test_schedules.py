"""What changes with the step: rates, momenta, the layout."""

import pytest
import torch

from scdiffaug.schedules import layout_weight, one_cycle


@pytest.mark.parametrize("n_steps", [*range(1, 25), 800])
def test_rates_and_momenta_are_those_of_torch(n_steps: int) -> None:
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)])
    total = n_steps + 1
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.0, total_steps=total, pct_start=max(0.1, 2 / total)
    )
    for step in range(n_steps):
        group = optimizer.param_groups[0]
        assert one_cycle(step, n_steps=n_steps) == pytest.approx((group["lr"], group["betas"][0]))
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize("n_steps", [*range(1, 25), 800])
def test_learning_rate_rises_and_falls_however_few_the_steps(n_steps: int) -> None:
    rates = [one_cycle(step, n_steps=n_steps)[0] for step in range(1, n_steps + 1)]
    assert max(rates) == pytest.approx(1, rel=0.1)
    assert n_steps < 3 or rates[-1] < 0.01


def test_the_rate_stays_at_its_end() -> None:
    rate, momentum = one_cycle(500, n_steps=500)
    assert rate < 1e-5
    assert one_cycle(800, n_steps=500) == (rate, momentum)


@pytest.mark.parametrize(("step", "weight"), [(0, 1), (5, 0.75), (20, 0), (99, 0)])
def test_layout_is_let_go_of_by_a_fifth_of_the_steps(step: int, weight: float) -> None:
    assert layout_weight(step, n_steps=100) == pytest.approx(weight)
