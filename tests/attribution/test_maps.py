"""``AttributionMaps``: selecting, merging, masks, and the file."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.toys import toy_trajectory
from wordlight.attribution.attributor import partition
from wordlight.attribution.maps import AttributionMaps, Merge, Provenance, WordMap, normalise
from wordlight.attribution.words import PromptWords, Word, WordPlace
from wordlight.backends.arrays_file import FileFormatError

TRAJECTORY = toy_trajectory("a red circle and a blue circle")
PLAYERS = PromptWords.of(TRAJECTORY.tokens).players


def make(merge: Merge = "sum", signed: bool = True, **changes: Any) -> AttributionMaps:
    values = np.random.default_rng(0).standard_normal((len(PLAYERS), 4, 6))
    data = changes.pop("data", xr.DataArray(values, dims=("word", "y", "x")))
    return AttributionMaps(
        data,
        changes.pop("players", PLAYERS),
        TRAJECTORY.tokens,
        TRAJECTORY.image,
        merge=merge,
        signed=signed,
        provenance=Provenance("test", {"steps": 4}),
    )


def test_a_word_is_an_array() -> None:
    maps = make()
    array = np.asarray(maps["red"])
    assert array.dtype == np.float32
    assert array.shape == (4, 6)
    assert (array == maps.data.values[1]).all()
    assert np.asarray(maps["circle", 1]).tolist() == maps.data.values[6].tolist()


def test_phrases_merge_as_the_method_says() -> None:
    summed, meant = make("sum"), make("mean")
    both = summed.data.values[[1, 2]]
    assert np.allclose(np.asarray(summed["red circle"]), both.sum(0), atol=1e-6)
    assert np.allclose(np.asarray(meant["red circle"]), both.mean(0), atol=1e-6)
    # <pad> is three positions, one player.
    assert np.asarray(meant["<pad>"]).tolist() == meant.data.values[-1].tolist()


def test_words_that_stand_apart_merge_like_a_phrase(tmp_path: Path) -> None:
    key: list[WordPlace] = ["red", ("circle", 1)]
    apart = make("mean")
    wanted = apart.data.values[[1, 6]].mean(0)
    assert np.allclose(np.asarray(apart[key]), wanted, atol=1e-6)
    # As a player it has a map of its own, which is the file's too; its words then have none.
    players = partition(PromptWords.of(TRAJECTORY.tokens), [key])
    data = xr.DataArray(apart.data.values[: len(players)], dims=("word", "y", "x"))
    maps = make(data=data, players=players)
    assert [p.text for p in players][:3] == ["a", "red … circle", "circle"]
    maps.save(tmp_path / "maps.safetensors")
    loaded = AttributionMaps.load(tmp_path / "maps.safetensors")
    assert loaded.players == maps.players
    for one in (maps, loaded):
        assert (np.asarray(one[key]) == data.values[1]).all()
        assert one[key].word.spans == ((2, 5), (24, 30))
        with pytest.raises(KeyError, match="no map of its own"):
            one["red"]


def test_a_map_and_a_run_show_themselves_in_a_line() -> None:
    shown = repr(make()["red"])
    assert re.fullmatch(r"WordMap\('red', 4x6, -?[\d.]+\.\.[\d.]+\)", shown)
    model = f"{TRAJECTORY.model_id} on {TRAJECTORY.framework}"
    assert repr(TRAJECTORY) == (
        f"Trajectory('a red circle and a blue circle', 3 steps of {model}, latents 4x6, seed "
        f"{TRAJECTORY.seed})"
    )


def test_a_threshold_is_a_number() -> None:
    assert make()["red"].mask(np.float32(0.5)).any()
    wrong: Any = "0.4"
    with pytest.raises(TypeError, match=r"a threshold is a number, not '0\.4'"):
        make()["red"].mask(wrong)


def test_masks_have_the_images_size() -> None:
    maps = make()
    assert maps["red"].mask(0.4).shape == TRAJECTORY.image.shape[:2] == (16, 24)
    assert maps["red"].mask(0.0).all()
    assert maps["red"].mask(1.0).sum() == 1
    with pytest.raises(ValueError, match="between 0 and 1"):
        maps["red"].mask(40)


def test_overlay_is_a_picture() -> None:
    picture = make()["red"].overlay()
    assert picture.size[0] * 16 == picture.size[1] * 24
    with pytest.raises(ValueError, match="opacity"):
        make()["red"].overlay(2.0)


def one_map(values: Any, signed: bool = False) -> WordMap:
    return WordMap(PLAYERS[1], np.asarray(values, np.float32), signed, TRAJECTORY.image)


RING = np.zeros((4, 6))
RING[2, 3] = -1  # bicubic resizing overshoots zero beside it


@pytest.mark.parametrize(
    ("values", "signed"),
    [
        (np.zeros((4, 6)), False),
        (np.full((4, 6), 0.3), False),
        # What float32 sums of equal numbers differ by.
        (0.3 * (1 + 2e-7 * np.arange(24).reshape(4, 6) / 24), False),
        (np.full((4, 6), 0.3), True),
        (np.zeros((4, 6)), True),
        (np.full((4, 6), -0.3), True),
        (-np.arange(24.0).reshape(4, 6), True),
        (RING, True),
        (RING, False),
        (np.arange(24).reshape(4, 6) - 50.0, False),
    ],
)
def test_a_map_without_anything_to_see_shows_nothing(values: Any, signed: bool) -> None:
    word_map = one_map(values, signed)
    assert word_map.blank
    assert not word_map.normalised().any()
    assert not any(word_map.mask(threshold).any() for threshold in (0.0, 0.4, 1.0))
    nothing = one_map(np.zeros((4, 6))).overlay()
    assert word_map.overlay().tobytes() == nothing.tobytes()


def test_faint_maps_are_shown() -> None:
    for values, signed in ((0.3 + 1e-4 * RING**2, False), (RING + 0.01 * RING[::-1] ** 2, True)):
        word_map = one_map(values, signed)
        assert not word_map.blank
        assert word_map.normalised().max() == 1
        assert word_map.mask(0.4).any()


def test_maps_are_a_mapping() -> None:
    maps = make()
    assert list(maps) == [
        ("a", 0), "red", ("circle", 0), "and", ("a", 1), "blue", ("circle", 1),
        "<start>", "<end>", "<pad>",
    ]  # fmt: skip
    assert len(maps) == len(list(maps)) == 10
    for key, player in zip(maps, maps.players, strict=True):
        assert key in maps
        assert maps[key].word == maps[player].word == player
    assert dict(maps.items())["red"].word.text == "red"
    assert [one.word for one in maps.values()] == list(maps.players)
    assert np.asarray(maps).shape == (10, 4, 6)
    assert (np.asarray(maps, np.float64) == maps.data.values).all()
    # As the brackets do: phrases, spans and groups are there, what they refuse is not.
    keys: tuple[Any, ...] = (
        "Red",
        "red circle",
        "<pad>",
        ("circle", 1),
        slice(2, 5),
        ["red", "blue"],
    )
    assert all(key in maps for key in keys)
    absent: tuple[Any, ...] = (
        "circle",
        "green",
        ("circle", 2),
        3,
        None,
        slice(0, 3),
        [],
        ["red", "red"],
    )
    assert not any(key in maps for key in absent)
    assert maps.get("green") is None
    assert maps == maps != make()
    assert maps in {maps}


def test_a_key_names_its_own_player() -> None:
    # Another word was asked about that reads like one of the prompt, and one in several parts.
    players = (
        Word.outside("red"),
        *partition(PromptWords.of(TRAJECTORY.tokens), [["blue", "red"]]),
    )
    data = xr.DataArray(
        np.arange(len(players))[:, None, None] * np.ones((4, 6)), dims=("word", "y", "x")
    )
    maps = make("mean", data=data, players=players)
    for index, key in enumerate(maps):
        assert (np.asarray(maps[key]) == index).all()


def test_words_are_completed_in_brackets() -> None:
    assert make()._ipython_key_completions_() == list(make())
    assert "red" in make()._ipython_key_completions_()


def test_kept_axes_are_selected_by_label() -> None:
    values = np.random.default_rng(0).random((len(PLAYERS), 2, 4, 6))
    data = xr.DataArray(values, dims=("word", "layer", "y", "x"), coords={"layer": ["up", "mid"]})
    maps = make("mean", False, data=data)
    assert np.allclose(np.asarray(maps["red"]), values[1].mean(0), atol=1e-6)
    one = maps.select(layer="mid")
    assert np.allclose(np.asarray(one["red"]), values[1, 1], atol=1e-6)
    with pytest.raises(KeyError, match="kept axes are"):
        maps.select(layer="down")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": xr.DataArray(np.zeros((3, 4, 6)), dims=("word", "y", "x"))}, "3 maps for 10"),
        ({"data": xr.DataArray(np.zeros((10, 4, 6)), dims=("word", "x", "y"))}, "dimensions must"),
        ({"data": xr.DataArray(np.full((10, 4, 6), np.nan), dims=("word", "y", "x"))}, "finite"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**change)


@given(
    arrays(np.float32, (5, 5), elements=st.floats(-100, 100, width=16)),
    st.floats(0.1, 10),
    st.floats(-5, 5),
)
def test_normalising_is_bounded_and_ignores_scale(
    values: np.ndarray[Any, Any], scale: float, shift: float
) -> None:
    once = normalise(values, signed=False)
    assert once.min() >= 0
    assert once.max() == 1
    if np.ptp(values) > 1e-2:
        again = normalise((values * scale + shift).astype(np.float32), signed=False)
        # float32 rounding of values up to 1000, relative to a range of at least 1e-3.
        assert np.abs(once - again).max() < 1e-1 if np.ptp(values) < 1 else 1e-3
    if values.min() == values.max():
        assert (once == 1).all()


def test_only_what_speaks_for_a_word_makes_its_mask() -> None:
    values = np.array([[-9.0, 0.0, 1.0, 2.0]], np.float32)
    assert normalise(values, signed=True).tolist() == [[0, 0, 0.5, 1]]


def test_the_file_keeps_everything(tmp_path: Path) -> None:
    maps = make("mean", True)
    maps.save(tmp_path / "maps.safetensors")
    back = AttributionMaps.load(tmp_path / "maps.safetensors")
    assert (back.data.values == maps.data.values).all()
    assert back.players == maps.players
    assert back.tokens == maps.tokens
    assert back.provenance == maps.provenance
    assert (back.merge, back.signed) == ("mean", True)
    assert (back.image == maps.image).all()
    assert [p.name for p in tmp_path.iterdir()] == ["maps.safetensors"]


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "maps.safetensors"
    make().save(path)
    whole = path.read_bytes()
    for cut in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(FileFormatError, match=r"damaged|truncated"):
            AttributionMaps.load(path)
    size = struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8 : 8 + size])
    facts = json.loads(header["__metadata__"]["wordlight"])
    facts["version"] = 99
    header["__metadata__"]["wordlight"] = json.dumps(facts)
    other = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(other)) + other + whole[8 + size :])
    with pytest.raises(FileFormatError, match="version 99"):
        AttributionMaps.load(path)
    TRAJECTORY.save(path)
    with pytest.raises(FileFormatError, match="'trajectory'"):
        AttributionMaps.load(path)
    with pytest.raises(FileNotFoundError):
        AttributionMaps.load(tmp_path / "none")


def test_shares_on_paper() -> None:
    """Attention of 1 a position: nine words, of one token each, and marks and padding, of five."""
    values = xr.DataArray(np.ones((len(PLAYERS), 4, 6)), dims=("word", "y", "x"))
    maps = make("mean", signed=False, data=values)
    shares = maps.shares
    assert list(shares) == list(maps)
    assert shares["<pad>"] == pytest.approx(3 / 12)
    assert shares[("circle", 1)] == pytest.approx(1 / 12)
    assert sum(shares.values()) == pytest.approx(1)
    # Sums are wholes already.
    assert make("sum", signed=False, data=values).shares["<pad>"] == pytest.approx(1 / 10)
    assert " 25.0%  <pad> (3 tokens)" in maps.describe()
    assert "settings: steps=4" in maps.describe()
    # A word from outside has no part of the attention that there was.
    outside = Word.outside("dog")
    more = xr.DataArray(np.ones((len(PLAYERS) + 1, 4, 6)), dims=("word", "y", "x"))
    beside = make("mean", signed=False, data=more, players=(*PLAYERS, outside))
    assert beside.shares == shares
    with pytest.raises(ValueError, match="signed maps: they have no shares"):
        _ = make().shares
    with pytest.raises(ValueError, match="zero everywhere"):
        _ = make(signed=False, data=values * 0).shares
    assert "share" not in make().describe()
