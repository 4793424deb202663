"""Finding and reading models, and what is refused; in an environment without PyTorch, too."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import StableDiffusionPipeline

import wordlight
from tests.backends.flax import models
from wordlight.backends import Conditioning, load
from wordlight.backends.flax.backend import FlaxBackend
from wordlight.backends.model_folder import ModelLoadError
from wordlight.backends.trajectory import Trajectory

#: What of an environment leads to PyTorch.
_TORCH = ("torch", "diffusers", "accelerate", "peft", "captum", "functorch")


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """The small model, to be changed."""
    return Path(shutil.copytree(folder, tmp_path / "model"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("scenes", "a red circle and two blue squares"),
        ("things", "a dog to the left of two red buses on the grass"),
    ],
)
def test_the_embedded_models(name: str, prompt: str) -> None:
    """On both frameworks the same weights give the same image."""
    ours, theirs = load(name, framework="flax"), load(name)
    assert (ours.model_id, ours.revision) == (theirs.model_id, theirs.revision)
    assert ours.sampling == theirs.sampling
    made = [backend.sample(prompt, seed=1, steps=5) for backend in (ours, theirs)]
    assert np.abs(made[0].latents - made[1].latents).max() <= 1e-5 * np.abs(made[1].latents).max()
    assert np.abs(made[0].image.astype(int) - made[1].image).max() <= 1


_ALONE = """
import sys
import wordlight.backends
backend = wordlight.backends.load("scenes", framework="flax")
made = backend.sample("a red circle", steps=1, guidance_scale=1.0)
made.save(sys.argv[1])
print(sorted({name.split(".")[0] for name in sys.modules}))
"""


# `.ci/check_flax_without_torch` asks more, of an environment that never had PyTorch.
@pytest.mark.slow
def test_without_torch(tmp_path: Path) -> None:
    """A site folder that has everything but PyTorch and what is built on it."""
    packages = tmp_path / "site"
    packages.mkdir()
    for place in site.getsitepackages():
        for entry in Path(place).iterdir():
            if not entry.name.lower().startswith((*_TORCH, "_", "wordlight")):
                (packages / entry.name).symlink_to(entry)
    (packages / "wordlight").symlink_to(Path(wordlight.__file__).parent)
    info = next(Path(p) for p in site.getsitepackages()).glob("wordlight*.dist-info")
    for entry in info:
        (packages / entry.name).symlink_to(entry)
    # -S: without the environment's own site folder.
    done = subprocess.run(
        [sys.executable, "-S", "-c", _ALONE, str(tmp_path / "made.safetensors")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(packages), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "'jax'" in done.stdout
    assert "'torch'" not in done.stdout
    made = Trajectory.load(tmp_path / "made.safetensors")
    assert made.framework == "flax"
    there = subprocess.run(
        [sys.executable, "-S", "-c", "import torch"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(packages)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "No module named 'torch'" in there.stderr


_TORCH_ALONE = """
import sys
sys.modules.update(dict.fromkeys(("jax", "jaxlib", "flax")))  # importing them raises
import wordlight.backends
backend = wordlight.backends.load("scenes", device="cpu")
made = backend.sample("a red circle", steps=1)
from wordlight.attribution import DAAM
print(DAAM(backend).attribute(made).provenance.framework)
"""


# What an import of the backend brings is looked at in tests/packaging.
@pytest.mark.slow
def test_pytorch_without_jax(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", _TORCH_ALONE],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "torch\n"


@pytest.mark.slow
def test_bfloat16(one_level: Path) -> None:
    values = []
    for dtype in ("float32", "bfloat16"):
        backend = FlaxBackend.load(one_level, dtype=dtype)
        rng = np.random.default_rng(0)
        latents, text = (
            backend.asarray(rng.standard_normal(shape).astype(np.float32))
            for shape in ((1, 4, 8, 8), (1, 32, models.TEXT_CHANNELS))
        )
        values.append(backend.to_numpy(backend.denoise(latents, 801.0, Conditioning(text))))
    # Eight bits of mantissa, through a network: PyTorch's own bfloat16 is off as much.
    assert np.linalg.norm(values[0] - values[1]) <= 3e-2 * np.linalg.norm(values[0])
    assert np.linalg.norm(values[0] - values[1]) > 1e-4 * np.linalg.norm(values[0])


# diffusers' Euler scheduler makes numpy arrays of tensors in the way that numpy 2 warns about.
@pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)
@pytest.mark.slow
def test_another_scheduler(pndm: Path) -> None:
    models.change(pndm / "scheduler" / "scheduler_config.json", skip_prk_steps=True)
    with pytest.raises(ModelLoadError, match=r"PNDMScheduler.*scheduler='ddim'"):
        load(pndm, framework="flax")
    # With the same one asked for, both frameworks take the same steps.
    for name in ("ddim", "euler"):
        pair = [load(pndm, framework=one, scheduler=name) for one in ("flax", "torch")]
        ours, theirs = (
            backend.sample("a red circle", steps=2, guidance_scale=1.0, height=16, width=16)
            for backend in pair
        )
        assert ours.timesteps.tolist() == theirs.timesteps.tolist() == [501, 1]
        largest = np.abs(theirs.latents).max()
        assert np.abs(ours.latents - theirs.latents).max() <= 1e-5 * largest
    with pytest.raises(ModelLoadError, match="scheduler must be 'ddim' or 'euler', not 'heun'"):
        load(pndm, scheduler="heun")
    with pytest.raises(ModelLoadError, match="a live pipeline is used as it is: set its scheduler"):
        load(StableDiffusionPipeline.from_pretrained(pndm), scheduler="ddim")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float16"}, "dtype must be one of float32, bfloat16"),
        ({"device": "abacus"}, "device 'abacus' can't be used"),
        ({"device": "cpu:7"}, "device 'cpu:7' can't be used"),
        ({"revision": "main"}, "a revision is of a Hub id"),
        ({"scheduler": "heun"}, "'ddim' or 'euler', not 'heun'"),
    ],
)
def test_bad_options(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelLoadError, match=message):
        load(folder, framework="flax", **options)


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="a Hub id looks like 'owner/name'"):
        load("nowhere", framework="flax")
    with pytest.raises(ModelLoadError, match=r"a diffusers folder has a model_index\.json"):
        load(tmp_path, framework="flax")
    with pytest.raises(ModelLoadError, match="not a dict: a pipeline of PyTorch's is saved first"):
        load({}, framework="flax")


def test_folders_that_are_refused(copy: Path) -> None:
    models.change(copy / "model_index.json", _class_name="StableDiffusion3Pipeline")
    with pytest.raises(ModelLoadError, match=r"holds a StableDiffusion3Pipeline; this backend"):
        load(copy, framework="flax")
    models.change(
        copy / "model_index.json",
        _class_name="StableDiffusionControlNetPipeline",
        controlnet=["diffusers", "ControlNetModel"],
    )
    with pytest.raises(ModelLoadError, match="a StableDiffusionControlNetPipeline with a control"):
        load(copy, framework="flax")
    models.change(
        copy / "model_index.json",
        _class_name="StableDiffusionPipeline",
        controlnet=[None, None],
        image_encoder=["transformers", "CLIPVisionModelWithProjection"],
    )
    tokenizer = copy / "tokenizer" / "tokenizer_config.json"
    length = json.loads(tokenizer.read_text())["model_max_length"]
    models.change(tokenizer, model_max_length=length + 1)
    with pytest.raises(
        ModelLoadError, match=f"tokenizer: model_max_length is {length + 1}, and its te"
    ):
        load(copy, framework="flax")
    models.change(tokenizer, model_max_length=length)
    words = copy / "tokenizer" / "tokenizer.json"
    known = words.read_text()
    described = json.loads(known)
    described["model"]["vocab"]["zyzzogeton</w>"] = len(described["model"]["vocab"])
    words.write_text(json.dumps(described))
    with pytest.raises(
        ModelLoadError, match=r"tokenizer knows more words .* than its text encoder"
    ):
        load(copy, framework="flax")
    words.write_text(known)
    models.change(copy / "unet" / "config.json", class_embed_type="timestep")
    with pytest.raises(ModelLoadError, match=r"unet/config\.json: .*class_embed_type='timestep'"):
        load(copy, framework="flax")


@pytest.mark.parametrize("content", [b"", b"nonsense", b"{}", b"[1]", b"\xff"])
@pytest.mark.parametrize(
    "name",
    [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
        "unet/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ],
)
def test_damaged_files_are_one_error_in_one_line(copy: Path, name: str, content: bytes) -> None:
    (copy / name).write_bytes(content)
    with pytest.raises(ModelLoadError) as caught:
        load(copy, framework="flax")
    assert str((copy / name).parent) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_without_words_is_refused(copy: Path) -> None:
    """transformers would make one of nothing, to which every word is unknown."""
    (copy / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(ModelLoadError, match=r"no vocabulary: it should hold tokenizer\.json"):
        load(copy, framework="flax")
    shutil.rmtree(copy / "tokenizer")
    with pytest.raises(ModelLoadError, match="lacks its tokenizer: there is no folder"):
        load(copy, framework="flax")


def test_the_hub(monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path) -> None:
    """What is fetched: the settings, then the weights, and the half-precision ones where there are
    no others."""
    hub = Path(shutil.copytree(folder, tmp_path / "hub"))
    weights = hub / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
    (hub / "vae" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"not to be fetched")
    (hub / "text_encoder" / "pytorch_model.bin").write_bytes(b"not to be fetched")
    here = tmp_path / "0123abcd"
    fetched: list[str] = []

    def snapshot(
        name: str, *, revision: str | None, allow_patterns: list[str], ignore_patterns: list[str]
    ) -> str:
        assert (name, revision) == ("owner/name", "main")
        for path in (p for p in hub.rglob("*") if p.is_file()):
            relative = path.relative_to(hub)
            if any(relative.match(p) for p in allow_patterns) and not any(
                relative.match(p) for p in ignore_patterns
            ):
                fetched.append(relative.as_posix())
                (here / relative).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, here / relative)
        return str(here)

    monkeypatch.setattr("wordlight.backends.flax.loading.snapshot_download", snapshot)
    made = FlaxBackend.load("owner/name", revision="main")
    assert (made.model_id, made.revision) == ("owner/name", "0123abcd")
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in fetched
    assert not [path for path in fetched if path.endswith(".bin")]
    assert "vae/diffusion_pytorch_model.fp16.safetensors" not in fetched

    def offline(name: str, **options: Any) -> str:
        raise OSError("no way to the Hub")

    monkeypatch.setattr("wordlight.backends.flax.loading.snapshot_download", offline)
    with pytest.raises(ModelLoadError, match=r"neither a folder here nor .* no way to the Hub"):
        FlaxBackend.load("owner/name")
