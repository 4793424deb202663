"""Information decomposition: answers on paper, and an integral by another rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import logistic

from wordlight.attribution import InformationDecomposition
from wordlight.attribution.methods.information_decomposition import logistic_samples, timestep_of
from wordlight.attribution.testing.model import ToyModel
from wordlight.backends.backend import Conditioning


class Rated(ToyModel):
    """A prediction that doesn't look at the latents: in every channel the sum of the embeddings
    times the root of the logistic density at the noise level."""

    def _denoise(self, latents: Any, timestep: float, conditioning: Conditioning) -> Any:
        alpha, sigma = self.noise_level(timestep)
        root = np.sqrt(logistic.pdf(2 * np.log(alpha / sigma), loc=1, scale=2))
        told = conditioning.embeddings.sum(axis=(1, 2))
        return np.ones_like(latents) * (told * root)[:, None, None, None]


@pytest.mark.parametrize("n_samples", [1, 5])
def test_an_integral_that_is_known(n_samples: int) -> None:
    """Whatever levels are drawn: each change is the density, whose integral is the share of the
    distribution that isn't cut off, times the word's constant."""
    model = Rated()
    trajectory = model.sample("red circle", seed=0)
    maps = InformationDecomposition(model, n_samples=n_samples).attribute(trajectory)
    whole, red, circle = (
        model.encode([text]).embeddings.sum() for text in ("red circle", "circle", "red")
    )
    share = logistic.cdf(7, 1, 2) - logistic.cdf(-5, 1, 2)
    channels = trajectory.latents.shape[1]
    for word, rest in (("red", red), ("circle", circle)):
        # The bisection for the timestep ends within 1e-15 of the range.
        wanted = 0.5 * channels * (whole - rest) ** 2 * share
        assert np.allclose(np.asarray(maps[word]), wanted, rtol=1e-6)
    assert not np.asarray(maps["<end>"]).any()
    assert maps.provenance.forward == n_samples * 3


def test_the_integral_by_another_rule() -> None:
    """Simpson's rule over noise levels, with the mean over many draws of noise."""
    model = ToyModel()
    trajectory = model.sample("red circle", seed=0)
    maps = InformationDecomposition(model, n_samples=150).attribute(trajectory)
    clean = model.encode_image(trajectory.image)[0]
    ends = model.encode(["red circle", "circle"]).embeddings
    rng = np.random.default_rng(5)
    levels, total = np.linspace(-5, 7, 25), np.zeros(trajectory.grid)
    rule = np.array([1, *[4, 2] * 11, 4, 1]) * 0.5 / 3
    for level, weight in zip(levels, rule, strict=True):
        snr = np.exp(level)
        alpha, sigma = np.sqrt(snr / (1 + snr)), np.sqrt(1 / (1 + snr))
        timestep = 1000 * np.arctan2(sigma, alpha) * 2 / np.pi
        for _ in range(12):
            x = alpha * clean + sigma * rng.standard_normal(clean.shape)
            both = model.denoise(np.stack([x, x]), timestep, Conditioning(ends))
            total += 0.5 * weight / 12 * ((both[0] - both[1]) ** 2).sum(0)
    red = np.asarray(maps["red"])
    # Two random estimates, of 150 and 300 draws, of the whole image.
    assert red.mean() == pytest.approx(total.mean(), rel=0.1)
    assert np.corrcoef(red.ravel(), total.ravel())[0, 1] > 0.9


def test_the_weights_make_integrals() -> None:
    points, weights = logistic_samples(4000, 1.0, 2.0, 3.0, np.random.default_rng(0))
    assert points.min() > -5
    assert points.max() < 7
    # A draw in each of 4000 parts: the error falls faster than that of independent draws.
    assert np.mean(weights) == pytest.approx(12, rel=1e-3)
    wanted, _ = quad(np.cos, -5, 7)
    assert np.mean(weights * np.cos(points)) == pytest.approx(wanted, abs=0.02)


def test_noise_levels_and_timesteps() -> None:
    model = ToyModel()
    for ratio in (-5.0, 0.0, 6.5):
        alpha, sigma = model.noise_level(timestep_of(model, ratio))
        assert 2 * np.log(alpha / sigma) == pytest.approx(ratio, abs=1e-9)
    # Beyond the schedule, its end.
    assert timestep_of(model, -50.0) == pytest.approx(999)


def test_what_it_refuses() -> None:
    model = ToyModel()
    with pytest.raises(ValueError, match="scale and clip must be above 0"):
        InformationDecomposition(model, scale=0)
    with pytest.raises(ValueError, match="n_samples must be 1 or more, not 0"):
        InformationDecomposition(model, n_samples=0)
    with pytest.raises(ValueError, match=r"an image must be \(height, width, 3\) uint8"):
        model.encode_image(np.zeros((16, 24), np.uint8))
