"""The viewer as a person uses it: with a mouse, with keys, with a screen reader's rules."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests import chromium
from tests.attribution.viewer.made_up import maps_of, tokens_of
from tests.attribution.viewer.test_viewer_data import HOSTILE
from wordlight.attribution.maps import AttributionMaps
from wordlight.attribution.viewer import Panel, Viewer

pytestmark = chromium.needed
AXE = (Path(__file__).parents[2] / "axe" / "axe.min.js").read_text("utf-8")
WORDS = ["a", "dog", "and", "a", "ball"]


@pytest.fixture(scope="module")
def browser() -> Iterator[chromium.Page]:
    with chromium.browser() as page:
        yield page


class Shown:
    """A page with a viewer, opened."""

    def __init__(self, page: chromium.Page, path: Path, width: int = 1200) -> None:
        page.show(width)
        page.open(path)
        page.wait_for("document.querySelector('.wl[data-ready]')")
        page.settle()
        self.page = page

    def word(self, number: int) -> str:
        """The selector of a word of the prompt."""
        return f".wl-word[data-word='{number}']"

    def canvas(self, panel: int = 0) -> np.ndarray[Any, Any]:
        """What is drawn over the image, ``(height, width, 4)``."""
        data = self.page.evaluate(f"document.querySelectorAll('canvas')[{panel}].toDataURL()")
        picture = Image.open(BytesIO(base64.b64decode(data.split(",")[1])))
        return np.asarray(picture.convert("RGBA")).astype(int)

    def texts(self, selector: str) -> list[str]:
        """The texts of all elements that a selector finds."""
        found: list[str] = self.page.evaluate(
            f"[...document.querySelectorAll({json.dumps(selector)})].map((e) => e.textContent)"
        )
        return found

    def text(self, selector: str) -> str:
        """The text of the one element that a selector finds."""
        (found,) = self.texts(selector)
        return found

    def set(self, control: str, value: object) -> None:
        """Give a slider, list or box a value, as a person's hand does."""
        self.page.evaluate(
            f"(() => {{ const e = document.querySelector('[data-control={control}]');"
            f" if (e.type === 'checkbox') e.checked = {json.dumps(value)};"
            f" else e.value = {json.dumps(value)};"
            " e.dispatchEvent(new Event('input')); e.dispatchEvent(new Event('change')); })()"
        )
        self.page.settle()

    def away(self) -> None:
        """Take the mouse off everything."""
        self.page.ask("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
        self.page.settle()

    def complaints(self) -> None:
        """The page said nothing on the console, and asked for nothing but itself."""
        assert not self.page.complaints()
        assert len(self.page.requests()) == 1


@pytest.fixture
def show(browser: chromium.Page, tmp_path: Path) -> Any:
    def opened(*maps: AttributionMaps, width: int = 1200) -> Shown:
        path = Viewer([Panel.of(one) for one in maps]).to_html(tmp_path / "x.html")
        return Shown(browser, path, width)

    return opened


def test_pointing_at_a_word_shows_its_map(show: Any) -> None:
    maps = maps_of()
    shown = show(maps)
    assert not shown.canvas().any()
    assert shown.texts(".wl-legend li") == []
    shown.page.hover(shown.word(1))
    drawn, wanted = shown.canvas(), maps["dog"].normalised()
    times = drawn.shape[0] // wanted.shape[0]
    # Brightness follows the map: inferno grows ever lighter.
    light = drawn[..., :3].sum(-1)[times // 2 :: times, times // 2 :: times]
    order = np.corrcoef(
        np.argsort(np.argsort(light.ravel())), np.argsort(np.argsort(wanted.ravel()))
    )
    assert order[0, 1] > 0.98
    low, high = maps["dog"].resized().min(), maps["dog"].resized().max()
    (name, least, most, _) = shown.texts(
        ".wl-legend bdi, .wl-legend .wl-number, .wl-legend .wl-note"
    )
    assert name == "dog"
    assert [float(least), float(most)] == pytest.approx([low, high], abs=0.01)
    shown.away()
    assert not shown.canvas().any()
    shown.complaints()


def test_the_threshold_makes_the_mask(show: Any) -> None:
    maps = maps_of(scale=32)  # as many pixels as the page draws
    shown = show(maps)
    shown.page.hover(shown.word(4))
    shown.set("threshold", 40)
    mask = maps["ball"].mask(0.4)
    # Quantised to 16 bits, so that pixels right at the edge may fall on the other side.
    assert ((shown.canvas()[..., 3] > 0) != mask).mean() < 1e-3
    assert f"covers {100 * mask.mean():.1f} %" in shown.text(".wl-legend .wl-note")
    assert shown.page.evaluate("document.querySelectorAll('.wl-outline').length") == 1
    before = shown.canvas()[..., 3].max()
    shown.set("opacity", 20)
    assert shown.canvas()[..., 3].max() == 51 < before


@pytest.mark.parametrize("signed", [False, True])
def test_a_pixel_ranks_the_words(show: Any, signed: bool) -> None:
    maps = maps_of(signed=signed, grid=(16, 12))
    shown = show(maps)
    shown.page.hover(".wl-stage", 0.31, 0.62)
    x, y = map(int, shown.text(".wl-where").removeprefix("Words at x ").split(", y "))
    assert (x, y) == pytest.approx((0.31 * 48, 0.62 * 64), abs=1)
    names = ["a (1)", "dog", "and", "a (2)", "ball"]
    values = {
        name: maps[word].resized()[y, x] for name, word in zip(names, maps.words, strict=True)
    }
    wanted = sorted(names, key=lambda name: -values[name])
    assert shown.texts(".wl-row bdi") == wanted
    read = [float(text) for text in shown.texts(".wl-row .wl-number")]
    assert read == pytest.approx([values[name] for name in wanted], rel=5e-3, abs=1e-4)
    # The best word is lit most in the prompt.
    lit = shown.page.evaluate(
        "[...document.querySelectorAll('.wl-word')].map((e) => +e.style.getPropertyValue('--lit'))"
    )
    assert names[int(np.argmax(lit[:5]))] == wanted[0]
    # Clicked, the place stays; clicked again, it goes.
    shown.page.click(".wl-stage", 0.31, 0.62)
    shown.away()
    assert shown.text(".wl-where") == f"Words at x {x}, y {y}, kept"
    shown.page.click(".wl-stage", 0.31, 0.62)
    shown.away()
    assert shown.text(".wl-where") == "Words over the whole image"
    shown.set("specials", True)
    assert len(shown.texts(".wl-row bdi")) == 8
    shown.set("rank", "share")
    assert all(text.endswith("%") for text in shown.texts(".wl-row .wl-number"))
    shown.complaints()


def test_pinned_words_have_colours_of_their_own(show: Any) -> None:
    values = np.zeros((8, 4, 4))
    values[1, 0, 0], values[4, 3, 3] = 1, 2
    shown = show(maps_of(values=values, grid=(4, 4)))
    shown.set("smooth", False)
    shown.page.click(shown.word(1))
    shown.page.click(shown.word(4))
    shown.away()
    drawn = shown.canvas()
    # A canvas keeps colours multiplied by their opacity, which rounds.
    assert tuple(drawn[5, 5, :3]) == pytest.approx((0xE6, 0x9F, 0x00), abs=2)
    assert tuple(drawn[-5, -5, :3]) == pytest.approx((0x56, 0xB4, 0xE9), abs=2)
    assert not drawn[5, -5].any()
    assert shown.texts(".wl-labels span") == ["dog", "ball"]
    pressed = ".wl-word[aria-pressed='true']"
    assert shown.texts(pressed) == ["dog", "ball"]
    shown.page.click(shown.word(1))
    assert shown.texts(pressed) == ["ball"]
    # The colour of what was let go is free again, and all colours differ.
    for number in (0, 1, 2, 3, 5, 6, 7):
        shown.page.click(shown.word(number))
    colours = shown.page.evaluate(
        f"[...document.querySelectorAll({json.dumps(pressed)})]"
        ".map((e) => e.style.getPropertyValue('--pin'))"
    )
    assert len(colours) == len(set(colours)) == 7
    assert "unpin one first" in shown.text("[role=status]")
    shown.complaints()


def test_kept_axes_have_sliders_and_a_film(show: Any) -> None:
    maps = maps_of(axes={"step": [2, 5, 9], "layer": ["down", "up"]})
    shown = show(maps)
    shown.page.hover(".wl-stage", 0.5, 0.5)
    shown.page.click(".wl-stage", 0.5, 0.5)
    x, y = map(int, shown.text(".wl-where").removesuffix(", kept")[11:].split(", y "))

    def best() -> tuple[str, float]:
        return shown.texts(".wl-row bdi")[0], float(shown.texts(".wl-row .wl-number")[0])

    def wanted(**labels: Any) -> tuple[str, float]:
        chosen = maps.select(**labels) if labels else maps
        names = ["a (1)", "dog", "and", "a (2)", "ball"]
        values = [float(chosen[word].resized()[y, x]) for word in maps.words]
        return names[int(np.argmax(values))], max(values)

    for labels, step, layer in (
        ({}, 0, 0),
        ({"step": 5}, 2, 0),
        ({"layer": "up"}, 0, 2),
        ({"step": 9, "layer": "down"}, 3, 1),
    ):
        shown.set("step", step)
        shown.set("layer", layer)
        name, value = wanted(**labels)
        # Eight bits of each map's range.
        assert best() == (name, pytest.approx(value, abs=0.01))
    shown.set("step", 0)
    shown.page.click("[data-control='play-step']")
    seen = set()
    step = "document.querySelector('[data-control=step]')"
    for _ in range(3):
        shown.page.wait_for(f"!{json.dumps(sorted(seen))}.includes({step}.value)")
        seen.add(shown.page.evaluate(f"{step}.value"))
    assert {"1", "2", "3"} <= seen | {"1", "2", "3"}
    shown.page.click("[data-control='play-step']")
    assert "Film" in shown.text("[data-control='play-step']")
    shown.complaints()


def test_keys_alone_are_enough(show: Any) -> None:
    shown = show(maps_of())
    page = shown.page
    page.press("Tab")
    focused = "document.activeElement.dataset.word"
    assert page.evaluate(focused) == "0"
    assert shown.texts(".wl-legend bdi") == ["a (1)"]
    page.press("ArrowRight")
    assert shown.texts(".wl-legend bdi") == ["dog"]
    page.press("Enter")
    page.press("End")
    assert shown.texts(".wl-legend bdi") == ["<pad>"]
    page.press("Home")
    page.press("Tab")  # the words are one stop
    assert page.evaluate("document.activeElement.className") == "wl-stage"
    assert shown.texts(".wl-legend bdi") == ["dog"]
    page.press("ArrowRight")
    page.press("ArrowDown", shift=True)
    where = shown.text(".wl-where")
    assert where.startswith("Words at x 3")
    assert shown.text("[role=status]").startswith(where.removeprefix("Words at ") + ": ")
    page.press("Enter")
    assert shown.text(".wl-where") == f"{where}, kept"
    page.press("Escape")
    assert shown.text(".wl-where") == "Words over the whole image"
    assert shown.texts(".wl-word[aria-pressed='true']") == ["dog"]
    page.press("Escape")
    assert shown.texts(".wl-word[aria-pressed='true']") == []
    page.press("Tab")
    assert page.evaluate("document.activeElement.dataset.control") == "opacity"
    page.press("ArrowLeft")
    assert page.evaluate("document.activeElement.value") == "74"


@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing(show: Any, browser: chromium.Page, dark: bool) -> None:
    maps = maps_of(axes={"step": [0, 1]}, model="scenes")
    against = maps_of("blurry", negative=True, method="against")
    other = maps_of(signed=True, method="other")
    for shown in (show(maps), show(maps, other, against, width=800)):
        browser.show(1200, dark=dark)
        browser.click(shown.word(1))
        browser.click(shown.word(4))
        browser.click(".wl-stage")
        shown.set("threshold", 40)
        browser.evaluate(f"{AXE}; 1")
        found = browser.evaluate("axe.run().then((r) => JSON.stringify(r.violations))")
        violations = [(v["id"], v["nodes"][0]["html"][:300]) for v in json.loads(found)]
        assert not violations


def test_both_colour_schemes_differ(show: Any, browser: chromium.Page) -> None:
    shown = show(maps_of())
    ground = "getComputedStyle(document.body).backgroundColor"
    browser.show(1200, dark=False)
    light = browser.evaluate(ground)
    browser.show(1200, dark=True)
    dark = browser.evaluate(ground)
    assert (light, dark) == ("rgb(250, 248, 244)", "rgb(14, 16, 20)")
    button = ".wl-buttons button:last-child"
    for wanted in (dark, light, dark):  # dark, light, and the system's again
        browser.click(button)
        assert browser.evaluate(ground) == wanted
    assert shown.text(button) == "Theme: system"


def test_a_hostile_prompt_is_shown_as_text(show: Any) -> None:
    shown = show(maps_of(tokens_of(HOSTILE)))
    said = shown.text(".wl-prompt")
    assert said.startswith("</script><script>alert(1)</script> <!-- \"'&amp; \u202egnp.exe ")
    assert "U+200F 👩\u200d🚀 {{7*7}} U+D800" in said
    assert shown.page.evaluate("document.querySelectorAll('.wl-prompt script').length") == 0
    # A mark that turns the direction of writing ends with its word.
    boxes = shown.page.evaluate(
        "[...document.querySelectorAll('.wl-text')].map((e) => e.getClientRects()[0].y * 1e4"
        " + e.getClientRects()[0].x)"
    )
    assert boxes == sorted(boxes)
    shown.complaints()


@pytest.mark.parametrize(
    ("values", "signed", "note"),
    [
        (np.full((4, 8, 8), 0.3), False, "the same everywhere: nothing to show"),
        (np.zeros((4, 8, 8)), True, "the same everywhere: nothing to show"),
        (np.full((4, 8, 8), -0.3), True, "the same everywhere: nothing to show"),
        (-np.arange(256.0).reshape(4, 8, 8), False, "nowhere positive: nothing to show"),
        (-np.arange(256.0).reshape(4, 8, 8), True, "nowhere positive"),
    ],
)
def test_a_map_without_anything_to_see_shows_nothing(
    show: Any, values: np.ndarray[Any, Any], signed: bool, note: str
) -> None:
    shown = show(maps_of("dog", values=values, signed=signed, grid=(8, 8)))
    for threshold in (0, 40):
        shown.set("threshold", threshold)
        shown.page.hover(shown.word(0))
        assert note in shown.text(".wl-legend .wl-note")
        assert not shown.page.evaluate("document.querySelectorAll('.wl-outline').length")
        drawn = shown.canvas()
        if signed and values.any() and np.ptp(values) > 0:
            # What speaks against a word is blue.
            assert (drawn[..., 2] >= drawn[..., 0]).all()
            assert drawn[..., 3].any()
        else:
            assert not drawn.any()
    shown.page.click(shown.word(0))
    shown.away()
    assert not shown.canvas().any()
    assert shown.texts(".wl-labels span") == []


def test_signed_maps_diverge(show: Any) -> None:
    values = np.zeros((4, 2, 2))
    values[0] = [[1, -1], [0, 0.5]]
    shown = show(maps_of("dog", values=values, signed=True, grid=(2, 2), scale=8))
    shown.set("smooth", False)
    shown.page.hover(shown.word(0))
    (up, against), (nothing, half) = shown.canvas()[[5, -5]][:, [5, -5]]
    assert up[0] > up[2]
    assert against[2] > against[0]
    assert nothing[3] == 0 < half[3] < up[3] == against[3]


JAPANESE = tokens_of(["赤い", "丸", "の", "左", "に", "青い", "四角", "。"])


@pytest.mark.parametrize(
    "maps",
    [
        maps_of("dog"),
        maps_of(" ".join(f"w{i}" for i in range(75))),
        maps_of(" ".join(f"w{i}" for i in range(510)), grid=(32, 32)),
        maps_of(JAPANESE),
        maps_of(tokens_of(["كلب", " ", "و", " ", "كرة"])),
        maps_of(grid=(8, 24)),
        maps_of(grid=(24, 8), scale=64),
        maps_of(grid=(5, 3), scale=1),
        maps_of("x" * 300),
    ],
    ids="one 77 512 japanese arabic wide tall tiny long".split(),
)
@pytest.mark.parametrize("width", [360, 1200])
def test_prompts_and_images_of_every_size_fit(show: Any, maps: AttributionMaps, width: int) -> None:
    shown = show(maps, width=width)
    page = shown.page
    assert shown.text(".wl-prompt") == maps.prompt
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.hover(shown.word(0))
    assert shown.canvas().any()
    box = page.evaluate(
        "(() => { const b = document.querySelector('.wl-stage').getBoundingClientRect();"
        " return [b.width, b.height]; })()"
    )
    height, across = maps.image.shape[:2]
    assert box[0] / box[1] == pytest.approx(across / height, rel=0.02)
    shown.complaints()


def test_side_by_side_is_linked(show: Any) -> None:
    first, second = maps_of(method="daam"), maps_of(signed=True, method="occlusion", grid=(8, 8))
    shown = show(first, second)
    assert shown.texts(".wl-label b") == ["daam", "occlusion"]
    shown.page.hover(shown.word(1))
    assert shown.canvas(0).any()
    assert shown.canvas(1).any()
    shown.page.hover(".wl-stage", 0.25, 0.75)
    wheres = shown.texts(".wl-where")
    assert wheres == ["Words at x 16, y 48", "Words at x 8, y 24"]
    shown.page.click(shown.word(1))
    shown.set("threshold", 60)
    assert shown.page.evaluate("document.querySelectorAll('.wl-outline').length") == 2
    shown.complaints()


def test_words_of_the_negative_prompt_stand_below(show: Any) -> None:
    shown = show(maps_of("a dog"), maps_of("a blurry cat", negative=True, signed=True))
    assert shown.texts(".wl-prompt") == ["a dog", "Negative prompta blurry cat"]
    shown.page.hover(shown.word(3))
    assert shown.texts(".wl-legend bdi") == ["blurry (negative)"] * 2
    assert shown.texts(".wl-legend .wl-note")[0] == "has no map of its own here"
    assert not shown.canvas(0).any()
    assert shown.canvas(1).any()
    shown.page.hover(".wl-stage")
    assert "cat (negative)" in shown.texts(".wl-row bdi")
    shown.complaints()


def test_words_that_the_model_never_read_are_warned_of(show: Any) -> None:
    shown = show(maps_of("a <b>dog</b> and circle", model="scenes"))
    warning = shown.text(".wl-warning")
    assert warning.startswith("scenes was never trained on the words 'b', 'dog'")
    assert shown.page.evaluate("document.querySelectorAll('.wl-warning b').length") == 0
    assert not show(maps_of("a circle", model="scenes")).texts(".wl-warning")
