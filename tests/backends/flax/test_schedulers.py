"""Steps by table against the steps that diffusers' schedulers take."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, PNDMScheduler

from wordlight.backends.flax.errors import UnsupportedConfigError
from wordlight.backends.flax.schedulers import Schedule

NOISE: dict[str, Any] = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "steps_offset": 1,
}
DDIM = {**NOISE, "clip_sample": False, "set_alpha_to_one": False}
CASES = [
    pytest.param(kind, {**settings, "prediction_type": prediction}, id=f"{name}-{prediction}")
    for prediction in ("epsilon", "v_prediction", "sample")
    for name, kind, settings in [
        ("ddim", DDIMScheduler, DDIM),
        ("ddim-trailing", DDIMScheduler, {**DDIM, "timestep_spacing": "trailing"}),
        (
            "ddim-trailing-noisier",
            DDIMScheduler,
            {**DDIM, "beta_end": 0.02, "timestep_spacing": "trailing"},
        ),
        ("ddim-linspace", DDIMScheduler, {**DDIM, "timestep_spacing": "linspace"}),
        (
            "ddim-cosine-to-one",
            DDIMScheduler,
            {"clip_sample": False, "beta_schedule": "squaredcos_cap_v2"},
        ),
        ("euler", EulerDiscreteScheduler, NOISE),
        ("euler-leading", EulerDiscreteScheduler, {**NOISE, "timestep_spacing": "leading"}),
        ("euler-trailing", EulerDiscreteScheduler, {**NOISE, "timestep_spacing": "trailing"}),
    ]
]


# diffusers' Euler scheduler makes numpy arrays of tensors in the way that numpy 2 warns about.
@pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)
@pytest.mark.parametrize("steps", [1, 7, 50])
@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_a_run(kind: Any, settings: dict[str, Any], steps: int) -> None:
    theirs = kind(**settings)
    table = Schedule(json.loads(theirs.to_json_string())).table(steps)
    theirs.set_timesteps(steps)
    # Schedulers keep some timesteps in float32.
    assert np.allclose(table.timesteps, theirs.timesteps.numpy(), rtol=1e-6)
    # They keep the noise's table in float32, too; where it is nearly 0 or 1, a difference of two
    # such numbers has four digits left.
    assert table.start == pytest.approx(float(theirs.init_noise_sigma), rel=1e-4)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 5, 6)) * table.start
    latents = torch.tensor(x)
    for i, time in enumerate(theirs.timesteps):
        seen = theirs.scale_model_input(latents, time)
        assert np.abs(table.scale[i] * x - seen.numpy()).max() < 1e-4 * np.abs(x).max()
        out = torch.tanh(seen) + 0.1 * torch.tensor(rng.standard_normal(x.shape))
        latents = theirs.step(out, time, latents, return_dict=False)[0]
        x = table.keep[i] * x + table.add[i] * out.numpy()
        assert np.abs(x - latents.numpy()).max() < 1e-4 * np.abs(x).max()


def test_noise_levels_and_what_a_prediction_means() -> None:
    schedule = Schedule({"_class_name": "DDIMScheduler", **DDIM})
    products = DDIMScheduler(**DDIM).alphas_cumprod.numpy()
    for time in (0, 400, 999):
        alpha, sigma = schedule.level(time)
        assert alpha**2 == pytest.approx(products[time], rel=1e-5)
        assert alpha**2 + sigma**2 == pytest.approx(1.0)
    between = (schedule.level(3)[0] ** 2 + schedule.level(4)[0] ** 2) / 2
    assert schedule.level(3.5)[0] ** 2 == pytest.approx(between)
    assert schedule.train_steps == 1000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({**DDIM, "clip_sample": True}, "clip_sample=True"),
        ({**NOISE, "set_alpha_to_one": False}, "clip_sample=True"),
        ({**DDIM, "thresholding": True}, "thresholding=True"),
        ({**DDIM, "rescale_betas_zero_snr": True}, "rescale_betas_zero_snr=True"),
        ({**DDIM, "timestep_spacing": "random"}, "timestep_spacing='random'"),
        ({**DDIM, "prediction_type": "flow"}, "prediction_type='flow'"),
        ({**DDIM, "beta_schedule": "quadratic"}, "beta_schedule='quadratic'"),
        ({**DDIM, "beta_end": 1.5}, r"its betas reach 1\.5, and must stay below 1"),
        ({**DDIM, "beta_start": "small"}, "beta_start must be a number, not 'small'"),
        ({**DDIM, "steps_offset": -1}, "steps_offset must be 0 or more, not -1"),
        ({**DDIM, "shift": 3.0}, r"doesn't know shift=3\.0"),
    ],
)
def test_what_no_table_expresses(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedConfigError, match=message):
        Schedule({"_class_name": "DDIMScheduler", **settings})


def test_karras_and_the_way_out() -> None:
    given = {"_class_name": "EulerDiscreteScheduler", **NOISE, "use_karras_sigmas": True}
    with pytest.raises(UnsupportedConfigError, match=r"use_karras_sigmas=True.*scheduler='ddim'"):
        Schedule(given)
    assert Schedule(given, "ddim").name == "ddim"


def test_another_scheduler_with_the_same_noise() -> None:
    """Stable Diffusion 1.x ships PNDM, which looks back over several predictions."""
    theirs = PNDMScheduler(**NOISE, skip_prk_steps=True, set_alpha_to_one=False)
    given = json.loads(theirs.to_json_string())
    with pytest.raises(UnsupportedConfigError, match=r"PNDMScheduler.*scheduler='ddim'"):
        Schedule(given)
    ours, plain = (
        Schedule(given, "ddim").table(20),
        Schedule({"_class_name": "DDIMScheduler", **DDIM}),
    )
    wanted = plain.table(20)
    for name in ("timesteps", "keep", "add"):
        assert (getattr(ours, name) == getattr(wanted, name)).all()
    with pytest.raises(UnsupportedConfigError, match="'ddim' or 'euler', not 'heun'"):
        Schedule(given, "heun")


def test_left_over_settings_mean_nothing() -> None:
    """As the files of Stable Diffusion XL have them; and DDIM's as Euler."""
    given = {
        **NOISE,
        "_class_name": "EulerDiscreteScheduler",
        "clip_sample": False,
        "interpolation_type": "linear",
        "sample_max_value": 1.0,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "timestep_spacing": "leading",
        "trained_betas": None,
        "use_karras_sigmas": False,
    }
    theirs = EulerDiscreteScheduler(**NOISE, timestep_spacing="leading")
    ours = Schedule(given).table(10)
    wanted = Schedule(json.loads(theirs.to_json_string())).table(10)
    assert (ours.add == wanted.add).all()
    ddim = DDIMScheduler(**DDIM, timestep_spacing="leading")
    changed = EulerDiscreteScheduler.from_config(ddim.config)
    from_ddim = Schedule(json.loads(ddim.to_json_string()), "euler").table(10)
    assert (from_ddim.add == Schedule(json.loads(changed.to_json_string())).table(10).add).all()


@pytest.mark.parametrize("kind", ["DDIMScheduler", "EulerDiscreteScheduler"])
def test_trailing_steps_are_as_many_as_were_asked_for(kind: str) -> None:
    """At 61, 103 and others diffusers takes one more, at timestep -1, with the noisiest level."""
    schedule = Schedule({"_class_name": kind, **DDIM, "timestep_spacing": "trailing"})
    for steps in range(1, 1001):
        times = schedule.table(steps).timesteps
        assert (len(times), times[0], times.min() >= 0) == (steps, 999, True)


def test_too_many_steps() -> None:
    """With an offset, a thousand steps begin beyond the training's range."""
    with pytest.raises(ValueError, match="begin at timestep 1000"):
        Schedule({"_class_name": "DDIMScheduler", **DDIM}).table(1000)
