"""Makes sets of drawn images, ready for annotation, from captions: COCO-Gen and Unreal-Gen."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from wordlight.backends.backend import Backend
from wordlight.backends.trajectory import Trajectory
from wordlight.comparisons.datasets.coco_gen import IMAGE, PROMPT, SEED
from wordlight.comparisons.datasets.dataset import DatasetError, is_text
from wordlight.comparisons.datasets.files import read_json, read_text
from wordlight.comparisons.datasets.tagged_text import TaggedText, TaggedToken, TaggingError
from wordlight.comparisons.store.lock import locked
from wordlight.comparisons.store.output_folder import writable_folder
from wordlight.comparisons.store.settings_file import holds_same_run, write_settings
from wordlight.comparisons.wording import counted

#: What Unreal-Gen replaces.
REPLACED = ("NOUN", "ADJ")
_PARTIAL = ".making-"
#: In bytes, of a list of captions.
_LONGEST_LIST = 64_000_000


@dataclass(frozen=True)
class Caption:
    """A caption of COCO, and the image that it is of."""

    image: int
    identity: int
    text: str


def read_captions(path: str | Path) -> list[Caption]:
    """The captions of a file such as ``captions_val2014.json``, in the order of their numbers, or
    of any other text file, one a line, numbered from 1.

    Raises DatasetError where it is neither.
    """
    if Path(path).suffix.lower() != ".json":
        return _lines(Path(path))
    data = read_json(Path(path))
    rows = data.get("annotations") if isinstance(data, dict) else None
    if not isinstance(rows, list) or not rows:
        raise DatasetError(f"{path} has no list of annotations: it should hold captions of COCO")
    captions = []
    for row in rows:
        image, identity, text = (
            (row.get("image_id"), row.get("id"), row.get("caption"))
            if isinstance(row, dict)
            else (None, None, None)
        )
        if (
            type(image) is not int
            or type(identity) is not int
            or not isinstance(text, str)
            or not is_text(text)
        ):
            raise DatasetError(f"{path}: no caption: {row!r}"[:300])
        if text.strip():
            captions.append(Caption(image, identity, " ".join(text.split())))
    return sorted(captions, key=lambda one: one.identity)


def _lines(path: Path) -> list[Caption]:
    lines = [" ".join(line.split()) for line in read_text(path, _LONGEST_LIST).splitlines()]
    captions = [Caption(number, number, text) for number, text in enumerate(lines, 1) if text]
    if not captions:
        raise DatasetError(f"{path} has no line of text: it should hold a caption a line")
    return captions


def shuffled(captions: Sequence[Caption], seed: int) -> list[Caption]:
    """One caption an image, in an order that the seed gives."""
    order = np.random.default_rng((seed, 0)).permutation(len(captions))
    first: dict[int, Caption] = {}
    for place in order:
        first.setdefault(captions[place].image, captions[place])
    return list(first.values())


def unreal_captions(
    captions: Sequence[Caption], tagged: Iterable[TaggedText], seed: int
) -> list[Caption]:
    """Captions whose nouns and adjectives are replaced by others of all captions, at random.

    Each word is replaced where it stands, by one of the same part of speech; the more often a word
    is used, the more often it is drawn. Of words that are written as one, as in ``man's``, the
    other stays. So nobody has seen such a scene, and the syntax stays.
    After Unreal-Gen (Tang et al., What the DAAM, arXiv 2210.04885). What replaces a word depends
    on the seed and its caption, not on how many captions are made.

    Raises TaggingError for a caption that isn't tagged, and where there is nothing to draw from.
    """
    by_text = {" ".join(one.text.split()): one for one in tagged}
    missing = [one for one in captions if one.text not in by_text]
    if missing:
        raise TaggingError(
            f"{len(missing)} of {len(captions)} captions have no parts of speech, the first of "
            f"them {missing[0].text!r}"
        )
    pools: dict[str, list[str]] = {tag: [] for tag in REPLACED}
    for one in sorted(captions, key=lambda caption: caption.identity):
        for token in by_text[one.text].tokens:
            if token.tag in pools:
                pools[token.tag].append(token.text)
    made = []
    for one in captions:
        rng = np.random.default_rng((seed, 1, one.identity))
        source = by_text[one.text]
        text, end = "", 0
        for token in source.tokens:
            start, stop = _own_place(source.text, token, end)
            if token.tag in pools and start >= end:
                pool = pools[token.tag]
                text += source.text[end:start] + pool[int(rng.integers(len(pool)))]
                end = stop
        made.append(Caption(one.image, one.identity, " ".join((text + source.text[end:]).split())))
    if not any(pools.values()):
        raise TaggingError("no caption has a noun or an adjective: there is nothing to replace")
    return made


def _own_place(text: str, token: TaggedToken, after: int) -> tuple[int, int]:
    """Return the place at which a word stands by itself, where it shares its place with another."""
    start = text.find(token.text, max(token.start, after), token.stop)
    return (token.start, token.stop) if start < 0 else (start, start + len(token.text))


@dataclass(frozen=True)
class DrawingCounts:
    """Counts of the images that there are, were drawn now, and were left out, with why."""

    there: int
    drawn: int
    left_out: tuple[str, ...]


def make(
    captions: Sequence[Caption],
    backend: Backend,
    out: str | Path,
    n: int,
    *,
    seed: int = 0,
    kind: str = "coco-gen",
    drawn_with: Mapping[str, Any] | None = None,
    on_image: Callable[[], object] = lambda: None,
) -> DrawingCounts:
    """Draw the first ``n`` captions into ``out``, a folder an image, in COCO-Gen's layout.

    A folder is there whole or not at all, so what was stopped goes on where it was; asked for more
    images, it adds them. Masks that annotators put beside an image stay. A caption that the model
    can't read (it is too long) is left out.

    Args:
        captions: in their order, see ``shuffled`` and ``unreal_captions``.
        backend: the model.
        out: the folder.
        n: the number of images.
        seed: with an image's number it gives the seed of its noise.
        kind: the set's name in its settings.
        drawn_with: scheduler, steps and guidance by name, where they aren't the model's own: these
            make another set.
        on_image: called once an image, for a progress bar.

    Raises:
        ValueError: too few captions, or ``out`` holds a set with other settings or is in use.
        OSError: it can't be written.
    """
    if n < 1 or seed < 0:
        raise ValueError(f"n must be 1 or more and the seed 0 or more, not {n} and {seed}")
    if len(captions) < n:
        raise ValueError(f"there are captions for {counted(len(captions), 'image')}, not {n}")
    root = Path(out)
    settings = {**_settings(captions, backend, seed, kind), **(drawn_with or {})}
    drawn, left_out, there = 0, [], 0
    with writable_folder(root), locked(root):
        if not holds_same_run(root, settings):
            # Of the lock's own files the names begin with a point.
            if any(not path.name.startswith(".") for path in root.iterdir()):
                raise ValueError(f"{root} holds something else: use an empty folder")
            write_settings(root, settings)
        for begun in root.glob(f"{_PARTIAL}*"):
            shutil.rmtree(begun)
        for caption in captions:
            if there == n:
                break
            folder = root / str(caption.image)
            if not folder.exists():
                try:
                    backend.tokenize(caption.text)
                except ValueError as error:
                    left_out.append(f"caption {caption.identity}: {error}")
                    continue
                noise = noise_seed(seed, caption.image)
                _write(folder, backend.sample(caption.text, seed=noise), noise)
                drawn += 1
            there += 1
            on_image()
    if there < n:
        raise ValueError(
            f"the model can read captions for {counted(there, 'image')}, not for {n}; "
            f"{len(left_out)} were "
            f"left out, the first of them {left_out[0]}"
        )
    return DrawingCounts(there, drawn, tuple(left_out))


def noise_seed(seed: int, image: int) -> int:
    """The seed of an image's noise."""
    return int(np.random.SeedSequence((seed, 2, image)).generate_state(1)[0])


def _settings(
    captions: Sequence[Caption], backend: Backend, seed: int, kind: str
) -> dict[str, Any]:
    digest = hashlib.sha256()
    for one in captions:
        digest.update(f"{one.image}\0{one.text}\0".encode())
    return {
        "kind": kind,
        "captions": digest.hexdigest(),
        "model": backend.model_id,
        "revision": backend.revision,
        "framework": backend.framework,
        "dtype": backend.dtype,
        "seed": seed,
    }


def _write(folder: Path, drawn: Trajectory, seed: int) -> None:
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=_PARTIAL))
    try:
        # mkdtemp's folder is its owner's alone; a data set is to be shared.
        partial.chmod(0o755)
        (partial / PROMPT).write_text(drawn.prompt + "\n", encoding="utf-8")
        (partial / SEED).write_text(f"{seed}\n", encoding="utf-8")
        buffer = BytesIO()
        Image.fromarray(drawn.image).save(buffer, format="PNG")
        (partial / IMAGE).write_bytes(buffer.getvalue())
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
