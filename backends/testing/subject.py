"""A backend under test: what it is asked, what that must cost, and how a failure is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from wordlight.backends.attention import AttentionMeans, AttentionQuery, OtherKeys
from wordlight.backends.backend import Array, Backend, Conditioning, Evaluations
from wordlight.backends.batches import join_rows
from wordlight.backends.trajectory import Trajectory

#: Two prompts that any tokenizer reads, of different lengths.
PROMPTS = ("a red circle", "a blue square above a circle")
SEEDS = (5, 6)
STEPS = 2
#: How far two ways to the same number may be apart, relative to its norm: sums are taken in another
#: order, through a network. What is wrong is wrong by more.
_ROUNDING = {"float64": 1e-9, "float32": 2e-4}
_HALF_ROUNDING = 0.1


class Primitive(NamedTuple):
    """One way to ask a backend.

    ``spends`` are the counts that asking may come to.
    """

    name: str
    capability: str
    ask: Callable[[], Any]
    spends: Callable[[], tuple[Evaluations, ...]]


@dataclass(frozen=True, eq=False)
class Outcome:
    """The outcome of asking once: an answer or an exception, and what was counted."""

    answer: Any
    spent: Evaluations


class Subject:
    """A backend and what it is tested with.

    Args:
        backend: the model.
        trajectory: of an image of its own; drawn where None.
        size: height and width of the images that are drawn.
    """

    def __init__(
        self,
        backend: Backend,
        trajectory: Trajectory | None = None,
        size: tuple[int, int] | None = None,
    ) -> None:
        self.backend = backend
        self.given, self._size = trajectory, size
        self._tried: dict[str, Outcome] = {}
        if trajectory is not None and trajectory.steps < STEPS:
            raise ValueError(f"the trajectory must have {STEPS} steps or more")

    # How a failure is told.

    def fail(self, what: str) -> NoReturn:
        """Raises AssertionError, in the backend's name."""
        raise AssertionError(f"{type(self.backend).__name__}: {what}")

    def expect(self, right: object, what: str) -> None:
        """Raises AssertionError where something isn't right."""
        if not right:
            self.fail(what)

    def assert_close(self, one: Array, other: Array, what: str, at_least: float = 0.0) -> None:
        """Raises AssertionError where two arrays differ by more than rounding, or ``at_least``."""
        first, second = self.numpy(one), self.numpy(other)
        if first.shape != second.shape:
            self.fail(f"{what}: one is {first.shape}, the other {second.shape}")
        apart, rounding = distance(first, second), max(self.rounding, at_least)
        self.expect(
            apart <= rounding,
            f"{what}: they are {apart:.1e} of their norm apart, and rounding in "
            f"{self.backend.dtype} explains {rounding:.0e}",
        )

    def shaped(self, array: Array, shape: tuple[int, ...], what: str) -> None:
        """Raises AssertionError where an array has another shape, or values that aren't finite."""
        self.expect(
            tuple(array.shape) == shape, f"{what} is {tuple(array.shape)}, and should be {shape}"
        )
        self.expect(np.isfinite(self.numpy(array)).all(), f"{what} has NaN or infinite values")

    # What it is.

    @property
    def rounding(self) -> float:
        return _ROUNDING.get(self.backend.dtype, _HALF_ROUNDING)

    @property
    def is_half(self) -> bool:
        """True if it computes in half precision."""
        return self.backend.dtype not in _ROUNDING

    def has(self, *capabilities: str) -> bool:
        """Return whether the backend claims all of these."""
        return set(capabilities) <= self.backend.capabilities

    def numpy(self, array: Array) -> npt.NDArray[Any]:
        """Return an array of the backend in float64."""
        taken = array if isinstance(array, np.ndarray) else self.backend.to_numpy(array)
        return np.asarray(taken, np.float64)

    # What it is tested with.

    def written(self, prompt: str) -> str:
        """A prompt as the model reads it."""
        return self.backend.prompt_form.format(prompt=prompt)

    @property
    def prompts(self) -> tuple[str, str]:
        """Two prompts of different lengths."""
        first, second = map(self.written, PROMPTS)
        return first, second

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of the images that are drawn, in pixels."""
        facts = self.backend.sampling
        half = max(1, round(facts.width / 2 / facts.multiple)) * facts.multiple
        if self._size or not facts.sizes:
            return self._size or (facts.height, half)
        return next((size for size in facts.sizes if size[0] != size[1]), facts.sizes[0])

    def draw(self, prompts: Any, seed: Any, **options: Any) -> Any:
        """``sample`` with a few steps, in the size of the test."""
        height, width = self.size
        return self.backend.sample(
            prompts, seed=seed, **{"steps": STEPS, "height": height, "width": width, **options}
        )

    @cached_property
    def trajectory(self) -> Trajectory:
        """A run of the first prompt and seed."""
        if self.given is not None:
            return self.given
        if not self.has("sample"):
            raise ValueError("this backend can't sample: pass a trajectory of its own")
        drawn: Trajectory = self.answer("sample")
        return drawn

    @cached_property
    def image(self) -> npt.NDArray[np.uint8]:
        """An image to be inverted."""
        rng = np.random.default_rng(0)
        return rng.integers(0, 256, (*self.size, 3)).astype(np.uint8)

    @cached_property
    def latents(self) -> Array:
        """The latents in the trajectory's middle, ``(1, channels, height, width)``."""
        return self.backend.asarray(self.trajectory.latents[self.step][None])

    @property
    def step(self) -> int:
        """The step that is looked at."""
        return self.trajectory.steps // 2

    @property
    def timestep(self) -> float:
        """The timestep of these latents."""
        return float(self.trajectory.timesteps[self.step])

    @property
    def rows_a_step(self) -> int:
        """The rows of the denoiser that a step of such a run takes an image: two where guidance
        asks of the negative prompt, too."""
        return 1 if self.trajectory.negative_embeddings is None else 2

    def rows_of(self, steps: int) -> int:
        """The rows of the denoiser of an image that is drawn in so many steps."""
        return self.rows_a_step * self.backend.denoising_steps(steps)

    @cached_property
    def unguided(self) -> Trajectory:
        """A run of three steps whose prediction is the prompt's alone, where there is such; 1 is no
        guidance for most models, and 0 for some."""
        if not self.has("sample"):
            return self.trajectory
        run: Trajectory = self.draw(self.prompts[0], SEEDS[0], steps=3, guidance_scale=1.0)
        if run.negative_embeddings is not None:
            run = self.draw(self.prompts[0], SEEDS[0], steps=3, guidance_scale=0.0)
        return run

    @cached_property
    def conditioning(self) -> Conditioning:
        """The trajectory's, one row."""
        return self.conditioned(self.trajectory.embeddings[None])

    def conditioned(self, embeddings: Any) -> Conditioning:
        """Any embeddings, with what else the trajectory's step is told in each row."""
        told = self.backend.step_conditioning(self.trajectory, self.step)
        added = {name: join_rows([value] * len(embeddings)) for name, value in told.items()}
        given = isinstance(embeddings, np.ndarray)
        return Conditioning(self.backend.asarray(embeddings) if given else embeddings, added)

    def predicted(
        self, run: Trajectory, step: int, embeddings: npt.NDArray[Any] | None = None
    ) -> npt.NDArray[Any]:
        """The prediction at a step of a run, ``(channels, ...)``, for its embeddings or others."""
        backend = self.backend
        text = backend.asarray((run.embeddings if embeddings is None else embeddings)[None])
        told = Conditioning(text, backend.step_conditioning(run, step))
        latents = backend.asarray(run.latents[step][None])
        made = self.numpy(backend.denoise(latents, float(run.timesteps[step]), told))
        row: npt.NDArray[Any] = made[0]
        return row

    @cached_property
    def other_embeddings(self) -> npt.NDArray[Any]:
        """The embeddings of another prompt, ``(tokens, channels)``."""
        run = self.trajectory
        away = run.negative_embeddings
        alike = away is not None and away.shape == run.embeddings.shape
        return run.empty_embeddings if away is None or not alike else away

    def random(self, shape: tuple[int, ...], like: Array, seed: int = 0) -> Array:
        """Random numbers, each row with the norm of ``like``'s first."""
        drawn = np.random.default_rng(seed).standard_normal(shape)
        flat = np.linalg.norm(drawn.reshape(shape[0], -1), axis=1)
        norm = np.linalg.norm(self.numpy(like)[0])
        return self.backend.asarray(drawn * (norm / flat).reshape(-1, *[1] * (len(shape) - 1)))

    @cached_property
    def tangents(self) -> Array:
        """Two directions in embedding space, ``(2, tokens, channels)``."""
        shape = self.conditioning.embeddings.shape
        drawn = self.random((2, *shape[1:]), self.conditioning.embeddings, seed=1)
        return self.as_long_as_embeddings(drawn)

    def as_long_as_embeddings(self, directions: Array) -> Array:
        """Directions in embedding space, as long as the embeddings and each token's part in
        proportion to its own: tokens that are zeros, behind which norms are steep, stay."""
        own = self.numpy(self.conditioning.embeddings)
        scaled = self.numpy(directions) * np.linalg.norm(own, axis=2, keepdims=True)
        lengths = np.linalg.norm(scaled, axis=(1, 2), keepdims=True)
        return self.backend.asarray(scaled * (np.linalg.norm(own) / lengths))

    @property
    def baseline(self) -> Array:
        """Another prompt's embeddings, ``(1, tokens, channels)``."""
        return self.backend.asarray(self.other_embeddings[None])

    @cached_property
    def parts(self) -> Array:
        """The difference from the other prompt's embeddings in two parts, that of every third token
        and the rest, ``(2, tokens, channels)``."""
        whole = self.trajectory.embeddings - self.other_embeddings
        return self.in_two(self.backend.asarray(whole[None]))

    def in_two(self, row: Array) -> Array:
        """One row ``(1, tokens, channels)`` in two parts, every third token's and the rest."""
        first = (np.arange(row.shape[1]) % 3 == 0)[:, None]
        return self.backend.asarray(np.stack([first, ~first])) * row

    def own_keys(self, *, in_place: bool = True) -> OtherKeys:
        """The prompt's own embeddings as words, each in its own place, or beside the prompt."""
        embeddings = self.conditioning.embeddings[0]
        tokens = int(embeddings.shape[0])
        words = [((k,), (k,) if in_place else ()) for k in range(tokens)]
        return OtherKeys.of(embeddings, words, tokens, range(tokens))

    def concepts(self, start: int, stop: int) -> AttentionMeans:
        """Concept attention with some of the prompt's own embeddings as concepts."""
        own = self.conditioning.embeddings[0][start:stop]
        steps = (0, self.step)
        return self.backend.concept_attention(self.trajectory, AttentionQuery(), steps, own)

    @cached_property
    def n_predicted(self) -> int:
        """The channels of a prediction: those of the latents, before those of a picture that a
        denoiser may see beside them."""
        if not self.has("denoise"):
            return int(self.latents.shape[1])
        return len(self.predicted(self.trajectory, self.step))

    @cached_property
    def clean_latents(self) -> Array:
        """Latents as they are decoded, ``(1, channels, height, width)``."""
        return self.latents[:, : self.n_predicted]

    @cached_property
    def cotangent(self) -> Array:
        """A direction among predictions, ``(1, channels, height, width)``."""
        return self.random(tuple(self.clean_latents.shape), self.clean_latents, seed=2)

    @cached_property
    def input_embeddings(self) -> Array:
        """The first prompt's token embeddings, ``(1, tokens, channels)``; random if it has none."""
        if self.has("encode_from"):
            return self.backend.token_embeddings(self.prompts[0])[None]
        return self.conditioning.embeddings

    @cached_property
    def input_tangents(self) -> Array:
        """Two directions there."""
        return self.random((2, *self.input_embeddings.shape[1:]), self.input_embeddings, seed=3)

    @cached_property
    def latent_tangents(self) -> Array:
        """Two directions among latents."""
        clean = self.clean_latents
        return self.random((2, *clean.shape[1:]), clean, seed=4)

    # What it is asked.

    @cached_property
    def primitives(self) -> dict[str, Primitive]:
        """Every primitive, asked once, by name."""
        backend = self.backend

        def of(
            name: str, ask: Callable[[], Any], capability: str | None = None, **cost: int
        ) -> Primitive:
            return Primitive(name, capability or name, ask, lambda: (Evaluations(**cost),))

        def randomize() -> Any:
            with backend.randomized(backend.stages[0], seed=1):
                return backend.denoise(*at()) if self.has("denoise") else look(AttentionQuery())

        def at() -> tuple[Array, float, Conditioning]:
            return self.latents, self.timestep, self.conditioning

        def look(query: AttentionQuery, keys: OtherKeys | None = None) -> Any:
            return backend.attention(self.trajectory, query, (0, self.step), keys)

        asked = (
            Primitive(
                "sample",
                "sample",
                lambda: self.draw(self.prompts[0], SEEDS[0]),
                lambda: (Evaluations(forward=self.rows_of(STEPS)),),
            ),
            Primitive(
                "invert",
                "invert",
                lambda: backend.invert([self.image], [self.prompts[0]], seed=SEEDS[0], steps=3),
                # Nothing, or a run of the pipeline that tells its times.
                lambda: (Evaluations(), Evaluations(forward=self.rows_of(3))),
            ),
            of("encode", lambda: backend.encode(self.prompts[:1])),
            of(
                "token_embeddings", lambda: backend.token_embeddings(self.prompts[0]), "encode_from"
            ),
            of("encode_from", lambda: backend.encode_from(self.input_embeddings)),
            of(
                "encode_from_jvp",
                lambda: backend.encode_from_jvp(self.input_embeddings, self.input_tangents),
                "encode_from",
            ),
            of("denoise", lambda: backend.denoise(*at()), forward=1),
            of("denoise_jvp", lambda: backend.denoise_jvp(*at(), self.tangents), jvp=2),
            of(
                "denoise_parts",
                lambda: backend.denoise_parts(*at(), self.baseline, self.parts),
                jvp=2,
            ),
            of("denoise_vjp", lambda: backend.denoise_vjp(*at(), self.cotangent), vjp=1),
            of("attention", lambda: look(AttentionQuery()), forward=STEPS),
            of(
                "attention with kind='self'",
                lambda: look(AttentionQuery(kind="self")),
                "self_attention",
                forward=STEPS,
            ),
            of(
                "attention with keys",
                lambda: look(AttentionQuery(), self.own_keys()),
                "attention_keys",
                forward=STEPS,
            ),
            Primitive(
                "concept_attention",
                "concept_attention",
                lambda: self.concepts(0, 2),
                lambda: (
                    Evaluations(forward=STEPS * (1 + backend.rows_for_words(self.trajectory, 2))),
                ),
            ),
            of(
                "attention_vjp",
                lambda: backend.attention_vjp(*at(), self.cotangent, AttentionQuery()),
                vjp=1,
            ),
            of("decode", lambda: backend.decode(self.clean_latents)),
            of(
                "decode_jvp",
                lambda: backend.decode_jvp(self.clean_latents, self.latent_tangents),
                "decode",
            ),
            of("randomized", randomize, forward=1 if self.has("denoise") else STEPS),
        )
        return {primitive.name: primitive for primitive in asked}

    def tried(self, name: str) -> Outcome:
        """Return the outcome of asking for a primitive; asked once for all checks."""
        if name not in self._tried:
            self._tried[name] = self._try(self.primitives[name])
        return self._tried[name]

    def _try(self, primitive: Primitive) -> Outcome:
        if primitive.capability != "sample":
            self._prepare()
        before = replace(self.backend.evaluations)
        try:
            answer = primitive.ask()
        except Exception as error:
            answer = error
        return Outcome(answer, self.backend.evaluations - before)

    def _prepare(self) -> None:
        # Made beforehand, so that what it costs isn't counted as the primitive's.
        _ = self.latents, self.conditioning, self.input_embeddings, self.clean_latents
        _ = self.parts, self.tangents, self.cotangent, self.input_tangents, self.latent_tangents

    def answer(self, name: str) -> Any:
        """Return a primitive's answer; AssertionError where it raises instead."""
        answer = self.tried(name).answer
        if isinstance(answer, Exception):
            raise AssertionError(
                f"{type(self.backend).__name__}: it claims {self.primitives[name].capability}, and "
                f"{name} raises {type(answer).__name__} ({answer})"
            ) from answer
        return answer


def distance(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """Return the distance of two arrays, relative to the norm of the second; of zeros,
    absolutely."""
    norm = float(np.linalg.norm(other))
    apart = float(np.linalg.norm(one - other))
    return apart / norm if norm else apart
