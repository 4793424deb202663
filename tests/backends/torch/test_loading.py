"""Loading: names, folders, live pipelines, and clear words for everything else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from wordlight.backends import ModelLoadError, load


@pytest.fixture(scope="module")
def folder(shared_pipe: StableDiffusionPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    shared_pipe.save_pretrained(path)
    return path


def test_a_folder_in_the_real_format(folder: Path) -> None:
    backend = load(folder, device="cpu", dtype="float64")
    assert (backend.framework, backend.device, backend.dtype) == ("torch", "cpu", "float64")
    made = backend.sample("a red circle", steps=2)
    assert made.model_id == str(folder)
    assert made.latents.dtype == "float64"
    assert made.revision is not None
    assert len(made.revision) == 12
    with pytest.raises(ModelLoadError, match="revision"):
        load(folder, revision="main")


def test_a_live_pipeline_is_used_as_it_is(shared_pipe: StableDiffusionPipeline) -> None:
    backend = load(shared_pipe)
    assert backend.pipe is shared_pipe  # type: ignore[attr-defined]
    with pytest.raises(ModelLoadError, match=r"pipe\.to"):
        load(shared_pipe, dtype="float16")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "scene"}, "no model 'scene'.*owner/name.*scenes"),
        ({"model": "./nowhere/at-all"}, "there is no such folder"),
        ({"model": 3}, "not int"),
        ({"model": "x" * 300}, "no such folder"),
        ({"model": "scenes", "framework": "tensorflow"}, "no backend for framework 'tensorflow'"),
        ({"model": "scenes", "dtype": "int8"}, "dtype must be one of"),
    ],
)
def test_what_cannot_be_loaded(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelLoadError, match=message):
        load(**arguments)


def test_a_device_that_is_not_there(folder: Path) -> None:
    with pytest.raises(ModelLoadError, match="device 'cuda:99' can't be used"):
        load(folder, device="cuda:99")


def test_folders_that_are_no_model(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"has a model_index\.json"):
        load(tmp_path)
    index = tmp_path / "model_index.json"
    index.write_text("{")
    with pytest.raises(ModelLoadError, match="damaged"):
        load(tmp_path)
    index.write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(ModelLoadError, match="holds a FluxPipeline"):
        load(tmp_path)
    index.write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(ModelLoadError, match="can't be loaded"):
        load(tmp_path)


def test_a_text_encoder_that_lacks_tensors_is_refused(folder: Path, tmp_path: Path) -> None:
    """What a file lacks would be random numbers."""
    there = tmp_path / "model"
    shutil.copytree(folder, there)
    weights = there / "text_encoder" / "model.safetensors"
    kept = load_file(weights)
    for name in list(kept)[::2]:
        del kept[name]
    save_file(kept, weights, {"format": "pt"})
    with pytest.raises(ModelLoadError, match=r"text_encoder.*lack"):
        load(there)


def test_devices_and_classes_that_hold_no_model(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="device 'meta'"):
        load(folder, device="meta")
    index = json.loads((folder / "model_index.json").read_text())
    there = tmp_path / "model"
    shutil.copytree(folder, there)
    index["_class_name"] = "StableDiffusionSafePipeline2"
    (there / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ModelLoadError, match="StableDiffusionSafePipeline2"):
        load(there)


def test_a_hub_id_from_the_cache(folder: Path, tmp_path: Path) -> None:
    """What the Hub's client keeps on disk, used without a network: the real download code.

    In a process of its own, since the libraries read their settings when they are imported.
    """
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "models--somebody--tiny"
    shutil.copytree(folder, repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    code = (
        "from wordlight.backends import load\n"
        "found = load('somebody/tiny')\n"
        "print(found.model_id, found.revision)\n"
        "try:\n    load('somebody/else')\n"
        "except ValueError as error:\n    print(error)\n"
    )
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    found, refused = ran.stdout.splitlines()
    assert found == f"somebody/tiny {commit}"
    assert refused.startswith("'somebody/else' is neither a folder here nor a model that the Hub")


def test_pickled_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipe.save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(ModelLoadError, match="safetensors"):
        load(tmp_path)
