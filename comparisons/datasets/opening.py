"""``open_dataset``: a data set by the name of its format and its place."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

from wordlight.comparisons.datasets.dataset import Dataset, DatasetError, OnError

#: Formats by name: where their class is.
FORMATS = {
    "coco": "wordlight.comparisons.datasets.coco:Coco",
    "coco-gen": "wordlight.comparisons.datasets.coco_gen:CocoGen",
    "folder": "wordlight.comparisons.datasets.folder:PlainFolder",
    "imagenet-segmentation": (
        "wordlight.comparisons.datasets.imagenet_segmentation:ImageNetSegmentation"
    ),
    "rendered-scenes": "wordlight.comparisons.datasets.rendered_scenes:RenderedScenes",
    "voc": "wordlight.comparisons.datasets.voc:Voc",
}
#: Formats that are no files.
PLACELESS = ("rendered-scenes",)


def open_dataset(spec: str | Path | Dataset, *, on_error: OnError = "raise") -> Dataset:
    """Open a data set; nothing of its images is read yet.

    Args:
        spec: ``"FORMAT:PATH"`` or ``"PATH"``, whose format is told by its layout; options follow
            with commas, as ``"voc:VOC2012,subset=val"``. Or a data set, which is given back.
        on_error: see ``Dataset``.

    Raises:
        DatasetError: no such place, format or option, or a layout that no format has.
    """
    if isinstance(spec, Dataset):
        return spec
    name, place, options = parse(str(spec))
    if name is None:
        name = _told_by_layout(Path(place))
    kind = _class_of(name)
    return _made(name, kind, place, options, on_error)


def parse(spec: str) -> tuple[str | None, str, dict[str, str]]:
    """The format (None where it isn't said), the place and the options of a spec."""
    first, *rest = re.split(r",(?=[a-z_]+=)", spec)
    options: dict[str, str] = {}
    for text in rest:
        key, _, value = text.partition("=")
        if key in options:
            raise DatasetError(f"{spec!r} gives {key} twice")
        options[key] = value
    name, colon, place = first.partition(":")
    if first in PLACELESS:
        return first, "", options
    if colon and re.fullmatch(r"[a-z][a-z0-9-]+", name):
        if name not in FORMATS:
            raise DatasetError(f"no data set format {name!r}; there are {', '.join(FORMATS)}")
        return name, place, options
    return None, first, options


def _class_of(name: str) -> type[Dataset]:
    module, _, attribute = FORMATS[name].partition(":")
    kind: type[Dataset] = getattr(import_module(module), attribute)
    return kind


def _made(
    name: str, kind: type[Dataset], place: str, options: dict[str, str], on_error: OnError
) -> Dataset:
    known = {
        key: parameter
        for key, parameter in signature(kind).parameters.items()
        if key not in ("root", "on_error")
    }
    if unknown := sorted(options.keys() - known.keys()):
        there = ", ".join(known) or "none"
        raise DatasetError(f"a {name} data set has no option {unknown[0]!r}; it has: {there}")
    if not place and name not in PLACELESS:
        raise DatasetError(f"say where the {name} data set is: {name}:PATH")
    given: dict[str, Any] = {
        key: _yes_or_no(key, text) if isinstance(known[key].default, bool) else text
        for key, text in options.items()
    }
    make: Callable[..., Dataset] = kind
    arguments = () if name in PLACELESS else (place,)
    try:
        return make(*arguments, on_error=on_error, **given)
    except DatasetError:
        raise
    except ValueError as error:
        raise DatasetError(str(error)) from None


def _yes_or_no(key: str, text: str) -> bool:
    if text not in ("yes", "no"):
        raise DatasetError(f"{key} is yes or no, not {text!r}")
    return text == "yes"


def _told_by_layout(place: Path) -> str:
    if not place.exists():
        raise DatasetError(
            f"there is no data set at {place}: give a path, or FORMAT:PATH with one of "
            f"{', '.join(FORMATS)}"
        )
    if place.is_file():
        if place.suffix in (".mat", ".h5", ".hdf5"):
            return "imagenet-segmentation"
        raise DatasetError(_unclear(place))
    if not place.is_dir():
        raise DatasetError(f"{place} is neither a folder nor a file")
    if (place / "JPEGImages").is_dir():
        return "voc"
    if (place / "annotations").is_dir():
        return "coco"
    if any(path.suffix in (".jsonl", ".parquet") for path in place.iterdir()):
        return "folder"
    if any((path / "prompt.txt").is_file() for path in place.iterdir() if path.is_dir()):
        return "coco-gen"
    raise DatasetError(_unclear(place))


def _unclear(place: Path) -> str:
    return (
        f"{place} has no layout that is known: say its format, as FORMAT:{place} with one of "
        f"{', '.join(FORMATS)}"
    )
