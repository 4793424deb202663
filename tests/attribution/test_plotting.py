"""Figures for a paper."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from matplotlib.axes import Axes

from tests.attribution.viewer.made_up import maps_of, tokens_of
from wordlight.attribution import AttributionMaps, plot_grid


def panels(axes: list[Axes]) -> list[Axes]:
    """The axes of images, without colour bars."""
    return [axis for axis in axes if axis.images]


def saved(figure: object, kind: str = "pdf") -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format=kind)  # type: ignore[attr-defined]
    return buffer.getvalue()


def test_a_map_a_word_with_its_colour_bar() -> None:
    maps = maps_of()
    figure = maps.plot(["dog", "a dog"])
    shown = panels(figure.axes)
    assert [axis.get_title() for axis in shown] == ["image", "dog", "a dog"]
    heat = shown[1].images[1]
    assert np.allclose(heat.get_array(), maps["dog"].resized())
    assert len(figure.axes) - len(shown) == len(shown) - 1
    low, high = heat.norm.vmin, heat.norm.vmax
    assert (low, high) == (maps["dog"].resized().min(), maps["dog"].resized().max())
    with pytest.raises(KeyError, match="cat"):
        maps.plot(["cat"])
    with pytest.raises(ValueError, match="opacity"):
        maps.plot(opacity=2)
    with pytest.raises(ValueError, match="no words"):
        maps.plot([])


def test_fonts_are_embedded_whole() -> None:
    pdf = saved(maps_of().plot())
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert b"/FontType 42" in saved(maps_of("dog").plot(), "ps")


def test_marks_of_mathematics_are_text() -> None:
    figure = maps_of(tokens_of(["$x^2$", " ", "$\\frac{"])).plot()
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_signed_maps_diverge_about_zero() -> None:
    figure = maps_of(signed=True).plot(["dog"])
    heat = panels(figure.axes)[1].images[1]
    assert heat.norm.vmin == -heat.norm.vmax < 0
    assert np.allclose(heat.cmap(0.5)[:3], 0.96, atol=0.01)


@pytest.mark.parametrize(
    ("values", "signed"),
    [
        (np.full((4, 8, 8), 0.3), False),
        (np.zeros((4, 8, 8)), True),
        (np.full((4, 8, 8), -1.0), True),
    ],
)
def test_a_map_without_anything_to_see_shows_the_image_alone(
    values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], signed: bool
) -> None:
    figure = maps_of("dog", values=values, signed=signed, grid=(8, 8)).plot()
    assert [len(axis.images) for axis in figure.axes] == [1, 1]


def test_a_row_for_each_maps() -> None:
    figure = plot_grid({"ours": maps_of(), "theirs": maps_of(signed=True)}, ["dog", "ball"])
    shown = panels(figure.axes)
    assert len(shown) == 6
    texts = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert texts == ["ours", "theirs"]
    # Words that are the same from row to row are said once.
    assert [axis.get_title() for axis in shown] == ["image", "dog", "ball", "", "", ""]
    different = plot_grid([maps_of("dog"), maps_of("a cat", grid=(8, 12))])
    titles = [axis.get_title() for axis in panels(different.axes)]
    assert titles == ["image", "dog", "image", "a", "cat"]
    with pytest.raises(ValueError, match="nothing to plot"):
        plot_grid([])


@pytest.mark.parametrize("draw", [AttributionMaps.plot, plot_grid])
def test_words_to_draw_are_a_list_and_not_empty(draw: Callable[..., object]) -> None:
    maps = maps_of("a dog and a ball")
    with pytest.raises(TypeError, match="words must be a list of words, not the string 'dog'"):
        draw(maps, "dog")
    with pytest.raises(ValueError, match="no words"):
        draw(maps, [])
