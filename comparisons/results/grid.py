"""One picture of a comparison: images, their masks, and every method's map of one word each."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from scipy import ndimage

from wordlight.attribution.maps import AttributionMaps
from wordlight.attribution.pictures import enlarge, overlay
from wordlight.attribution.words import PromptWords
from wordlight.comparisons.datasets import DatasetItem, Mask, ScoredWord
from wordlight.comparisons.metrics.overlap import iou
from wordlight.comparisons.metrics.shown_map import ShownMap
from wordlight.comparisons.results.comparison import Comparison
from wordlight.comparisons.results.figures import figure_png
from wordlight.comparisons.rows.row import Row

ROWS = 6
_TILE = 1.55  # inches
#: Of objects, from the first one on again where there are more; to be told apart without seeing
#: red or green.
_MASK_COLOURS = ((0, 114, 178), (230, 159, 0), (204, 121, 167), (86, 180, 233), (0, 158, 115))
_PAPER = (236, 236, 236)


#: Gives a row's maps of an image.
GetMaps = Callable[[Row, DatasetItem], AttributionMaps]


def draw_grid(comparison: Comparison, items: Iterable[DatasetItem], maps: GetMaps) -> bytes:
    """A PNG: a row an image with the word that is shown, a column a method.

    The first images of the test split that have a headline word are shown, whatever the methods
    did there: of the first image its first headline word, of the second its second, and so on.
    The white line is the word's mask; below each map stands its IoU at the method's threshold.
    """
    rows = [row for row in comparison.table_rows if not (row.shuffled or row.reference)]
    failed = {(one.framework, one.sample, one.method) for one in comparison.failures}
    shown = _choose(items)
    columns = 2 + len(rows)
    figure = Figure(
        figsize=(_TILE * columns, (_TILE + 0.45) * len(shown) + 0.25),
        dpi=150,
        layout="constrained",
    )
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02)  # type: ignore[union-attr,call-arg]
    # The first row has the columns' names above it.
    heights = [1.12, *[1.0] * (len(shown) - 1)]
    parts = figure.subfigures(len(shown), 1, squeeze=False, height_ratios=heights)[:, 0]
    for line, (part, (item, scored)) in enumerate(zip(parts, shown, strict=True)):
        part.suptitle(
            f"{item.trajectory.prompt}   \N{RIGHTWARDS ARROW} {_name(item, scored)}",
            x=0.005,
            ha="left",
            fontsize=10,
            fontweight="bold",
        )
        axes = part.subplots(1, columns, squeeze=False)[0]
        _show(axes[0], np.asarray(enlarge(item.trajectory.image)))
        _show_masks(axes[1], item)
        for axis, row in zip(axes[2:], rows, strict=True):
            choice = comparison.choices[row.name]
            if (row.framework, item.sample, row.name) in failed:
                axis.text(0.5, 0.5, "failed", transform=axis.transAxes, ha="center", fontsize=8)
                axis.set_axis_off()
                continue
            word_map = maps(row, item).at(scored.word)
            picture = np.asarray(overlay(item.trajectory.image, word_map.normalised()))
            _show(axis, picture)
            _outline(axis, scored.mask, picture.shape[0] // scored.mask.shape[0])
            if choice.thresholds is None:
                continue
            found = iou(ShownMap(word_map).mask(choice.threshold), scored.mask)
            axis.text(
                0.5, -0.03, f"IoU {found:.2f}", transform=axis.transAxes, ha="center", va="top",
                fontsize=8, color="0.35",
            )  # fmt: skip
        if line == 0:
            names = ["image", "masks", *(row.label for row in rows)]
            for axis, name in zip(axes, names, strict=True):
                axis.set_title(name.replace(" (", "\n("), fontsize=9)
    return figure_png(figure, facecolor="white")


def _choose(items: Iterable[DatasetItem]) -> list[tuple[DatasetItem, ScoredWord]]:
    shown: list[tuple[DatasetItem, ScoredWord]] = []
    for item in items:
        words = [scored for scored in item.words if scored.headline]
        if words:
            shown.append((item, words[len(shown) % len(words)]))
        if len(shown) == ROWS:
            break
    return shown


def _name(item: DatasetItem, scored: ScoredWord) -> str:
    text = scored.word.text
    if len(scored.word.spans) > 1:
        return f"“{text}”"
    times = len(PromptWords.of(item.trajectory.tokens).occurrences(text))
    return f"“{text}”" if times == 1 else f"“{text}” ({scored.word.occurrence + 1} of {times})"


def _show(axis: Axes, picture: npt.NDArray[np.uint8]) -> None:
    axis.imshow(picture, interpolation="nearest")
    axis.set_axis_off()


def _outline(axis: Axes, mask: Mask, times: int) -> None:
    # With a rim, so that a mask that touches the edge of the image is closed there too.
    large = np.pad(np.kron(mask, np.ones((times, times))), 1)
    places = np.arange(large.shape[0]) - 1, np.arange(large.shape[1]) - 1
    axis.contour(places[1], places[0], large, [0.5], colors="white", linewidths=0.9)
    axis.set_xlim(-0.5, large.shape[1] - 2.5)
    axis.set_ylim(large.shape[0] - 2.5, -0.5)


def _show_masks(axis: Axes, item: DatasetItem) -> None:
    """Each object's mask in a colour of its own, the small ones on top, with the object's word in
    the middle of it."""
    nouns = [scored for scored in item.words if scored.category in ("shape-noun", "object")]
    nouns.sort(key=lambda scored: -int(scored.mask.sum()))
    picture = np.empty((*item.trajectory.image.shape[:2], 3), np.uint8)
    picture[:] = _PAPER
    for number, scored in enumerate(nouns):
        picture[scored.mask] = _MASK_COLOURS[number % len(_MASK_COLOURS)]
    large = np.asarray(enlarge(picture))
    _show(axis, large)
    times = large.shape[0] / picture.shape[0]
    for scored in nouns:
        depth = ndimage.distance_transform_edt(np.pad(scored.mask, 1))[1:-1, 1:-1]
        y, x = np.unravel_index(int(np.argmax(depth)), depth.shape)
        axis.text(
            (x + 0.5) * times, (y + 0.5) * times, scored.word.text,
            ha="center", va="center", fontsize=7.5, fontweight="bold", color="white",
            path_effects=[withStroke(linewidth=1.6, foreground="black")],
        )  # fmt: skip
