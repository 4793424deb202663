"""Several devices, in processes of their own whose JAX sees virtual ones."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.backends.flax import models
from tests.backends.flax.several_devices import PROMPTS
from wordlight.backends import ModelLoadError, load
from wordlight.backends.flax.devices import make_mesh

Found = dict[str, Any]


def start(devices: int, *arguments: str) -> subprocess.Popen[str]:
    flags = os.environ["XLA_FLAGS"] + f" --xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, "-m", "tests.backends.flax.several_devices", *arguments],
        env={**os.environ, "XLA_FLAGS": flags},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> None:
    said, _ = process.communicate()
    assert process.returncode == 0, said


@pytest.fixture(scope="module")
def found(one_level: Path, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Of the same run on one device, on a mesh of eight, and with the weights cut up."""
    out = tmp_path_factory.mktemp("eight")
    finish(start(8, "eight", str(one_level), str(out)))
    made: Found = json.loads((out / "facts.json").read_text())
    for name in ("one", "data", "fsdp"):
        made[name]["arrays"] = dict(np.load(out / f"{name}.npz"))
    return made


def same(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], tolerance: float) -> None:
    """Everywhere, relative to the largest value; maps absolutely, and images to a grey level."""
    assert len(ours["latents"]) == len(PROMPTS)
    for name in ours:
        difference = np.abs(ours[name].astype(float) - theirs[name]).max()
        if name == "images":
            assert difference <= 1
        elif name.startswith("map"):
            assert difference <= 1e-6
        else:
            assert difference <= tolerance * np.abs(theirs[name]).max(), name


@pytest.mark.slow
def test_eight_devices_draw_what_one_draws(found: Found) -> None:
    """Five images, which eight devices can't share evenly. float32's rounding: batches of another
    size are multiplied in another order."""
    assert found["devices"] == found["rows"] == 8
    same(found["data"]["arrays"], found["one"]["arrays"], 1e-5)


@pytest.mark.slow
def test_with_whole_weights_devices_have_nothing_to_say_to_each_other(found: Found) -> None:
    """Since each image's two rows lie side by side: in two blocks they'd be on other devices."""
    assert found["data"]["collectives"] == []
    assert len(found["concatenated"]) > 0


@pytest.mark.slow
def test_weights_are_really_cut_up(found: Found) -> None:
    """Over four devices, all but vectors; the same is drawn, with sums in another order."""
    assert found["conv_in"] == ["None", "None", "None", "fsdp"]
    whole, part = found["fsdp"]["held"]
    assert part < 0.3 * whole
    assert found["data"]["held"] == [whole, whole]
    same(found["fsdp"]["arrays"], {**found["one"]["arrays"]}, 1e-5)
    assert len(found["fsdp"]["collectives"]) > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["one-level", "xl"])
def test_backends_on_a_mesh_keep_to_the_rules(kind: str, one_level: Path, tmp_path: Path) -> None:
    xl = kind == "xl"
    folder = models.saved(models.torch_xl_pipeline(), tmp_path / "xl") if xl else one_level
    finish(start(8, "conform", str(folder), str(tmp_path)))


@pytest.mark.slow
def test_two_hosts_draw_together(one_level: Path, found: Found, tmp_path: Path) -> None:
    """Two processes that JAX connects: each gets all images, those that one device draws."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    hosts = [start(2, "hosts", str(one_level), str(tmp_path), address, str(i)) for i in (0, 1)]
    for host in hosts:
        finish(host)
    for index in (0, 1):
        arrays = dict(np.load(tmp_path / f"host{index}.npz"))
        same(arrays, found["one"]["arrays"], 1e-5)


@pytest.mark.parametrize(
    ("asked", "shape"),
    [({"data": 8}, (8, 1)), ({"fsdp": 4, "data": 2}, (2, 4)), ({"data": -1, "fsdp": 3}, (2, 3))],
)
def test_a_mesh_has_two_axes(asked: dict[str, int], shape: tuple[int, int]) -> None:
    devices: Any = list(range(8))
    mesh = make_mesh(asked, devices)
    assert mesh.devices.shape == shape
    assert mesh.axis_names == ("data", "fsdp")
    assert mesh.devices.flat[0] == 0


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"data": 9}, "needs 9 devices; 8 there"),
        ({"model": 2}, "has the axes 'data' and 'fsdp'"),
        ({"data": -1, "fsdp": -1}, "one of them -1"),
        ({"data": 0}, "1 or more"),
        ({}, "has the axes"),
        (8, "has the axes"),
        ({"data": 1.5}, "whole numbers"),
        ({"data": "8"}, "whole numbers"),
    ],
)
def test_other_meshes_are_refused(asked: Any, message: str) -> None:
    devices: Any = list(range(8))
    with pytest.raises(ModelLoadError, match=message):
        make_mesh(asked, devices)


def test_a_mesh_of_one_s_own(one_level: Path) -> None:
    own = jax.make_mesh((1,), ("data",))
    assert load(one_level, framework="flax", mesh=own).encode(["a"]).embeddings.shape[0] == 1
    with pytest.raises(ModelLoadError, match="the torch backend takes no mesh"):
        load(one_level, mesh={"data": 1})
