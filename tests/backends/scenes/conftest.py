"""Scenes for property tests."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

from wordlight.backends.prompts import RELATIONS, SIZES
from wordlight.backends.scenes.grammar import COLOURS, GROUNDS, SHAPES, Group, Scene

_COUNTS = {1: [(1,), (2,), (3,)], 2: [(1, 1), (1, 2), (2, 1), (2, 2)], 3: [(1, 1, 1)]}


@st.composite
def _scenes(draw: st.DrawFn) -> Scene:
    counts = draw(st.integers(1, 3).flatmap(lambda n: st.sampled_from(_COUNTS[n])))
    pair = st.tuples(st.sampled_from(list(COLOURS)), st.sampled_from(SHAPES))
    pairs = draw(st.lists(pair, min_size=len(counts), max_size=len(counts), unique=True))
    sizes = st.sampled_from([None, *SIZES])
    return Scene(
        groups=tuple(
            Group(count, draw(sizes), colour, shape)
            for count, (colour, shape) in zip(counts, pairs, strict=True)
        ),
        relation=draw(st.sampled_from(list(RELATIONS))) if len(counts) == 2 else None,
        ground=draw(st.sampled_from([None, *GROUNDS])),
        full_stop=draw(st.booleans()),
    )


@pytest.fixture(scope="session")
def scenes() -> st.SearchStrategy[Scene]:
    """Every scene that the grammar can say."""
    return _scenes()
