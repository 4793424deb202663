"""Words named for embeddings: weighted ones fit, other words don't."""

from __future__ import annotations

import inspect
import logging
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from tests.backends.torch.tiny import build_tiny_pipe
from wordlight import trace
from wordlight.attribution import DAAM
from wordlight.backends.torch.tiny import TINY, build_tiny, draw_tiny

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


#: Names that ``encode_prompt`` of some pipelines returns its embeddings by, if not by their own.
OTHER_NAMES = {"text_hiddens": "prompt_embeds", "repeated_cu_seqlens": "prompt_cu_seqlens"}
#: Pipelines that take no embeddings: InstructPix2Pix has no ``encode_prompt``; LongCat's own fails
#: at embeddings without a prompt.
TAKE_WORDS_ALONE = {"instruct-pix2pix", "longcat-image"}


def encoded_by(pipe: Any, prompt: str | list[str]) -> dict[str, Any]:
    """What a pipeline's own ``encode_prompt`` makes, by the names of its call's arguments."""
    takes = inspect.signature(pipe.encode_prompt).parameters
    options: dict[str, Any] = {"prompt_2": None, "prompt_3": None, "prompt_4": None}
    options |= {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": True}
    source = inspect.getsource(pipe.encode_prompt).rstrip()
    what = re.sub(r" if \w+ else None", "", source.rpartition("return ")[2])
    returned = re.split(r"[,()\s]+", what.strip("() \n,"))
    with torch.no_grad():
        made = pipe.encode_prompt(prompt, **{n: v for n, v in options.items() if n in takes})
    found = zip(returned, made if isinstance(made, tuple) else (made,), strict=True)
    known = inspect.signature(pipe.__call__).parameters
    named = {OTHER_NAMES.get(name, name): value for name, value in found}
    return {name: value for name, value in named.items() if name in known and value is not None}


def traced_embeddings(family: str, pipe: Any, given: Mapping[str, Any], words: list[str]) -> Any:
    more = {"negative_prompt": None} if "negative_prompt" in TINY[family].call else {}
    more = {"negative_prompt": None} if "negative_prompt_embeds" in given else more
    with trace(pipe, prompts=words) as run:
        draw_tiny(family, pipe, None, num_inference_steps=1, **{**more, **given})
    return run


#: Families whose embeddings are as many as the prompt has tokens, or of another length than the
#: call's own, or whose words are much alike.
QUICK = {"qwen-image", "z-image", "ernie-image", "flux-schnell", "wan", "lumina-2"}


@pytest.mark.parametrize(
    "family",
    [
        family if family in QUICK else pytest.param(family, marks=pytest.mark.slow)
        for family in TINY
        if family not in TAKE_WORDS_ALONE
    ],
)
def test_embeddings_that_the_pipeline_made_fit_their_words_alone(family: str) -> None:
    pipe = build_tiny(family)
    form = '"{}"' if family == "glm-image" else "{}"
    given = encoded_by(pipe, form.format("a red circle"))
    if family == "glm-image":
        # Its words go into two encoders; guidance of embeddings alone wants them equally long.
        given.pop("negative_prompt_embeds")
        given |= {"prior_token_ids": torch.zeros(1, 32, dtype=torch.long), "guidance_scale": 1.0}
    run = traced_embeddings(family, pipe, given, [form.format("a red circle")])
    assert "circle" in DAAM.from_trace(run)
    for others in ("a red square", "a red", "a red circle and dog", "red circle a"):
        run = traced_embeddings(family, pipe, given, [form.format(others)])
        with pytest.raises(ValueError, match=r"don't fit the words|were made of other words"):
            DAAM.from_trace(run)


@pytest.mark.parametrize("family", ["sd3", "lumina-2"])
def test_embeddings_of_half_precision_fit_in_another(family: str) -> None:
    made = encoded_by(build_tiny(family).to(torch.bfloat16), "a red circle")
    given = {name: v.float() if v.is_floating_point() else v for name, v in made.items()}
    pipe = build_tiny(family)
    assert "circle" in DAAM.from_trace(
        traced_embeddings(family, pipe, given, ["a red circle"]),
    )
    with pytest.raises(ValueError, match="don't fit the words"):
        DAAM.from_trace(traced_embeddings(family, pipe, given, ["a red square"]))


@pytest.mark.parametrize("family", ["qwen-image", "cogview-4"])
def test_embeddings_of_a_batch_whose_prompts_differ_in_length(family: str) -> None:
    pipe = build_tiny(family)
    prompts = ["two red circles behind a blue square, far away from any green triangle", "a dog"]
    given = encoded_by(pipe, prompts)
    if family == "cogview-4":
        given.pop("negative_prompt_embeds")
        given["guidance_scale"] = 1.0
    run = traced_embeddings(family, pipe, given, prompts)
    assert "square" in DAAM.from_trace(run, image=0)
    assert "dog" in DAAM.from_trace(run, image=1)
    for others in (prompts[::-1], [prompts[0], "a cat"], [prompts[0], "a dog and a cat"]):
        run = traced_embeddings(family, pipe, given, others)
        with pytest.raises(ValueError, match=r"don't fit the words|were made of other words"):
            DAAM.from_trace(run, image=1)


def test_what_a_pipeline_logs_while_it_encodes_for_us_is_not_heard() -> None:
    pipe, heard = build_tiny("qwen-image"), []
    handler = logging.Handler()
    handler.emit = heard.append  # type: ignore[method-assign, assignment]
    logger = logging.getLogger("diffusers")
    logger.addHandler(handler)
    try:
        with trace(pipe) as run:
            draw_tiny("qwen-image", pipe, PROMPT)
        assert run.trajectories
        assert not heard
        draw_tiny("qwen-image", pipe, PROMPT, negative_prompt=None)
        assert heard
    finally:
        logger.removeHandler(handler)
