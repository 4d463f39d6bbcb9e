"""Encoder and generator as one scvi-tools module: views, forward passes and named losses."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scvi.module.base import BaseModuleClass, LossOutput
from torch import Tensor, nn

from scdiffaug import diffusion, losses
from scdiffaug.components import PrincipalAxes
from scdiffaug.encoder_inputs import EncoderInputs
from scdiffaug.features import FeatureSpace
from scdiffaug.marginals import FeatureScale
from scdiffaug.matrices import Matrix
from scdiffaug.neighborhood import Within
from scdiffaug.nn import (
    CountGenerator,
    SemanticEncoder,
    ValueGenerator,
    move_average,
)
from scdiffaug.objectives import OBJECTIVES, ObjectiveName

Condition = Literal["semantic", "labels", "random"]
Diffusion = Literal["counts", "gaussian", "none"]
Tensors = dict[str, Tensor]

# The encoder sees reads per 10,000; to draw all of deep cells would take gigabytes and minutes.
_MOST_READS_OF_A_VIEW = 10_000


class DiffAugModule(BaseModuleClass):
    """Semantic encoder and conditional generator (Zang et al. 2023, algorithm 1).

    The generator is conditioned on the y of a cell's neighbourhood, the mean of its neighbours
    without itself. The cell's own y would identify it, and the generator would memorise the cell.

    Parameters
    ----------
    n_features, selected, space, n_components, n_references, n_neighbors
        As in :class:`EncoderInputs`.
    n_categories
        Number of labels that the generator sees (``condition="labels"``), or else of batches,
        whose offsets are also subtracted from the encoder's inputs; 0 for none.
    n_query_batches
        Number of batches mapped after training, whose offsets alone are known.
    n_semantic, n_projection
        Widths of y and z.
    objective, condition, diffusion
        What the encoder learns by, what the generator is conditioned on, and its forward process.
    """

    def __init__(
        self,
        n_features: int,
        selected: Sequence[int],
        space: FeatureSpace,
        *,
        n_categories: int,
        n_query_batches: int,
        n_components: int,
        n_references: int,
        n_neighbors: int,
        n_semantic: int,
        n_projection: int,
        objective: ObjectiveName,
        condition: Condition,
        diffusion: Diffusion,
    ) -> None:
        super().__init__()
        self.space, self.condition_on = space, condition
        self.inputs = EncoderInputs(
            n_features,
            selected,
            space,
            n_components=n_components,
            n_batches=0 if condition == "labels" else n_categories,
            n_query_batches=n_query_batches,
            n_references=n_references,
            n_neighbors=n_neighbors,
        )
        self.encoder = SemanticEncoder(
            n_components, n_semantic=n_semantic, n_projection=n_projection
        )
        self.objective = OBJECTIVES[objective](self.encoder)
        self.process = _process(diffusion, space)
        self.categories: nn.Embedding | None = None
        if self.process is not None:
            network = CountGenerator if self.makes_counts else ValueGenerator
            self.generator: ValueGenerator | CountGenerator = network(
                n_features, n_condition=n_semantic
            )
            if not self.makes_counts:
                self.scale = FeatureScale(n_features)
            self.ema_generator = copy.deepcopy(self.generator).requires_grad_(False)
            if n_categories:
                self.categories = nn.Embedding(n_categories, n_semantic)
                # Random vectors beside y would name the few cells of a small batch (NOTES, 60).
                nn.init.normal_(self.categories.weight, std=float(condition == "labels"))

    def fit_cells(self, x: Matrix, inputs: NDArray[np.float32], axes: PrincipalAxes) -> None:
        """Fit what training does not change.

        Parameters
        ----------
        x
            Training cells as the generator sees them, shape ``(n, d)``, or some that stand for
            all.
        inputs
            Encoder inputs of all training cells, shape ``(n, n_inputs)``.
        axes
            Projection from features to these inputs.
        """
        self.inputs.fit_axes(axes)
        self.inputs.fit_profile(x)
        self.inputs.fit_references(inputs)
        self.fit_scale(x)

    @torch.no_grad()
    def fit_scale(self, x: Matrix) -> None:
        """Start the generator from the training cells' mean profile, or fit their scale."""
        if self.process is None:
            return
        if isinstance(self.generator, CountGenerator):
            profile = torch.as_tensor(np.asarray(x.sum(0)).ravel() + 1.0).log()
            self.generator.profile.out.bias.copy_(profile - profile.mean())
        else:
            self.scale.fit(self.space.transform(x) if self.space.is_counts else x)
            self.generator.lowest_log_odds.copy_(self.scale.lowest_log_odds)
        self.ema_generator.load_state_dict(self.generator.state_dict())

    def make_views(self, batch: Tensors, *, generated: bool, rng: torch.Generator) -> Tensor:
        r"""Positives of a batch, shape ``(n, k)``: mixtures of a cell and a similar one.

        :math:`x^+ = \lambda x_i + (1-\lambda) x_j` with j a neighbour of i. If ``generated``, x_j
        is what the averaged generator makes from y of the neighbourhood, for all cells of a batch,
        as a few would cost nearly as much.
        """
        x, other = batch["inputs"], batch["neighbor_inputs"]
        if generated:
            other = self._generated_inputs(batch, rng)
        mix = torch.rand(len(x), 1, generator=rng, device=x.device)
        return torch.lerp(other, x, mix)

    @torch.no_grad()
    def _generated_inputs(self, batch: Tensors, rng: torch.Generator) -> Tensor:
        y = self._fixed_semantic(batch["neighborhood"])
        depth = batch["depth"].clamp_max(_MOST_READS_OF_A_VIEW)
        made = self.sample(
            # Cells made from pure noise take nothing from the source.
            depth.new_zeros(len(depth), batch["x"].shape[1]),
            y,
            batch["covariates"],
            strength=1.0,
            # As positives, cells of one step are as good as of four (benchmarks/NOTES.md, 40).
            n_steps=1,
            rng=rng,
            depth=depth,
        )
        return self.inputs(self.inputs.seen(made), batch["covariates"])

    @torch.no_grad()
    def _fixed_semantic(self, inputs: Tensor) -> Tensor:
        """Semantic embedding in evaluation mode, without a gradient."""
        was_training = self.encoder.training
        self.encoder.eval()
        y = self.encoder.semantic(inputs)
        self.encoder.train(was_training)
        return y

    def _get_inference_input(self, tensors: Tensors, **_: Any) -> Tensors:
        return {"x": torch.cat([tensors["inputs"], tensors["views"]])}

    def inference(self, x: Tensor) -> Tensors:
        """Return y and z of the encoder's inputs, shape ``(n, n_inputs)``."""
        y, z = self.encoder(x, stop_gradient="semantic" in self.objective.terms)
        return {"y": y, "z": z}

    def embed(
        self, features: Tensor, batches: Tensor, *, measured: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return y and z of the selected features, shape ``(n, k)``.

        A cell is first moved two thirds of the way to its neighbourhood, where some of its
        positives were. Unmoved, training cells are memorised, and new cells fall beside them
        (benchmarks/NOTES.md, experiments 33 and 49).

        Parameters
        ----------
        features
            The selected features that were measured.
        batches
            Codes of the cells' batches, shape ``(n,)``; -1 where it is not known.
        measured
            Mask of the features that were, shape ``(d,)``; by default all. Components are then
            estimated from them, for a cell whose other features have their usual share of its
            counts (experiment 57).
        """
        found = self.inference(self.inputs.moved(features, batches, measured=measured))
        return found["y"], found["z"]

    def embed_references(self) -> Tensor:
        """Return y of the training cells that are kept as neighbours, as :meth:`embed` would."""
        return self._fixed_semantic(self.inputs.moved_references())

    def describe_neighborhoods(
        self,
        features: Tensor,
        batches: Tensor,
        *,
        rng: torch.Generator | None = None,
        within: Within | None = None,
    ) -> Tensor:
        """What the generator is conditioned on, shape ``(n, n_semantic)``.

        Parameters
        ----------
        features, batches
            The selected features, shape ``(n, k)``, and codes as in :meth:`embed`.
        rng
            Varies the weight of each neighbour, as in training: one cell then has many
            neighbourhoods, and new cells are less often copies of it (benchmarks/NOTES.md,
            experiment 35).
        within
            Groups that neighbours share with the cell; by default all are one.
        """
        around = self.inputs.around(features, batches, rng=rng, within=within)
        return self._fixed_semantic(around)

    def _get_generative_input(self, tensors: Tensors, _outputs: Tensors, **_: Any) -> Tensors:
        x = tensors["x"] if self.makes_counts else tensors["x"].to_dense()
        y = self._fixed_semantic(tensors["neighborhood"][: len(x)])
        return {"x": x, "y": y, "covariates": tensors["covariates"][: len(x)]}

    def generative(
        self,
        x: Tensor,
        y: Tensor,
        covariates: Tensor,
        *,
        rng: torch.Generator,
        trains: bool = True,
    ) -> Tensors:
        """Return the diffusion loss of cells given y; empty if no generator is trained."""
        if self.process is None or not trains:
            return {}
        condition = self._condition(y, covariates, rng)
        network = self._of_each_cell(self.generator, len(x), rng)
        x = self._standardise(x, rng)
        return {"diffusion": self.process.loss(network, x, condition, rng=rng)}

    def loss(
        self,
        tensors: Tensors,
        inference_outputs: Tensors,
        generative_outputs: Tensors,
        *,
        terms: Collection[str],
        layout_weight: float = 0.0,
    ) -> LossOutput:
        """Sum of the named terms (eq. 6); all of them are reported.

        With a ``layout_weight`` above 0, cells are also pulled to their starting places.
        """
        y, z = inference_outputs["y"], inference_outputs["z"]
        x = self._get_inference_input(tensors)["x"]
        named = {**self.objective(x, y, z, repulsion=tensors["repulsion"]), **generative_outputs}
        if layout_weight:
            named["layout"] = layout_weight * losses.layout(z, tensors["places"])
            terms = (*terms, "layout")
        total = torch.stack([named[term] for term in terms]).sum()
        return LossOutput(loss=total, n_obs_minibatch=len(tensors["inputs"]), extra_metrics=named)

    def diffusion_loss(self, tensors: Tensors, *, rng: torch.Generator) -> LossOutput:
        """The generator's term alone, for steps that do not train the encoder."""
        named = self.generative(**self._get_generative_input(tensors, {}), rng=rng, trains=True)
        return LossOutput(
            loss=named["diffusion"], n_obs_minibatch=len(tensors["inputs"]), extra_metrics=named
        )

    @torch.no_grad()
    def sample(
        self,
        x: Tensor,
        y: Tensor,
        covariates: Tensor,
        *,
        strength: float,
        n_steps: int,
        rng: torch.Generator,
        sampler: diffusion.Sampler | None = None,
        depth: Tensor | None = None,
    ) -> Tensor:
        """New cells from source cells and their semantic vectors, by the averaged generator.

        ``covariates``: codes of their labels or batches. ``depth``: for counts, reads of each new
        cell, by default its source's. Both of shape ``(n,)``.

        Returns
        -------
        Shape ``(n, d)``: counts from a counts model, else values as the networks see them.
        """
        assert self.process is not None
        made = self.process.sample(
            self._of_each_cell(self.ema_generator, len(x), rng),
            self._standardise(x, rng),
            self._condition(y, covariates, rng),
            strength=strength,
            n_steps=n_steps,
            sampler=sampler or self.process.samplers[0],
            rng=rng,
            depth=depth,
        )
        if self.makes_counts:
            return made
        return self._unstandardise(made, depth=x.sum(1) if depth is None else depth)

    def parameter_groups(self) -> list[list[nn.Parameter]]:
        """Trained parameters: the encoder's side, then the generator's, then dispersions."""
        own = [p for p in self.objective.parameters() if p.requires_grad]
        groups = [[*self.encoder.parameters(), *own]]
        if self.process is None:
            return groups
        embedded = () if self.categories is None else self.categories.parameters()
        if isinstance(self.generator, CountGenerator):
            profile, dispersion = self.generator.profile, self.generator.dispersion
            return [*groups, [*profile.parameters(), *embedded], [*dispersion.parameters()]]
        return [*groups, [*self.generator.parameters(), *embedded]]

    @property
    def makes_counts(self) -> bool:
        """Whether the forward process works on counts themselves."""
        return isinstance(self.process, diffusion.CountThinning)

    def update_ema(self, decay: float) -> None:
        """Update the moving averages: the second generator and the objective's target."""
        self.objective.after_step(self.encoder)
        if self.process is not None:
            move_average(self.ema_generator.parameters(), self.generator.parameters(), decay=decay)

    def _of_each_cell(
        self, network: Callable[..., Any], n_cells: int, rng: torch.Generator
    ) -> diffusion.AnyNetwork:
        """A generator of counts with hidden units drawn for each cell, the same in all steps."""
        if not isinstance(self.generator, CountGenerator):
            return network
        units = self.generator.draw_units(n_cells, rng=rng)
        return lambda x, level, condition: network(x, level, condition, units=units)

    def _condition(self, y: Tensor, covariates: Tensor, rng: torch.Generator) -> Tensor:
        if self.condition_on == "random":
            return torch.randn(y.shape, generator=rng, device=y.device)
        y = nn.functional.layer_norm(y.float(), y.shape[1:])
        if self.categories is None:
            return y
        category = self.categories(covariates)
        return category if self.condition_on == "labels" else y + category

    def _standardise(self, x: Tensor, rng: torch.Generator) -> Tensor:
        if self.makes_counts:
            return x
        return self.scale(self.space.transform_tensor(x), rng=rng)

    def _unstandardise(self, x: Tensor, *, depth: Tensor) -> Tensor:
        x = self.scale.inverse(x)
        if not self.space.is_counts:
            return x
        expected = x.expm1()
        expected = expected * (depth / expected.sum(1).clamp_min(1e-6))[:, None]
        counts = expected.round()
        # A cell of few reads would lose all of them to rounding.
        largest = nn.functional.one_hot(expected.argmax(1), x.shape[1])
        return torch.where(counts.sum(1, keepdim=True) > 0, counts, largest.to(counts.dtype))


def _process(kind: Diffusion, space: FeatureSpace) -> diffusion.ForwardProcess | None:
    if kind == "counts":
        return diffusion.CountThinning(is_binary=space.is_binary)
    return diffusion.GaussianDiffusion() if kind == "gaussian" else None
