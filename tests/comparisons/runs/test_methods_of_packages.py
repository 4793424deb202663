"""Methods of other packages: what they do may change with a release of theirs."""

from __future__ import annotations

import importlib
import sys

import pytest

from tests.comparisons.fakes import FakeBackend
from wordlight.attribution.methods.controls import Uniform
from wordlight.attribution.methods.noise_tunnel import NoiseTunnel
from wordlight.attribution.methods.occlusion import Occlusion
from wordlight.comparisons import compare
from wordlight.comparisons.rows.map_sources import LiveMaps
from wordlight.comparisons.store.versions import releases_of

MODULE = """
from wordlight.attribution.methods.controls import Uniform
from wordlight.attribution.methods.occlusion import Occlusion

class Theirs(Uniform):
    name = "theirs"

class ByStep(Occlusion):
    name = "by-step"
"""


def install(folder, version):
    releases_of.cache_clear()
    about = folder / "theirs_of_wordlight.dist-info"
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: theirs-of-wordlight\nVersion: {version}\n"
    )
    (about / "RECORD").write_text("theirs_of_wordlight.py,,\n")


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "theirs_of_wordlight.py").write_text(MODULE)
    install(folder, "1.0")
    monkeypatch.syspath_prepend(folder)
    yield importlib.import_module("theirs_of_wordlight")
    del sys.modules["theirs_of_wordlight"]
    releases_of.cache_clear()


def test_another_release_is_another_run(theirs, tmp_path):
    backend = FakeBackend()
    options = {"out": tmp_path / "out", "n": 2, "calibration": 4, "progress": False}
    compare(backend, [theirs.Theirs(backend)], **options)
    compare(backend, [theirs.Theirs(backend)], **options)
    install(tmp_path / "site-packages", "1.1")
    changed = "was .'theirs-of-wordlight 1.0'., now .'theirs-of-wordlight 1.1'."
    with pytest.raises(ValueError, match=rf"methods\.theirs\.releases {changed}"):
        compare(backend, [theirs.Theirs(backend)], **options)


def test_whose_code_a_method_is(theirs):
    backend = FakeBackend()
    tunnel = LiveMaps(NoiseTunnel(theirs.ByStep(backend)))
    assert tunnel.settings()["releases"] == ["theirs-of-wordlight 1.0"]
    # Ours are of the run's own release, and what isn't installed is of none.
    assert "releases" not in LiveMaps(NoiseTunnel(Occlusion(backend))).settings()
    assert "releases" not in LiveMaps(type("Loose", (Uniform,), {})(backend)).settings()
