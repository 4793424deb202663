"""From an annotated image and its trajectory to what is scored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from wordlight.attribution.words import PromptWords
from wordlight.backends.trajectory import Trajectory
from wordlight.comparisons.datasets.dataset import Annotation, DatasetError
from wordlight.comparisons.datasets.item import Category, DatasetItem, Mask, ScoredWord

#: Words that name no countable object, and are no other word's partner.
_GROUNDS = ("ground", "stuff")
_OBJECTS = ("shape-noun", "object")


def judged_item(
    sample: str,
    split: str,
    trajectory: Trajectory,
    annotations: Sequence[Annotation],
    *,
    one_object: bool = False,
) -> DatasetItem:
    """The words of an image with the masks that their maps should find.

    Masks of another size are brought to the image's: a pixel belongs to it where at least half of
    its area does. A word whose mask has no pixel left is dropped. Words of one mask are of one
    object. Those of objects count for the headline where several were found, or where the data set
    has one object an image by design.

    Raises DatasetError for a word that the prompt, as the model sees it, doesn't have.
    """
    words = PromptWords.of(trajectory.tokens)
    size = trajectory.image.shape[:2]
    found: list[tuple[Annotation, Mask]] = []
    dropped: list[Category] = []
    for one in annotations:
        mask = resized_mask(one.mask, size)
        if mask.any():
            found.append((one, mask))
        else:
            dropped.append(one.category)
    referents = _referents(found)
    several = one_object or len(set(referents) - {-1}) > 1
    scored: list[ScoredWord] = []
    for (one, mask), referent in zip(found, referents, strict=True):
        try:
            word = words.find(one.place)
        except (KeyError, ValueError) as error:
            raise DatasetError(f"{sample}: {error.args[0]}") from None
        if any(word.tokens == other.word.tokens for other in scored):
            raise DatasetError(f"{sample}: {word.text!r} has two masks: unite them in one")
        headline = several and one.category in _OBJECTS
        scored.append(ScoredWord(word, one.category, referent, mask, headline))
    return DatasetItem(sample, split, trajectory, tuple(scored), tuple(dropped))


def resized_image(image: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """An image at another ``(height, width)``, stretched if need be, so that nothing is cut off."""
    if image.shape[:2] == size:
        return image
    picture = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.LANCZOS)
    return np.asarray(picture, dtype=np.uint8)


def resized_mask(mask: Mask, size: tuple[int, int]) -> Mask:
    """A mask at another ``(height, width)``: where at least half of a pixel's area is in it."""
    if mask.shape == size:
        return mask
    shares = Image.fromarray(mask.astype(np.float32)).resize(
        (size[1], size[0]), Image.Resampling.BOX
    )
    return np.asarray(shares) >= 0.5


def _referents(found: Sequence[tuple[Annotation, Mask]]) -> list[int]:
    """The object of each word, by number: the first word with the same mask; -1 for none."""
    numbers: list[int] = []
    for index, (one, mask) in enumerate(found):
        if one.category in _GROUNDS:
            numbers.append(-1)
            continue
        same = (
            earlier
            for earlier in range(index)
            if numbers[earlier] >= 0 and np.array_equal(found[earlier][1], mask)
        )
        numbers.append(next(same, index))
    return numbers
