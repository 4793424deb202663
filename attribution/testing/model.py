"""A tiny text-to-image model in numpy, every primitive written out: what methods are tested on."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from wordlight.attribution.resize import average_down
from wordlight.backends.attention import (
    AttentionMean,
    AttentionMeans,
    AttentionQuery,
    Layer,
    OtherKeys,
    shares_of_others,
)
from wordlight.backends.backend import Backend, Conditioning
from wordlight.backends.measures import AttentionParts, Measure
from wordlight.backends.sampling import DrawRequest, SamplingFacts
from wordlight.backends.tokens import PromptTooLongError, Tokens
from wordlight.backends.trajectory import Trajectory

Floats = npt.NDArray[np.floating[Any]]

#: Sizes of the model: tokens of the context, channels of embeddings, of latents and of a head.
CONTEXT, TEXT, CHANNELS, WIDTH, HEADS = 16, 5, 3, 4, 2
#: Pixels a side of a latent.
SCALE = 4
#: Letters of the longest token: a longer word is several.
PIECE = 6
_RUN = re.compile(r"\w+|[^\w\s]")
#: From the output down, as ``randomized`` takes them.
STAGES = ("output", "coarse", "fine")


@dataclass(frozen=True, eq=False)
class _Attention:
    """A layer's weights; ``factor`` is how much smaller its grid is than the latents'."""

    name: str
    factor: int
    query: Floats
    key: Floats
    value: Floats
    self_query: Floats
    self_key: Floats

    @classmethod
    def random(cls, name: str, factor: int, rng: np.random.Generator) -> _Attention:
        """Weights so large that attention is far from even."""

        def draw(*shape: int) -> Floats:
            return rng.standard_normal(shape)

        return cls(
            name,
            factor,
            query=draw(HEADS, CHANNELS, WIDTH),
            key=1.5 * draw(HEADS, TEXT, WIDTH),
            value=draw(HEADS, TEXT, CHANNELS),
            self_query=draw(HEADS, CHANNELS, WIDTH),
            self_key=draw(HEADS, CHANNELS, WIDTH),
        )


@dataclass(frozen=True, eq=False)
class _Look:
    """The part of a layer that depends on one row's latents alone, its places row by row.

    ``queries`` is ``(heads, places, width)``, ``within`` and its scores are ``(heads, places,
    places)``, and ``carry`` ``(latent places, places)``, which takes what the places have through
    self-attention (the mean over heads) to the latents' grid.
    """

    layer: _Attention
    grid: tuple[int, int]
    queries: Floats
    within_scores: Floats
    within: Floats
    carry: Floats


@dataclass(frozen=True, eq=False)
class _Pass:
    """A layer's ``scores`` and ``probabilities`` ``(heads, places, tokens)`` and ``values``
    ``(heads, tokens, channels)``, on top of its look."""

    look: _Look
    scores: Floats
    probabilities: Floats
    values: Floats


class ToyModel(Backend):
    """A latent diffusion model of two attention layers, ``fine`` on the latent grid and ``coarse``
    on one of half the size, in numpy float64.

    A layer's places attend to the tokens (``A = softmax(qKᵀ/√d)``, two heads) and then to each
    other; with the mean over heads of ``A·V`` spread by self-attention, the prediction is
    ``ε = x/2 + (Σ over layers)·W``. Derivatives are worked out by hand, so every primitive is
    exact; each row is computed by itself, so an answer doesn't depend on its company. Words are cut
    into tokens of at most six letters. Weights are random but always the same.

    Attributes:
        hooks: called with name, kind (``"cross"`` or ``"self"``) and probabilities
            ``(heads, places, tokens or places)`` of each layer in each pass: what forward hooks
            are to a real model.
    """

    framework = "numpy"
    model_id = "toy"
    revision = None
    device = "cpu"
    dtype = "float64"

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(3)
        self._positions: Floats = 0.3 * rng.standard_normal((CONTEXT, TEXT))
        self._mixing: Floats = rng.standard_normal((TEXT, TEXT))
        self._colours: Floats = rng.standard_normal((CHANNELS, 3))
        self._output: Floats = rng.standard_normal((CHANNELS, CHANNELS))
        self._layers: tuple[_Attention, ...] = (
            _Attention.random("fine", 1, rng),
            _Attention.random("coarse", 2, rng),
        )
        self.hooks: list[Callable[[str, str, Floats], None]] = []

    @property
    def capabilities(self) -> frozenset[str]:
        """All primitives but tracing a pipeline."""
        return frozenset(
            "sample invert encode encode_from denoise denoise_jvp denoise_parts denoise_vjp "
            "attention self_attention attention_keys attention_measures attention_vjp "
            "concept_attention decode randomized".split()
        )

    @property
    def sampling(self) -> SamplingFacts:
        return SamplingFacts(
            steps=3, guidance_scale=3.0, train_steps=1000, height=16, width=24, multiple=SCALE
        )

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers that an ``AttentionQuery`` can name."""
        return tuple(Layer(layer.name, HEADS) for layer in self._layers)

    @property
    def stages(self) -> tuple[str, ...]:
        return STAGES

    # Text.

    def tokenize(self, prompt: str) -> Tokens:
        spans = [
            (place, min(place + PIECE, stop))
            for start, stop in (match.span() for match in _RUN.finditer(prompt))
            for place in range(start, stop, PIECE)
        ]
        pads = CONTEXT - 2 - len(spans)
        if pads < 0:
            raise PromptTooLongError(
                f"the prompt has {len(spans)} tokens, and the context holds {CONTEXT - 2}"
            )
        pieces = [prompt[a:b].lower() for a, b in spans]
        return Tokens(
            prompt=prompt,
            ids=(0, *(3 + zlib.crc32(piece.encode()) for piece in pieces), 1, *[2] * pads),
            texts=("<start>", *pieces, "<end>", *["<pad>"] * pads),
            offsets=((0, 0), *spans, *[(0, 0)] * (pads + 1)),
            kinds=("start", *["text"] * len(spans), "end", *["pad"] * pads),
        )

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        return self._encode_from(np.stack([self._token_embeddings(p) for p in prompts]))

    def _token_embeddings(self, text: str) -> Floats:
        rows = [np.random.default_rng(i).standard_normal(TEXT) for i in self.tokenize(text).ids]
        return np.stack(rows)

    def _encode_from(self, token_embeddings: Floats) -> Conditioning:
        placed = token_embeddings + self._positions
        return Conditioning(np.tanh(np.stack([self._mixed(row) for row in placed])))

    def _encode_from_jvp(
        self, token_embeddings: Floats, tangents: Floats
    ) -> tuple[Conditioning, Floats]:
        made = self._encode_from(token_embeddings)
        changes = np.stack([self._mixed(row) for row in tangents])
        return made, (1 - np.square(made.embeddings)) * changes

    def _encode_from_parts(
        self, token_embeddings: Floats, baseline: Floats, parts: Floats
    ) -> Floats:
        # tanh of sums: Δtanh / Δsum times each part's sum.
        point, before = (
            self._mixed((one + self._positions)[0]) for one in (token_embeddings, baseline)
        )
        apart = point != before
        slope = np.where(
            apart,
            (np.tanh(point) - np.tanh(before)) / np.where(apart, point - before, 1.0),
            1 - np.square(np.tanh(point)),
        )
        return slope * np.stack([self._mixed(part) for part in parts])

    def _mixed(self, row: Floats) -> Floats:
        # Causal: a token knows those before it.
        means = np.cumsum(row, axis=0) / np.arange(1, len(row) + 1)[:, None]
        mixed: Floats = row + 0.5 * means @ self._mixing
        return mixed

    # The denoiser.

    def noise_level(self, timestep: float) -> tuple[float, float]:
        angle = np.pi / 2 * timestep / 1000
        return float(np.cos(angle)), float(np.sin(angle))

    def _looks(self, latents: Floats, timestep: float) -> list[_Look]:
        """One row's latents, ``(channels, y, x)``, in the layers."""
        channels, height, width = latents.shape
        flat = latents.reshape(channels, -1).T
        time = np.sin(timestep / 1000 * np.arange(1, WIDTH + 1))
        looks = []
        for layer in self._layers:
            spread = _spread(height, width, layer.factor)
            places = (spread / spread.sum(0)).T @ flat
            scores = (places @ layer.self_query) @ (places @ layer.self_key).swapaxes(1, 2)
            scores = scores / np.sqrt(WIDTH)
            within = _softmax(scores)
            grid = (-(-height // layer.factor), -(-width // layer.factor))
            queries = places @ layer.query + time
            carry = spread @ within.mean(0)
            looks.append(_Look(layer, grid, queries, scores, within, carry))
        return looks

    def _passes(self, looks: Sequence[_Look], embeddings: Floats) -> list[_Pass]:
        """Return the layers' results for embeddings ``(tokens, channels)``."""
        passes = []
        for look in looks:
            keys = (embeddings @ look.layer.key).swapaxes(1, 2)
            scores = look.queries @ keys / np.sqrt(WIDTH)
            probabilities = _softmax(scores)
            for hook in self.hooks:
                hook(look.layer.name, "cross", probabilities)
                hook(look.layer.name, "self", look.within)
            passes.append(_Pass(look, scores, probabilities, embeddings @ look.layer.value))
        return passes

    def _gather(self, passes: Sequence[_Pass], heads: Sequence[Floats]) -> Floats:
        """The prediction's part that comes from the text, ``(channels, latent places)``, of each
        layer's outputs ``(heads, places, channels)``."""
        parts = [
            one.look.carry @ (out.sum(0) / HEADS) for one, out in zip(passes, heads, strict=True)
        ]
        gathered: Floats = (sum(parts[1:], parts[0]) @ self._output).T
        return gathered

    def _row(self, latents: Floats, looks: Sequence[_Look], embeddings: Floats) -> Floats:
        passes = self._passes(looks, embeddings)
        text = self._gather(passes, [one.probabilities @ one.values for one in passes])
        row: Floats = 0.5 * latents + text.reshape(latents.shape)
        return row

    def _denoise(self, latents: Floats, timestep: float, conditioning: Conditioning) -> Floats:
        rows: list[Floats] = []
        looks: list[_Look] = []
        for number, (x, embeddings) in enumerate(
            zip(latents, conditioning.embeddings, strict=True)
        ):
            # Methods mostly ask for one image under many prompts.
            if number == 0 or not np.array_equal(x, latents[number - 1]):
                looks = self._looks(x, timestep)
            rows.append(self._row(x, looks, embeddings))
        return np.stack(rows)

    def _denoise_jvp(
        self, latents: Floats, timestep: float, conditioning: Conditioning, tangents: Floats
    ) -> tuple[Floats, Floats]:
        passes = self._passes(self._looks(latents[0], timestep), conditioning.embeddings[0])
        changes = []
        for tangent in tangents:
            outs = []
            for one in passes:
                keys = (tangent @ one.look.layer.key).swapaxes(1, 2)
                scores = one.look.queries @ keys / np.sqrt(WIDTH)
                probabilities = _softmax_change(one.probabilities, scores)
                moved = one.probabilities @ (tangent @ one.look.layer.value)
                outs.append(probabilities @ one.values + moved)
            changes.append(self._gather(passes, outs).reshape(latents.shape[1:]))
        return self._denoise(latents, timestep, conditioning), np.stack(changes)

    def _denoise_parts(
        self,
        latents: Floats,
        timestep: float,
        conditioning: Conditioning,
        baseline: Floats,
        parts: Floats,
    ) -> Floats:
        looks = self._looks(latents[0], timestep)
        ends = [self._passes(looks, one) for one in (conditioning.embeddings[0], baseline[0])]
        found = []
        for part in parts:
            outs = []
            for one, other in zip(*ends, strict=True):
                keys = (part @ one.look.layer.key).swapaxes(1, 2)
                moved = _softmax_parts(
                    one.probabilities,
                    other.probabilities,
                    one.look.queries @ keys / np.sqrt(WIDTH),
                )
                middle = (one.probabilities + other.probabilities) / 2
                values = (one.values + other.values) / 2
                outs.append(moved @ values + middle @ (part @ one.look.layer.value))
            found.append(self._gather(ends[0], outs).reshape(latents.shape[1:]))
        return np.stack(found)

    def _pulled_back(self, passes: Sequence[_Pass], cotangent: Floats) -> list[Floats]:
        """From ∂S/∂ε ``(channels, y, x)`` to ∂S/∂(A·V) of each layer, ``(places, channels)``; the
        same for each head."""
        flat = cotangent.reshape(len(cotangent), -1).T @ self._output.T
        return [one.look.carry.T @ flat / HEADS for one in passes]

    def _denoise_vjp(
        self, latents: Floats, timestep: float, conditioning: Conditioning, cotangent: Floats
    ) -> Floats:
        gradients = []
        for x, e, back in zip(latents, conditioning.embeddings, cotangent, strict=True):
            passes = self._passes(self._looks(x, timestep), e)
            total = np.zeros_like(e)
            for one, pulled in zip(passes, self._pulled_back(passes, back), strict=True):
                values = one.probabilities.swapaxes(1, 2) @ pulled
                # The derivative of softmax is symmetric.
                scores = _softmax_change(one.probabilities, pulled @ one.values.swapaxes(1, 2))
                keys = scores.swapaxes(1, 2) @ one.look.queries / np.sqrt(WIDTH)
                total += (values @ one.look.layer.value.swapaxes(1, 2)).sum(0)
                total += (keys @ one.look.layer.key.swapaxes(1, 2)).sum(0)
            gradients.append(total)
        return np.stack(gradients)

    # Attention.

    def _attention(
        self,
        trajectory: Trajectory,
        query: AttentionQuery,
        steps: tuple[int, ...],
        keys: OtherKeys | None,
    ) -> AttentionMeans:
        query.check(self.layers)
        means = _Means(query, trajectory.grid)
        for step in steps:
            timestep = float(trajectory.timesteps[step])
            looks = self._looks(trajectory.latents[step], timestep)
            for one in self._passes(looks, trajectory.embeddings):
                if keys is not None:
                    maps = self._of_others(one, trajectory.embeddings, keys, query.measure)
                else:
                    parts = self._parts(one, query.kind)
                    maps = parts.measured(query.measure, query.kind)[0]
                means.add(one, step, maps)
        return means.found()

    @staticmethod
    def _parts(one: _Pass, kind: Literal["cross", "self"]) -> AttentionParts:
        """Return a layer's attention in parts. The mean over heads makes its output."""
        scores, values = one.scores, one.values
        if kind == "self":
            # Its values are what the places have of the text.
            told = (one.probabilities @ values).mean(0)
            scores, values = one.look.within_scores, np.broadcast_to(told, (HEADS, *told.shape))
        projection = np.broadcast_to(np.eye(CHANNELS) / HEADS, (HEADS, CHANNELS, CHANNELS))
        return AttentionParts(scores[None], values[None], projection)

    @staticmethod
    def _of_others(one: _Pass, embeddings: Floats, keys: OtherKeys, measure: Measure) -> Floats:
        def scores(text: Floats) -> Floats:
            keyed = (text @ one.look.layer.key).swapaxes(1, 2)
            found: Floats = one.look.queries @ keyed / np.sqrt(WIDTH)
            return found

        asked = scores(keys.embeddings)
        if measure == "scores":
            return asked
        shares: Floats = shares_of_others(scores(embeddings), asked, keys)
        return shares

    def _concept_attention(
        self,
        trajectory: Trajectory,
        query: AttentionQuery,
        steps: tuple[int, ...],
        concepts: Floats,
    ) -> AttentionMeans:
        query.check(self.layers)
        means = _Means(query, trajectory.grid)
        for step in steps:
            looks = self._looks(trajectory.latents[step], float(trajectory.timesteps[step]))
            for one in self._passes(looks, trajectory.embeddings):
                places = one.probabilities @ one.values
                tokens = [
                    self._text_outputs(one, places, text)
                    for text in (trajectory.embeddings, concepts)
                ]
                means.add(one, step, places @ np.concatenate(tokens, axis=1).swapaxes(1, 2))
        return means.found()

    @staticmethod
    def _text_outputs(one: _Pass, places: Floats, text: Floats) -> Floats:
        """Return the attention outputs that tokens would have of each other and of the places,
        ``(heads, tokens, channels)``: the model's own text attends to nothing."""
        layer = one.look.layer
        keys = text @ layer.key
        among = np.concatenate([keys, one.look.queries], axis=1)
        values = np.concatenate([text @ layer.value, places], axis=1)
        outputs: Floats = _softmax(keys @ among.swapaxes(1, 2) / np.sqrt(WIDTH)) @ values
        return outputs

    def _attention_vjp(
        self,
        latents: Floats,
        timestep: float,
        conditioning: Conditioning,
        cotangent: Floats,
        query: AttentionQuery,
    ) -> AttentionMeans:
        query.check(self.layers)
        means = _Means(query, (int(latents.shape[2]), int(latents.shape[3])))
        passes = self._passes(self._looks(latents[0], timestep), conditioning.embeddings[0])
        for one, pulled in zip(passes, self._pulled_back(passes, cotangent[0]), strict=True):
            slopes = pulled @ one.values.swapaxes(1, 2)
            means.add(one, None, np.maximum(one.probabilities * slopes, 0))
        return means.found()

    # Pixels.

    def _decode(self, latents: Floats) -> Floats:
        return 0.5 + 0.5 * np.tanh(self._coloured(latents))

    def _decode_jvp(self, latents: Floats, tangents: Floats) -> tuple[Floats, Floats]:
        slope = 0.5 * (1 - np.square(np.tanh(self._coloured(latents))))
        return self._decode(latents), slope * self._coloured(tangents)

    def _coloured(self, latents: Floats) -> Floats:
        colours: Floats = np.einsum("byxc,ck->bkyx", np.moveaxis(latents, 1, -1), self._colours)
        return colours.repeat(SCALE, axis=2).repeat(SCALE, axis=3)

    def _sample(self, request: DrawRequest) -> list[Trajectory]:
        """DDIM, image by image."""
        steps, negative_prompt = request.steps, request.negative_prompt
        guidance_scale = request.guidance_scale
        times = np.linspace(900.0, 100.0, steps)
        grid = (request.size[0] // SCALE, request.size[1] // SCALE)
        made = []
        for number, seed in enumerate(request.seeds):
            prompt = request.prompts[number // request.images_per_prompt]
            ends = self.encode([prompt, negative_prompt or "", ""]).embeddings
            pushed = guidance_scale > 1
            x = np.random.default_rng(seed).standard_normal((CHANNELS, *grid))
            seen = []
            for place, time in enumerate(times):
                seen.append(x)
                looks = self._looks(x, float(time))
                noise = self._row(x, looks, ends[0])
                if pushed:
                    away = self._row(x, looks, ends[1])
                    noise = away + guidance_scale * (noise - away)
                alpha, sigma = self.noise_level(float(time))
                after = self.noise_level(float(times[place + 1]) if place + 1 < steps else 0.0)
                x = after[0] * (x - sigma * noise) / alpha + after[1] * noise
            self.evaluations.forward += (2 if pushed else 1) * steps
            made.append(
                Trajectory(
                    prompt=prompt,
                    tokens=self.tokenize(prompt),
                    embeddings=ends[0],
                    empty_embeddings=ends[2],
                    negative_embeddings=ends[1] if pushed else None,
                    negative_prompt=negative_prompt,
                    negative_tokens=self.tokenize(negative_prompt)
                    if pushed and negative_prompt
                    else None,
                    timesteps=times,
                    latents=np.stack(seen),
                    image=self._image(x),
                    guidance_scale=guidance_scale,
                    model_id=self.model_id,
                    revision=self.revision,
                    framework=self.framework,
                    seed=seed,
                )
            )
        return made

    def _invert(
        self, image: npt.NDArray[np.uint8], prompt: str, *, seed: int, steps: int
    ) -> Trajectory:
        clean = self._encode_image(image)[0]
        noise = np.random.default_rng(seed).standard_normal(clean.shape)
        times = np.linspace(900.0, 100.0, steps)
        noisy = [a * clean + s * noise for a, s in map(self.noise_level, times.tolist())]
        ends = self.encode([prompt, ""]).embeddings
        return Trajectory(
            prompt=prompt,
            tokens=self.tokenize(prompt),
            embeddings=ends[0],
            empty_embeddings=ends[1],
            timesteps=times,
            latents=np.stack(noisy),
            image=image,
            guidance_scale=1.0,
            model_id=self.model_id,
            revision=self.revision,
            framework=self.framework,
            seed=seed,
            noise_source="noising",
        )

    def _encode_image(self, image: npt.NDArray[np.uint8]) -> Floats:
        grid = (image.shape[0] // SCALE, image.shape[1] // SCALE)
        levels = [average_down(image[..., k] / 255.0, grid) for k in range(3)]
        colours = np.arctanh(np.clip(2 * np.stack(levels, -1) - 1, -0.99, 0.99))
        clean: Floats = np.moveaxis(colours @ np.linalg.inv(self._colours), -1, 0)[None]
        return clean

    def _image(self, latents: Floats) -> npt.NDArray[np.uint8]:
        pixels = np.moveaxis(self._decode(latents[None])[0], 0, -1)
        image: npt.NDArray[np.uint8] = np.round(255 * pixels).astype(np.uint8)
        return image

    # The rest.

    def _randomized(self, stages: tuple[str, ...], seed: int) -> AbstractContextManager[object]:
        @contextmanager
        def random_weights() -> Iterator[None]:
            before = self._output, self._layers
            rng = np.random.default_rng([seed, 1])
            # All are drawn, so that a stage gets the same weights however far down one goes.
            output = rng.standard_normal(self._output.shape)
            layers = {
                layer.name: _Attention.random(layer.name, layer.factor, rng)
                for layer in reversed(self._layers)
            }
            try:
                if "output" in stages:
                    self._output = output
                self._layers = tuple(
                    layers[layer.name] if layer.name in stages else layer for layer in self._layers
                )
                yield
            finally:
                self._output, self._layers = before

        return random_weights()

    def asarray(self, array: npt.ArrayLike) -> Floats:
        return np.asarray(array, np.float64)

    def to_numpy(self, array: Any) -> npt.NDArray[Any]:
        return np.asarray(array)


class _Means:
    """Adds up the maps that a query wants, a sum for each grid, kept step, layer and head."""

    def __init__(self, query: AttentionQuery, latent_grid: tuple[int, int]) -> None:
        self._query, self._latent_grid = query, latent_grid
        self._sums: dict[tuple[Any, ...], list[Floats]] = {}

    def add(self, one: _Pass, step: int | None, maps: Floats) -> None:
        """Take in a layer's maps ``(heads, places, keys)``."""
        query, name = self._query, one.look.layer.name
        if not (query.wants_layer(name) and query.wants_grid(one.look.grid, self._latent_grid)):
            return
        for head in range(HEADS) if query.heads is None else query.heads:
            key = (
                one.look.grid,
                step if "step" in query.keep else None,
                name if "layer" in query.keep else None,
                head if "head" in query.keep else None,
            )
            self._sums.setdefault(key, []).append(maps[head].T.reshape(-1, *one.look.grid))

    def found(self) -> AttentionMeans:
        """The averages."""
        return AttentionMeans(
            tuple(
                AttentionMean(np.mean(maps, axis=0).astype(np.float32), len(maps), *key[1:])
                for key, maps in self._sums.items()
            )
        )


@cache
def _spread(height: int, width: int, factor: int) -> Floats:
    """``(latent places, places)``: 1 where a latent lies in a place of the smaller grid."""
    across = -(-width // factor)
    y, x = np.divmod(np.arange(height * width), width)
    places = (y // factor) * across + x // factor
    spread: Floats = np.eye(places.max() + 1)[places]
    return spread


def _softmax(scores: Floats) -> Floats:
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    shares: Floats = powers / powers.sum(-1, keepdims=True)
    return shares


def _softmax_change(probabilities: Floats, scores: Floats) -> Floats:
    """Return the change of probabilities with their scores."""
    mean = (probabilities * scores).sum(-1, keepdims=True)
    change: Floats = probabilities * (scores - mean)
    return change


def _softmax_parts(after: Floats, before: Floats, scores: Floats) -> Floats:
    """Return the parts of the difference of probabilities that come of parts of their scores'
    difference: the change with Δp / Δlog p in the place of p."""
    # Of scores far apart, probabilities round to nothing.
    ratio = np.subtract(*(np.log(np.maximum(p, np.finfo(float).tiny)) for p in (after, before)))
    same = np.abs(ratio) < 1e-8
    means = np.where(same, after, (after - before) / np.where(same, 1.0, ratio))
    mean = (means * scores).sum(-1, keepdims=True) / means.sum(-1, keepdims=True)
    parts: Floats = means * (scores - mean)
    return parts
