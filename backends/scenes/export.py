"""Last stage of the training: the averaged weights as a plain diffusers folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from wordlight.backends.scenes.drawing import build_pipeline
from wordlight.backends.scenes.train_denoiser import Denoiser, load_trained_autoencoder
from wordlight.backends.scenes.training import averaged_weights

_STAGES = ("autoencoder", "decoder", "denoiser")


def export(folder: Path, destination: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write the run in ``folder`` to ``destination``, with the settings that made it."""
    weights = averaged_weights(folder / "denoiser.safetensors")
    facts = {stage: _facts(folder / f"{stage}.safetensors") for stage in _STAGES}
    facts = {stage: found for stage, found in facts.items() if found}
    model = Denoiser(tuple(facts["denoiser"]["settings"]["widths"]))
    model.load_state_dict(weights)
    autoencoder = load_trained_autoencoder(folder, "cpu")
    build_pipeline(model.eval(), autoencoder).to(dtype=dtype).save_pretrained(destination)
    (destination / "training.json").write_text(json.dumps(facts, indent=2) + "\n")


def _facts(checkpoint: Path) -> dict[str, Any]:
    """A stage's steps and settings; nothing where that stage was left out."""
    if not checkpoint.exists():
        return {}
    with safe_open(checkpoint, framework="pt") as file:
        meta = file.metadata()
    return {"step": int(meta["step"]), "settings": json.loads(meta["settings"])}
