"""The framework where none is named, and what is said where PyTorch isn't there."""

import sys

import pytest

import wordlight
from wordlight.backends import loading
from wordlight.comparisons.cli.main import main


@pytest.fixture
def without_torch(monkeypatch):
    """As in an environment with the extra [flax] alone."""
    there = loading.find_spec
    monkeypatch.setattr(
        loading, "find_spec", lambda name: None if name in ("torch", "diffusers") else there(name)
    )
    for name in [n for n in sys.modules if n.startswith("wordlight.backends.torch")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "diffusers", None)


def test_pytorch_comes_first():
    assert loading.default_framework() == "torch"


def test_where_neither_is_there_the_error_is_pytorchs(monkeypatch):
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    assert loading.default_framework() == "torch"


@pytest.mark.usefixtures("without_torch")
def test_flax_is_used_where_it_alone_is_there():
    assert loading.default_framework() == "flax"
    backend = wordlight.load("scenes")
    assert backend.framework == "flax"
    assert repr(backend).startswith("<FlaxBackend of scenes: flax on cpu")


@pytest.mark.slow  # the model is compiled anew
@pytest.mark.usefixtures("without_torch")
def test_the_command_line_says_which(tmp_path, capsys):
    assert main(["attribute", "a dog", "--sampling-steps", "1", "-o", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().err
    assert "loading scenes on flax" in told
    assert "wordlight: warning: scenes was never trained on the word 'dog'" in told


@pytest.mark.usefixtures("without_torch")
def test_tracing_a_pipeline_says_what_to_install():
    with pytest.raises(loading.ModelLoadError, match=r"wordlight\[torch\].*trace a backend"):
        wordlight.trace(object())
    with pytest.raises(loading.ModelLoadError, match=r"wordlight\[torch\]"):
        wordlight.load("scenes", framework="torch")
