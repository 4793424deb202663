"""The one place where attention is seen and edited."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tests.backends.flax import models
from wordlight.backends.flax.attention import AttentionHook, AttentionSite
from wordlight.backends.flax.backend import FlaxBackend


class Editor:
    """Puts something else in the place of the cross-attention's probabilities."""

    def __init__(self, edit: Callable[[jax.Array], jax.Array | None], name: str = "") -> None:
        self.edit, self.name = edit, name
        self.seen: list[AttentionSite] = []

    def wants(self, site: AttentionSite) -> bool:
        return site.kind == "cross" and site.name.startswith(self.name)

    def __call__(self, site: AttentionSite, probabilities: Any, scores_of: Any) -> Any:
        self.seen.append(site)
        return self.edit(probabilities)


def test_looking_changes_nothing_and_editing_does(ours: FlaxBackend) -> None:
    rng = np.random.default_rng(0)
    features = jnp.asarray(rng.standard_normal((2, 4, 6, 32)), jnp.float32)
    text = jnp.asarray(rng.standard_normal((2, 7, models.TEXT_CHANNELS)), jnp.float32)
    unet = nnx.merge(nnx.graphdef(ours._model.unet), ours._parameters["unet"])

    def run(hook: AttentionHook | None, text: jax.Array = text) -> np.ndarray:
        return np.asarray(unet.mid_block.attentions[0](features, text, hook))

    plain = run(None)
    # Another order of sums at most: the fused way and the one in the open.
    assert np.abs(run(Editor(lambda probabilities: None)) - plain).max() <= 1e-6
    assert np.abs(run(Editor(lambda probabilities: probabilities)) - plain).max() <= 1e-6
    swap = Editor(lambda probabilities: probabilities[..., ::-1], "mid_block")
    assert np.abs(run(swap) - plain).max() > 1e-3
    name = "mid_block.attentions.0.transformer_blocks.0.attn2"
    assert swap.seen == [AttentionSite(name, "cross", (4, 6), 4)]
    assert (run(Editor(lambda probabilities: 0 * probabilities, "elsewhere")) == plain).all()
    # Attending to the first token alone is having no other.
    first = run(Editor(lambda p: jnp.zeros_like(p).at[..., 0].set(1.0)))
    assert np.abs(first - run(None, text[:, :1])).max() <= 1e-6


def test_sites_are_the_layers_that_a_query_can_name(ours: FlaxBackend) -> None:
    names = [layer.name for layer in ours.layers]
    assert names == [
        "down_blocks.0.attentions.0.transformer_blocks.0.attn2",
        "mid_block.attentions.0.transformer_blocks.0.attn2",
        "up_blocks.1.attentions.0.transformer_blocks.0.attn2",
        "up_blocks.1.attentions.1.transformer_blocks.0.attn2",
    ]
    assert [layer.heads for layer in ours.layers] == [2, 4, 2, 2]
