"""Noise difference: how the prediction changes when the prompt is written without a word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr
from array_api_compat import array_namespace

from wordlight.attribution.attributor import TextImageAttributor
from wordlight.attribution.question import Answer, Question, Size
from wordlight.attribution.step import embeddings_unchanged, encoding_tolerance, wide
from wordlight.attribution.words import CUT, Word
from wordlight.backends.backend import Array, Backend, Conditioning, Evaluations
from wordlight.backends.tokens import Tokens
from wordlight.backends.trajectory import Trajectory


class NoiseDifference(TextImageAttributor):
    """‖ε(prompt) - ε(prompt without w)‖ at each pixel, the text encoded anew
    (as in DiffEdit, Couairon et al. 2022, arXiv 2210.11427).

    Unlike occlusion, the other words' embeddings forget the word too. Special positions can't be
    taken out of a text: their maps are zero. Cost at a step: one forward pass, and one a word.

    Raises:
        ValueError: a run whose embeddings the encoder doesn't make of the prompt alone (when
            asked), since the shorter prompts' would differ by more than the word; a prompt that the
            context cut inside a word, half of which no shorter prompt has.
    """

    name: ClassVar[str] = "noise-difference"
    question: ClassVar[str] = (
        "How does the prediction change when the prompt is written without the word?"
    )
    family: ClassVar[Literal["perturbation"]] = "perturbation"
    needs: ClassVar[frozenset[str]] = frozenset({"denoise", "encode"})
    paper: ClassVar[str] = "Couairon et al. 2022, arXiv 2210.11427"

    def cost(self, size: Size) -> Evaluations:
        return Evaluations(forward=size.steps * (1 + size.words))

    def _attribute(self, question: Question) -> Answer:
        trajectory, players = question.trajectory, question.players
        maps = np.zeros((len(players), *trajectory.grid))
        words = [index for index, player in enumerate(players) if player.is_text]
        with self.backend.no_gradients():
            texts = encode_without_words(self.backend, question, self.name)
            for step in question.progress(question.steps):
                latents = self.backend.asarray(trajectory.latents[step][None])
                timestep = float(trajectory.timesteps[step])
                maps[words] += distances(self.backend, latents, timestep, texts)
        return Answer(xr.DataArray(maps / len(question.steps), dims=("word", "y", "x")))


def encode_without_words(backend: Backend, question: Question, method: str) -> list[Conditioning]:
    """Encode the prompt, and the prompt without each of the players that are text.

    Returns:
        Batches of ``question.batch_size``: the whole prompt first, then the players in order.

    Raises:
        ValueError: embeddings that the encoder doesn't make of the prompt alone; a prompt that was
            cut inside a word. Both name the method.
    """
    trajectory, players = question.trajectory, question.players
    _check_cut(trajectory.tokens, players, method)
    prompt = trajectory.prompt[: trajectory.tokens.cut_at]
    texts = [prompt, *(without(prompt, player) for player in players if player.is_text)]
    batches = [
        backend.encode(texts[start : start + question.batch_size])
        for start in range(0, len(texts), question.batch_size)
    ]
    tolerance = encoding_tolerance(backend, trajectory)
    if not embeddings_unchanged(
        batches[0].embeddings[:1], backend.asarray(trajectory.embeddings[None]), tolerance
    ):
        raise ValueError(
            f"{method} needs embeddings that the text encoder makes of the prompt alone; this "
            "run's are others (weighted, edited, or encoded with options)"
        )
    return _of_the_run(backend, trajectory, batches, tolerance)


def _of_the_run(
    backend: Backend, trajectory: Trajectory, batches: Sequence[Conditioning], tolerance: float
) -> list[Conditioning]:
    """Return conditionings that have of the run's own whatever isn't text.

    An image's size that isn't the model's, say, is the same in all rows.
    """
    held = {}
    xp = array_namespace(batches[0].embeddings)
    for name, value in trajectory.added.items():
        own = backend.asarray(value[None])
        made = xp.concat([batch.added[name] for batch in batches], axis=0)
        every_text_has_it = bool(xp.all(made == made[:1]))
        if every_text_has_it or not embeddings_unchanged(made[:1], own, tolerance):
            held[name] = own
    return [
        Conditioning(
            batch.embeddings,
            batch.added
            | {
                name: xp.broadcast_to(own, (batch.embeddings.shape[0], *own.shape[1:]))
                for name, own in held.items()
            },
        )
        for batch in batches
    ]


def distances(
    backend: Backend, latents: Array, timestep: float, batches: Sequence[Conditioning]
) -> npt.NDArray[Any]:
    """Return the distance of each text's prediction from the first one's, over the channels:
    ``(texts - 1, y, x)``."""
    xp = array_namespace(latents)
    parts = []
    for batch in batches:
        rows = xp.broadcast_to(latents, (batch.embeddings.shape[0], *latents.shape[1:]))
        parts.append(backend.denoise(rows, timestep, batch))
    predictions = wide(xp.concat(parts, axis=0))
    change = predictions[1:] - predictions[:1]
    return backend.to_numpy(xp.sqrt(xp.sum(change * change, axis=1)))


def _check_cut(tokens: Tokens, players: Sequence[Word], method: str) -> None:
    if any(player.text == CUT and not player.is_text for player in players):
        raise ValueError(
            f"{method} writes the prompt without a word, and the context cut this one "
            f"inside a word, after {tokens.prompt[: tokens.cut_at].split()[-1]!r}: half a word "
            "can't be written. Draw the image of a prompt that fits"
        )


def without(prompt: str, word: Word) -> str:
    """The prompt with a word taken out, wherever it stands, and the gaps closed."""
    for start, stop in reversed(word.spans):
        prompt = f"{prompt[:start]} {prompt[stop:]}"
    return " ".join(prompt.split())
