"""One sampling run: all that attribution needs of it, on any framework."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from wordlight.backends.arrays_file import FileFormatError, read_arrays, write_arrays
from wordlight.backends.tokens import Tokens

_KIND, _VERSION = "trajectory", 2

FloatArray = npt.NDArray[np.floating[Any]]


#: Beyond it the squares of float32 numbers aren't finite.
_LARGEST = 1e18


def check_numbers(name: str, array: npt.NDArray[Any]) -> None:
    """Raises ValueError for an array that isn't of floating numbers, or has some that no model
    makes: NaN, infinite, or so large that their squares are."""
    if name.partition(".")[2].startswith("+") and array.dtype.kind in "biu":
        # What a pipeline told besides may be places, masks and switches.
        return
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"{name} must be floating-point numbers, not {array.dtype}")
    if not array.size:
        raise ValueError(f"{name} must not be empty, as {array.shape} is")
    # NaN compares as false too.
    if not (np.abs(array) <= _LARGEST).all():
        raise ValueError(f"{name} must be finite numbers of at most {_LARGEST:g}")


def check_image(image: npt.NDArray[Any], *, video: bool = False) -> None:
    """Raises ValueError for what is no image of ``(height, width, 3)`` uint8, or no video, which
    has an axis for frames before these."""
    if video:
        if image.ndim != 4 or image.shape[3] != 3 or image.dtype != np.uint8 or not image.size:
            raise ValueError(
                f"a video must be (frames, height, width, 3) uint8, not {image.shape} {image.dtype}"
            )
    elif image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(
            f"an image must be (height, width, 3) uint8, not {image.shape} {image.dtype}"
        )


def still_of(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The image itself; of a video its middle frame."""
    return image[len(image) // 2] if image.ndim == 4 else image


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One image's, or one video's, way through the denoiser, as numpy arrays.

    Attributes:
        prompt: the words that were asked for.
        tokens: the prompt as the text encoder saw it.
        embeddings: the encoder's hidden states, ``(tokens, channels)``.
        empty_embeddings: the same of the empty prompt, the default baseline.
        negative_embeddings: the same of the negative prompt, or None where there was none.
        timesteps: ``(steps,)``, from noise to image.
        latents: the denoiser's input before each step, ``(steps, channels, height, width)``, of a
            video ``(steps, channels, frames, height, width)``: scaled as the scheduler scales its
            input.
        image: ``(height, width, 3)`` uint8; of a video ``(frames, height, width, 3)``, with more
            frames than the latents. May be given as a function that makes it, which is called when
            it is first read: a pipeline that gave latents has decoded none.
        seed: of the initial noise; None where a traced pipeline drew it itself.
        guidance_scale: 1.0 means no guidance.
        model_id, revision: the model that made it.
        framework: ``"torch"``, ``"flax"``, ...
        added: further conditioning by name (pooled embeddings, time ids), ``(...)`` without batch.
        empty_added, negative_added: the same of the empty and the negative prompt.
        not_replayable: why a replay from the latents would differ from the run, or None.
        negative_tokens: the negative prompt as the text encoder saw it, where there is one.
        layout_from: the source of the layout of text and picture in the denoiser: ``"table"`` or
            ``"probe"``.
        words_of: the text that the words are of: ``"prompt"``, or ``"negative"`` (``of_negative``).
        noise_source: ``"sampled"``, or how an image that was given came to noise: ``"noising"``,
            ``"ddim"``.
        step_added: further conditioning that was another at each step, ``(steps, ...)`` each.
        encoded_otherwise: how the embeddings came about, where the run was not simply given words
            (``"prompt_embeds"``, ``"clip_skip"``); None for words.
        weights: a digest of the weights that made it, or None where it isn't known; comparable
            within a framework and precision.
        hooks: the users' hooks that were on the denoiser in the run; "" for none.
        predictions: what the denoiser gave, in its own units, at the first step and, if there is
            another, the last, ``(1 or 2, channels, height, width)``; None where it isn't known.
    """

    prompt: str
    tokens: Tokens
    embeddings: FloatArray
    empty_embeddings: FloatArray
    timesteps: FloatArray
    latents: FloatArray
    image: npt.NDArray[np.uint8]
    guidance_scale: float
    model_id: str
    framework: str
    negative_embeddings: FloatArray | None = None
    negative_prompt: str | None = None
    seed: int | None = None
    revision: str | None = None
    added: dict[str, FloatArray] = field(default_factory=dict)
    empty_added: dict[str, FloatArray] = field(default_factory=dict)
    negative_added: dict[str, FloatArray] = field(default_factory=dict)
    not_replayable: str | None = None
    noise_source: str = "sampled"
    step_added: dict[str, FloatArray] = field(default_factory=dict)
    weights: str | None = None
    encoded_otherwise: str | None = None
    negative_tokens: Tokens | None = None
    words_of: str = "prompt"
    layout_from: str = "table"
    hooks: str = ""
    predictions: FloatArray | None = None

    def __repr__(self) -> str:
        size = "x".join(map(str, self.latents.shape[2:]))
        return (
            f"Trajectory({self.prompt!r}, {len(self.timesteps)} steps of {self.model_id} on "
            f"{self.framework}, latents {size}, seed {self.seed})"
        )

    def __post_init__(self) -> None:
        if self.latents.ndim not in (4, 5) or len(self.latents) != len(self.timesteps):
            raise ValueError(
                "latents must be (steps, channels, height, width), of a video (steps, channels, "
                "frames, height, width), with one entry a timestep, not "
                f"{self.latents.shape} for {len(self.timesteps)} timesteps"
            )
        if self.embeddings.ndim != 2 or len(self.embeddings) != len(self.tokens):
            raise ValueError(
                f"embeddings must be (tokens, channels) for {len(self.tokens)} tokens, not "
                f"{self.embeddings.shape}"
            )
        given: Any = vars(self)["image"]
        if callable(given):
            object.__setattr__(self, "_make_image", given)
            object.__delattr__(self, "image")
        else:
            check_image(given, video=self.is_video)
        for name, array in self._numbers():
            check_numbers(name, array)
        if self.words_of not in ("prompt", "negative"):
            raise ValueError(f"words_of must be 'prompt' or 'negative', not {self.words_of!r}")
        if not math.isfinite(self.guidance_scale):
            raise ValueError(f"the guidance scale must be a number, not {self.guidance_scale}")

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            # Of what isn't there: the image, until it is read.
            if name != "image" or "_make_image" not in vars(self):
                raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
            made = vars(self)["_make_image"]()
            check_image(made, video=self.is_video)
            object.__setattr__(self, "image", made)
            return made

    def _numbers(self) -> Iterator[tuple[str, FloatArray]]:
        """Every array of floating numbers, by name."""
        for name in ("latents", "timesteps", "embeddings", "empty_embeddings"):
            yield name, getattr(self, name)
        for name in _OPTIONAL:
            if getattr(self, name) is not None:
                yield name, getattr(self, name)
        for group in _ADDED:
            # In one order, however they were read.
            for name, array in sorted(getattr(self, group).items()):
                yield f"{group}.{name}", array

    @property
    def steps(self) -> int:
        """The number of the denoiser's calls: some schedulers call it more than once a step."""
        return len(self.timesteps)

    def of_negative(self) -> Trajectory:
        """Return the run as its negative prompt's half of the guidance saw it.

        Its words, embeddings and whatever else the denoiser was told are the negative prompt's, so
        that methods explain where those words are looked at, and what they do to the prediction.

        Raises ValueError where there was no such half, or no word in it.
        """
        if self.negative_embeddings is None:
            raise ValueError(
                "there is no negative branch: the image was made without classifier-free guidance "
                "(a guidance scale that is an input of the model, as of Flux.1 dev, has none)"
            )
        if not (self.negative_prompt or "").strip():
            raise ValueError("the negative prompt is empty: there are no words of it")
        if self.negative_tokens is None:
            raise ValueError(
                "the tokens of the negative prompt aren't known: the run was given embeddings, or "
                "was recorded by an earlier version; draw it again"
            )
        changed = "what its denoiser was told besides changed from step to step, and was kept of "
        return replace(
            self,
            prompt=self.negative_prompt or "",
            tokens=self.negative_tokens,
            embeddings=self.negative_embeddings,
            added={**self.added, **self.negative_added},
            step_added={},
            not_replayable=self.not_replayable
            or (f"{changed}the prompt alone" if self.step_added else None),
            negative_embeddings=None,
            negative_prompt=None,
            negative_tokens=None,
            negative_added={},
            predictions=None,
            words_of="negative",
        )

    def check_replayable(self) -> None:
        """Raises ValueError where a replay from the latents would not be the run that was."""
        if self.not_replayable:
            raise ValueError(
                f"this trajectory can't be replayed ({self.not_replayable}): of such a run there "
                "are only the maps that were traced while it ran (DAAM.from_trace)"
            )

    def added_at(self, step: int) -> dict[str, FloatArray]:
        """The further conditioning of one step, without an axis for rows."""
        return {**self.added, **{name: value[step] for name, value in self.step_added.items()}}

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the latents."""
        return int(self.latents.shape[-2]), int(self.latents.shape[-1])

    @property
    def is_video(self) -> bool:
        """True for a run of a video."""
        return self.latents.ndim == 5

    @property
    def places(self) -> tuple[int, ...]:
        """Height and width of the latents, of a video behind its number of frames: the shape of a
        map."""
        return tuple(int(side) for side in self.latents.shape[2:])

    @property
    def place_axes(self) -> tuple[str, ...]:
        """The names of these axes."""
        return ("frame", "y", "x") if self.is_video else ("y", "x")

    def at_steps(self, steps: int | Sequence[int] | None) -> tuple[int, ...]:
        """Step indices: all for None, ``steps`` evenly spaced ones for a number.

        A number's steps lie in the middle of as many equal stretches. Raises ValueError for steps
        that the trajectory doesn't have.
        """
        return step_indices(steps, self.steps)

    def _repr_html_(self) -> str:
        """The image and what it was drawn with, for a notebook."""
        buffer = BytesIO()
        Image.fromarray(still_of(self.image)).save(buffer, format="png")
        height, width = self.image.shape[-3:-1]
        facts = {
            "model": self.model_id,
            "framework": self.framework,
            "seed": self.seed,
            "steps": self.steps,
            "guidance": f"{self.guidance_scale:g}",
            "negative prompt": self.negative_prompt,
            "pixels": f"{width} x {height}",
            "frames": len(self.image) if self.is_video else None,
        }
        said = " · ".join(f"{name} {fact}" for name, fact in facts.items() if fact is not None)
        return (
            f'<figure style="margin: 0; max-width: 24rem"><img alt="{escape(self.prompt)}" '
            f'src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}" '
            'style="width: 100%; border-radius: 8px'
            f'{"; image-rendering: pixelated" if max(height, width) < 256 else ""}">'
            f"<figcaption><bdi>{escape(self.prompt)}</bdi><br><small><bdi>{escape(said)}</bdi>"
            "</small></figcaption></figure>"
        )

    def digest(self) -> str:
        """Return a digest of this run: SHA-256 of its prompt, model and arrays."""
        said = [self.prompt, self.model_id, self.revision, self.seed, self.guidance_scale]
        digest = hashlib.sha256(json.dumps(said).encode())
        for array in (self.image, *(array for _, array in self._numbers())):
            digest.update(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())
        return digest.hexdigest()

    def save(self, path: str | Path, label: Mapping[str, str] | None = None) -> None:
        """Write to one safetensors file, by atomic rename.

        ``label`` says what it is kept for, and has to be said again to read it for that.
        """
        arrays: dict[str, npt.NDArray[Any]] = {
            "embeddings": self.embeddings,
            "empty_embeddings": self.empty_embeddings,
            "timesteps": self.timesteps,
            "latents": self.latents,
            "image": self.image,
        }
        arrays |= {n: getattr(self, n) for n in _OPTIONAL if getattr(self, n) is not None}
        for group in _ADDED:
            arrays |= {f"{group}.{name}": v for name, v in getattr(self, group).items()}
        facts = {name: getattr(self, name) for name in _FACTS} | {"tokens": self.tokens.to_json()}
        if self.negative_tokens is not None:
            facts["negative_tokens"] = self.negative_tokens.to_json()
        write_arrays(Path(path), _KIND, _VERSION, arrays, facts, label)

    @classmethod
    def load(cls, path: str | Path, label: Mapping[str, str] | None = None) -> Trajectory:
        """Read what ``save`` wrote.

        Raises FileNotFoundError, and FileFormatError on a damaged file, another version, or one
        that was kept for something else than ``label`` says.
        """
        arrays, facts = read_arrays(Path(path), _KIND, _VERSION, label)
        added: dict[str, dict[str, Any]] = {group: {} for group in _ADDED}
        for name in list(arrays):
            group, dot, own = name.partition(".")
            if dot and group in added:
                added[group][own] = arrays.pop(name)
        try:
            tokens = Tokens.from_json(facts.pop("tokens"))
            if "negative_tokens" in facts:
                facts["negative_tokens"] = Tokens.from_json(facts["negative_tokens"])
            fields: dict[str, Any] = {**arrays, **facts, **added}
            return cls(tokens=tokens, **fields)
        except (KeyError, TypeError, ValueError) as error:
            raise FileFormatError(f"{path} is no trajectory: {error}") from None


_OPTIONAL = ("negative_embeddings", "predictions")
_ADDED = ("added", "empty_added", "negative_added", "step_added")
_FACTS = (
    "prompt",
    "guidance_scale",
    "model_id",
    "framework",
    "negative_prompt",
    "seed",
    "revision",
    "not_replayable",
    "noise_source",
    "weights",
    "encoded_otherwise",
    "words_of",
    "layout_from",
    "hooks",
)


def step_indices(steps: int | Sequence[int] | None, count: int) -> tuple[int, ...]:
    """Return which of ``count`` steps are meant, as ``Trajectory.at_steps`` does."""
    if steps is None:
        return tuple(range(count))
    if isinstance(steps, int):
        if not 1 <= steps <= count:
            raise ValueError(f"the trajectory has {count} steps, not {steps}")
        return tuple(int((i + 0.5) * count / steps) for i in range(steps))
    for step in steps:
        if not 0 <= step < count:
            raise ValueError(f"step {step} is outside 0..{count - 1}")
    if not steps or len(set(steps)) != len(steps):
        raise ValueError("a step set must name at least one step, and none twice")
    return tuple(steps)
