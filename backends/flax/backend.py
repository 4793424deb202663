"""``FlaxBackend``: Stable Diffusion on JAX as the primitives of a backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from wordlight.backends.attention import AttentionMeans, AttentionQuery, Layer
from wordlight.backends.backend import Array, Backend, Conditioning
from wordlight.backends.flax.attention_means import AttentionSums, means_of_run, merge
from wordlight.backends.flax.loading import LoadedModel, load_model
from wordlight.backends.flax.programs import Point, Programs, Told, parameters_of
from wordlight.backends.flax.randomizing import randomize, stages_of
from wordlight.backends.flax.tracing import Tracing
from wordlight.backends.loading import RECOMMENDED, ModelLoadError
from wordlight.backends.sampling import SamplingFacts
from wordlight.backends.tokenizing import tokens_of
from wordlight.backends.tokens import Tokens
from wordlight.backends.trajectory import Trajectory

_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
#: Most rows of one program: of the denoiser, of its forward products, of the autoencoder, whose
#: features are as large as the image.
_ROWS, _DIRECTIONS, _IMAGES = 64, 32, 4


class FlaxBackend(Backend):
    """A Stable Diffusion 1.x or 2.x of this package's own networks.

    Programs are compiled when they are first needed for arrays of some shapes. Batches are cut into
    powers of two, so that few are.

    Args:
        model: the parts.
        device: of JAX; its default one where None.
        dtype: ``"float32"`` or ``"bfloat16"``, of UNet and text encoder.
        steps, guidance_scale: what ``sample`` uses when not told.
    """

    framework = "flax"

    def __init__(
        self,
        model: LoadedModel,
        *,
        device: jax.Device | None = None,
        dtype: str = "float32",
        steps: int = 50,
        guidance_scale: float = 7.5,
    ) -> None:
        super().__init__()
        self.model_id, self.revision = model.name, model.revision
        self._device = device or jax.devices()[0]
        self.device, self.dtype = self._device.platform, dtype
        self._dtype = _DTYPES[dtype]
        # The weights are kept once, where and as they are computed with.
        self._model = model.without_weights()
        self._steps, self._guidance_scale = steps, guidance_scale
        self._tracing: Tracing | None = None
        self._programs = Programs(self._model, self._dtype)
        self._parameters = jax.device_put(parameters_of(model, self._dtype), self._device)

    @classmethod
    def load(
        cls,
        model: str | Path | Any,
        *,
        device: str | None = None,
        dtype: str | None = None,
        revision: str | None = None,
        scheduler: str | None = None,
    ) -> FlaxBackend:
        """See ``wordlight.backends.load``."""
        if dtype is not None and dtype not in _DTYPES:
            raise ModelLoadError(f"dtype must be one of {', '.join(_DTYPES)}, not {dtype!r}")
        where = _find_device(device)
        with jax.default_device(where):
            loaded = load_model(model, revision, scheduler)
        return cls(
            loaded, device=where, dtype=dtype or "float32", **RECOMMENDED.get(loaded.name, {})
        )

    @property
    def capabilities(self) -> frozenset[str]:
        """See ``Backend.capabilities``."""
        return frozenset(
            (
                "sample invert encode encode_from denoise denoise_jvp denoise_vjp attention "
                "self_attention attention_keys attention_vjp decode randomized trace"
            ).split()
        )

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The cross-attention layers that an ``AttentionQuery`` can name."""
        return self._layers("cross")

    def _layers(self, kind: str) -> tuple[Layer, ...]:
        found = self._model.unet.attentions()
        return tuple(Layer(a.name, a.heads) for a in found if a.kind == kind)

    # Text.

    def tokenize(self, prompt: str) -> Tokens:
        """See ``Backend.tokenize``."""
        return tokens_of(self._model.tokenizer, prompt)

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """See ``Backend.encode``."""
        ids = jnp.array([self.tokenize(prompt).ids for prompt in prompts])
        encode = self._programs.encode
        states = _in_parts(
            lambda ids: encode(self._parameters["text_encoder"], ids).last, _ROWS, ids
        )
        return Conditioning(states)

    def _token_embeddings(self, text: str) -> Array:
        ids = jnp.array([self.tokenize(text).ids])
        return self._programs.embed(self._parameters["text_encoder"], ids)[0]

    def _encode_from(self, token_embeddings: Array) -> Conditioning:
        self._check_embeddings(token_embeddings)
        states = _in_parts(
            lambda rows: (
                self._programs.encode(self._parameters["text_encoder"], _any_ids(rows), rows).last
            ),
            _ROWS,
            token_embeddings,
        )
        return Conditioning(states)

    def _encode_from_jvp(
        self, token_embeddings: Array, tangents: Array
    ) -> tuple[Conditioning, Array]:
        self._check_embeddings(token_embeddings)
        ids, program = _any_ids(token_embeddings), self._programs.encode_jvp
        states, changes = _products(
            lambda some: program(self._parameters["text_encoder"], ids, token_embeddings, some),
            _DIRECTIONS,
            tangents,
        )
        return Conditioning(states), changes

    def _check_embeddings(self, embeddings: Array) -> None:
        config = self._model.text_encoder.config
        most, channels = config.max_position_embeddings, config.hidden_size
        shape = tuple(embeddings.shape)
        if len(shape) != 3 or shape[1] > most or shape[2] != channels:
            raise ValueError(
                f"input embeddings must be (batch, up to {most} tokens, {channels} channels), "
                f"not {shape}"
            )

    # Runs.

    @property
    def sampling(self) -> SamplingFacts:
        """See ``Backend.sampling``."""
        factor = self._model.autoencoder.config.factor
        size = self._model.unet.config.sample_size or 64
        height, width = size if isinstance(size, tuple) else (size, size)
        return SamplingFacts(
            steps=self._steps,
            guidance_scale=self._guidance_scale,
            train_steps=self._model.schedule.train_steps,
            height=height * factor,
            width=width * factor,
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
        table = self._model.schedule.table(steps)
        # As in diffusers, at a scale of 1 or less the prompt alone is asked.
        guided = guidance_scale > 1.0
        every = [prompt for prompt in prompts for _ in range(images_per_prompt)]
        encoded = self.encode([*prompts, negative_prompt or "", ""]).embeddings
        embeddings = jnp.repeat(encoded[: len(prompts)], images_per_prompt, axis=0)
        negative = jnp.broadcast_to(encoded[-2], embeddings.shape) if guided else None
        rows = {
            "timesteps": table.timesteps,
            "scale": table.scale,
            "keep": table.keep,
            "add": table.add,
        }
        noise = table.start * np.stack([self._noise(seed, size) for seed in seeds])
        tracing = self._tracing
        # Memory for one image at a time would do; all at once is what a batch is for.
        seen, end, sums = self._programs.sample(
            self._parameters["unet"],
            self._float32(noise),
            {name: self._float32(column) for name, column in rows.items()},
            self._float32(guidance_scale),
            Told(embeddings, {}),
            None if negative is None else Told(negative, {}),
            query=None if tracing is None else tracing.query,
        )
        images = self._images_of(end)
        self.evaluations.forward += len(table.timesteps) * len(every) * (2 if guided else 1)
        latents = np.array(seen)
        away = self.to_numpy(encoded[-2]) if guided else None
        made = [
            self._trajectory(
                prompt,
                self.to_numpy(embeddings[k]),
                self.to_numpy(encoded[-1]),
                timesteps=table.timesteps,
                latents=latents[:, k],
                image=images[k],
                guidance_scale=float(guidance_scale),
                seed=seeds[k],
                negative_embeddings=away,
                negative_prompt=negative_prompt,
            )
            for k, prompt in enumerate(every)
        ]
        if tracing is not None:
            on_host: AttentionSums = jax.tree.map(np.asarray, sums)
            tracing.add(made, means_of_run(on_host, len(every), tracing.query))
        return made

    def trace(
        self, query: AttentionQuery | None = None, prompts: Sequence[str] | None = None
    ) -> Tracing:
        """Trace what is sampled inside a ``with`` block; see ``wordlight.backends.trace``.

        Attention is averaged inside the compiled run, on the device. ``query`` is part of the
        program: another one compiles anew.

        Raises:
            ValueError: layers or heads that the model hasn't; ``prompts``, which ``sample`` knows.
        """
        if prompts is not None:
            raise ValueError("prompts are for a pipeline that is given embeddings; sample has them")
        chosen = query or AttentionQuery()
        chosen.check(self._layers(chosen.kind))
        return Tracing(self._traced_by, chosen)

    @contextmanager
    def _traced_by(self, tracing: Tracing) -> Iterator[None]:
        if self._tracing is not None:
            raise ValueError("this backend is being traced: end that block first")
        self._tracing = tracing
        try:
            yield
        finally:
            self._tracing = None

    def _invert(
        self, image: npt.NDArray[np.uint8], prompt: str, *, seed: int, steps: int
    ) -> Trajectory:
        pixels = self._float32(image.transpose(2, 0, 1)[None] / 255.0)
        clean = np.asarray(self._programs.encode_pixels(self._parameters["autoencoder"], pixels))
        noise = self._noise(seed, image.shape[:2])
        times = self._model.schedule.table(steps).timesteps
        levels = [self._model.schedule.level(time) for time in times]
        latents = np.concatenate([alpha * clean + sigma * noise for alpha, sigma in levels])
        embeddings, empty = self.to_numpy(self.encode([prompt, ""]).embeddings)
        return self._trajectory(
            prompt,
            embeddings,
            empty,
            timesteps=times,
            latents=latents.astype(np.float32),
            image=image,
            guidance_scale=1.0,
            seed=seed,
            noise_source="noising",
        )

    def _trajectory(
        self, prompt: str, embeddings: Any, empty_embeddings: Any, **facts: Any
    ) -> Trajectory:
        return Trajectory(
            prompt=prompt,
            tokens=self.tokenize(prompt),
            embeddings=embeddings,
            empty_embeddings=empty_embeddings,
            model_id=self.model_id,
            revision=self.revision,
            framework=self.framework,
            **facts,
        )

    def _noise(self, seed: int, size: Sequence[int]) -> npt.NDArray[np.float32]:
        """Noise that depends on the seed alone, not on framework, device or batch."""
        factor = self._model.autoencoder.config.factor
        channels = self._model.unet.config.in_channels
        shape = (channels, size[0] // factor, size[1] // factor)
        return np.random.default_rng(seed).standard_normal(shape, np.float32)

    def _images_of(self, latents: Array) -> list[npt.NDArray[np.uint8]]:
        pixels = np.clip(self.to_numpy(self._decode(latents)), 0.0, 1.0)
        return list(np.rint(pixels.transpose(0, 2, 3, 1) * 255).astype(np.uint8))

    # The denoiser.

    def _point(
        self, latents: Array, timestep: float, embeddings: Array, added: Mapping[str, Array]
    ) -> Point:
        time, alpha, sigma = (
            self._float32(number) for number in (timestep, *self.noise_level(timestep))
        )
        return Point(latents, time, alpha, sigma, embeddings, dict(added))

    def _denoise(self, latents: Array, timestep: float, conditioning: Conditioning) -> Array:
        names = list(conditioning.added)

        def predict(latents: Array, embeddings: Array, *added: Array) -> Array:
            told = dict(zip(names, added, strict=True))
            point = self._point(latents, timestep, embeddings, told)
            return self._programs.predict(self._parameters["unet"], point)

        rows = (latents, conditioning.embeddings, *conditioning.added.values())
        return _in_parts(predict, _ROWS, *rows)

    def _denoise_jvp(
        self, latents: Array, timestep: float, conditioning: Conditioning, tangents: Array
    ) -> tuple[Array, Array]:
        point = self._point(latents, timestep, conditioning.embeddings, conditioning.added)
        program = self._programs.predict_jvp
        return _products(
            lambda some: program(self._parameters["unet"], point, some), _DIRECTIONS, tangents
        )

    def _denoise_vjp(
        self, latents: Array, timestep: float, conditioning: Conditioning, cotangent: Array
    ) -> Array:
        _check_cotangent(latents, cotangent)
        point = self._point(latents, timestep, conditioning.embeddings, conditioning.added)
        return self._programs.predict_vjp(self._parameters["unet"], point, cotangent)

    def _attention(
        self,
        trajectory: Trajectory,
        query: AttentionQuery,
        steps: tuple[int, ...],
        keys: Array | None,
    ) -> AttentionMeans:
        query.check(self._layers(query.kind))
        self._check_keys(keys)
        embeddings = self.asarray(trajectory.embeddings[None])
        added = {name: self.asarray(value[None]) for name, value in trajectory.added.items()}
        sums: list[AttentionSums] = []
        for step in steps:
            latents = self.asarray(trajectory.latents[step][None])
            point = self._point(latents, float(trajectory.timesteps[step]), embeddings, added)
            looked = self._programs.look(self._parameters["unet"], point, keys, query=query)
            if sums and "step" not in query.keep:
                sums[0] = sums[0].plus(looked)
            else:
                sums.append(looked)
        return merge(sums, steps, query)

    def _check_keys(self, keys: Array | None) -> None:
        channels = self._model.unet.config.cross_attention_dim
        if keys is not None and isinstance(channels, int) and keys.shape[1] != channels:
            raise ValueError(f"keys must be (others, {channels} channels), not {tuple(keys.shape)}")

    def _attention_vjp(
        self,
        latents: Array,
        timestep: float,
        conditioning: Conditioning,
        cotangent: Array,
        query: AttentionQuery,
    ) -> AttentionMeans:
        query.check(self._layers(query.kind))
        _check_cotangent(latents, cotangent)
        point = self._point(latents, timestep, conditioning.embeddings, conditioning.added)
        sums = self._programs.look_vjp(self._parameters["unet"], point, cotangent, query=query)
        return merge([sums], (0,), query)

    def noise_level(self, timestep: float) -> tuple[float, float]:
        """See ``Backend.noise_level``."""
        return self._model.schedule.level(timestep)

    # Pixels.

    def _decode(self, latents: Array) -> Array:
        return _in_parts(
            lambda rows: self._programs.decode(self._parameters["autoencoder"], rows),
            _IMAGES,
            latents,
        )

    def _decode_jvp(self, latents: Array, tangents: Array) -> tuple[Array, Array]:
        program = self._programs.decode_jvp
        return _products(
            lambda some: program(self._parameters["autoencoder"], latents, some),
            _IMAGES,
            tangents,
        )

    # Weights.

    @property
    def stages(self) -> tuple[str, ...]:
        """See ``Backend.stages``."""
        return stages_of(self._parameters["unet"])

    def _randomized(self, stages: tuple[str, ...], seed: int) -> AbstractContextManager[object]:
        return self._with_parameters(randomize(self._parameters, stages, seed))

    @contextmanager
    def _with_parameters(self, others: dict[str, Any]) -> Iterator[None]:
        before, self._parameters = self._parameters, jax.device_put(others, self._device)
        try:
            yield
        finally:
            self._parameters = before

    # Arrays.

    def asarray(self, array: npt.ArrayLike) -> Array:
        """See ``Backend.asarray``."""
        return jax.device_put(np.asarray(array).astype(self._dtype), self._device)

    def _float32(self, array: npt.ArrayLike) -> Array:
        return jax.device_put(np.asarray(array, np.float32), self._device)

    def to_numpy(self, array: Array) -> npt.NDArray[Any]:
        """See ``Backend.to_numpy``."""
        return np.asarray(array).astype(np.float32)


def _find_device(name: str | None) -> jax.Device:
    """A device by JAX's name of its platform; ``"cuda"`` and ``"cuda:1"`` mean GPUs."""
    if name is None:
        return jax.devices()[0]
    platform, _, number = name.partition(":")
    try:
        return jax.devices(platform)[int(number or 0)]
    except (RuntimeError, ValueError, IndexError) as error:
        there = ", ".join(dict.fromkeys(device.platform for device in jax.devices()))
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelLoadError(f"device {name!r} can't be used: {reason}; JAX sees {there}") from None


def _any_ids(embeddings: Array) -> Array:
    """Which ids they are decides nothing but the pooled state, which isn't used."""
    return jnp.zeros(embeddings.shape[:2], jnp.int32)


def _check_cotangent(latents: Array, cotangent: Array) -> None:
    if cotangent.shape != latents.shape:
        raise ValueError(
            f"the cotangent must have the prediction's shape {tuple(latents.shape)}, not "
            f"{tuple(cotangent.shape)}"
        )


def _parts(count: int, most: int) -> Iterator[slice]:
    """Stretches of powers of two, so that few programs serve all sizes of batch."""
    start = 0
    while start < count:
        size = min(most, 1 << (count - start).bit_length() - 1)
        yield slice(start, start + size)
        start += size


def _in_parts(function: Callable[..., Array], most: int, *rows: Array) -> Array:
    """A function of rows, part by part."""
    count = rows[0].shape[0]
    made = [function(*(array[part] for array in rows)) for part in _parts(count, most)]
    return made[0] if len(made) == 1 else jnp.concatenate(made)


def _products(
    function: Callable[[Array], tuple[Array, Array]], most: int, tangents: Array
) -> tuple[Array, Array]:
    """A value, and its changes along the tangents, part by part."""
    made = [function(tangents[part]) for part in _parts(tangents.shape[0], most)]
    return made[0][0], jnp.concatenate([changes for _, changes in made])
