"""What tracing costs: time against the same sampling untraced, and memory held.

Ratios within one run on one machine; the rounds alternate, so that both see the same load.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
import warnings
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from wordlight.attribution import DAAM
from wordlight.backends import trace
from wordlight.backends.scenes.tokenizer import BOS_ID, EOS_ID, build_tokenizer, vocabulary

PROMPT = "a red circle to the left of two small blue squares on a black background"
CONTEXT = 77


def narrow_pipeline() -> StableDiffusionPipeline:
    """Stable Diffusion 1.5's blocks, heads and context, a fifth as wide, with random weights."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=32,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        block_out_channels=(64, 128, 256, 256),
        layers_per_block=2,
        cross_attention_dim=768,
        attention_head_dim=8,
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(vocabulary()),
            hidden_size=768,
            intermediate_size=768,
            num_hidden_layers=2,
            num_attention_heads=12,
            max_position_embeddings=CONTEXT,
            bos_token_id=BOS_ID,
            eos_token_id=EOS_ID,
            pad_token_id=EOS_ID,
        )
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
    )
    tokenizer = build_tokenizer()
    tokenizer.model_max_length = CONTEXT
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sample(pipe: StableDiffusionPipeline, steps: int, side: int) -> Any:
    generator = torch.Generator().manual_seed(0)
    return pipe(
        PROMPT, num_inference_steps=steps, height=side, width=side, generator=generator
    ).images


def seconds(pipe: StableDiffusionPipeline, traced: bool, steps: int) -> float:
    started = time.perf_counter()
    if traced:
        with trace(pipe) as record:
            sample(pipe, steps, 256)
        DAAM.from_trace(record)
    else:
        sample(pipe, steps, 256)
    return time.perf_counter() - started


def live_tensor_bytes() -> int:
    """Memory of all tensors that Python still knows, counting shared storage once."""
    gc.collect()
    with warnings.catch_warnings():
        # Some lazily deprecated object always is among all there are.
        warnings.simplefilter("ignore")
        tensors = [t for t in gc.get_objects() if isinstance(t, torch.Tensor)]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def held(pipe: StableDiffusionPipeline, steps: int, side: int) -> int:
    """Bytes that a trace keeps after its block, without the trajectory's latents and text."""
    # The scheduler's own table of timesteps is there before and after.
    pipe.scheduler.set_timesteps(steps)
    before = live_tensor_bytes()
    with trace(pipe) as record:
        sample(pipe, steps, side)
    kept = live_tensor_bytes() - before
    (call,) = record._recorder.calls
    own = [*call.latents, call.embeddings, call.negative_embeddings]
    return kept - sum(t.untyped_storage().nbytes() for t in own if t is not None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds (5)")
    parser.add_argument("--steps", type=int, default=10, help="denoising steps a round (10)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    pipe = narrow_pipeline()
    for traced in (False, True):
        seconds(pipe, traced, 1)
    ratios, plain = [], []
    for _ in range(options.rounds):
        untraced, traced_time = (
            seconds(pipe, False, options.steps),
            seconds(pipe, True, options.steps),
        )
        ratios.append(traced_time / untraced)
        plain.append(untraced)
    short, long = held(pipe, 10, 256), held(pipe, 50, 256)
    result = {
        "traced/untraced": round(statistics.median(ratios), 3),
        "lowest": round(min(ratios), 3),
        "highest": round(max(ratios), 3),
        "rounds": options.rounds,
        "untraced seconds": round(statistics.median(plain), 2),
        "held bytes, 512 px": held(pipe, 2, 512),
        "held bytes, 256 px, 10 steps": short,
        "held bytes, 256 px, 50 steps": long,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    if options.json:
        print(json.dumps(result))
        return
    print("Tracing, on a narrow UNet with Stable Diffusion 1.5's blocks and heads:")
    for name, value in result.items():
        print(f"  {name:30} {value}")


if __name__ == "__main__":
    main()
