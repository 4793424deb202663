"""One bicubic kernel for every framework: PyTorch's."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wordlight.attribution.resize import average_down, bicubic_matrix, resize

SIDES = st.integers(1, 20)


@given(SIDES, SIDES, SIDES, SIDES)
def test_equals_torch(height: int, width: int, new_height: int, new_width: int) -> None:
    image = np.random.default_rng(height * 31 + width).random((2, height, width))
    ours = resize(image, (new_height, new_width))
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(image)[None], (new_height, new_width), mode="bicubic"
    )[0]
    # Both compute in float64; torch's kernel orders its sums differently.
    assert np.abs(ours - theirs.numpy()).max() < 1e-12


@given(SIDES, SIDES)
def test_a_constant_stays(source: int, target: int) -> None:
    assert np.allclose(bicubic_matrix(source, target).sum(1), 1.0, atol=1e-12)


def test_average_down_by_hand() -> None:
    image = np.arange(16.0).reshape(4, 4)
    assert average_down(image, (2, 2)).tolist() == [[2.5, 4.5], [10.5, 12.5]]
    with pytest.raises(ValueError, match="does not divide"):
        average_down(image, (3, 2))
