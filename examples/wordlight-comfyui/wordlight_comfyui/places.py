"""Files of maps in ComfyUI's own folders, and nowhere else: workflows come from strangers."""

from __future__ import annotations

import re
from pathlib import Path


def _roots() -> tuple[Path, ...]:
    import folder_paths  # ComfyUI's: there once it runs

    folders = (folder_paths.get_input_directory(), folder_paths.get_output_directory())
    return tuple(Path(folder).resolve() for folder in folders)


def find_maps(name: str) -> Path:
    """Return a file of maps in the input or output folder.

    Raises ValueError for a name that leads out of them, or where there is no such file.
    """
    for root in _roots():
        file = (root / name).resolve()
        if file.is_relative_to(root) and file.suffix == ".safetensors" and file.is_file():
            return file
    raise ValueError(f"no file of maps {name!r} in ComfyUI's input or output folder")


def new_maps_file(prefix: str) -> Path:
    """Return a name in the output folder that no file has yet."""
    stem = re.sub(r"[^\w-]+", "-", prefix).strip("-") or "wordlight"
    folder = _roots()[-1]
    taken = {file.name for file in folder.glob(f"{stem}-*.safetensors")}
    number = next(n for n in range(1, len(taken) + 2) if f"{stem}-{n:05d}.safetensors" not in taken)
    return folder / f"{stem}-{number:05d}.safetensors"
