"""The few primitives that every attribution method is written on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any, Literal, get_args, overload

import numpy as np
import numpy.typing as npt
from array_api_compat import array_namespace

from wordlight.backends.attention import AXES, AttentionMeans, AttentionQuery, OtherKeys
from wordlight.backends.batches import BatchLimits, filled_up, join_rows
from wordlight.backends.embedded import WORD_TEMPLATE, WORD_TEMPLATES
from wordlight.backends.gathering import ThreadSettings, meet
from wordlight.backends.sampling import (
    DrawRequest,
    SamplingFacts,
    check_image,
    check_prompts,
    refuse_others,
    seeds_of,
    whole_number,
)
from wordlight.backends.tokens import Tokens
from wordlight.backends.traces import Trace
from wordlight.backends.trajectory import Trajectory
from wordlight.backends.vocabulary import warn_of_unknown_words

#: Steps whose maps are held at once where each is wanted by itself, and their pairs of places.
_STEPS_AT_ONCE, _PAIRS_AT_ONCE = 8, 2**20
#: How a given image is brought to noise.
Inversion = Literal["noising", "ddim"]
#: An array of the backend's framework; methods handle it through array-api-compat.
Array = Any


class MissingCapabilityError(RuntimeError):
    """A method needs a primitive that this backend hasn't."""


@dataclass(frozen=True, eq=False)
class Conditioning:
    """The denoiser's conditioning: all that it is given besides latents and timestep.

    ``embeddings`` is ``(batch, tokens, channels)``; ``added`` holds whatever else the model takes,
    each ``(batch, ...)``.
    """

    embeddings: Array
    added: dict[str, Array] = field(default_factory=dict)

    def of_rows(self, rows: slice, n_rows: int) -> Conditioning:
        """Return the conditioning of some of ``n_rows`` rows; what all share stays."""
        if rows == slice(0, n_rows):
            return self
        added = {
            name: value[rows] if value.shape[0] == n_rows else value
            for name, value in self.added.items()
        }
        return Conditioning(self.embeddings[rows], added)

    @classmethod
    def joined(cls, parts: Sequence[Conditioning]) -> Conditioning:
        """The conditioning of several batches, each array of which has a row for each row."""
        if len(parts) == 1:
            return parts[0]
        added = {name: join_rows([one.added[name] for one in parts]) for name in parts[0].added}
        return cls(join_rows([one.embeddings for one in parts]), added)


@dataclass
class Evaluations:
    """Counts of the denoiser's evaluations, by image: a batch of eight counts eight.

    ``forward_equivalents`` weighs a forward pass 1, a forward-mode product 2, a reverse one 3.
    """

    forward: int = 0
    jvp: int = 0
    vjp: int = 0

    @property
    def forward_equivalents(self) -> int:
        """The cost in forward passes."""
        return self.forward + 2 * self.jvp + 3 * self.vjp

    def add(self, other: Evaluations) -> None:
        """Count another's evaluations too."""
        self.forward += other.forward
        self.jvp += other.jvp
        self.vjp += other.vjp

    def __add__(self, other: Evaluations) -> Evaluations:
        return Evaluations(self.forward + other.forward, self.jvp + other.jvp, self.vjp + other.vjp)

    def __sub__(self, other: Evaluations) -> Evaluations:
        return Evaluations(self.forward - other.forward, self.jvp - other.jvp, self.vjp - other.vjp)


#: The evaluations that are counted apart in this context, and whose they are.
_apart: ContextVar[tuple[Backend, Evaluations] | None] = ContextVar("apart", default=None)


class Backend(ABC):
    """A text-to-image model as a few primitives.

    Arrays in ``denoise`` and its relatives are the framework's own, on ``device``; trajectories
    are numpy and travel between frameworks.
    """

    framework: str
    model_id: str
    revision: str | None
    device: str
    dtype: str
    #: Whether images that are explained side by side may share passes of the denoiser; which ones,
    #: ``rows_together`` and ``replays_together`` say.
    shares_passes: bool = False

    @property
    @abstractmethod
    def capabilities(self) -> frozenset[str]:
        """The primitives that this backend has, for the model as it stands."""

    @property
    def attends_jointly(self) -> bool:
        """True if one softmax runs over text and picture: a place's attention to the text's tokens
        adds up to less than one, and the rest is to the picture. In cross-attention it is one."""
        return False

    @property
    def prompt_form(self) -> str:
        """A prompt, at ``{prompt}``, as it must be written for its words to be read: some models
        attend to text in quotation marks alone."""
        return "{prompt}"

    @property
    def added_names(self) -> frozenset[str]:
        """The names of further conditioning that the denoiser needs: none, but on some models."""
        return frozenset()

    @property
    def replays_recorded(self) -> bool:
        """True if the further conditioning that a traced pipeline gave its denoiser (names that
        begin with ``+``) can be replayed."""
        return False

    @property
    def precision(self) -> str:
        """The precision of float32 products: ``"highest"`` (exact), ``"high"`` (TF32); "" where
        nobody knows, or the model computes in other numbers."""
        return ""

    def exact_products(self) -> AbstractContextManager[None]:
        """A block in which float32 is multiplied exactly, whatever was asked for."""
        return nullcontext()

    def settings_of_thread(self) -> ThreadSettings:
        """Return a block for other threads in which the framework is set as in this one now, as
        far as it keeps settings by thread."""
        return nullcontext

    @property
    def weights(self) -> str | None:
        """A digest of the weights, adapters included, as trajectories have it; None where it isn't
        known."""
        return None

    def __init__(self) -> None:
        self._evaluations = Evaluations()
        self._drawn_with: dict[str, Any] = {}
        self.limits = BatchLimits(self.is_out_of_memory, self.release_memory)

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} of {self.model_id}: "
            f"{self.framework} on {self.device}, {self.dtype}>"
        )

    @property
    def evaluations(self) -> Evaluations:
        """The counts so far; in ``counting_apart`` those of its block."""
        apart = _apart.get()
        return apart[1] if apart is not None and apart[0] is self else self._evaluations

    @evaluations.setter
    def evaluations(self, counts: Evaluations) -> None:
        apart = _apart.get()
        if apart is not None and apart[0] is self:
            _apart.set((self, counts))
        else:
            self._evaluations = counts

    @contextmanager
    def counting_apart(self) -> Iterator[Evaluations]:
        """A block whose evaluations are counted by themselves, and added to the others at its end.

        So what is done in other threads at the same time isn't counted in.
        """
        spent = Evaluations()
        token = _apart.set((self, spent))
        try:
            yield spent
        finally:
            _apart.reset(token)
            self.evaluations.add(spent)

    @property
    def lacks(self) -> Mapping[str, str]:
        """Why this model has not some of the primitives, where that can be said."""
        return {}

    def require(self, needs: frozenset[str], who: str) -> None:
        """Raises MissingCapabilityError when ``who`` needs what this backend hasn't."""
        if missing := sorted(needs - self.capabilities):
            reasons = dict.fromkeys(self.lacks[name] for name in missing if name in self.lacks)
            why = f": {'; '.join(reasons)}" if reasons else ""
            raise MissingCapabilityError(
                f"{who} needs {', '.join(missing)}, which the {self.framework} backend of "
                f"{self.model_id} doesn't give{why} (it gives "
                f"{', '.join(sorted(self.capabilities))})"
            )

    @abstractmethod
    def tokenize(self, prompt: str) -> Tokens:
        """The prompt's tokens with offsets, padded to the context.

        Raises PromptTooLongError when the context is too short.
        """

    @abstractmethod
    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """The conditioning that the real pipeline makes of the prompts."""

    @overload
    def sample(
        self,
        prompts: str,
        *,
        seed: int = 0,
        steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        images_per_prompt: Literal[1] = 1,
        height: int | None = None,
        width: int | None = None,
    ) -> Trajectory: ...

    @overload
    def sample(
        self,
        prompts: str | Sequence[str],
        *,
        seed: int | Sequence[int] = 0,
        steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        images_per_prompt: int = 1,
        height: int | None = None,
        width: int | None = None,
    ) -> Trajectory | list[Trajectory]: ...

    def sample(
        self,
        prompts: str | Sequence[str],
        *,
        seed: int | Sequence[int] = 0,
        steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        images_per_prompt: int = 1,
        height: int | None = None,
        width: int | None = None,
        **others: Any,
    ) -> Trajectory | list[Trajectory]:
        """Run the real pipeline and record what it went through.

        Args:
            prompts: one prompt (gives one trajectory) or several (gives a list, prompt by prompt).
            seed: of the initial noise. Image number k of the call has seed ``seed + k``; a
                sequence names one seed an image. An image depends on its own seed alone, not on
                what else is in the batch.
            steps, guidance_scale: as the model recommends where None.
            negative_prompt: the prompt that guidance pushes away from, instead of the empty one.
                With None Stable Diffusion XL may push away from zeros, which ``""`` isn't.
            images_per_prompt: with more than one, a list is given.
            height, width: in pixels; the model's own size where None.

        Raises:
            TypeError: an argument of another name; the right one is said. A prompt, a number of
                another kind.
            ValueError: an empty prompt, a size the model can't draw, a bad number.
            PromptTooLongError: a prompt that the context can't hold.

        Warns:
            UnknownWordsWarning: words that the model was never trained on, where that is known.
        """
        refuse_others(others)
        self.require(frozenset({"sample"}), "sample")
        one = isinstance(prompts, str) or not isinstance(prompts, Iterable)
        asked: list[str] = [prompts] if one else list(prompts)  # type: ignore[list-item]
        check_prompts(asked)
        if not isinstance(negative_prompt, str | None):
            raise TypeError(f"a negative prompt is a text, not {negative_prompt!r}")
        if whole_number("images_per_prompt", images_per_prompt) < 1:
            raise ValueError(f"images_per_prompt must be 1 or more, not {images_per_prompt}")
        facts = self.drawing
        request = DrawRequest(
            prompts=tuple(asked),
            seeds=seeds_of(seed, len(asked) * images_per_prompt),
            steps=facts.steps_of(steps),
            guidance_scale=facts.guidance_of(guidance_scale),
            negative_prompt=negative_prompt,
            images_per_prompt=images_per_prompt,
            size=facts.size_of(height, width),
        )
        for prompt in (*asked, *([negative_prompt] if negative_prompt else [])):
            self.tokenize(prompt)
        for prompt in dict.fromkeys(asked):
            warn_of_unknown_words(self.model_id, prompt)
        made = self._sample(request)
        return made[0] if isinstance(prompts, str) and images_per_prompt == 1 else made

    def trace(
        self,
        query: AttentionQuery | None = None,
        prompts: Sequence[str] | None = None,
        *,
        negative: bool = False,
    ) -> Trace:
        """Trace what is sampled inside a ``with`` block; see ``wordlight.backends.trace``."""
        self.require(frozenset({"trace"}), "trace")
        raise NotImplementedError

    def invert(
        self,
        images: Sequence[npt.NDArray[np.uint8]],
        prompts: Sequence[str],
        *,
        seed: int = 0,
        steps: int | None = None,
        by: Inversion = "noising",
        n_refine: int = 0,
    ) -> list[Trajectory]:
        """Trajectories of given images ``(height, width, 3)`` uint8.

        A transformer's pipeline is run once an image, to learn the times and what else it tells its
        denoiser.

        Args:
            images, prompts: one prompt an image.
            seed: of the noise; image number k has seed ``seed + k``.
            steps: as the model recommends where None.
            by: ``"noising"``: at each timestep the image's latents are noised with one and the same
                draw of noise. ``"ddim"``: from the clean latents on, each step of the deterministic
                sampler is undone with the noise that the denoiser predicts for the prompt, without
                guidance (Song et al. 2021; of flow matching it is Euler's method backwards). A step
                costs a row of the denoiser.
            n_refine: the number of times each such step is repeated with the noise that is
                predicted where it ended; the more, the nearer sampling comes back to the image.

        Raises:
            ValueError: images that are not ``(height, width, 3)`` uint8 or of a size that the
                model can't draw, not one prompt an image, a bad number.
        """
        self.require(frozenset({"invert"}), "invert")
        if len(images) != len(prompts):
            raise ValueError(f"{len(images)} images for {len(prompts)} prompts")
        check_prompts(prompts)
        facts = self.drawing
        count, seeds = facts.steps_of(steps), seeds_of(seed, len(images))
        for image in images:
            check_image(image)
            facts.size_of(*image.shape[:2])
        for prompt in dict.fromkeys(prompts):
            warn_of_unknown_words(self.model_id, prompt)
        if by not in get_args(Inversion):
            raise ValueError(
                f"by must be {' or '.join(map(repr, get_args(Inversion)))}, not {by!r}"
            )
        if n_refine < 0 or (n_refine and by == "noising"):
            raise ValueError("n_refine must be 0 or more, and is of by='ddim' alone")
        noised = [
            self._invert(image, prompt, seed=s, steps=count)
            for image, prompt, s in zip(images, prompts, seeds, strict=True)
        ]
        return noised if by == "noising" else [self._ddim(one, n_refine) for one in noised]

    def _ddim(self, trajectory: Trajectory, n_refine: int) -> Trajectory:
        """The trajectory of an image with the latents from which DDIM comes to it."""
        embeddings = self.asarray(trajectory.embeddings[None])
        latents = np.empty_like(trajectory.latents)
        with self.no_gradients():
            before, (alpha, sigma) = self.encode_image(trajectory.image), (1.0, 0.0)
            for step in reversed(range(trajectory.steps)):
                time = float(trajectory.timesteps[step])
                told = Conditioning(embeddings, self.step_conditioning(trajectory, step))
                level, seen = self.noise_level_at(trajectory, step), before
                for _ in range(1 + n_refine):
                    noise = self.denoise(seen, time, told)
                    clean = (before - sigma * noise) / alpha
                    seen = level[0] * clean + level[1] * noise
                latents[step] = self.to_numpy(seen)[0]
                before, (alpha, sigma) = seen, level
        return replace(trajectory, latents=latents, noise_source="ddim", predictions=None)

    @abstractmethod
    def asarray(self, array: npt.ArrayLike) -> Array:
        """A float array of the framework, on the device, in the backend's dtype."""

    def step_conditioning(self, trajectory: Trajectory, step: int) -> dict[str, Array]:
        """The further conditioning of a trajectory's step, ``(1, ...)`` each."""
        return {n: self.asarray(value[None]) for n, value in trajectory.added_at(step).items()}

    def check_made_here(self, trajectory: Trajectory) -> None:
        """Raise ValueError where a trajectory was made with other weights than there are now.

        Runs of another framework, and of another precision, can't be compared and pass.
        """
        if trajectory.framework != self.framework or trajectory.weights is None:
            return
        if self.weights is None:
            return
        # The precision, what makes maps, what draws images of latents, and what layers are set to;
        # runs of before don't have the last.
        dtype, own, _, *set_to = self.weights.split(":")
        its_dtype, its, _, *its_set_to = trajectory.weights.split(":")
        if dtype == its_dtype and (own != its or (its_set_to and set_to != its_set_to)):
            raise ValueError(
                f"the run was made by {trajectory.model_id!r} with other weights or adapters than "
                f"{self.model_id!r} has now (FreeU, attention processors, how layers pad and norm, "
                "and what the scheduler says of noise and prediction count too): explain it with "
                "those, or say that "
                "another model's view is wanted by dataclasses.replace(trajectory, weights=None)"
            )

    @abstractmethod
    def to_numpy(self, array: Array) -> npt.NDArray[Any]:
        """Back to numpy: float32, or float64 where the backend computes in that."""

    def denoise(self, latents: Array, timestep: float, conditioning: Conditioning) -> Array:
        """The prediction in epsilon units for ``latents`` ``(batch, channels, height, width)``.

        A v-prediction is converted by the scheduler's alpha and sigma. One timestep for all rows.
        """
        self.require(frozenset({"denoise"}), "denoise")
        self._check_added(conditioning.added)
        self.evaluations.forward += int(latents.shape[0])

        def run(latents: Array, told: Conditioning) -> Array:
            return self._denoise(latents, timestep, told)

        return self._by_rows("denoise", run, latents, timestep, conditioning)

    def denoise_jvp(
        self, latents: Array, timestep: float, conditioning: Conditioning, tangents: Array
    ) -> tuple[Array, Array]:
        """Forward mode: the prediction, and how it changes along each direction in embedding
        space.

        ``latents`` is ``(1, channels, height, width)``, ``tangents``
        ``(directions, tokens, channels)``; gives ``(1, channels, height, width)`` and
        ``(directions, channels, height, width)``.
        """
        self.require(frozenset({"denoise_jvp"}), "denoise_jvp")
        _one("denoise_jvp", latents)
        self._check_added(conditioning.added)
        self.evaluations.jvp += int(tangents.shape[0])
        most = self.rows_together("denoise_jvp", latents, conditioning)

        def of_one(latents: Array, told: Conditioning, tangents: Array) -> tuple[Array, Array]:
            def some(rows: slice) -> tuple[Array, Array]:
                return self._denoise_jvp(latents, timestep, told, tangents[rows])

            n = int(tangents.shape[0])
            parts = self.limits.parts("denoise_jvp", n, n, some)
            return parts[0][0], join_rows([changes for _, changes in parts])

        def of_all(asked: list[tuple[Array, Conditioning, Array]]) -> list[tuple[Array, Array]]:
            most_directions = max(int(tangents.shape[0]) for *_, tangents in asked)

            def some(images: slice) -> list[tuple[Array, Array]]:
                part = asked[images]
                if len(part) == 1:
                    return [of_one(*part[0])]
                xp = array_namespace(latents)
                values, changes = self._denoise_jvp_of_images(
                    join_rows([one for one, *_ in part]),
                    timestep,
                    Conditioning.joined([one for _, one, _ in part]),
                    xp.stack([filled_up(one, most_directions) for *_, one in part]),
                )
                return [
                    (values[k : k + 1], changes[k, : one.shape[0]])
                    for k, (*_, one) in enumerate(part)
                ]

            at_once = max(most // most_directions, 1)
            parts = self.limits.parts("denoise_jvp_of_images", len(asked), at_once, some)
            return [one for part in parts for one in part]

        alike = self._kind("denoise_jvp", timestep, conditioning, latents, tangents)
        return meet(alike if most else None, (latents, conditioning, tangents), of_all)

    def denoise_parts(
        self,
        latents: Array,
        timestep: float,
        conditioning: Conditioning,
        baseline: Array,
        parts: Array,
    ) -> Array:
        """Share out the difference of two predictions among parts of the difference of their
        embeddings, by DeepLIFT's rescale rule (Shrikumar et al. 2017).

        Each part counts as a forward-mode product: as much is computed for it.

        Args:
            latents: ``(1, channels, height, width)``.
            timestep: of both.
            conditioning: of one row.
            baseline: the other's embeddings ``(1, tokens, channels)``; the rest is the same.
            parts: ``(parts, tokens, channels)``.

        Returns:
            ``(parts, channels, height, width)``: of parts that sum to ``embeddings - baseline``
            they sum to the difference of the predictions.

        Raises:
            ValueError: the model has an operation for which there is no rule.
        """
        self.require(frozenset({"denoise_parts"}), "denoise_parts")
        _one("denoise_parts", latents)
        self._check_added(conditioning.added)
        n_parts = int(parts.shape[0])
        self.evaluations.jvp += n_parts

        def some(rows: slice) -> Array:
            return self._denoise_parts(latents, timestep, conditioning, baseline, parts[rows])

        return join_rows(self.limits.parts("denoise_parts", n_parts, n_parts, some))

    def denoise_vjp(
        self, latents: Array, timestep: float, conditioning: Conditioning, cotangent: Array
    ) -> Array:
        """Reverse mode: the gradient of ⟨prediction, cotangent⟩ with respect to the embeddings.

        ``cotangent`` is ``(batch, channels, height, width)``; gives ``(batch, tokens, channels)``.
        """
        self.require(frozenset({"denoise_vjp"}), "denoise_vjp")
        self._check_added(conditioning.added)
        self.evaluations.vjp += int(latents.shape[0])

        def run(latents: Array, told: Conditioning, cotangent: Array) -> Array:
            return self._denoise_vjp(latents, timestep, told, cotangent)

        return self._by_rows("denoise_vjp", run, latents, timestep, conditioning, cotangent)

    def _by_rows(
        self,
        kind: str,
        run: Callable[..., Array],
        latents: Array,
        timestep: float,
        conditioning: Conditioning,
        *more: Array,
    ) -> Array:
        """Return what ``run`` makes of rows, in parts that fit; with the rows of other images at
        the same timestep, where several are worked on (``gather``)."""
        most = self.rows_together(kind, latents, conditioning)

        def run_all(asked: list[tuple[Array, Conditioning, tuple[Array, ...]]]) -> list[Array]:
            counts = [int(latents.shape[0]) for latents, *_ in asked]
            n_rows = sum(counts)
            latents = join_rows([one for one, *_ in asked])
            told = Conditioning.joined([one for _, one, _ in asked])
            others = [join_rows(parts) for parts in zip(*(rest for *_, rest in asked), strict=True)]

            def some(rows: slice) -> Array:
                own = told.of_rows(rows, n_rows)
                return run(latents[rows], own, *(one[rows] for one in others))

            made = join_rows(self.limits.parts(kind, n_rows, max(most, *counts, 1), some))
            ends = accumulate(counts)
            return [made[end - n : end] for n, end in zip(counts, ends, strict=True)]

        alike = self._kind(kind, timestep, conditioning, latents, *more)
        return meet(alike if most else None, (latents, conditioning, more), run_all)

    def _kind(
        self, kind: str, timestep: float, conditioning: Conditioning, *arrays: Array
    ) -> Hashable:
        """All that must agree where rows of several images go through one pass."""
        added = {f"added {name}": value for name, value in conditioning.added.items()}
        given = {f"array {number}": value for number, value in enumerate(arrays)}
        rows = {"embeddings": conditioning.embeddings, **given, **added}
        shapes = {name: (tuple(one.shape[1:]), one.dtype) for name, one in rows.items()}
        return (id(self), kind, timestep, frozenset(shapes.items()))

    def rows_together(self, kind: str, latents: Array, conditioning: Conditioning) -> int:
        """Return how many rows of several images may go through one pass of a kind (``"denoise"``,
        ``"denoise_vjp"``, ``"denoise_jvp"``: with it also their directions); 0 where each image
        needs its own."""
        return 0

    def token_embeddings(self, text: str) -> Array:
        """The text encoder's input embeddings of a text, ``(tokens, channels)``, before positions
        are added: what ``encode_from`` goes on from. A text too long for the context is cut, as
        pipelines cut it."""
        self.require(frozenset({"encode_from"}), "token_embeddings")
        return self._token_embeddings(text)

    def encode_from(self, token_embeddings: Array) -> Conditioning:
        """The conditioning that the encoder makes of input embeddings, ``(batch, tokens,
        channels)``; differentiable. Of ``token_embeddings(prompt)`` it is ``encode([prompt])``."""
        self.require(frozenset({"encode_from"}), "encode_from")
        return self._encode_from(token_embeddings)

    def encode_from_jvp(
        self, token_embeddings: Array, tangents: Array
    ) -> tuple[Conditioning, Array]:
        """Forward mode through the encoder: the conditioning of one row of input embeddings
        ``(1, tokens, channels)``, and how its embeddings change along each tangent
        ``(directions, tokens, channels)``."""
        self.require(frozenset({"encode_from"}), "encode_from_jvp")
        _one("encode_from_jvp", token_embeddings)
        return self._encode_from_jvp(token_embeddings, tangents)

    def encode_from_parts(self, token_embeddings: Array, baseline: Array, parts: Array) -> Array:
        """Share out the difference of two texts' embeddings among parts of the difference of their
        input embeddings, by DeepLIFT's rescale rule; see ``denoise_parts``.

        ``token_embeddings`` and ``baseline`` are ``(1, tokens, channels)``, ``parts``
        ``(parts, tokens, channels)``; gives ``(parts, tokens, channels)`` of the embeddings.
        """
        self.require(frozenset({"encode_from", "denoise_parts"}), "encode_from_parts")
        _one("encode_from_parts", token_embeddings)
        return self._encode_from_parts(token_embeddings, baseline, parts)

    def noise_level(self, timestep: float) -> tuple[float, float]:
        """α and σ of a timestep: latents there are ``α · clean + σ · noise``."""
        raise NotImplementedError

    def noise_level_at(self, trajectory: Trajectory, step: int) -> tuple[float, float]:
        """α and σ of a trajectory's step, also where the timestep alone doesn't tell them."""
        return self.noise_level(float(trajectory.timesteps[step]))

    def encode_image(self, image: npt.NDArray[np.uint8]) -> Array:
        """Clean latents ``(1, channels, y, x)`` of an image ``(height, width, 3)`` uint8, as
        ``invert`` adds noise to them.

        Raises ValueError for an image of another shape, or of a size that the model can't draw.
        """
        self.require(frozenset({"invert"}), "encode_image")
        check_image(image)
        self.sampling.size_of(*image.shape[:2])
        return self._encode_image(image)

    def decode(self, latents: Array) -> Array:
        """Pixels ``(batch, 3, height, width)`` of clean latents ``(batch, channels, y, x)``: 0 is
        black, 1 white, not clipped; differentiable."""
        self.require(frozenset({"decode"}), "decode")
        return self._decode(latents)

    def decode_jvp(self, latents: Array, tangents: Array) -> tuple[Array, Array]:
        """Forward mode through the decoder: the pixels of one row of latents, and how they change
        along each tangent ``(directions, channels, y, x)``."""
        self.require(frozenset({"decode"}), "decode_jvp")
        _one("decode_jvp", latents)
        return self._decode_jvp(latents, tangents)

    @property
    def stages(self) -> tuple[str, ...]:
        """The parts that ``randomized`` knows, from the output down to the input.

        The text encoder comes last. A trajectory carries the embeddings that the trained one made,
        so randomising it too changes only what encodes anew.
        """
        raise NotImplementedError

    def randomized(self, down_to: str, seed: int = 0) -> AbstractContextManager[object]:
        """A context in which the weights from the output down to a stage (it included) are random.

        Drawn anew from a seed as the framework initialises such layers; the trained ones are back,
        to the bit, afterwards, also after an exception. Inside, ``revision`` says that it is
        another model. Raises ValueError for an unknown stage.
        """
        self.require(frozenset({"randomized"}), "randomized")
        if down_to not in self.stages:
            raise ValueError(f"no stage {down_to!r}; there are {', '.join(self.stages)}")
        weights = self._randomized(self.stages[: self.stages.index(down_to) + 1], seed)
        return self._as_revision(f"random down to {down_to}, seed {seed}", weights)

    @contextmanager
    def _as_revision(self, name: str, weights: AbstractContextManager[object]) -> Iterator[None]:
        with weights:
            before, self.revision = self.revision, name
            try:
                yield
            finally:
                self.revision = before

    def attention(
        self,
        trajectory: Trajectory,
        query: AttentionQuery,
        steps: tuple[int, ...],
        keys: OtherKeys | None = None,
    ) -> AttentionMeans:
        """Replay the conditional rows and average the attention that ``query`` asks for, or
        another measure of the layers.

        ``keys``, of words that need not be in the prompt, asks for their attention instead of the
        prompt's tokens': what each would get from the softmax if it stood in the prompt, in the
        place of the tokens that make room for it; so a token of the prompt gets its own
        probability. The run itself is not changed. Raises ValueError for keys of other sizes.
        """
        self.require(frozenset({"attention"}), "attention")
        trajectory.check_replayable()
        self._check_added(trajectory.added)
        if query.kind == "self":
            self.require(frozenset({"self_attention"}), "self-attention")
        if query.measure != "probabilities":
            self.require(frozenset({"attention_measures"}), f"the measure {query.measure}")
        if keys is not None:
            self.require(frozenset({"attention_keys"}), "attention to other words")
            if query.kind == "self":
                raise ValueError("keys are of words: self-attention has none")
            if query.measure not in ("probabilities", "scores"):
                raise ValueError(f"other words have no {query.measure}: they weren't attended to")
            if not isinstance(keys, OtherKeys):
                raise TypeError("keys must be what OtherKeys.of makes of embeddings and places")
            shape, tokens = tuple(keys.embeddings.shape), len(trajectory.tokens)
            if len(shape) != 2 or keys.displaced.shape != (tokens, shape[0]):
                raise ValueError(
                    f"keys must be (others, channels), with room among {tokens} tokens, not "
                    f"{shape} with {tuple(keys.displaced.shape)}"
                )
        carried = keys.n_carried if keys is not None and self.carries_words else 0
        rows = 1 + self.rows_for_words(trajectory, carried)
        self.evaluations.forward += rows * len(steps)
        alike: Hashable = None
        if keys is None and steps and self.replays_together(trajectory, query):
            added = trajectory.added_at(steps[0])
            told = tuple(sorted((name, value.shape) for name, value in added.items()))
            latents, embeddings = trajectory.latents.shape[1:], trajectory.embeddings.shape
            alike = (id(self), "attention", query, latents, embeddings, told)

        def replay(asked: list[tuple[Trajectory, tuple[int, ...]]]) -> list[AttentionMeans]:
            if len(asked) == 1:
                return [self._attention(trajectory, query, steps, keys)]
            return self._attention_of_runs(asked, query)

        return meet(alike, (trajectory, steps), replay)

    def replays_together(self, trajectory: Trajectory, query: AttentionQuery) -> bool:
        """Return whether a run's steps may be replayed in one pass with those of other runs."""
        return False

    def attention_by_step(
        self, trajectory: Trajectory, query: AttentionQuery, steps: tuple[int, ...]
    ) -> Iterator[AttentionMeans]:
        """Yield what ``attention`` gives for each step by itself.

        As many steps are replayed at once as their maps stay small.
        """
        places = trajectory.grid[0] * trajectory.grid[1]
        at_once = max(1, min(_STEPS_AT_ONCE, _PAIRS_AT_ONCE // places**2))
        kept = replace(query, keep=tuple(axis for axis in AXES if axis in {"step", *query.keep}))
        for start in range(0, len(steps), at_once):
            some = steps[start : start + at_once]
            found = self.attention(trajectory, kept, some).means
            for step in some:
                yield AttentionMeans(
                    tuple(
                        mean if "step" in query.keep else replace(mean, step=None)
                        for mean in found
                        if mean.step == step
                    )
                )

    @property
    def word_template(self) -> str:
        """A text to encode a word in, at ``{word}``, such as the model's text encoder has read."""
        return WORD_TEMPLATES.get(self.model_id, WORD_TEMPLATE)

    @property
    def carries_words(self) -> bool:
        """True if words beside the prompt go through the denoiser in rows of their own: where its
        layers make their keys on the way, and not each of the text as it is given."""
        return False

    def rows_for_words(self, trajectory: Trajectory, n_tokens: int) -> int:
        """Return the number of the denoiser's rows that ``n_tokens`` tokens of words beside the
        prompt take at a step, besides the run's own, where they go through it."""
        return 1 if n_tokens else 0

    def concept_attention(
        self,
        trajectory: Trajectory,
        query: AttentionQuery,
        steps: tuple[int, ...],
        concepts: Array,
    ) -> AttentionMeans:
        """Replay the conditional rows with words beside the prompt's carried through the joint
        attention, and average how alike the outputs of tokens and places are.

        The concepts attend to each other and to the picture, and nothing attends to them: the run
        is not changed. A step takes a row of the denoiser and ``rows_for_words`` more.

        Args:
            trajectory: of the run.
            query: of cross-attention; its ``measure`` stays the default.
            steps: the steps.
            concepts: the words' embeddings, ``(concepts, channels)``.

        Returns:
            ⟨o_token, o_place⟩ of a head's outputs o = A·V, for the prompt's tokens and then the
            concepts.

        Raises:
            ValueError: a query of another kind, concepts of another size.
        """
        self.require(frozenset({"concept_attention"}), "concept attention")
        trajectory.check_replayable()
        self._check_added(trajectory.added)
        if query.kind != "cross" or query.measure != "probabilities":
            raise ValueError("concept attention is of cross-attention and has a measure of its own")
        shape, channels = tuple(concepts.shape), trajectory.embeddings.shape[1]
        if len(shape) != 2 or shape[1] != channels:
            raise ValueError(f"concepts must be (concepts, {channels} channels), not {shape}")
        rows = 1 + self.rows_for_words(trajectory, int(shape[0]))
        self.evaluations.forward += rows * len(steps)
        return self._concept_attention(trajectory, query, steps, concepts)

    def attention_vjp(
        self,
        latents: Array,
        timestep: float,
        conditioning: Conditioning,
        cotangent: Array,
        query: AttentionQuery,
    ) -> AttentionMeans:
        """The mean of ReLU(A ⊙ ∂S/∂A) over the cross-attention maps A that ``query`` asks for,
        with S = ⟨prediction, cotangent⟩, for one row of latents.

        A step that is kept apart has the number 0.
        """
        self.require(frozenset({"attention_vjp"}), "attention_vjp")
        if query.kind == "self":
            raise ValueError("attention_vjp is of cross-attention: not of self-attention")
        if query.measure != "probabilities":
            raise ValueError(f"attention_vjp is of probabilities: not of {query.measure}")
        _one("attention_vjp", latents)
        self._check_added(conditioning.added)
        self.evaluations.vjp += 1
        return self._attention_vjp(latents, timestep, conditioning, cotangent, query)

    def _check_added(self, added: Mapping[str, object]) -> None:
        recorded = sorted(name.strip("+*=") for name in added if name.startswith("+"))
        if recorded and not self.replays_recorded:
            raise ValueError(
                f"the run was told more than the {self.framework} backend can tell again: "
                + ", ".join(recorded)
            )
        if {name for name in added if not name.startswith("+")} != self.added_names:
            takes = ", ".join(sorted(self.added_names)) or "none"
            raise ValueError(
                f"{self.model_id} takes {takes} as further conditioning, not "
                f"{', '.join(sorted(added)) or 'none'}: was the trajectory made by another model?"
            )

    @abstractmethod
    def _denoise(self, latents: Array, timestep: float, conditioning: Conditioning) -> Array: ...

    @abstractmethod
    def _attention(
        self,
        trajectory: Trajectory,
        query: AttentionQuery,
        steps: tuple[int, ...],
        keys: OtherKeys | None,
    ) -> AttentionMeans: ...

    def _attention_of_runs(
        self, runs: Sequence[tuple[Trajectory, tuple[int, ...]]], query: AttentionQuery
    ) -> list[AttentionMeans]:
        """``_attention`` of several runs, where ``replays_together`` says that it can be had."""
        raise NotImplementedError

    # What not every backend has; ``capabilities`` says which.

    def _concept_attention(
        self,
        trajectory: Trajectory,
        query: AttentionQuery,
        steps: tuple[int, ...],
        concepts: Array,
    ) -> AttentionMeans:
        raise NotImplementedError

    @property
    def sampling(self) -> SamplingFacts:
        """The model's recommendations for ``sample`` and ``invert``."""
        raise NotImplementedError

    @property
    def drawing(self) -> SamplingFacts:
        """The settings of ``sample`` and ``invert``: as recommended, but for ``draw_with``."""
        return replace(self.sampling, **self._drawn_with)

    def draw_with(self, *, steps: int | None = None, guidance_scale: float | None = None) -> None:
        """Take these numbers where a call of ``sample`` or ``invert`` names none.

        Raises ValueError for numbers that the model can't have. None is the model's own.
        """
        given = {"steps": steps, "guidance_scale": guidance_scale}
        if steps is not None:
            self.sampling.steps_of(steps)
        if guidance_scale is not None:
            self.sampling.guidance_of(guidance_scale)
        self._drawn_with = {name: value for name, value in given.items() if value is not None}

    def denoising_steps(self, steps: int | None = None) -> int:
        """Return how many steps the trajectory has of an image drawn in ``steps``."""
        return self.drawing.steps_of(steps)

    def _sample(self, request: DrawRequest) -> list[Trajectory]:
        raise NotImplementedError

    def _invert(
        self, image: npt.NDArray[np.uint8], prompt: str, *, seed: int, steps: int
    ) -> Trajectory:
        raise NotImplementedError

    def _encode_image(self, image: npt.NDArray[np.uint8]) -> Array:
        raise NotImplementedError

    def _denoise_jvp(
        self, latents: Array, timestep: float, conditioning: Conditioning, tangents: Array
    ) -> tuple[Array, Array]:
        raise NotImplementedError

    def _denoise_jvp_of_images(
        self, latents: Array, timestep: float, conditioning: Conditioning, tangents: Array
    ) -> tuple[Array, Array]:
        """``_denoise_jvp`` of several rows, with tangents ``(rows, directions, tokens, channels)``,
        where ``rows_together`` says that it can be had."""
        raise NotImplementedError

    def _denoise_parts(
        self,
        latents: Array,
        timestep: float,
        conditioning: Conditioning,
        baseline: Array,
        parts: Array,
    ) -> Array:
        raise NotImplementedError

    def _denoise_vjp(
        self, latents: Array, timestep: float, conditioning: Conditioning, cotangent: Array
    ) -> Array:
        raise NotImplementedError

    def _token_embeddings(self, text: str) -> Array:
        raise NotImplementedError

    def _encode_from(self, token_embeddings: Array) -> Conditioning:
        raise NotImplementedError

    def _encode_from_jvp(
        self, token_embeddings: Array, tangents: Array
    ) -> tuple[Conditioning, Array]:
        raise NotImplementedError

    def _encode_from_parts(self, token_embeddings: Array, baseline: Array, parts: Array) -> Array:
        raise NotImplementedError

    def _decode(self, latents: Array) -> Array:
        raise NotImplementedError

    def _decode_jvp(self, latents: Array, tangents: Array) -> tuple[Array, Array]:
        raise NotImplementedError

    def _randomized(self, stages: tuple[str, ...], seed: int) -> AbstractContextManager[object]:
        raise NotImplementedError

    def _attention_vjp(
        self,
        latents: Array,
        timestep: float,
        conditioning: Conditioning,
        cotangent: Array,
        query: AttentionQuery,
    ) -> AttentionMeans:
        raise NotImplementedError

    def is_out_of_memory(self, error: Exception) -> bool:
        """Return whether an exception says that the device's memory ran out."""
        return isinstance(error, MemoryError)

    def release_memory(self) -> None:  # noqa: B027 - nothing to do is a fair default
        """Give back what a pass held that ran out of memory."""

    def reset_peak_bytes(self) -> None:  # noqa: B027 - nothing to do is a fair default
        """Start measuring ``peak_bytes`` anew."""

    def peak_bytes(self) -> int | None:
        """The most device memory held since the last reset; None where the device doesn't tell."""
        return None

    def compile_seconds(self) -> float:
        """Return the seconds for which programs have been compiled in this process so far: 0 where
        none are."""
        return 0.0

    def no_gradients(self) -> AbstractContextManager[object]:
        """A context in which nothing is recorded for differentiation."""
        return nullcontext()


def _one(who: str, array: Array) -> None:
    if array.shape[0] != 1:
        raise ValueError(f"{who} takes one row at a time, not {array.shape[0]}")
