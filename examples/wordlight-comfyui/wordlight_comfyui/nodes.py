"""The nodes: explain an image, load and save maps, and make overlays and masks of them.

In ComfyUI an IMAGE is ``(batch, height, width, 3)`` and a MASK ``(batch, height, width)``, both
float32 from 0 to 1.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from wordlight_comfyui.places import find_maps, new_maps_file

from wordlight import load
from wordlight.attribution import AttributionMaps, registry
from wordlight.attribution.maps import WordMap
from wordlight.backends import Backend

CATEGORY = "wordlight"
MAPS = "WORDLIGHT_MAPS"


class Explain:
    """Maps of every word of a prompt over an image, by one of wordlight's methods.

    The image is noised and the model explained on it; it needn't have drawn it itself.
    """

    CATEGORY, FUNCTION = CATEGORY, "explain"
    RETURN_TYPES, RETURN_NAMES = (MAPS,), ("maps",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        """The node's inputs."""
        return {
            "required": {
                "image": ("IMAGE",),
                "prompt": ("STRING", {"multiline": True, "default": ""}),
                "model": ("STRING", {"default": "scenes"}),
                "method": (_methods(), {"default": "daam"}),
                "steps": ("INT", {"default": 20, "min": 1, "max": 200}),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**32 - 1}),
            }
        }

    def explain(
        self, image: torch.Tensor, prompt: str, model: str, method: str, steps: int, seed: int
    ) -> tuple[AttributionMaps]:
        """Explain the first image of a batch.

        Raises ValueError for an empty prompt, or an image of a size that the model can't draw.
        """
        if not prompt.strip():
            raise ValueError("the prompt is empty: say in words what the image shows")
        backend = _backend(model)
        pixels = (image[0].clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
        (run,) = backend.invert([pixels], [prompt], seed=seed, steps=steps)
        return (registry.construct(backend, method, {}).attribute(run),)


class LoadMaps:
    """Maps from a file in ComfyUI's input or output folder, with their image and prompt."""

    CATEGORY, FUNCTION = CATEGORY, "load"
    RETURN_TYPES, RETURN_NAMES = (MAPS, "IMAGE", "STRING"), ("maps", "image", "prompt")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """The node's inputs."""
        return {"required": {"maps_file": ("STRING", {"default": "maps.safetensors"})}}

    @classmethod
    def VALIDATE_INPUTS(cls, maps_file: str) -> bool | str:  # noqa: N802
        """True, or what is wrong with the file's name."""
        try:
            find_maps(maps_file)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def IS_CHANGED(cls, maps_file: str) -> float:  # noqa: N802
        """The file's time, so that another one is read again."""
        return find_maps(maps_file).stat().st_mtime

    def load(self, maps_file: str) -> tuple[AttributionMaps, torch.Tensor, str]:
        """Read the file; raises ValueError for a damaged one."""
        maps = AttributionMaps.load(find_maps(maps_file))
        return maps, _image(maps.image), maps.prompt


class SaveMaps:
    """Maps as a file in ComfyUI's output folder, for Python and for ``Load word maps``."""

    CATEGORY, FUNCTION, OUTPUT_NODE = CATEGORY, "save", True
    RETURN_TYPES, RETURN_NAMES = ("STRING",), ("maps_file",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """The node's inputs."""
        return {
            "required": {"maps": (MAPS,), "prefix": ("STRING", {"default": "wordlight"})},
        }

    def save(self, maps: AttributionMaps, prefix: str) -> tuple[str]:
        """Write a new file, whose name begins with ``prefix``."""
        file = new_maps_file(prefix)
        maps.save(file)
        return (str(file),)


class Overlay:
    """A word's map over the image that it explains, or over another of the same shape."""

    CATEGORY, FUNCTION = CATEGORY, "overlay"
    RETURN_TYPES, RETURN_NAMES = ("IMAGE",), ("overlay",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """The node's inputs."""
        return {
            "required": {
                "maps": (MAPS,),
                "word": ("STRING", {"default": ""}),
                "opacity": ("FLOAT", {"default": 0.65, "min": 0.0, "max": 1.0, "step": 0.05}),
            }
        }

    def overlay(self, maps: AttributionMaps, word: str, opacity: float) -> tuple[torch.Tensor]:
        """Draw a word's map over the image.

        Raises KeyError, with the words that there are, for another word.
        """
        return (_image(np.asarray(_map_of(maps, word).overlay(opacity))),)


class Mask:
    """A word's map as a mask for inpainting or compositing, cut at a threshold or soft."""

    CATEGORY, FUNCTION = CATEGORY, "mask"
    RETURN_TYPES, RETURN_NAMES = ("MASK",), ("mask",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """The node's inputs."""
        return {
            "required": {
                "maps": (MAPS,),
                "word": ("STRING", {"default": ""}),
                "threshold": ("FLOAT", {"default": 0.4, "min": 0.0, "max": 1.0, "step": 0.05}),
                "soft": ("BOOLEAN", {"default": False}),
            }
        }

    def mask(
        self, maps: AttributionMaps, word: str, threshold: float, soft: bool
    ) -> tuple[torch.Tensor]:
        """Give the mask of a word or phrase, of the image's size.

        Raises KeyError, with the words that there are, for another word.
        """
        found = _map_of(maps, word)
        values = found.normalised() if soft else found.mask(threshold)
        return (torch.from_numpy(np.array(values, dtype=np.float32))[None],)


def _methods() -> list[str]:
    """The methods of the registry, but for controls, which explain nothing."""
    return sorted(n for n, kind in registry.available().items() if kind.family != "control")


def _map_of(maps: AttributionMaps, word: str) -> WordMap:
    if not word.strip():
        raise ValueError(f"name a word of the prompt {maps.prompt!r}")
    return maps[word.strip()]


def _image(pixels: np.ndarray[Any, Any]) -> torch.Tensor:
    rgb = np.asarray(Image.fromarray(pixels).convert("RGB"), np.float32)
    return torch.from_numpy(rgb / 255.0)[None]


@lru_cache(maxsize=1)
def _backend(model: str) -> Backend:
    return load(Path(model) if Path(model).is_dir() else model)


NODE_CLASS_MAPPINGS = {
    "WordlightExplain": Explain,
    "WordlightLoadMaps": LoadMaps,
    "WordlightSaveMaps": SaveMaps,
    "WordlightOverlay": Overlay,
    "WordlightMask": Mask,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "WordlightExplain": "Explain image by words",
    "WordlightLoadMaps": "Load word maps",
    "WordlightSaveMaps": "Save word maps",
    "WordlightOverlay": "Word overlay",
    "WordlightMask": "Word mask",
}
