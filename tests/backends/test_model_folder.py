"""What is looked at in a model's folder before a library reads it."""

from __future__ import annotations

import inspect
import json
import os
import shutil

import diffusers
import pytest

from wordlight.backends.embedded import EMBEDDED
from wordlight.backends.model_folder import ModelLoadError, check_model_folder, revision_of


@pytest.fixture
def folder(tmp_path):
    """The embedded model, with small files in the place of its weights: none is read here."""
    there = tmp_path / "model"
    shutil.copytree(EMBEDDED["scenes"], there, ignore=shutil.ignore_patterns("*.safetensors"))
    for part in ("text_encoder", "unet", "vae"):
        (there / part / "model.safetensors").write_bytes(bytes(100_000))
    return there


def change(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_the_embedded_model_passes(folder):
    assert check_model_folder(folder)["_class_name"] == "StableDiffusionPipeline"
    assert check_model_folder(EMBEDDED["scenes"])


def name_a_file(folder):
    (folder / "unet/mine.py").write_text("raise SystemExit('it ran')")
    change(folder / "model_index.json", unet=["mine", "Mine"])


def hide_a_library(folder):
    """diffusers reads `unet/diffusers.py` before it looks for the package."""
    (folder / "unet/diffusers.py").write_text("raise SystemExit('it ran')")


def name_a_pipeline(folder):
    (folder / "pipeline.py").write_text("raise SystemExit('it ran')")
    change(folder / "model_index.json", _class_name=["pipeline", "Mine"])


def name_a_module(folder):
    change(folder / "model_index.json", vae=["antigravity", "Mine"])


def map_automatically(folder):
    change(folder / "text_encoder/config.json", auto_map={"AutoModel": "mine.Mine"})


@pytest.mark.parametrize(
    "spoil", [name_a_file, hide_a_library, name_a_pipeline, name_a_module, map_automatically]
)
def test_code_of_its_own_is_refused(folder, spoil):
    spoil(folder)
    with pytest.raises(ModelLoadError, match="no code from a model's folder is run here"):
        check_model_folder(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_hidden_layers": 10**6}, "asks for num_hidden_layers 1e\\+06"),
        ({"hidden_size": 10**8}, "asks for hidden_size 1e\\+08"),
        ({"nested": [{"layers_per_block": 5000}]}, "asks for layers_per_block 5e\\+03"),
    ],
)
def test_sizes_that_no_such_file_has(folder, changes, said):
    change(folder / "text_encoder/config.json", **changes)
    with pytest.raises(ModelLoadError, match=said):
        check_model_folder(folder)


REAL_SIZES = [
    diffusers.UNet2DConditionModel,
    diffusers.FluxTransformer2DModel,
    diffusers.SD3Transformer2DModel,
    diffusers.QwenImageTransformer2DModel,
    diffusers.ZImageTransformer2DModel,
    diffusers.WanTransformer3DModel,
    diffusers.AutoencoderDC,
]


@pytest.mark.parametrize("network", REAL_SIZES)
def test_the_sizes_of_real_networks(folder, network):
    numbers = {
        key: parameter.default
        for key, parameter in inspect.signature(network.__init__).parameters.items()
        if key != "self" and parameter.default is not inspect.Parameter.empty
    }
    with (folder / "unet/model.safetensors").open("r+b") as file:
        file.truncate(100_000_000)  # nothing is read of it here
    change(folder / "unet/config.json", **numbers)
    check_model_folder(folder)


@pytest.mark.parametrize(
    "numbers",
    [
        {"block_out_channels": [320, 640, 1280, 1280]},
        {"rope_theta": 5_000_000, "max_position_embeddings": 262_144},
        {"eos_token_id": 151_645},
    ],
)
def test_numbers_that_are_no_layers_or_no_sizes(folder, numbers):
    change(folder / "text_encoder/config.json", **numbers)
    check_model_folder(folder)


def test_what_is_missing_is_named(folder):
    (folder / "tokenizer/tokenizer.json").unlink()
    with pytest.raises(ModelLoadError, match="tokenizer has no vocabulary"):
        check_model_folder(folder)
    shutil.rmtree(folder / "tokenizer")
    with pytest.raises(ModelLoadError, match="lacks its tokenizer"):
        check_model_folder(folder)


@pytest.mark.skipif(
    not hasattr(os, "mkfifo"),
    reason="Windows has no named pipes in folders to be refused; runs on every POSIX system",
)
@pytest.mark.parametrize("place", ["x.json", "unet/x.json", "tokenizer/vocab.json"])
def test_a_named_pipe_is_not_waited_for(folder, place):
    os.mkfifo(folder / place)
    with pytest.raises(ModelLoadError, match="named pipe"):
        check_model_folder(folder)
    with pytest.raises(ModelLoadError, match="named pipe"):
        revision_of(folder)


def test_a_link_to_itself_is_one_error(folder):
    (folder / "unet/x.json").symlink_to("x.json")
    with pytest.raises(ModelLoadError, match=r"unet/x\.json can't be read"):
        check_model_folder(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"a": 1}', "[" * 5000, "\udcff"])
def test_indices_that_are_none(folder, text):
    (folder / "model_index.json").write_text(text, errors="surrogateescape")
    with pytest.raises(ModelLoadError, match="is damaged"):
        check_model_folder(folder)


@pytest.mark.parametrize("name", ["dreamshaper.safetensors", "v1-5.ckpt"])
def test_a_single_file_is_told_how_to_be_read(tmp_path, name):
    file = tmp_path / name
    file.write_bytes(b"")
    with pytest.raises(ModelLoadError, match="from_single_file"):
        check_model_folder(file)
