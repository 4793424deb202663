"""``trace(pipe)``: from what was recorded of a pipeline call to trajectories and attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from wordlight.backends.attention import AttentionMeans, AttentionQuery
from wordlight.backends.torch.recorder import Call, PipelineRecorder
from wordlight.backends.torch.tokenizing import tokenize
from wordlight.backends.traces import Trace
from wordlight.backends.trajectory import Trajectory

if TYPE_CHECKING:
    from wordlight.backends.torch.backend import TorchBackend


class Tracing(Trace):
    """A context manager round any call of a pipeline; see ``wordlight.backends.trace``."""

    def __init__(
        self, backend: TorchBackend, query: AttentionQuery, prompts: Sequence[str] | None
    ) -> None:
        self.query = query
        self._backend = backend
        self._prompts = list(prompts) if prompts is not None else None
        self._recorder = PipelineRecorder(backend.pipe, query)

    def __enter__(self) -> Tracing:
        self._recorder.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._recorder.__exit__(*error)
        if error[0] is None:
            for call in self._recorder.calls:
                complete(self._backend, call)

    @property
    def held_bytes(self) -> int:
        """Memory that the attention averages hold, without the trajectory's own latents."""
        return sum(c.accumulator.held_bytes for c in self._recorder.calls if c.accumulator)

    @cached_property
    def trajectories(self) -> tuple[Trajectory, ...]:
        """See ``Trace.trajectories``."""
        made: list[Trajectory] = []
        for call in self._finished():
            if self._prompts is not None:
                call = replace(call, prompts=self._prompts)
            made += trajectories_of(self._backend, call, allow_cut=True)
        return tuple(made)

    @cached_property
    def attention(self) -> tuple[AttentionMeans, ...]:
        """See ``Trace.attention``."""
        return tuple(
            call.accumulator.means(image)
            for call in self._finished()
            if call.accumulator is not None
            for image in range(len(call.latents[0]))
        )

    def _finished(self) -> list[Call]:
        calls = [call for call in self._recorder.calls if call.latents]
        if not calls:
            raise ValueError("nothing was traced: call the pipeline inside the block")
        return calls


def complete(backend: TorchBackend, call: Call) -> None:
    """Add what the run itself didn't make, with the pipeline as it was: the empty prompt's
    embedding, and the image where latents were asked for.

    Done right after the run, since what becomes of the pipeline later is nothing of the run's.
    """
    if not call.latents:
        return
    call.empty_embeddings = backend.encode_like([""], call.encoding)[0]
    if call.final_latents is not None:
        call.images = backend.images_of(call.final_latents)


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
    count = len(call.latents[0])
    if len(call.prompts) * call.images_per_prompt != count:
        raise ValueError(
            f"the pipeline drew {count} images, which doesn't fit {len(call.prompts)} prompt(s) "
            f"with {call.images_per_prompt} image(s) each"
        )
    if len(call.images) != count or call.empty_embeddings is None:
        raise ValueError("the pipeline ended before its images were made")
    empty = backend.to_numpy(call.empty_embeddings)
    tokens = [tokenize(backend.pipe, p, allow_cut=allow_cut) for p in call.prompts]
    made = []
    for k in range(count):
        prompt = k // call.images_per_prompt
        negative = None
        if call.negative_embeddings is not None:
            negative = backend.to_numpy(call.negative_embeddings[k])
        made.append(
            Trajectory(
                prompt=call.prompts[prompt],
                tokens=tokens[prompt],
                embeddings=backend.to_numpy(call.embeddings[k]),
                empty_embeddings=empty,
                negative_embeddings=negative,
                negative_prompt=call.negative_prompts[prompt] if call.negative_prompts else None,
                timesteps=np.array(call.timesteps),
                latents=np.stack([backend.to_numpy(latents[k]) for latents in call.latents]),
                image=call.images[k],
                guidance_scale=call.guidance_scale,
                model_id=backend.model_id,
                revision=backend.revision,
                framework=backend.framework,
                seed=None if seeds is None else seeds[k],
                not_replayable=call.not_replayable,
            )
        )
    return made
