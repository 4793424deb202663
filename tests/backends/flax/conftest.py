"""Small models on disk and loaded, on the CPU."""

from __future__ import annotations

import shutil
from pathlib import Path

import jax
import pytest

from tests.backends.flax import models
from wordlight.backends.flax.backend import FlaxBackend
from wordlight.backends.torch.backend import TorchBackend
from wordlight.backends.trajectory import Trajectory

jax.config.update("jax_platforms", "cpu")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model on disk, not to be changed."""
    return models.saved(models.torch_pipeline(), tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def ours(folder: Path) -> FlaxBackend:
    return FlaxBackend.load(folder)


@pytest.fixture(scope="session")
def theirs(folder: Path) -> TorchBackend:
    return TorchBackend.load(folder)


@pytest.fixture(scope="session")
def one_level(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A still smaller one, for what has to be compiled several times."""
    pipe = models.torch_pipeline(models.ONE_LEVEL)
    return models.saved(pipe, tmp_path_factory.mktemp("one_level"))


@pytest.fixture
def pndm(one_level: Path, tmp_path: Path) -> Path:
    """A checkpoint with the scheduler that Stable Diffusion 1.x comes with."""
    copy = Path(shutil.copytree(one_level, tmp_path / "model"))
    models.change(copy / "model_index.json", scheduler=["diffusers", "PNDMScheduler"])
    models.change(copy / "scheduler" / "scheduler_config.json", _class_name="PNDMScheduler")
    return copy


@pytest.fixture(scope="session")
def trajectory(theirs: TorchBackend, tmp_path_factory: pytest.TempPathFactory) -> Trajectory:
    """Sampled on PyTorch, and brought here by file."""
    path = tmp_path_factory.mktemp("run") / "run.safetensors"
    theirs.sample("a red circle", seed=3, steps=5, guidance_scale=3.0).save(path)
    return Trajectory.load(path)
