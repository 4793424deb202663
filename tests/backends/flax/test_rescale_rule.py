"""The rescale rule on JAX: as PyTorch's, which is held against answers on paper and Captum."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from flax import nnx

from wordlight.backends.flax.attention import WrittenOut
from wordlight.backends.flax.layers import gelu, softmax
from wordlight.backends.flax.rescale_rule import rescaled_parts
from wordlight.backends.flax.residual import ResidualBlock
from wordlight.backends.flax.transformer import Transformer
from wordlight.backends.torch import rescale_rule


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda x: gelu(x) + jax.nn.silu(x), lambda x: F.gelu(x) + F.silu(x)),
        (lambda x: jax.lax.rsqrt(x * x + 1), lambda x: (x * x + 1).rsqrt()),
        (softmax, lambda x: x.softmax(-1)),
        # Scores so far apart that exponentials of one pass are nothing beside the other's.
        (lambda x: softmax(300 * x), lambda x: (300 * x).softmax(-1)),
        # A mask: its scores stay what they are.
        (
            lambda x: softmax(jnp.where(jnp.arange(5) < 3, x, -jnp.inf)),
            lambda x: x.masked_fill(torch.arange(5) >= 3, -torch.inf).softmax(-1),
        ),
        (lambda x: jnp.ones((1, 3)), lambda x: torch.ones(1, 3)),
    ],
    ids=["smooth", "root", "softmax", "far-apart", "masked", "constant"],
)
def test_as_on_torch(ours: Callable[[Any], Any], theirs: Callable[[Any], Any]) -> None:
    after, before = np.random.default_rng(0).standard_normal((2, 1, 5)).astype(np.float32)
    before[0, 4] = after[0, 4] + 1e-3  # where a slope is a derivative
    parts = np.eye(5, dtype=np.float32) * (after - before)
    found = np.asarray(jax.jit(partial(rescaled_parts, ours))(after, before, parts))
    wanted = rescale_rule.rescaled_parts(theirs, *map(torch.as_tensor, (after, before, parts)))
    assert np.abs(found - wanted.numpy()).max() <= 1e-5 * max(np.abs(found).max(), 1e-30)


def test_blocks_share_out_their_difference() -> None:
    """A residual block and a transformer, with everything that a UNet is made of."""
    rng = np.random.default_rng(1)

    def filled(leaf: Any) -> Any:
        return jnp.asarray(0.5 * rng.standard_normal(leaf.shape), jnp.float32)

    blocks: list[Any] = [
        ResidualBlock(4, 8, time_channels=None, groups=2, epsilon=1e-5),
        Transformer(
            "blocks", 8, heads=2, layers=1, text_channels=6, groups=2, linear_projection=True
        ),
    ]
    for block in blocks:
        nnx.update(block, jax.tree.map(filled, nnx.state(block)))
    x = jnp.asarray(rng.standard_normal((1, 3, 2, 4)), jnp.float32)

    def function(text: Any) -> Any:
        shifted = x + text[:, :1, None, :4]
        return blocks[1](blocks[0](shifted), text, WrittenOut())

    after, before = jnp.asarray(rng.standard_normal((2, 1, 5, 6)), jnp.float32)
    parts = np.eye(5, dtype=np.float32)[:, :, None] * (after - before)
    program, plain = jax.jit(partial(rescaled_parts, function)), jax.jit(function)
    found = np.asarray(program(after, before, parts))
    # Each is its own, wherever it stands, and its half is half.
    halves = np.asarray(program(after, before, parts[::-1] / 2))[::-1]
    difference = np.asarray(plain(after) - plain(before))
    assert np.abs(found.sum(0) - difference[0]).max() <= 1e-4 * np.abs(difference).max()
    assert np.abs(2 * halves - found).max() <= 1e-4 * np.abs(found).max()


def test_what_has_no_rule_is_said() -> None:
    row = jnp.ones((1, 2))
    with pytest.raises(ValueError, match="no rule for JAX's operation 'cosh'"):
        rescaled_parts(jnp.cosh, row, 2 * row, row)
    with pytest.raises(ValueError, match="no rule for JAX's operation 'div'"):
        rescaled_parts(lambda x: 1 / x, row, 2 * row, row)
