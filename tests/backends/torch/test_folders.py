"""A folder in diffusers' format of every family's tiny pipeline, read back by ``load``."""

import warnings

import numpy as np
import pytest

from wordlight import load, trace
from wordlight.attribution import DAAM
from wordlight.backends.torch.tiny import TINY, build_tiny, draw_tiny, made_small

PROMPT = "a red circle"
#: A UNet with two encoders, a packed transformer, a tokenizer without a vocabulary, and a text
#: encoder that is a part of what its class is taken for. Others show nothing new.
QUICK = {"sdxl", "flux-dev", "hunyuan-image", "prx"}


@pytest.mark.parametrize(
    "family", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in TINY]
)
def test_a_folder_gives_the_maps_of_the_pipeline_that_was_saved(family, tmp_path):
    pipe = build_tiny(family)
    with warnings.catch_warnings():
        # The libraries' own, of what they save.
        warnings.simplefilter("ignore")
        pipe.save_pretrained(tmp_path)
        backend = load(tmp_path, device="cpu")
    assert type(backend.pipe) is type(pipe)
    drawn = []
    for one in (pipe, made_small(family, backend.pipe)):
        with trace(one) as run:
            picture = draw_tiny(family, one, PROMPT)
        drawn.append((picture, DAAM.from_trace(run)))
    (plain, maps), (picture, again) = drawn
    assert maps.words == again.words
    # Weights of another alignment are multiplied in another order.
    np.testing.assert_allclose(picture, plain, atol=1e-4)
    np.testing.assert_allclose(again.data.values, maps.data.values, atol=1e-6)
