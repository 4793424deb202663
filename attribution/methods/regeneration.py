"""Regeneration: what really changes in the image when it is drawn without a word."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from wordlight.attribution.attributor import Steps, TextImageAttributor
from wordlight.attribution.methods.noise_difference import without
from wordlight.attribution.question import Answer, Question, Size
from wordlight.attribution.resize import average_down
from wordlight.backends.backend import Evaluations
from wordlight.backends.trajectory import Trajectory


class Regeneration(TextImageAttributor):
    """‖image - image of the prompt without w‖ over the colour channels, drawn from the same noise.

    The whole sampling is run again for each word, so the map is of all steps together, averaged
    down to the latent grid; grey levels run from 0 to 1. Special positions can't be taken out of
    a text: their maps are zero. Where the backend's weights aren't those that drew the image (by
    its ``revision``), the whole prompt is drawn again too: the change is the word's, and not the
    weights'. Cost: one sampling a word, and that one where it is needed.

    Args:
        backend: the model that drew the image.

    Raises:
        ValueError: an image that this model didn't sample, or not by these timesteps (when asked).
    """

    name: ClassVar[str] = "regeneration"
    question: ClassVar[str] = "What really changes in the image when it is drawn without the word?"
    family: ClassVar[Literal["perturbation"]] = "perturbation"
    needs: ClassVar[frozenset[str]] = frozenset({"sample"})

    #: It looks at no step by itself.
    steps: Steps = field(default=1, init=False)

    def cost(self, size: Size) -> Evaluations:
        # Of an image that the backend drew, as it stands. Without its only word a prompt is empty,
        # and nothing is drawn.
        drawings = size.words if size.words > 1 else 0
        return Evaluations(forward=drawings * size.drawing)

    def _attribute(self, question: Question) -> Answer:
        trajectory, players = question.trajectory, question.players
        if trajectory.seed is None or trajectory.noise_source != "sampled":
            raise ValueError(
                "regeneration needs an image that this backend sampled, to draw it again from the "
                "same noise; this one was traced or given"
            )
        if trajectory.model_id != self.backend.model_id:
            raise ValueError(
                f"the image was drawn by {trajectory.model_id}, not by {self.backend.model_id}"
            )
        maps = np.zeros((len(players), *trajectory.grid))
        prompts = {
            index: prompt
            for index, player in enumerate(players)
            if player.is_text and (prompt := without(trajectory.prompt, player))
        }
        if trajectory.words_of != "prompt":
            raise ValueError(
                f"{self.name} draws without a word of the prompt, and these are the negative "
                "prompt's: ask another method"
            )
        whole = trajectory.image
        if prompts and trajectory.revision != self.backend.revision:
            whole = self._drawn(trajectory, trajectory.prompt)
        for index in question.progress(prompts, "words"):
            change = (self._drawn(trajectory, prompts[index]).astype(float) - whole) / 255.0
            maps[index] = average_down(np.linalg.norm(change, axis=-1), trajectory.grid)
        return Answer(xr.DataArray(maps, dims=("word", "y", "x")))

    def _drawn(self, trajectory: Trajectory, prompt: str) -> npt.NDArray[np.uint8]:
        """The image of another prompt from the same noise."""
        assert trajectory.seed is not None
        # Schedulers of higher order call the denoiser twice at some timesteps.
        steps = len(np.unique(trajectory.timesteps))
        height, width = trajectory.image.shape[:2]
        drawn = self.backend.sample(
            prompt,
            seed=trajectory.seed,
            steps=steps,
            guidance_scale=trajectory.guidance_scale,
            negative_prompt=trajectory.negative_prompt,
            height=height,
            width=width,
        )
        if (drawn.negative_embeddings is None) != (trajectory.negative_embeddings is None):
            raise ValueError(
                "the image was pushed away from a negative prompt otherwise than sample does it "
                "(true_cfg_scale beside a guidance scale that is an input of the model): its "
                "changes can't be drawn"
            )
        if not np.array_equal(drawn.timesteps, trajectory.timesteps):
            raise ValueError(
                f"the image was drawn at other timesteps than {steps} steps of this scheduler "
                "have: put back the one that drew it; if it is that one, draw with another"
            )
        return drawn.image
