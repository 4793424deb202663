"""``load_segmenter``: a segmenter by its kind and where its weights are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from wordlight.backends.segmenters.cache import default_folder
from wordlight.backends.segmenters.matching import read_synonyms
from wordlight.backends.segmenters.segmenter import Segmenter, SegmenterLoadError

#: The options of each kind.
KINDS = {
    "mask2former": ("task", "synonyms", "revision"),
    "oneformer": ("task", "synonyms", "revision"),
    "clipseg": ("classes", "threshold", "revision"),
}
#: Comes with the package, and is named by itself.
EMBEDDED = "things"


def load_segmenter(
    spec: str, *, device: str | None = None, cache: str | Path | None = None
) -> Segmenter:
    """Load a supervised segmenter.

    Args:
        spec: ``KIND:MODEL``, a Hub id or a folder, with options after commas:
            ``"mask2former:facebook/mask2former-swin-base-coco-panoptic,task=panoptic"``.
            ``synonyms`` and ``classes`` name files: lines ``class<TAB>word, word``, and a name a
            line. ``"things"`` is the embedded one of the nouns of ``things``.
        device: a GPU where there is one, if None.
        cache: the folder in which masks are kept; see ``default_folder``.

    Raises:
        SegmenterLoadError: no such kind, option, model or file.
    """
    if spec == EMBEDDED:
        from wordlight.backends.segmenters.things import Things

        return Things()
    first, *rest = re.split(r",(?=[a-z]+=)", spec)
    kind, colon, model = first.partition(":")
    if kind not in KINDS or not colon or not model:
        raise SegmenterLoadError(
            f"a segmenter is named as KIND:MODEL with one of {', '.join(KINDS)}, or as {EMBEDDED}, "
            f"not {spec!r}"
        )
    given = dict(text.split("=", 1) for text in rest)
    if unknown := sorted(given.keys() - set(KINDS[kind])):
        raise SegmenterLoadError(
            f"a {kind} has no option {unknown[0]!r}; it has {', '.join(KINDS[kind])}"
        )
    options: dict[str, Any] = dict(given)
    try:
        if "synonyms" in given:
            options["synonyms"] = read_synonyms(Path(given["synonyms"]))
        if "classes" in given:
            lines = Path(given["classes"]).read_text(encoding="utf-8").splitlines()
            options["classes"] = tuple(line.strip() for line in lines if line.strip())
        if "threshold" in given:
            options["threshold"] = float(given["threshold"])
    except (OSError, ValueError) as error:
        raise SegmenterLoadError(f"{spec}: {error}") from None
    folder = default_folder() if cache is None else Path(cache)
    from wordlight.backends.segmenters.clip_seg import ClipSeg
    from wordlight.backends.segmenters.universal import Mask2Former, OneFormer

    made: dict[str, Any] = {"mask2former": Mask2Former, "oneformer": OneFormer, "clipseg": ClipSeg}
    segmenter: Segmenter = made[kind](model, cache=folder, device=device, **options)
    return segmenter
