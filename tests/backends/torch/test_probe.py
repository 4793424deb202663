"""Denoisers that the table doesn't have: a probe finds what the table says of those that it has."""

import numpy as np
import pytest
import torch
from diffusers import BriaPipeline, BriaTransformer2DModel

from wordlight import trace
from wordlight.attribution import DAAM, Occlusion
from wordlight.backends.backend import MissingCapabilityError
from wordlight.backends.torch import model as models
from wordlight.backends.torch.backend import TorchBackend
from wordlight.backends.torch.tiny import build_tiny, draw_tiny
from wordlight.backends.torch.tiny.parts import autoencoder, flow_scheduler, quiet, rescaled
from wordlight.backends.torch.tiny.text_encoders import t5_text_encoder
from wordlight.backends.torch.tiny.tokenizers import t5_tokenizer

PROMPT = "a red circle"
#: Cross-attention; the picture first; the text first; registers before it; padding on the left.
FAMILIES = ["pixart-sigma", "sd3", "flux-dev", "aura-flow", "cogview-4"]


def traced(pipe, family, **asked):
    with trace(pipe) as run:
        drawn = draw_tiny(family, pipe, PROMPT, **asked)
    return drawn, run


@pytest.mark.parametrize("family", FAMILIES)
def test_a_probe_finds_what_the_table_says(family, monkeypatch):
    pipe = build_tiny(family)
    drawn, by_table = traced(pipe, family)
    monkeypatch.setattr(models, "FAMILIES", ())
    again, by_probe = traced(pipe, family)
    np.testing.assert_array_equal(drawn, again)
    (trajectory,) = by_probe.trajectories
    assert trajectory.layout_from == "probe"
    maps, wanted = DAAM.from_trace(by_probe), DAAM.from_trace(by_table)
    assert maps.provenance.settings["layout_from"] == "probe"
    assert "layout_from" not in wanted.provenance.settings
    assert maps.players == wanted.players
    # A whole softmax against one column and its denominator, both in float32.
    np.testing.assert_allclose(maps.data, wanted.data, atol=5e-6)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in pipe.transformer.modules())


def test_other_sizes_than_those_that_were_tried(monkeypatch):
    pipe = build_tiny("sd3")
    _, by_table = traced(pipe, "sd3", height=64, width=48)
    monkeypatch.setattr(models, "FAMILIES", ())
    _, by_probe = traced(pipe, "sd3", height=64, width=48)
    maps, wanted = DAAM.from_trace(by_probe), DAAM.from_trace(by_table)
    # A whole softmax against one column and its denominator, both in float32.
    np.testing.assert_allclose(maps.data, wanted.data, atol=5e-6)


def test_what_a_probe_does_not_find_out_is_said(monkeypatch):
    monkeypatch.setattr(models, "FAMILIES", ())
    pipe = build_tiny("sd3")
    _, run = traced(pipe, "sd3")
    with pytest.raises(MissingCapabilityError, match="a probe found where it attends to the words"):
        Occlusion(TorchBackend(pipe))
    replayed = DAAM(TorchBackend(pipe)).attribute(run.trajectories[0])
    np.testing.assert_allclose(replayed.data, DAAM.from_trace(run).data, atol=1e-5)


def test_where_it_finds_nothing_the_reason_is_said(monkeypatch):
    monkeypatch.setattr(models, "FAMILIES", ())
    with pytest.raises(ValueError, match="a probe found nothing either: it has no transformer"):
        trace(build_tiny("sd"))
    pipe = build_tiny("pixart-sigma")
    pipe.transformer = torch.nn.Linear(1, 1)
    with pytest.raises(ValueError, match="its denoiser is a Linear, which takes no latents"):
        trace(pipe)
    # Words that the pipeline writes otherwise than they are read.
    pipe = build_tiny("sd3")
    own = pipe.encode_prompt
    monkeypatch.setattr(pipe, "encode_prompt", lambda prompt, **told: own(f"oh {prompt}", **told))
    with pytest.raises(ValueError, match="writes the prompt otherwise for its text encoder"):
        trace(pipe)


def bria():
    """A pipeline of no known family."""
    tokenizer = t5_tokenizer(128)
    denoiser = BriaTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=[0, 8, 8],
    )
    return quiet(
        BriaPipeline(
            tokenizer=tokenizer,
            text_encoder=t5_text_encoder(tokenizer),
            transformer=rescaled(denoiser),
            vae=autoencoder(4, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1),
            scheduler=flow_scheduler(),
        )
    )


def test_a_family_that_is_in_no_table():
    torch.manual_seed(0)
    pipe = bria()
    known = {model for family in models.FAMILIES for model in family.classes}
    assert type(pipe.transformer).__name__ not in known

    def draw(prompt):
        generator = torch.Generator().manual_seed(0)
        size = {"height": 32, "width": 64, "num_inference_steps": 2, "output_type": "np"}
        return pipe(prompt=prompt, generator=generator, **size).images[0]

    plain = draw(PROMPT)
    with trace(pipe) as run:
        np.testing.assert_array_equal(plain, draw(PROMPT))
    maps = DAAM.from_trace(run)
    assert maps.provenance.settings["layout_from"] == "probe"
    # Its keys are text and then picture, written out; the prompt is the last of two rows.
    seen = []
    attention = pipe.transformer.transformer_blocks[0].attn
    own = torch.nn.functional.scaled_dot_product_attention

    def note(query, key, value, **told):
        seen.append((query * query.shape[-1] ** -0.5 @ key.mT).softmax(-1))
        return own(query, key, value, **told)

    handle = attention.register_forward_pre_hook(
        lambda *_: setattr(torch.nn.functional, "scaled_dot_product_attention", note)
    )
    after = attention.register_forward_hook(
        lambda *_: setattr(torch.nn.functional, "scaled_dot_product_attention", own)
    )
    try:
        draw(PROMPT)
    finally:
        torch.nn.functional.scaled_dot_product_attention = own
        handle.remove()
        after.remove()
    layer = DAAM(TorchBackend(pipe), steps=(0,), layers=["transformer_blocks.0.attn"])
    found = layer.attribute(run.trajectories[0])
    (place,) = found["circle"].word.tokens
    n_text = len(found.tokens)
    wanted = seen[0][-1, :, n_text:, place].mean(0).reshape(found["circle"].shape).detach().numpy()
    np.testing.assert_allclose(np.asarray(found["circle"]), wanted, atol=1e-5)
