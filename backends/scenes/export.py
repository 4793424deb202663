"""Last stage of the training: the averaged weights as a plain diffusers folder."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open

from wordlight.backends.scenes.drawing import build_pipeline
from wordlight.backends.scenes.train_denoiser import Denoiser, load_trained_autoencoder
from wordlight.backends.scenes.training import averaged_weights


def export(folder: Path, destination: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write the run in ``folder`` to ``destination``, with the settings that made it."""
    checkpoint = folder / "denoiser.safetensors"
    weights = averaged_weights(checkpoint)
    with safe_open(checkpoint, framework="pt") as file:
        meta = file.metadata()
    settings = json.loads(meta["settings"])
    model = Denoiser(tuple(settings["widths"]))
    model.load_state_dict(weights)
    autoencoder = load_trained_autoencoder(folder, "cpu")
    build_pipeline(model.eval(), autoencoder).to(dtype=dtype).save_pretrained(destination)
    facts = {"denoiser_step": int(meta["step"]), "settings": settings}
    (destination / "training.json").write_text(json.dumps(facts, indent=2) + "\n")
