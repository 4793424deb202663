"""The viewer's page as text: what it holds, how large it is, and that nothing in it is run."""

from __future__ import annotations

import base64
import html
import json
import zlib
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.attribution.viewer.made_up import maps_of, tokens_of
from tests.toys import toy_trajectory
from wordlight.attribution.attributor import partition
from wordlight.attribution.viewer import Panel, Viewer
from wordlight.attribution.viewer.packing import pack_maps, pack_mask
from wordlight.attribution.viewer.prompt import ShownPrompt
from wordlight.attribution.words import PromptWords, Word

HOSTILE = (
    "</script><script>alert(1)</script>", " ", "<!--", " ", '"\'&amp;', " ", "\u202egnp.exe", " ",
    "\u2028", " ", "\u200f", " ", "👩‍🚀", " ", "{{7*7}}", " ", "\ud800",
)  # fmt: skip


class _Scripts(HTMLParser):
    """The scripts of a page, by their type, and every other element's name."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.scripts: list[tuple[str | None, str]] = []
        self.names: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        if tag == "script":
            self.scripts.append((dict(attrs).get("type"), ""))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            kind, text = self.scripts[-1]
            self.scripts[-1] = kind, text + data


def unpacked(packed: dict[str, Any]) -> np.ndarray[Any, Any]:
    """What ``pack_maps`` packed, as the page's script reads it."""
    data = np.frombuffer(zlib.decompress(base64.b64decode(packed["levels"])), np.uint8)
    shape = tuple(packed["shape"])
    size = int(np.prod(shape))
    steps = data[:size].astype(np.uint16)
    if packed["bits"] == 16:
        steps = steps | (data[size:].astype(np.uint16) << 8)
    most = 2 ** packed["bits"] - 1
    levels = np.cumsum(steps.reshape(shape), axis=-1) & most
    ranges = np.frombuffer(base64.b64decode(packed["range"]), "<f4").reshape(*shape[:-2], 2, 1, 1)
    low, high = ranges[..., 0, :, :], ranges[..., 1, :, :]
    return np.asarray(low + (high - low) * (levels / most))


@pytest.mark.parametrize("bits", [8, 16])
def test_maps_are_packed_to_within_half_a_level(bits: int) -> None:
    rng = np.random.default_rng(0)
    maps = (rng.standard_normal((3, 2, 5, 7)) * [[[[1e-5]]], [[[1]]], [[[1e5]]]]).astype(np.float32)
    maps[1, 1] = -0.25
    span = np.ptp(maps, axis=(-2, -1), keepdims=True)
    # Half of a level, and what float32 rounds of the range's ends.
    least = span / (2**bits - 1) / 2 + 2e-7 * np.abs(maps).max((-2, -1), keepdims=True)
    assert (np.abs(unpacked(pack_maps(maps, bits=bits)) - maps) <= least).all()


def test_masks_are_packed_to_the_bit() -> None:
    mask = np.random.default_rng(0).random((5, 7)) > 0.5
    packed = pack_mask(mask)
    bits = np.frombuffer(zlib.decompress(base64.b64decode(packed["bits"])), np.uint8)
    assert (np.unpackbits(bits)[:35].reshape(5, 7) == mask).all()


def test_a_prompt_is_data_and_nothing_else(tmp_path: Path) -> None:
    maps = maps_of(tokens_of(HOSTILE))
    page = maps.to_html(tmp_path / "deep" / "x.html").read_text("utf-8")
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["x.html"]
    plain = maps_of("a dog").to_html(tmp_path / "plain.html").read_text("utf-8")
    found, wanted = _Scripts(page), _Scripts(plain)
    assert found.names == wanted.names
    assert [kind for kind, _ in found.scripts] == ["application/json", None]
    assert found.scripts[1] == wanted.scripts[1]
    data = json.loads(found.scripts[0][1])
    texts = [piece["text"] for piece in data["texts"][0]["pieces"]]
    assert "".join(texts).startswith("".join(HOSTILE[:6]))
    assert not set("<>&'\u2028\u202e") & set(found.scripts[0][1])
    # What shows nothing is named by its code point.
    assert {"U+200F", "U+D800"} <= set(texts)


def test_the_page_asks_for_nothing() -> None:
    page = Viewer([Panel.of(maps_of())]).html()
    assert "default-src 'none'" in page
    for sign in ("http://", "https://", 'src="/', "@import", "url("):
        assert sign not in page.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize(
    "axes", [{}, {"step": list(range(20))}, {"layer": list("abcdefghijklmnop")}]
)
def test_twenty_words_on_a_large_image_stay_below_two_megabytes(axes: dict[str, list[Any]]) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (512, 512, 3)).astype(np.uint8)
    maps = maps_of(" ".join(f"word{i}" for i in range(20)), grid=(64, 64), axes=axes, image=noise)
    maps.data.values[:] += 0.02 * rng.random(maps.data.shape)
    assert len(Viewer([Panel.of(maps)]).html().encode()) < 2_000_000


def test_words_carry_their_number_and_groups_are_one() -> None:
    maps = maps_of("a dog and a ball")
    shown = ShownPrompt.of([Panel.of(maps)])
    assert [w.name for w in shown.words] == [
        "a (1)", "dog", "and", "a (2)", "ball", "<start>", "<end>", "<pad>",
    ]  # fmt: skip
    assert [w.players[0] for w in shown.words] == list(range(8))
    players = partition(PromptWords.of(maps.tokens), [["dog", "ball"]])
    group = maps_of("a dog and a ball", players=[*players, Word.outside("green  cat")])
    shown = ShownPrompt.of([Panel.of(group)])
    pieces = {piece.text: piece.word for piece in shown.texts[0].pieces if piece.word is not None}
    assert pieces["dog"] == pieces["ball"] != pieces["and"]
    assert (shown.words[-1].name, shown.words[-1].kind) == ("green cat", "other")


def test_panels_share_words_that_each_cut_otherwise() -> None:
    fine = maps_of("a red dog and a ball")
    coarse = maps_of(
        fine.tokens, players=partition(PromptWords.of(fine.tokens), ["red dog", ["and", "ball"]])
    )
    shown = ShownPrompt.of([Panel.of(fine), Panel.of(coarse)])
    pieces = shown.texts[0].pieces
    texts = [(p.text, None if p.word is None else shown.words[p.word].players) for p in pieces]
    phrase = [p.text for p in coarse.players].index("red dog")
    assert ("red", (1, phrase)) in texts
    assert ("dog", (2, phrase)) in texts
    assert "".join(p.text for p in pieces) == "a red dog and a ball"


def test_the_negative_prompts_words_are_words_of_their_own() -> None:
    maps = maps_of("a dog and a ball")
    against = maps_of("a blurry dog", negative=True)
    shown = ShownPrompt.of([Panel.of(against), Panel.of(maps)])
    assert [(text.title, len(text.pieces)) for text in shown.texts] == [
        ("", 9),
        ("Negative prompt", 5),
    ]
    assert [(word.name, word.players) for word in shown.words] == [
        ("a (1)", (None, 0)),
        ("dog", (None, 1)),
        ("and", (None, 2)),
        ("a (2)", (None, 3)),
        ("ball", (None, 4)),
        ("a (negative)", (0, None)),
        ("blurry (negative)", (1, None)),
        ("dog (negative)", (2, None)),
        ("<start>", (3, 5)),
        ("<end>", (4, 6)),
        ("<pad>", (5, 7)),
    ]
    words = [piece.word for text in shown.texts for piece in text.pieces if piece.word is not None]
    assert words == list(range(8))
    assert "<title>a dog and a ball ·" in Viewer([Panel.of(against), Panel.of(maps)]).html()
    assert "<title>a blurry dog ·" in Viewer([Panel.of(against)]).html()
    other = Panel.of(maps_of("a cat", negative=True))
    with pytest.raises(ValueError, match="one prompt"):
        Viewer([Panel.of(maps), Panel.of(against), other])


def test_words_that_the_model_never_read_are_named() -> None:
    known = maps_of("a red circle", model="scenes")
    unknown = maps_of("a red dog", model="scenes")
    assert not Panel.of(known).warning
    assert not Panel.of(maps_of("a red dog")).warning  # nobody knows which words "toy" has read
    assert "never trained on the word 'dog'" in Panel.of(unknown).warning
    players = [*known.players, Word.outside("green cat")]
    asked = maps_of("a red circle", model="scenes", players=players)
    assert "never trained on the word 'cat'" in Panel.of(asked).warning
    assert Viewer([Panel.of(unknown), Panel.of(unknown)])._plain(None)["warnings"] == [
        Panel.of(unknown).warning
    ]


def test_what_cannot_stand_side_by_side_is_refused() -> None:
    with pytest.raises(ValueError, match="one prompt"):
        Viewer([Panel.of(maps_of("a dog")), Panel.of(maps_of("a cat"))])
    with pytest.raises(ValueError, match="no maps"):
        Viewer([])


def test_notebooks_show_maps_and_words_in_a_frame() -> None:
    maps = maps_of()
    for shown in (maps, maps["dog"]):
        frame = shown._repr_html_()
        assert frame.startswith("<iframe")
        assert 'sandbox="allow-scripts"' in frame
        page = html.unescape(frame.split('srcdoc="')[1].split('" sandbox')[0])
        assert page.startswith("<!DOCTYPE html>")


def test_notebooks_show_a_trajectory() -> None:
    trajectory = toy_trajectory("<script> dog")
    shown = trajectory._repr_html_()
    assert "<script>" not in shown
    assert "<bdi>&lt;script&gt; dog</bdi>" in shown
    assert "seed 0 · steps 3 · guidance 3" in shown
    data = base64.b64decode(shown.split("base64,")[1].split('"')[0])
    assert (np.asarray(Image.open(BytesIO(data))) == trajectory.image).all()
