"""``TorchBackend``: a diffusers Stable Diffusion pipeline as the primitives of a backend."""

from __future__ import annotations

import functools
import inspect
import itertools
import math
import operator
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import StableDiffusionPipeline

from wordlight.backends.attention import AttentionMeans, AttentionQuery, Layer, OtherKeys
from wordlight.backends.backend import Array, Backend, Conditioning
from wordlight.backends.embedded import RECOMMENDED
from wordlight.backends.gathering import ThreadSettings
from wordlight.backends.model_folder import ModelLoadError
from wordlight.backends.progress import tell
from wordlight.backends.sampling import DrawRequest, SamplingFacts, pixels_of
from wordlight.backends.tokens import Tokens
from wordlight.backends.torch.accumulator import AttentionAccumulator
from wordlight.backends.torch.autoencoding import decoded, encoded
from wordlight.backends.torch.call_arguments import NOISE_LEVEL, NOT_BY_ROW
from wordlight.backends.torch.compiled import as_written
from wordlight.backends.torch.concepts import (
    CarriedCall,
    ConceptRows,
    TokenPlaces,
)
from wordlight.backends.torch.denoisers import Layout
from wordlight.backends.torch.explicit_attention import StandardProcessors
from wordlight.backends.torch.forward_mode import (
    forward_products,
    forward_products_of_rows,
    own_operations,
)
from wordlight.backends.torch.hooks import hooks_on
from wordlight.backends.torch.loading import load_pipeline
from wordlight.backends.torch.model import Model
from wordlight.backends.torch.noise import NoiseLevels
from wordlight.backends.torch.precision import PRECISIONS, in_force, in_precision
from wordlight.backends.torch.randomizing import (
    can_be_randomized,
    random_weights,
    stages_of,
    stages_of_transformers,
)
from wordlight.backends.torch.recorder import PipelineRecorder
from wordlight.backends.torch.rescale_rule import rescaled_parts
from wordlight.backends.torch.reverse_mode import (
    attention_gradients,
    embedding_gradient,
    recorded_experts,
)
from wordlight.backends.torch.taps import AttentionTap
from wordlight.backends.torch.text_encoding import (
    earlier_layers,
    encode_input_embeddings,
    encode_joined,
    input_embeddings,
    joined_encoders,
    takes_input_embeddings,
)
from wordlight.backends.torch.thread_settings import settings_of_thread
from wordlight.backends.torch.tracing import Tracing, complete, trajectories_of
from wordlight.backends.torch.weights import fingerprint
from wordlight.backends.trajectory import Trajectory

#: Directions whose forward-mode products are computed at once, as far as ``_MOST_PLACES`` allows.
_JVP_CHUNK = 32
#: Steps of a run that one pass replays: beyond these a row costs no less on a processor. Few enough
#: that the places of their latents, or the pairs of places where those are asked for, stay within
#: what a pass of one large image takes; so many rows of several images share a pass.
_MOST_STEPS, _MOST_PLACES, _MOST_PAIRS = 8, 2**15, 2**24
#: The same through the decoder, whose features are as large as the image.
_DECODER_CHUNK = 8
_ALWAYS = frozenset(
    (
        "sample invert encode denoise denoise_jvp denoise_parts denoise_vjp attention "
        "self_attention attention_keys attention_measures attention_vjp trace"
    ).split()
)
#: Primitives that a pipeline may lack, whatever its family.
_OF_THE_PIPELINE = frozenset(("sample", "invert", "denoise_jvp", "denoise_parts"))
#: What every pipeline has, by the names that it goes by.
_PARTS = (
    ("text_encoder", "text_encoder_2"),
    ("tokenizer", "tokenizer_2", "processor"),
    ("vae",),
    ("scheduler",),
)
#: How far a prediction may be from the run's by rounding, that of other kernels too, by precision.
_MOST_APART = {"float64": 5e-3, "float32": 5e-3, "bfloat16": 0.1, "float16": 0.05}
#: The backends whose products are exact in this context, whatever was asked for.
_exact: ContextVar[tuple[TorchBackend, ...]] = ContextVar("exact", default=())
#: A pipeline that draws at once has no use for two threads: each of these waits for the other.
_DRAWING: weakref.WeakKeyDictionary[Any, threading.RLock] = weakref.WeakKeyDictionary()


class TorchBackend(Backend):
    """A Stable Diffusion 1.x or 2.x pipeline of diffusers, as it is.

    Args:
        pipe: the pipeline; used as it stands, with its LoRA and attention processors.
        model_id, revision: the model's name and revision in trajectories and maps.
        steps, guidance_scale: the defaults of ``sample``.
        precision: in which float32 is multiplied on CUDA, ``"highest"`` or ``"high"``; as PyTorch
            is set where None. A pipeline that is traced is never touched by it.

    Raises:
        ValueError: a pipeline of another kind, an unknown precision.
    """

    framework = "torch"
    shares_passes = True

    def __init__(
        self,
        pipe: StableDiffusionPipeline,
        *,
        model_id: str | None = None,
        revision: str | None = None,
        steps: int = 50,
        guidance_scale: float = 7.5,
        precision: str | None = None,
    ) -> None:
        super().__init__()
        if precision is not None and precision not in PRECISIONS:
            raise ModelLoadError(
                f"precision must be {' or '.join(map(repr, PRECISIONS))}, not {precision!r}"
            )
        for names in _PARTS:
            if all(getattr(pipe, name, None) is None for name in names):
                raise ValueError(
                    f"{type(pipe).__name__} has no {names[0]}: not a pipeline of images"
                )
        self.model = Model.of(pipe)
        self.pipe = pipe
        self.model_id = model_id or str(pipe.config.get("_name_or_path") or type(pipe).__name__)
        self.revision = revision
        self.device = str(self.model.device)
        self.dtype = str(self.model.dtype).removeprefix("torch.")
        self._steps, self._guidance_scale = steps, guidance_scale
        self._random = False
        self._asked_precision = precision
        if precision == "high" and self.model.device.type != "cuda":
            warnings.warn(
                "precision='high' changes nothing here: it is of CUDA, and "
                f"{self.model.device.type} multiplies float32 exactly",
                stacklevel=2,
            )

    @classmethod
    def load(
        cls,
        model: str | Path | StableDiffusionPipeline,
        *,
        device: str | None = None,
        dtype: str | None = None,
        revision: str | None = None,
        scheduler: str | None = None,
        precision: str | None = None,
    ) -> TorchBackend:
        found = load_pipeline(model, device, dtype, revision, scheduler)
        return cls(
            found.pipe,
            model_id=found.name,
            revision=found.revision,
            precision=precision,
            **RECOMMENDED.get(found.name, {}),
        )

    @property
    def asked_precision(self) -> str | None:
        """The precision that was asked for; the exact one inside ``exact_products``."""
        return "highest" if self in _exact.get() else self._asked_precision

    @property
    def precision(self) -> str:
        return in_force(self.asked_precision, self.model.device, self.model.dtype)

    @contextmanager
    def exact_products(self) -> Iterator[None]:
        token = _exact.set((*_exact.get(), self))
        try:
            yield
        finally:
            _exact.reset(token)

    def settings_of_thread(self) -> ThreadSettings:
        return settings_of_thread(self.model.device)

    @property
    def capabilities(self) -> frozenset[str]:
        also = {name for name, has in self._conditional_capabilities.items() if has()}
        return (_ALWAYS | also) - set(self.lacks)

    @property
    def _conditional_capabilities(self) -> dict[str, Callable[[], bool]]:
        """Capabilities that some models of a family lack, with a test of each."""
        pipe = self.pipe
        parts = (*self.model.modules, *self._text_encoders)
        return {
            "concept_attention": lambda: self.model.family.joint,
            "encode_from": lambda: bool(self._resumed_encoders),
            "decode": lambda: hasattr(pipe.vae, "decode"),
            "randomized": lambda: (
                bool(self._text_encoders)
                and can_be_randomized(parts, as_library=self.carries_words)
            ),
        }

    @property
    def lacks(self) -> Mapping[str, str]:
        return {**self._lacks_of_pipeline, **self.model.family.lacks}

    @property
    def _lacks_of_pipeline(self) -> Mapping[str, str]:
        """Why a pipeline that draws from more than words can't sample, or invert a picture."""
        family, lacks = self.model.family, {}
        more = self._wanted_besides_words
        if more is not None:
            lacks["sample"] = f"{more}: call it yourself, inside wordlight.trace(pipe)"
            if not family.feature_maps:
                # Those learn times and conditioning from a run.
                lacks["invert"] = lacks["sample"]
        config = self.model.config
        if family.feature_maps and config.in_channels != config.out_channels:
            lacks["invert"] = (
                "its denoiser is shown a picture beside the latents, which noise is no part of"
            )
        if self._has_bitsandbytes:
            lacks |= dict.fromkeys(
                ("denoise_jvp", "denoise_parts"),
                "layers that bitsandbytes quantised have no rule for forward mode",
            )
        return lacks

    @property
    def _has_bitsandbytes(self) -> bool:
        parts = (part for module in self.model.modules for part in module.modules())
        return any(type(part).__module__.startswith("bitsandbytes") for part in parts)

    @property
    def _wanted_besides_words(self) -> str | None:
        """A sentence on what a pipeline wants besides a prompt; None where words are enough."""
        takes = inspect.signature(self.pipe.__call__).parameters
        wanted = [n for n in ("image", "control_image", "mask_image") if n in takes]
        if wanted and type(self.pipe).__name__ not in self.model.family.words_are_enough:
            return f"a {type(self.pipe).__name__} takes more than a prompt"
        if getattr(self.model.config, "encoder_hid_dim_type", None) == "ip_image_proj":
            return "the pipeline has an IP-Adapter, which wants an image"
        return None

    def require(self, needs: frozenset[str], who: str) -> None:
        # Only what is asked for is looked at: some of it goes through all of a model's modules.
        lacks, perhaps = self.model.family.lacks, self._conditional_capabilities
        if needs & _OF_THE_PIPELINE:
            lacks = self.lacks
        for name in needs:
            has = name in _ALWAYS or (name in perhaps and perhaps[name]())
            if name in lacks or not has:
                super().require(needs, who)

    @property
    def attends_jointly(self) -> bool:
        return self.model.family.joint

    @property
    def prompt_form(self) -> str:
        return self.model.family.prompt_form

    @property
    def added_names(self) -> frozenset[str]:
        return self.model.family.added_names(self.pipe)

    @property
    def replays_recorded(self) -> bool:
        return True

    @property
    def weights(self) -> str | None:
        if self._random:
            return None
        names = ("text_encoder", *(f"text_encoder_{number}" for number in range(2, 5)), "vae")
        *encoders, vae = (getattr(self.pipe, name, None) for name in names)
        makers = [one for one in (*self.model.modules, *encoders) if one is not None]
        scheduler = getattr(self.pipe, "scheduler", None)
        return fingerprint(makers, () if vae is None else (vae,), scheduler)

    def check_made_here(self, trajectory: Trajectory) -> None:
        super().check_made_here(trajectory)
        hooks = hooks_on(self.model.modules)
        if trajectory.predictions is None or not (hooks or trajectory.hooks):
            return
        apart = self._apart_from_run(trajectory)
        its_dtype = (trajectory.weights or "").partition(":")[0]
        if not apart <= max(_MOST_APART.get(dtype, 0.1) for dtype in (self.dtype, its_dtype)):
            raise ValueError(
                f"the denoiser predicts otherwise than in the run ({apart:.0%} apart): hooks or "
                f"replaced methods changed it, then those of [{trajectory.hooks}] and now those of "
                f"[{', '.join(hooks)}]. Explain the run with the same ones, or say that the "
                "model's view of today is wanted by dataclasses.replace(trajectory, "
                "predictions=None)"
            )

    @in_precision
    @torch.no_grad()
    def _apart_from_run(self, trajectory: Trajectory) -> float:
        """The largest relative distance of a replay's predictions from those of the run."""
        assert trajectory.predictions is not None
        text = self.asarray(trajectory.embeddings[None])
        apart = []
        for step, wanted in zip((0, trajectory.steps - 1), trajectory.predictions, strict=False):
            latents = self.asarray(trajectory.latents[step][None])
            time = float(trajectory.timesteps[step])
            told = self.step_conditioning(trajectory, step)
            with as_written(self.model.whole):
                made = self.to_numpy(self.model.call(latents, time, text, told))[0]
            if made.shape != wanted.shape:
                return math.inf
            size = max(float(np.linalg.norm(wanted)), float(np.finfo(np.float32).tiny))
            apart.append(float(np.linalg.norm(made - wanted)) / size)
        return max(apart)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The attention layers to the text that an ``AttentionQuery`` can name."""
        return self.model.layers("cross")

    @property
    def _levels(self) -> NoiseLevels:
        # Read when it is used: the scheduler may be another one by now.
        return NoiseLevels(self.pipe.scheduler)

    def tokenize(self, prompt: str) -> Tokens:
        return self.model.family.tokens(self.pipe, prompt)

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        return self.encode_with(prompts, {})

    @in_precision
    def encode_with(self, prompts: Sequence[str], options: Mapping[str, Any]) -> Conditioning:
        """The conditioning, with what else a pipeline call told its text encoder."""
        return self.model.family.encode(self.pipe, prompts, options)

    def encodings(self, prompt: str, options: Mapping[str, Any]) -> Iterator[torch.Tensor]:
        """The embeddings ``(tokens, channels)`` that pipelines that are told some options may make
        of a prompt: of the text encoder's last layer, and of those before."""
        yield self.encode_with([prompt], options).embeddings[0]
        if takes_input_embeddings(self.pipe):
            ids = self.model.family.tokens(self.pipe, prompt, allow_cut=True).ids
            yield from earlier_layers(self.pipe.text_encoder, torch.tensor([ids]))

    @property
    def sampling(self) -> SamplingFacts:
        scale = self._pixels_a_latent
        default = getattr(self.pipe, "default_sample_size", None)
        default = default or getattr(self.model.config, "sample_size", None)
        if default is None:
            # Z-Image's transformer has no size of its own, and its autoencoder's is in pixels.
            pixels = getattr(self.pipe.vae.config, "sample_size", None)
            default = pixels // scale if isinstance(pixels, int) else 128
        height, width = default if isinstance(default, (tuple, list)) else (default, default)
        own = (int(height) * scale, int(width) * scale)
        # Kandinsky's, width before height.
        sizes = tuple((h, w) for w, h in getattr(self.pipe, "resolutions", ()))
        if sizes and own not in sizes:
            own = sizes[0]
        return SamplingFacts(
            steps=self._steps,
            guidance_scale=self._guidance_scale,
            train_steps=int(self.pipe.scheduler.config.num_train_timesteps),
            height=own[0],
            width=own[1],
            multiple=8 if self.model.family.feature_maps else scale * self._places_a_side,
            sizes=sizes,
        )

    @property
    def _pixels_a_latent(self) -> int:
        """The number of pixels a side of a latent."""
        names = (
            "vae_scale_factor",
            "vae_scale_factor_spatial",
            "vae_spatial_compression_ratio",
        )
        return int(next(s for s in (getattr(self.pipe, name, None) for name in names) if s))

    @property
    def _places_a_side(self) -> int:
        """The number of latents that a side must be a multiple of."""
        # GLM-Image's coarse tokens have two places a side.
        return self._patch * (2 if hasattr(self.pipe, "vision_language_encoder") else 1)

    @property
    def _patch(self) -> int:
        """The number of latents a side that make a place of a transformer."""
        if self.model.family.packed:
            return 2
        patch = getattr(self.model.config, "patch_size", None) or 2
        return int(patch[-1] if isinstance(patch, (tuple, list)) else patch)

    def denoising_steps(self, steps: int | None = None) -> int:
        count = super().denoising_steps(steps)
        scheduler = deepcopy(self.pipe.scheduler)
        try:
            scheduler.set_timesteps(count)
        except (TypeError, ValueError):
            # Flow matching that shifts by the picture's size: one call a step.
            return count
        return len(scheduler.timesteps)

    @in_precision
    def _sample(self, request: DrawRequest) -> list[Trajectory]:
        prompts, seeds = list(request.prompts), request.seeds
        if len(seeds) > 1 and self._is_one_by_one(prompts):
            return [run for k in range(len(seeds)) for run in self._sample(request.of_image(k))]
        # All images of one call are one batch.
        takes = inspect.signature(self.pipe.__call__).parameters
        asked: dict[str, Any] = {
            "prompt": prompts,
            "num_inference_steps": request.steps,
            "guidance_scale": request.guidance_scale,
            "num_images_per_prompt": request.images_per_prompt,
            "height": request.size[0],
            "width": request.size[1],
            # Of a UNet only schedulers that add noise on the way draw from these.
            "generator": [torch.Generator().manual_seed(s) for s in seeds],
            "output_type": "np",
        }
        if "callback_on_step_end" in takes:
            asked["callback_on_step_end"] = functools.partial(_tell_step, request.steps)
        if self.model.family.feature_maps:
            asked["latents"] = self._initial_latents(seeds, request.size)
        if "use_resolution_binning" in takes:
            # Draws another size, and cuts the picture to the one that was asked for.
            asked["use_resolution_binning"] = False
        asked |= self.model.family.as_given(self.pipe)
        if request.negative_prompt is not None:
            if "negative_prompt" not in takes:
                raise ValueError(f"{type(self.pipe).__name__} takes no negative prompt")
            asked["negative_prompt"] = [request.negative_prompt] * len(prompts)
        guiders = _guided_by(self.pipe, request.guidance_scale)
        if self.model.family.guidance == "true_cfg_scale":
            asked["true_cfg_scale"] = asked.pop("guidance_scale")
            if request.guidance_scale > 1:
                # Ignored without a negative prompt; diffusers' own examples have a blank there.
                asked.setdefault("negative_prompt", [" "] * len(prompts))
        elif "guidance_scale" not in takes:
            del asked["guidance_scale"]
        with _DRAWING.setdefault(self.pipe, threading.RLock()), _quiet(self.pipe), guiders:
            with PipelineRecorder(self.pipe, None, lambda call: complete(self, call)) as recorder:
                self.pipe(**asked)
            (call,) = recorder.calls[-1:]
        if call.fault is not None:
            raise ValueError(f"the run can't be explained: {call.fault}")
        self.evaluations.forward += call.rows
        return trajectories_of(self, call, seeds=seeds)

    def _is_one_by_one(self, prompts: Sequence[str]) -> bool:
        """True if images can't be drawn in one call: the pipeline draws one, or the prompts have
        different numbers of tokens, which some denoisers take no padding for, and others attend to
        it."""
        lengths = {len(self.tokenize(prompt)) for prompt in prompts}
        return self.model.family.one_image_a_call or len(lengths) > 1

    def _initial_latents(self, seeds: Sequence[int], size: tuple[int, int]) -> torch.Tensor:
        """Noise that depends on the seed alone, not on framework, device or batch."""
        scale = self._pixels_a_latent
        shape = (self.model.config.in_channels, size[0] // scale, size[1] // scale)
        noise = [np.random.default_rng(s).standard_normal(shape, np.float32) for s in seeds]
        return self.asarray(np.stack(noise))

    @in_precision
    def _invert(
        self, image: npt.NDArray[np.uint8], prompt: str, *, seed: int, steps: int
    ) -> Trajectory:
        clean = self._encode_image(image)
        if not self.model.family.feature_maps:
            return self._noised_run(image, clean, prompt, seed, steps)
        noise = self.asarray(np.random.default_rng(seed).standard_normal(clean.shape, np.float32))
        self.pipe.scheduler.set_timesteps(steps)
        # Schedulers of higher order name some timesteps twice.
        times = list(dict.fromkeys(float(t) for t in self.pipe.scheduler.timesteps))
        levels = [self.noise_level(t) for t in times]
        latents = torch.cat([alpha * clean + sigma * noise for alpha, sigma in levels])
        told, empty = self.encode([prompt]), self.encode([""])
        return Trajectory(
            prompt=prompt,
            tokens=self.tokenize(prompt),
            embeddings=self.to_numpy(told.embeddings[0]),
            empty_embeddings=self.to_numpy(empty.embeddings[0]),
            added={name: self.to_numpy(value[0]) for name, value in told.added.items()},
            empty_added={name: self.to_numpy(value[0]) for name, value in empty.added.items()},
            timesteps=np.array(times),
            latents=self.to_numpy(latents),
            image=image,
            guidance_scale=1.0,
            model_id=self.model_id,
            revision=self.revision,
            framework=self.framework,
            seed=seed,
            noise_source="noising",
            weights=self.weights,
        )

    def _noised_run(
        self, image: npt.NDArray[np.uint8], clean: torch.Tensor, prompt: str, seed: int, steps: int
    ) -> Trajectory:
        """A run of the pipeline, whose steps tell times and conditioning, with the latents of a
        given image under noise in the place of its own."""
        request = DrawRequest(
            prompts=(prompt,),
            seeds=(seed,),
            steps=steps,
            guidance_scale=self._guidance_scale,
            negative_prompt=None,
            images_per_prompt=1,
            size=(int(image.shape[0]), int(image.shape[1])),
        )
        (run,) = self._sample(request)
        if run.latents.shape[1:] != tuple(clean.shape[1:]):
            raise ValueError(
                f"{type(self.pipe).__name__} draws latents of {run.latents.shape[1:]} at this "
                f"size, and its autoencoder makes {tuple(clean.shape[1:])} of the image"
            )
        shape = tuple(clean.shape)
        noise = self.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))
        levels = [self.noise_level_at(run, step) for step in range(run.steps)]
        latents = torch.cat([alpha * clean + sigma * noise for alpha, sigma in levels])
        return replace(
            run,
            latents=self.to_numpy(latents),
            image=image,
            seed=seed,
            noise_source="noising",
            predictions=None,
        )

    @in_precision
    def _encode_image(self, image: npt.NDArray[np.uint8]) -> Array:
        pixels = self.asarray(image.transpose(2, 0, 1)[None] / 127.5 - 1.0)
        return encoded(self.pipe.vae, pixels, packed=self.model.family.packed)

    def noise_level(self, timestep: float) -> tuple[float, float]:
        family = self.model.family
        if family.level_is_recorded:
            raise ValueError(
                f"the noise level of a timestep of {family.name} isn't told by the timestep: it is "
                "shifted by the picture's size, and known of a run's steps alone "
                "(noise_level_at(trajectory, step))"
            )
        if family.sigma is None:
            return self._levels.at(timestep)
        level = family.sigma(self.model.module, timestep)
        return 1 - level, level

    def noise_level_at(self, trajectory: Trajectory, step: int) -> tuple[float, float]:
        if not self.model.family.level_is_recorded:
            return super().noise_level_at(trajectory, step)
        level = float(_recorded_level(trajectory.added_at(step)))
        return 1 - level, level

    @property
    def _resumed_encoders(self) -> tuple[torch.nn.Module, ...]:
        """The text encoders that can be run from their input embeddings on."""
        name = self.model.family.encoder
        if name is None and takes_input_embeddings(self.pipe):
            name = "text_encoder"
        return joined_encoders(self.pipe) if name is None else (getattr(self.pipe, name),)

    def _token_embeddings(self, text: str) -> Array:
        tokens = self.model.family.tokens(self.pipe, text, allow_cut=True)
        encoders = self._resumed_encoders
        found = [input_embeddings(one, torch.tensor(tokens.ids)) for one in encoders]
        if encoders[-1] is getattr(self.pipe, "text_encoder_2", None) and len(encoders) > 1:
            # Its tokenizer differs from the first one's in its padding alone.
            padding = torch.tensor([self.pipe.tokenizer_2.pad_token_id])
            found[-1] = found[-1].clone()
            found[-1][list(tokens.positions("pad"))] = input_embeddings(encoders[-1], padding)
        return torch.cat(found, -1).to(self.model.device)

    def _encoded_from(self, token_embeddings: torch.Tensor) -> torch.Tensor:
        encoders = self._resumed_encoders
        if joined_encoders(self.pipe):
            return encode_joined(encoders, token_embeddings)
        return encode_input_embeddings(encoders[0], token_embeddings)

    @in_precision
    def _encode_from(self, token_embeddings: Array) -> Conditioning:
        return Conditioning(self._encoded_from(token_embeddings))

    @in_precision
    def _encode_from_jvp(
        self, token_embeddings: Array, tangents: Array
    ) -> tuple[Conditioning, Array]:
        states, changes = forward_products(
            self._encoded_from, token_embeddings, tangents, _JVP_CHUNK
        )
        return Conditioning(states), changes

    @in_precision
    def _encode_from_parts(self, token_embeddings: Array, baseline: Array, parts: Array) -> Array:
        return rescaled_parts(self._encoded_from, token_embeddings, baseline, parts)

    @in_precision
    def _decode(self, latents: Array) -> Array:
        # The autoencoder may have another precision than the denoiser.
        pixels = decoded(self.pipe.vae, latents)
        return pixels.to(torch.promote_types(pixels.dtype, torch.float32)) / 2 + 0.5

    @in_precision
    def _decode_jvp(self, latents: Array, tangents: Array) -> tuple[Array, Array]:
        dtype = self.pipe.vae.dtype
        return forward_products(self._decode, latents.to(dtype), tangents.to(dtype), _DECODER_CHUNK)

    @torch.no_grad()
    def images_of(self, latents: torch.Tensor) -> list[npt.NDArray[np.uint8]]:
        """Images ``(height, width, 3)`` uint8 of clean latents ``(batch, channels, y, x)``."""
        return list(pixels_of(self._decode(latents).float().permute(0, 2, 3, 1).cpu().numpy()))

    def asarray(self, array: npt.ArrayLike) -> torch.Tensor:
        if not isinstance(array, torch.Tensor):
            # Of strides that rows and columns have: some operations can't look at others.
            array = torch.as_tensor(np.asarray(array, order="C"))
        return array.to(self.model.device, self.model.dtype)

    def step_conditioning(self, trajectory: Trajectory, step: int) -> dict[str, torch.Tensor]:
        made = {}
        for name, value in trajectory.added_at(step).items():
            given = torch.as_tensor(value[None] if value.ndim else value.reshape(1))
            # Half precision has no number for each place of a large picture.
            exact = name[-1] == "=" or name == NOISE_LEVEL or self.model.is_shared(name)
            as_it_is = exact or not given.is_floating_point()
            made[name] = given.to(self.model.device, given.dtype if as_it_is else self.model.dtype)
        return made

    def to_numpy(self, array: Array) -> npt.NDArray[Any]:
        wide = torch.promote_types(array.dtype, torch.float32)
        converted: npt.NDArray[Any] = array.detach().to("cpu", wide).numpy()
        return converted

    def _predicting(
        self, timestep: float, added: Mapping[str, torch.Tensor]
    ) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """The prediction at a timestep, in epsilon units, as a function of latents and
        embeddings."""
        model, epsilon = self.model, self._epsilon_at(timestep)

        def predict(latents: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
            return epsilon(model.call(latents, timestep, embeddings, added), latents, added)

        return predict

    def _epsilon_at(
        self, timestep: float
    ) -> Callable[[torch.Tensor, torch.Tensor, Mapping[str, torch.Tensor]], torch.Tensor]:
        """The noise as a function of prediction, latents and further conditioning; of flow
        matching, whose latents are (1 - σ)·x0 + σ·ε and whose prediction is v = ε - x0, it is
        x + (1 - σ)·v."""
        family = self.model.family
        if family.level_is_recorded:
            return _epsilon_at_recorded_level
        if family.sigma is None:
            epsilon = self._levels.epsilon_at(timestep)
            return lambda output, latents, _: epsilon(output, latents)
        alpha, _ = self.noise_level(timestep)
        return lambda output, latents, _: latents + alpha * output

    def rows_together(self, kind: str, latents: Array, conditioning: Conditioning) -> int:
        told = (conditioning.embeddings, *conditioning.added.values())
        family = self.model.family
        alone = (
            family.one_image_a_call
            # Transformers may look at numbers in their inputs, which have none where rows of
            # directions are computed together.
            or (kind == "denoise_jvp" and not family.feature_maps)
            or any(name[-1] in NOT_BY_ROW for name in conditioning.added)
            or any(one.shape[0] != latents.shape[0] or one.requires_grad for one in told)
        )
        return 0 if alone else _rows_that_fit(latents)

    @in_precision
    def _denoise(self, latents: Array, timestep: float, conditioning: Conditioning) -> Array:
        return self._predicting(timestep, conditioning.added)(latents, conditioning.embeddings)

    @in_precision
    def _denoise_jvp(
        self, latents: Array, timestep: float, conditioning: Conditioning, tangents: Array
    ) -> tuple[Array, Array]:
        predict = functools.partial(self._predicting(timestep, conditioning.added), latents)
        with as_written(self.model.whole), own_operations(self.model.modules):
            chunk = min(_JVP_CHUNK, _rows_that_fit(latents))
            return forward_products(predict, conditioning.embeddings, tangents, chunk)

    @in_precision
    def _denoise_jvp_of_images(
        self, latents: Array, timestep: float, conditioning: Conditioning, tangents: Array
    ) -> tuple[Array, Array]:
        model, epsilon = self.model, self._epsilon_at(timestep)

        def predict(
            latents: torch.Tensor, added: dict[str, torch.Tensor], embeddings: torch.Tensor
        ) -> torch.Tensor:
            return epsilon(model.call(latents, timestep, embeddings, added), latents, added)

        beside = (latents, conditioning.added)
        with as_written(self.model.whole), own_operations(self.model.modules):
            return forward_products_of_rows(predict, beside, conditioning.embeddings, tangents)

    @in_precision
    def _denoise_parts(
        self,
        latents: Array,
        timestep: float,
        conditioning: Conditioning,
        baseline: Array,
        parts: Array,
    ) -> Array:
        predict = functools.partial(self._predicting(timestep, conditioning.added), latents)
        with as_written(self.model.whole):
            return rescaled_parts(predict, conditioning.embeddings, baseline, parts)

    @in_precision
    def _denoise_vjp(
        self, latents: Array, timestep: float, conditioning: Conditioning, cotangent: Array
    ) -> Array:
        predict = self._predicting(timestep, conditioning.added)
        with as_written(self.model.whole), recorded_experts(self.model.modules):
            return embedding_gradient(predict, latents, conditioning.embeddings, cotangent)

    @in_precision
    def _attention(
        self,
        trajectory: Trajectory,
        query: AttentionQuery,
        steps: tuple[int, ...],
        keys: OtherKeys | None,
    ) -> AttentionMeans:
        others = None if keys is None else keys._replace(embeddings=self.asarray(keys.embeddings))
        if others is not None and not self.model.family.feature_maps:
            return self._attention_beside(trajectory, query, steps, others)
        # Of two denoisers each draws steps of its own.
        two = len(self.model.modules) > 1
        together = 1 if two else min(rows_together(trajectory, query), _MOST_STEPS)
        return self._replayed([(trajectory, steps)], query, together, others)[0]

    def replays_together(self, trajectory: Trajectory, query: AttentionQuery) -> bool:
        family = self.model.family
        alone = (
            family.one_image_a_call
            or family.second(self.pipe) is not None
            or any(name[-1] in NOT_BY_ROW for name in trajectory.added)
        )
        return not alone and rows_together(trajectory, query) > 1

    @in_precision
    def _attention_of_runs(
        self, runs: Sequence[tuple[Trajectory, tuple[int, ...]]], query: AttentionQuery
    ) -> list[AttentionMeans]:
        return self._replayed(runs, query, rows_together(runs[0][0], query))

    def _replayed(
        self,
        runs: Sequence[tuple[Trajectory, tuple[int, ...]]],
        query: AttentionQuery,
        together: int,
        others: OtherKeys | None = None,
    ) -> list[AttentionMeans]:
        """The attention in steps of runs of one shape, so many steps a pass."""
        model = self.model
        rows = [(run, step) for run, (_, steps) in enumerate(runs) for step in steps]
        sums, now = [AttentionAccumulator(query) for _ in runs], rows[:0]

        def receive(layers: Sequence[str], grid: tuple[int, ...], probs: torch.Tensor) -> None:
            start = 0
            for run, own in itertools.groupby(now, key=operator.itemgetter(0)):
                steps = [step for _, step in own]
                stop = start + len(steps)
                sums[run].add_steps(layers, steps, grid, probs[:, start:stop])
                start = stop

        tap = AttentionTap(model, query, receive, others)

        def replay(part: slice) -> list[AttentionAccumulator]:
            # Of its own, so that a pass that runs out of memory leaves nothing.
            nonlocal sums, now
            sums, now = [AttentionAccumulator(query) for _ in runs], rows[part]
            seen = [(runs[run][0], step) for run, step in now]
            # As one step's are: with channels last, kernels add up in another order.
            latents = self.asarray(np.stack([one.latents[step] for one, step in seen])).contiguous()
            times = [float(one.timesteps[step]) for one, step in seen]
            conditioning = self.asarray(np.stack([one.embeddings for one, _ in seen]))
            told = [self.step_conditioning(one, step) for one, step in seen]
            added = {name: torch.cat([one[name] for one in told]) for name in told[0]}
            telling = model.call_arguments(latents, times, conditioning, added)
            tap.begin(telling, len(now), slice(0, len(now)), model.at(times[0]))
            model.call(latents, times, conditioning, added)
            tap.end()
            return sums

        # Words beside the prompt are looked at where PyTorch's own attention is.
        standard = StandardProcessors({} if others is None else tap.wanted)
        with as_written(model.whole), standard, tap, torch.no_grad():
            first, *rest = self.limits.parts("attention", len(rows), together, replay)
        for part in rest:
            for mine, other in zip(first, part, strict=True):
                mine.merge(other)
        return [one.means(0) for one in first]

    @property
    def carries_words(self) -> bool:
        return not self.model.family.feature_maps

    def rows_for_words(self, trajectory: Trajectory, n_tokens: int) -> int:
        if not n_tokens:
            return 0
        latents = self.asarray(trajectory.latents[0][None])
        text = self.asarray(trajectory.embeddings[None])
        time = float(trajectory.timesteps[0])
        return self._room(
            trajectory, latents, time, text, self.step_conditioning(trajectory, 0), n_tokens
        )[1].n_rows

    def _room(
        self,
        trajectory: Trajectory,
        latents: Array,
        time: float,
        text: Array,
        added: Mapping[str, torch.Tensor],
        n_tokens: int,
    ) -> tuple[Layout, TokenPlaces]:
        """Return the places of text and picture in a pass, and of words' tokens among them."""
        layout = self.model.layout(self.model.call_arguments(latents, time, text, added))
        there, _ = layout.of_row(0)
        return layout, TokenPlaces.of(trajectory.tokens, there.stop - there.start, n_tokens)

    def _attention_beside(
        self,
        trajectory: Trajectory,
        query: AttentionQuery,
        steps: tuple[int, ...],
        others: OtherKeys,
    ) -> AttentionMeans:
        """Attention to other words of a transformer, whose keys its own layers make of them."""
        own = others.positions
        matrices: Any = [
            torch.as_tensor(part, device=self.model.device)
            for part in (others.displaced, others.together)
        ]
        told = OtherKeys(others.embeddings, *matrices)
        carried = others.embeddings[[place is None for place in own]]

        def measured(call: CarriedCall) -> torch.Tensor:
            if query.measure == "scores":
                return call.other_scores(own)[None].nan_to_num(neginf=0.0)
            return call.other_shares(own, told)

        return self._carried(trajectory, query, steps, carried, measured)

    @in_precision
    def _concept_attention(
        self,
        trajectory: Trajectory,
        query: AttentionQuery,
        steps: tuple[int, ...],
        concepts: Array,
    ) -> AttentionMeans:
        return self._carried(
            trajectory, query, steps, self.asarray(concepts), CarriedCall.output_products
        )

    def _carried(
        self,
        trajectory: Trajectory,
        query: AttentionQuery,
        steps: tuple[int, ...],
        words: torch.Tensor,
        measured: Callable[[CarriedCall], torch.Tensor],
    ) -> AttentionMeans:
        """The mean of a measure of layers through which words are carried, in a second row."""
        accumulator, model, step = AttentionAccumulator(query), self.model, 0

        def receive(layer: str, grid: tuple[int, ...], call: CarriedCall) -> None:
            accumulator.add([layer], step, grid, measured(call)[None])

        rows = 1 + self.rows_for_words(trajectory, len(words))
        text = self.asarray(trajectory.embeddings[None]).repeat(rows, 1, 1)
        with as_written(model.whole), ConceptRows(model, query, receive) as seen, torch.no_grad():
            for step in steps:
                one = self.asarray(trajectory.latents[step][None])
                latents = one.repeat(rows, *[1] * (one.ndim - 1))
                time = float(trajectory.timesteps[step])
                added = {
                    name: value.repeat(rows, *[1] * (value.ndim - 1))
                    for name, value in self.step_conditioning(trajectory, step).items()
                }
                layout, room = self._room(trajectory, latents, time, text, added, len(words))
                text[room.rows, room.positions] = words
                seen.begin(layout, room)
                model.call(latents, time, text, added)
        return accumulator.means(0)

    @in_precision
    def _attention_vjp(
        self,
        latents: Array,
        timestep: float,
        conditioning: Conditioning,
        cotangent: Array,
        query: AttentionQuery,
    ) -> AttentionMeans:
        accumulator = AttentionAccumulator(query)
        model, embeddings = self.model, conditioning.embeddings
        predict = self._predicting(timestep, conditioning.added)
        told = model.call_arguments(latents, timestep, embeddings, conditioning.added)
        with as_written(model.whole), recorded_experts(model.modules):
            for layer, grid, probs, gradient in attention_gradients(
                predict, model, latents, embeddings, cotangent, query, model.layout(told)
            ):
                accumulator.add([layer], 0, grid, (probs * gradient).relu()[None])
        return accumulator.means(0)

    @property
    def stages(self) -> tuple[str, ...]:
        return tuple(self._stages)

    @property
    def _text_encoders(self) -> list[torch.nn.Module]:
        """The pipeline's text encoders; of a UNet the first, whose words trajectories have."""
        if self.model.family.feature_maps:
            return [] if self.pipe.text_encoder is None else [self.pipe.text_encoder]
        parts = self.pipe.components
        found = [parts[name] for name in sorted(parts) if name.startswith("text_encoder")]
        return [one for one in found if isinstance(one, torch.nn.Module)]

    @property
    def _stages(self) -> dict[str, tuple[torch.nn.Module, ...]]:
        if self.model.family.feature_maps:
            return stages_of(self.model.module, self.pipe.text_encoder)
        return stages_of_transformers(self.model.modules, self._text_encoders)

    @contextmanager
    def _randomized(self, stages: tuple[str, ...], seed: int) -> Iterator[None]:
        parts = self._stages
        chosen = [part for stage in stages for part in parts[stage]]
        with random_weights(chosen, seed, as_library=self.carries_words):
            self._random = True
            try:
                yield
            finally:
                self._random = False

    def reset_peak_bytes(self) -> None:
        if self.model.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.model.device)

    def is_out_of_memory(self, error: Exception) -> bool:
        # On the CPU it is a RuntimeError of the allocator's.
        said = isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
        return said or super().is_out_of_memory(error)

    def release_memory(self) -> None:
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()

    def peak_bytes(self) -> int | None:
        if self.model.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.model.device))
        return None

    def no_gradients(self) -> AbstractContextManager[object]:
        return torch.no_grad()

    def trace(
        self,
        query: AttentionQuery | None = None,
        prompts: Sequence[str] | None = None,
        *,
        negative: bool = False,
    ) -> Tracing:
        """Trace whatever is done with the pipeline inside a ``with`` block."""
        return Tracing(self, query or AttentionQuery(), prompts, negative=negative)


def _recorded_level(added: Mapping[str, Any]) -> Any:
    """The noise level that was recorded of a step; raises ValueError where there is none."""
    if NOISE_LEVEL not in added:
        raise ValueError(
            "the noise level of this step isn't known: it is recorded while a pipeline draws, and "
            "wasn't when this run was made, or the conditioning is of no run "
            "(step_conditioning(trajectory, step))"
        )
    return added[NOISE_LEVEL]


def _epsilon_at_recorded_level(
    output: torch.Tensor, latents: torch.Tensor, added: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    alpha = 1 - _recorded_level(added).reshape(-1, *[1] * (output.ndim - 1))
    epsilon: torch.Tensor = latents + alpha.to(output.dtype) * output
    return epsilon


def _rows_that_fit(latents: torch.Tensor) -> int:
    """Return how many rows of such latents one pass takes."""
    return max(_MOST_PLACES // math.prod(latents.shape[2:]), 1)


def rows_together(trajectory: Trajectory, query: AttentionQuery) -> int:
    """Return how many steps one pass replays at most, each a row of the batch."""
    if any(name[-1] in NOT_BY_ROW for name in trajectory.step_added):
        return 1
    places = math.prod(trajectory.places)
    size = places if query.kind == "cross" else places**2
    most = _MOST_PLACES if query.kind == "cross" else _MOST_PAIRS
    return max(most // size, 1)


def _tell_step(
    steps: int, pipe: object, step: int, timestep: object, values: dict[str, Any]
) -> dict[str, Any]:
    """Tell who listens that a step is done; a pipeline's callback."""
    tell("drawing", step + 1, steps)
    return values


@contextmanager
def _guided_by(pipe: Any, scale: float) -> Iterator[None]:
    """Give a pipeline whose guidance is an object another strength for a while."""
    names = [name for name in ("guider", "ocr_guider") if getattr(pipe, name, None) is not None]
    before = {name: getattr(pipe, name) for name in names}
    try:
        for name, guider in before.items():
            setattr(pipe, name, guider.new(guidance_scale=scale))
        yield
    finally:
        for name, guider in before.items():
            setattr(pipe, name, guider)


class _quiet:  # noqa: N801 - used as a function
    """Silences a pipeline's own progress bar, and puts its settings back."""

    def __init__(self, pipe: StableDiffusionPipeline) -> None:
        self._pipe = pipe

    def __enter__(self) -> None:
        self._before = dict(getattr(self._pipe, "_progress_bar_config", {}))
        self._pipe.set_progress_bar_config(disable=True)

    def __exit__(self, *error: object) -> None:
        self._pipe.set_progress_bar_config(**self._before)
