"""Attention x gradient: the attention to a word where more of it would strengthen the push."""

from __future__ import annotations

from typing import ClassVar, Literal

import xarray as xr
from array_api_compat import array_namespace

from wordlight.attribution.methods.attention_average import average_on_grid, merge_words
from wordlight.attribution.methods.by_stream import ByStream
from wordlight.attribution.question import Answer, Question, Size
from wordlight.attribution.step import Inputs, Step, prepare_step
from wordlight.attribution.stepwise import StepWeighting, average_steps, check_weighting
from wordlight.attribution.targets import Guidance, PixelTarget, Region
from wordlight.backends.attention import AttentionQuery
from wordlight.backends.backend import Array, Evaluations


class AttentionXGradient(ByStream):
    """Mean over layers and heads of ReLU(A_w ⊙ ∂S/∂A_w), A_w the cross-attention probabilities to
    a word and S how strongly the prompt pushes the image (Chefer et al. 2021, arXiv 2103.15679;
    GradCAM, Selvaraju et al. 2017, arXiv 1610.02391).

    S = ½‖g‖² over all pixels, g = ε(E) - ε(E°) with ε(E°) held fixed; so a head's map counts where
    it made the push as strong as it is. With ``target=Region(mask)`` S is the region's target
    instead, Σ mask · f. One scalar serves all pixels: it is the attention that makes the map.

    Of Chefer et al. this is the relevance that a cross-attention layer hands from text to image,
    without their propagation through the self-attention before and after. They average over heads
    and add up over layers; here the layers' grids differ, and every layer and head counts alike,
    upscaled to the latent grid as in DAAM. Softmax is not differentiated: A is what is moved.
    Maps are in units of S, averaged over steps, then clamped at zero where upscaling overshot.

    Cost at a step: two forward passes and one reverse-mode product, for all words together.

    Args:
        backend: the model.
        steps: the steps; all where None.
        step_weighting: ``"epsilon"`` takes steps as they come, ``"equal"`` divides each by the
            mean size of the target there.

    Raises:
        ValueError: a target other than ``Guidance()`` or ``Region(mask)`` of it (when asked).
    """

    name: ClassVar[str] = "attention-x-gradient"
    question: ClassVar[str] = "Where does attending to the word strengthen the push?"
    family: ClassVar[Literal["attention"]] = "attention"
    needs: ClassVar[frozenset[str]] = frozenset({"denoise", "attention_vjp"})
    by_token: ClassVar[bool] = True
    paper: ClassVar[str] = "Chefer et al. 2021, arXiv 2103.15679"
    takes_targets: ClassVar[bool] = True

    step_weighting: StepWeighting = "epsilon"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weighting(self.step_weighting)

    def cost(self, size: Size) -> Evaluations:
        return Evaluations(forward=2 * size.steps, vjp=size.steps)

    def _attribute(self, question: Question) -> Answer:
        _check_target(question.target)
        maps, totals = [], []
        with self.backend.no_gradients():
            inputs = Inputs.of(self.backend, question, "embeddings")
            for number in question.progress(question.steps):
                step = prepare_step(question, inputs, number)
                means = self.backend.attention_vjp(
                    step.latents,
                    step.timestep,
                    inputs.conditioning(step.point),
                    cotangent(step, question.target),
                    AttentionQuery(),
                )
                maps.append(average_on_grid(means, question.trajectory.grid)[0])
                totals.append(self.backend.to_numpy(step.total))
        averaged = average_steps(maps, totals, self.step_weighting).clip(0)
        return Answer(
            xr.DataArray(merge_words(averaged, question.players), dims=("word", "y", "x"))
        )


def cotangent(step: Step, target: PixelTarget) -> Array:
    """∂S/∂ε at a step, ``(1, channels, y, x)``: g itself, or Σ mask · f's slope for a region."""
    xp = array_namespace(step.latents)
    _, channels, height, width = step.drawn.shape
    unit = xp.reshape(
        step.backend.asarray([[float(i == j) for j in range(channels)] for i in range(channels)]),
        (channels, channels, 1, 1),
    )
    # f at a pixel is linear in the prediction there, so unit changes give its slope, anywhere.
    changes = xp.broadcast_to(unit, (channels, channels, height, width))
    slopes = xp.expand_dims(step.target.slopes(step.drawn, changes), axis=0)
    # f = ⟨ε - ε(E°), u⟩ is ‖g‖ and its slope u, so that ‖g‖·u is g.
    return slopes if isinstance(target, Region) else slopes * step.total


def _check_target(target: PixelTarget) -> None:
    inner = target
    while isinstance(inner, Region):
        inner = inner.of
    if not isinstance(inner, Guidance):
        where = " in a region" if inner is not target else ""
        raise ValueError(
            f"attention-x-gradient explains the target guidance, or a region of it, not "
            f"{inner.name}{where}"
        )
