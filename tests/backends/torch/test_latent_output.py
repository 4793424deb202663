"""Runs whose pipeline gave latents: nothing is decoded until an image is read."""

import numpy as np
import pytest

from wordlight import trace
from wordlight.attribution import DAAM
from wordlight.backends.torch.backend import TorchBackend
from wordlight.backends.torch.tiny import build_tiny, draw_tiny


def traced(family, **asked):
    pipe = build_tiny(family)
    decoded = []
    own = pipe.vae.decode

    def decode(*args, **kwargs):
        decoded.append(len(args[0]))
        return own(*args, **kwargs)

    pipe.vae.decode = decode
    with trace(pipe) as run:
        drawn = draw_tiny(family, pipe, ["a red circle", "a cat"], output_type="latent", **asked)
    assert not decoded
    return pipe, run, drawn, decoded


def test_nothing_is_decoded_until_an_image_is_read():
    pipe, run, _, decoded = traced("sd")
    first, second = run.trajectories
    backend = TorchBackend(pipe)
    backend.attention(first, run.query, (0,))
    assert first.grid == second.grid
    assert not decoded
    image = second.image
    assert decoded == [1]
    assert second.image is image
    assert DAAM.from_trace(run, image=1).image is image
    assert decoded == [1]
    drawn = draw_tiny("sd", build_tiny("sd"), ["a red circle", "a cat"])
    # One image is decoded in another order of additions than two, before it is rounded.
    assert np.abs(image.astype(int) - np.rint(drawn[1] * 255).astype(int)).max() <= 1


@pytest.mark.parametrize(
    "family",
    [
        "flux-dev",
        "flux.2-klein",
        "kandinsky-5",
        *(
            pytest.param(n, marks=pytest.mark.slow)
            for n in ("qwen-image", "longcat-image", "krea-2")
        ),
    ],
)
def test_latents_of_a_pipelines_own_shape_are_decoded_as_the_pipeline_does(family):
    pipe = build_tiny(family)
    (wanted,) = draw_tiny(family, pipe, "a red circle")
    with trace(pipe) as run:
        draw_tiny(family, pipe, "a red circle", output_type="latent")
    image = run.trajectories[0].image
    assert np.abs(image.astype(int) - np.rint(wanted * 255).astype(int)).max() <= 1


def test_latents_that_are_not_decoded_here():
    pipe = build_tiny("wan")
    with trace(pipe) as run:
        draw_tiny("wan", pipe, "a red circle", output_type="latent")
    (first,) = run.trajectories
    TorchBackend(pipe).attention(first, run.query, (0,))
    with pytest.raises(ValueError, match=r"output_type='latent'.*let the pipeline decode it"):
        DAAM.from_trace(run, image=0)
    with pytest.raises(AttributeError, match="has no attribute 'pixels'"):
        _ = first.pixels
