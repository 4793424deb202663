"""What tracing costs: time against the same sampling untraced, and memory held.

Ratios within one run on one machine: of CPU seconds on a CPU, of the time between two waits for the
device on a GPU. Each round takes all ways in an order drawn anew, so that none is always first.
"""

from __future__ import annotations

import argparse
import gc
import math
import statistics
import time
import warnings
from functools import partial
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from measuring import Report, add_rounds, rounds_of
from models import CONFIGS, build

from wordlight.backends import trace

PROMPT = "a red circle to the left of two small blue squares on a black background"


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


OUTPUTS = ("latent", "pil")
#: The ways to draw that a round compares with each other.
WAYS = ("untraced", "traced", "traced, maps included")


def draw(pipe: StableDiffusionPipeline, way: str, sizes: tuple[int, int, int], output: str) -> None:
    """Draw in one of ``WAYS``; sizes are steps, side in pixels and number of images."""
    steps, side, images = sizes
    if way == "untraced":
        sample(pipe, steps, side, images, output)
    else:
        with trace(pipe) as record:
            sample(pipe, steps, side, images, output)
        if way != "traced":
            _ = [means.means for means in record.attention]
    if pipe.device.type == "cuda":
        torch.cuda.synchronize()


def ratios(
    pipe: StableDiffusionPipeline,
    sizes: tuple[int, int, int],
    output: str,
    rounds: int,
    within: float = math.inf,
) -> dict[str, float]:
    """Median over rounds of each way's time against the untraced one's, with the spread.

    Time is the CPU's, or the wall's where a GPU works.
    """
    for way in WAYS:
        draw(pipe, way, (1, *sizes[1:]), output)
    works = {way: partial(draw, pipe, way, sizes, output) for way in WAYS}
    clock = time.perf_counter if pipe.device.type == "cuda" else time.process_time
    found = rounds_of(works, rounds, within=within, clock=clock)
    untraced = found.pop("untraced")
    told = {"rounds": len(untraced), "untraced seconds": round(statistics.median(untraced), 2)}
    for way, taken in found.items():
        values = [one / other for one, other in zip(taken, untraced, strict=True)]
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


def sizes_of(text: str) -> tuple[int, int]:
    """Read ``512`` or ``512x4``: pixels a side, and images of a batch."""
    side, _, images = text.partition("x")
    return int(side), int(images or 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=CONFIGS, default="narrow", help="(narrow)")
    add_rounds(parser, 7)
    parser.add_argument("--steps", type=int, default=10, help="denoising steps a round (10)")
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=sizes_of,
        default=[(256, 1)],
        metavar="PIXELS[xIMAGES]",
        help="pixels a side, and images in a batch (256)",
    )
    parser.add_argument("--output", nargs="+", choices=OUTPUTS, default=OUTPUTS, help="(both)")
    parser.add_argument(
        "--held",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="memory that a trace keeps too, of runs of up to 50 steps",
    )
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (1)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16"))
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pipe = build(options.model, options.device, options.dtype)
    report = Report(options.json)
    tell = report.tell
    tell("model", f"{options.model}, {options.dtype}, {options.steps} steps")
    tell("device", torch.cuda.get_device_name() if options.device == "cuda" else "cpu")
    tell("torch", torch.__version__)
    for side, images in options.sizes:
        sizes = (options.steps, side, images)
        for output in options.output:
            found = ratios(pipe, sizes, output, options.rounds, options.within)
            tell(f"{side} px, {images} images, output {output}", found)
    if options.held:
        tell("held bytes, 512 px", held(pipe, 2, 512))
        tell("held bytes, 256 px, 10 steps", held(pipe, 10, 256))
        tell("held bytes, 256 px, 50 steps", held(pipe, 50, 256))
    report.end()


if __name__ == "__main__":
    main()
