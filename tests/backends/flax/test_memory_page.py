"""docs/flax.md's memory tables are those of the networks."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.backends.flax import full_size
from wordlight.backends.flax.autoencoder import AutoencoderConfig
from wordlight.backends.flax.clip_text import TextEncoderConfig
from wordlight.backends.flax.unet import UNetConfig

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGE = (DOCS / "flax.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("flax_memory", DOCS / "flax_memory.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["flax_memory"] = module  # where dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def test_the_models_are_those_in_use(script: ModuleType) -> None:
    """As their config.json files give them, but for sizes of images and marks of tokens."""
    for model, name in zip(script.MODELS, ("sd-1.5", "sd-2.1", "sdxl"), strict=True):
        given = UNetConfig.read(full_size.UNETS[name])
        same = {f: getattr(given, f) for f in vars(given) if f != "sample_size"}
        assert same == {f: getattr(model.unet, f) for f in same}
        assert given.sample_size == model.side // 8
        for encoder in model.text_encoders:
            width = {768: "sd-1.5", 1024: "sd-2.1", 1280: "sdxl-second"}[encoder.hidden_size]
            config = TextEncoderConfig.read(full_size.TEXT_ENCODERS[width])
            kept = {f: getattr(config, f) for f in vars(config) if f != "eos_token_id"}
            if not config.projects:
                kept.pop("projection_dim")
            assert kept == {f: getattr(encoder, f) for f in kept}
        config = AutoencoderConfig.read(full_size.AUTOENCODERS["sd-1.5"])
        assert config == model.autoencoder


def test_the_tables_of_the_page(script: ModuleType) -> None:
    """The first model's weights; all else takes longer."""
    for row in script.weight_rows(script.MODELS[:1]):
        assert f"{row}\n" in PAGE


@pytest.mark.slow
def test_the_whole_tables_of_the_page(script: ModuleType) -> None:
    for rows in (script.weight_rows(), script.image_rows()):
        assert "\n".join(rows) in PAGE


def test_the_largest_array(script: ModuleType) -> None:
    """Also of what is inside a loop or a compiled part."""
    import jax
    import jax.numpy as jnp

    given = jax.ShapeDtypeStruct((3, 5), jnp.float32)

    def inner(x: jax.Array) -> jax.Array:
        return (x[:, None] * x[None]).sum(axis=1)

    assert script.largest(lambda x: x + 1, given) == 3 * 5 * 4
    assert script.largest(jax.jit(inner), given) == 3 * 3 * 5 * 4
    scanned = script.largest(
        lambda x: jax.lax.scan(lambda c, _: (inner(c), None), x, np.arange(4)), given
    )
    assert scanned == 3 * 3 * 5 * 4
