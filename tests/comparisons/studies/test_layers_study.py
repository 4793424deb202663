"""``wordlight study layers`` and ``positions``: attention that is known."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
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
from wordlight.comparisons import compare
from wordlight.comparisons.cli.main import main
from wordlight.comparisons.datasets.images.generated_scenes import BATCH, GeneratedScenes
from wordlight.comparisons.metrics.ceiling import mask_on_grid
from wordlight.comparisons.studies.layers import (
    CONTROLS,
    GUIDANCE,
    OTHER_WORD,
    short_layer_name,
    study_layers,
)
from wordlight.comparisons.studies.positions import (
    KINDS,
    positions_of_run,
    shares,
    study_positions,
)

SEEING = ("up_blocks.0.attentions.0.transformer_blocks.0.attn2", 2)
BLIND = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
TEXT, END, PAD = 0.02, 0.1, 0.01
NOWHERE = Provenance("given")
LEFT = np.repeat([1.0, 0.0], 8)[None, None, None, :]


class OneLayerSees(FakeBackend):
    """Everywhere noise, but for one layer at one step, where each word lights up its mask; the
    prompt pushes the left half alone."""

    capabilities = frozenset({"attention", "denoise"})
    attention_layers = (Layer(BLIND, 1), Layer(SEEING[0], 1))
    later = 0.0

    def _draw(self, prompt: str, seed: int) -> Trajectory:
        drawn = super()._draw(prompt, seed)
        return replace(
            drawn,
            embeddings=np.ones_like(drawn.embeddings),
            timesteps=drawn.timesteps + np.float32(self.later),
        )

    def _denoise(self, latents: Any, timestep: float, conditioning: Any) -> Any:
        push = conditioning.embeddings.mean(axis=(1, 2))[:, None, None, None] * LEFT
        return latents + push

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
    assert found.controls == CONTROLS
    assert len(found.scores) == 5 * (STEPS + 1)
    assert (found.best.layer, found.best.step) == SEEING
    # A mask reduced to the latent grid and back keeps most of itself; noise finds little.
    assert found.best.miou.mean > 0.75
    assert all(s.miou.mean < 0.4 for s in found.scores if s.layer == BLIND)
    assert found.at(SEEING[0], None).miou.mean > found.at(BLIND, None).miou.mean
    # What the layer sees is the word's, and no other object's.
    (seen, other) = (found.at(layer, SEEING[1]).miou.mean for layer in (None, OTHER_WORD))
    assert other < 0.3 < seen
    # The prompt's push is the left half at every step, whatever the word.
    pushed = [found.at(GUIDANCE, step).miou.mean for step in (*range(STEPS), None)]
    by_hand = [
        scored.mask[:, :32].sum() / (scored.mask[:, 32:].sum() + 64 * 32)
        for item in GeneratedScenes(OneLayerSees(), "test", 12).stream(tmp_path)
        for scored in item.words
        if scored.headline
    ]
    # The latent grid's edge, resized, is a pixel wide.
    assert pushed == pytest.approx([np.mean(by_hand)] * len(pushed), abs=0.02)


def test_the_command_prints_the_table_and_draws_the_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("wordlight.backends.loading.load", lambda *a, **k: OneLayerSees())
    line = ["study", "layers", "-n", "8", "--calibration", "8", "--quiet", "-o", str(tmp_path)]
    assert main(line) == 0
    printed = capsys.readouterr().out
    assert f"{short_layer_name(SEEING[0])}  " in printed
    assert "t = 6" in printed  # the third of eight steps, 8 to 1
    assert f"the best place there is\n{short_layer_name(SEEING[0])} at t = 6" in printed
    assert GUIDANCE in printed
    assert OTHER_WORD in printed
    written = json.loads((tmp_path / "layers.json").read_text())
    assert written["best"]["layer"] == SEEING[0]
    assert (tmp_path / "layers.txt").read_text() == printed
    with Image.open(tmp_path / "layers.png") as image:
        assert image.width > 500


def test_images_of_a_comparison_are_taken_and_those_of_others_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = OneLayerSees()
    monkeypatch.setattr("wordlight.backends.loading.load", lambda *a, **k: backend)
    compare(backend, ["uniform"], out=tmp_path / "run", n=8, calibration=8, progress=False)
    drawn = len(backend.drawn)
    line = ["study", "layers", "-n", "8", "--calibration", "8", "--quiet", "--json"]
    line += ["--images", str(tmp_path / "run" / "samples")]
    assert main(line) == 0
    # Nothing is drawn again, but the first batch, for its timesteps.
    assert len(backend.drawn) - drawn <= BATCH
    capsys.readouterr()
    backend.later = 0.5
    assert main(line) == 2
    assert "was drawn in other steps than renderer takes now" in capsys.readouterr().err
    backend.later = 0.0
    assert main([*line, "--seed", "1"]) == 2
    error = capsys.readouterr().err
    assert "scenes-calibration-0000.safetensors is of other images: it was drawn by" in error


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


def test_shares_of_a_finished_run_are_those_of_the_same_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = OneLayerSees()
    out = tmp_path / "run"
    methods = ["daam", "uniform", "shuffled-word"]
    compare(backend, methods, out=out, n=3, calibration=8, steps=1, progress=False)
    (asked,) = study_positions(backend, ["daam"], n=3, steps=1)
    model, images, (kept,) = positions_of_run(out, ["daam"])
    assert (model, images, kept) == ("renderer", 3, asked)

    def nothing(*_a: Any, **_k: Any) -> Any:
        raise AssertionError("no model is needed")

    monkeypatch.setattr("wordlight.backends.loading.load", nothing)
    line = ["study", "positions", "--run", str(out), "--quiet"]
    assert main([*line, "--method", "daam", "--method", "daam", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["methods"]
    assert told == json.loads(json.dumps(asked.to_json()))
    for more, says in (
        (["--method", "occlusion"], "has no row 'occlusion'; it has daam, uniform, daam-all-step"),
        (["--method", "shuffled-word.daam"], "has no row 'shuffled-word.daam'"),
    ):
        assert main([*line, *more]) == 2
        assert says in capsys.readouterr().err
    shutil.rmtree(out / "maps")
    assert main([*line, "--method", "daam"]) == 2
    assert "hasn't kept the maps of daam" in capsys.readouterr().err
    assert main([*line[:3], str(tmp_path), "--method", "daam"]) == 2
    assert "holds no finished run" in capsys.readouterr().err


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
