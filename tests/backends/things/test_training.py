"""Training on things: the segmenter, and both kinds of denoiser, on next to nothing."""

import json
import math
from dataclasses import replace
from functools import partialmethod

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, ZImagePipeline
from safetensors.torch import load_file
from torch._dynamo.testing import CompileCounter

from wordlight.backends.things.grammar import GROUNDS
from wordlight.backends.things.render import rendered
from wordlight.backends.things.segment import CLASSES, Segmentation, predict
from wordlight.backends.torch.backend import TorchBackend
from wordlight.backends.training import train_segmenter
from wordlight.backends.training.blueprints import THINGS, THINGS_DIT, Sizes
from wordlight.backends.training.composites import crowded
from wordlight.backends.training.denoisers import _compile_each, build_denoiser
from wordlight.backends.training.export import save_half
from wordlight.backends.training.networks import build_autoencoder, build_transformer
from wordlight.backends.training.rendering import RenderedShards, render, token_ids
from wordlight.backends.training.train_autoencoder import train_autoencoder
from wordlight.backends.training.train_denoiser import train_denoiser
from wordlight.backends.training.train_segmenter import (
    SegmenterNet,
    degraded,
    folded_weights,
    labels,
)
from wordlight.backends.training.training import MeanLosses, Recipe, Setup, TimeLimit


def nothing_found(image):
    """A judge that needs no training: it sees an empty ground."""
    return Segmentation((), "sand", np.ones((64, 64), bool))


DATA = replace(THINGS.data, segment=nothing_found)
SMALL = {
    "unet": replace(THINGS, data=DATA, sizes=Sizes((8, 8, 8), 4, 32, 2, (16, 16))),
    "z-image": replace(THINGS_DIT, data=DATA, sizes=Sizes((8, 8), 4, 32, 2, (32, 32))),
}
IMAGES = 8


pytestmark = pytest.mark.usefixtures("small_training")


def recipe(steps):
    return Recipe(steps=steps, batch=4, rate=1e-3, warmup=2, cooldown=0, seed=3)


def assert_equal_to_the_bit(one, other):
    first, second = load_file(one), load_file(other)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_the_network_on_numpy_is_the_trained_one():
    torch.manual_seed(0)
    model = SegmenterNet()
    # Normalisations with statistics of their own, as after a training.
    model(torch.randn(8, 3, 64, 64))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    model.eval()
    images = np.stack([rendered("train", index).image for index in range(3)])
    weights = {name: values.numpy() for name, values in folded_weights(model).items()}
    covered, scores = predict(weights, images)
    with torch.no_grad():
        wanted, classes = model(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1)
    for found, expected in ((covered, wanted[:, 0]), (scores, classes.permute(0, 2, 3, 1))):
        # Float32 sums over some thousand products, in another order.
        assert np.abs(found - expected.numpy()).max() <= 1e-4 * float(expected.abs().max())


def test_labels_are_the_masks():
    item = rendered("train", 0)
    found = labels(item)
    assert {CLASSES[i] for i in np.unique(found)} == {
        item.ground,
        *(group.noun for group in item.scene.groups),
    }
    assert np.array_equal(found < len(GROUNDS), item.ground_mask)


def test_crowded_pictures_are_the_same_again_and_full():
    for index in range(10):
        image, found = crowded(0, index)
        again, other = crowded(0, index)
        assert np.array_equal(image, again)
        assert np.array_equal(found, other)
        assert image.shape == (64, 64, 3)
        assert len(np.unique(found)) >= 2
    assert not np.array_equal(crowded(0, 0)[0], crowded(1, 0)[0])


def test_worsened_pictures_keep_what_they_show():
    pixels = torch.from_numpy(np.stack([rendered("train", i).image for i in range(16)]))
    clean = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
    worse = degraded(pixels, torch.Generator().manual_seed(0))
    assert worse.shape == clean.shape
    assert worse.abs().max() <= 1
    difference = (worse - clean).abs().mean((1, 2, 3))
    assert difference.min() > 0.001
    assert difference.max() < 0.3


def test_the_segmenter_goes_on_as_if_it_had_never_stopped(tmp_path):
    for name, steps in (("once", (4,)), ("twice", (2, 4))):
        for until in steps:
            train_segmenter.train(tmp_path / name, recipe(until), 100, 100, check_images=2)
    assert_equal_to_the_bit(
        tmp_path / "once" / "segmenter.safetensors", tmp_path / "twice" / "segmenter.safetensors"
    )
    before = train_segmenter.WEIGHTS.exists()
    with pytest.raises(ValueError, match="not good enough to be shipped"):
        train_segmenter.export(tmp_path / "once", 2)
    assert train_segmenter.WEIGHTS.exists() == before


# The training of scenes has a UNet resumed at every stage.
@pytest.mark.parametrize("kind", [pytest.param("unet", marks=pytest.mark.slow), "z-image"])
def test_a_denoiser_goes_on_as_if_it_had_never_stopped(tmp_path, kind):
    blueprint = SMALL[kind]
    for name, steps in (("once", (4,)), ("twice", (2, 4))):
        folder = tmp_path / name
        train_autoencoder(Setup(blueprint, folder, recipe(2), IMAGES))
        for until in steps:
            train_denoiser(
                Setup(blueprint, folder, recipe(until), IMAGES),
                blueprint.sizes.denoiser_widths,
                check_prompts=1,
            )
    assert_equal_to_the_bit(
        tmp_path / "once" / "denoiser.safetensors", tmp_path / "twice" / "denoiser.safetensors"
    )
    stored = load_file(tmp_path / "once" / "denoiser.safetensors")
    still = [
        name for name, value in stored.items() if name.startswith("exp_avg_sq.") and not value.any()
    ]
    assert not still


@pytest.mark.parametrize(
    ("blueprint", "kind"), [(THINGS, StableDiffusionPipeline), (THINGS_DIT, ZImagePipeline)]
)
def test_a_pipeline_is_plain_and_small(tmp_path, blueprint, kind):
    torch.manual_seed(0)
    model = build_denoiser(blueprint, blueprint.sizes.denoiser_widths)
    pipeline = model.pipeline(build_autoencoder(blueprint.sizes))
    save_half(pipeline, tmp_path)
    size = sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors"))
    assert size <= 16 * 2**20
    loaded = kind.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    # Z-Image's transformer says no size: it is the autoencoder's.
    assert TorchBackend(loaded).sampling.height == 64
    image = loaded("a dog", height=64, width=64, num_inference_steps=1).images[0]
    assert image.size == (64, 64)


def test_training_sees_the_text_as_the_pipeline_does():
    """Joint attention takes a prompt's own tokens alone: what the pipeline encodes is the same."""
    torch.manual_seed(0)
    blueprint = SMALL["z-image"]
    model = build_denoiser(blueprint, blueprint.sizes.denoiser_widths).eval()
    pipeline = model.pipeline(build_autoencoder(blueprint.sizes))
    prompts = ["a red bus to the left of two dogs.", "a fox"]
    ids = token_ids(blueprint.tokens.build_tokenizer(), prompts)
    given, _ = pipeline.encode_prompt(list(prompts), "cpu", do_classifier_free_guidance=False)
    with torch.no_grad():
        text = model.encode(ids)
    for row, wanted in zip(text, given, strict=True):
        torch.testing.assert_close(row[: len(wanted)], wanted, rtol=1e-4, atol=1e-5)
    assert [len(wanted) for wanted in given] == [(row != row[-1]).sum() + 1 for row in ids]


def test_flow_matching_goes_from_noise_to_latents_in_one_step_of_the_truth():
    model = build_denoiser(SMALL["z-image"], SMALL["z-image"].sizes.denoiser_widths)
    latents, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    noisy, goal = model.noised(latents, noise, torch.tensor([999, 499]))
    torch.testing.assert_close(noisy[0], noise[0])
    torch.testing.assert_close(noisy[1], (latents[1] + noise[1]) / 2)
    torch.testing.assert_close(noisy[0] - goal[0], latents[0])


def test_layers_of_several_widths_are_refused():
    with pytest.raises(ValueError, match="all as wide"):
        build_transformer(THINGS_DIT.sizes, (32, 64))


@pytest.fixture(params=SMALL)
def small(request):
    torch.manual_seed(0)
    blueprint = SMALL[request.param]
    return build_denoiser(blueprint, blueprint.sizes.denoiser_widths)


def small_inputs(model, device="cpu"):
    ids = token_ids(model.tokens.build_tokenizer(), ["a dog", "two red buses on the grass.", ""])
    latents = torch.randn(3, 4, 16, 16)  # 64 tokens: no image is filled up
    return [value.to(device) for value in (latents, torch.tensor([0, 500, 999]), ids)]


def test_a_batch_goes_through_joint_attention_as_one_by_one():
    torch.manual_seed(0)
    model = build_denoiser(SMALL["z-image"], (32, 32))
    torch.nn.init.normal_(model.transformer.cap_pad_token)
    latents, times, ids = small_inputs(model)
    text = model.encode(ids)
    lengths = (ids == model.tokens.eos_id).int().argmax(1) + 1
    prompts = [row[:length] for row, length in zip(text, lengths, strict=True)]
    flow = model.transformer(
        list(latents[:, :, None]), 1.0 - (times + 1.0) / 1000.0, prompts, return_dict=False
    )[0]
    found = model(latents, times, text, ids)
    # The same sums in float32, in the order of another batch's.
    torch.testing.assert_close(found, -torch.stack(flow)[:, :, 0], rtol=1e-5, atol=1e-5)


def test_a_step_asks_for_no_value(small):
    """A CUDA graph can't wait for one; a tensor on ``meta`` hasn't any, and says so."""
    model = small.to("meta")
    latents, times, ids = small_inputs(model, "meta")
    named = len(model.blueprint.named)
    places = {
        "token_places": torch.empty(3, ids.shape[1], 2, device="meta"),
        "named_places": torch.empty(3, named, 2, device="meta"),
    }
    text = model.encode(ids)
    loss = model(latents, times, text, ids).sum() + model.places.loss(text, ids, places)
    loss.backward()
    with pytest.raises(RuntimeError, match=r"\.item\(\)"):
        loss.item()


@pytest.mark.slow  # two processes import what they need
def test_processes_render_what_one_does():
    shards = RenderedShards(THINGS, "train", 4, workers=2, ahead=[0])
    found, wanted = shards.take(0), render(THINGS, "train", range(4))
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        np.testing.assert_array_equal(found[name], values)


def test_a_run_of_minutes_cools_down_over_what_is_left(monkeypatch):
    clock = iter([0.0, 100.0, 200.0, 400.0])
    monkeypatch.setattr("wordlight.backends.training.training.time.monotonic", lambda: next(clock))
    limit = TimeLimit(10.0)  # 600 s, of which 360 at the full rate
    assert limit.steps_left(50) is None
    assert limit.steps_left(100) is None
    # Of 582 s, 182 are left; 150 steps took 300 s.
    assert limit.steps_left(200) == 91


def test_the_first_report_tells_no_speed(monkeypatch):
    clock = iter([0.0, 500.0, 550.0])
    monkeypatch.setattr("wordlight.backends.training.training.time.monotonic", lambda: next(clock))
    limit = TimeLimit(10.0)
    assert limit.steps_left(100) is None
    assert limit.steps_left(200) == 64


@pytest.mark.slow  # more than a hundred steps, twice
def test_the_log_of_a_timed_run_tells_what_trains_the_same(tmp_path, monkeypatch):
    blueprint = SMALL["unet"]
    widths = blueprint.sizes.denoiser_widths
    timed, counted = (
        Setup(blueprint, tmp_path / name, recipe(2), IMAGES, save_every=100)
        for name in ("timed", "counted")
    )
    for setup in (timed, counted):
        train_autoencoder(setup)
    with monkeypatch.context() as patched:
        patched.setattr(TimeLimit, "steps_left", lambda self, step: 20 if step == 100 else None)
        train_denoiser(replace(timed, recipe=recipe(10_000)), widths, check_prompts=1, minutes=1.0)
    log = (tmp_path / "timed" / "denoiser.jsonl").read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    told = next(line for line in lines if line.get("event") == "cooldown")
    assert (told["steps"], told["cooldown"]) == (120, 20)
    again = replace(recipe(told["steps"]), cooldown=told["cooldown"])
    train_denoiser(replace(counted, recipe=again), widths, check_prompts=1)
    assert_equal_to_the_bit(
        tmp_path / "timed" / "denoiser.safetensors", tmp_path / "counted" / "denoiser.safetensors"
    )


def trained_both_ways(folder, kind, option):
    """What two steps come to, by whether an option of the training is on."""
    blueprint, found = SMALL[kind], {}
    train_autoencoder(Setup(blueprint, folder, recipe(1), IMAGES))
    setup, widths = Setup(blueprint, folder, recipe(2), IMAGES), blueprint.sizes.denoiser_widths
    for on in (True, False):
        train_denoiser(setup, widths, check_prompts=1, **{option: on})
        found[on] = load_file(folder / "denoiser.safetensors")
        (folder / "denoiser.safetensors").unlink()
    return found


def test_bfloat16_is_the_precision_of_products_alone(tmp_path):
    found = trained_both_ways(tmp_path, "z-image", "bfloat16")
    name = "model.transformer.layers.0.attention.to_q.weight"
    assert found[True][name].dtype == torch.float32
    assert not torch.equal(found[True][name], found[False][name])
    # Two of Adam's steps, each as long as the rate of 0.001 allows whatever the gradient is.
    assert (found[True][name] - found[False][name]).abs().max() <= 0.004


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_losses_that_are_no_numbers_end_the_training(value):
    losses = MeanLosses()
    losses.add({"loss": torch.tensor(1.0)})
    losses.add({"loss": torch.tensor(value)})
    with pytest.raises(FloatingPointError, match="the mean losses of the last 2 steps are"):
        losses.take()


class _Doubling(torch.nn.Module):
    def forward(self, x):
        return 2 * x


def test_blocks_of_many_sizes_are_compiled_each_and_nothing_else_is_set(monkeypatch):
    """PyTorch compiles eight and computes the others as written."""
    counter = CompileCounter()
    compile_ = torch.nn.Module.compile
    counted = partialmethod(compile_, backend=counter)
    monkeypatch.setattr(torch.nn.Module, "compile", counted)
    before = torch._dynamo.config.recompile_limit
    block = _Doubling()
    _compile_each(torch.nn.Sequential(block), (_Doubling,))
    for size in range(1, 13):
        block(torch.ones(size))
    assert counter.frame_count == 12
    assert torch._dynamo.config.recompile_limit == before


@pytest.mark.slow  # compiles for minutes
@pytest.mark.filterwarnings("ignore")  # of the compiler, on what it calls itself
@pytest.mark.parametrize("kind", list(SMALL))
def test_compiled_blocks_train_as_those_that_are_not(tmp_path, kind):
    found = trained_both_ways(tmp_path, kind, "compiled")
    # Adam divides by the gradients' size, so those near 0 may go the other way: of a thousand
    # weights none else is off by more than a hundredth of a step.
    for name, value in found[False].items():
        if name.startswith("model.") and value.numel() >= 1000:
            off = (found[True][name] - value).abs() > 1e-5
            assert off.float().mean() < 1e-3, name


def test_means_are_of_the_steps_since_the_last_time():
    losses = MeanLosses()
    for value in (1.0, 2.0):
        losses.add({"loss": torch.tensor(value), "places": torch.tensor(2 * value)})
    assert losses.take() == {"loss": 1.5, "places": 3.0}
    losses.add({"loss": torch.tensor(4.0)})
    assert losses.take() == {"loss": 4.0}
