"""Information decomposition: how much a word tells about each pixel of the final image."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from wordlight.attribution.attributor import Steps, TextImageAttributor
from wordlight.attribution.methods.noise_difference import distances, encode_without_words
from wordlight.attribution.options import number, whole
from wordlight.attribution.question import Answer, Question, Size
from wordlight.backends.backend import Backend, Evaluations


class InformationDecomposition(TextImageAttributor):
    """½ ∫ ‖ε(x_λ, prompt) - ε(x_λ, prompt without w)‖² dλ at each pixel, in nats: an estimate of
    the information that word w adds about the pixel (Kong et al. 2024, arXiv 2310.07972).

    λ = ln(α²/σ²) is the log signal-to-noise ratio, and x_λ = α x + σ ε the *final image's* latents
    with fresh noise: the run's own latents aren't looked at, so any image with a prompt will do.
    Importance sampling takes λ from a logistic distribution cut off at ``location`` ± ``clip`` ·
    ``scale``. From the paper's code (kxh001/Info-Decomp) come this estimator, the distribution and
    its parameters (1, 2, 3; -5 to 7 in λ); ours are one draw from each of ``n_samples`` equally
    likely parts of the distribution, where the code draws them all independently, and the word
    taken out of the text as ``NoiseDifference`` does it. λ that the model's schedule doesn't reach
    is taken at the schedule's end.

    Special positions can't be taken out of a text: their maps are zero. Cost: a forward pass for
    the prompt and one a word, for each sample.

    Args:
        backend: the model.
        n_samples: the number of noise levels, each with noise of its own.
        location, scale, clip: of the logistic distribution of λ.
        seed: of the noise levels and the noise.

    Raises:
        ValueError: a scale or a clip of 0; embeddings that the encoder doesn't make of the prompt
            alone, or a prompt that the context cut inside a word (when asked).
    """

    name: ClassVar[str] = "information-decomposition"
    question: ClassVar[str] = (
        "How many nats does the word tell about this pixel of the final image?"
    )
    family: ClassVar[Literal["perturbation"]] = "perturbation"
    needs: ClassVar[frozenset[str]] = frozenset({"denoise", "encode", "invert"})
    paper: ClassVar[str] = "Kong et al. 2024, arXiv 2310.07972"
    effort: ClassVar[str | None] = "n_samples"

    #: It looks at no step of the run.
    steps: Steps = field(default=1, init=False)
    n_samples: int = 8
    location: float = 1.0
    scale: float = 2.0
    clip: float = 3.0
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.n_samples = whole("n_samples", self.n_samples)
        self.location = number("location", self.location, -100.0)
        self.scale, self.clip = number("scale", self.scale), number("clip", self.clip)
        if not self.scale or not self.clip:
            raise ValueError("scale and clip must be above 0")
        self.seed = whole("seed", self.seed, 0)

    def cost(self, size: Size) -> Evaluations:
        return Evaluations(forward=self.n_samples * (1 + size.words))

    def _attribute(self, question: Question) -> Answer:
        backend, players = self.backend, question.players
        rng = np.random.default_rng(self.seed)
        ratios, weights = logistic_samples(
            self.n_samples, self.location, self.scale, self.clip, rng
        )
        maps = np.zeros((len(players), *question.trajectory.grid))
        words = [index for index, player in enumerate(players) if player.is_text]
        with backend.no_gradients():
            texts = encode_without_words(backend, question, self.name)
            clean = backend.encode_image(question.trajectory.image)
            for sample in question.progress(range(self.n_samples), "samples"):
                timestep = timestep_of(backend, float(ratios[sample]))
                alpha, sigma = backend.noise_level(timestep)
                noise = rng.standard_normal(tuple(clean.shape), np.float32)
                latents = alpha * clean + sigma * backend.asarray(noise)
                moved = distances(backend, latents, timestep, texts)
                maps[words] += 0.5 * weights[sample] * moved.astype(np.float64) ** 2
        return Answer(xr.DataArray(maps / self.n_samples, dims=("word", "y", "x")))


def logistic_samples(
    n_samples: int, location: float, scale: float, clip: float, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Draw points of a logistic distribution, cut off at ``location`` ± ``clip`` · ``scale``: one
    in each of ``n_samples`` equally likely parts, with their weights.

    The mean of weight times f(point) estimates the integral of f over the range.
    """
    least, most = (1 / (1 + np.exp(side * clip)) for side in (1, -1))
    shares = (np.arange(n_samples) + rng.random(n_samples)) / n_samples
    levels = least + (most - least) * shares
    density = levels * (1 - levels) / (scale * (most - least))
    return location + scale * np.log(levels / (1 - levels)), 1 / density


def timestep_of(backend: Backend, ratio: float) -> float:
    """The timestep at which ln(α²/σ²) is ``ratio``, or the schedule's end that is nearest to it."""
    low, high = 0.0, float(backend.sampling.train_steps - 1)
    for _ in range(60):
        middle = (low + high) / 2
        alpha, sigma = backend.noise_level(middle)
        # Signal falls with the timestep.
        if alpha**2 > sigma**2 * np.exp(ratio):
            low = middle
        else:
            high = middle
    return (low + high) / 2
