"""``trace(pipe)``: from what was recorded of a pipeline call to trajectories and attention."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from wordlight.backends.attention import AttentionMeans, AttentionQuery
from wordlight.backends.tokens import Tokens
from wordlight.backends.torch.families import as_grid
from wordlight.backends.torch.first_call import lengthened
from wordlight.backends.torch.recorder import (
    Call,
    PipelineRecorder,
    as_uint8,
    images_of,
    times_of,
)
from wordlight.backends.torch.words_given import check_words_given
from wordlight.backends.traces import Trace
from wordlight.backends.trajectory import Trajectory

if TYPE_CHECKING:
    from wordlight.backends.torch.backend import TorchBackend


class Tracing(Trace):
    """A context manager round any call of a pipeline; see ``wordlight.backends.trace``."""

    def __init__(
        self,
        backend: TorchBackend,
        query: AttentionQuery,
        prompts: Sequence[str] | None,
        *,
        negative: bool = False,
    ) -> None:
        self.query = query
        self._negative = negative
        self._backend = backend
        self._prompts = list(prompts) if prompts is not None else None
        self._recorder = PipelineRecorder(backend.pipe, query, self._finish, negative=negative)
        self._made: dict[int, list[Trajectory]] = {}

    def __enter__(self) -> Tracing:
        self._recorder.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._recorder.__exit__(*error)

    def _finish(self, call: Call) -> None:
        complete(self._backend, call, self._prompts)

    @property
    def held_bytes(self) -> int:
        """Memory that the attention averages hold, without the trajectory's own latents."""
        return sum(c.accumulator.held_bytes for c in self._recorder.calls if c.accumulator)

    @property
    def trajectories(self) -> tuple[Trajectory, ...]:
        made: list[Trajectory] = []
        for index, call in enumerate(self._finished()):
            if index not in self._made:
                self._made[index] = trajectories_of(self._backend, call, allow_cut=True)
            made += self._made[index]
        return tuple(made)

    @property
    def attention(self) -> tuple[AttentionMeans, ...]:
        """The averages, inside the block also those of a call that is still running."""
        return tuple(
            call.accumulator.means(image)
            for call in self._whole()
            if call.accumulator is not None
            for image in range(len(call.latents[0]))
        )

    @property
    def negative_attention(self) -> tuple[AttentionMeans, ...]:
        if not self._negative:
            return super().negative_attention
        for trajectory in self.trajectories:
            trajectory.of_negative()
        return tuple(
            call.negative_accumulator.means(image)
            for call in self._finished()
            if call.negative_accumulator is not None
            for image in range(len(call.latents[0]))
        )

    def check_words(self, image: int) -> None:
        calls = [call for call in self._finished() for _ in range(len(call.latents[0]))]
        if calls[image].words_changed:
            raise ValueError(
                "the text embeddings changed between steps: the attention of each step is to other "
                "words, so maps of the first ones would be wrong. Trace the parts one by one"
            )

    def _whole(self) -> list[Call]:
        """The calls that weren't cancelled; raises ValueError where one can't be explained."""
        calls = [call for call in self._recorder.calls if not call.cancelled]
        for call in calls:
            if call.fault is not None:
                raise ValueError(
                    f"a call of {type(self._backend.pipe).__name__} can't be explained: "
                    f"{call.fault}"
                )
        seen = [call for call in calls if call.latents]
        if seen:
            return seen
        if self._recorder.calls and not calls:
            raise ValueError("the pipeline ended early, by an exception: there is no image")
        if calls:
            raise ValueError(
                f"the pipeline ran without calling its {self._backend.model.family.part}: there is "
                "nothing to explain"
            )
        raise ValueError("nothing was traced: call the pipeline inside the block")

    def _finished(self) -> list[Call]:
        calls = self._whole()
        if not calls[-1].finished:
            if done := [call for call in calls if call.finished]:
                return done
            raise ValueError(
                "the pipeline is still running: there are trajectories, and maps, once its call "
                "inside the with block has returned"
            )
        return calls


def complete(backend: TorchBackend, call: Call, prompts: Sequence[str] | None = None) -> None:
    """Add what the run itself didn't make, with the pipeline as it was: the empty prompt's
    embedding, and which weights it ran with.

    Done right after the run, since what becomes of the pipeline later is nothing of the run's.
    """
    if prompts is None and call.given_embeddings:
        # Pipelines that take both draw by the embeddings.
        prompts = call.prompts
    if prompts is not None:
        check_words_given(backend, call, prompts)
        call.prompts = list(prompts)
        call.images_per_prompt = max(1, len(call.latents[0]) // max(1, len(prompts)))
    _check_one_run(call)
    call.weights = backend.weights
    call.empty_embeddings, call.empty_added = _empty(backend, call)


def _check_one_run(call: Call) -> None:
    """Raises ValueError where the noise grew again on the way: a pipeline that draws twice in one
    call, as for a larger size, makes two pictures, and gives one."""
    moves = np.sign(np.diff(times_of(call.timesteps)))
    if len(set(moves[moves != 0])) > 1:
        raise ValueError(
            "the timesteps of one call go back on the way: it draws several times, and gives one "
            "picture. Trace the pipeline that it calls, once a picture"
        )


def _empty(backend: TorchBackend, call: Call) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The empty prompt's conditioning; guided runs often have it already."""
    unspoken = all(call.arguments.get(n) is None for n in ("negative_prompt_embeds", "prompt_2"))
    pushed_away = not any(call.negative_prompts or ())
    if (
        call.negative_embeddings is not None
        and backend.model.family.empty_is_negative(backend.pipe)
        and unspoken
        and pushed_away
        and call.prompts is not None
        and call.arguments.get("prompt") is not None
    ):
        return call.negative_embeddings[0], {}
    made = backend.encode_with([""], call.encoding_options)
    assert call.embeddings is not None
    own = lengthened(made.embeddings[0], call.embeddings.shape[1])
    return own, {name: value[0] for name, value in made.added.items()}


def trajectories_of(
    backend: TorchBackend,
    call: Call,
    *,
    seeds: Sequence[int] | None = None,
    allow_cut: bool = False,
) -> list[Trajectory]:
    """One trajectory an image of a recorded call, prompt by prompt."""
    if call.prompts is None:
        raise ValueError(
            "the pipeline was given embeddings and not words: pass the words as "
            "trace(pipe, prompts=[...])"
        )
    assert call.embeddings is not None
    assert call.empty_embeddings is not None
    count = len(call.latents[0])
    if len(call.prompts) * call.images_per_prompt != count:
        raise ValueError(
            f"the pipeline drew {count} images, which doesn't fit {len(call.prompts)} prompt(s) "
            f"with {call.images_per_prompt} image(s) each"
        )
    images = _images(backend, call, count)
    tokens = [_tokens(backend, call, prompt, allow_cut) for prompt in call.prompts]
    why = "the text embeddings changed between steps" if call.words_changed else None
    empty_added = {name: backend.to_numpy(value) for name, value in call.empty_added.items()}
    made = []
    for k in range(count):
        prompt = k // call.images_per_prompt
        negative = None
        away = call.negative_prompts[prompt] if call.negative_prompts else None
        if call.negative_embeddings is not None:
            negative = backend.to_numpy(call.negative_embeddings[k])
        made.append(
            Trajectory(
                prompt=call.prompts[prompt],
                tokens=tokens[prompt],
                embeddings=backend.to_numpy(call.embeddings[k]),
                empty_embeddings=backend.to_numpy(call.empty_embeddings),
                negative_embeddings=negative,
                negative_prompt=away,
                layout_from="probe" if backend.model.family.probed else "table",
                negative_tokens=_negative_tokens(backend, call, away),
                negative_added={n: _of_image(n, v, k) for n, v in call.negative_added.items()},
                timesteps=times_of(call.timesteps),
                latents=np.stack([backend.to_numpy(latents[k]) for latents in call.latents]),
                image=images[k],
                guidance_scale=call.guidance_scale,
                model_id=backend.model_id,
                revision=backend.revision,
                framework=backend.framework,
                seed=None if seeds is None else seeds[k],
                added={n: _of_image(n, v, k) for n, v in call.added.items()},
                empty_added=empty_added,
                step_added={
                    name: np.stack([_of_image(name, value, k) for value in steps])
                    for name, steps in call.step_added.items()
                },
                not_replayable=call.not_replayable or why,
                weights=call.weights,
                hooks=", ".join(call.hooks),
                predictions=np.stack([backend.to_numpy(one[k]) for one in call.predictions]),
                encoded_otherwise=_encoded_otherwise(call),
            )
        )
    return made


def _encoded_otherwise(call: Call) -> str | None:
    """The argument of a call that made other embeddings than the prompt alone does."""
    second = call.arguments.get("prompt_2")
    if second and second != call.arguments.get("prompt"):
        return "prompt_2"
    if call.given_embeddings:
        return "prompt_embeds"
    return None if call.arguments.get("clip_skip") is None else "clip_skip"


def _tokens(backend: TorchBackend, call: Call, prompt: str, allow_cut: bool) -> Tokens:
    assert call.embeddings is not None
    length = int(call.embeddings.shape[1])
    return backend.model.family.tokens(
        backend.pipe, prompt, allow_cut=allow_cut, options=call.arguments, length=length
    )


def _negative_tokens(backend: TorchBackend, call: Call, prompt: str | None) -> Tokens | None:
    """The tokens of a negative prompt; None where there is no word, or it can't be told of them."""
    if call.negative_embeddings is None or not prompt:
        return None
    options = {
        name: value
        for name, value in call.arguments.items()
        if not name.startswith(("prompt", "negative_prompt"))
    }
    others = (call.arguments.get(f"negative_prompt_{number}") for number in (2, 3, 4))
    if any(other not in (None, prompt, [prompt]) for other in others):
        return None
    length = int(call.negative_embeddings.shape[1])
    try:
        return backend.model.family.tokens(
            backend.pipe, prompt, allow_cut=True, options=options, length=length
        )
    except ValueError:
        # Said where its words are asked for; nobody may want to.
        return None


def _images(backend: TorchBackend, call: Call, count: int) -> list[Any]:
    """The pipeline's images, as ``(height, width, 3)`` uint8; of latents, functions that decode
    them."""
    output = images_of(call.output)
    latent = isinstance(output, torch.Tensor) and call.arguments.get("output_type") == "latent"
    if latent:
        images: list[Any] = [
            functools.partial(_decoded, backend, call, output[k : k + 1])
            for k in range(len(output))
        ]
    else:
        video = call.latents[0].ndim == 5
        images = [as_uint8(image, video=video) for image in output]
    if len(images) != count:
        raise ValueError(f"the pipeline gave {len(images)} images of {count} that it drew")
    if not latent:
        for image in images:
            _check_frame(backend, call, image)
    return images


def _decoded(backend: TorchBackend, call: Call, latents: torch.Tensor) -> npt.NDArray[np.uint8]:
    """The image of one row of the latents that a pipeline gave."""
    grid = call.latents[0].shape[-2:]
    if latents.ndim == 3 and backend.model.family.packed and latents.shape[1] == grid.numel():
        latents = as_grid(latents, (grid[0], grid[1]))
    if latents.ndim == 5:
        # Kandinsky's, with an axis for the one frame, as its denoiser gives them.
        latents = backend.model.family.read(backend.model.module, latents, {})
    # Other places in a row are a pipeline's own way to write them.
    if "decode" not in backend.capabilities or latents.ndim != 4:
        raise ValueError(
            f"the pipeline gave latents (output_type='latent'), and how those of "
            f"{backend.model.family.name} are decoded isn't known here: maps lie over an image, so "
            "let the pipeline decode it"
        )
    (image,) = backend.images_of(latents)
    _check_frame(backend, call, image)
    return image


def _check_frame(backend: TorchBackend, call: Call, image: npt.NDArray[np.uint8]) -> None:
    """Raises ValueError where the denoiser worked on another picture than the whole image."""
    grid = tuple(int(side) for side in call.latents[0].shape[-2:])
    steps = [pixels / places for pixels, places in zip(image.shape[-3:-1], grid, strict=True)]
    scale = getattr(backend.pipe, "vae_scale_factor", None)
    wanted = float(scale) if backend.model.family.feature_maps and scale else steps[0]
    if any(abs(step - wanted) > 0.02 * wanted for step in steps):
        raise ValueError(
            f"{type(backend.pipe).__name__} gave an image of {image.shape[-3]} x {image.shape[-2]} "
            f"pixels, and its denoiser worked on {grid[0]} x {grid[1]} places: on views or a crop "
            "of it, so that maps can't be laid over the image"
        )


def _of_image(name: str, value: Any, image: int) -> npt.NDArray[Any]:
    """Return the conditioning of one image; see ``call_arguments`` for the names."""
    if not isinstance(value, torch.Tensor):
        return np.array(value)
    own = value if name.endswith("*") else value[image]
    if own.is_floating_point():
        own = own.to(torch.promote_types(own.dtype, torch.float32))
    found: npt.NDArray[Any] = own.cpu().numpy()
    return found
