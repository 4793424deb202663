"""Last stage of the training: the averaged weights as a plain diffusers folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DiffusionPipeline
from safetensors import safe_open

from wordlight.backends.training.blueprints import BLUEPRINTS
from wordlight.backends.training.denoisers import Denoiser, build_denoiser
from wordlight.backends.training.drawing import draw
from wordlight.backends.training.train_denoiser import load_trained_autoencoder
from wordlight.backends.training.training import averaged_weights
from wordlight.backends.vocabulary import WORDS_FILE

_STAGES = ("autoencoder", "decoder", "denoiser")


def export(folder: Path, destination: Path, *, half: bool = False, compared: int = 64) -> None:
    """Write the run in ``folder`` to ``destination``, with the settings that made it.

    With ``half`` the weights are stored as float16. They are computed with in float32 all the same,
    and ``training.json`` says how far that moves the pictures of ``compared`` validation prompts.
    """
    weights = averaged_weights(folder / "denoiser.safetensors")
    facts = {stage: _facts(folder / f"{stage}.safetensors") for stage in _STAGES}
    facts = {stage: found for stage, found in facts.items() if found}
    settings = facts["denoiser"]["settings"]
    blueprint = BLUEPRINTS[settings.get("model", "scenes")]
    model = build_denoiser(blueprint, tuple(settings["widths"]))
    model.load_state_dict(weights)
    model.eval()
    autoencoder = load_trained_autoencoder(blueprint, folder, "cpu")
    if half:
        facts["half_precision"] = _rounded(model, autoencoder, compared)
    pipeline = model.pipeline(autoencoder)
    if half:
        save_half(pipeline, destination)
    else:
        pipeline.save_pretrained(destination)
    (destination / "training.json").write_text(json.dumps(facts, indent=2) + "\n")
    (destination / WORDS_FILE).write_text("\n".join(sorted(blueprint.data.words)) + "\n")


def save_half(pipeline: DiffusionPipeline, destination: Path) -> None:
    """Write a pipeline with weights in float16, to be computed with in float32.

    Diffusers loads weights in float32 whatever they are stored in, transformers in what the text
    encoder's settings say.
    """
    pipeline.to(dtype=torch.float16).save_pretrained(destination)
    path = destination / "text_encoder" / "config.json"
    settings = json.loads(path.read_text()) | {"dtype": "float32"}
    path.write_text(json.dumps(settings, indent=2) + "\n")


def _rounded(model: Denoiser, autoencoder: AutoencoderKL, prompts: int) -> dict[str, Any]:
    """Round all weights to float16, in place; by how many grey levels that moves the pictures."""
    texts = [
        model.blueprint.data.rendered("validation", index).scene.prompt for index in range(prompts)
    ]
    before = np.stack(draw(model, autoencoder, texts, seed=0)).astype(int)
    for network in (model, autoencoder):
        network.half().float()
    after = np.stack(draw(model, autoencoder, texts, seed=0)).astype(int)
    difference = np.abs(after - before)
    return {
        "prompts": prompts,
        "mean_difference": float(difference.mean()),
        "largest_difference": int(difference.max()),
        "pixels_off_by_more_than_8": float((difference.max(axis=-1) > 8).mean()),
    }


def _facts(checkpoint: Path) -> dict[str, Any]:
    """A stage's steps and settings; nothing where that stage was left out."""
    if not checkpoint.exists():
        return {}
    with safe_open(checkpoint, framework="pt") as file:
        meta = file.metadata()
    return {"step": int(meta["step"]), "settings": json.loads(meta["settings"])}
