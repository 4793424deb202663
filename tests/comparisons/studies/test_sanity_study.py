"""``wordlight study sanity``: a model whose stages are known to matter, or not to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.toys import ToyBackend, toy_trajectory
from wordlight.backends.backend import MissingCapabilityError
from wordlight.comparisons.cli.main import main
from wordlight.comparisons.metrics.rank_correlation import rank_correlation
from wordlight.comparisons.studies.sanity import methods_of, study_sanity


class TwoStages(ToyBackend):
    """Its first stage changes nothing, its second replaces the whole model."""

    capabilities = frozenset({*ToyBackend.capabilities, "randomized"})

    def __init__(self) -> None:
        super().__init__(grid=(8, 8))
        self.jacobian = np.random.default_rng(0).standard_normal((3, 8, 8, 32, 5))

    @property
    def stages(self) -> tuple[str, ...]:
        return ("bias", "everything", "text_encoder")

    @contextmanager
    def _randomized(self, stages: tuple[str, ...], seed: int) -> Iterator[None]:
        trained = self.jacobian
        if "everything" in stages:
            self.jacobian = np.random.default_rng([9, seed]).standard_normal(trained.shape)
        try:
            yield
        finally:
            self.jacobian = trained

    def sample(self, prompts: Any, **options: Any) -> Any:
        return [
            toy_trajectory(p, grid=(8, 8), seed=i, context=32, steps=4)
            for i, p in enumerate(prompts)
        ]


def test_methods_that_a_model_cannot_run_are_left_out() -> None:
    found = methods_of(TwoStages())
    assert {"occlusion", "input-x-gradient", "random"} <= set(found)
    assert not {"concept-attention", "shuffled-word"} & set(found)


def test_what_depends_on_the_model() -> None:
    methods = ["occlusion", "input-x-gradient", "center", "uniform", "random"]
    found = {c.method: c for c in study_sanity(TwoStages(), methods, n=6)}
    assert found["occlusion"].stages == ("bias", "everything")
    for name, cascade in found.items():
        first, last = cascade.similarity
        assert first.mean == 1.0, "a stage that changes nothing changes no map"
        model = name in ("occlusion", "input-x-gradient")
        assert cascade.depends_on_model == model
        # Independent models of 64 pixels: a correlation of 1/8 a word, and some fifty words.
        assert abs(last.mean) < 0.15 if model else last.mean == 1.0


def test_rank_correlation() -> None:
    ramp = np.arange(12.0).reshape(3, 4)
    assert rank_correlation(ramp, np.exp(ramp)) == pytest.approx(1.0)
    assert rank_correlation(ramp, -ramp) == pytest.approx(-1.0)
    flat = np.ones((3, 4))
    assert rank_correlation(flat, flat) == 1.0
    assert rank_correlation(ramp, flat) == 0.0


def test_a_model_that_cannot_be_randomised() -> None:
    with pytest.raises(MissingCapabilityError, match="the sanity study needs randomized"):
        study_sanity(ToyBackend(), ["occlusion"], n=1)


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("wordlight.backends.loading.load", lambda *a, **k: TwoStages())
    line = [
        "study",
        "sanity",
        "--method",
        "occlusion",
        "--method",
        "center",
        "-n",
        "3",
        "--quiet",
        "-o",
    ]
    main([*line, str(tmp_path)])
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1].startswith("center")
    assert printed[-1].endswith("does not depend on the model")
    written = json.loads((tmp_path / "sanity.json").read_text())
    assert [c["depends_on_model"] for c in written] == [True, False]
    with Image.open(tmp_path / "sanity.png") as image:
        assert image.width > 500
