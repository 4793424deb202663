"""Every method on the Flax backend against the same on PyTorch's, of one trajectory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from wordlight.attribution import registry
from wordlight.backends.flax.backend import FlaxBackend
from wordlight.backends.torch.backend import TorchBackend
from wordlight.backends.trajectory import Trajectory

#: Few samples: what they are is decided by a seed, and how many is nothing to compare.
SMALL: dict[str, dict[str, Any]] = {
    "gradient-shap": {"n_samples": 2},
    "integrated-gradients": {"n_steps": 2},
    "kernel-shap": {"n_samples": 16},
    "saliency": {"probes": 4},
    "shapley": {"n_samples": 2},
}


#: It takes another method's maps: there is nothing to run.
METHODS = [name for name in registry.available() if name != "shuffled-word"]


@pytest.mark.parametrize("name", METHODS)
def test_the_same_maps(
    name: str, ours: FlaxBackend, theirs: TorchBackend, trajectory: Trajectory
) -> None:
    method = registry.get(name)
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
    elif method.family == "attention" and name != "attention-x-gradient":
        assert difference <= 1e-6
        assert difference <= 1e-4 * np.abs(values[1]).max()
    else:
        # Rounding, through derivatives and differences of predictions.
        assert np.linalg.norm(values[0] - values[1]) <= 1e-4 * np.linalg.norm(values[1])
