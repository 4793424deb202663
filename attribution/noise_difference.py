"""Noise difference: how the prediction changes when the prompt is written without a word."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import xarray as xr
from array_api_compat import array_namespace

from wordlight.attribution.attributor import TextImageAttributor
from wordlight.attribution.question import Answer, Question, Size
from wordlight.attribution.words import Word
from wordlight.backends.backend import Conditioning, Evaluations


class NoiseDifference(TextImageAttributor):
    """‖ε(prompt) - ε(prompt without w)‖ at each pixel, the text encoded anew
    (as in DiffEdit, Couairon et al. 2022, arXiv 2210.11427).

    Unlike occlusion, the other words' embeddings forget the word too. Special positions can't be
    taken out of a text: their maps are zero. Cost at a step: one forward pass, and one a word.
    """

    name: ClassVar[str] = "noise-difference"
    family: ClassVar[Literal["perturbation"]] = "perturbation"
    needs: ClassVar[frozenset[str]] = frozenset({"denoise", "encode"})
    paper: ClassVar[str] = "Couairon et al. 2022, arXiv 2210.11427"

    def cost(self, size: Size) -> Evaluations:
        """See ``TextImageAttributor.cost``."""
        return Evaluations(forward=size.steps * (1 + size.words))

    def _attribute(self, question: Question) -> Answer:
        trajectory, players = question.trajectory, question.players
        words = [p for p in players if p.stop > p.start]
        shorter = [without(trajectory.prompt, word) for word in words]
        total = np.zeros((len(words), *trajectory.grid))
        with self.backend.no_gradients():
            encoded = self.backend.encode(shorter).embeddings
            xp = array_namespace(encoded)
            rows = xp.concat([self.backend.asarray(trajectory.embeddings[None]), encoded], axis=0)
            for step in question.progress(question.steps):
                latents = self.backend.asarray(trajectory.latents[step][None])
                latents = xp.broadcast_to(latents, (len(words) + 1, *latents.shape[1:]))
                predictions = self.backend.denoise(
                    latents, float(trajectory.timesteps[step]), Conditioning(rows)
                )
                change = predictions[1:] - predictions[:1]
                total += self.backend.to_numpy(xp.sqrt(xp.sum(change * change, axis=1)))
        maps = np.zeros((len(players), *trajectory.grid))
        maps[[i for i, p in enumerate(players) if p.stop > p.start]] = total / len(question.steps)
        return Answer(xr.DataArray(maps, dims=("word", "y", "x")))


def without(prompt: str, word: Word) -> str:
    """The prompt with a word taken out, and the gap closed."""
    return " ".join(f"{prompt[: word.start]} {prompt[word.stop :]}".split())
