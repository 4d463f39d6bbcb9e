"""The Lightning plan: startup, then substituted positives; averaging; history."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from scvi.module.base import LossOutput
from scvi.train import Trainer
from torch import Tensor

from scdiffaug._checks import check_choice, check_number
from scdiffaug._memory import memory_errors_named
from scdiffaug._randomness import seed_of
from scdiffaug._signals import (
    WITHOUT_CHATTER,
    EndingTogether,
    failing_on_termination,
    stop_on_interrupt,
)
from scdiffaug.budget import Budget
from scdiffaug.checkpoint import Checkpoints, Progress
from scdiffaug.module import DiffAugModule, Tensors
from scdiffaug.nn import multiplies_bfloat16
from scdiffaug.pairs import PairBatches
from scdiffaug.processes import Hardware, SameCells, averaged
from scdiffaug.repulsion import USUAL_BALANCE, USUAL_RELATEDNESS
from scdiffaug.schedules import layout_weight, one_cycle

Schedule = Literal["joint", "alternating"]
Precision = Literal["auto", "32-true", "bf16-mixed"]
logger = logging.getLogger("scdiffaug")

_EMA_DECAY = 0.998
# Largest norm of the gradient; a larger one is scaled down to it.
_LARGEST_NORM = 10.0
_OF_THE_GENERATOR = ("diffusion",)


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How a training run learns, beside what its :class:`~scdiffaug.budget.Budget` decides.

    Parameters
    ----------
    alpha
        Probability that the positives of a step are mixed with generated cells, once startup is
        over.
    startup
        Share of the encoder's steps before generated positives begin.
    schedule
        ``"joint"``: both losses at every step. ``"alternating"``: each in every other epoch.
    learning_rate, weight_decay
        Peak learning rate of the one-cycle schedule; weight decay of AdamW.
    balance, relatedness
        How communities share the embedding; see :class:`~scdiffaug.repulsion.Repulsion`.
    precision
        Of matrix products: bfloat16 autocast, or float32.
    seed
        Seed of mixing, noise and substitution.
    """

    alpha: float = 0.5
    startup: float = 0.5
    schedule: Schedule = "joint"
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    balance: float = USUAL_BALANCE
    relatedness: float = USUAL_RELATEDNESS
    precision: Literal["32-true", "bf16-mixed"]
    seed: int = 0

    def __post_init__(self) -> None:
        """Check what a user may set; TypeError or ValueError if it is not allowed."""
        check_choice("schedule", self.schedule, get_args(Schedule))
        checked = {
            "alpha": check_number("alpha", self.alpha, at_least=0, at_most=1),
            "startup": check_number("startup", self.startup, at_least=0, at_most=1),
            "balance": check_number("balance", self.balance, at_least=0, at_most=1),
            "relatedness": check_number("relatedness", self.relatedness, at_least=0, at_most=1),
            "learning_rate": check_number("learning_rate", self.learning_rate, above=0),
            "weight_decay": check_number("weight_decay", self.weight_decay, at_least=0),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)


class DiffAugPlan(pl.LightningModule):
    """Algorithm 1 of Zang et al. 2023 as a training plan.

    Parameters
    ----------
    module
        Encoder and generator.
    options
        How they learn.
    budget
        For how long, and in how many processes.
    """

    def __init__(self, module: DiffAugModule, options: TrainingOptions, budget: Budget) -> None:
        super().__init__()
        self.module, self.options, self.budget = module, options, budget
        self.encoder_steps = max(1, round(budget.encoder_share * budget.n_steps))
        self.records: list[dict[str, float]] = []
        self._epoch: list[Tensors] = []
        self._rng: torch.Generator | None = None
        self._optimizer: torch.optim.Optimizer | None = None
        self._resumed: Progress | None = None
        self._steps_before = 0

    def configure_optimizers(self) -> Any:
        """AdamW with a one-cycle learning rate."""
        options, budget = self.options, self.budget
        encoder, *generator = self.module.parameter_groups()
        groups: list[dict[str, Any]] = [{"params": encoder, "n_steps": self.encoder_steps}]
        groups += [{"params": part, "n_steps": budget.n_steps} for part in generator]
        if generator:
            # For profiles alone: else few genes' dispersions would move (benchmarks/NOTES.md, 47).
            groups[1]["eps"] = budget.generator_epsilon
        optimizer = torch.optim.AdamW(groups, weight_decay=options.weight_decay, fused=True)
        if self._resumed is not None:
            _set_moments(optimizer, self._resumed.tensors)
        self._optimizer = optimizer
        return optimizer

    def on_train_start(self) -> None:
        """Start the stream of random numbers on the device that uses it."""
        self._rng = torch.Generator(self.device).manual_seed(seed_of(self.options.seed, "noise"))
        if self._resumed is not None:
            state = bytes.fromhex(self._resumed.generators["noise"])
            self._rng.set_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))

    def on_train_epoch_start(self) -> None:
        """Seed each of several processes' noise by the epoch: checkpoints hold one state."""
        if self.budget.n_processes > 1:
            assert self._rng is not None
            part = (len(self.records), self.trainer.global_rank)
            self._rng.manual_seed(seed_of(self.options.seed, "noise", *part))

    @property
    def step(self) -> int:
        """Optimiser steps done, those before a checkpoint included."""
        return self._steps_before + self.global_step

    def tensors(self) -> Tensors:
        """All tensors that training changes: weights, averages and the optimiser's moments."""
        weights = {f"module.{name}": part for name, part in self.module.state_dict().items()}
        parameters = [part for group in self.module.parameter_groups() for part in group]
        states = {} if self._optimizer is None else self._optimizer.state
        moments = {
            f"optimizer.{place}.{name}": moment
            for place, parameter in enumerate(parameters)
            for name, moment in (_first_moments(parameter) | states.get(parameter, {})).items()
        }
        return weights | moments

    def progress(self, order: np.random.Generator) -> Progress:
        """What a checkpoint holds, the generator of the order of the cells included."""
        assert self._rng is not None
        noise = self._rng.get_state().numpy().tobytes().hex()
        generators = {"order": order.bit_generator.state, "noise": noise}
        return Progress(records=self.records, generators=generators, tensors=self.tensors())

    def resume(self, progress: Progress, *, steps_per_epoch: int) -> None:
        """Take over the weights of a checkpoint, and all else once training starts."""
        self.records, self._resumed = progress.records, progress
        self._steps_before = len(progress.records) * steps_per_epoch
        self.module.load_state_dict(
            {name: progress.tensors[f"module.{name}"] for name in self.module.state_dict()}
        )

    def on_train_batch_start(self, *_: Any) -> None:
        """Set the rates of encoder and generator, which need not end together."""
        assert self._optimizer is not None
        for group in self._optimizer.param_groups:
            share, momentum = one_cycle(self.step, n_steps=group["n_steps"])
            is_done = self.step >= group["n_steps"]
            group["lr"] = 0.0 if is_done else share * self.options.learning_rate
            group["betas"] = (momentum, group["betas"][1])

    def training_step(self, batch: Tensors, _batch_idx: int) -> Tensor:
        """Loss of one batch."""
        terms = self._terms()
        generated = terms != _OF_THE_GENERATOR and self._is_generated()
        output = self._output(batch, terms, generated=generated)
        self._epoch.append(
            {
                "loss": output.loss.detach(),
                **{name: value.detach() for name, value in output.extra_metrics.items()},
                "generated_share": output.loss.new_full((), float(generated)),
            }
        )
        is_joint = self.options.schedule == "joint"
        if self.budget.n_processes > 1 and is_joint and terms == _OF_THE_GENERATOR:
            # Processes wait for the gradients of all parameters: once the encoder is done, zeros.
            encoder = self.module.parameter_groups()[0]
            return output.loss + 0 * torch.stack([part.sum() for part in encoder]).sum()
        return output.loss

    def _output(self, batch: Tensors, terms: tuple[str, ...], *, generated: bool) -> LossOutput:
        rng = self._rng
        assert rng is not None
        if terms == _OF_THE_GENERATOR:
            return self.module.diffusion_loss(batch, rng=rng)
        batch["views"] = self.module.make_views(batch, generated=generated, rng=rng)
        weight = layout_weight(self.step, n_steps=self.encoder_steps)
        return self.module(
            batch,
            generative_kwargs={"rng": rng, "trains": "diffusion" in terms},
            loss_kwargs={"terms": terms, "layout_weight": weight},
        )[2]

    def _is_generated(self) -> bool:
        """Whether the positives of this step are generated cells, in all processes alike."""
        options, step = self.options, self.step
        begins, ends = options.startup * self.encoder_steps, self.encoder_steps
        if self.module.process is None or not begins <= step < ends:
            return False
        # Seeded by the step, so no state is kept; on the CPU, as a device would have to be asked.
        rng = np.random.default_rng(seed_of(options.seed, "positives", step))
        return rng.random() < options.alpha

    def _terms(self) -> tuple[str, ...]:
        embedding = self.module.objective.terms
        if self.module.process is None:
            return embedding
        encoder_is_done = self.step >= self.encoder_steps
        if self.options.schedule == "alternating":
            return _OF_THE_GENERATOR if len(self.records) % 2 or encoder_is_done else embedding
        return _OF_THE_GENERATOR if encoder_is_done else embedding + _OF_THE_GENERATOR

    def configure_gradient_clipping(
        self, optimizer: torch.optim.Optimizer, *_: Any, **__: Any
    ) -> None:
        """Clip the gradient norm and keep it for the history."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, _LARGEST_NORM)
        self._epoch[-1]["gradient_norm"] = norm

    def on_train_batch_end(self, *_: Any) -> None:
        """Average the generator, over fewer steps at first."""
        self.module.update_ema(min(_EMA_DECAY, (1 + self.step) / (10 + self.step)))

    def on_train_epoch_end(self) -> None:
        """Record means over the epoch, and stop if loss or gradient is not finite.

        Raises
        ------
        FloatingPointError
            If loss or gradient became NaN or infinite.
        """
        # Ctrl-C may end training before the first step of an epoch.
        if not self._epoch:
            return
        # Not all steps train the same terms.
        names = dict.fromkeys(name for step in self._epoch for name in step)
        found = [_mean([s[name] for s in self._epoch if name in s]) for name in names]
        means = dict(zip(names, torch.stack(found).tolist(), strict=True))
        if self.budget.n_processes > 1:
            means = averaged(means)
        self._epoch.clear()
        self.records.append(means)
        # The last step's gradient may spoil weights with which no loss was computed.
        for name in ("loss", "gradient_norm"):
            if not math.isfinite(means[name]):
                raise FloatingPointError(
                    f"The {name.replace('_', ' ')} became {means[name]} in epoch "
                    f"{len(self.records) - 1}: lower learning_rate, or check the data for extreme "
                    "values."
                )

    def history(self) -> dict[str, pd.DataFrame]:
        """One data frame per recorded quantity, indexed by epoch; NaN if it was not trained."""
        table = pd.DataFrame(self.records)
        table.index.name = "epoch"
        return {name: table[[name]] for name in table}


def _mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(tuple(values)).float().mean()


def _first_moments(parameter: Tensor) -> Tensors:
    """AdamW's state of a parameter before its first step."""
    zeros = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
    return {"step": torch.zeros(()), **zeros}


def _set_moments(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, Tensors] = {}
    for key, moment in tensors.items():
        if key.startswith("optimizer."):
            _, place, name = key.split(".")
            state.setdefault(int(place), {})[name] = moment
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


class _Keeping(pl.Callback):
    """Writes checkpoints when epochs are over, in the first process alone."""

    def __init__(
        self, plan: DiffAugPlan, order: np.random.Generator, checkpoints: Checkpoints
    ) -> None:
        self._plan, self._order, self._checkpoints = plan, order, checkpoints

    def on_train_epoch_start(self, trainer: pl.Trainer, _: pl.LightningModule) -> None:
        """Write where the last epoch ended, if that is due."""
        if trainer.is_global_zero and self._plan.records and self._checkpoints.is_due():
            self._checkpoints.write(self._plan.progress(self._order))

    def on_train_end(self, trainer: pl.Trainer, _: pl.LightningModule) -> None:
        """Write where training ended, unless Ctrl-C ended it within an epoch."""
        if trainer.is_global_zero and not trainer.should_stop:
            self._checkpoints.write(self._plan.progress(self._order))


def fit(
    module: DiffAugModule,
    batches: PairBatches,
    options: TrainingOptions,
    *,
    budget: Budget,
    hardware: Hardware,
    enable_progress_bar: bool,
    checkpoints: Checkpoints | None,
) -> tuple[dict[str, pd.DataFrame], bool]:
    """Train a module in place; SystemExit of status 143 on SIGTERM.

    Returns
    -------
    The history, and whether Ctrl-C was pressed. The module ends on the device of its process.
    """
    plan = DiffAugPlan(module, options, budget)
    callbacks: list[pl.Callback] = []
    if checkpoints is not None:
        _go_on(plan, batches, checkpoints)
        callbacks.append(_Keeping(plan, batches.rng, checkpoints))
    if hardware.n_processes > 1:
        callbacks += [SameCells(batches.digest()), EndingTogether()]
    with WITHOUT_CHATTER:
        trainer = Trainer(
            max_epochs=budget.max_epochs - len(plan.records),
            **asdict(hardware),
            precision=options.precision,
            benchmark=False,
            logger=False,
            enable_progress_bar=enable_progress_bar,
            callbacks=callbacks,
        )
        batches.process = trainer.global_rank
        module.train()
        with (
            stop_on_interrupt(trainer),
            failing_on_termination(),
            memory_errors_named(batches.batch_size),
        ):
            trainer.fit(plan, batches)
    module.to(trainer.strategy.root_device).eval()
    if (n_trained := len(plan.records)) < budget.max_epochs:
        logger.warning(
            "Training was stopped after %d of %d epochs: it learnt less than it would have.",
            n_trained,
            budget.max_epochs,
        )
    return plan.history(), trainer.should_stop


def _go_on(plan: DiffAugPlan, batches: PairBatches, checkpoints: Checkpoints) -> None:
    """Set plan and batches to where the checkpoint stands, if there is one."""
    progress = checkpoints.read(plan.tensors())
    if progress is not None:
        plan.resume(progress, steps_per_epoch=len(batches))
        batches.rng.bit_generator.state = progress.generators["order"]
        logger.info("Resumed after epoch %d.", len(progress.records))


def best_precision(accelerator: str) -> Literal["bf16-mixed", "32-true"]:
    """bfloat16 autocast where the hardware multiplies it, else float32."""
    return "bf16-mixed" if multiplies_bfloat16(accelerator) else "32-true"
