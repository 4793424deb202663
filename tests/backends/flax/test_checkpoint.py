"""Every tensor of a checkpoint has its place in the networks, and every other is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from tests.backends.flax import full_size, models
from wordlight.backends.flax.autoencoder import Autoencoder, AutoencoderConfig
from wordlight.backends.flax.checkpoint import abstract, load_network, parameter_shapes
from wordlight.backends.flax.clip_text import TextEncoder, TextEncoderConfig
from wordlight.backends.flax.errors import CheckpointError, UnsupportedConfigError
from wordlight.backends.flax.unet import UNet, UNetConfig

WEIGHTS = "diffusion_pytorch_model.safetensors"


def shapes_of(make: Callable[[], torch.nn.Module]) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(p.shape) for name, p in make().named_parameters()}


@pytest.mark.parametrize(
    ("name", "tensors", "parameters"),
    # The numbers of tensors that diffusers' models have, so that both can't be empty.
    [
        ("sd-1.5", 686, 859.5),
        ("sd-1.5-inpainting", 686, 859.5),
        pytest.param("sd-2.1", 686, 865.9, marks=pytest.mark.slow),
        pytest.param("sdxl", 1680, 2567.5, marks=pytest.mark.slow),
    ],
)
def test_unet_names_and_shapes(name: str, tensors: int, parameters: float) -> None:
    given = full_size.UNETS[name]
    ours = parameter_shapes(abstract(lambda: UNet(UNetConfig.read(given))))
    theirs = shapes_of(lambda: UNet2DConditionModel.from_config(given))
    assert ours == theirs
    assert len(ours) == tensors
    assert sum(map(np.prod, ours.values())) / 1e6 == pytest.approx(parameters, abs=0.1)


@pytest.mark.parametrize("name", ["sd-1.5", "sdxl"])
def test_autoencoder_names_and_shapes(name: str) -> None:
    given = full_size.AUTOENCODERS[name]
    ours = parameter_shapes(abstract(lambda: Autoencoder(AutoencoderConfig.read(given))))
    assert ours == shapes_of(lambda: AutoencoderKL.from_config(given))
    assert len(ours) == 248


@pytest.mark.parametrize(
    ("name", "tensors"), [("sd-1.5", 196), ("sd-2.1", 372), ("sdxl-second", 517)]
)
def test_text_encoder_names_and_shapes(name: str, tensors: int) -> None:
    given = full_size.TEXT_ENCODERS[name]
    ours = parameter_shapes(abstract(lambda: TextEncoder(TextEncoderConfig.read(given))))
    kind = CLIPTextModelWithProjection if tensors == 517 else CLIPTextModel
    theirs = shapes_of(lambda: kind(CLIPTextConfig.from_dict(given)))
    assert ours == {name.removeprefix("text_model."): shape for name, shape in theirs.items()}
    assert len(ours) == tensors


@pytest.fixture(scope="module")
def unet_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unet")
    return models.saved(models.torch_unet(models.SD2), folder)


@pytest.fixture
def folder(unet_folder: Path, tmp_path: Path) -> Path:
    """A copy to be changed."""
    return Path(shutil.copytree(unet_folder, tmp_path / "unet"))


def read(folder: Path) -> UNet:
    return load_network(folder, UNetConfig.read, UNet)


def leaves(network: Any) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(network)]


def same(network: Any, other: Any) -> bool:
    return all((a == b).all() for a, b in zip(leaves(network), leaves(other), strict=True))


def change_weights(path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file({k: v.contiguous() for k, v in tensors.items()}, path)


def test_tensors_that_do_not_fit(folder: Path) -> None:
    change_weights(folder / WEIGHTS, lambda t: t.update(conv_in_bias=t.pop("conv_in.bias")))
    with pytest.raises(CheckpointError, match=r"too many: conv_in_bias.*missing: conv_in\.bias"):
        read(folder)
    change_weights(folder / WEIGHTS, lambda t: t.pop("conv_in_bias"))
    with pytest.raises(CheckpointError, match=r"asks for; missing: conv_in\.bias;$"):
        read(folder)
    change_weights(folder / WEIGHTS, lambda t: t.update({"conv_in.bias": torch.zeros(3)}))
    with pytest.raises(
        CheckpointError, match=r"misshapen: conv_in\.bias \(3,\) instead of \(16,\);$"
    ):
        read(folder)
    # Whole numbers of the right shape would pass for weights.
    numbers = torch.ones(16, dtype=torch.int8)
    change_weights(folder / WEIGHTS, lambda t: t.update({"conv_in.bias": numbers}))
    with pytest.raises(CheckpointError, match=r"no floating-point numbers: conv_in\.bias int8;$"):
        read(folder)
    eight_bits = numbers.to(torch.float8_e4m3fn)
    change_weights(folder / WEIGHTS, lambda t: t.update({"conv_in.bias": eight_bits}))
    with pytest.raises(CheckpointError, match=r"conv_in\.bias is quantised \(F8_E4M3\)"):
        read(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_embed_type": "timestep"}, "class_embed_type='timestep'.*only None"),
        ({"down_block_types": ["KDownBlock2D", "DownBlock2D"]}, "down_block_types.*KDownBlock2D"),
        ({"mid_block_type": "UNetMidBlock2D"}, "only 'UNetMidBlock2DCrossAttn'"),
        ({"up_block_types": ["UpBlock2D"]}, "up_block_types has 1 entries for 2 levels"),
        ({"act_fn": "gelu"}, "act_fn='gelu'.*only 'silu' or 'swish'"),
        ({"from_next_year": 3}, "doesn't know from_next_year=3"),
        ({"addition_embed_type": "text_time"}, "needs addition_time_embed_dim"),
        (
            {"transformer_layers_per_block": [[1, 2], 1]},
            "must be a whole number, or a list of whole numbers, not",
        ),
        ({"block_out_channels": 16}, "block_out_channels must be a list of whole numbers, not 16"),
        ({"attention_head_dim": None}, "attention_head_dim must be a whole number, or a list"),
        ({"attention_head_dim": [2]}, "attention_head_dim has 1 entries for 2 levels"),
        ({"reverse_transformer_layers_per_block": [1]}, "has 1 entries for 2 levels"),
        ({"sample_size": [8, 8, 8]}, "sample_size must be .* a list of 2 whole numbers, or null"),
        ({"use_linear_projection": 1}, "use_linear_projection must be true or false, not 1"),
        ({"norm_eps": float("nan")}, "norm_eps must be a number, not nan"),
        ({"layers_per_block": 0}, "layers_per_block must be above 0, not 0"),
        ({"freq_shift": -1}, "freq_shift must be 0 or more, not -1"),
        ({"norm_num_groups": 3}, r"Number of groups \(3\) does not divide"),
    ],
)
def test_configurations_that_are_refused(
    folder: Path, changes: dict[str, Any], message: str
) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(UnsupportedConfigError, match=message) as caught:
        read(folder)
    assert str(path) in str(caught.value)


def test_text_encoders_that_are_refused() -> None:
    given = full_size.TEXT_ENCODERS["sd-1.5"]
    with pytest.raises(UnsupportedConfigError, match=r"hidden_act='relu'.*only 'quick_gelu' or"):
        TextEncoderConfig.read({**given, "hidden_act": "relu"})
    with pytest.raises(UnsupportedConfigError, match="hidden_size=768 can't be shared out over"):
        TextEncoderConfig.read({**given, "num_attention_heads": 5})


def test_folders_that_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere/config\.json is missing"):
        read(tmp_path / "nowhere")
    (folder / WEIGHTS).write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match=f"{WEIGHTS} is damaged"):
        read(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match="has no weights"):
        read(folder)
    (folder / "diffusion_pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"pickle alone \(diffusion_pytorch_model\.bin\)"):
        read(folder)
    (folder / "config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="not a JSON object"):
        read(folder)


def test_shards(unet_folder: Path, tmp_path: Path) -> None:
    theirs = UNet2DConditionModel.from_pretrained(unet_folder)
    theirs.save_pretrained(tmp_path, max_shard_size="100KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 1
    assert same(read(tmp_path), read(unet_folder))
    index = tmp_path / f"{WEIGHTS}.index.json"
    index.rename(tmp_path / f"{WEIGHTS}.index.fp16.json")
    assert same(read(tmp_path), read(unet_folder))
    shards[0].unlink()
    with pytest.raises(CheckpointError, match=f"names {shards[0].name}, which is missing"):
        read(tmp_path)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_files(folder: Path, dtype: str) -> None:
    kept = getattr(torch, dtype)
    change_weights(folder / WEIGHTS, lambda t: t.update({k: v.to(kept) for k, v in t.items()}))
    (folder / WEIGHTS).rename(folder / "diffusion_pytorch_model.fp16.safetensors")
    theirs = UNet2DConditionModel.from_pretrained(folder, variant="fp16", torch_dtype=kept)
    ours = read(folder)
    assert ours.conv_in.kernel[...].dtype == np.float32
    wanted = theirs.conv_in.weight.detach().float().numpy()
    assert (np.asarray(ours.conv_in.kernel[...]).transpose(3, 2, 0, 1) == wanted).all()


def test_former_names(tmp_path: Path) -> None:
    """transformers 4 wrote a prefix and positions; diffusers before 0.17 other attention names."""
    text, vae = tmp_path / "text", tmp_path / "vae"
    models.saved(models.torch_text_encoder(), text)
    models.saved(models.torch_autoencoder(), vae)
    encoder = load_network(text, TextEncoderConfig.read, TextEncoder)
    autoencoder = load_network(vae, AutoencoderConfig.read, Autoencoder)

    def prefix(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            tensors[f"text_model.{name.removeprefix('text_model.')}"] = tensors.pop(name)
        tensors["text_model.embeddings.position_ids"] = torch.arange(16)[None]

    def rename(tensors: dict[str, torch.Tensor]) -> None:
        renamed = 0
        for now, then in (
            ("to_q", "query"),
            ("to_k", "key"),
            ("to_v", "value"),
            ("to_out.0", "proj_attn"),
        ):
            for name in [name for name in tensors if f"attentions.0.{now}." in name]:
                value = tensors.pop(name)
                # Some keep them as 1x1 convolutions.
                value = value[..., None, None] if value.ndim == 2 and then == "key" else value
                tensors[name.replace(now, then)] = value
                renamed += 1
        assert renamed == 16

    change_weights(text / "model.safetensors", prefix)
    change_weights(vae / WEIGHTS, rename)
    assert same(load_network(text, TextEncoderConfig.read, TextEncoder), encoder)
    assert same(load_network(vae, AutoencoderConfig.read, Autoencoder), autoencoder)
