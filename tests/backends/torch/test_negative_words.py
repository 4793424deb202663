"""Maps of the negative prompt's words: its half of the guidance, streamed and replayed."""

import numpy as np
import pytest

from wordlight import trace
from wordlight.attribution import DAAM, Occlusion, Regeneration
from wordlight.backends import Trajectory
from wordlight.backends.torch.backend import TorchBackend
from wordlight.backends.torch.tiny import TINY, build_tiny, draw_tiny

PROMPT, AWAY = "a red circle", "two blue squares"
#: One batch, conditional rows last; with pooled text; joint, and first; two calls; a video.
GUIDED = {
    "sd": {},
    "sdxl": {},
    "sd3": {},
    "z-image": {"guidance_scale": 4.0},
    "qwen-image": {},
    "flux-dev": {"true_cfg_scale": 3.0},
    "wan": {},
}


@pytest.mark.parametrize(
    "family",
    [n if n in ("sd", "sd3") else pytest.param(n, marks=pytest.mark.slow) for n in GUIDED],
)
def test_the_negative_prompts_words_have_the_attention_that_they_get(family):
    """At the first step, where latents are the noise alone: what a prompt of those words gets."""
    pipe = build_tiny(family)
    asked = {"negative_prompt": AWAY, **GUIDED[family]}
    plain = draw_tiny(family, pipe, PROMPT, **asked)
    with trace(pipe, negative=True) as run:
        drawn = draw_tiny(family, pipe, PROMPT, **asked)
    np.testing.assert_array_equal(plain, drawn)
    with trace(pipe) as alone:
        draw_tiny(family, pipe, AWAY, **asked)
    backend = TorchBackend(pipe)
    (trajectory,) = run.trajectories
    away = DAAM(backend, steps=(0,)).attribute(trajectory, words_of="negative")
    own = DAAM(backend, steps=(0,)).attribute(alone.trajectories[0])
    assert away.prompt == AWAY
    for word in ("blue", "squares"):
        assert np.asarray(away[word]).std() > 0
        np.testing.assert_allclose(np.asarray(away[word]), np.asarray(own[word]), atol=1e-5)
    # What streamed by is what a replay gives; a batch of one row rounds otherwise.
    streamed = DAAM.from_trace(run, words_of="negative")
    replayed = DAAM(backend).attribute(trajectory.of_negative())
    assert streamed.provenance.settings["words_of"] == "negative"
    assert replayed.provenance.settings["words_of"] == "negative"
    np.testing.assert_allclose(streamed.data, replayed.data, atol=2e-5)
    # The prompt's own are as without.
    np.testing.assert_allclose(
        DAAM.from_trace(run).data, DAAM(backend).attribute(trajectory).data, atol=2e-5
    )


def test_other_methods_and_files(tmp_path):
    backend = TorchBackend(build_tiny("sd"))
    run = backend.sample(
        PROMPT, steps=2, guidance_scale=5.0, negative_prompt=AWAY, height=32, width=64
    )
    run.save(tmp_path / "run.safetensors")
    kept = Trajectory.load(tmp_path / "run.safetensors")
    maps = Occlusion(backend, steps=(1,)).attribute([kept], ["squares"], words_of="negative")[0]
    assert np.asarray(maps["squares"]).std() > 0
    again = Occlusion(backend, steps=(1,)).attribute(run.of_negative(), ["squares"])
    np.testing.assert_array_equal(maps.data, again.data)
    run.of_negative().save(tmp_path / "away.safetensors")
    assert Trajectory.load(tmp_path / "away.safetensors").words_of == "negative"
    with pytest.raises(ValueError, match="draws without a word of the prompt"):
        Regeneration(backend).attribute(run, words_of="negative")


def test_images_of_a_batch_have_each_its_own_negative_prompt():
    pipe = build_tiny("sd")
    with trace(pipe, negative=True) as run:
        draw_tiny("sd", pipe, [PROMPT, "a cat"], negative_prompt=[AWAY, "a small green dog"])
    first, second = run.trajectories
    assert (first.of_negative().prompt, second.of_negative().prompt) == (AWAY, "a small green dog")
    maps = DAAM.from_trace(run, image=1, words_of="negative")
    replayed = DAAM(TorchBackend(pipe)).attribute(second, words_of="negative")
    np.testing.assert_allclose(maps.data, replayed.data, atol=1e-5)


def refused(family, match, **asked):
    pipe = build_tiny(family)
    with trace(pipe, negative=True) as run:
        draw_tiny(family, pipe, PROMPT, **asked)
    with pytest.raises(ValueError, match=match):
        DAAM.from_trace(run, words_of="negative")


def test_where_there_is_no_negative_branch_or_no_word_in_it():
    refused("sd", "no negative branch", negative_prompt=AWAY, guidance_scale=1.0)
    refused("flux-dev", "an input of the model, as of Flux.1 dev")
    refused("sd", "the negative prompt is empty", guidance_scale=5.0)


def test_a_trace_that_did_not_look():
    pipe = build_tiny("sd")
    with trace(pipe) as run:
        draw_tiny("sd", pipe, PROMPT, negative_prompt=AWAY)
    with pytest.raises(ValueError, match=r"trace\(pipe, negative=True\)"):
        DAAM.from_trace(run, words_of="negative")
    with pytest.raises(ValueError, match="words_of must be"):
        DAAM.from_trace(run, words_of="both")
    assert set(GUIDED) <= set(TINY)
