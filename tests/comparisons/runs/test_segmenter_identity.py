"""What tells a segmenter's masks from another's."""

from __future__ import annotations

import pytest

from wordlight.backends.segmenters.segmenter import Segmenter


class Blind(Segmenter):
    """Finds nothing."""

    kind = "blind"
    model_id, revision = "model", "1"
    vocabulary = ("dog",)

    def __init__(self, synonyms=None):
        self.options = {"task": "panoptic"}
        self.synonyms = synonyms

    def _masks(self, image, words):
        return [None] * len(words)


def test_other_synonyms_are_another_segmenter():
    found = [Blind(given).identity for given in (None, {"dog": ("pup",)}, {"dog": ("hound",)})]
    assert found[0] == "blind:model@1,task=panoptic"
    assert len(set(found)) == 3
    assert Blind({"dog": ("pup",), "cat": ("puss",)}).identity == (
        Blind({"cat": ("puss",), "dog": ("pup",)}).identity
    )


@pytest.mark.parametrize("synonyms", [None, {"dog": ("pup",)}])
def test_the_weights_are_the_same_whatever_the_synonyms(synonyms):
    assert Blind().same_weights(Blind(synonyms))
