"""Maps step by step, and films of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.attribution.viewer.made_up import maps_of
from tests.toys import ToyBackend, toy_trajectory
from wordlight.attribution import InputXGradient, Occlusion, Uniform
from wordlight.attribution.film import by_step, frames, save_film

TRAJECTORY = toy_trajectory(steps=3)


@pytest.mark.parametrize("method", [Occlusion, InputXGradient])
def test_steps_apart_are_the_method_at_each(method: Any) -> None:
    asked = method(ToyBackend(), steps=[0, 2])
    maps = by_step(asked, TRAJECTORY, ["red circle"])
    assert maps.data.dims == ("word", "step", "y", "x")
    assert maps.data.coords["step"].values.tolist() == [0, 2]
    for step in (0, 2):
        alone = asked.attribute(TRAJECTORY, ["red circle"], steps=(step,))
        assert (maps.select(step=step).data.values == alone.data.values).all()
    whole = asked.attribute(TRAJECTORY, ["red circle"])
    assert np.allclose(np.asarray(maps["red circle"]), np.asarray(whole["red circle"]), atol=1e-5)
    assert maps.provenance.forward_equivalents == whole.provenance.forward_equivalents


def test_what_has_no_steps_has_no_film() -> None:
    with pytest.raises(ValueError, match="no film"):
        by_step(Uniform(ToyBackend()), TRAJECTORY)
    with pytest.raises(ValueError, match="weren't kept apart"):
        frames(maps_of(), "dog")


def test_a_film_has_one_scale(tmp_path: Path) -> None:
    maps = maps_of(axes={"step": [1, 4, 9]})
    maps.data.loc[{"step": 4}] *= 0.1
    pictures = frames(maps, "dog")
    # Away from the number that each frame says.
    light = [np.asarray(picture, float)[: picture.height // 2].max() for picture in pictures]
    assert light[1] < min(light[0], light[2])
    path = save_film(maps, "dog", tmp_path / "dog.gif", milliseconds=50)
    with Image.open(path) as film:
        assert (film.n_frames, film.info["duration"], film.info["loop"]) == (3, 50, 0)


def test_a_film_of_nothing_shows_nothing() -> None:
    maps = maps_of(values=np.full((8, 2, 16, 16), 0.3), axes={"step": [0, 1]})
    dark = maps_of(values=np.zeros((8, 2, 16, 16)), axes={"step": [0, 1]})
    assert [p.tobytes() for p in frames(maps, "dog")] == [p.tobytes() for p in frames(dark, "dog")]
