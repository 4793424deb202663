"""What travels between the two frameworks, and the command that compares them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from wordlight.attribution import DAAM, InputXGradient, Occlusion, TextImageAttributor
from wordlight.backends.flax.backend import FlaxBackend
from wordlight.backends.torch.backend import TorchBackend
from wordlight.backends.trajectory import Trajectory
from wordlight.comparisons.cli.main import main


@pytest.fixture(scope="module")
def from_flax(ours: FlaxBackend, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sampled on Flax, and left in a file."""
    path = tmp_path_factory.mktemp("run") / "run.safetensors"
    ours.sample("a red circle", seed=3, steps=5, guidance_scale=3.0).save(path)
    return path


def test_the_run_itself_is_the_same(from_flax: Path, trajectory: Trajectory) -> None:
    """The other one is sampled on PyTorch, with the same seed, and came by file too."""
    made = Trajectory.load(from_flax)
    assert (made.framework, trajectory.framework) == ("flax", "torch")
    assert made.tokens == trajectory.tokens
    assert np.array_equal(made.timesteps, trajectory.timesteps)
    # Float32 rounding through five guided steps.
    difference = np.abs(made.latents - trajectory.latents).max()
    assert difference <= 1e-5 * np.abs(trajectory.latents).max()


@pytest.mark.parametrize("method", [DAAM, InputXGradient, Occlusion])
def test_a_trajectory_of_flax_is_attributed_on_torch(
    method: type[TextImageAttributor], from_flax: Path, ours: FlaxBackend, theirs: TorchBackend
) -> None:
    """As on Flax itself; the other way round is tested for every method."""
    here, there = (
        method(backend, steps=2).attribute(Trajectory.load(from_flax)) for backend in (ours, theirs)
    )
    assert there.provenance.framework == "torch"
    assert here.players == there.players
    one, two = here.data.values, there.data.values
    assert np.abs(two).max() > 0
    # Rounding, through derivatives and differences of predictions.
    assert np.linalg.norm(one - two) <= 1e-4 * np.linalg.norm(two)


@pytest.mark.slow
def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["study", "parity", str(folder), "--method", "daam", "--method", "occlusion", "-n", "1"]
    line += ["--prompt", "a red circle"]
    line += ["--steps", "1", "--device", "cpu", "--quiet", "-o", str(tmp_path)]
    assert main(line) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"{folder}, 1 image: differences between maps on torch and on flax"
    assert [row.split()[0] for row in printed[2:]] == ["method", "daam", "occlusion"]
    written = json.loads((tmp_path / "parity.json").read_text())
    assert written["frameworks"] == ["torch", "flax"]
    for one in written["differences"]:
        # Float32 rounding through a network; two frameworks are never equal to the bit everywhere.
        assert 0 < one["largest_relative"] <= 1e-3
        assert 0 <= one["median_relative"] <= 1e-5
    assert "occlusion" in (tmp_path / "parity.html").read_text("utf-8")


REGENERATION = ["--method", "regeneration", "-n", "1", "--prompt", "a cross"]
REGENERATION += ["--device", "cpu", "--quiet", "--json"]


def test_the_command_on_a_checkpoint_with_another_scheduler(
    pndm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", "parity", str(pndm), *REGENERATION]) == 2
    told = capsys.readouterr().err
    assert "steps of a PNDMScheduler" in told
    assert told.count("\n") == 1


# The same steps on both are held by test_loading, and regeneration by test_methods.
@pytest.mark.slow
def test_the_command_draws_anew_in_the_same_steps(
    pndm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", "parity", str(pndm), *REGENERATION, "--scheduler", "ddim"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["differences"]
    assert found["largest"] <= 2 / 255


@pytest.mark.slow
def test_every_method_on_the_embedded_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "parity", "-n", "1", "--steps", "2", "--quiet", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["left_out"]) == ["shuffled-word"]
    methods = {one["method"] for one in found["differences"]}
    assert {"daam", "saliency", "shapley", "attention-x-gradient"} <= methods
    for one in found["differences"]:
        # Of whole grey levels, and of a ratio of two small numbers.
        assert one["median_relative"] <= (0.05 if one["method"] == "regeneration" else 1e-3), one
