"""The precision of weights and of products: what files have, what was asked for, what is said."""

from __future__ import annotations

import shutil
import sys
import threading

import pytest
import torch
from safetensors.torch import save_file

import wordlight
from wordlight.attribution import DAAM
from wordlight.backends import model_folder
from wordlight.backends.embedded import SCENES
from wordlight.backends.model_folder import ModelLoadError, stored_dtype
from wordlight.backends.progress import listening
from wordlight.backends.testing import Check
from wordlight.backends.torch import precision
from wordlight.backends.torch.model import Model


@pytest.fixture(scope="module")
def backend():
    return wordlight.load("scenes", framework="torch", device="cpu", precision="highest")


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """A folder whose files are float16, and that doesn't say how it was trained."""
    folder = tmp_path_factory.mktemp("models") / "half"
    shutil.copytree(SCENES, folder)
    (folder / "training.json").unlink()
    return folder


def test_a_folder_keeps_the_precision_of_its_files(half):
    kept = wordlight.load(half, framework="torch", device="cpu")
    parts = (kept.pipe.unet, kept.pipe.vae, kept.pipe.text_encoder)
    assert {p.dtype for part in parts for p in part.parameters()} == {torch.float16}
    assert kept.dtype == "float16"
    assert kept.precision == ""
    wide = wordlight.load(half, framework="torch", device="cpu", dtype="float32")
    assert wide.dtype == "float32"
    assert {p.dtype for p in wide.pipe.text_encoder.parameters()} == {torch.float32}


def test_a_folder_may_say_that_it_is_computed_in_float32(backend):
    """The embedded models are stored as float16."""
    assert stored_dtype(SCENES, "unet") == "float32"
    assert backend.dtype == "float32"


@pytest.mark.parametrize(
    ("dtypes", "found"),
    [
        ((torch.bfloat16, torch.float32), "bfloat16"),
        ((torch.float32, torch.float16), "float32"),
        ((torch.float64, torch.float16), "float64"),
        ((torch.int8, torch.float16), None),
        ((), None),
    ],
)
def test_most_numbers_tell_the_precision(tmp_path, dtypes, found):
    (tmp_path / "unet").mkdir()
    tensors = {str(k): torch.zeros(9 - k, dtype=dtype) for k, dtype in enumerate(dtypes)}
    if tensors:
        save_file(tensors, tmp_path / "unet" / "model.safetensors")
        # A variant, which isn't what is loaded.
        save_file({"0": torch.zeros(99)}, tmp_path / "unet" / "model.non_ema.safetensors")
    assert stored_dtype(tmp_path, "unet") == found


def test_loading_shows_progress_in_a_terminal_alone(half, monkeypatch, capsys):
    monkeypatch.setattr(model_folder, "_LARGE", 0)
    told = []
    with listening(lambda *progress: told.append(progress)):
        wordlight.load(half, framework="torch", device="cpu")
    assert capsys.readouterr().err == ""
    assert told
    assert {what for what, *_ in told} == {"loading"}
    # The last of its parts is the last megabyte.
    assert told[-1][1] == told[-1][2]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with model_folder.loading_bar(half, ["unet"]) as done:
        done("unet")
    assert "loading half" in capsys.readouterr().err


@pytest.fixture
def seen(monkeypatch):
    """The settings of convolutions and products in each pass of a denoiser."""
    found = []
    call = Model.call

    def watched(*args, **kwargs):
        found.append(precision._get())
        return call(*args, **kwargs)

    monkeypatch.setattr(Model, "call", watched)
    return found


def test_passes_are_computed_in_the_precision_that_was_asked_for(backend, seen):
    before = precision._get()
    run = backend.sample("a red circle", seed=1, steps=2)
    maps = DAAM(backend, steps=1).attribute(run)
    assert seen
    assert set(seen) == {("ieee", "ieee")}
    assert precision._get() == before
    assert backend.precision == maps.provenance.precision == "highest"


def test_checks_of_float32_are_exact(backend, monkeypatch):
    monkeypatch.setattr(backend, "_asked_precision", "high")
    found = []
    check = Check("what holds", lambda subject: found.append(subject.backend.asked_precision))
    check(backend)
    assert found == ["highest"]
    assert backend.asked_precision == "high"


def test_threads_wait_for_another_precision_and_put_back_what_was_set():
    before = precision._get()
    go_on = threading.Event()
    seen = []

    def work(name, ready):
        with precision.multiplying(name):
            ready.set()
            seen.append((name, precision._get()))
            assert go_on.wait(60)

    names = ["high", "high", "highest", None]
    ready = [threading.Event() for _ in names]
    works = [
        threading.Thread(target=work, args=each, daemon=True)
        for each in zip(names, ready, strict=True)
    ]
    works[0].start()
    assert ready[0].wait(60)
    for one in works[1:]:
        one.start()
    assert ready[1].wait(60)
    # While two compute in TF32, the others wait.
    assert not ready[2].wait(0.2)
    assert not ready[3].is_set()
    go_on.set()
    for one in works:
        one.join(60)
    exact, fast = (("ieee",) * 2, ("tf32",) * 2)
    assert seen[:2] == [("high", fast)] * 2
    assert set(seen[2:]) == {("highest", exact), (None, before)}
    # A block inside another one of its thread waits for nobody.
    with precision.multiplying("high"):
        with precision.multiplying("highest"):
            assert precision._get() == exact
        assert precision._get() == fast
    assert precision._get() == before


def test_checks_of_one_thread_leave_others_as_they_were(backend, monkeypatch):
    monkeypatch.setattr(backend, "_asked_precision", "high")
    found = []
    with backend.exact_products():
        other = threading.Thread(target=lambda: found.append(backend.asked_precision))
        other.start()
        other.join(60)
        assert backend.asked_precision == "highest"
    assert found == ["high"]


def test_settings_are_put_back_after_an_error():
    before = precision._get()
    with pytest.raises(KeyError), precision.multiplying("high"):
        {precision._get(): "multiplied so"}["otherwise"]  # type: ignore[index]
    assert precision._get() == before


def test_what_is_in_force_is_said():
    card = torch.device("cuda")
    for name in ("highest", "high"):
        assert precision.in_force(name, card, torch.float32) == name
        with precision.multiplying(name):
            assert precision.in_force(None, card, torch.float32) == name
    # As PyTorch is set.
    assert precision.in_force(None, card, torch.float32) == "high (convolutions)"
    assert precision.in_force("high", torch.device("cpu"), torch.float32) == "highest"
    assert precision.in_force("high", card, torch.float16) == ""


def test_a_cpu_says_that_it_has_no_other():
    with pytest.warns(UserWarning, match="cpu multiplies float32 exactly"):
        found = wordlight.load("scenes", framework="torch", device="cpu", precision="high")
    assert found.precision == "highest"


def test_an_unknown_precision_is_refused():
    with pytest.raises(ModelLoadError, match="'highest' or 'high', not 'medium'"):
        wordlight.load("scenes", framework="torch", device="cpu", precision="medium")
