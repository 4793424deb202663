"""The compiled programs: a model's parts as functions of their parameters and of arrays.

Arrays are ``(batch, channels, height, width)`` as everywhere outside the networks. Everything that
may change without compiling anew is an argument: parameters, timestep, noise levels, guidance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from wordlight.backends.attention import AttentionQuery, OtherKeys
from wordlight.backends.flax.attention import AttentionHook, WrittenOut
from wordlight.backends.flax.attention_means import AttentionSums, MeanOfAttention, ShiftedAttention
from wordlight.backends.flax.clip_text import TextStates
from wordlight.backends.flax.layers import Array
from wordlight.backends.flax.loading import LoadedModel
from wordlight.backends.flax.rescale_rule import rescaled_parts

P = ParamSpec("P")
R = TypeVar("R")
Params = Any


class Point(NamedTuple):
    """The inputs of a denoiser's pass: latents, the timestep with its alpha and sigma, and the
    conditioning."""

    latents: Array
    timestep: Array
    alpha: Array
    sigma: Array
    embeddings: Array
    added: Mapping[str, Array]


class DenoiserConditioning(NamedTuple):
    """The denoiser's conditioning, besides latents and timestep: see ``Conditioning``."""

    embeddings: Array
    added: Mapping[str, Array]


def parameters_of(model: LoadedModel, dtype: Any) -> dict[str, Params]:
    """A model's parameters, part by part. The autoencoder always computes in float32."""
    cast = partial(jax.tree.map, lambda leaf: leaf.astype(dtype))
    parts = {
        "text_encoder": cast(nnx.state(model.text_encoder)),
        "unet": cast(nnx.state(model.unet)),
        "autoencoder": nnx.state(model.autoencoder),
    }
    if model.text_encoder_2 is not None:
        parts["text_encoder_2"] = cast(nnx.state(model.text_encoder_2))
    return parts


def _multiplying(precision: str, function: Callable[P, R]) -> Callable[P, R]:
    """Graphics cards and TPUs would otherwise multiply float32 with fewer digits."""

    @wraps(function)
    def multiplying(*args: P.args, **kwargs: P.kwargs) -> R:
        with jax.default_matmul_precision(precision):
            return function(*args, **kwargs)

    return multiplying


class Programs:
    """A model's parts, compiled when they are first called with arrays of some shapes.

    Args:
        model: the parts; their parameters are arguments, see ``parameters_of``.
        dtype: in which UNet and text encoder compute.
        precision: of products of float32, by JAX's names.
    """

    def __init__(self, model: LoadedModel, dtype: Any, precision: str = "highest") -> None:
        self._text, self._unet, self._autoencoder = (
            nnx.graphdef(network) for network in (model.text_encoder, model.unet, model.autoencoder)
        )
        self._text_2 = None if model.text_encoder_2 is None else nnx.graphdef(model.text_encoder_2)
        self._prediction = model.schedule.prediction
        self._dtype = dtype
        exact = partial(_multiplying, precision)
        self.encode = jax.jit(exact(self._encode))
        self.encode_two = jax.jit(exact(self._encode_two))
        self.encode_jvp = jax.jit(exact(self._encode_jvp))
        self.encode_parts = jax.jit(exact(self._encode_parts))
        self.embed = jax.jit(exact(self._embed))
        self.predict = jax.jit(exact(self._predict))
        self.predict_jvp = jax.jit(exact(self._predict_jvp))
        self.predict_parts = jax.jit(exact(self._predict_parts))
        self.predict_vjp = jax.jit(exact(self._predict_vjp))
        self.look = jax.jit(exact(self._look), static_argnames="query")
        self.look_vjp = jax.jit(exact(self._look_vjp), static_argnames="query")
        self.sample = jax.jit(exact(self._sample), static_argnames="query")
        self.encode_pixels = jax.jit(exact(self._encode_pixels))
        self.decode = jax.jit(exact(self._decode))
        self.decode_jvp = jax.jit(exact(self._decode_jvp))

    # The text encoder.

    def _encode(self, params: Params, ids: Array, embeddings: Array | None = None) -> TextStates:
        """The states of ids ``(batch, tokens)``, or of input embeddings in their place."""
        states: TextStates = nnx.merge(self._text, params)(ids, embeddings)
        return states

    def _encode_two(self, params: Sequence[Params], ids: Sequence[Array]) -> tuple[Array, Array]:
        """Of Stable Diffusion XL's two encoders: the states before their last layers side by side,
        and the second's pooled one."""
        assert self._text_2 is not None
        states = self._encode(params[0], ids[0]).penultimate
        more: TextStates = nnx.merge(self._text_2, params[1])(ids[1])
        return jnp.concatenate([states, more.penultimate], axis=-1), more.pooled

    def _embed(self, params: Params, ids: Array) -> Array:
        """The input embeddings of ids."""
        embedded: Array = nnx.merge(self._text, params).embed(ids)
        return embedded

    def _encode_jvp(
        self, params: Params, ids: Array, embeddings: Array, tangents: Array
    ) -> tuple[Array, Array]:
        """The last states of one row, and how they change along ``(directions, ...)``."""

        def states(x: Array) -> Array:
            return self._encode(params, ids, x).last

        return _along(states, embeddings, tangents)

    def _encode_parts(
        self, params: Params, ids: Array, embeddings: Array, baseline: Array, parts: Array
    ) -> Array:
        """The parts of the last states' difference, by the rescale rule."""

        def states(x: Array) -> Array:
            return self._encode(params, ids, x).last

        return rescaled_parts(states, embeddings, baseline, parts)

    # The denoiser.

    def _output(self, params: Params, point: Point, hook: AttentionHook | None = None) -> Array:
        """Return the UNet's own prediction, in float32."""
        latents = point.latents.transpose(0, 2, 3, 1).astype(self._dtype)
        times = jnp.broadcast_to(point.timestep, latents.shape[0])
        text = point.embeddings.astype(self._dtype)
        output = nnx.merge(self._unet, params)(latents, times, text, point.added, hook)
        prediction: Array = output.transpose(0, 3, 1, 2).astype(jnp.float32)
        return prediction

    def _predict(self, params: Params, point: Point, hook: AttentionHook | None = None) -> Array:
        """The prediction in epsilon units: with x = alpha·x0 + sigma·ε, v = alpha·ε - sigma·x0
        gives ε = alpha·v + sigma·x, and a predicted x0 gives ε = (x - alpha·x0) / sigma."""
        output = self._output(params, point, hook)
        if self._prediction == "epsilon":
            return output
        latents = point.latents.astype(jnp.float32)
        if self._prediction == "v_prediction":
            return point.alpha * output + point.sigma * latents
        return (latents - point.alpha * output) / point.sigma

    def _predict_jvp(self, params: Params, point: Point, tangents: Array) -> tuple[Array, Array]:
        """The prediction for one row, and how it changes along ``(directions, tokens, channels)``
        of the embeddings."""

        def prediction(embeddings: Array) -> Array:
            return self._predict(params, point._replace(embeddings=embeddings))

        return _along(prediction, point.embeddings, tangents)

    def _predict_parts(self, params: Params, point: Point, baseline: Array, parts: Array) -> Array:
        """The parts of the predictions' difference, by the rescale rule."""

        def prediction(embeddings: Array) -> Array:
            return self._predict(params, point._replace(embeddings=embeddings), WrittenOut())

        return rescaled_parts(prediction, point.embeddings, baseline, parts)

    def _predict_vjp(self, params: Params, point: Point, cotangent: Array) -> Array:
        """The gradient of ⟨prediction, cotangent⟩ with respect to the embeddings."""

        def product(embeddings: Array) -> Array:
            prediction = self._predict(params, point._replace(embeddings=embeddings))
            return jnp.sum(prediction * cotangent)

        gradient: Array = jax.grad(product)(point.embeddings)
        return gradient

    def _look(
        self, params: Params, point: Point, keys: OtherKeys | None, *, query: AttentionQuery
    ) -> AttentionSums:
        """The attention that a query asks for, of the text's tokens or of other ``keys``."""
        hook = MeanOfAttention(query, _grid(point), keys)
        self._output(params, point, hook)
        return hook.sums

    def _look_vjp(
        self, params: Params, point: Point, cotangent: Array, *, query: AttentionQuery
    ) -> AttentionSums:
        """ReLU(A ⊙ ∂S/∂A) of the attention A that a query asks for, S = ⟨prediction, cotangent⟩."""

        def product(shifts: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
            hook = ShiftedAttention(query, _grid(point), shifts)
            prediction = self._predict(params, point, hook)
            return jnp.sum(prediction * cotangent), hook.seen

        looking = ShiftedAttention(query, _grid(point))
        jax.eval_shape(lambda: (self._output(params, point, looking), looking.seen))
        shapes = {name: seen.shape for name, seen in looking.seen.items()}
        shifts = {name: jnp.zeros(shape, jnp.float32) for name, shape in shapes.items()}
        gradients, seen = jax.grad(product, has_aux=True)(shifts)
        sums = AttentionSums()
        for name, site in looking.sites.items():
            sums.add(query, site, jax.nn.relu(seen[name] * gradients[name]))
        return sums

    # The whole run.

    def _sample(
        self,
        params: Params,
        noise: Array,
        table: Mapping[str, Array],
        guidance: Array,
        told: DenoiserConditioning,
        away: DenoiserConditioning | None,
        *,
        query: AttentionQuery | None = None,
    ) -> tuple[Array, Array, AttentionSums]:
        """From noise to clean latents, in one scan.

        Args:
            params: the UNet's.
            noise: ``(images, channels, height, width)``, standard normal times the table's start.
            table: timesteps, scale, keep and add, ``(steps,)`` each, see ``StepTable``; and
                whether each of them is taken.
            guidance: the scale.
            told: the denoiser's conditioning of each image.
            away: the same of what is guided away from; None for no guidance.
            query: the attention to the prompt that is added up on the way, if any.

        Gives what the denoiser saw before each step, ``(steps, images, ...)``, the end, and sums
        over the steps (or ``(steps, ...)``, where the query keeps these apart), counted as of one
        step. Of steps that aren't taken there are zeros.
        """
        guided = away is not None
        both = told if away is None else jax.tree.map(_interleave, away, told)
        apart = query is not None and "step" in query.keep

        def step(x: Array, row: Mapping[str, Array]) -> tuple[Array, Array, AttentionSums]:
            seen = row["scale"] * x
            rows = _interleave(seen, seen) if guided else seen
            nothing = jnp.zeros(())
            point = Point(
                rows, row["timesteps"], nothing, nothing, both.embeddings, dict(both.added)
            )
            hook = None if query is None else MeanOfAttention(query, _grid(point), guided=guided)
            output = self._output(params, point, hook)
            if guided:
                from_, towards = _pairs(output)
                output = from_ + guidance * (towards - from_)
            sums = AttentionSums() if hook is None else hook.sums
            return row["keep"] * x + row["add"] * output, seen, sums

        def body(
            carry: tuple[Array, AttentionSums], row: Mapping[str, Array]
        ) -> tuple[tuple[Array, AttentionSums], tuple[Array, AttentionSums]]:
            x, total = carry
            x, seen, sums = jax.lax.cond(
                row["taken"],
                lambda: step(x, row),
                lambda: (x, jnp.zeros_like(x), jax.tree.map(jnp.zeros_like, no_sums)),
            )
            if apart:
                return (x, total), (seen, sums)
            return (x, jax.tree.map(jnp.add, total, sums)), (seen, AttentionSums())

        first = {name: column[0] for name, column in table.items()}
        shapes = jax.eval_shape(step, noise, first)[2]
        no_sums = jax.tree.map(lambda sum_: jnp.zeros(sum_.shape, sum_.dtype), shapes)
        total = AttentionSums() if apart else no_sums
        (end, total), (seen, each) = jax.lax.scan(body, (noise, total), dict(table))
        return seen, end, each if apart else total

    # The autoencoder.

    def _encode_pixels(self, params: Params, pixels: Array) -> Array:
        """Clean latents of pixels from 0 to 1, ``(batch, 3, height, width)``."""
        given = 2.0 * pixels.transpose(0, 2, 3, 1) - 1.0
        latents: Array = nnx.merge(self._autoencoder, params).encode(given)
        return latents.transpose(0, 3, 1, 2)

    def _decode(self, params: Params, latents: Array) -> Array:
        """Pixels of clean latents, 0 black and 1 white."""
        given = latents.transpose(0, 2, 3, 1).astype(jnp.float32)
        pixels: Array = nnx.merge(self._autoencoder, params).decode(given)
        return pixels.transpose(0, 3, 1, 2) / 2.0 + 0.5

    def _decode_jvp(self, params: Params, latents: Array, tangents: Array) -> tuple[Array, Array]:
        """Pixels of one row, and how they change along ``(directions, ...)``."""
        return _along(partial(self._decode, params), latents, tangents)


def _along(function: Callable[[Array], Array], x: Array, tangents: Array) -> tuple[Array, Array]:
    """A function's value at one row ``(1, ...)``, and how it changes along each direction."""
    value, push = jax.linearize(function, x)
    changes: Array = jax.vmap(push)(tangents[:, None].astype(x.dtype))
    return value, changes[:, 0]


def _interleave(first: Array, second: Array) -> Array:
    """Rows in turn. Pairs side by side stay on one device when the batch is cut up over many."""
    return jnp.stack([first, second], axis=1).reshape(-1, *first.shape[1:])


def _pairs(rows: Array) -> tuple[Array, Array]:
    """Return the first and the second rows of interleaved pairs."""
    pairs = rows.reshape(-1, 2, *rows.shape[1:])
    return pairs[:, 0], pairs[:, 1]


def _grid(point: Point) -> tuple[int, int]:
    return int(point.latents.shape[2]), int(point.latents.shape[3])
