"""How far apart two backends of one model are, and the command that says it."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wordlight.attribution.testing.model import ToyModel
from wordlight.backends.backend import Backend, MissingCapabilityError
from wordlight.comparisons.cli.main import main
from wordlight.comparisons.studies.parity import Parity, study_parity, write_parity


def compared(backends: tuple[Backend, Backend], *given: Any, **options: Any) -> Parity:
    """Of a prompt that the small model's context holds."""
    return study_parity(backends, *given, prompts=["a red circle"], **options)


class Other(ToyModel):
    """The same model by another framework: predictions are larger by a share."""

    framework = "other"
    share = 1e-3

    def _denoise(self, *args: Any) -> Any:
        return (1 + self.share) * super()._denoise(*args)


class Poor(Other):
    @property
    def capabilities(self) -> frozenset[str]:
        return super().capabilities - {"attention"}


def test_differences_that_are_known() -> None:
    """Occlusion is linear in the predictions, so its maps are larger by the same share."""
    found = compared((ToyModel(), Other()), ["occlusion", "center", "daam"], n=2, steps=2)
    by_method: dict[str, list[Any]] = {}
    for one in found.differences:
        by_method.setdefault(one.method, []).append(one)
    assert [one.step for one in by_method["occlusion"]] == [0, 2]
    assert [one.step for one in by_method["center"]] == [None]
    for one in by_method["occlusion"]:
        # The largest value is larger by the share, every other one by less; maps are float32.
        assert one.largest_relative == pytest.approx(1e-3, rel=1e-3)
        assert 0 < one.median_relative < one.largest_relative
        assert 0 < one.median < one.largest
    for name in ("center", "daam"):
        assert {one.largest for one in by_method[name]} == {0.0}
    assert found.frameworks == ("numpy", "other")
    assert not found.left_out


def test_the_same_backend_has_no_differences() -> None:
    found = compared((ToyModel(), ToyModel()), n=1, steps=1)
    assert {one.largest for one in found.differences} == {0.0}
    assert {one.largest_relative for one in found.differences} == {0.0}
    assert {"daam", "shapley", "regeneration"} <= {one.method for one in found.differences}
    assert found.left_out == {"shuffled-word": "it takes another method's maps"}


def test_what_can_not_run_is_left_out_with_the_reason() -> None:
    found = compared((ToyModel(), Poor()), n=1, steps=1)
    assert "other has no attention" in found.left_out["daam"]
    assert "daam" not in {one.method for one in found.differences}
    with pytest.raises(MissingCapabilityError, match="daam needs attention"):
        compared((ToyModel(), Poor()), ["daam"], n=1)
    with pytest.raises(ValueError, match="takes another method's maps"):
        compared((ToyModel(), Other()), ["shuffled-word"], n=1)


def test_two_models() -> None:
    other = Other()
    other.revision = "abc"  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"of one model, not of toy \(None\) and toy \(abc\)"):
        compared((ToyModel(), other), ["occlusion"])


def test_the_page_escapes_what_it_shows(tmp_path: Path) -> None:
    backends: list[Backend] = [ToyModel(), Other()]
    for backend in backends:
        backend.model_id = backend.revision = "<script>alert(1)</script>"
    found = compared((backends[0], backends[1]), ["occlusion"], n=1, steps=1)
    write_parity(tmp_path, found)
    page = (tmp_path / "parity.html").read_text("utf-8")
    assert "<script" not in page
    assert "Revision &lt;script&gt;alert(1)&lt;/script&gt;." in page
    assert not re.search(r"(src|href)=|https?://|@import", page)


def test_maps_of_zeros_are_met_by_zeros_alone() -> None:
    class Mute(ToyModel):
        def _denoise(self, latents: Any, *args: Any) -> Any:
            return np.zeros_like(latents)

    found = compared((Mute(), Other()), ["guidance-norm"], n=1, steps=1)
    (one,) = found.differences
    assert math.isinf(one.largest_relative)
    written = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert written["differences"][0]["largest_relative"] is None
    assert written["differences"][0]["largest"] == one.largest > 0


@pytest.mark.parametrize("missing", ["torch", "flax"])
def test_a_framework_that_is_not_installed(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Entry:
        def __init__(self, name: str) -> None:
            self.name = name

        def load(self) -> Any:
            if self.name == missing:
                raise ImportError(f"No module named {missing!r}")

            class StudyResult:
                load = staticmethod(lambda *args, **options: ToyModel())

            return StudyResult

    entries = [Entry("flax"), Entry("torch")]
    monkeypatch.setattr("wordlight.backends.loading.entry_points", lambda group: entries)
    assert main(["study", "parity"]) == 2
    error = capsys.readouterr().err
    assert f"pip install 'wordlight[{missing}]'" in error
    assert error.count("\n") == 1


def test_bad_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")

    def unasked(*args: Any, **options: Any) -> Any:
        raise AssertionError("a model was loaded before the folder was looked at")

    monkeypatch.setattr("wordlight.backends.loading.load", unasked)
    assert main(["study", "parity", "-o", str(tmp_path / "file")]) == 2
    assert "file: it is a file: name a folder" in capsys.readouterr().err
    assert main(["study", "parity", "a/model", "--method", "dam"]) == 2
    assert "no method 'dam'; did you mean daam" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["study", "parity", "--help"])
    assert "PyTorch" in capsys.readouterr().out
