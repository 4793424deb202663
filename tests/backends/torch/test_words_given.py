"""Words named for embeddings: weighted ones fit, other words don't."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from tests.backends.torch.tiny import build_tiny_pipe
from wordlight import trace
from wordlight.attribution import DAAM
from wordlight.backends.torch.tiny import build_tiny, draw_tiny

PROMPT = "a red circle and a blue square"


def encoded(pipe: Any, text: str, unseen: slice | None = None) -> torch.Tensor:
    """Embeddings of CLIP, or of two CLIPs side by side, in which nothing attends to some
    positions."""
    states = []
    for name in ("", "_2"):
        encoder = getattr(pipe, f"text_encoder{name}", None)
        if encoder is None:
            continue
        tokenizer = getattr(pipe, f"tokenizer{name}")
        ids = tokenizer(
            text,
            padding="max_length",
            max_length=tokenizer.model_max_length,
            return_tensors="pt",
        ).input_ids
        mask = torch.ones_like(ids)
        if unseen is not None:
            mask[:, unseen] = 0
        made = encoder(ids, attention_mask=mask, output_hidden_states=True)
        states.append(made.hidden_states[-2] if hasattr(pipe, "text_encoder_2") else made[0])
    return torch.cat(states, -1)[0].detach()


def weighted(pipe: Any, phrases: Mapping[tuple[int, int], float]) -> torch.Tensor:
    """PROMPT with weights on phrases, positions of which are named, as Compel documents it: each
    position is moved from the empty prompt's by its weight, and for a weight w below 1 the prompt
    without the phrase is blended in, tan((1 - w)·π/2) to 1."""
    empty = encoded(pipe, "")
    each = torch.ones(len(empty), 1)
    for (start, stop), weight in phrases.items():
        each[start:stop] = weight

    def moved(states: torch.Tensor) -> torch.Tensor:
        return empty + each * (states - empty)

    blended, total = moved(encoded(pipe, PROMPT)), 1.0
    for (start, stop), weight in phrases.items():
        if weight < 1:
            share = math.tan((1 - weight) * math.pi / 2)
            blended = blended + share * moved(encoded(pipe, PROMPT, slice(start, stop)))
            total += share
    return blended / total


def traced(pipe: Any, embeddings: torch.Tensor, words: str) -> Any:
    given = {"prompt_embeds": embeddings[None], "negative_prompt_embeds": encoded(pipe, "")[None]}
    if hasattr(pipe, "text_encoder_2"):
        pooled = torch.zeros(1, pipe.text_encoder_2.config.projection_dim)
        given |= {"pooled_prompt_embeds": pooled, "negative_pooled_prompt_embeds": pooled}
    pipe.set_progress_bar_config(disable=True)
    with trace(pipe, prompts=[words]) as run:
        pipe(num_inference_steps=1, height=32, width=32, output_type="latent", **given)
    return DAAM.from_trace(run)


@pytest.mark.parametrize(
    "build", [lambda: build_tiny_pipe(levels=2, layers=1), lambda: build_tiny("sdxl")]
)
def test_weights_above_and_below_one_fit(build: Callable[[], Any]) -> None:
    pipe = build()
    for phrases in ({(2, 3): 0.3}, {(2, 4): 0.6, (7, 8): 0.4}, {(3, 4): 1.4, (6, 7): 0.5}):
        embeddings = weighted(pipe, phrases)
        assert "circle" in traced(pipe, embeddings, PROMPT)
    for others in (
        PROMPT.replace("red", "green"),
        PROMPT.replace("square", "circle"),
        "a blue circle and a red square",
        "a (red:0.5) circle and a blue square",
    ):
        with pytest.raises(ValueError, match="don't fit the words"):
            traced(pipe, embeddings, others)


@pytest.mark.parametrize(
    ("family", "prompt", "second"), [("flux-dev", "a dog", PROMPT), ("sd3", PROMPT, PROMPT)]
)
def test_a_second_prompt_is_that_of_its_encoder(family: str, prompt: str, second: str) -> None:
    """Flux's T5 reads the second prompt, if there is one: the words are its; and the empty prompt's
    embeddings have neither's words in them."""
    pipe = build_tiny(family)
    with trace(pipe) as run:
        draw_tiny(family, pipe, prompt, prompt_2=second)
        draw_tiny(family, pipe, PROMPT)
    told, plain = run.trajectories
    assert told.prompt == PROMPT
    np.testing.assert_array_equal(told.embeddings, plain.embeddings)
    np.testing.assert_array_equal(told.empty_embeddings, plain.empty_embeddings)
    assert told.tokens == plain.tokens
