"""What the trainings of several models share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="module")
def small_training() -> Iterator[None]:
    """A training's measurements on few images, and sums by one thread: they depend on how they are
    parted among threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wordlight.backends.training.latent_store._SCALE_IMAGES", 20)
        patch.setattr("wordlight.backends.training.train_denoiser._LOSS_IMAGES", 8)
        yield
    torch.set_num_threads(before)
