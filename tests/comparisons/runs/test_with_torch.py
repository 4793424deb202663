"""Every default method on a real pipeline, with random weights: noised scenes stand for drawings.

What is scored is meaningless; that every method, cell and row is there, and what each costs, isn't.
"""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
from diffusers import AutoencoderKL, StableDiffusionPipeline
from PIL import Image

from tests.backends.torch.tiny import build_tiniest_pipe
from tests.comparisons.fakes import scenes_by_prompt
from wordlight.backends.scenes.render import rendered
from wordlight.backends.torch.backend import TorchBackend
from wordlight.comparisons import compare
from wordlight.comparisons.rows.row import DEFAULT_METHODS
from wordlight.comparisons.store.cells import SOMETIMES

STEPS, SAMPLING = 1, 3


class Inverting(TorchBackend):
    """Noises the rendered scene of a prompt, instead of drawing what random weights draw."""

    def sample(self, prompts, *, seed=0, **options):
        images = [rendered_image(prompt) for prompt in prompts]
        found = self.invert(images, prompts, seed=0, steps=SAMPLING)
        assert len(found) == len(prompts)
        return found


def rendered_image(prompt):
    scene = scenes_by_prompt()[prompt]
    for split in ("calibration", "test"):
        for index in range(48):
            one = rendered(split, index)
            if one.scene == scene:
                return one.image
    raise AssertionError(prompt)


def build_pipe():
    """The tiny model with an autoencoder that leaves it 16x16 latents of 64x64 pixels."""
    pipe = build_tiniest_pipe()
    vae = AutoencoderKL(
        sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        norm_num_groups=4,
    )
    parts = {**pipe.components, "vae": vae.eval()}
    pipe = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    backend = Inverting(build_pipe())
    return compare(
        backend,
        out=tmp_path_factory.mktemp("torch"),
        n=2,
        calibration=2,
        steps=STEPS,
        progress=False,
    )


def test_every_default_method_has_its_row(finished):
    names = [entry.name for entry in finished.table_rows]
    assert names == [
        *DEFAULT_METHODS[:-1],
        "shuffled-word.daam",
        "shuffled-word.self-attention-refined",
        "shuffled-word.input-x-gradient",
        "shuffled-word.occlusion",
        "daam-all-steps",
    ]
    table = pq.read_table(finished.out / "results.parquet").to_pandas()
    assert set(table["method"]) == set(names)
    assert set(table["framework"]) == {"torch"}
    complete = {"input-x-gradient", "occlusion"}
    for row in finished.to_json():
        measured = row["metric"] not in SOMETIMES or row["method"].split(".")[-1] in complete
        assert (row["n"] > 0) == measured, row


def test_costs_are_what_the_methods_are_known_to_cost(finished):
    cost = {
        entry.name: finished.estimate(entry.name, "forward-equivalents").mean
        for entry in finished.table_rows
    }
    assert cost["daam"] == cost["shuffled-word.daam"] == STEPS
    assert cost["daam-all-steps"] == SAMPLING
    assert cost["uniform"] == cost["center"] == cost["random"] == 0
    assert cost["guidance-norm"] == 2 * STEPS
    assert cost["input-x-gradient"] > cost["occlusion"] > STEPS


def test_all_of_it_is_in_the_picture(finished):
    with Image.open(finished.out / "grid.png") as picture:
        assert picture.width > 1500
