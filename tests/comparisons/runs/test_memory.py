"""What a table is computed with doesn't grow with the number of images; for whole runs see
``test_resume``."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from wordlight.comparisons.stats.intervals import mean_over_words
from wordlight.comparisons.stats.paired_tests import sign_flip_test


def interval(images):
    samples = [f"{index // 2:05d}" for index in range(2 * images)]
    mean_over_words(samples, np.arange(2.0 * images))


def flip(images):
    sign_flip_test(np.ones((images, 3)))


def peak(do, images):
    tracemalloc.start()
    try:
        do(images)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("do", [interval, flip])
def test_many_images_hold_little_more_than_few(do):
    # All signs of 500 images at once would be 40 MiB.
    assert peak(do, 500) - peak(do, 50) < 6 * 2**20
    assert peak(do, 5000) - peak(do, 50) < 12 * 2**20
