"""Any Captum method as an attributor, wherever it can answer for each pixel."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from array_api_compat import array_namespace

from wordlight.attribution.attributor import Family, Steps
from wordlight.attribution.captum.region import (
    CaptumForward,
    ScoreMerge,
    WordInput,
    require_captum,
    seeded,
)
from wordlight.attribution.options import whole
from wordlight.attribution.question import Answer, Question, Size
from wordlight.attribution.step import InputSpace, Step, step_rng
from wordlight.attribution.stepwise import StepWeighting, StepwiseAttributor
from wordlight.attribution.targets import PixelTarget, Predictions, StepTarget
from wordlight.attribution.words import Word
from wordlight.backends.backend import Array, Backend, Evaluations

if TYPE_CHECKING:
    import torch

#: Arguments of Captum's ``attribute`` that are decided here.
_OURS = (
    "inputs",
    "baselines",
    "target",
    "additional_forward_args",
    "feature_mask",
    "return_convergence_delta",
    "show_progress",
)
#: They draw nothing, and treat each row for itself: regions can go in as rows of one batch.
_ROW_WISE = ("InputXGradient", "IntegratedGradients", "Saliency")
#: They take a forward function of many outputs, and answer for each.
_MANY_OUTPUTS = ("FeatureAblation", "Occlusion", "ShapleyValueSampling", "ShapleyValues")


class CaptumAttributor(StepwiseAttributor):
    """A Captum method asked once for each latent pixel, so that its scores make maps.

    Gradient methods run on the displacement E - E° (baseline zero), once a pixel; a word's score is
    the sum of its embedding's, or for slopes (Saliency) the root of the sum of squares.
    Perturbation methods run on the words' presence, one feature a word; all pixels share the
    denoiser's passes, and no set of words is predicted twice.

    Cost at a step: two forward passes and, for gradient methods, what the method asks for (one
    reverse-mode product for InputXGradient, ``n_steps`` for IntegratedGradients, ...) times the
    number of pixels (or ``cells``); for perturbation methods a pass for each set of words. It is
    counted, and not known beforehand: there is no ``budget``.

    Args:
        backend: the model; one that isn't torch's must give ``denoise_vjp`` for gradient methods.
        captum_method: the class, or its name in ``captum.attr`` (``"package.module:Class"`` for
            one of somebody else's).
        of: with ``NoiseTunnel``, the gradient method inside.
        arguments: of the class's own ``attribute`` (``n_steps``, ``n_samples``, ...), as plain
            data.
        cells: ask for the mean over each of so many rows and columns of cells, not for each
            pixel: one number or ``(rows, columns)``, which divide the latent grid's.
        steps, step_weighting, wrt: as all stepwise methods have them.
        seed: of Captum's random draws; the timestep is mixed in, and all pixels have the same.

    Raises:
        ImportError: Captum isn't installed.
        TypeError: something that is no Captum attribution.
        ValueError: a class that can't answer for each pixel, or arguments that aren't free.
    """

    name: ClassVar[str] = "captum"
    family: ClassVar[Family] = "gradient"
    paper: ClassVar[str] = "Kokhlikyan et al. 2020, arXiv 2009.07896"

    def __init__(
        self,
        backend: Backend,
        captum_method: type[Any] | str,
        *,
        of: type[Any] | str | None = None,
        arguments: Mapping[str, Any] | None = None,
        cells: int | tuple[int, int] | None = None,
        steps: Steps = None,
        step_weighting: StepWeighting = "epsilon",
        wrt: InputSpace = "embeddings",
        seed: int = 0,
    ) -> None:
        require_captum()
        from captum.attr import GradientAttribution, NoiseTunnel

        from wordlight.attribution.captum.bridge import as_torch

        super().__init__(as_torch(backend), steps=steps, step_weighting=step_weighting, wrt=wrt)
        self._class = find_class(captum_method)
        self._tunnel = self._class is NoiseTunnel
        if self._tunnel != (of is not None):
            raise ValueError("NoiseTunnel, and only it, takes another method: of=...")
        self._inner = self._class if of is None else find_class(of)
        check_class(self._inner)
        by_gradient = issubclass(self._inner, GradientAttribution)
        if self._tunnel and not by_gradient:
            raise ValueError(
                f"a NoiseTunnel here takes a gradient method, not {named(self._inner)}"
            )
        if by_gradient and backend.framework != "torch":
            by_products = frozenset({"denoise_vjp"})
            self.backend.inner.require(by_products, named(self._inner))  # type: ignore[attr-defined]
            self.needs = self.needs | by_products  # type: ignore[misc]
        self.captum_method = named(self._class)
        self.of = None if of is None else named(self._inner)
        self.arguments = dict(arguments or {})
        if taken := [name for name in self.arguments if name in _OURS]:
            raise ValueError(f"{', '.join(taken)}: decided by attribute(), not by arguments")
        self.cells = (cells, cells) if isinstance(cells, int) else cells
        if self.cells is not None and min(self.cells) < 1:
            raise ValueError(f"cells must be 1 or more, not {cells}")
        self.seed = whole("seed", seed, 0)
        # What depends on the method that was chosen.
        self.family = "gradient" if by_gradient else "perturbation"  # type: ignore[misc]
        shares = not by_gradient or self._make(lambda inputs: inputs).multiplies_by_inputs
        squared = self._tunnel and self.arguments.get("nt_type", "smoothgrad") != "smoothgrad"
        self.signed = shares and not squared  # type: ignore[misc]
        self.additive = self.signed  # type: ignore[misc]
        self.merge = "sum" if shares else "root-sum-square"  # type: ignore[misc]
        # Norms don't add up over steps.
        self.by_token = by_gradient and shares  # type: ignore[misc]

    @property
    def multiplies_by_inputs(self) -> bool:
        """Captum's meaning."""
        return self.merge == "sum"

    def cost(self, size: Size) -> Evaluations:
        """Raises NotImplementedError: what Captum will ask for is its own affair."""
        raise NotImplementedError(
            f"what Captum's {self.captum_method} costs is known when it is done: no budget for it"
        )

    def _attribute(self, question: Question) -> Answer:
        if self.cells is not None:
            grid = question.trajectory.grid
            if grid[0] % self.cells[0] or grid[1] % self.cells[1]:
                raise ValueError(f"cells {self.cells} don't divide the latent grid {grid}")
            question = replace(question, target=_Cells(question.target, self.cells))
        return super()._attribute(question)

    def _at_step(self, step: Step, players: tuple[Word, ...]) -> Array:
        import torch

        forward = CaptumForward((step,), (1.0,), torch.ones_like(step.total)[None])
        words = WordInput(forward, players)
        seed = int(step_rng(self.seed, step.timestep).integers(2**32))
        by_cell = self._by_gradient if self.family == "gradient" else self._by_presence
        with torch.enable_grad():
            scores = by_cell(words, seed)
        return scores.to(step.total).T.reshape(len(players), *step.total.shape)

    def _make(self, forward: Callable[..., Any]) -> Any:
        method = self._inner(forward)
        return self._class(method) if self._tunnel else method

    def _by_gradient(self, words: WordInput, seed: int) -> torch.Tensor:
        """Scores ``(cells, words)``, each cell a region of its own."""
        import torch

        forward = words.forward
        (height, width), batch_size = forward.grid, forward.steps[0].batch_size
        merge: ScoreMerge = "root-sum-square" if self.merge == "root-sum-square" else "sum"
        arguments, together = dict(self.arguments), 1
        if self.captum_method in _ROW_WISE:
            if self.captum_method == "IntegratedGradients":
                batch_size = int(arguments.setdefault("internal_batch_size", batch_size))
            together = batch_size
        known = inspect.signature(self._inner.attribute).parameters
        if "baselines" in known:
            arguments["baselines"] = torch.zeros_like(forward.inputs[:1]).detach()
        method, scores = self._make(forward), []
        for start in range(0, height * width, together):
            count = min(together, height * width - start)
            regions = forward.region.new_zeros((count, height * width))
            regions[range(count), range(start, start + count)] = 1.0
            inputs = forward.inputs.detach().repeat(count, 1, 1).requires_grad_()
            with seeded(seed):
                answer = method.attribute(
                    inputs,
                    additional_forward_args=(regions.reshape(count, height, width),),
                    **arguments,
                )
            scores.append(words.format_attr(answer, merge))
        return torch.cat(scores)

    def _by_presence(self, words: WordInput, seed: int) -> torch.Tensor:
        """Scores ``(cells, words)``, all cells from the same predictions."""
        import torch

        present = words.to_tensor().detach()

        def pixels(present: torch.Tensor) -> torch.Tensor:
            return words.pixels(present).flatten(1)

        if self.captum_method in _MANY_OUTPUTS:
            with seeded(seed):
                answer = self._make(pixels).attribute(present, **self.arguments)
            # FeatureAblation drops the batch's dimension, Shapley keeps it.
            every: torch.Tensor = answer.reshape(-1, len(words.players))
            return every
        scores = []
        for cell in range(words.forward.region.numel()):
            with seeded(seed):
                method = self._make(lambda inputs, cell=cell: pixels(inputs)[:, cell])
                scores.append(method.attribute(present, **self.arguments))
        return torch.cat(scores)


@dataclass(frozen=True, eq=False)
class _Cells(PixelTarget):
    """A target's mean over each cell of a coarser grid."""

    of: PixelTarget
    cells: tuple[int, int]
    name: ClassVar[str] = "cells"

    def prepare(self, predictions: Predictions) -> StepTarget:
        return _CellMeans(self.of.prepare(predictions), self.cells)


@dataclass(frozen=True, eq=False)
class _CellMeans(StepTarget):
    inside: StepTarget
    cells: tuple[int, int]

    def _down(self, values: Array) -> Array:
        xp = array_namespace(values)
        (batch, height, width), (y, x) = values.shape, self.cells
        return xp.mean(xp.reshape(values, (batch, y, height // y, x, width // x)), axis=(2, 4))

    def values(self, predictions: Array) -> Array:
        return self._down(self.inside.values(predictions))

    def slopes(self, prediction: Array, changes: Array) -> Array:
        return self._down(self.inside.slopes(prediction, changes))


def find_class(method: type[Any] | str) -> type[Any]:
    """The Captum class that a name stands for, or the class itself.

    Raises TypeError for what is no Captum attribution, ValueError for an unknown name.
    """
    import captum.attr

    if isinstance(method, str):
        module, _, name = method.rpartition(":")
        try:
            found = getattr(importlib.import_module(module or "captum.attr"), name)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"no Captum method {method!r}: {error}") from None
    else:
        found = method
    if not (inspect.isclass(found) and issubclass(found, captum.attr.Attribution)):
        raise TypeError(f"captum_method must be a class of Captum's attributions, not {found!r}")
    return found


def named(method: type[Any]) -> str:
    """The name by which ``find_class`` finds a class again."""
    import captum.attr

    name: str = method.__name__
    if getattr(captum.attr, name, None) is method:
        return name
    return f"{method.__module__}:{method.__qualname__}"


def check_class(method: type[Any]) -> None:
    """Raises ValueError, saying why, for a class of which no per-pixel answer can be had."""
    from captum.attr import FeaturePermutation, LayerAttribution, NeuronAttribution

    name = named(method)
    if issubclass(method, LayerAttribution | NeuronAttribution):
        raise ValueError(
            f"{name} explains a layer or a neuron of a torch module, not the prompt: there is no "
            "answer for words and pixels"
        )
    if issubclass(method, FeaturePermutation):
        raise ValueError(
            f"{name} shuffles features among the rows of a batch, and there is one prompt: every "
            "score would be zero"
        )
    first, *others = [
        p for p in inspect.signature(method.__init__).parameters.values() if p.name != "self"
    ]
    if first.name != "forward_func":
        raise ValueError(
            f"{name} is constructed on a {first.name}, not on a forward function: there is no "
            "per-pixel answer of it here"
        )
    if missing := [p.name for p in others if p.default is p.empty]:
        raise ValueError(f"{name} can't be constructed without {', '.join(missing)}")
