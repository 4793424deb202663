"""The words above the rows of a comparison's picture. (The picture itself: test_docs_makers.)"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.comparisons.fakes import FakeBackend
from wordlight.attribution.words import PromptWords
from wordlight.comparisons.results.grid import _name


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("circle", "“circle”"),
        ("red circle", "“red circle”"),
        (("and a red", 0), "“and a red”"),
        (("red", 1), "“red” (2 of 2)"),
    ],
)
def test_a_word_is_counted_where_it_stands_more_than_once(asked: Any, shown: str) -> None:
    tokens = FakeBackend().tokenize("a red circle and a red square")
    item = SimpleNamespace(trajectory=SimpleNamespace(tokens=tokens))
    word = PromptWords.of(tokens).find(asked)
    assert _name(cast(Any, item), cast(Any, SimpleNamespace(word=word))) == shown
