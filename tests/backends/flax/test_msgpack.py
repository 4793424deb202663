"""Checkpoints of diffusers' former Flax classes: one that they wrote, and what they made of it.

``tests/backends/flax/former/make.py`` made the archive, in an environment with those classes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.serialization import msgpack_restore, msgpack_serialize
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import load_file, save_file

from wordlight.backends import load
from wordlight.backends.flax import former, loading, transformer
from wordlight.backends.flax.checkpoint import load_network, parameter_shapes
from wordlight.backends.flax.errors import CheckpointError
from wordlight.backends.flax.loading import LoadedModel, load_model
from wordlight.backends.flax.unet import UNet, UNetConfig
from wordlight.backends.model_folder import revision_of

ARCHIVE = Path(__file__).parent / "former" / "checkpoint.tar.xz"
UNET = "diffusion_flax_model.msgpack"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("former")
    shutil.unpack_archive(ARCHIVE, folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def model(unpacked: Path) -> LoadedModel:
    return load_model(unpacked / "model")


@pytest.fixture(scope="module")
def outputs(unpacked: Path) -> dict[str, np.ndarray]:
    return load_file(unpacked / "outputs.safetensors")


@pytest.fixture
def unet_folder(unpacked: Path, tmp_path: Path) -> Path:
    """A copy to be changed."""
    return Path(shutil.copytree(unpacked / "model" / "unet", tmp_path / "unet"))


def last(array: Any) -> jax.Array:
    return jnp.moveaxis(jnp.asarray(array), 1, -1)


def change(file: Path, change: Callable[[dict[tuple[str, ...], Any]], None]) -> None:
    flat = flatten_dict(msgpack_restore(file.read_bytes()))
    change(flat)
    file.write_bytes(msgpack_serialize(unflatten_dict(flat)))


def far(one: Any, other: Any) -> float:
    """The largest difference, relative to the largest value."""
    return float(np.abs(np.asarray(one) - np.asarray(other)).max() / np.abs(other).max())


def test_the_text_encoder(model: LoadedModel, outputs: dict[str, np.ndarray]) -> None:
    states = model.text_encoder(jnp.asarray(outputs["ids"]))
    # Float32 sums in another order.
    assert far(states.last, outputs["states"]) <= 1e-5
    assert far(states.pooled, outputs["pooled"]) <= 1e-5


@pytest.mark.slow
def test_the_autoencoder(model: LoadedModel, outputs: dict[str, np.ndarray]) -> None:
    scale = model.autoencoder.config.scaling_factor  # their pipelines', not their networks'
    pixels = model.autoencoder.decode(scale * last(outputs["latents"]))
    assert far(jnp.moveaxis(pixels, -1, 1), outputs["pixels"]) <= 2e-5
    encoded = model.autoencoder.encode(last(outputs["image"]))
    assert far(jnp.moveaxis(encoded, -1, 1) / scale, outputs["encoded"]) <= 2e-5


def predict(model: LoadedModel, outputs: dict[str, np.ndarray]) -> jax.Array:
    graph, state = nnx.split(model.unet)
    made = jax.jit(lambda state, *given: nnx.merge(graph, state)(*given))(
        state,
        last(outputs["latents"]),
        jnp.asarray(outputs["timestep"]),
        jnp.asarray(outputs["states"]),
    )
    return jnp.moveaxis(made, -1, 1)


def test_the_unet(
    model: LoadedModel, outputs: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same but for the two things that the former class computed otherwise than PyTorch."""
    # What these two change here, which rounding doesn't.
    assert 1e-5 < far(predict(model, outputs), outputs["noise"]) <= 5e-3
    monkeypatch.setattr(transformer, "gelu", jax.nn.gelu)  # by hyperbolic tangent
    _with_epsilon(model.unet, 1e-5)
    try:
        assert far(predict(model, outputs), outputs["noise"]) <= 1e-5
    finally:
        _with_epsilon(model.unet, 1e-6)


def _with_epsilon(unet: UNet, epsilon: float) -> None:
    norms = [
        module.norm
        for _, module in nnx.iter_modules(unet)
        if isinstance(module, transformer.Transformer)
    ]
    assert len(norms) == 4
    for norm in norms:
        norm.epsilon = epsilon


def test_the_whole_model(unpacked: Path, outputs: dict[str, np.ndarray]) -> None:
    backend = load(unpacked / "model", framework="flax")
    tokens = backend.tokenize("a red cat")
    assert tokens.ids == tuple(outputs["ids"][0])
    assert tokens.texts[1:4] == ("a</w>", "red</w>", "c")
    assert far(backend.encode(["a red cat"]).embeddings, outputs["states"]) <= 1e-5
    assert backend.sampling.height == 16
    # The former DDIM's noise: nearly none at the start, nearly only noise at the end.
    assert backend.noise_level(0)[1] < 0.05 < 0.9 < backend.noise_level(999)[1]
    # Weights are part of what a revision stands for.
    before = revision_of(unpacked / "model")
    file = unpacked / "model" / "vae" / UNET
    kept = file.read_bytes()
    file.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    changed = revision_of(unpacked / "model")
    file.write_bytes(kept)
    assert backend.revision == before != changed


def test_safetensors_come_first(unet_folder: Path) -> None:
    network = load_network(unet_folder, UNetConfig.read, UNet)
    zeros = {name: np.zeros(shape, np.float32) for name, shape in parameter_shapes(network).items()}
    save_file(zeros, unet_folder / "diffusion_pytorch_model.safetensors")
    other = load_network(unet_folder, UNetConfig.read, UNet)
    assert np.asarray(network.conv_in.kernel[...]).any()
    assert not np.asarray(other.conv_in.kernel[...]).any()


def test_tensors_that_do_not_fit(unet_folder: Path) -> None:
    file = unet_folder / UNET

    def spoil(flat: dict[tuple[str, ...], Any]) -> None:
        flat["conv_in", "offset"] = flat.pop(("conv_in", "bias"))
        flat["conv_out", "kernel"] = flat["conv_out", "kernel"][..., :2]

    change(file, spoil)
    with pytest.raises(CheckpointError) as caught:
        load_network(unet_folder, UNetConfig.read, UNet)
    message = str(caught.value)
    assert "misshapen: conv_out.weight (2, 32, 3, 3) instead of (4, 32, 3, 3);" in message
    assert "too many: conv_in/offset;" in message
    assert "missing: conv_in.bias;" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is damaged"),
        (b"\xc1", "is damaged"),
        (msgpack_serialize({"a": np.ones(3)})[:-4], "is damaged"),
        (msgpack_serialize([1, 2]), "holds no parameters by name"),
        (msgpack_serialize({"conv_in": {"bias": "x"}}), "conv_in/bias is no array of floating"),
        (msgpack_serialize({"conv_in": {"bias": np.arange(3)}}), "conv_in/bias is no array of"),
        # An array that says of itself that it is of Python objects.
        (msgpack_serialize({"a": np.ones(1)}).replace(b"\xa7float64", b"\xa7object_"), "damaged"),
        (msgpack_serialize({"a": np.ones(1)}).replace(b"\xa7float64", b"\xa7|O,|O,|"), "damaged"),
        (b"\x81\xa1a" * 2000 + b"\x01", "is damaged"),
    ],
)
def test_files_that_are_damaged(unet_folder: Path, content: bytes, message: str) -> None:
    (unet_folder / UNET).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{UNET}.*{message}"):
        load_network(unet_folder, UNetConfig.read, UNet)


@pytest.mark.slow
def test_shards(unet_folder: Path) -> None:
    """transformers cut up large ones; an index names only what lies beside it."""
    whole = load_network(unet_folder, UNetConfig.read, UNet)
    flat = flatten_dict(msgpack_restore((unet_folder / UNET).read_bytes()))
    (unet_folder / UNET).unlink()
    names = sorted(flat)
    parts = {"one.msgpack": names[:50], "two.msgpack": names[50:]}
    index = unet_folder / f"{UNET}.index.json"
    weights = {"/".join(name): file for file, some in parts.items() for name in some}
    index.write_text(json.dumps({"weight_map": weights}))
    for file, some in parts.items():
        tree = unflatten_dict({name: flat[name] for name in some})
        (unet_folder / file).write_bytes(msgpack_serialize(tree))
    again = load_network(unet_folder, UNetConfig.read, UNet)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(again), strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(other))
    index.write_text('{"weight_map": {"a": "../elsewhere.msgpack"}}')
    with pytest.raises(CheckpointError, match=r"elsewhere\.msgpack' is no file beside it"):
        load_network(unet_folder, UNetConfig.read, UNet)


def test_configurations_of_today_stay_as_they_are() -> None:
    config = {"_class_name": "UNet2DConditionModel", "dtype": "float32", "sample_size": 8}
    assert former.as_today(config) == config
    assert former.as_today({**config, "_class_name": "FlaxUNet2DConditionModel"}) == {
        "_class_name": "UNet2DConditionModel",
        "sample_size": 8,
    }


def test_what_is_fetched_of_the_hub(
    unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A branch that has msgpack files alone; what safetensors there are come first."""
    asked: list[str] = []

    def snapshot(name: str, *, allow_patterns: list[str], **_: Any) -> str:
        asked.extend(allow_patterns)
        return str(unpacked / "model")

    monkeypatch.setattr(loading, "snapshot_download", snapshot)
    loading._download("somebody/model", "flax")
    place = asked.index("unet/diffusion_flax_model*.msgpack*")
    assert "text_encoder/flax_model*.msgpack*" in asked
    assert "*/model*.safetensors" in asked[:place]
