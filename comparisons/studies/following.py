"""How well a model follows its prompts, judged by the segmenter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from wordlight.backends.backend import Backend
from wordlight.backends.prompted_data import SCENES, PromptedData
from wordlight.comparisons.datasets.images.generated_scenes import BATCH, GeneratedScenes
from wordlight.comparisons.stats.intervals import Estimate, mean_over_words
from wordlight.comparisons.studies.sheet import Drawing


@dataclass(frozen=True)
class FollowingStudy:
    """Shares of right answers by kind, and what was drawn."""

    shares: dict[str, Estimate]
    drawings: tuple[Drawing, ...]


def study_following(
    backend: Backend,
    *,
    n: int,
    split: str = "test",
    seed: int = 0,
    data: PromptedData = SCENES,
    on_image: Callable[[int], object] = lambda count: None,
) -> FollowingStudy:
    """Return the shares of right answers to the questions that prompts ask.

    There is one for each kind of question that the data has (``data.questions``), with a bootstrap
    interval over images.

    Args:
        backend: the model.
        n: how many prompts of the split.
        split: ``"test"``, ``"validation"``, ``"unseen-pairs"``, ...
        seed: of the images' noise.
        data: whose prompts, and who judges.
        on_image: called with how many images were drawn.

    Raises:
        ValueError: an unknown split, a bad number.
    """
    scenes = GeneratedScenes(backend, split, n, seed, data)
    drawings: list[Drawing] = []
    answers: dict[str, list[float]] = {kind: [] for kind in data.questions}
    asked_in: dict[str, list[str]] = {kind: [] for kind in data.questions}
    for start in range(0, n, BATCH):
        drawn = scenes.draw(start)
        for offset, trajectory in enumerate(drawn):
            index = start + offset
            judged = data.judge(scenes.scenes[index], trajectory.image)
            drawings.append(
                Drawing(trajectory.prompt, trajectory.image, judged.right == judged.asked)
            )
            for kind in data.questions:
                right, asked = judged.right[kind], judged.asked[kind]
                answers[kind] += [1.0] * right + [0.0] * (asked - right)
                asked_in[kind] += [scenes.sample_name(index)] * asked
        on_image(len(drawn))
    shares = {
        kind: mean_over_words(asked_in[kind], answers[kind], seed=seed) for kind in data.questions
    }
    return FollowingStudy(shares, tuple(drawings))
