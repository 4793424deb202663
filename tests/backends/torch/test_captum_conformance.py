"""Captum's methods as attributors keep to the rules that all methods keep to."""

from __future__ import annotations

from typing import Any

import pytest

from wordlight.attribution.captum.from_captum import CaptumAttributor
from wordlight.attribution.testing import attributor_checks
from wordlight.attribution.testing.model import ToyModel

#: What Captum will ask for is known when it is done.
UNKNOWN = "foresees-its-cost"


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("FeatureAblation", {}),
        ("ShapleyValueSampling", {"arguments": {"n_samples": 2}}),
        ("InputXGradient", {}),
        ("IntegratedGradients", {"arguments": {"n_steps": 2}}),
        ("Saliency", {}),
        pytest.param(
            "NoiseTunnel",
            {"of": "InputXGradient", "arguments": {"nt_samples": 2, "stdevs": 0.1}},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_captums_methods_keep_to_the_rules(method: str, options: dict[str, Any]) -> None:
    for check in attributor_checks():
        if check.name != UNKNOWN:
            check(lambda backend: CaptumAttributor(backend, method, **options))


def test_there_is_no_budget_for_them() -> None:
    model = ToyModel()
    trajectory = model.sample("circle", steps=1)
    method = CaptumAttributor(model, "FeatureAblation")
    with pytest.raises(NotImplementedError, match="what Captum's FeatureAblation costs is known"):
        method.attribute(trajectory, budget=100)
    assert model.evaluations.forward_equivalents == model.evaluations.forward
    # It is counted all the same: two for the step, one with all words, one without each of four.
    spent = method.attribute(trajectory).provenance
    assert spent.forward == 2 + 1 + 4
