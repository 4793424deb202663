"""The fingerprint of a live pipeline's weights: any changed number makes it another one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.backends.torch.tiny import build_tiny_pipe
from wordlight import load
from wordlight.attribution import DAAM
from wordlight.backends.torch import weights
from wordlight.backends.torch.module_tree import named_parts
from wordlight.backends.torch.weights import fingerprint


@pytest.fixture(scope="module")
def pipe():
    return build_tiny_pipe()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_one_number_anywhere_is_noticed(dtype):
    rng = np.random.default_rng(0)
    # Sizes around the stretches that are summed, a scalar, and none at all.
    module = torch.nn.ParameterList(
        torch.randn(size, dtype=dtype) for size in (1, 3, 63, 64, 65, 1000, (7, 9, 11), (), 0)
    )
    module.append(torch.nn.Parameter(torch.randn(8, 4, 3, 3).to(memory_format=torch.channels_last)))
    whole = fingerprint([module])
    for weight in module:
        flat = weight.data.view(-1) if weight.is_contiguous() else weight.data.permute(0, 2, 3, 1)
        for _ in range(min(12, weight.numel())):
            place = np.unravel_index(rng.integers(weight.numel()), flat.shape)
            place = tuple(int(one) for one in place)
            before = flat[place].clone()
            # By the smallest step that there is, and past autograd's count of changes.
            flat[place] = torch.nextafter(before.float(), torch.tensor(torch.inf)).to(dtype) + (
                before.abs() * 2**-6 if dtype in (torch.float16, torch.bfloat16) else 0
            )
            assert fingerprint([module]) != whole
            flat[place] = before
    assert fingerprint([module]) == whole


def test_numbers_that_change_places_are_noticed():
    module = torch.nn.Linear(64, 64)
    before = fingerprint([module])
    module.weight.data[[0, -1]] = module.weight.data[[-1, 0]]
    assert fingerprint([module]) != before


def test_weights_read_together_give_what_each_gives_alone(monkeypatch):
    sizes = (4, 64, 80, 64, 4, 1000, (8, 8), 80)
    module = torch.nn.ParameterList([torch.randn(size) for size in sizes])
    module.extend([torch.randn(size).half() for size in (64, 3, 3, 256)])
    module.append(torch.randn(16, 4, 5, 5).to(memory_format=torch.channels_last))
    together = fingerprint([module])
    for most in (1, 512):
        monkeypatch.setattr(weights, "_TOGETHER_ON_CPU", most)
        assert fingerprint([module]) == together


def test_few_operations_read_all_weights(pipe):
    """A few kernels a size of weights, whose launches a GPU waits for, and not several a weight."""

    class Kernels(TorchDispatchMode):
        n = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.n += not func.is_view
            return func(*args, **(kwargs or {}))

    parts = [pipe.unet, pipe.text_encoder, pipe.vae]
    sizes = [weight.numel() for part in parts for weight in part.parameters()]
    assert len(sizes) > 10 * len(set(sizes))
    with Kernels() as kernels:
        fingerprint(parts)
    assert kernels.n <= 4 * len(set(sizes))


def test_part_of_a_larger_tensor_is_read_by_its_numbers():
    numbers = torch.arange(101, dtype=torch.float32)
    module = torch.nn.ParameterList([numbers[1:]])
    alone = torch.nn.ParameterList([numbers[1:].clone()])
    assert fingerprint([module]) == fingerprint([alone])


def test_parts_are_those_that_pytorch_names(pipe):
    shared = torch.nn.Linear(2, 2)
    twice = torch.nn.ModuleDict({"one": torch.nn.Sequential(shared, shared), "other": shared})
    for module in (pipe.unet, pipe.text_encoder, twice):
        assert list(named_parts(module)) == list(module.named_modules())


def test_weights_that_are_elsewhere_are_unknown():
    assert fingerprint([torch.nn.Linear(4, 4, device="meta")]) is None


def test_one_changed_number_of_a_live_pipeline_is_refused(pipe):
    backend = load(pipe)
    trajectory = backend.sample("a red circle", seed=0, steps=1)
    for module in (pipe.unet, pipe.text_encoder):
        weight = list(module.parameters())[-3]
        number = weight.data.view(-1)[-2].item()
        weight.data.view(-1)[-2] = number + 1e-3
        with pytest.raises(ValueError, match="other weights or adapters"):
            DAAM(backend).attribute(trajectory)
        weight.data.view(-1)[-2] = number
    DAAM(backend).attribute(trajectory)


def test_a_changed_decoder_is_another_pipeline_with_the_same_maps(pipe):
    backend = load(pipe)
    trajectory = backend.sample("a red circle", seed=0, steps=1)
    before = backend.weights
    next(pipe.vae.decoder.parameters()).data.view(-1)[0] += 1
    assert backend.weights != before
    DAAM(backend).attribute(trajectory)
