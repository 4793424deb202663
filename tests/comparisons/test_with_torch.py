"""Every default method on a real pipeline, with random weights: noised scenes stand for drawings.

What is scored is meaningless; that every method, cell and row is there, and what each costs, isn't.
"""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.comparisons.fakes import scenes_by_prompt
from tests.torch.conftest import build_tiny_pipe
from wordlight.backends.scenes.render import rendered
from wordlight.backends.torch.backend import TorchBackend
from wordlight.comparisons import compare
from wordlight.comparisons.entries import DEFAULT_METHODS

STEPS, SAMPLING = 2, 6


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


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    backend = Inverting(build_tiny_pipe())
    return compare(
        backend,
        out=tmp_path_factory.mktemp("torch"),
        n=3,
        calibration=3,
        steps=STEPS,
        progress=False,
    )


def test_every_default_method_has_its_row(finished):
    names = [entry.name for entry in finished.entries]
    assert names == [
        *DEFAULT_METHODS[:-1],
        "shuffled-word.daam",
        "shuffled-word.input-x-gradient",
        "shuffled-word.occlusion",
        "daam-all-steps",
    ]
    table = pq.read_table(finished.out / "results.parquet").to_pandas()
    assert set(table["method"]) == set(names)
    assert set(table["framework"]) == {"torch"}
    for row in finished.to_json():
        assert row["n"] > 0, row


def test_costs_are_what_the_methods_are_known_to_cost(finished):
    cost = {
        entry.name: finished.estimate(entry.name, "forward-equivalents").mean
        for entry in finished.entries
    }
    assert cost["daam"] == cost["shuffled-word.daam"] == STEPS
    assert cost["daam-all-steps"] == SAMPLING
    assert cost["uniform"] == cost["center"] == cost["random"] == 0
    assert cost["guidance-norm"] == 2 * STEPS
    assert cost["input-x-gradient"] > cost["occlusion"] > STEPS


def test_all_of_it_is_in_the_picture(finished):
    with Image.open(finished.out / "grid.png") as picture:
        assert picture.width > 1500
