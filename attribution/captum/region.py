"""Captum's methods and metrics, unmodified, on a region of an image: the forward function and the
words that they are given."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt

from wordlight.attribution.attributor import Steps, choose_baseline, partition
from wordlight.attribution.options import one_of, step_set, whole
from wordlight.attribution.question import Question
from wordlight.attribution.step import Inputs, InputSpace, Step, check_space, prepare_step, wide
from wordlight.attribution.stepwise import StepWeighting, check_weighting
from wordlight.attribution.targets import Guidance, PixelTarget, Region
from wordlight.attribution.words import PromptWords, Word, WordKey
from wordlight.backends.backend import Backend
from wordlight.backends.trajectory import Trajectory

if TYPE_CHECKING:
    import torch

#: How Captum's answer for a word's embedding becomes one score; see ``WordInput.format_attr``.
ScoreMerge = Literal["sum", "root-sum-square", "group"]


def require_captum() -> None:
    """Raises ImportError, with what to install, where Captum (or torch, below it) is missing."""
    try:
        import captum.attr  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"this needs Captum ({error}): python -m pip install 'wordlight[captum]'"
        ) from error


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The global random numbers that Captum draws from start at a seed inside the block, and are
    afterwards what they were: torch's, and numpy's and Python's, which its GradientShap uses.

    Raises ValueError for a seed outside 0 to 2³² - 1.
    """
    import torch

    if not 0 <= seed < 2**32:
        raise ValueError(f"a seed must be 0 or more, and less than 2**32, not {seed}")
    numpys, pythons = np.random.get_state(), random.getstate()  # noqa: NPY002 - Captum's
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpys)  # noqa: NPY002
            random.setstate(pythons)


@dataclass(frozen=True, eq=False)
class CaptumForward:
    """f(Δ): the pixel target at E° + Δ, summed over a region and averaged over steps, as a forward
    function for Captum. Made by ``captum_forward``.

    Differentiable, each row for itself, without a random draw. Zero at Δ = 0, so that Captum's
    baseline is its default. Values are float32, float64 where the model is; models of half
    precision are asked in theirs. The denoiser's rows are counted in ``backend.evaluations``: a
    row that is differentiated counts as one reverse-mode product.

    Attributes:
        steps: the steps; all have the same inputs.
        weights: of the steps' targets.
        region: weights of the pixels, ``(1, y, x)``.
    """

    steps: tuple[Step, ...]
    weights: tuple[float, ...]
    region: torch.Tensor

    @property
    def inputs(self) -> torch.Tensor:
        """The inputs that Captum explains: the displacement E - E°, ``(1, tokens, channels)``, a
        new leaf that requires its gradient."""
        step = self.steps[0]
        displacement: torch.Tensor = wide(step.point) - wide(step.baseline)
        return displacement.detach().clone().requires_grad_()

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the grid that regions are given on."""
        height, width = self.region.shape[1:]
        return int(height), int(width)

    def __call__(self, inputs: torch.Tensor, region: torch.Tensor | None = None) -> torch.Tensor:
        """f of each row of ``inputs`` ``(B, tokens, channels)``: ``(B,)``.

        ``region`` gives each row its own weights, ``(B, y, x)`` on the grid (or ``(1, y, x)`` for
        all), in place of those of the construction: as ``additional_forward_args`` it is repeated
        by Captum together with the inputs. Raises ValueError for other shapes.
        """
        return self.over_region(self.pixels(inputs), region)

    def over_region(self, values: torch.Tensor, region: torch.Tensor | None = None) -> torch.Tensor:
        """The sum over the region of pixels' values: ``(B, y, x)`` to ``(B,)``."""
        weights = self.region if region is None else region
        if tuple(weights.shape) not in ((1, *self.grid), (len(values), *self.grid)):
            raise ValueError(
                f"region must be ({len(values)} or 1, {self.grid[0]}, {self.grid[1]}), one a row, "
                f"not {tuple(weights.shape)}"
            )
        return (values * weights.to(values)).sum((1, 2))

    def pixels(self, inputs: torch.Tensor) -> torch.Tensor:
        """The target at each pixel: ``(B, tokens, channels)`` to ``(B, y, x)``."""
        import torch

        step = self.steps[0]
        if inputs.ndim != 3 or inputs.shape[1:] != step.point.shape[1:]:
            raise ValueError(
                f"inputs must be (rows, {step.point.shape[1]}, {step.point.shape[2]}), not "
                f"{tuple(inputs.shape)}"
            )
        # The model's own parameters usually require gradients: without a look at the inputs,
        # every call would keep a graph.
        asked = torch.is_grad_enabled() and inputs.requires_grad
        with torch.set_grad_enabled(asked):
            points = (wide(step.baseline) + inputs).to(step.baseline.dtype)
            values: torch.Tensor = sum(
                weight * step.values(points)
                for step, weight in zip(self.steps, self.weights, strict=True)
            )
        # A bridged model counts its products itself.
        if values.requires_grad and step.backend.framework == "torch":
            _count_products(values, step.backend, len(inputs) * len(self.steps))
        return values


def captum_forward(
    backend: Backend,
    trajectory: Trajectory,
    *,
    region: npt.ArrayLike | None = None,
    steps: Steps = None,
    step_weighting: StepWeighting = "epsilon",
    baselines: str = "empty",
    target: PixelTarget | None = None,
    wrt: InputSpace = "embeddings",
    internal_batch_size: int = 16,
) -> CaptumForward:
    """The forward function of one image's region. Costs two forward passes a step.

    Args:
        backend: the model, of any framework; gradients of one that isn't torch's need its
            ``denoise_vjp``.
        trajectory: of the image.
        region: ``(height, width)``, boolean or weights from 0 to 1, at the image's size or any
            multiple of the latent grid's; the whole image where None.
        steps: the steps; all where None.
        step_weighting, baselines, target, wrt: as the methods have them.
        internal_batch_size: largest batch of one denoiser pass.

    Raises:
        ImportError: Captum isn't installed.
        ValueError: a region, steps or a baseline that can't be; a trajectory without replay.
        MissingCapabilityError: a target or ``wrt`` that the backend can't serve.
    """
    require_captum()
    import torch

    from wordlight.attribution.captum.bridge import as_torch

    made = prepare_steps(
        as_torch(backend), trajectory, steps, baselines, target, wrt, internal_batch_size
    )
    grid = trajectory.grid
    inside = np.ones(grid) if region is None else Region(region).on_grid(grid)
    with torch.inference_mode(False):
        weights = torch.as_tensor(inside[None]).to(made[0].total)
    return CaptumForward(made, step_weights(made, step_weighting), weights)


def prepare_steps(
    backend: Backend,
    trajectory: Trajectory,
    steps: Steps,
    baselines: str,
    target: PixelTarget | None,
    wrt: InputSpace,
    batch_size: int,
) -> tuple[Step, ...]:
    """The steps of a trajectory, outside of any attributor."""
    import torch

    target = target or Guidance()
    backend.require(frozenset({"denoise"}), "the Captum adapter")
    backend.require(target.needs, f"the target {target.name}")
    if check_space(wrt) == "tokens":
        backend.require(frozenset({"encode_from"}), "wrt='tokens'")
    whole("internal_batch_size", batch_size)
    trajectory.check_replayable()
    question = Question(
        trajectory=trajectory,
        players=PromptWords.of(trajectory.tokens).players,
        steps=trajectory.at_steps(step_set(steps)),
        baseline=choose_baseline(trajectory, baselines),
        baseline_text=(trajectory.negative_prompt or "") if baselines == "negative" else "",
        target=target,
        batch_size=batch_size,
    )
    # Tensors made in inference mode could never be differentiated through.
    with torch.inference_mode(False), torch.no_grad():
        inputs = Inputs.of(backend, question, wrt)
        return tuple(prepare_step(question, inputs, number) for number in question.steps)


def step_weights(steps: Sequence[Step], weighting: StepWeighting) -> tuple[float, ...]:
    """Return a factor for each step's target, so that the sum is what ``average_steps`` gives."""
    check_weighting(weighting)
    sizes = [
        max(float(abs(step.total).mean()), 1e-30) if weighting == "equal" else 1.0 for step in steps
    ]
    return tuple(1.0 / (len(steps) * size) for size in sizes)


def _count_products(values: torch.Tensor, backend: Backend, rows: int) -> None:
    """Have rows that were counted as forward passes count as reverse-mode products (which contain
    one) once a gradient comes back; a second gradient of the same pass is a second product."""
    returned = 0
    # Gradients of a card's tensors come back in a thread that knows nothing of who counts.
    counts = backend.evaluations

    def on_gradient(gradient: torch.Tensor) -> None:
        nonlocal returned
        counts.vjp += rows
        counts.forward -= 0 if returned else rows
        returned += 1

    values.register_hook(on_gradient)


@dataclass(frozen=True, eq=False)
class WordInput:
    """Words as Captum's features, in the manner of its ``InterpretableInput``: a feature is 1 where
    a word is there and 0 where the baseline stands in its place. Made by ``word_input``.

    It is itself a forward function, over ``to_tensor()``, that predicts each set of words once and
    remembers it (make a new one when the model has changed). Or give Captum the ``CaptumForward``
    with ``feature_mask``, and let ``format_attr`` make words' scores of what comes back.

    Attributes:
        forward: the forward function over embeddings.
        players: the words, phrases and special positions that the features are.
    """

    forward: CaptumForward
    players: tuple[Word, ...]
    _known: dict[bytes, torch.Tensor] = field(default_factory=dict, init=False, repr=False)

    @property
    def n_itp_features(self) -> int:
        """The number of features."""
        return len(self.players)

    @property
    def values(self) -> list[str]:
        """The features' texts, in order."""
        return [player.text for player in self.players]

    @property
    def feature_mask(self) -> torch.Tensor:
        """The feature of each context position, ``(1, tokens, 1)`` whole numbers."""
        import torch

        point = self.forward.steps[0].point
        mask = torch.zeros((1, point.shape[1], 1), dtype=torch.long, device=point.device)
        for number, player in enumerate(self.players):
            mask[0, list(player.tokens)] = number
        return mask

    def to_tensor(self) -> torch.Tensor:
        """Every word present: ones ``(1, features)``, a new leaf that requires its gradient."""
        inputs = self.forward.inputs
        return inputs.new_ones((1, len(self.players))).requires_grad_()

    def to_model_input(self, perturbed_tensor: torch.Tensor) -> torch.Tensor:
        """Displacements ``(B, tokens, channels)`` of the words' presence ``(B, features)``."""
        if perturbed_tensor.ndim != 2 or perturbed_tensor.shape[1] != len(self.players):
            raise ValueError(
                f"features must be (rows, {len(self.players)}), not {tuple(perturbed_tensor.shape)}"
            )
        displacement = self.forward.inputs.detach()
        return perturbed_tensor.to(displacement)[:, self.feature_mask[0, :, 0], None] * displacement

    def __call__(
        self, perturbed_tensor: torch.Tensor, region: torch.Tensor | None = None
    ) -> torch.Tensor:
        """f with some words present, ``(B, features)`` to ``(B,)``; see ``CaptumForward``."""
        return self.forward.over_region(self.pixels(perturbed_tensor), region)

    def pixels(self, perturbed_tensor: torch.Tensor) -> torch.Tensor:
        """The target at each pixel: ``(B, features)`` to ``(B, y, x)``."""
        import torch

        present = perturbed_tensor
        asked = torch.is_grad_enabled() and present.requires_grad
        if asked or not ((present == 0) | (present == 1)).all():
            return self.forward.pixels(self.to_model_input(present))
        keys = [bytes(row) for row in present.detach().bool().cpu().numpy()]
        fresh = {key: row for key, row in zip(keys, present, strict=True) if key not in self._known}
        if fresh:
            rows = self.to_model_input(torch.stack(list(fresh.values())).detach())
            self._known.update(zip(fresh, self.forward.pixels(rows), strict=True))
        return torch.stack([self._known[key] for key in keys])

    def format_attr(self, itp_attr: torch.Tensor, merge: ScoreMerge = "sum") -> torch.Tensor:
        """Words' scores ``(B, features)`` of what Captum answered.

        Args:
            itp_attr: ``(B, features)``, which stays, or ``(B, tokens, channels)``.
            merge: the rule that merges a word's entries: ``"sum"`` of contributions
                (InputXGradient, IntegratedGradients, ...), ``"root-sum-square"`` of slopes
                (Saliency), or ``"group"`` where ``feature_mask`` was given, so that each entry is
                the word's score already.

        Raises:
            ValueError: another shape, an unknown merge, or ``"group"`` of entries that differ.
        """
        import torch

        one_of("merge", merge, get_args(ScoreMerge))
        answer, shape = itp_attr.detach(), self.forward.steps[0].point.shape
        if answer.ndim == 2 and answer.shape[1] == len(self.players):
            return answer
        if answer.ndim != 3 or answer.shape[1:] != shape[1:]:
            raise ValueError(
                f"attributions must be (rows, {len(self.players)}) or (rows, {shape[1]}, "
                f"{shape[2]}), not {tuple(answer.shape)}"
            )
        parts = [answer[:, list(player.tokens)].flatten(1) for player in self.players]
        if merge == "sum":
            return torch.stack([part.sum(1) for part in parts], 1)
        if merge == "root-sum-square":
            return torch.stack([part.square().sum(1).sqrt() for part in parts], 1)
        if any((part != part[:, :1]).any() for part in parts):
            raise ValueError(
                "the entries of a word differ: no feature mask of these words was used"
            )
        return torch.stack([part[:, 0] for part in parts], 1)


def word_input(
    forward: CaptumForward,
    trajectory: Trajectory,
    words: Sequence[WordKey] | None = None,
    *,
    group_specials: bool = False,
) -> WordInput:
    """The words of a trajectory's prompt as Captum's features.

    Args:
        forward: the forward function.
        trajectory: the one that it was made of.
        words: words and phrases that are features; the rest of the prompt is cut into its words.
        group_specials: one feature ``<special>`` for all positions that are no text, in place of
            ``<start>``, ``<end>`` and ``<pad>``.

    Raises:
        KeyError: a word that isn't in the prompt.
        ValueError: words that overlap.
    """
    players = partition(PromptWords.of(trajectory.tokens), words)
    if group_specials:
        text = tuple(player for player in players if player.is_text)
        rest = sorted(t for player in players if player not in text for t in player.tokens)
        players = (*text, Word("<special>", 0, 0, tuple(rest)))
    return WordInput(forward, players)
