"""What tracing costs: time against the same sampling untraced, and memory held.

Ratios within one run on one machine: of CPU seconds on a CPU, of the time between two waits for the
device on a GPU. Each round takes all ways in an order drawn anew, so that none is always first.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import time
import warnings
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

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


def sample(
    pipe: StableDiffusionPipeline, steps: int, side: int, images: int = 1, output: str = "pil"
) -> Any:
    generator = torch.Generator().manual_seed(0)
    return pipe(
        PROMPT,
        num_inference_steps=steps,
        height=side,
        width=side,
        num_images_per_prompt=images,
        generator=generator,
        output_type=output,
    ).images


#: The ways to draw that a round compares with each other.
WAYS = ("untraced", "traced", "traced, maps included")


def draw(pipe: StableDiffusionPipeline, way: str, sizes: tuple[int, int, int], output: str) -> None:
    """Draw in one of ``WAYS``; sizes are steps, side in pixels and number of images."""
    steps, side, images = sizes
    if way == "untraced":
        sample(pipe, steps, side, images, output)
        return
    with trace(pipe) as record:
        sample(pipe, steps, side, images, output)
    if way != "traced":
        _ = [means.means for means in record.attention]


def seconds(pipe: StableDiffusionPipeline, way: str, sizes: Any, output: str) -> float:
    """Seconds of the CPU, or of the wall where a GPU works."""
    on_gpu = pipe.device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    if on_gpu:
        torch.cuda.synchronize()
    started = clock()
    draw(pipe, way, sizes, output)
    if on_gpu:
        torch.cuda.synchronize()
    return clock() - started


def ratios(
    pipe: StableDiffusionPipeline, sizes: tuple[int, int, int], output: str, rounds: int
) -> dict[str, float]:
    """Median over rounds of each way's time against the untraced one's, with the spread."""
    for way in WAYS:
        draw(pipe, way, (1, *sizes[1:]), output)
    order = random.Random(0)
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        taken = {way: seconds(pipe, way, sizes, output) for way in order.sample(WAYS, k=len(WAYS))}
        for way in WAYS[1:]:
            found[way].append(taken[way] / taken["untraced"])
        found["untraced"].append(taken["untraced"])
    told = {"untraced seconds": round(statistics.median(found.pop("untraced")), 2)}
    for way, values in found.items():
        told[way] = round(statistics.median(values), 3)
        told[f"{way}, lowest"] = round(min(values), 3)
        told[f"{way}, highest"] = round(max(values), 3)
    return told


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
    parser.add_argument("--rounds", type=int, default=7, help="rounds (7)")
    parser.add_argument("--steps", type=int, default=10, help="denoising steps a round (10)")
    parser.add_argument("--side", type=int, default=256, help="pixels (256)")
    parser.add_argument("--images", type=int, default=1, help="in a batch (1)")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (1)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16"))
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pipe = narrow_pipeline().to(options.device)
    if options.dtype != "float32":
        pipe = pipe.to(getattr(torch, options.dtype))
    sizes = (options.steps, options.side, options.images)
    result: dict[str, Any] = {
        f"output {output}": ratios(pipe, sizes, output, options.rounds)
        for output in ("pil", "latent")
    }
    result |= {
        "held bytes, 512 px": held(pipe, 2, 512),
        "held bytes, 256 px, 10 steps": held(pipe, 10, 256),
        "held bytes, 256 px, 50 steps": held(pipe, 50, 256),
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "torch": torch.__version__,
        **vars(options),
    }
    if options.json:
        print(json.dumps(result))
        return
    print("Tracing, on a narrow UNet with Stable Diffusion 1.5's blocks and heads:")
    for name, value in result.items():
        if isinstance(value, dict):
            print(f"  {name}")
            for inner, number in value.items():
                print(f"    {inner:30} {number}")
        else:
            print(f"  {name:32} {value}")


if __name__ == "__main__":
    main()
