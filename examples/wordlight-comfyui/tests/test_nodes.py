"""The nodes as ComfyUI calls them, on the embedded model, without ComfyUI."""

import inspect
import sys
import types

import numpy as np
import pytest
import torch

from wordlight import load
from wordlight.attribution import DAAM


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("comfyui")
    for name in ("input", "output"):
        (root / name).mkdir()
    stand_in = types.ModuleType("folder_paths")
    stand_in.get_input_directory = lambda: str(root / "input")
    stand_in.get_output_directory = lambda: str(root / "output")
    sys.modules["folder_paths"] = stand_in
    yield root
    del sys.modules["folder_paths"]


@pytest.fixture(scope="module")
def nodes(folders):
    import wordlight_comfyui

    return wordlight_comfyui.NODE_CLASS_MAPPINGS


@pytest.fixture(scope="module")
def maps(folders):
    backend = load("scenes", device="cpu")
    return DAAM(backend, steps=1).attribute(backend.sample("a red circle", seed=0, steps=2))


def call(nodes, name, **inputs):
    node = nodes[name]()
    given = getattr(node, node.FUNCTION)(**inputs)
    assert isinstance(given, tuple)
    assert len(given) == len(node.RETURN_TYPES) == len(node.RETURN_NAMES)
    return given


def test_methods_that_explain_something_can_be_chosen(nodes):
    (methods, options) = nodes["WordlightExplain"].INPUT_TYPES()["required"]["method"]
    assert options["default"] in methods
    assert "occlusion" in methods
    assert not {"uniform", "shuffled-word"} & set(methods)


def test_each_node_keeps_comfyuis_contract(nodes):
    import wordlight_comfyui

    assert set(nodes) == set(wordlight_comfyui.NODE_DISPLAY_NAME_MAPPINGS)
    for node in nodes.values():
        inputs = node.INPUT_TYPES()
        assert set(inputs) <= {"required", "optional", "hidden"}
        taken = inspect.signature(getattr(node, node.FUNCTION)).parameters
        assert [*inputs["required"], *inputs.get("optional", {})] == list(taken)[1:]
        for kind, *options in inputs["required"].values():
            assert isinstance(kind, str | list)
            assert all(isinstance(option, dict) for option in options)
        assert node.CATEGORY == "wordlight"


def test_explain_an_image(nodes):
    image = torch.zeros(1, 64, 64, 3)
    image[:, 16:40, 16:40, 0] = 1.0
    (made,) = call(
        nodes,
        "WordlightExplain",
        image=image,
        prompt="a red square",
        model="scenes",
        method="daam",
        steps=2,
        seed=0,
    )
    assert [word.text for word in made.words] == ["a", "red", "square"]
    np.testing.assert_array_equal(made.image, (image[0] * 255).to(torch.uint8))
    with pytest.raises(ValueError, match="prompt is empty"):
        call(
            nodes,
            "WordlightExplain",
            image=image,
            prompt=" ",
            model="scenes",
            method="daam",
            steps=2,
            seed=0,
        )


def test_overlay_and_masks(nodes, maps):
    (overlay,) = call(nodes, "WordlightOverlay", maps=maps, word="circle", opacity=0.5)
    wanted = np.asarray(maps["circle"].overlay(0.5)) / 255
    assert overlay.dtype == torch.float32
    np.testing.assert_allclose(overlay[0].numpy(), wanted, atol=1e-6)
    (mask,) = call(nodes, "WordlightMask", maps=maps, word="red circle", threshold=0.4, soft=False)
    np.testing.assert_array_equal(mask[0].numpy() > 0, maps["red circle"].mask(0.4))
    (soft,) = call(nodes, "WordlightMask", maps=maps, word="circle", threshold=0.4, soft=True)
    assert (soft.shape, float(soft.min()), float(soft.max())) == ((1, 64, 64), 0.0, 1.0)
    with pytest.raises(KeyError, match="circle"):
        call(nodes, "WordlightMask", maps=maps, word="dog", threshold=0.4, soft=False)
    with pytest.raises(ValueError, match="name a word"):
        call(nodes, "WordlightOverlay", maps=maps, word="", opacity=0.5)


def test_maps_are_saved_and_loaded_in_comfyuis_folders_alone(nodes, maps, folders):
    (first,) = call(nodes, "WordlightSaveMaps", maps=maps, prefix="../a b")
    (second,) = call(nodes, "WordlightSaveMaps", maps=maps, prefix="../a b")
    assert first.endswith("output/a-b-00001.safetensors")
    assert second.endswith("output/a-b-00002.safetensors")
    name = "a-b-00001.safetensors"
    assert nodes["WordlightLoadMaps"].VALIDATE_INPUTS(name) is True
    assert nodes["WordlightLoadMaps"].IS_CHANGED(name) > 0
    loaded, image, prompt = call(nodes, "WordlightLoadMaps", maps_file=name)
    np.testing.assert_array_equal(loaded.data, maps.data)
    assert (image.shape, prompt) == ((1, 64, 64, 3), "a red circle")
    maps.save(folders / "elsewhere.safetensors")
    for bad in ("../elsewhere.safetensors", str(folders / "elsewhere.safetensors"), "none", ""):
        assert "no file of maps" in nodes["WordlightLoadMaps"].VALIDATE_INPUTS(bad)
        with pytest.raises(ValueError, match="no file of maps"):
            call(nodes, "WordlightLoadMaps", maps_file=bad)
