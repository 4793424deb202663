"""``wordlight study following``: shares that are known beforehand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.toys import ToyBackend, toy_tokens
from wordlight.backends.backend import Backend
from wordlight.backends.prompted_data import SCENES, THINGS, PromptedData
from wordlight.backends.things.segment import FoundThing, Segmentation
from wordlight.backends.trajectory import Trajectory
from wordlight.comparisons.cli.main import main
from wordlight.comparisons.studies.following import study_following


class Renderer(ToyBackend):
    """Draws what the renderer draws for the same split and number, or always one wrong thing."""

    def __init__(self, split: str, *, right: bool, data: PromptedData = SCENES) -> None:
        super().__init__()
        scenes = [data.rendered(split, index) for index in range(40)]
        self._images = {s.scene.prompt: s.image for s in scenes}
        if not right:
            blank = np.zeros((64, 64, 3), np.uint8)
            self._images = dict.fromkeys(self._images, blank)

    def sample(self, prompts: Any, **options: Any) -> Any:
        return [
            Trajectory(
                prompt=prompt,
                tokens=toy_tokens(prompt, 40),
                embeddings=np.zeros((40, 2)),
                empty_embeddings=np.zeros((40, 2)),
                timesteps=np.zeros(1),
                latents=np.zeros((1, 4, 16, 16)),
                image=self._images[prompt],
                guidance_scale=1.0,
                model_id="renderer",
                framework="numpy",
            )
            for prompt in prompts
        ]


@pytest.mark.parametrize(("right", "share"), [(True, 1.0), (False, 0.0)])
def test_perfect_and_empty_images(right: bool, share: float) -> None:
    found = study_following(Renderer("test", right=right), n=20, split="test")
    assert {one.mean for one in found.shares.values()} == {share}
    scenes = [SCENES.rendered("test", index).scene for index in range(20)]
    assert found.shares["count"].n == sum(len(s.groups) for s in scenes)
    assert found.shares["colour"].n == sum(g.count for s in scenes for g in s.groups)
    assert all(d.right == right for d in found.drawings)


def exact_things() -> PromptedData:
    """Things, with a segmenter that knows the first rendered pictures."""
    items = [THINGS.rendered("test", index) for index in range(12)]
    known = {item.image.tobytes(): item for item in items}

    def segment(image: np.ndarray) -> Segmentation:
        item = known.get(image.tobytes())
        if item is None:
            return Segmentation((), "none", np.ones((64, 64), bool))
        found = [
            FoundThing(item.scene.groups[o.group].noun, item.group_masks[o.group], o.y, o.x)
            for o in item.objects
        ]
        return Segmentation(tuple(found), item.ground, item.ground_mask)

    return replace(THINGS, segment=segment)


@pytest.mark.parametrize(("right", "share"), [(True, 1.0), (False, 0.0)])
def test_things_are_judged_by_their_own_segmenter(right: bool, share: float) -> None:
    data = exact_things()
    found = study_following(Renderer("test", right=right, data=data), n=12, data=data)
    assert {kind: one.mean for kind, one in found.shares.items()} == dict.fromkeys(
        ("thing", "count", "relation", "ground"), share
    )
    scenes = [THINGS.rendered("test", index).scene for index in range(12)]
    assert found.shares["thing"].n == sum(g.count for s in scenes for g in s.groups)
    assert found.shares["ground"].n == sum(s.ground is not None for s in scenes)


def test_the_command_writes_a_sheet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(model: str, **options: Any) -> Backend:
        assert model == "scenes"
        return Renderer("validation", right=True)

    monkeypatch.setattr("wordlight.backends.loading.load", fake)
    out = ["-o", str(tmp_path / "study")]
    status = main(["study", "following", "-n", "10", "--split", "validation", "--json", *out])
    assert status == 0
    printed = json.loads(capsys.readouterr().out)
    assert set(printed) == {"colour", "shape", "count", "relation"}
    assert set(printed["colour"]) == {"mean", "low", "high", "n"}
    assert json.loads((tmp_path / "study" / "following.json").read_text()) == printed
    with Image.open(tmp_path / "study" / "sheet.png") as sheet:
        assert min(sheet.size) > 100


def test_what_was_not_asked_for_is_null_and_no_number(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "wordlight.backends.loading.load", lambda *_a, **_k: Renderer("test", right=True)
    )
    first = SCENES.rendered("test", 0).scene
    assert first.relation is None, "this needs a prompt without a relation"

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    assert main(["study", "following", "-n", "1", "--json", "--quiet"]) == 0
    printed = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert printed["relation"] == {"mean": None, "low": None, "high": None, "n": 0}
    assert (printed["colour"]["mean"], printed["colour"]["low"]) == (1.0, None)
    assert main(["study", "following", "-n", "1", "--quiet"]) == 0
    assert "nan" not in capsys.readouterr().out


def test_an_unknown_split_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "following", "-n", "1", "--split", "dev"]) == 2
    assert "no split 'dev'; there are train, validation" in capsys.readouterr().err
    asked = ["study", "following", "-n", "1", "--data", "things", "--split", "dev"]
    assert main(asked) == 2
    assert "unseen-style, unseen-pairs, look-alikes" in capsys.readouterr().err
