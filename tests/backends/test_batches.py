"""Memory that runs out halves the batch, changes no number, and is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from wordlight.attribution import DAAM, InputXGradient, Occlusion, SelfAttentionRefined
from wordlight.attribution.testing.model import ToyModel
from wordlight.backends.backend import Conditioning
from wordlight.backends.batches import BatchLimits
from wordlight.backends.torch.backend import TorchBackend

PROMPT = "a red circle and a blue square"


def limits() -> BatchLimits:
    return BatchLimits(lambda error: isinstance(error, MemoryError), lambda: None)


def test_a_batch_that_fits_is_one_part() -> None:
    assert limits().parts("denoise", 10, 16, lambda rows: rows) == [slice(0, 10)]


def test_a_batch_is_halved_until_it_fits_and_the_limit_is_kept() -> None:
    tried: list[int] = []

    def run(rows: slice) -> list[int]:
        tried.append(rows.stop - rows.start)
        if tried[-1] > 3:
            raise MemoryError
        return list(range(rows.start, rows.stop))

    held = limits()
    made = held.parts("denoise", 10, 16, run)
    assert [row for part in made for row in part] == list(range(10))
    assert tried == [10, 5, 2, 2, 2, 2, 2]
    assert held.halvings == 2
    tried.clear()
    held.parts("denoise", 4, 16, run)
    assert tried == [2, 2]
    # Another kind of pass takes another amount of memory.
    held.parts("decode", 3, 16, run)
    assert tried[2:] == [3]


def test_what_one_row_can_t_have_is_told() -> None:
    def run(rows: slice) -> None:
        raise MemoryError("no room for one")

    with pytest.raises(MemoryError, match="no room for one"):
        limits().parts("denoise", 4, 16, run)


def test_another_error_is_no_reason_to_try_again() -> None:
    tried: list[slice] = []

    def run(rows: slice) -> None:
        tried.append(rows)
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        limits().parts("denoise", 4, 16, run)
    assert len(tried) == 1


def test_rows_keep_their_own_conditioning() -> None:
    told = Conditioning(np.arange(6).reshape(3, 2, 1), {"own": np.arange(3), "+all*": np.ones(1)})
    some = told.of_rows(slice(1, 3), 3)
    assert some.embeddings[:, 0, 0].tolist() == [2, 4]
    assert some.added["own"].tolist() == [1, 2]
    assert some.added["+all*"].tolist() == [1]


class Short(ToyModel):
    """A model whose device holds two rows, or two directions, at once."""

    def _denoise(self, latents: Any, timestep: float, conditioning: Conditioning) -> Any:
        if len(latents) > 2:
            raise MemoryError(f"{len(latents)} rows")
        return super()._denoise(latents, timestep, conditioning)

    def _denoise_jvp(
        self, latents: Any, timestep: float, conditioning: Conditioning, tangents: Any
    ) -> Any:
        if len(tangents) > 2:
            raise MemoryError(f"{len(tangents)} directions")
        return super()._denoise_jvp(latents, timestep, conditioning, tangents)


@pytest.mark.parametrize("method", [Occlusion, InputXGradient])
def test_methods_go_on_with_less_memory(method: Any) -> None:
    plenty, short = ToyModel(), Short()
    run = plenty.sample(PROMPT, seed=1)
    expected = method(plenty).attribute(run)
    found = method(short).attribute(run)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))
    assert expected.provenance.halvings == 0
    assert found.provenance.halvings > 0
    assert found.provenance.forward_equivalents == expected.provenance.forward_equivalents
    # The limit is known by now.
    assert method(short).attribute(run).provenance.halvings == 0


@pytest.mark.parametrize("method", [DAAM, SelfAttentionRefined, Occlusion])
def test_torch_goes_on_where_its_allocator_gives_up(method: Any, tiny_pipe: Any) -> None:
    backend = TorchBackend(tiny_pipe, steps=5)
    run = backend.sample(PROMPT, seed=1)
    expected = method(backend).attribute(run)

    def full(_module: object, _args: object, told: dict[str, torch.Tensor]) -> None:
        if len(told["sample"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    hook = tiny_pipe.unet.register_forward_pre_hook(full, with_kwargs=True)
    try:
        found = method(TorchBackend(tiny_pipe, steps=5)).attribute(run)
    finally:
        hook.remove()
    assert found.provenance.halvings > 0
    # Convolutions of fewer rows add up in another order.
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), atol=1e-4)


@pytest.fixture(scope="module")
def tiny_pipe() -> Any:
    from tests.backends.torch.tiny import build_tiny_pipe

    return build_tiny_pipe()
