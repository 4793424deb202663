"""Progress of sampling and attributing, told to whoever listens."""

import numpy as np
import pytest

from wordlight import load
from wordlight.attribution import Occlusion
from wordlight.backends.progress import listening, tell


@pytest.fixture(scope="module")
def backend():
    return load("scenes", device="cpu", framework="torch")


def test_without_a_listener_nothing_happens():
    tell("drawing", 1, 2)


def test_each_step_of_drawing_and_attributing_is_told(backend):
    told = []
    with listening(lambda *progress: told.append(progress)):
        run = backend.sample("a red circle", steps=3)
        assert told == [("drawing", 1, 3), ("drawing", 2, 3), ("drawing", 3, 3)]
        told.clear()
        Occlusion(backend).attribute(run)
    assert told == [("steps", 0, 3), ("steps", 1, 3), ("steps", 2, 3)]
    backend.sample("a red circle", steps=1)
    assert len(told) == 3, "a listener outlives its block"


def test_what_a_listener_raises_ends_the_run_and_leaves_nothing(backend):
    class StoppedError(Exception):
        pass

    def stop(what, done, total):
        if done == 2:
            raise StoppedError

    alone = backend.sample("a red circle", steps=3)
    with pytest.raises(StoppedError), listening(stop):
        backend.sample("a red circle", steps=3)
    again = backend.sample("a red circle", steps=3)
    np.testing.assert_array_equal(alone.latents, again.latents)
