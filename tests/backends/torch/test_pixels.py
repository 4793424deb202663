"""Pixels and latents of transformers' pipelines: decoding, encoding, and given images."""

import numpy as np
import pytest
import torch

from tests.backends.torch.test_concepts import KNOWN, some
from tests.backends.torch.test_families_tiny import PROMPT, pipe_of
from wordlight import trace
from wordlight.attribution import DAAM
from wordlight.backends.backend import Conditioning
from wordlight.backends.torch.backend import TorchBackend
from wordlight.backends.torch.tiny import TINY, draw_tiny

TRANSFORMERS = [n for n in KNOWN if not TorchBackend(pipe_of(n)).model.family.feature_maps]
DECODE = [n for n in TRANSFORMERS if "decode" in TorchBackend(pipe_of(n)).capabilities]
INVERT = [
    n
    for n in TRANSFORMERS
    if "invert" in TorchBackend(pipe_of(n)).capabilities and not TINY[n].edits
]
FEW = ("sd3", "flux-dev", "flux.2-dev", "qwen-image", "sana")


@pytest.mark.parametrize("family", some(DECODE, FEW))
def test_decode_gives_the_pipelines_picture(family):
    pipe = pipe_of(family)
    backend = TorchBackend(pipe)
    with trace(pipe) as run:
        picture = draw_tiny(family, pipe, PROMPT)
    latents = torch.as_tensor(np.asarray(draw_tiny(family, pipe, PROMPT, output_type="latent")))
    height, width = run.trajectories[0].grid
    statistics = getattr(pipe.vae, "bn", None)
    if latents.ndim == 3:
        latents = latents[:, : height * width].transpose(1, 2).unflatten(2, (height, width))
    elif latents.shape[2:4] == (height, width) and latents.ndim == 5:
        # Channels come last.
        latents = latents.movedim(-1, 1)
    elif statistics is not None:
        # They are what the autoencoder takes: scaled back, and patches taken apart, if any.
        if latents.shape[-1] != width:
            latents = latents.unflatten(2, (height, 2)).unflatten(4, (width, 2))
            latents = latents.permute(0, 1, 3, 5, 2, 4).flatten(1, 3)
        deviations = (statistics.running_var + pipe.vae.config.batch_norm_eps).sqrt()
        latents = (latents - statistics.running_mean.view(1, -1, 1, 1)) / deviations.view(
            1, -1, 1, 1
        )
    latents = latents.reshape(1, -1, height, width)
    with torch.no_grad():
        pixels = backend.decode(backend.asarray(latents)).permute(0, 2, 3, 1).numpy().clip(0, 1)
    assert np.allclose(pixels, picture.reshape(pixels.shape), atol=1e-5)


@pytest.mark.parametrize("family", some(INVERT, FEW))
def test_a_given_image_under_noise(family):
    backend = TorchBackend(pipe_of(family), steps=3)
    sides = [TINY[family].call.get(name, 32) for name in ("height", "width")]
    image = np.random.default_rng(0).integers(0, 256, (*sides, 3), np.uint8)
    prompt = backend.prompt_form.format(prompt=PROMPT)
    (run,) = backend.invert([image], [prompt], seed=1, steps=3)
    clean = backend.to_numpy(backend.encode_image(image))[0]
    noise = np.random.default_rng(1).standard_normal(clean.shape, np.float32)
    for step, latents in enumerate(run.latents):
        alpha, sigma = backend.noise_level_at(run, step)
        # In the model's float32.
        assert np.allclose(latents, alpha * clean + sigma * noise, atol=1e-5)
    assert run.noise_source == "noising"
    assert (run.image == image).all()
    assert DAAM(backend).attribute(run)["circle"].values.max() > 0


@pytest.mark.parametrize("family", ["sd", "flux-dev"])
def test_ddim_inversion_is_euler_backwards(family):
    """One step by hand; of flow matching x' = x + (σ' - σ)·v, with v = ε - x0."""
    backend = TorchBackend(pipe_of(family), steps=3)
    sides = [TINY[family].call[name] for name in ("height", "width")]
    image = np.random.default_rng(0).integers(0, 256, (*sides, 3), np.uint8)
    (run,) = backend.invert([image], [PROMPT], by="ddim", steps=3)
    clean = backend.encode_image(image)
    last = run.steps - 1
    time = float(run.timesteps[last])
    told = Conditioning(backend.asarray(run.embeddings[None]), backend.step_conditioning(run, last))
    with torch.no_grad():
        noise = backend.denoise(clean, time, told)
    alpha, sigma = backend.noise_level(time)
    if family == "flux-dev":
        wanted = clean + (sigma - 0) * (noise - clean)
    else:
        wanted = alpha * clean + sigma * noise
    assert np.allclose(run.latents[last], backend.to_numpy(wanted)[0], atol=1e-5)
    assert np.isfinite(run.latents).all()
