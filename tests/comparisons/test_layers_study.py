"""``wordlight study layers`` and ``positions``: attention that is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from tests.comparisons.fakes import CONTEXT, STEPS, FakeBackend, scenes_by_prompt
from wordlight.attribution.maps import AttributionMaps, Provenance
from wordlight.attribution.words import PromptWords
from wordlight.backends.attention import AttentionMean, AttentionMeans, AttentionQuery, Layer
from wordlight.backends.scenes.segment import segment
from wordlight.backends.trajectory import Trajectory
from wordlight.comparisons.ceiling import mask_on_grid
from wordlight.comparisons.command_line import main
from wordlight.comparisons.studies.layers import short, study_layers
from wordlight.comparisons.studies.positions import KINDS, shares, study_positions

SEEING = ("up_blocks.0.attentions.0.transformer_blocks.0.attn2", 2)
BLIND = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
TEXT, END, PAD = 0.02, 0.1, 0.01
NOWHERE = Provenance("given")


class OneLayerSees(FakeBackend):
    """Everywhere noise, but for one layer at one step, where each word lights up its mask."""

    capabilities = frozenset({"attention"})
    attention_layers = (Layer(BLIND, 1), Layer(SEEING[0], 1))

    def _attention(
        self, trajectory: Trajectory, query: AttentionQuery, steps: tuple[int, ...], keys: Any
    ) -> AttentionMeans:
        places = [(layer.name, step) for layer in self.attention_layers for step in steps]
        groups: dict[Any, list[Any]] = {}
        for layer, step in places:
            kept = (
                step if "step" in query.keep else None,
                layer if "layer" in query.keep else None,
            )
            groups.setdefault(kept, []).append(self._map(trajectory, layer, step))
        return AttentionMeans(
            tuple(
                AttentionMean(np.mean(maps, axis=0), len(maps), step, layer)
                for (step, layer), maps in groups.items()
            )
        )

    def _map(self, trajectory: Trajectory, layer: str, step: int) -> Any:
        if (layer, step) != SEEING:
            seed = [step, len(layer), trajectory.seed or 0]
            noise = np.random.default_rng(seed).random((CONTEXT, 16, 16))
            return noise.astype(np.float32)
        scene = scenes_by_prompt()[trajectory.prompt]
        masks = segment(trajectory.image).word_masks(scene)
        values = np.zeros((CONTEXT, 16, 16), np.float32)
        for word in PromptWords.of(trajectory.tokens).words:
            for index, mask in masks.items():
                if scene.words[index].start == word.start:
                    values[list(word.tokens)] = mask_on_grid(mask, (16, 16))
        return values


def test_the_one_layer_and_step_that_see_are_found(tmp_path: Path) -> None:
    found = study_layers(OneLayerSees(), tmp_path, calibration=12, n=12)
    assert found.layers == (BLIND, SEEING[0])
    assert len(found.scores) == 3 * (STEPS + 1)
    assert (found.best.layer, found.best.step) == SEEING
    # A mask reduced to the latent grid and back keeps most of itself; noise finds little.
    assert found.best.miou.mean > 0.75
    assert all(s.miou.mean < 0.4 for s in found.scores if s.layer == BLIND)
    assert found.at(SEEING[0], None).miou.mean > found.at(BLIND, None).miou.mean


def test_the_command_prints_the_table_and_draws_the_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("wordlight.backends.loading.load", lambda *a, **k: OneLayerSees())
    line = ["study", "layers", "-n", "8", "--calibration", "8", "--quiet", "-o", str(tmp_path)]
    main(line)
    printed = capsys.readouterr().out
    assert f"{short(SEEING[0])}  " in printed
    assert "t = 6" in printed  # the third of eight steps, 8 to 1
    written = json.loads((tmp_path / "layers.json").read_text())
    assert written["best"]["layer"] == SEEING[0]
    assert (tmp_path / "layers.txt").read_text() == printed
    with Image.open(tmp_path / "layers.png") as image:
        assert image.width > 500


def test_images_without_two_objects_are_refused(tmp_path: Path) -> None:
    blank = OneLayerSees(blank=True)
    with pytest.raises(ValueError, match="no image shows two of the objects"):
        study_layers(blank, tmp_path, calibration=2, n=2)


def given(merge: Any) -> AttributionMaps:
    """Two words of 0.02 a token, a full stop of -0.02, the end 0.1, 0.01 for each pad."""
    trajectory = FakeBackend().sample("red circle.")
    players = PromptWords.of(trajectory.tokens).players
    value = {"red": TEXT, "circle": TEXT, ".": -TEXT, "<end>": END, "<pad>": PAD, "<start>": 0.0}
    data = xr.DataArray(
        np.stack([np.full((4, 4), value[p.text]) for p in players]), dims=("word", "y", "x")
    )
    return AttributionMaps(
        data,
        players,
        trajectory.tokens,
        trajectory.image,
        merge=merge,
        signed=True,
        provenance=NOWHERE,
    )


@pytest.mark.parametrize(
    ("merge", "amounts"),
    [
        ("sum", (0.0, 2 * TEXT, -TEXT, END, PAD)),
        ("mean", (0.0, 2 * TEXT, -TEXT, END, (CONTEXT - 5) * PAD)),
        ("root-sum-square", (0.0, 2 * TEXT**2, TEXT**2, END**2, PAD**2)),
    ],
)
def test_shares_are_of_all_tokens_and_sum_to_one(merge: str, amounts: tuple[float, ...]) -> None:
    found = shares(given(merge))
    whole = sum(amounts)
    # Maps are kept in float32: seven digits.
    expected = {
        kind: pytest.approx(a / whole, rel=1e-5) for kind, a in zip(KINDS, amounts, strict=True)
    }
    assert found == expected
    assert sum(found.values()) == pytest.approx(1.0)


def test_attention_to_the_special_positions_is_counted_by_token() -> None:
    (found,) = study_positions(OneLayerSees(), ["daam"], n=3, steps=1)
    words = {p: len(PromptWords.of(FakeBackend().tokenize(p)).words) for p in scenes_by_prompt()}
    assert found.shares["<start>"].mean == pytest.approx(1 / CONTEXT, rel=0.1)
    assert 0.3 < found.shares["<pad>"].mean < 1 - min(words.values()) / CONTEXT
    assert sum(share.mean for share in found.shares.values()) == pytest.approx(1.0)


def test_maps_of_nothing_cannot_be_shared_out() -> None:
    maps = given("sum")
    nothing = AttributionMaps(
        maps.data * 0,
        maps.players,
        maps.tokens,
        maps.image,
        merge="sum",
        signed=True,
        provenance=NOWHERE,
    )
    with pytest.raises(ValueError, match="sum to nothing"):
        shares(nothing)
