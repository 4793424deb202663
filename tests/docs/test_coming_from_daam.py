"""The page for users of daam: its code runs, and gives what plain arithmetic gives."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.attention_processor import Attention

from wordlight.backends.torch.tiny import build_tiny

PAGE = Path(__file__).parents[2] / "docs/coming-from-daam.md"
STEPS, SIDE = 3, 32


class StoresMaps:
    """A processor as daam's: plain attention, whose conditional half of the maps is added up."""

    def __init__(self, sums: dict[str, torch.Tensor], name: str) -> None:
        self.sums, self.name = sums, name

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: Any = None,
    ) -> torch.Tensor:
        text = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key, value = (attn.head_to_batch_dim(x(text)) for x in (attn.to_k, attn.to_v))
        probs = (query @ key.mT * attn.scale).softmax(-1)
        if encoder_hidden_states is not None:
            own = probs[len(probs) // 2 :]
            side = math.isqrt(own.shape[1])
            maps = own.mT.unflatten(2, (side, side))
            self.sums[self.name] = self.sums.get(self.name, 0) + maps
        return attn.to_out[1](attn.to_out[0](attn.batch_to_head_dim(probs @ value)))


def plain_daam(pipe: Any, options: dict[str, Any], latent_side: int) -> torch.Tensor:
    """The released code's global heat map, ``(tokens, y, x)``."""
    sums: dict[str, torch.Tensor] = {}
    processors = {name: StoresMaps(sums, name) for name in pipe.unet.attn_processors}
    pipe.unet.set_attn_processor(processors)
    pipe("a red circle", **options)
    size = (latent_side, latent_side)
    merged = []
    for name, maps in sums.items():
        if name.startswith("mid_block") or latent_side // maps.shape[-1] == 8:
            continue
        for head in maps:
            up = torch.nn.functional.interpolate(head[:, None], size, mode="bicubic")
            merged.append(up[:, 0].clamp(min=0))
    return torch.stack(merged).mean(0)


def options() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    return {
        "num_inference_steps": STEPS,
        "height": SIDE,
        "width": SIDE,
        "output_type": "np",
        "generator": generator,
    }


def test_the_pages_code_gives_what_plain_arithmetic_gives() -> None:
    pipe = build_tiny("sd")
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    known: dict[str, Any] = {"pipe": pipe, "options": options()}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), known)
    assert known["overlay"].size
    original = known["original"]
    with torch.no_grad():
        wanted = plain_daam(build_tiny("sd"), options(), original.data.sizes["y"])
    for word in original.words:
        by_hand = wanted[list(word.tokens)].mean(0).numpy() / STEPS
        # float32 rounding of logits of some tens, carried on by three steps.
        np.testing.assert_allclose(np.asarray(original.at(word)), by_hand, atol=1e-5)
    # Not the same for every word, nor everywhere.
    assert np.asarray(original["circle"]).std() > 1e-4
    assert np.abs(np.asarray(original["circle"]) - np.asarray(original["red"])).max() > 1e-3
    # All layers, clamped once, are another choice.
    assert np.abs(np.asarray(known["maps"]["circle"]) - np.asarray(original["circle"])).max() > 0
