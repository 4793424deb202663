"""``TorchBackend``: a diffusers Stable Diffusion pipeline as the primitives of a backend."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline

from wordlight.backends.attention import AttentionMeans, AttentionQuery, Layer, OtherKeys
from wordlight.backends.backend import Array, Backend, Conditioning
from wordlight.backends.embedded import RECOMMENDED
from wordlight.backends.sampling import SamplingFacts
from wordlight.backends.tokens import Tokens
from wordlight.backends.torch.accumulator import AttentionAccumulator
from wordlight.backends.torch.attention_layers import describe_layers
from wordlight.backends.torch.explicit_attention import can_be_explicit
from wordlight.backends.torch.forward_mode import forward_products
from wordlight.backends.torch.loading import load_pipeline
from wordlight.backends.torch.noise import NoiseLevels
from wordlight.backends.torch.randomizing import can_be_randomized, random_weights, stages_of
from wordlight.backends.torch.recorder import PipelineRecorder
from wordlight.backends.torch.reverse_mode import attention_gradients, embedding_gradient
from wordlight.backends.torch.taps import AttentionTap
from wordlight.backends.torch.text_encoding import (
    encode_input_embeddings,
    input_embeddings,
    takes_input_embeddings,
)
from wordlight.backends.torch.tokenizing import tokenize
from wordlight.backends.torch.tracing import Tracing, complete, trajectories_of
from wordlight.backends.trajectory import Trajectory

#: Directions whose forward-mode products are computed at once; more need more memory.
_JVP_CHUNK = 32
#: The same through the decoder, whose features are as large as the image.
_DECODER_CHUNK = 8
_ALWAYS = frozenset(
    (
        "sample invert encode denoise denoise_jvp denoise_vjp attention self_attention "
        "attention_keys trace"
    ).split()
)


class TorchBackend(Backend):
    """A Stable Diffusion 1.x or 2.x pipeline of diffusers, as it is.

    Args:
        pipe: the pipeline; used as it stands, with its LoRA and attention processors.
        model_id, revision: what trajectories and maps say they were made with.
        steps, guidance_scale: what ``sample`` uses when not told.

    Raises:
        ValueError: a pipeline of another kind.
    """

    framework = "torch"

    def __init__(
        self,
        pipe: StableDiffusionPipeline,
        *,
        model_id: str | None = None,
        revision: str | None = None,
        steps: int = 50,
        guidance_scale: float = 7.5,
    ) -> None:
        super().__init__()
        for part in ("unet", "text_encoder", "tokenizer", "vae", "scheduler"):
            if getattr(pipe, part, None) is None:
                raise ValueError(f"{type(pipe).__name__} has no {part}: not a Stable Diffusion 1/2")
        if getattr(pipe, "text_encoder_2", None) is not None:
            raise ValueError(f"{type(pipe).__name__} has two text encoders: not supported yet")
        self.pipe = pipe
        self.model_id = model_id or str(pipe.config.get("_name_or_path") or type(pipe).__name__)
        self.revision = revision
        self.device = str(pipe.unet.device)
        self.dtype = str(pipe.unet.dtype).removeprefix("torch.")
        self._steps, self._guidance_scale = steps, guidance_scale
        self._levels = NoiseLevels(pipe.scheduler)

    @classmethod
    def load(
        cls,
        model: str | Path | StableDiffusionPipeline,
        *,
        device: str | None = None,
        dtype: str | None = None,
        revision: str | None = None,
        scheduler: str | None = None,
    ) -> TorchBackend:
        """See ``wordlight.backends.load``."""
        found = load_pipeline(model, device, dtype, revision, scheduler)
        recommended = RECOMMENDED.get(found.name, {})
        return cls(found.pipe, model_id=found.name, revision=found.revision, **recommended)

    @property
    def capabilities(self) -> frozenset[str]:
        """See ``Backend.capabilities``."""
        pipe = self.pipe
        also = {
            "encode_from": takes_input_embeddings(pipe.text_encoder),
            "decode": isinstance(pipe.vae, AutoencoderKL),
            "attention_vjp": can_be_explicit(pipe.unet),
            "randomized": can_be_randomized((pipe.unet, pipe.text_encoder)),
        }
        return _ALWAYS | {name for name, has in also.items() if has}

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The cross-attention layers that an ``AttentionQuery`` can name."""
        return describe_layers(self.pipe.unet)

    def tokenize(self, prompt: str) -> Tokens:
        """See ``Backend.tokenize``."""
        return tokenize(self.pipe, prompt)

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """See ``Backend.encode``."""
        return Conditioning(self.encode_like(prompts, {}))

    def encode_like(self, prompts: Sequence[str], options: dict[str, Any]) -> torch.Tensor:
        """Text embeddings, with what else a pipeline call told its text encoder."""
        with torch.no_grad():
            embeddings: torch.Tensor = self.pipe.encode_prompt(
                list(prompts), self.pipe.unet.device, 1, False, **options
            )[0]
        return embeddings

    @property
    def sampling(self) -> SamplingFacts:
        """See ``Backend.sampling``."""
        scale = int(self.pipe.vae_scale_factor)
        default = self.pipe.unet.config.sample_size
        height, width = default if isinstance(default, (tuple, list)) else (default, default)
        return SamplingFacts(
            steps=self._steps,
            guidance_scale=self._guidance_scale,
            train_steps=self._levels.train_steps,
            height=int(height) * scale,
            width=int(width) * scale,
        )

    def _sample(
        self,
        prompts: list[str],
        *,
        seeds: list[int],
        steps: int,
        guidance_scale: float,
        negative_prompt: str | None,
        images_per_prompt: int,
        size: tuple[int, int],
    ) -> list[Trajectory]:
        # All images of one call are one batch.
        if not isinstance(self.pipe, StableDiffusionPipeline):
            raise ValueError(
                f"a {type(self.pipe).__name__} takes more than a prompt: call it yourself, inside "
                "wordlight.trace(pipe)"
            )
        away = None if negative_prompt is None else [negative_prompt] * len(prompts)
        with PipelineRecorder(self.pipe, None) as recorder, _quiet(self.pipe):
            self.pipe(
                prompts,
                negative_prompt=away,
                num_inference_steps=steps,
                guidance_scale=guidance_scale,
                num_images_per_prompt=images_per_prompt,
                height=size[0],
                width=size[1],
                latents=self._initial_latents(seeds, size),
                # Only schedulers that add noise on the way draw from these.
                generator=[torch.Generator().manual_seed(s) for s in seeds],
                output_type="np",
            )
        (call,) = recorder.calls
        complete(self, call)
        self.evaluations.forward += call.rows
        return trajectories_of(self, call, seeds=seeds)

    def _initial_latents(self, seeds: Sequence[int], size: tuple[int, int]) -> torch.Tensor:
        """Noise that depends on the seed alone, not on framework, device or batch."""
        scale = int(self.pipe.vae_scale_factor)
        shape = (self.pipe.unet.config.in_channels, size[0] // scale, size[1] // scale)
        noise = [np.random.default_rng(s).standard_normal(shape, np.float32) for s in seeds]
        return self.asarray(np.stack(noise))

    def _invert(
        self, image: npt.NDArray[np.uint8], prompt: str, *, seed: int, steps: int
    ) -> Trajectory:
        pixels = self.asarray(image.transpose(2, 0, 1)[None] / 127.5 - 1.0)
        with torch.no_grad():
            clean = self.pipe.vae.encode(pixels.to(self.pipe.vae.dtype)).latent_dist.mode()
        clean = clean * self.pipe.vae.config.scaling_factor
        noise = self.asarray(np.random.default_rng(seed).standard_normal(clean.shape, np.float32))
        self.pipe.scheduler.set_timesteps(steps)
        # Schedulers of higher order name some timesteps twice.
        times = list(dict.fromkeys(float(t) for t in self.pipe.scheduler.timesteps))
        levels = [self._levels.at(t) for t in times]
        latents = torch.cat([alpha * clean + sigma * noise for alpha, sigma in levels])
        return Trajectory(
            prompt=prompt,
            tokens=self.tokenize(prompt),
            embeddings=self.to_numpy(self.encode([prompt]).embeddings[0]),
            empty_embeddings=self.to_numpy(self.encode([""]).embeddings[0]),
            timesteps=np.array(times),
            latents=self.to_numpy(latents),
            image=image,
            guidance_scale=1.0,
            model_id=self.model_id,
            revision=self.revision,
            framework=self.framework,
            seed=seed,
            noise_source="noising",
        )

    def noise_level(self, timestep: float) -> tuple[float, float]:
        """See ``Backend.noise_level``."""
        return self._levels.at(timestep)

    def _token_embeddings(self, text: str) -> Array:
        ids = tokenize(self.pipe, text, allow_cut=True).ids
        device = self.pipe.unet.device
        return input_embeddings(self.pipe.text_encoder, torch.tensor(ids, device=device))

    def _encode_from(self, token_embeddings: Array) -> Conditioning:
        return Conditioning(encode_input_embeddings(self.pipe.text_encoder, token_embeddings))

    def _encode_from_jvp(
        self, token_embeddings: Array, tangents: Array
    ) -> tuple[Conditioning, Array]:
        def encode(embeddings: torch.Tensor) -> torch.Tensor:
            return encode_input_embeddings(self.pipe.text_encoder, embeddings)

        states, changes = forward_products(encode, token_embeddings, tangents, _JVP_CHUNK)
        return Conditioning(states), changes

    def _decode(self, latents: Array) -> Array:
        # The autoencoder may have another precision than the denoiser.
        vae = self.pipe.vae
        pixels = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor).sample
        return pixels.to(torch.promote_types(pixels.dtype, torch.float32)) / 2 + 0.5

    def _decode_jvp(self, latents: Array, tangents: Array) -> tuple[Array, Array]:
        dtype = self.pipe.vae.dtype
        return forward_products(self._decode, latents.to(dtype), tangents.to(dtype), _DECODER_CHUNK)

    @torch.no_grad()
    def images_of(self, latents: torch.Tensor) -> list[npt.NDArray[np.uint8]]:
        """Images ``(height, width, 3)`` uint8 of clean latents ``(batch, channels, y, x)``."""
        scaled = (self._decode(latents).float().clamp(0, 1) * 255).round().to(torch.uint8)
        return list(scaled.permute(0, 2, 3, 1).cpu().numpy())

    def asarray(self, array: npt.ArrayLike) -> torch.Tensor:
        """See ``Backend.asarray``."""
        return torch.as_tensor(
            np.asarray(array), dtype=self.pipe.unet.dtype, device=self.pipe.unet.device
        )

    def to_numpy(self, array: Array) -> npt.NDArray[Any]:
        """See ``Backend.to_numpy``."""
        wide = torch.promote_types(array.dtype, torch.float32)
        converted: npt.NDArray[Any] = array.detach().to("cpu", wide).numpy()
        return converted

    def _predict(
        self, latents: torch.Tensor, timestep: float, embeddings: torch.Tensor
    ) -> torch.Tensor:
        # Whole timesteps go in as integers, as schedulers hand them over.
        time = int(timestep) if float(timestep).is_integer() else timestep
        output = self.pipe.unet(latents, time, embeddings, return_dict=False)[0]
        return self._levels.to_epsilon(output, latents, timestep)

    def _denoise(self, latents: Array, timestep: float, conditioning: Conditioning) -> Array:
        return self._predict(latents, timestep, conditioning.embeddings)

    def _denoise_jvp(
        self, latents: Array, timestep: float, conditioning: Conditioning, tangents: Array
    ) -> tuple[Array, Array]:
        def predict(embeddings: torch.Tensor) -> torch.Tensor:
            return self._predict(latents, timestep, embeddings)

        return forward_products(predict, conditioning.embeddings, tangents, _JVP_CHUNK)

    def _denoise_vjp(
        self, latents: Array, timestep: float, conditioning: Conditioning, cotangent: Array
    ) -> Array:
        def predict(latents: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
            return self._predict(latents, timestep, embeddings)

        return embedding_gradient(predict, latents, conditioning.embeddings, cotangent)

    def _attention(
        self,
        trajectory: Trajectory,
        query: AttentionQuery,
        steps: tuple[int, ...],
        keys: OtherKeys | None,
    ) -> AttentionMeans:
        accumulator = AttentionAccumulator(query)
        step = 0

        def receive(layer: str, grid: tuple[int, int], probs: torch.Tensor) -> None:
            accumulator.add(layer, step, grid, probs)

        conditioning = self.asarray(trajectory.embeddings[None])
        tap = AttentionTap(
            self.pipe.unet,
            query,
            lambda: slice(0, 1),
            lambda: trajectory.grid,
            receive,
            None if keys is None else keys._replace(embeddings=self.asarray(keys.embeddings)),
        )
        with tap, torch.no_grad():
            for step in steps:
                latents = self.asarray(trajectory.latents[step][None])
                self._predict(latents, float(trajectory.timesteps[step]), conditioning)
        return accumulator.means(0)

    def _attention_vjp(
        self,
        latents: Array,
        timestep: float,
        conditioning: Conditioning,
        cotangent: Array,
        query: AttentionQuery,
    ) -> AttentionMeans:
        def predict(latents: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
            return self._predict(latents, timestep, embeddings)

        accumulator = AttentionAccumulator(query)
        for layer, grid, probs, gradient in attention_gradients(
            predict, self.pipe.unet, latents, conditioning.embeddings, cotangent, query
        ):
            accumulator.add(layer, 0, grid, (probs * gradient).relu())
        return accumulator.means(0)

    @property
    def stages(self) -> tuple[str, ...]:
        """See ``Backend.stages``."""
        return tuple(stages_of(self.pipe.unet, self.pipe.text_encoder))

    def _randomized(self, stages: tuple[str, ...], seed: int) -> AbstractContextManager[object]:
        parts = stages_of(self.pipe.unet, self.pipe.text_encoder)
        return random_weights([part for stage in stages for part in parts[stage]], seed)

    def reset_peak_bytes(self) -> None:
        """See ``Backend.reset_peak_bytes``."""
        if self.pipe.unet.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.pipe.unet.device)

    def peak_bytes(self) -> int | None:
        """See ``Backend.peak_bytes``."""
        if self.pipe.unet.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.pipe.unet.device))
        return None

    def no_gradients(self) -> AbstractContextManager[object]:
        """See ``Backend.no_gradients``."""
        return torch.no_grad()

    def trace(
        self, query: AttentionQuery | None = None, prompts: Sequence[str] | None = None
    ) -> Tracing:
        """Trace whatever is done with the pipeline inside a ``with`` block."""
        return Tracing(self, query or AttentionQuery(), prompts)


class _quiet:  # noqa: N801 - used as a function
    """Silences a pipeline's own progress bar, and puts its settings back."""

    def __init__(self, pipe: StableDiffusionPipeline) -> None:
        self._pipe = pipe

    def __enter__(self) -> None:
        self._before = dict(getattr(self._pipe, "_progress_bar_config", {}))
        self._pipe.set_progress_bar_config(disable=True)

    def __exit__(self, *error: object) -> None:
        self._pipe.set_progress_bar_config(**self._before)
