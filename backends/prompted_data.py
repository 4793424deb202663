"""The data that embedded models are trained on and judged by: prompts, pictures, their judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from wordlight.backends.following import Following
from wordlight.backends.scenes import following as scenes_following
from wordlight.backends.scenes import grammar as scenes_grammar
from wordlight.backends.scenes import render as scenes_render
from wordlight.backends.scenes import segment as scenes_segment
from wordlight.backends.things import following as things_following
from wordlight.backends.things import grammar as things_grammar
from wordlight.backends.things import render as things_render
from wordlight.backends.things import segment as things_segment
from wordlight.backends.vocabulary import known_words


@dataclass(frozen=True)
class PromptedData:
    """Prompts with known pictures.

    ``version`` is that of the prompts and pictures, ``masks`` that of the masks that are found.
    ``rendered`` gives the picture of a split and an index; ``segment`` finds what an image shows,
    and ``follow`` says how well that follows a scene's prompt. ``questions`` are the kinds of
    questions that it answers, each with what they are asked of; ``words`` are all that a prompt can
    have, ``colours`` those of them that name a colour, and ``noun`` is the kind of its nouns.
    """

    name: str
    version: int
    masks: int
    splits: tuple[str, ...]
    questions: Mapping[str, str]
    words: frozenset[str]
    colours: frozenset[str]
    noun: Literal["shape-noun", "object"]
    rendered: Callable[[str, int], Any]
    segment: Callable[[npt.NDArray[np.uint8]], Any]
    follow: Callable[[Any, Any], Following]

    def judge(self, scene: Any, image: npt.NDArray[np.uint8]) -> Following:
        """Return how well an image follows a scene's prompt."""
        return self.follow(scene, self.segment(image))


_COUNTS = "groups of objects that have the number asked for"
_RELATIONS = "relations (left of, right of, above, below) that hold"

SCENES = PromptedData(
    name="scenes",
    version=scenes_grammar.DATA_VERSION,
    masks=scenes_segment.MASKS_VERSION,
    splits=scenes_grammar.SPLITS,
    questions={
        "colour": "objects asked for that are there in their colour",
        "shape": "objects asked for that are there in their colour and shape",
        "count": _COUNTS,
        "relation": _RELATIONS,
    },
    words=scenes_grammar.vocabulary(),
    colours=frozenset(scenes_grammar.COLOURS),
    noun="shape-noun",
    rendered=scenes_render.rendered,
    segment=scenes_segment.segment,
    follow=scenes_following.follow,
)
THINGS = PromptedData(
    name="things",
    version=things_grammar.DATA_VERSION,
    masks=things_segment.MASKS_VERSION,
    splits=things_grammar.SPLITS,
    questions={
        "thing": "things asked for that are there",
        "count": _COUNTS,
        "relation": _RELATIONS,
        "ground": "grounds that are the one asked for",
    },
    words=things_grammar.vocabulary(),
    colours=frozenset(things_grammar.COLOURS),
    noun="object",
    rendered=things_render.rendered,
    segment=things_segment.segment,
    follow=things_following.follow,
)
#: By name.
DATA = {data.name: data for data in (SCENES, THINGS)}


def data_of(model_id: str) -> PromptedData:
    """Return the data whose words a model was trained on; ``SCENES`` where they aren't known."""
    known = known_words(model_id)
    return next((data for data in DATA.values() if data.words == known), SCENES)
