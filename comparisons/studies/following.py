"""A study of how well a model follows its prompts, judged by the segmenter."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wordlight.backends.backend import Backend
from wordlight.backends.prompted_data import DATA, PromptedData, data_of
from wordlight.backends.prompts import check_split
from wordlight.comparisons.datasets.images.generated_scenes import BATCH, GeneratedScenes
from wordlight.comparisons.runs.options import TEXT, one_of, option, options
from wordlight.comparisons.stats.intervals import SHARE, Estimate, mean_over_words
from wordlight.comparisons.studies.results import estimate_data
from wordlight.comparisons.studies.sheet import Drawing, write_sheet
from wordlight.comparisons.studies.study import Study, number_of, seed_of
from wordlight.comparisons.wording import counted


@dataclass(frozen=True)
class FollowingStudy:
    """Shares of right answers by kind of question, and what was drawn.

    ``questions`` says of each kind what was asked, ``of`` what was drawn by whom.
    """

    of: str
    questions: Mapping[str, str]
    shares: dict[str, Estimate]
    drawings: tuple[Drawing, ...]

    @property
    def text(self) -> str:
        lines = [f"{self.of}:", ""]
        for kind, one in self.shares.items():
            share = f"{one.mean:6.1%}" if one.n else "     -"
            if not math.isnan(one.low):
                share += f"  [{one.low:.1%}, {one.high:.1%}]"
            lines.append(f"{kind:9} {share}  of {one.n:4} {self.questions[kind]}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        return {kind: estimate_data(one) for kind, one in self.shares.items()}


def study_following(
    backend: Backend,
    *,
    n: int,
    split: str = "test",
    seed: int = 0,
    data: PromptedData | None = None,
    on_image: Callable[[int], object] = lambda count: None,
) -> FollowingStudy:
    """Return the shares of right answers to the questions that prompts ask.

    There is one for each kind of question that the data has (``data.questions``), with a t
    interval over images.

    Args:
        backend: the model.
        n: the number of prompts of the split.
        split: ``"test"``, ``"validation"``, ``"unseen-pairs"``, ...
        seed: of the images' noise.
        data: the source of the prompts, and of the judge (default: what the model was trained on).
        on_image: called with how many images were drawn.

    Raises:
        ValueError: an unknown split, a bad number.
    """
    scenes = GeneratedScenes(backend, split, n, seed, data)
    data = scenes.data
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
        kind: mean_over_words(asked_in[kind], answers[kind], bounds=SHARE)
        for kind in data.questions
    }
    of = f"{backend.model_id}, {counted(n, 'prompt')} of the {split} split"
    return FollowingStudy(of, data.questions, shares, tuple(drawings))


@options
class Following(Study):
    """The study as a command."""

    name = "following"
    line = "how well a model draws what known prompts ask for"

    n: int = number_of("prompts", 200)
    data: str | None = option(
        one_of(*DATA),
        "the prompts: of coloured shapes (scenes) or of real nouns (things) (default: what the "
        "model was trained on, else scenes)",
        default=None,
    )
    split: str = option(TEXT, "the prompts' split (default: test)", default="test")
    seed: int = seed_of()

    def find(self) -> FollowingStudy:
        data = data_of(self.model) if self.data is None else DATA[self.data]
        check_split(self.split, data.splits)
        backend = self.load()
        with self.bar("drawing images", self.n, "images") as bar:
            return study_following(
                backend,
                n=self.n,
                split=self.split,
                seed=self.seed,
                data=data,
                on_image=bar.update,
            )

    def write(self, out: Path, found: FollowingStudy) -> None:
        write_sheet(out / "sheet.png", found.drawings[:64])
