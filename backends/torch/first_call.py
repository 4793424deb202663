"""A pipeline's first call of its denoiser, for any prompts: it is run up to there and stopped."""

from __future__ import annotations

import copy
import inspect
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from wordlight.backends.backend import Conditioning
from wordlight.backends.torch.pipeline_calls import without_listeners


class _Stop(BaseException):
    """Ends a pipeline's call where its denoiser would have run."""


def encode_by_running(
    pipe: Any, prompts: Sequence[str], options: Mapping[str, Any]
) -> Conditioning:
    """The embeddings that a pipeline's denoiser gets of some prompts, ``(prompts, positions,
    channels)``; shorter ones than the longest end with their last position again."""
    rows = [first_texts(pipe, [prompt], options)[0] for prompt in prompts]
    longest = max(len(row) for row in rows)
    return Conditioning(torch.stack([lengthened(row, longest) for row in rows]))


def lengthened(embeddings: torch.Tensor, length: int) -> torch.Tensor:
    """Return embeddings ``(length, channels)``, the last position repeated where need be."""
    more = (
        embeddings[-1:].expand(length - len(embeddings), -1) if length > len(embeddings) else None
    )
    return embeddings[:length] if more is None else torch.cat([embeddings, more])


def first_texts(pipe: Any, prompts: Sequence[str], options: Mapping[str, Any]) -> Any:
    """The embeddings that a pipeline's denoiser gets of prompts drawn together: ``(prompts,
    positions, channels)``, or a list of each prompt's."""
    from wordlight.backends.torch.model import Model

    model = Model.of(pipe)
    given = {**options, **model.family.as_given(pipe)}
    prompt = prompts[0] if len(prompts) == 1 else list(prompts)
    args, kwargs = first_call(pipe, model.modules, prompt, given)
    text = model.text(model.arguments_by_name(args, kwargs))
    return text[: len(prompts)] if model.conditional_first else text[-len(prompts) :]


@torch.no_grad()
def first_call(
    pipe: Any,
    modules: Sequence[torch.nn.Module],
    prompt: str | list[str],
    options: Mapping[str, Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a pipeline's first call of its denoiser, one of ``modules``, for a prompt
    or several.

    ``options`` are further arguments of the pipeline's call; those that it doesn't take are left
    out.
    """
    seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def stop(_module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append((args, kwargs))
        raise _Stop

    takes = inspect.signature(pipe.__call__).parameters
    # PixArt else looks for its own size in a table of large ones.
    asked = {"use_resolution_binning": False, **options}
    given = {name: value for name, value in asked.items() if name in takes}
    scheduler = pipe.scheduler
    bar = dict(getattr(pipe, "_progress_bar_config", {}))
    parts: list[Any] = [part for module in modules for part in module.modules()]
    processors = [(part, part.processor) for part in parts if hasattr(part, "set_processor")]
    handles = [module.register_forward_pre_hook(stop, with_kwargs=True) for module in modules]
    try:
        # Its state is the caller's.
        pipe.scheduler = copy.deepcopy(scheduler)
        pipe.set_progress_bar_config(disable=True)
        with without_listeners(), _unsaid(), torch.random.fork_rng(_gpus(modules)):
            pipe(prompt=prompt, num_inference_steps=1, output_type="latent", **given)
    except _Stop:
        pass
    finally:
        for handle in handles:
            handle.remove()
        pipe.scheduler = scheduler
        for part, processor in processors:
            # Pipelines of perturbed attention set their own until their call ends.
            if part.processor is not processor:
                part.set_processor(processor)
        pipe.set_progress_bar_config(**bar)
    return seen[0]


def _gpus(modules: Sequence[torch.nn.Module]) -> list[torch.device]:
    """The GPUs that modules are on, whose random numbers are the user's, too."""
    found = {weight.device for module in modules for weight in module.parameters()}
    return [device for device in found if device.type == "cuda"]


@contextmanager
def _unsaid() -> Iterator[None]:
    """Leaves out of the log what diffusers says in this thread: it is of no call of the user's."""
    thread, handlers = threading.get_ident(), list(logging.getLogger("diffusers").handlers)

    def is_of_others(record: logging.LogRecord) -> bool:
        return record.thread != thread

    for handler in handlers:
        handler.addFilter(is_of_others)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(is_of_others)
