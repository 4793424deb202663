"""``FlaxBackend``: Stable Diffusion on JAX as the primitives of a backend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh

from wordlight.backends.attention import AttentionMeans, AttentionQuery, Layer, OtherKeys
from wordlight.backends.backend import Array, Backend, Conditioning
from wordlight.backends.embedded import RECOMMENDED
from wordlight.backends.flax.attention_means import AttentionSums, means_of_run, merge
from wordlight.backends.flax.batches import in_parts, parts_of, products
from wordlight.backends.flax.compiling import compiling_clock, keep_programs
from wordlight.backends.flax.devices import Placement, make_mesh
from wordlight.backends.flax.loading import LoadedModel, load_model
from wordlight.backends.flax.programs import DenoiserConditioning, Point, Programs, parameters_of
from wordlight.backends.flax.prompts import PromptEncoder
from wordlight.backends.flax.randomizing import randomize, stages_of
from wordlight.backends.flax.schedulers import StepTable
from wordlight.backends.flax.tracing import Tracing
from wordlight.backends.model_folder import ModelLoadError
from wordlight.backends.sampling import DrawRequest, SamplingFacts, pixels_of
from wordlight.backends.tokens import Tokens
from wordlight.backends.trajectory import Trajectory

_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
_PRECISIONS = ("highest", "high")
#: Most rows of one program, on each device: of the denoiser, of its forward products, of the
#: autoencoder, whose features are as large as the image, of whole runs, of gradients.
_ROWS, _DIRECTIONS, _IMAGES, _DRAWN, _GRADIENTS = 64, 32, 4, 4, 8
#: Steps of a run: a program has a multiple of these, of which those that are asked for are taken.
_STEPS = 64
_ALWAYS = frozenset(
    (
        "sample invert encode denoise denoise_jvp denoise_parts denoise_vjp attention "
        "self_attention attention_keys attention_measures attention_vjp decode randomized trace"
    ).split()
)
#: What diffusers draws with where Stable Diffusion XL is told nothing.
_XL = {"guidance_scale": 5.0}


class FlaxBackend(Backend):
    """A Stable Diffusion 1.x, 2.x or XL of this package's own networks.

    Programs are compiled when they are first needed for arrays of some shapes. Batches are cut into
    parts of few sizes, so that few are.

    Args:
        model: the parts.
        device: of JAX; its default one where None.
        mesh: of several devices, in place of one: see ``make_mesh``.
        dtype: ``"float32"`` or ``"bfloat16"``, of UNet and text encoder.
        precision: in which float32 is multiplied, by JAX's names; CPUs do so exactly.
        steps, guidance_scale: the defaults of ``sample``.
    """

    framework = "flax"

    def __init__(
        self,
        model: LoadedModel,
        *,
        device: jax.Device | None = None,
        mesh: Mesh | None = None,
        dtype: str = "float32",
        precision: str = "highest",
        steps: int = 50,
        guidance_scale: float = 7.5,
    ) -> None:
        super().__init__()
        self.model_id, self.revision = model.name, model.revision
        self._place = Placement(mesh or device or jax.devices()[0])
        self.device, self.dtype = self._place.device.platform, dtype
        self._dtype = _DTYPES[dtype]
        # The weights are kept once, where and as they are computed with.
        self._model = model.without_weights()
        self._steps, self._guidance_scale = steps, guidance_scale
        self._tracing: Tracing | None = None
        self._peak_before = 0
        self._asked_precision = precision
        self._programs = Programs(self._model, self._dtype, precision)
        self._parameters = self._place.parameters(parameters_of(model, self._dtype))
        self._prompts = PromptEncoder(self._model, self._programs, self._place)

    @classmethod
    def load(
        cls,
        model: str | Path | Any,
        *,
        device: str | None = None,
        dtype: str | None = None,
        revision: str | None = None,
        scheduler: str | None = None,
        precision: str | None = None,
        mesh: Mesh | Mapping[str, int] | None = None,
    ) -> FlaxBackend:
        if dtype is not None and dtype not in _DTYPES:
            raise ModelLoadError(f"dtype must be one of {', '.join(_DTYPES)}, not {dtype!r}")
        if precision not in (None, *_PRECISIONS):
            raise ModelLoadError(
                f"precision must be {' or '.join(map(repr, _PRECISIONS))}, not {precision!r}"
            )
        keep_programs()
        where = None if mesh is not None else _find_device(device)
        made = None if mesh is None else make_mesh(mesh, _devices(device))
        # Weights are read as float32 here, and go to the device in their own precision; a model for
        # a mesh may be too large for one device.
        with jax.default_device(_host()):
            loaded = load_model(model, revision, scheduler)
            recommended = _XL if loaded.text_encoder_2 is not None else {}
            return cls(
                loaded,
                device=where,
                mesh=made,
                dtype=dtype or loaded.dtype,
                precision=precision or "highest",
                **{**recommended, **RECOMMENDED.get(loaded.name, {})},
            )

    @property
    def precision(self) -> str:
        if self.dtype != "float32":
            return ""
        return "highest" if self.device == "cpu" else self._asked_precision

    @property
    def capabilities(self) -> frozenset[str]:
        # Input embeddings of two encoders would be two arrays.
        also = {"encode_from"} if self._model.text_encoder_2 is None else set()
        return _ALWAYS | also

    @property
    def added_names(self) -> frozenset[str]:
        return frozenset({"text_embeds", "time_ids"} if self._model.text_encoder_2 else ())

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The cross-attention layers that an ``AttentionQuery`` can name."""
        return self._layers("cross")

    def _layers(self, kind: str) -> tuple[Layer, ...]:
        found = self._model.unet.attentions()
        return tuple(Layer(a.name, a.heads) for a in found if a.kind == kind)

    # Text.

    def tokenize(self, prompt: str) -> Tokens:
        return self._prompts.tokenize(prompt)

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        facts = self.sampling
        return self._prompts.encode(self._parameters, prompts, (facts.height, facts.width))

    def _token_embeddings(self, text: str) -> Array:
        return self._prompts.token_embeddings(self._parameters, text)

    def _encode_from(self, token_embeddings: Array) -> Conditioning:
        return self._prompts.encode_from(self._parameters, token_embeddings)

    def _encode_from_jvp(
        self, token_embeddings: Array, tangents: Array
    ) -> tuple[Conditioning, Array]:
        return self._prompts.encode_from_jvp(self._parameters, token_embeddings, tangents)

    def _encode_from_parts(self, token_embeddings: Array, baseline: Array, parts: Array) -> Array:
        return self._prompts.encode_from_parts(self._parameters, token_embeddings, baseline, parts)

    # Runs.

    @property
    def sampling(self) -> SamplingFacts:
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

    def _sample(self, request: DrawRequest) -> list[Trajectory]:
        prompts, negative_prompt = request.prompts, request.negative_prompt
        table = self._model.schedule.table(request.steps)
        # As in diffusers, at a scale of 1 or less the prompt alone is asked.
        guided = request.guidance_scale > 1.0
        every = np.repeat(np.arange(len(prompts)), request.images_per_prompt)
        told, from_, empty = self._conditioning_of(prompts, negative_prompt, request.size)
        columns = self._columns(table)
        noise = table.start * np.stack([self._noise(s, request.size) for s in request.seeds])
        tracing = self._tracing
        query = None if tracing is None else tracing.query
        saw: list[npt.NDArray[np.float32]] = []
        images: list[npt.NDArray[np.uint8]] = []
        sums: list[AttentionSums] = []
        for part in parts_of(len(every), _DRAWN, self._place.cuts):
            # A part that isn't full draws the last image again.
            filled = np.minimum(np.arange(part.start, part.stop), len(every) - 1)
            seen, end, looked = self._programs.sample(
                self._parameters["unet"],
                self._rows(noise[filled]),
                columns,
                self._float32(request.guidance_scale),
                self._told_rows(told, every[filled]),
                self._told_rows(from_, filled * 0) if guided else None,
                query=query,
            )
            saw.append(self._place.fetch(seen)[: len(table.timesteps)])
            images += self._images_of(end)
            sums.append(jax.tree.map(self._place.fetch, looked))
        self.evaluations.forward += len(table.timesteps) * len(every) * (2 if guided else 1)
        latents = np.concatenate(saw, axis=1)
        away = {
            "negative_embeddings": from_.embeddings[0],
            "negative_added": _row(from_.added, 0),
            "negative_tokens": self.tokenize(negative_prompt) if negative_prompt else None,
        }
        made = [
            self._trajectory(
                prompts[k],
                told.embeddings[k],
                empty.embeddings[0],
                timesteps=table.timesteps,
                latents=latents[:, image],
                image=images[image],
                guidance_scale=float(request.guidance_scale),
                seed=request.seeds[image],
                negative_prompt=negative_prompt,
                added=_row(told.added, int(k)),
                empty_added=_row(empty.added, 0),
                **(away if guided else {}),
            )
            for image, k in enumerate(every)
        ]
        if tracing is not None:
            found = means_of_run(sums, len(every), len(table.timesteps), tracing.query)
            tracing.add(made, found)
        return made

    def _columns(self, table: StepTable) -> dict[str, Array]:
        """The table's columns as a program takes them: filled up with steps that aren't taken, so
        that another number of steps is the same program."""
        steps = len(table.timesteps)
        lacking = -steps % _STEPS
        columns = {
            name: self._float32(np.pad(getattr(table, name), (0, lacking)))
            for name in ("timesteps", "scale", "keep", "add")
        }
        return {**columns, "taken": self._place.whole(np.arange(steps + lacking) < steps)}

    def _conditioning_of(
        self, prompts: Sequence[str], negative_prompt: str | None, size: tuple[int, int]
    ) -> tuple[Conditioning, Conditioning, Conditioning]:
        """Return the conditioning of prompts, of what is guided away from, and of the empty prompt:
        float32 on the host."""
        made = self._prompts.encode(self._parameters, [*prompts, negative_prompt or "", ""], size)
        host = Conditioning(
            self.to_numpy(made.embeddings),
            {name: self.to_numpy(value) for name, value in made.added.items()},
        )
        told, away, empty = (
            Conditioning(host.embeddings[part], {n: v[part] for n, v in host.added.items()})
            for part in (slice(-2), slice(-2, -1), slice(-1, None))
        )
        if negative_prompt is None and self._model.zeros_for_empty:
            # Stable Diffusion XL was trained so; its sizes stay.
            pooled = np.zeros_like(away.added["text_embeds"])
            away = Conditioning(
                np.zeros_like(away.embeddings), {**away.added, "text_embeds": pooled}
            )
        return told, away, empty

    def _told_rows(
        self, told: Conditioning, rows: npt.NDArray[np.integer[Any]]
    ) -> DenoiserConditioning:
        embeddings = np.asarray(told.embeddings[rows]).astype(self._dtype)
        added = {name: self._rows(value[rows]) for name, value in told.added.items()}
        return DenoiserConditioning(self._place.rows(embeddings), added)

    def trace(
        self,
        query: AttentionQuery | None = None,
        prompts: Sequence[str] | None = None,
        *,
        negative: bool = False,
    ) -> Tracing:
        """Trace what is sampled inside a ``with`` block; see ``wordlight.backends.trace``.

        Attention is averaged inside the compiled run, on the device. ``query`` is part of the
        program: another one compiles anew.

        Raises:
            ValueError: layers or heads that the model hasn't; ``prompts``, which ``sample`` knows;
                ``negative``, which is replayed.
        """
        if negative:
            raise ValueError(
                "on Flax a run averages the prompt's attention alone; that to the negative prompt "
                "is replayed: DAAM(backend).attribute(trajectory, words_of='negative')"
            )
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
        clean = self.to_numpy(self._encode_pixels(image))
        noise = self._noise(seed, image.shape[:2])
        times = self._model.schedule.table(steps).timesteps
        levels = [self._model.schedule.level(time) for time in times]
        latents = np.concatenate([alpha * clean + sigma * noise for alpha, sigma in levels])
        told, _, empty = self._conditioning_of([prompt], None, (image.shape[0], image.shape[1]))
        return self._trajectory(
            prompt,
            told.embeddings[0],
            empty.embeddings[0],
            added=_row(told.added, 0),
            empty_added=_row(empty.added, 0),
            timesteps=times,
            latents=latents.astype(np.float32),
            image=image,
            guidance_scale=1.0,
            seed=seed,
            noise_source="noising",
        )

    def _encode_image(self, image: npt.NDArray[np.uint8]) -> Array:
        return self.asarray(self.to_numpy(self._encode_pixels(image)))

    def _encode_pixels(self, image: npt.NDArray[np.uint8]) -> Array:
        pixels = self._float32(image.transpose(2, 0, 1)[None] / 255.0)
        return self._programs.encode_pixels(self._parameters["autoencoder"], pixels)

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
        return list(pixels_of(self.to_numpy(self._decode(latents)).transpose(0, 2, 3, 1)))

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
        prediction: Array = in_parts(self._place, predict, _ROWS, *rows)
        return prediction

    def _denoise_jvp(
        self, latents: Array, timestep: float, conditioning: Conditioning, tangents: Array
    ) -> tuple[Array, Array]:
        point = self._point(latents, timestep, conditioning.embeddings, conditioning.added)
        program = self._programs.predict_jvp
        return products(
            self._place,
            lambda some: program(self._parameters["unet"], point, some),
            _DIRECTIONS,
            tangents,
        )

    def _denoise_parts(
        self,
        latents: Array,
        timestep: float,
        conditioning: Conditioning,
        baseline: Array,
        parts: Array,
    ) -> Array:
        point = self._point(latents, timestep, conditioning.embeddings, conditioning.added)
        program = self._programs.predict_parts
        made: Array = in_parts(
            self._place,
            lambda some: program(self._parameters["unet"], point, baseline, some),
            _DIRECTIONS,
            parts,
        )
        return made

    def _denoise_vjp(
        self, latents: Array, timestep: float, conditioning: Conditioning, cotangent: Array
    ) -> Array:
        _check_cotangent(latents, cotangent)
        names = list(conditioning.added)

        def gradient(latents: Array, embeddings: Array, cotangent: Array, *added: Array) -> Array:
            told = dict(zip(names, added, strict=True))
            point = self._point(latents, timestep, embeddings, told)
            return self._programs.predict_vjp(self._parameters["unet"], point, cotangent)

        rows = (latents, conditioning.embeddings, cotangent, *conditioning.added.values())
        made: Array = in_parts(self._place, gradient, _GRADIENTS, *rows)
        return made

    def _attention(
        self,
        trajectory: Trajectory,
        query: AttentionQuery,
        steps: tuple[int, ...],
        keys: OtherKeys | None,
    ) -> AttentionMeans:
        query.check(self._layers(query.kind))
        self._check_keys(keys)
        # Every key is made of its embedding: whose it is decides nothing, and would compile anew.
        keys = None if keys is None else keys._replace(own=())
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
        return merge(jax.tree.map(self._place.fetch, sums), steps, query)

    def _check_keys(self, keys: OtherKeys | None) -> None:
        channels = self._model.unet.config.cross_attention_dim
        if keys is None or not isinstance(channels, int):
            return
        shape = tuple(keys.embeddings.shape)
        if shape[1] != channels:
            raise ValueError(f"keys must be (others, {channels} channels), not {shape}")

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
        return merge([jax.tree.map(self._place.fetch, sums)], (0,), query)

    def noise_level(self, timestep: float) -> tuple[float, float]:
        return self._model.schedule.level(timestep)

    # Pixels.

    def _decode(self, latents: Array) -> Array:
        pixels: Array = in_parts(
            self._place,
            lambda rows: self._programs.decode(self._parameters["autoencoder"], rows),
            _IMAGES,
            latents,
        )
        return pixels

    def _decode_jvp(self, latents: Array, tangents: Array) -> tuple[Array, Array]:
        program = self._programs.decode_jvp
        return products(
            self._place,
            lambda some: program(self._parameters["autoencoder"], latents, some),
            _IMAGES,
            tangents,
        )

    # Weights.

    @property
    def stages(self) -> tuple[str, ...]:
        return stages_of(self._parameters["unet"])

    def _randomized(self, stages: tuple[str, ...], seed: int) -> AbstractContextManager[object]:
        return self._with_parameters(randomize(self._parameters, stages, seed))

    @contextmanager
    def _with_parameters(self, others: dict[str, Any]) -> Iterator[None]:
        before, self._parameters = self._parameters, self._place.parameters(others)
        try:
            yield
        finally:
            self._parameters = before

    # Arrays.

    def asarray(self, array: npt.ArrayLike) -> Array:
        return self._place.whole(np.asarray(array).astype(self._dtype))

    def _float32(self, array: npt.ArrayLike) -> Array:
        return self._place.whole(np.asarray(array, np.float32))

    def _rows(self, array: npt.ArrayLike) -> Array:
        return self._place.rows(np.asarray(array, np.float32))

    def to_numpy(self, array: Array) -> npt.NDArray[Any]:
        return self._place.fetch(array).astype(np.float32)

    def compile_seconds(self) -> float:
        return compiling_clock().seconds

    def is_out_of_memory(self, error: Exception) -> bool:
        said = isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
        return said or super().is_out_of_memory(error)

    def reset_peak_bytes(self) -> None:
        self._peak_before = _peak_bytes(self._place.device) or 0

    def peak_bytes(self) -> int | None:
        """Return the first device's peak, None where it isn't above the last one.

        JAX never resets a peak."""
        peak = _peak_bytes(self._place.device)
        return None if peak is None or peak <= self._peak_before else peak


def _peak_bytes(device: jax.Device) -> int | None:
    """The most memory that a device has held since the process began, where it tells."""
    told = device.memory_stats() or {}
    return int(told["peak_bytes_in_use"]) if "peak_bytes_in_use" in told else None


def _devices(name: str | None) -> list[jax.Device]:
    """All devices of a platform, by JAX's name or as ``"cuda"``."""
    try:
        return list(jax.devices(name))
    except RuntimeError as error:
        there = ", ".join(dict.fromkeys(device.platform for device in jax.devices()))
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelLoadError(f"device {name!r} can't be used: {reason}; JAX sees {there}") from None


def _find_device(name: str | None) -> jax.Device:
    """One device of this host; ``"cuda:1"`` is the second."""
    platform, _, number = (name or "").partition(":")
    found = [d for d in _devices(platform or None) if d.process_index == jax.process_index()]
    try:
        return found[int(number or 0)]
    except (ValueError, IndexError):
        raise ModelLoadError(
            f"device {name!r} can't be used: there are {len(found)}, numbered from 0; JAX sees "
            + ", ".join(dict.fromkeys(device.platform for device in jax.devices()))
        ) from None


def _host() -> jax.Device:
    """The processor's own memory, unless JAX was told to leave it alone."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return jax.local_devices()[0]


def _check_cotangent(latents: Array, cotangent: Array) -> None:
    if cotangent.shape != latents.shape:
        raise ValueError(
            f"the cotangent must have the prediction's shape {tuple(latents.shape)}, not "
            f"{tuple(cotangent.shape)}"
        )


def _row(arrays: Mapping[str, Any], row: int) -> dict[str, Any]:
    return {name: value[row] for name, value in arrays.items()}
