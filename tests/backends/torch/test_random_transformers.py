"""Random weights of transformers, from the output down, and the trained ones back."""

import numpy as np
import pytest
import torch

from tests.backends.torch.test_concepts import KNOWN, drawn, some
from tests.backends.torch.test_families_tiny import pipe_of
from wordlight.attribution import DAAM
from wordlight.backends.torch.backend import TorchBackend

TRANSFORMERS = [n for n in KNOWN if TorchBackend(pipe_of(n)).carries_words]


def weights_of(backend):
    modules = [backend.model.module, *backend._text_encoders]
    return [weight for module in modules for weight in module.parameters()]


@pytest.mark.parametrize("family", some(TRANSFORMERS, ("sd3", "flux-dev", "pixart-sigma")))
def test_every_weight_is_drawn_anew_and_comes_back(family):
    backend, trajectory = drawn(family)
    before = [weight.clone() for weight in weights_of(backend)]
    plain = DAAM(backend).attribute(trajectory)
    stages = backend.stages
    assert stages[0] == "output"
    assert stages[-2:] == ("input", "text_encoder")
    assert len(stages) >= 4
    with backend.randomized(stages[-1], seed=1):
        now = [weight.clone() for weight in weights_of(backend)]
        assert all(bool(weight.isfinite().all()) for weight in now)
        # Norms start at one and biases at zero, where they may have been before.
        same = [old for old, new in zip(before, now, strict=True) if torch.equal(old, new)]
        assert all(old.ndim == 1 and len(old.unique()) == 1 for old in same)
    with backend.randomized("output", seed=1):
        # Attention lies below: the maps are those of the trained model.
        above = DAAM(backend).attribute(trajectory)
        assert np.allclose(above["circle"], plain["circle"], atol=1e-6)
    with backend.randomized("input", seed=1):
        assert backend.revision == "random down to input, seed 1"
        random = DAAM(backend).attribute(trajectory)
    assert np.abs(np.asarray(random["circle"]) - np.asarray(plain["circle"])).max() > 1e-5
    after = weights_of(backend)
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
