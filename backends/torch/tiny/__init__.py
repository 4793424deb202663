"""Tiny pipelines of diffusers' families: real classes all through, random weights, a second a run.

For tests, for ``wordlight models --matrix``, and for whoever adds a family: no weights are needed
to see whether words are labelled, attention is traced and gradients flow.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from wordlight.backends.torch.model import Model
from wordlight.backends.torch.tiny.aura_flow import aura_flow
from wordlight.backends.torch.tiny.cogview_4 import cogview_4
from wordlight.backends.torch.tiny.ernie_image import ernie_image
from wordlight.backends.torch.tiny.flux import chroma, flux_dev, flux_kontext, flux_schnell
from wordlight.backends.torch.tiny.flux_2 import flux_2_dev, flux_2_klein
from wordlight.backends.torch.tiny.glm_image import glm_image
from wordlight.backends.torch.tiny.hidream import hidream
from wordlight.backends.torch.tiny.hunyuan_image import hunyuan_image
from wordlight.backends.torch.tiny.kandinsky_5 import kandinsky_5
from wordlight.backends.torch.tiny.krea_2 import krea_2
from wordlight.backends.torch.tiny.longcat_image import longcat_image
from wordlight.backends.torch.tiny.lumina_2 import lumina_2
from wordlight.backends.torch.tiny.nucleus_image import nucleus_image
from wordlight.backends.torch.tiny.ovis_image import ovis_image
from wordlight.backends.torch.tiny.pixart import pixart_sigma
from wordlight.backends.torch.tiny.prx import prx
from wordlight.backends.torch.tiny.qwen_image import qwen_image
from wordlight.backends.torch.tiny.sana import sana
from wordlight.backends.torch.tiny.stable_diffusion import (
    instruct_pix2pix,
    latent_consistency,
    stable_diffusion,
    stable_diffusion_xl,
    stable_diffusion_xl_refiner,
    stable_diffusion_xl_turbo,
)
from wordlight.backends.torch.tiny.stable_diffusion_3 import (
    stable_diffusion_3,
    stable_diffusion_35,
)
from wordlight.backends.torch.tiny.video import ltx, wan, wan_22, wan_22_small
from wordlight.backends.torch.tiny.z_image import z_image

#: Height and width of the tiny pictures: not square, so that mixing them up shows.
SIZE = (32, 64)


@dataclass(frozen=True)
class TinyFamily:
    """A recipe for a family's tiny pipeline, and for its call.

    ``call`` are arguments of the pipeline's call that the family needs; ``edits`` says whether it
    needs a picture to start from. ``attributes`` are of the pipeline, which doesn't save them.
    """

    build: Callable[[], Any]
    call: Mapping[str, Any] = field(default_factory=dict)
    edits: bool = False
    attributes: Mapping[str, Any] = field(default_factory=dict)


_SIZED = {"height": SIZE[0], "width": SIZE[1]}
_LARGER = {"height": 2 * SIZE[0], "width": 2 * SIZE[1]}
_VIDEO = {**_SIZED, "num_frames": 9}

TINY: dict[str, TinyFamily] = {
    "sd": TinyFamily(stable_diffusion, _SIZED),
    "lcm": TinyFamily(latent_consistency, _SIZED),
    "instruct-pix2pix": TinyFamily(instruct_pix2pix, edits=True),
    "sdxl": TinyFamily(stable_diffusion_xl, _SIZED),
    "sdxl-turbo": TinyFamily(stable_diffusion_xl_turbo, {**_SIZED, "guidance_scale": 0.0}),
    "sdxl-refiner": TinyFamily(stable_diffusion_xl_refiner, {"strength": 1.0}, edits=True),
    "sd3": TinyFamily(stable_diffusion_3, _SIZED),
    "sd3.5": TinyFamily(stable_diffusion_35, _SIZED),
    "flux-dev": TinyFamily(flux_dev, _SIZED),
    "flux-schnell": TinyFamily(flux_schnell, {**_SIZED, "max_sequence_length": 256}),
    "flux-kontext": TinyFamily(
        flux_kontext,
        {**_SIZED, "_auto_resize": False, "max_area": SIZE[0] * SIZE[1]},
        edits=True,
    ),
    "flux.2-dev": TinyFamily(flux_2_dev, _SIZED),
    "flux.2-klein": TinyFamily(flux_2_klein, _SIZED),
    "qwen-image": TinyFamily(qwen_image, {**_SIZED, "negative_prompt": " "}),
    "z-image": TinyFamily(z_image, _SIZED),
    "chroma": TinyFamily(chroma, _SIZED),
    "pixart-sigma": TinyFamily(pixart_sigma, {**_SIZED, "use_resolution_binning": False}),
    "sana": TinyFamily(sana, {**_SIZED, "use_resolution_binning": False}),
    "lumina-2": TinyFamily(lumina_2, _LARGER),
    "hunyuan-image": TinyFamily(hunyuan_image, _SIZED),
    "aura-flow": TinyFamily(aura_flow, _SIZED),
    "cogview-4": TinyFamily(cogview_4, _SIZED),
    "glm-image": TinyFamily(glm_image, _LARGER),
    # It draws in a few sizes alone, none of them small.
    "kandinsky-5": TinyFamily(kandinsky_5, _LARGER, attributes={"resolutions": [(128, 64)]}),
    # Every image is scaled to the area of a square of this side.
    "hidream": TinyFamily(hidream, _SIZED, attributes={"default_sample_size": 24}),
    "ovis-image": TinyFamily(ovis_image, _SIZED),
    "longcat-image": TinyFamily(longcat_image, {**_SIZED, "enable_prompt_rewrite": False}),
    "ernie-image": TinyFamily(ernie_image, _SIZED),
    "prx": TinyFamily(prx, {**_SIZED, "use_resolution_binning": False}),
    "krea-2": TinyFamily(krea_2, _SIZED),
    "nucleus-image": TinyFamily(nucleus_image, _SIZED),
    "wan": TinyFamily(wan, _VIDEO),
    "wan-2.2": TinyFamily(wan_22, _VIDEO),
    "wan-2.2-5b": TinyFamily(wan_22_small, _VIDEO),
    "ltx": TinyFamily(ltx, _VIDEO),
}


def build_tiny(family: str, seed: int = 0) -> Any:
    """Return the tiny pipeline of a family, its weights drawn from ``seed``.

    Raises KeyError, with the families there are.
    """
    if family not in TINY:
        raise KeyError(f"no tiny pipeline of {family!r}; there are {', '.join(TINY)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return made_small(family, TINY[family].build())


def made_small(family: str, pipe: Any) -> Any:
    """Return a family's pipeline, such as one read from a folder, with the attributes without which
    it draws no small pictures."""
    for name, value in TINY[family].attributes.items():
        setattr(pipe, name, value)
    return pipe


def draw_tiny(family: str, pipe: Any, prompt: Any, seed: int = 0, **call: Any) -> Any:
    """Call a family's tiny pipeline, or one of another kind with its parts, for two steps.

    Returns what it draws, as arrays. Arguments that another kind doesn't take are left out. A
    prompt without text in quotation marks is put into such where the family reads no other.
    """
    known = TINY[family]
    if prompt is not None:  # as with embeddings in its place
        form = Model.of(pipe).family.prompt_form
        prompts = [one if '"' in one else form.format(prompt=one) for one in _listed(prompt)]
        prompt = prompts[0] if isinstance(prompt, str) else prompts
    options: dict[str, Any] = {"num_inference_steps": 2, "output_type": "np", **known.call}
    if known.edits:
        options["image"] = picture()
    options["generator"] = torch.Generator().manual_seed(seed)
    takes = inspect.signature(pipe.__call__).parameters
    given = {name: value for name, value in {**options, **call}.items() if name in takes}
    return np.asarray(pipe(prompt=prompt, **given)[0])


def _listed(prompt: Any) -> list[str]:
    return [prompt] if isinstance(prompt, str) else list(prompt)


def upper_half() -> Image.Image:
    """A mask of the upper half of such a picture."""
    rows = np.arange(SIZE[0])[:, None] < SIZE[0] // 2
    return Image.fromarray(np.where(rows, 255, 0).astype(np.uint8).repeat(SIZE[1], 1))


def picture(seed: int = 0) -> Image.Image:
    """A picture to be edited, ``SIZE`` pixels of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    return Image.fromarray(pixels)
