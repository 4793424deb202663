"""Backends that break one rule each: what ``check_backend`` is there to find."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from wordlight.attribution.testing.model import ToyModel
from wordlight.backends.attention import AttentionMeans, AttentionQuery
from wordlight.backends.backend import Conditioning
from wordlight.backends.sampling import DrawRequest
from wordlight.backends.tokens import Tokens
from wordlight.backends.trajectory import Trajectory


class OffsetsOfWhatIsCleaned(ToyModel):
    """Tells where tokens are in the prompt without the spaces at its beginning."""

    def tokenize(self, prompt: str) -> Tokens:
        return replace(super().tokenize(prompt.strip()), prompt=prompt)


class CutsLongPrompts(ToyModel):
    """Drops what the context can't hold, and says nothing."""

    def tokenize(self, prompt: str) -> Tokens:
        return super().tokenize(" ".join(prompt.split()[:10]) if len(prompt) > 60 else prompt)


class ClaimsTooMuch(ToyModel):
    """Has no forward mode through its decoder."""

    def _decode_jvp(self, latents: Any, tangents: Any) -> Any:
        raise NotImplementedError("later")


class ClaimsTooLittle(ToyModel):
    """Answers what it says it can't."""

    @property
    def capabilities(self) -> frozenset[str]:
        return super().capabilities - {"attention_vjp"}

    def attention_vjp(self, *args: Any) -> Any:
        return self._attention_vjp(*args)


class NamesNoPrimitive(ToyModel):
    """Fails at what it doesn't claim, but doesn't say why."""

    @property
    def capabilities(self) -> frozenset[str]:
        return super().capabilities - {"denoise_vjp"}

    def denoise_vjp(self, *args: Any) -> Any:
        raise NotImplementedError


class CountsCalls(ToyModel):
    """Not rows."""

    def denoise_jvp(self, *args: Any) -> Any:
        self.evaluations.jvp += 1
        return self._denoise_jvp(*args)


class EncodesWithoutPositions(ToyModel):
    """Forgets them where it starts from token embeddings."""

    def _encode_from(self, token_embeddings: Any) -> Conditioning:
        return Conditioning(np.tanh(np.stack([self._mixed(row) for row in token_embeddings])))

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        return ToyModel._encode_from(self, np.stack([self._token_embeddings(p) for p in prompts]))


class WidthFirst(ToyModel):
    """Draws images on their side."""

    def _sample(self, request: DrawRequest) -> Any:
        return super()._sample(replace(request, size=request.size[::-1]))


class NoSeed(ToyModel):
    """Draws its noise as it comes."""

    def _sample(self, request: DrawRequest) -> Any:
        seeds = request.seeds
        drawn = np.random.default_rng().integers(0, 10**6, len(seeds))
        made = super()._sample(replace(request, seeds=tuple(drawn)))
        return [replace(run, seed=seed) for run, seed in zip(made, seeds, strict=True)]


class SeedOfTheBatch(ToyModel):
    """Draws all noise of a call from one seed."""

    def _sample(self, request: DrawRequest) -> Any:
        seeds = request.seeds
        drawn = tuple(seeds[0] + 100 * len(seeds) + k for k in range(len(seeds)))
        made = super()._sample(replace(request, seeds=drawn))
        return [replace(run, seed=seed) for run, seed in zip(made, seeds, strict=True)]


class FreshNoiseEachStep(ToyModel):
    """Noises an image anew at each timestep."""

    def _invert(self, image: Any, prompt: str, *, seed: int, steps: int) -> Trajectory:
        runs = [
            super(FreshNoiseEachStep, self)._invert(image, prompt, seed=seed + k, steps=steps)
            for k in range(steps)
        ]
        return replace(runs[0], latents=np.stack([run.latents[k] for k, run in enumerate(runs)]))


class MixesRows(ToyModel):
    """Centres over the batch."""

    def _denoise(self, latents: Any, timestep: float, conditioning: Conditioning) -> Any:
        made = super()._denoise(latents, timestep, conditioning)
        return made if len(made) == 1 else made - 0.1 * made.mean(axis=0)


class PredictsVelocity(ToyModel):
    """Gives what the model gives, not in epsilon units."""

    def _denoise(self, latents: Any, timestep: float, conditioning: Conditioning) -> Any:
        noise = super()._denoise(latents, timestep, conditioning)
        alpha, sigma = self.noise_level(timestep)
        return alpha * noise - sigma * (latents - sigma * noise) / alpha

    def _denoise_jvp(self, *args: Any) -> Any:
        _, changes = super()._denoise_jvp(*args)
        return self._denoise(*args[:3]), changes


class DrawsNoise(ToyModel):
    """Draws noise anew in place of a part of what was predicted, which isn't wrong."""

    kept, drawn, factor = 0.8, 0.6, 1.0

    def _sample(self, request: DrawRequest) -> Any:
        made = super()._sample(request)
        return [self._noised(run, s) for run, s in zip(made, request.seeds, strict=True)]

    def _noised(self, run: Trajectory, seed: int) -> Trajectory:
        """The run with noise in the latents before its second step."""
        if run.steps < 2:
            return run
        levels = np.array([self.noise_level(float(time)) for time in run.timesteps[:2]])
        clean, noise = np.linalg.solve(levels, run.latents[:2].reshape(2, -1))
        fresh = np.random.default_rng(1000 + seed).standard_normal(noise.shape)
        later = levels[1] @ np.stack([self.factor * clean, self.kept * noise + self.drawn * fresh])
        latents = run.latents.copy()
        latents[1] = later.reshape(latents.shape[1:])
        return replace(run, latents=latents)


class KeepsTooMuch(DrawsNoise):
    """Draws little noise, and takes the clean latents for larger than they are."""

    kept, drawn, factor = 0.995, 0.1, 1.3


class ForgetsAFactor(ToyModel):
    """In its forward-mode products."""

    def _denoise_jvp(self, *args: Any) -> Any:
        value, changes = super()._denoise_jvp(*args)
        return value, 1.05 * changes


class AddsDirections(ToyModel):
    """Mixes the products of directions that are asked for together."""

    def _denoise_jvp(self, *args: Any) -> Any:
        value, changes = super()._denoise_jvp(*args)
        return value, changes.cumsum(axis=0)


class ScalesByTheEnd(ToyModel):
    """Its parts are slopes at the prompt's end of the way."""

    def _denoise_parts(
        self, latents: Any, timestep: float, conditioning: Any, baseline: Any, parts: Any
    ) -> Any:
        return self._denoise_jvp(latents, timestep, conditioning, parts)[1]


class ScalesByTheEncodersEnd(ToyModel):
    """Its encoder's parts are slopes at the prompt's end of the way."""

    def _encode_from_parts(self, token_embeddings: Any, baseline: Any, parts: Any) -> Any:
        return self._encode_from_jvp(token_embeddings, parts)[1]


class SkipsTheKeys(ToyModel):
    """Its gradient leaves out how attention itself changes: that of the values alone."""

    def _denoise_vjp(self, latents: Any, timestep: float, conditioning: Any, cotangent: Any) -> Any:
        gradients = []
        for x, e, back in zip(latents, conditioning.embeddings, cotangent, strict=True):
            passes = self._passes(self._looks(x, timestep), e)
            parts = [
                (one.probabilities.swapaxes(1, 2) @ pulled) @ one.look.layer.value.swapaxes(1, 2)
                for one, pulled in zip(passes, self._pulled_back(passes, back), strict=True)
            ]
            gradients.append(sum(part.sum(0) for part in parts))
        return np.stack(gradients)


class ScoresForProbabilities(ToyModel):
    """Averages what goes into the softmax."""

    def _attention(
        self, trajectory: Trajectory, query: AttentionQuery, steps: Any, keys: Any
    ) -> AttentionMeans:
        means = super()._attention(trajectory, query, steps, keys).means
        if query.kind == "self":
            return AttentionMeans(means)
        return AttentionMeans(tuple(replace(m, values=np.sqrt(m.values)) for m in means))


class KeysAmongThemselves(ToyModel):
    """Gives other words shares of what they get together."""

    def _attention(
        self, trajectory: Trajectory, query: AttentionQuery, steps: Any, keys: Any
    ) -> AttentionMeans:
        means = super()._attention(trajectory, query, steps, keys).means
        if keys is None:
            return AttentionMeans(means)
        return AttentionMeans(
            tuple(replace(m, values=m.values**2 / (m.values**2).sum(axis=0)) for m in means)
        )


class KeysOverThePromptsSum(ToyModel):
    """Divides other words' scores by the prompt's sum alone, which they may exceed."""

    def _attention(
        self, trajectory: Trajectory, query: AttentionQuery, steps: Any, keys: Any
    ) -> AttentionMeans:
        if keys is not None:
            # As if each stood in the place of what it equals.
            own = np.eye(len(trajectory.tokens), dtype=np.float32)
            keys = keys._replace(displaced=own, together=own)
        return super()._attention(trajectory, query, steps, keys)


class DecodesOnItsSide(ToyModel):
    """Width before height."""

    def decode(self, latents: Any) -> Any:
        return super().decode(latents).swapaxes(2, 3)


class StaysRandom(ToyModel):
    """Keeps random weights when something goes wrong."""

    def _randomized(self, stages: tuple[str, ...], seed: int) -> Any:
        @contextmanager
        def random_weights() -> Iterator[None]:
            before = self._output
            self._output = np.random.default_rng(seed).standard_normal(before.shape)
            yield
            self._output = before

        return random_weights()


class RemembersItsRuns(ToyModel):
    """Replays what it kept of its own runs, not what it is given."""

    def _sample(self, request: DrawRequest) -> Any:
        made = super()._sample(request)
        self.kept = [*getattr(self, "kept", []), *made]
        return made

    def _attention(
        self, trajectory: Trajectory, query: AttentionQuery, steps: Any, keys: Any
    ) -> AttentionMeans:
        if not any(trajectory is run for run in self.kept):
            trajectory = replace(trajectory, latents=trajectory.latents.round(1))
        return super()._attention(trajectory, query, steps, keys)
