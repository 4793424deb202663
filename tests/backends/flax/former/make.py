"""Writes checkpoint.tar.xz: a tiny pipeline that diffusers' former Flax classes made and saved, and
what they computed with it.

These classes were in diffusers up to 0.39 and in transformers up to 4.

In an environment of its own:

    pip install diffusers==0.39.0 transformers==4.57.6 jax==0.10.2 jaxlib==0.10.2 flax==0.12.8
    python tests/backends/flax/former/make.py tests/backends/flax/former/checkpoint.tar.xz
"""

from __future__ import annotations

import json
import math
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from diffusers import (
    FlaxAutoencoderKL,
    FlaxDDIMScheduler,
    FlaxStableDiffusionPipeline,
    FlaxUNet2DConditionModel,
)
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import save_file
from transformers import CLIPTextConfig, CLIPTokenizer, FlaxCLIPTextModel

CONTEXT, TEXT = 16, 32
#: Few different numbers, none of them zero: they compress, and bfloat16 holds them exactly.
LEVELS = np.array([-7, -5, -3, -1, 1, 3, 5, 7]) / 8
SPREAD = float(np.sqrt((LEVELS**2).mean()))


def filled(shapes: Any, seed: int) -> Any:
    """Random parameters: kernels that keep the scale of what goes through, norms and biases that
    differ from each other."""
    draw = np.random.default_rng(seed)
    made = {}
    for path, leaf in flatten_dict(shapes).items():
        numbers = draw.choice(LEVELS, leaf.shape)
        if path[-1] == "kernel":
            fan_in = math.prod(leaf.shape[:-1])
            made[path] = numbers * 2.0 ** round(-math.log2(SPREAD * math.sqrt(fan_in)))
        else:
            made[path] = (path[-1] == "scale") + numbers / 4
    return unflatten_dict({path: jnp.asarray(value, jnp.float32) for path, value in made.items()})


def tokenizer(folder: Path) -> CLIPTokenizer:
    """Letters, and one word."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    merges = ["r e", "re d</w>"]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "re", "red</w>"]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocab = folder / "vocab.json"
    vocab.write_text(json.dumps({word: number for number, word in enumerate(words)}))
    rules = folder / "merges.txt"
    rules.write_text("\n".join(["#version: 0.2", *merges]))
    return CLIPTokenizer(str(vocab), str(rules), model_max_length=CONTEXT)


def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        words = tokenizer(Path(scratch))
    text = FlaxCLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=TEXT,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT,
            bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
            projection_dim=TEXT,
        )
    )
    unet = FlaxUNet2DConditionModel(
        sample_size=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(32, 32),
        layers_per_block=1,
        attention_head_dim=4,
        cross_attention_dim=TEXT,
    )
    vae = FlaxAutoencoderKL(
        sample_size=16,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        norm_num_groups=4,
    )
    scheduler = FlaxDDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        set_alpha_to_one=False,
        clip_sample=False,
        steps_offset=1,
    )
    params = {
        "text_encoder": filled(text.params, 1),
        "unet": filled(jax.eval_shape(unet.init_weights, jax.random.key(0)), 2),
        "vae": filled(jax.eval_shape(vae.init_weights, jax.random.key(0)), 3),
        "scheduler": scheduler.create_state(),
    }

    draw = np.random.default_rng(4)
    ids = np.array([words("a red cat", padding="max_length")["input_ids"]])
    latents = draw.standard_normal((1, 4, 8, 8)).astype(np.float32)
    image = draw.uniform(-1, 1, (1, 3, 16, 16)).astype(np.float32)
    with jax.default_matmul_precision("highest"):
        states = text(ids, params=params["text_encoder"])
        noise = unet.apply({"params": params["unet"]}, latents, 501, states.last_hidden_state)
        weights = {"params": params["vae"]}
        pixels = vae.apply(weights, latents, method=vae.decode).sample
        encoded = vae.apply(weights, image, method=vae.encode).latent_dist.mode()
    outputs = {
        "ids": ids,
        "states": states.last_hidden_state,
        "pooled": states.pooler_output,
        "latents": latents,
        "timestep": np.array([501]),
        "noise": noise.sample,
        "pixels": pixels,
        "image": image,
        "encoded": encoded.transpose(0, 3, 1, 2),
    }

    pipe = FlaxStableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=words,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        # As on the branches called bf16: half of each number.
        half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params["unet"])
        pipe.save_pretrained(folder / "model", params={**params, "unet": half})
        save_file(
            {name: np.ascontiguousarray(value) for name, value in outputs.items()},
            folder / "outputs.safetensors",
        )
        with tarfile.open(target, "w:xz", preset=9) as archive:
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    archive.add(path, path.relative_to(folder).as_posix())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
