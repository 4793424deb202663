"""The Flax networks against those of diffusers and transformers, in float32."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from tests.backends.flax import full_size, models
from wordlight.backends.flax.attention import AttentionSite
from wordlight.backends.flax.autoencoder import Autoencoder, AutoencoderConfig
from wordlight.backends.flax.checkpoint import load_network
from wordlight.backends.flax.clip_text import TextEncoder, TextEncoderConfig
from wordlight.backends.flax.unet import UNet, UNetConfig

#: float32's rounding through a network, sums in another order: 3e-6 seen. An error in one layer's
#: mathematics is more; the smallest that is known (tanh for erf in GELU) is measured below.
_UNET, _PROBABILITIES, _CLIP, _VAE = 1e-5, 1e-6, 1e-5, 2e-5


class Look:
    """A hook that hands the probabilities out."""

    def __init__(self) -> None:
        self.seen: dict[str, jax.Array] = {}
        self.sites: list[AttentionSite] = []

    def wants(self, site: AttentionSite) -> bool:
        return True

    def __call__(self, site: AttentionSite, probabilities: Any, scores_of: Any) -> None:
        self.sites.append(site)
        self.seen[site.name] = probabilities


def compare_unet(
    config: dict[str, Any], folder: Path, grid: tuple[int, int]
) -> tuple[float, dict[str, float]]:
    """The largest differences of the output, and of each attention's probabilities."""
    theirs = models.torch_unet(config)
    ours = load_network(models.saved(theirs, folder), UNetConfig.read, UNet)
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((2, 4, *grid)).astype(np.float32)
    width = config["cross_attention_dim"]
    width = width[0] if isinstance(width, tuple) else width
    text = rng.standard_normal((2, 11, width)).astype(np.float32)
    times = np.array([701, 3])
    added = {}
    if "addition_embed_type" in config:
        added = {
            "text_embeds": rng.standard_normal((2, 12)).astype(np.float32),
            "time_ids": np.array([[64, 64, 0, 0, 64, 64], [32, 48, 8, 4, 32, 48.0]], np.float32),
        }
    captured = models.Captured().on(theirs)
    with torch.no_grad():
        wanted = theirs(
            torch.tensor(latents),
            torch.tensor(times),
            torch.tensor(text),
            added_cond_kwargs={k: torch.tensor(v) for k, v in added.items()} or None,
        ).sample.numpy()

    graph, weights = nnx.split(ours)

    def run(weights: Any, latents: Any, text: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        look, unet = Look(), nnx.merge(graph, weights)
        return unet(latents, jnp.asarray(times), text, added, look), look.seen

    got, seen = jax.jit(run)(weights, latents.transpose(0, 2, 3, 1), text)
    assert set(seen) == set(captured.probabilities)
    differences = {
        name: float(np.abs(np.asarray(seen[name]) - probs).max())
        for name, probs in captured.probabilities.items()
    }
    # So that a comparison of nothing with nothing isn't taken for agreement.
    assert np.abs(wanted).max() > 0.1
    assert max(probs.max() for probs in captured.probabilities.values()) > 0.2
    return float(np.abs(np.asarray(got).transpose(0, 3, 1, 2) - wanted).max()), differences


@pytest.mark.parametrize(
    ("config", "grid"),
    [
        pytest.param(models.SD1, (16, 16), id="sd1"),
        pytest.param(models.SD2, (13, 10), id="sd2-odd-sizes"),
        pytest.param(
            *(models.LEVEL_BY_LEVEL, (16, 12)), id="sdxl-level-by-level", marks=pytest.mark.slow
        ),
    ],
)
def test_unet(config: dict[str, Any], grid: tuple[int, int], tmp_path: Path) -> None:
    output, probabilities = compare_unet(config, tmp_path, grid)
    assert output <= _UNET
    for name, difference in probabilities.items():
        assert difference <= _PROBABILITIES, name


def test_gradients(tmp_path: Path) -> None:
    """Of the output with respect to latents and text, and of one token's attention with respect to
    the text, against PyTorch's."""
    theirs = models.torch_unet(models.ONE_LEVEL)
    ours = load_network(models.saved(theirs, tmp_path), UNetConfig.read, UNet)
    rng = np.random.default_rng(0)
    shape = (1, 4, 8, 6)
    latents, cotangent = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
    text = rng.standard_normal((1, 7, models.TEXT_CHANNELS)).astype(np.float32)
    captured = models.Captured().on(theirs)
    x, e = (torch.tensor(array, requires_grad=True) for array in (latents, text))
    output = theirs(x, 401, e).sample
    token = [t[..., 3].mean() for name, t in captured.tensors.items() if name.endswith("attn2")]
    product = (output * torch.tensor(cotangent)).sum()
    wanted = [
        *torch.autograd.grad(product, (x, e), retain_graph=True),
        *torch.autograd.grad(torch.stack(token).sum(), e),
    ]
    graph, weights = nnx.split(ours)

    def scalars(latents: Any, text: Any) -> tuple[jax.Array, jax.Array]:
        look = Look()
        times = jnp.array([401])
        made = nnx.merge(graph, weights)(latents.transpose(0, 2, 3, 1), times, text, None, look)
        kept = [p[..., 3].mean() for name, p in look.seen.items() if name.endswith("attn2")]
        return (made.transpose(0, 3, 1, 2) * cotangent).sum(), jnp.stack(kept).sum()

    of_product, of_token = jax.jit(jax.jacrev(scalars, argnums=(0, 1)))(latents, text)
    got = (*of_product, of_token[1])
    for mine, other in zip(got, wanted, strict=True):
        assert mine.shape == tuple(other.shape)
        assert np.abs(other.numpy()).max() > 1e-4
        distance = np.linalg.norm(np.asarray(mine) - other.numpy())
        assert distance <= 1e-4 * np.linalg.norm(other.numpy())


@pytest.mark.slow
def test_the_unet_of_stable_diffusion_1_5(tmp_path: Path) -> None:
    """At its full size, 860 million weights, on a smaller picture."""
    config = {
        key: value for key, value in full_size.UNETS["sd-1.5"].items() if not key.startswith("_")
    }
    try:
        output, probabilities = compare_unet(config, tmp_path, (16, 16))
    finally:
        shutil.rmtree(tmp_path)  # gigabytes, which pytest would keep for some runs
    # More terms in each sum than in the small ones, and still within their tolerance.
    assert output <= _UNET
    assert len(probabilities) == 32
    assert max(probabilities.values()) <= _PROBABILITIES


@pytest.mark.parametrize(
    ("changes", "projects"),
    [
        pytest.param({"hidden_act": "quick_gelu"}, False, id="clip"),
        pytest.param({"hidden_act": "gelu"}, True, id="openclip-projected"),
        pytest.param({"hidden_act": "gelu", "eos_token_id": 2}, False, id="former-end-mark"),
    ],
)
def test_text_encoder(changes: dict[str, Any], projects: bool, tmp_path: Path) -> None:
    theirs = models.torch_text_encoder(projects, **changes)
    ours = load_network(models.saved(theirs, tmp_path), TextEncoderConfig.read, TextEncoder)
    ids = np.random.default_rng(0).integers(3, 97, (2, 16))
    ids[:, 0], ids[0, 9:], ids[1, 12:] = 97, 98, 98
    with torch.no_grad():
        wanted = theirs(torch.tensor(ids), output_hidden_states=True)
    got = jax.jit(ours.__call__)(jnp.asarray(ids))
    pooled = wanted.text_embeds if projects else wanted.pooler_output
    for mine, other in zip(
        got, (wanted.last_hidden_state, wanted.hidden_states[-2], pooled), strict=True
    ):
        assert mine.shape == tuple(other.shape)
        assert np.abs(np.asarray(mine) - other.numpy()).max() <= _CLIP
    again = ours(jnp.asarray(ids), ours.embed(jnp.asarray(ids)))
    assert np.abs(np.asarray(again.last - got.last)).max() <= _CLIP


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "use_quant_conv": False,
            "use_post_quant_conv": False,
            "mid_block_add_attention": False,
        },
    ],
    ids=["sd", "bare"],
)
def test_autoencoder(changes: dict[str, Any], tmp_path: Path) -> None:
    theirs = models.torch_autoencoder(**changes)
    ours = load_network(models.saved(theirs, tmp_path), AutoencoderConfig.read, Autoencoder)
    rng = np.random.default_rng(0)
    pixels = rng.uniform(-1, 1, (1, 3, 24, 32)).astype(np.float32)
    latents = rng.standard_normal((1, 4, 6, 8)).astype(np.float32)
    factor = theirs.config.scaling_factor
    with torch.no_grad():
        encoded = theirs.encode(torch.tensor(pixels)).latent_dist.mode() * factor
        decoded = theirs.decode(torch.tensor(latents) / factor).sample
    for ours_of, given, wanted in (
        (ours.encode, pixels, encoded),
        (ours.decode, latents, decoded),
    ):
        got = np.asarray(jax.jit(ours_of)(given.transpose(0, 2, 3, 1))).transpose(0, 3, 1, 2)
        assert np.abs(wanted.numpy()).max() > 0.05
        assert np.abs(got - wanted.numpy()).max() <= _VAE


def tanh_gelu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wordlight.backends.flax.transformer.gelu", jax.nn.gelu)


def large_epsilon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wordlight.backends.flax.transformer._NORM_EPSILON", 1e-5)


@pytest.mark.parametrize("mutate", [tanh_gelu, pytest.param(large_epsilon, marks=pytest.mark.slow)])
def test_the_comparison_sees_small_errors(
    mutate: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Both stood in the former Flax code of diffusers."""
    mutate(monkeypatch)
    output, probabilities = compare_unet(models.SD2, tmp_path, (13, 10))
    # The first shows in the output, four times the tolerance; the second in the probabilities.
    worst = max(output / _UNET, max(probabilities.values()) / _PROBABILITIES)
    assert worst > 3
