"""The training, on next to nothing: it stops and goes on as if it had never stopped."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import SafetensorError
from safetensors.torch import load_file

from wordlight.backends.loading import load
from wordlight.backends.scenes.render import rendered
from wordlight.backends.training.blueprints import SCENES
from wordlight.backends.training.checkpoint import load_checkpoint
from wordlight.backends.training.denoisers import build_denoiser
from wordlight.backends.training.drawing import GUIDANCE, STEPS, draw
from wordlight.backends.training.export import export
from wordlight.backends.training.train_autoencoder import (
    pixels,
    train_autoencoder,
    train_decoder,
    trained_autoencoder,
)
from wordlight.backends.training.train_denoiser import (
    draw_timesteps,
    load_trained_autoencoder,
    train_denoiser,
)
from wordlight.backends.training.training import (
    Recipe,
    Setup,
    averaged_weights,
    batch_indices,
    shift_at,
)

IMAGES, BATCH, WIDTHS = 16, 4, (16, 16)
STAGES = ("autoencoder", "decoder", "denoiser")


pytestmark = pytest.mark.usefixtures("small_training")


def recipe(steps, rate=1e-3, cooldown=0):
    return Recipe(steps=steps, batch=BATCH, rate=rate, warmup=3, cooldown=cooldown, seed=5)


def train(folder: Path, stage: str, *steps: int, **changes):
    """Train until each of ``steps``, one call after the other."""
    for until in steps:
        setup = Setup(SCENES, folder, recipe(until, **changes), IMAGES, save_every=1000)
        if stage in ("autoencoder", "decoder"):
            run = train_decoder if stage == "decoder" else train_autoencoder
            run(setup)
        else:
            train_denoiser(setup, WIDTHS, check_prompts=2)


def both(folder: Path, *steps: int) -> Path:
    for stage in STAGES:
        train(folder, stage, *steps)
    return folder


@pytest.fixture(scope="module")
def unbroken(small_training, tmp_path_factory):
    return both(tmp_path_factory.mktemp("unbroken"), 8)


@pytest.fixture(scope="module")
def broken(small_training, tmp_path_factory):
    return both(tmp_path_factory.mktemp("broken"), 4, 8)


def assert_equal_to_the_bit(one: Path, other: Path):
    first, second = load_file(one), load_file(other)
    assert first.keys() == second.keys()
    kinds = {name.split(".")[0] for name in first}
    assert kinds == {"model", "average", "exp_avg", "exp_avg_sq"}
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.slow
def test_a_resumed_run_is_the_unbroken_one_to_the_bit(unbroken, broken, stage):
    assert_equal_to_the_bit(unbroken / f"{stage}.safetensors", broken / f"{stage}.safetensors")
    lines = [json.loads(line) for line in (broken / f"{stage}.jsonl").read_text().splitlines()]
    assert [line["at"] for line in lines if line.get("event") == "resumed"] == [4]


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_forty_steps_are_twenty_and_twenty_to_the_bit(tmp_path, stage):
    for name, steps in (("once", (40,)), ("twice", (20, 40))):
        train(tmp_path / name, "autoencoder", *steps)
        if stage != "autoencoder":
            train(tmp_path / name, stage, *steps)
    assert_equal_to_the_bit(
        tmp_path / "once" / f"{stage}.safetensors", tmp_path / "twice" / f"{stage}.safetensors"
    )


@pytest.mark.parametrize("stage", STAGES)
def test_training_moves_every_weight(unbroken, stage):
    stored = load_file(unbroken / f"{stage}.safetensors")
    moments = {name: value for name, value in stored.items() if name.startswith("exp_avg_sq.")}
    still = [name for name, value in moments.items() if not value.any()]
    assert len(moments) > 40
    assert not still
    assert all(value.isfinite().all() for value in stored.values())


@pytest.mark.slow
def test_the_autoencoder_learns(tmp_path):
    train(tmp_path, "autoencoder", 4, 100, rate=4e-3)
    lines = [json.loads(line) for line in (tmp_path / "autoencoder.jsonl").read_text().splitlines()]
    early, late = (line["validation_error"] for line in lines if "validation_error" in line)
    # One grey for everything gives about what four steps give: 80 grey levels. Shapes give 50.
    assert late < 0.8 * early


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_with_other_settings_is_refused(broken, stage):
    before = (broken / f"{stage}.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"made with other settings: .*'rate': \(0.001, 0.5\)"):
        train(broken, stage, 12, rate=0.5)
    assert (broken / f"{stage}.safetensors").read_bytes() == before


@pytest.mark.parametrize("stage", STAGES[1:])
def test_other_stages_need_a_trained_autoencoder(tmp_path, stage):
    with pytest.raises(FileNotFoundError, match="train that stage first"):
        train(tmp_path, stage, 8)


@pytest.mark.slow
def test_the_decoder_learns_further_and_latents_stay(tmp_path):
    train(tmp_path, "autoencoder", 20, rate=4e-3)
    truth = pixels(SCENES, "validation", list(range(8)))

    def passed():
        model = trained_autoencoder(SCENES, tmp_path)
        with torch.no_grad():
            latents = model.encode(truth).latent_dist.mean
            return latents, float((model.decode(latents).sample - truth).abs().mean())

    latents, error = passed()
    train(tmp_path, "decoder", 60, rate=4e-3)
    later, smaller = passed()
    assert torch.equal(later, latents)
    # Forty grey steps become shapes: from 0.55 to 0.40 or so.
    assert smaller < 0.9 * error


def restored(path: Path):
    model = build_denoiser(SCENES, WIDTHS)
    average = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters())
    step, settings = load_checkpoint(path, model, average, optimizer)
    return model.state_dict(), average, optimizer, step, settings


def test_a_compact_checkpoint_is_smaller_and_nearly_the_same(unbroken):
    full, compact = unbroken / "denoiser.safetensors", unbroken / "compact-denoiser.safetensors"
    # Of four float32 a weight, two halves are left, and the names.
    assert compact.stat().st_size < 0.4 * full.stat().st_size
    weights, average, optimizer, step, settings = restored(full)
    small_weights, small_average, small_optimizer, small_step, small_settings = restored(compact)
    assert (small_step, small_settings) == (step, settings)
    assert (step, settings["widths"]) == (8, list(WIDTHS))
    for name in weights:
        # float16 keeps 11 bits, down to 2^-24.
        torch.testing.assert_close(small_average[name], average[name], rtol=2**-11, atol=2**-24)
        assert torch.equal(small_weights[name], small_average[name]), name
    pairs = zip(small_optimizer.state.values(), optimizer.state.values(), strict=True)
    for small, state in pairs:
        # bfloat16 keeps 8 bits.
        assert small["step"] == state["step"] == 8
        torch.testing.assert_close(small["exp_avg_sq"], state["exp_avg_sq"], rtol=2**-8, atol=1e-38)
        assert not small["exp_avg"].any()


def test_training_goes_on_from_a_compact_checkpoint(unbroken, tmp_path):
    shutil.copy(unbroken / "autoencoder.safetensors", tmp_path)
    shutil.copy(unbroken / "decoder.safetensors", tmp_path)
    shutil.copy(unbroken / "compact-denoiser.safetensors", tmp_path / "denoiser.safetensors")
    train(tmp_path, "denoiser", 9)
    assert restored(tmp_path / "denoiser.safetensors")[3] == 9


def test_a_damaged_checkpoint_is_no_fresh_start(unbroken, tmp_path):
    whole = (unbroken / "autoencoder.safetensors").read_bytes()
    (tmp_path / "autoencoder.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SafetensorError):
        train(tmp_path, "autoencoder", 9)


PROMPTS = ["a red circle and a blue square on a black background.", "a 🦊"]


def pictures(pipeline, prompts, seeds):
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        prompts,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
    ).images


def test_the_exported_folder_is_a_plain_pipeline_that_draws_the_same(unbroken, tmp_path):
    export(unbroken, tmp_path)
    facts = json.loads((tmp_path / "training.json").read_text())
    assert {stage: facts[stage]["step"] for stage in facts} == dict.fromkeys(STAGES, 8)
    assert facts["denoiser"]["settings"]["widths"] == list(WIDTHS)

    model = build_denoiser(SCENES, WIDTHS)
    model.load_state_dict(averaged_weights(unbroken / "denoiser.safetensors"))
    autoencoder = load_trained_autoencoder(SCENES, unbroken, "cpu")
    expected = draw(model.eval(), autoencoder, PROMPTS, seed=3)

    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path)
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert pipeline.scheduler.config.clip_sample is False
    images = pictures(pipeline, PROMPTS, (3, 4))
    for image, wanted in zip(images, expected, strict=True):
        assert image.size == (64, 64)
        assert (torch.tensor(list(image.tobytes())) == torch.tensor(list(wanted.tobytes()))).all()


def test_half_an_export_is_half_as_large(unbroken, tmp_path):
    export(unbroken, tmp_path / "whole")
    export(unbroken, tmp_path / "half", half=True, compared=2)

    def weight(folder):
        return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))

    assert weight(tmp_path / "half") < 0.6 * weight(tmp_path / "whole")
    told = json.loads((tmp_path / "half" / "training.json").read_text())["half_precision"]
    prompts = [rendered("validation", index).scene.prompt for index in range(2)]
    drawn = [
        np.stack(
            [
                np.asarray(image, int)
                for image in pictures(load(tmp_path / folder).pipe, prompts, (0, 1))
            ]
        )
        for folder in ("whole", "half")
    ]
    difference = np.abs(drawn[0] - drawn[1])
    assert told["prompts"] == 2
    assert told["largest_difference"] == difference.max()
    assert told["mean_difference"] == pytest.approx(difference.mean())


def test_an_epoch_sees_every_image_once_and_epochs_differ():
    first = torch.cat([batch_indices(IMAGES, BATCH, 0, step) for step in range(4)])
    second = torch.cat([batch_indices(IMAGES, BATCH, 0, step) for step in range(4, 8)])
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(IMAGES))
    assert first.tolist() != second.tolist()


def test_the_rate_rises_stays_and_falls():
    plan = Recipe(steps=100, batch=4, rate=2.0, warmup=10, cooldown=20, seed=0)
    assert plan.rate_at(0) == pytest.approx(0.2)
    assert [plan.rate_at(step) for step in (9, 50, 80)] == [2.0, 2.0, 2.0]
    assert plan.rate_at(90) == pytest.approx(1.0)
    assert plan.rate_at(99) == pytest.approx(0.1)


def test_a_shift_holds_from_its_step_on():
    assert [shift_at({0: 1.0, 3: 2.0}, step) for step in (0, 2, 3, 9)] == [1.0, 1.0, 2.0, 2.0]


@pytest.mark.parametrize("shift", [0.5, 2.0])
def test_a_higher_shift_draws_noisier_timesteps(shift):
    times = draw_timesteps(20_000, shift, torch.Generator().manual_seed(0))
    assert times.min() >= 0
    assert times.max() <= 999
    # A fifth lie evenly; the others lie above their median, 1000 sigmoid(shift), every other time.
    median = 1000 / (1 + math.exp(-shift))
    expected = 0.2 * (1 - median / 1000) + 0.8 * 0.5
    # One standard deviation of a share of 20 000 draws is at most 0.0036.
    assert float((times > median).float().mean()) == pytest.approx(expected, abs=0.015)
