"""GLM-Image attends to text in quotation marks alone, which ByT5 reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from wordlight import trace
from wordlight.attribution import DAAM, OpenVocabulary
from wordlight.backends.backend import MissingCapabilityError
from wordlight.backends.torch.backend import TorchBackend
from wordlight.backends.torch.tiny import build_tiny, draw_tiny, picture

PROMPT = 'a sign with "red circle" and “été”'


@pytest.fixture(scope="module")
def pipe() -> Any:
    return build_tiny("glm-image")


def given_ids(pipe: Any, prompt: str) -> list[int]:
    """The ids that the pipeline gives its text encoder of a prompt, text by text."""
    seen: list[torch.Tensor] = []

    def look(_: Any, args: Any, kwargs: Any) -> None:
        ids, mask = args[0], kwargs["attention_mask"]
        seen.append(ids[mask.bool()])

    handle = pipe.text_encoder.register_forward_pre_hook(look, with_kwargs=True)
    pipe.encode_prompt([prompt], False)
    handle.remove()
    return [int(i) for i in seen[0]]


@pytest.mark.parametrize(
    "prompt",
    [
        PROMPT,
        "'one' and \"two\" and 「三」 and “four”",
        'a "café" and ""',
        '"赤い猫" on a poster',
    ],
)
def test_tokens_are_those_that_the_text_encoder_is_given(pipe: Any, prompt: str) -> None:
    tokens = TorchBackend(pipe).tokenize(prompt)
    assert list(tokens.ids) == given_ids(pipe, prompt)
    for place in tokens.positions("text"):
        start, stop = tokens.offsets[place]
        # A byte of the letter that stands there.
        assert tokens.ids[place] - 3 in prompt[start:stop].encode()


def test_maps_are_of_quoted_words(pipe: Any) -> None:
    plain = draw_tiny("glm-image", pipe, PROMPT)
    with trace(pipe) as run:
        picture = draw_tiny("glm-image", pipe, PROMPT)
    np.testing.assert_array_equal(plain, picture)
    (trajectory,) = run.trajectories
    assert trajectory.not_replayable is None
    assert not any("kv_caches" in name for name in trajectory.added)
    maps = DAAM.from_trace(run)
    assert [word.text for word in maps.words] == ["red", "circle", "été"]
    again = DAAM(TorchBackend(pipe)).attribute(trajectory)
    for word in ("red", "circle", "été"):
        np.testing.assert_allclose(np.asarray(again[word]), np.asarray(maps[word]), atol=1e-6)
    with pytest.raises(KeyError, match="sign"):
        maps["sign"]


def test_a_prompt_without_quoted_text_is_refused(pipe: Any) -> None:
    with trace(pipe) as run:
        draw_tiny("glm-image", pipe, 'a red circle, ""')
    with pytest.raises(ValueError, match="attends to text in quotation marks alone"):
        DAAM.from_trace(run)
    with pytest.raises(ValueError, match="attends to text in quotation marks alone"):
        TorchBackend(pipe).sample("a red circle", steps=1)


def test_editing_is_refused(pipe: Any) -> None:
    with trace(pipe) as run:
        # What comes before the denoiser is of no interest here.
        codes = torch.zeros(1, 32, dtype=torch.long)
        pipe(
            PROMPT,
            image=[picture().resize((128, 64))],
            height=64,
            width=128,
            num_inference_steps=1,
            prior_token_ids=codes,
            prior_token_image_ids=[codes[0]],
            source_image_grid_thw=[torch.tensor([[1, 4, 8]])],
        )
    with pytest.raises(ValueError, match=r"GLM-Image.*call it without image"):
        DAAM.from_trace(run)


def test_words_beside_the_prompt_are_refused(pipe: Any) -> None:
    with pytest.raises(MissingCapabilityError, match="quotation marks alone, and no words beside"):
        OpenVocabulary(TorchBackend(pipe))
