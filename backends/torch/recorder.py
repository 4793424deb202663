"""Records what a running diffusers pipeline goes through."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import StableDiffusionPipeline

from wordlight.backends.attention import AttentionQuery
from wordlight.backends.torch.accumulator import AttentionAccumulator
from wordlight.backends.torch.taps import AttentionTap

#: Arguments of the UNet that a replay from latents, timestep and embeddings doesn't know of.
_UNKNOWN_TO_REPLAY = {
    "down_block_additional_residuals": "residuals were added to the UNet (ControlNet)",
    "mid_block_additional_residual": "residuals were added to the UNet (ControlNet)",
    "down_intrablock_additional_residuals": "residuals were added to the UNet (T2I-Adapter)",
    "added_cond_kwargs": "the UNet was given more conditions (an IP-Adapter)",
    "cross_attention_kwargs": "the attention processors were given arguments",
    "timestep_cond": "the UNet was told the guidance scale (LCM)",
    "class_labels": "the UNet was given class labels",
    "attention_mask": "the attention was masked",
    "encoder_attention_mask": "the attention was masked",
}


@dataclass
class Call:
    """One call of the pipeline: all arrays are of the conditional rows, one an image.

    ``rows`` counts what the UNet was given in all, conditional or not; ``encoding`` holds what else
    the text encoder was told.
    """

    accumulator: AttentionAccumulator | None
    prompts: list[str] | None = None
    negative_prompts: list[str] | None = None
    images_per_prompt: int = 1
    guidance_scale: float = 1.0
    latents: list[torch.Tensor] = field(default_factory=list)
    timesteps: list[float] = field(default_factory=list)
    embeddings: torch.Tensor | None = None
    negative_embeddings: torch.Tensor | None = None
    not_replayable: str | None = None
    images: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    final_latents: torch.Tensor | None = None
    rows: int = 0
    empty_embeddings: torch.Tensor | None = None
    encoding: dict[str, Any] = field(default_factory=dict)


class PipelineRecorder:
    """Listens to a pipeline from beside it; a context manager that leaves nothing behind.

    Prompts are seen where the pipeline encodes them, latents, timesteps and embeddings where the
    UNet is called, images where they are post-processed. Each call of the pipeline inside the
    block is a ``Call``. The UNet's conditional rows are those the pipeline itself says it has.
    """

    def __init__(self, pipe: StableDiffusionPipeline, query: AttentionQuery | None) -> None:
        self._pipe = pipe
        self._query = query
        self._undo: list[Callable[[], None]] = []
        self._tap: AttentionTap | None = None
        self.calls: list[Call] = []
        self._latent_grid = (0, 0)
        self._unet_signature = inspect.signature(type(pipe.unet).forward)

    def __enter__(self) -> PipelineRecorder:
        if not isinstance(getattr(type(self._pipe), "do_classifier_free_guidance", None), property):
            raise ValueError(
                f"{type(self._pipe).__name__} doesn't say whether it guides, so its conditional "
                "rows can't be told"
            )
        if not hasattr(self._pipe, "encode_prompt"):
            raise ValueError(f"{type(self._pipe).__name__} has no encode_prompt: not supported")
        try:
            if self._query is not None:
                tap = AttentionTap(
                    self._pipe.unet,
                    self._query,
                    lambda: self._conditional,
                    lambda: self._latent_grid,
                    self._receive,
                )
                self._undo.append(tap.remove)
                tap.__enter__()
            handle = self._pipe.unet.register_forward_pre_hook(self._before_unet, with_kwargs=True)
            self._undo.append(handle.remove)
            self._wrap(self._pipe, "encode_prompt", self._before_encoding, None)
            self._wrap(self._pipe.image_processor, "postprocess", None, self._after_postprocess)
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Take every hook away, in reverse order."""
        while self._undo:
            self._undo.pop()()

    def _wrap(
        self,
        owner: Any,
        name: str,
        before: Callable[[dict[str, Any]], None] | None,
        after: Callable[[dict[str, Any], Any], None] | None,
    ) -> None:
        """Shadow a method by an attribute of the instance; undone by deleting the attribute."""
        method = getattr(owner, name)
        shadowed = vars(owner).get(name)
        signature = inspect.signature(method)

        @functools.wraps(method)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            if before is not None:
                before(bound.arguments)
            result = method(*args, **kwargs)
            if after is not None:
                after(bound.arguments, result)
            return result

        def restore() -> None:
            if shadowed is None:
                vars(owner).pop(name, None)
            else:
                vars(owner)[name] = shadowed

        self._undo.append(restore)
        vars(owner)[name] = wrapper

    def _before_encoding(self, arguments: dict[str, Any]) -> None:
        prompts = _as_list(arguments.get("prompt"))
        negative = _as_list(arguments.get("negative_prompt"))
        count = len(prompts) if prompts is not None else 0
        if negative is not None and len(negative) == 1:
            negative = negative * count
        accumulator = AttentionAccumulator(self._query) if self._query is not None else None
        self.calls.append(
            Call(
                accumulator,
                prompts,
                negative,
                int(arguments.get("num_images_per_prompt") or 1),
                float(getattr(self._pipe, "guidance_scale", 1.0)),
                encoding={
                    name: arguments[name]
                    for name in ("clip_skip", "lora_scale")
                    if arguments.get(name) is not None
                },
            )
        )

    def _before_unet(
        self, unet: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        if not self.calls:
            raise RuntimeError(
                "the UNet ran before the pipeline encoded a prompt: trace a whole pipeline call"
            )
        given = self._unet_signature.bind(unet, *args, **kwargs).arguments
        sample, call = given["sample"], self.calls[-1]
        if getattr(self._pipe, "do_perturbed_attention_guidance", False):
            raise ValueError("perturbed attention guidance adds rows of its own: not supported")
        guided = bool(self._pipe.do_classifier_free_guidance)
        rows = int(sample.shape[0])
        # diffusers' pipelines put the unconditional rows first.
        self._conditional = slice(rows // 2, rows) if guided else slice(0, rows)
        self._latent_grid = (int(sample.shape[2]), int(sample.shape[3]))
        states = given["encoder_hidden_states"].detach()
        if call.embeddings is None:
            call.embeddings = states[self._conditional].clone()
            call.negative_embeddings = states[: rows // 2].clone() if guided else None
        elif not torch.equal(call.embeddings, states[self._conditional]):
            call.not_replayable = "the text embeddings changed between steps"
        for name, why in _UNKNOWN_TO_REPLAY.items():
            if given.get(name) is not None and given.get(name) != {}:
                call.not_replayable = why
        call.rows += rows
        call.timesteps.append(float(given["timestep"]))
        call.latents.append(sample[self._conditional].detach().clone())

    def _receive(self, layer: str, grid: tuple[int, int], probs: torch.Tensor) -> None:
        call = self.calls[-1]
        assert call.accumulator is not None
        call.accumulator.add(layer, len(call.timesteps) - 1, grid, probs)

    def _after_postprocess(self, arguments: dict[str, Any], result: Any) -> None:
        if not self.calls:
            return
        if arguments.get("output_type") == "latent":
            self.calls[-1].final_latents = arguments["image"].detach().clone()
        else:
            # A safety checker or a preview may have asked before; the last are the pipeline's own.
            self.calls[-1].images = [_as_uint8(image) for image in result]


def _as_list(prompt: str | list[str] | None) -> list[str] | None:
    if prompt is None:
        return None
    return [prompt] if isinstance(prompt, str) else list(prompt)


def _as_uint8(image: Any) -> npt.NDArray[np.uint8]:
    """A pipeline's output image (PIL, numpy or tensor) as ``(height, width, 3)`` uint8."""
    if isinstance(image, torch.Tensor):
        image = image.detach().float().cpu().permute(1, 2, 0).numpy()
    if isinstance(image, np.ndarray):
        pixels: npt.NDArray[np.uint8] = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
        return pixels
    return np.asarray(image.convert("RGB"))
