"""Every method on the Flax backend against the same on PyTorch's, of one trajectory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wordlight.attribution import (
    DecodedChannel,
    DeepLift,
    InputXGradient,
    NoiseTunnel,
    Occlusion,
    PredictionNorm,
    Region,
    TextImageAttributor,
    registry,
)
from wordlight.backends.backend import Backend, MissingCapabilityError
from wordlight.backends.flax.backend import FlaxBackend
from wordlight.backends.torch.backend import TorchBackend
from wordlight.backends.trajectory import Trajectory

#: Few samples: what they are is decided by a seed, and how many is nothing to compare.
SMALL: dict[str, dict[str, Any]] = {
    "gradient-shap": {"n_samples": 2},
    "information-decomposition": {"n_samples": 2},
    "integrated-gradients": {"n_steps": 2},
    "kernel-shap": {"n_samples": 16},
    "saliency": {"probes": 4},
    "shapley": {"n_samples": 2},
}


#: It takes another method's maps: there is nothing to run.
METHODS = [name for name in registry.available() if name != "shuffled-word"]
#: One of each set of primitives; the others ask the same of the backend, in the whole suite.
QUICK = {
    "daam",
    "self-attention-refined",
    "gramcol",
    "open-vocabulary",
    "concept-attention",
    "occlusion",
    "regeneration",
}


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in METHODS]
)
def test_the_same_maps(
    name: str, ours: FlaxBackend, theirs: TorchBackend, trajectory: Trajectory
) -> None:
    method = registry.get(name)
    if name == "concept-attention":
        # Of joint attention, which the models that Flax runs haven't.
        with pytest.raises(MissingCapabilityError, match="which the flax backend of"):
            method(ours)
        return
    options = dict(SMALL.get(name, {}))
    if "steps" in method(ours).settings() and name != "regeneration":
        options["steps"] = 2
    made = [method(backend).attribute(trajectory, **options) for backend in (ours, theirs)]
    values = [maps.data.values for maps in made]
    assert [maps.provenance.framework for maps in made] == ["flax", "torch"]
    assert made[0].provenance.forward_equivalents == made[1].provenance.forward_equivalents
    assert values[0].shape == values[1].shape
    difference = np.abs(values[0] - values[1]).max()
    if name == "regeneration":
        # Of whole grey levels: a value between two of them may be rounded either way.
        assert difference <= 2 / 255
    elif name == "gramcol":
        # Cosines that differ by 1e-4 from token to token, and by 3e-7 for rounding.
        assert np.linalg.norm(values[0] - values[1]) <= 1e-2 * np.linalg.norm(values[1])
    elif method.family == "attention" and name != "attention-x-gradient":
        assert difference <= 1e-6
        assert difference <= 1e-4 * np.abs(values[1]).max()
    else:
        # Rounding, through derivatives and differences of predictions.
        assert np.linalg.norm(values[0] - values[1]) <= 1e-4 * np.linalg.norm(values[1])


def occlusion(backend: Backend) -> TextImageAttributor:
    return Occlusion(backend, steps=1)


def slopes_of_tokens(backend: Backend) -> TextImageAttributor:
    return InputXGradient(backend, steps=1, wrt="tokens")


def parts_of_tokens(backend: Backend) -> TextImageAttributor:
    return DeepLift(backend, steps=1, wrt="tokens")


def noisy(backend: Backend) -> TextImageAttributor:
    return NoiseTunnel(Occlusion(backend, steps=1), nt_samples=2, stdevs=0.3)


@pytest.mark.parametrize(
    ("method", "asked"),
    [
        pytest.param(noisy, {}, id="noise"),
        pytest.param(occlusion, {"baselines": "negative"}, id="negative"),
        pytest.param(occlusion, {"target": Region(np.eye(16))}, id="region"),
        pytest.param(occlusion, {"target": PredictionNorm()}, id="norm"),
        pytest.param(occlusion, {"target": DecodedChannel("green")}, id="colour"),
        pytest.param(slopes_of_tokens, {}, id="tokens"),
        pytest.param(parts_of_tokens, {}, id="parts-of-tokens", marks=pytest.mark.slow),
        pytest.param(slopes_of_tokens, {"target": DecodedChannel("red")}, id="tokens-to-colour"),
    ],
)
def test_the_same_maps_of_other_questions(
    method: Callable[[Backend], TextImageAttributor],
    asked: dict[str, Any],
    ours: FlaxBackend,
    theirs: TorchBackend,
    trajectory: Trajectory,
) -> None:
    """Other targets, another baseline, other inputs."""
    found, expected = (method(b).attribute(trajectory, **asked) for b in (ours, theirs))
    assert found.provenance.forward_equivalents == expected.provenance.forward_equivalents
    values, wanted = found.data.values, expected.data.values
    assert np.abs(wanted).max() > 0
    # Rounding, as above; a word changes a colour by 1e-3 of the pixels that are subtracted.
    share = 1e-3 if isinstance(asked.get("target"), DecodedChannel) else 1e-4
    assert np.linalg.norm(values - wanted) <= share * np.linalg.norm(wanted)


@pytest.mark.slow
def test_in_bfloat16(folder: Path, ours: FlaxBackend, trajectory: Trajectory) -> None:
    """A run of float32, through the encoder too: it is no other prompt's for its rounding."""
    half = FlaxBackend.load(folder, dtype="bfloat16")
    values, wanted = (
        Occlusion(b, steps=1, wrt="tokens").attribute(trajectory).data.values for b in (half, ours)
    )
    assert np.isfinite(values).all()
    # Of eight bits of a prediction, of which a word changes some per cent, a quarter is rounding
    # here; maps of other words, or of nothing, would be off by as much as they are large.
    assert np.linalg.norm(values - wanted) <= 0.5 * np.linalg.norm(wanted)
