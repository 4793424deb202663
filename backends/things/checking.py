"""Measures of the segmenter on rendered scenes, whose masks are exact."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wordlight.backends.prompts import RenderedScene
from wordlight.backends.things.render import rendered
from wordlight.backends.things.segment import Segmentation, assemble, predict

_BATCH = 20


def check(split: str, n: int, weights: dict[str, npt.NDArray[np.float32]]) -> dict[str, float]:
    """Return means over the first ``n`` scenes of a split.

    Returns:
        ``iou``: over the nouns that are there, of the noun's mask as found and as drawn; ``class``:
        the share of drawn nouns whose pixels are mostly found as that noun, of those pixels that
        were found to be a thing at all; ``count``: the share of groups found in the right number;
        ``ground``: the share of grounds named rightly.
    """
    ious, classes, counts, grounds = [], [], [], []
    for start in range(0, n, _BATCH):
        items = [rendered(split, index) for index in range(start, min(start + _BATCH, n))]
        covered, scores = predict(weights, np.stack([item.image for item in items]))
        for item, mask, of_classes in zip(items, covered > 0, scores, strict=True):
            found = assemble(mask, of_classes)
            grounds.append(found.ground == item.ground)
            for index in range(len(item.scene.groups)):
                iou, named, counted = _of_group(item, index, found)
                ious.append(iou)
                classes.append(named)
                counts.append(counted)
    return {
        "iou": float(np.mean(ious)),
        "class": float(np.mean(classes)),
        "count": float(np.mean(counts)),
        "ground": float(np.mean(grounds)),
    }


def _of_group(item: RenderedScene, index: int, found: Segmentation) -> tuple[float, bool, bool]:
    group, drawn = item.scene.groups[index], item.group_masks[index]
    members = found.members(item.scene, group)
    mask = np.logical_or.reduce([np.zeros_like(drawn), *(member.mask for member in members)])
    iou = float((mask & drawn).sum() / (mask | drawn).sum())
    areas = {"": 0}
    for other in found.objects:
        areas[other.noun] = areas.get(other.noun, 0) + int((other.mask & drawn).sum())
    return iou, max(areas, key=areas.__getitem__) == group.noun, len(members) == group.count
