"""Maps as figures for a paper, in matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps, font_manager, rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from PIL import Image

from wordlight.attribution.maps import AttributionMaps, MapKey, WordMap

#: Inches a panel.
_PANEL = 1.7
#: TrueType, which journals ask for. matplotlib can embed only such fonts whole; others, which a
#: text in East Asian characters needs, it embeds glyph by glyph.
_TRUE_TYPE, _BY_GLYPH = 42, 3
_FAMILY = "DejaVu Sans"
_DIVERGING = LinearSegmentedColormap.from_list(
    "wordlight", ["#1a5fb4", "#62a0ea", "#f6f5f4", "#ff9f40", "#c64600"]
)


class PaperFigure(Figure):
    """A figure that keeps its fonts: embedded in PDF and PostScript, as outlines in SVG."""

    font_type = _TRUE_TYPE

    def savefig(self, *args: Any, **options: Any) -> None:
        """Write the figure to a file, as matplotlib's ``savefig`` does."""
        kind = self.font_type
        with rc_context({"pdf.fonttype": kind, "ps.fonttype": kind, "svg.fonttype": "path"}):
            super().savefig(*args, **options)

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=144)
        return buffer.getvalue()


def plot(
    maps: AttributionMaps, words: Sequence[MapKey] | None = None, *, opacity: float = 0.7
) -> PaperFigure:
    """Draw the image and a map of each word in one row, or in several where there are many.

    Of a video a row is a frame, of evenly spaced ones where there are more than four.

    Args:
        maps: of one image.
        words: the words to show; every word of the prompt where None.
        opacity: of the maps over the image, 0 to 1.

    Raises:
        KeyError: a word without a map.
        ValueError: no words, or an opacity outside 0..1.
    """
    keys = maps.words if words is None else _listed(words)
    if maps.is_video:
        return plot_grid(_frames_of(maps), keys, opacity=opacity)
    cells = [_Cell(maps.image), *(_Cell(maps.image, maps[key]) for key in keys)]
    if len(cells) == 1:
        raise ValueError("there are no words to plot")
    columns = min(len(cells), 6)
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    return _draw(rows, [""] * len(rows), opacity)


def plot_grid(
    maps: Sequence[AttributionMaps] | Mapping[str, AttributionMaps],
    words: Sequence[MapKey] | None = None,
    *,
    opacity: float = 0.7,
) -> PaperFigure:
    """Draw one row for each of several maps: the image, then a map of each word.

    Args:
        maps: of several methods or of several images, by the labels of their rows where it is a
            dictionary; else a row is called by its method.
        words: the words to show in every row; where None, the words of each row's own prompt.
        opacity: of the maps over the image, 0 to 1.

    Raises:
        KeyError: a word without a map.
        ValueError: no maps, no words, or an opacity outside 0..1.
    """
    keys = None if words is None else _listed(words)
    if isinstance(maps, AttributionMaps):
        maps = _frames_of(maps) if maps.is_video else [maps]
    if isinstance(maps, Mapping):
        labels, each = list(maps), list(maps.values())
    else:
        labels, each = [one.provenance.method for one in maps], list(maps)
    rows = [
        [
            _Cell(one.image),
            *(_Cell(one.image, one[key]) for key in (one.words if keys is None else keys)),
        ]
        for one in each
    ]
    if not rows or max(map(len, rows)) == 1:
        raise ValueError("there is nothing to plot: no maps, or no words")
    return _draw(rows, labels, opacity)


def _listed(words: Sequence[MapKey]) -> list[MapKey]:
    if isinstance(words, str):
        raise TypeError(f"words must be a list of words, not the string {words!r}")
    return list(words)


def _frames_of(maps: AttributionMaps) -> dict[str, AttributionMaps]:
    """Some of a video's latent frames, by what their rows are called."""
    n_frames = maps.data.sizes["frame"]
    shown = sorted({round(k * (n_frames - 1) / 3) for k in range(4)})
    return {f"frame {frame}": maps.select(frame=frame) for frame in shown}


class _Cell:
    """An image, with a word's map over it unless it stands alone."""

    def __init__(self, image: npt.NDArray[np.uint8], word_map: WordMap | None = None) -> None:
        self.image, self.word_map = image, word_map

    @property
    def title(self) -> str:
        return "image" if self.word_map is None else self.word_map.word.text


def _draw(rows: list[list[_Cell]], labels: list[str], opacity: float) -> PaperFigure:
    if not 0.0 <= opacity <= 1.0:
        raise ValueError(f"opacity lies between 0 and 1, not at {opacity}")
    columns = max(map(len, rows))
    texts = "".join([*labels, *(cell.title for row in rows for cell in row)])
    height, width = rows[0][0].image.shape[:2]
    figure = PaperFigure(
        figsize=(columns * (_PANEL + 0.35), len(rows) * (_PANEL * height / width + 0.35)),
        layout="constrained",
    )
    others = _others(frozenset(texts))
    figure.font_type = _BY_GLYPH if others else _TRUE_TYPE
    with rc_context({"font.family": [_FAMILY, *others], "font.size": 8}):
        axes = figure.subplots(len(rows), columns, squeeze=False)
        above: list[str] = []
        for of_row, row, label in zip(axes, rows, labels, strict=True):
            for axis in of_row:
                axis.set_axis_off()
            titles = [cell.title for cell in row]
            for axis, cell in zip(of_row, row, strict=False):
                _show(figure, axis, cell, opacity)
                if titles != above:
                    axis.set_title(cell.title, parse_math=False)
            above = titles
            of_row[0].text(
                -0.06, 0.5, label, transform=of_row[0].transAxes, rotation=90, ha="right",
                va="center", parse_math=False,
            )  # fmt: skip
    return figure


def _show(figure: Figure, axis: Axes, cell: _Cell, opacity: float) -> None:
    word_map = cell.word_map
    if word_map is None:
        axis.imshow(cell.image, interpolation="nearest")
        return
    axis.imshow(np.asarray(Image.fromarray(cell.image).convert("L")), cmap="gray", vmin=0, vmax=255)
    values = word_map.resized()
    colours, norm, alpha = _colours(word_map, values)
    if alpha.any():
        axis.imshow(values, cmap=colours, norm=norm, alpha=opacity * alpha)
        bar = figure.colorbar(
            ScalarMappable(norm, colours), ax=axis, fraction=0.045, pad=0.02, ticks=_ticks(norm),
            format=lambda value, _: f"{value:.3g}",
        )  # fmt: skip
        bar.ax.tick_params(labelsize=6, length=2)
        bar.outline.set_linewidth(0.4)


def _colours(
    word_map: WordMap, values: npt.NDArray[np.float32]
) -> tuple[Colormap, Normalize, npt.NDArray[np.floating[Any]]]:
    """Colours, their range, and how opaque each pixel is: not at all where there is nothing to
    show."""
    low, high = float(values.min()), float(values.max())
    if word_map.signed:
        most = max(-low, high)
        alpha = np.abs(values) / most if np.ptp(word_map.values) > 0 else np.zeros_like(values)
        return _DIVERGING, Normalize(-most, most), alpha
    full = np.zeros_like(values) if word_map.blank else np.ones_like(values)
    return colormaps["inferno"], Normalize(low, high), full


def _ticks(norm: Normalize) -> list[float]:
    low, high = float(norm.vmin or 0), float(norm.vmax or 0)
    return [low, (low + high) / 2, high]


@lru_cache(maxsize=64)
def _others(characters: frozenset[str]) -> tuple[str, ...]:
    """Installed fonts for the characters that matplotlib's own lacks."""
    own = FT2Font(font_manager.findfont(_FAMILY))
    missing = {c for c in characters if c.isprintable() and not own.get_char_index(ord(c))}
    found: list[str] = []
    for font in _installed_fonts() if missing else ():
        try:
            face = FT2Font(font.fname)
        except (OSError, RuntimeError):
            continue
        if has := {c for c in missing if face.get_char_index(ord(c))}:
            found.append(font.name)
            missing -= has
        if not missing:
            break
    return tuple(found)


def _installed_fonts() -> list[font_manager.FontEntry]:
    """Fonts that can be drawn, those of East Asia first, which have most of what others lack."""
    manager = font_manager.fontManager
    # matplotlib's list is of the day on which it was first used.
    for path in {*font_manager.findSystemFonts()} - {font.fname for font in manager.ttflist}:
        try:
            manager.addfont(path)
        except (OSError, RuntimeError, ValueError):
            continue
    # Coloured fonts can't be drawn, and the last resort has a box for every character.
    fonts = [f for f in manager.ttflist if not any(n in f.name for n in ("Emoji", "LastResort"))]
    return sorted(fonts, key=lambda font: ("CJK" not in font.name, "Sans" not in font.name))
