"""Prompts in pictures' files, as the web UI and ComfyUI write them."""

import contextlib
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from wordlight.comparisons.cli.main import main
from wordlight.comparisons.cli.picture_metadata import (
    PictureMetadataError,
    plain_prompt,
    read_metadata,
)

PARAMETERS = """a (red:1.2) circle,
<lora:shapes:0.8> on a black background
Negative prompt: blurry, "low, quality"
Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7.5, Seed: 1234567890, Lora hashes: "shapes: ab12"
"""


def png(**texts):
    info = PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG", pnginfo=info)
    return Image.open(file)


def graph(**nodes):
    """ComfyUI's default graph, with some of its nodes replaced."""
    default = {
        "3": (
            "KSampler",
            {
                "seed": 42,
                "steps": 25,
                "cfg": 8,
                "model": ["4", 0],
                "positive": ["6", 0],
                "negative": ["7", 0],
            },
        ),
        "4": ("CheckpointLoaderSimple", {"ckpt_name": "v1-5.safetensors"}),
        "6": ("CLIPTextEncode", {"text": "a red circle", "clip": ["4", 1]}),
        "7": ("CLIPTextEncode", {"text": "blurry", "clip": ["4", 1]}),
        "9": ("SaveImage", {"filename_prefix": "ComfyUI", "images": ["3", 0]}),
    }
    both = {**default, **{name.strip("n"): node for name, node in nodes.items()}}
    return json.dumps({n: {"class_type": k, "inputs": i} for n, (k, i) in both.items()})


def test_the_web_ui_in_a_png():
    found = read_metadata(png(parameters=PARAMETERS))
    assert found.prompt == "a red circle, on a black background"
    assert found.written.startswith("a (red:1.2) circle,\n<lora")
    assert found.negative_prompt == 'blurry, "low, quality"'
    assert (found.seed, found.steps, found.guidance_scale) == (1234567890, 20, 7.5)
    assert found.source == "AUTOMATIC1111"


def test_the_web_ui_without_a_negative_prompt_or_settings():
    found = read_metadata(png(parameters="a circle\nSteps: 4, Seed: 1"))
    assert (found.prompt, found.negative_prompt, found.seed) == ("a circle", None, 1)
    assert read_metadata(png(parameters="a circle")).steps is None


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_the_web_ui_in_exif(kind):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + PARAMETERS.encode("utf-16-be")
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, kind, exif=exif)
    assert read_metadata(Image.open(file)).seed == 1234567890


def test_comfyui():
    found = read_metadata(png(prompt=graph()))
    assert (found.prompt, found.negative_prompt) == ("a red circle", "blurry")
    assert (found.seed, found.steps, found.guidance_scale) == (42, 25, 8.0)
    assert found.source == "ComfyUI"


@pytest.mark.parametrize(
    "nodes",
    [
        {"n6": ("CLIPTextEncode", {"text": ["20", 0]}), "n20": ("String", {"value": "a blue dog"})},
        {
            "n6": ("ControlNetApply", {"conditioning": ["21", 0], "strength": 1.0}),
            "n21": ("CLIPTextEncode", {"text": "a blue dog"}),
        },
        {"n6": ("CLIPTextEncodeSDXL", {"text_g": "a blue dog", "text_l": "a blue dog"})},
        {
            "n3": ("SamplerCustomAdvanced", {"guider": ["22", 0], "noise": ["25", 0]}),
            "n22": ("BasicGuider", {"conditioning": ["26", 0]}),
            "n26": ("FluxGuidance", {"conditioning": ["6", 0], "guidance": 3.5}),
            "n6": ("CLIPTextEncodeFlux", {"clip_l": "a blue dog", "t5xxl": "a blue dog"}),
            "n25": ("RandomNoise", {"noise_seed": 5}),
        },
    ],
)
def test_comfyui_through_other_nodes(nodes):
    assert read_metadata(png(prompt=graph(**nodes))).prompt == "a blue dog"


def test_comfyui_negative_through_a_control_net():
    both = {"positive": ["6", 0], "negative": ["7", 0]}
    nodes = {
        "n3": ("KSampler", {"positive": ["10", 0], "negative": ["10", 1], "seed": 1}),
        "n10": ("ControlNetApplyAdvanced", both),
    }
    found = read_metadata(png(prompt=graph(**nodes)))
    assert (found.prompt, found.negative_prompt) == ("a red circle", "blurry")


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ({}, "names no prompt"),
        ({"workflow": "{}"}, "workflow alone"),
        ({"prompt": "a red circle"}, "no JSON"),
        ({"prompt": "[" * 100_000}, "no JSON"),
        ({"prompt": "[1, 2]"}, "no text reaches"),
        ({"prompt": graph(n6=("ControlNetApply", {"conditioning": ["6", 0]}))}, "no text reaches"),
        ({"prompt": graph(n6=("CLIPTextEncode", {"text": ["6", 0]}))}, "no text reaches"),
        (
            {"prompt": graph(n8=("KSampler", {"positive": ["7", 0], "negative": ["6", 0]}))},
            "2 texts reach",
        ),
        ({"parameters": ""}, "empty"),
        ({"parameters": '{"prompt": "a dog", "steps": 30}'}, "'parameters' are JSON"),
        ({"parameters": "a [dog:cat:0.5] here"}, "changes while"),
        ({"parameters": "a [dog|cat]"}, "changes while"),
    ],
)
def test_what_cannot_be_told_is_refused(texts, reason):
    with pytest.raises(PictureMetadataError, match=reason):
        read_metadata(png(**texts))


def test_lines_of_extensions_behind_the_settings_are_no_prompt():
    lines = "a red circle\nSteps: 20, CFG scale: 7, Seed: 3\nTemplate: a {red|blue} circle\n"
    found = read_metadata(png(parameters=f"{lines}Negative Template: blurry"))
    assert (found.prompt, found.negative_prompt, found.seed) == ("a red circle", None, 3)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("a dog", "a dog"),
        ("((a)) [dog]", "a dog"),
        ("a (very (big:1.4) dog:1.1)", "a very big dog"),
        (r"a dog \(toy\)", "a dog (toy)"),
        ("12:30 on a clock", "12:30 on a clock"),
        ("a dog BREAK a cat", "a dog a cat"),
        ("犬 (猫:1.2)", "犬 猫"),
    ],
)
def test_markup_goes_and_words_stay(written, words):
    assert plain_prompt(written) == words


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["1", "inputs", "positive", "text", "guider", "seed"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(JSON, st.text(max_size=60))
def test_any_text_is_read_or_refused(value, text):
    picture = Image.new("RGB", (1, 1))
    for info in ({"prompt": json.dumps(value)}, {"parameters": text}, {"prompt": text}):
        picture.info = info
        with contextlib.suppress(PictureMetadataError):
            assert read_metadata(picture).prompt


def test_the_command_line_reads_the_prompt(tmp_path, capsys):
    info = PngInfo()
    info.add_text("parameters", "a (red:1.3) circle\nSteps: 2, Seed: 1")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "x.png", pnginfo=info)
    line = ["attribute", "--image", str(tmp_path / "x.png"), "--sampling-steps", "1", "--json"]
    assert main([*line, "-o", str(tmp_path / "out")]) == 0
    out, told = capsys.readouterr()
    assert json.loads(out)["prompt"] == "a red circle"
    assert "that AUTOMATIC1111 wrote into the picture: a red circle" in told


def test_without_a_prompt_anywhere_the_line_says_what_is_missing(tmp_path, capsys):
    assert main(["attribute", "-o", str(tmp_path / "out")]) == 2
    assert "PROMPT is missing" in capsys.readouterr().err
    Image.new("RGB", (64, 64)).save(tmp_path / "x.png")
    assert main(["attribute", "--image", str(tmp_path / "x.png")]) == 2
    assert "names no prompt" in capsys.readouterr().err
