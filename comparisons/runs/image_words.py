"""Facts about an image of the test split before any method is looked at: a small file each.

So the table can be made of a hundred thousand images without opening one of them again.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from wordlight.comparisons.datasets import DatasetItem, Mask
from wordlight.comparisons.metrics import registry
from wordlight.comparisons.metrics.ceiling import ceiling_map
from wordlight.comparisons.metrics.judged import JudgedImage, Thresholds
from wordlight.comparisons.metrics.metric import Metric
from wordlight.comparisons.runs.scoring import scored as scored_values
from wordlight.comparisons.store.cells import DamagedFileError
from wordlight.comparisons.store.json_file import read_json, write_json

FOLDER = "words"


@dataclass(frozen=True)
class SurveyedWord:
    """A scored word: ``spans`` are its places in the prompt, several for a word that stands
    there several times, ``kind`` is the table's row for it, ``mask`` a PNG (in base64), ``ceiling``
    what the latent grid allows, by metric."""

    word: str
    occurrence: int
    start: int
    stop: int
    spans: tuple[tuple[int, int], ...]
    kind: str
    category: str
    mask_share: float
    mask: str
    ceiling: dict[str, float]


@dataclass(frozen=True)
class Survey:
    """An image's prompt, its scored words and the categories of those that were dropped.

    ``image`` is the SHA-256 of its pixels: two runs with the same were judged on the same image.
    ``choice`` are the ceiling's thresholds, where some were chosen, and ``metrics`` what it was
    measured by, with their identities.
    """

    sample: str
    split: str
    prompt: str
    image: str
    words: tuple[SurveyedWord, ...]
    dropped: tuple[str, ...]
    choice: tuple[float, ...]
    metrics: dict[str, str]

    @classmethod
    def of(
        cls,
        item: DatasetItem,
        metrics: Iterable[Metric],
        thresholds: Thresholds | None = None,
        held: Survey | None = None,
    ) -> Survey:
        """Survey an image, or extend the survey that there is.

        Args:
            item: the image.
            metrics: the metrics of the ceiling, those that need masks alone.
            thresholds: the ceiling's, where metrics need some.
            held: its values by other metrics are kept.
        """
        judged = JudgedImage(
            item, None, thresholds=thresholds, map_of=lambda scored: ceiling_map(item, scored)
        )
        wanted = {one.name: one for one in metrics}
        choice = astuple(thresholds) if thresholds is not None else ()
        known = held.metrics if held is not None and held.choice in ((), choice) else {}
        lacking = {
            name: one for name, one in wanted.items() if known.get(name) != registry.identity(one)
        }
        ceilings: dict[int, dict[str, float]] = {}
        for place, scored in enumerate(item.words):
            there = held.words[place].ceiling if held is not None and known else {}
            kept = {k: v for k, v in there.items() if k in known and k not in lacking}
            ceilings[id(scored)] = kept
        for name, metric in list(lacking.items()):
            try:
                found = list(scored_values(judged, [metric]))
            except Exception:
                # It fails in the rows' cells too, and is recorded there.
                del lacking[name]
                continue
            for of_word, _, value in found:
                ceilings[id(of_word)][name] = value
        words = tuple(
            SurveyedWord(
                scored.word.text,
                scored.word.occurrence,
                scored.word.start,
                scored.word.stop,
                scored.word.spans,
                scored.row,
                scored.category,
                float(scored.mask.mean()),
                base64.b64encode(_png(scored.mask)).decode(),
                ceilings[id(scored)],
            )
            for scored in item.words
        )
        trajectory = item.trajectory
        return cls(
            sample=item.sample,
            split=item.split,
            prompt=trajectory.prompt,
            image=hashlib.sha256(trajectory.image.tobytes()).hexdigest(),
            words=words,
            dropped=tuple(item.dropped),
            choice=choice,
            metrics={**known, **{n: registry.identity(one) for n, one in lacking.items()}},
        )

    def has_measures(self, metrics: Iterable[Metric], thresholds: Thresholds | None) -> bool:
        """Return whether the ceiling was measured by all of these, at these thresholds."""
        if thresholds is not None and self.choice != astuple(thresholds):
            return False
        return all(self.metrics.get(one.name) == registry.identity(one) for one in metrics)

    def kinds(self) -> dict[tuple[str, int], str]:
        """Return the kind of each word, by its text and occurrence."""
        return {(one.word, one.occurrence): one.kind for one in self.words}

    def write(self, path: Path, run: str) -> None:
        """Write to one JSON file, by atomic rename."""
        write_json(path, {"run": run, **asdict(self)})

    @classmethod
    def read(cls, path: Path, run: str | None = None) -> Survey:
        """Read what ``write`` wrote; raises DamagedFileError on anything else, and where it is of
        another run than ``run`` or of another image than its name says."""
        facts = read_json(path)
        try:
            of_run = facts.pop("run")
            words = tuple(
                SurveyedWord(spans=tuple((a, b) for a, b in word.pop("spans")), **word)
                for word in facts.pop("words")
            )
            dropped = tuple(facts.pop("dropped"))
            choice = tuple(map(float, facts.pop("choice")))
            found = cls(words=words, dropped=dropped, choice=choice, **facts)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedFileError(path, f"{path} is damaged ({error})") from None
        if found.sample != path.stem:
            raise DamagedFileError(path, f"{path} is of another image, {found.sample}")
        if run is not None and of_run != run:
            raise DamagedFileError(path, f"{path} is of a run with other settings")
        return found


def survey_path(root: Path, sample: str) -> Path:
    """Return the path of an image's survey."""
    return root / FOLDER / f"{sample}.json"


class Surveys(Iterable[Survey]):
    """The surveys of a run's test images, read anew whenever they are gone through; images that
    were left out have none."""

    def __init__(self, root: Path, samples: Sequence[str], run: str | None = None) -> None:
        self.root = root
        self.samples = samples
        self.run = run

    def __iter__(self) -> Iterator[Survey]:
        paths = (survey_path(self.root, sample) for sample in self.samples)
        return (Survey.read(path, self.run) for path in paths if path.exists())


#: Of ``words.parquet``.
_COLUMNS = pa.schema(
    [
        ("sample", pa.string()),
        ("split", pa.string()),
        ("prompt", pa.string()),
        ("word", pa.string()),
        ("occurrence", pa.int64()),
        ("start", pa.int64()),
        ("stop", pa.int64()),
        ("spans", pa.list_(pa.list_(pa.int64()))),
        ("kind", pa.string()),
        ("mask_share", pa.float64()),
        ("mask", pa.binary()),
    ]
)
#: How many rows of it are held at a time.
_HELD = 1000


def write_words(path: Path, surveys: Iterable[Survey]) -> None:
    """Write every scored word, with its mask as a PNG, to one Parquet file, by atomic rename."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with pq.ParquetWriter(partial, _COLUMNS) as writer:
            rows: list[dict[str, Any]] = []
            for survey in surveys:
                of_image = {name: getattr(survey, name) for name in ("sample", "split", "prompt")}
                rows += [
                    {**asdict(word), "mask": base64.b64decode(word.mask), **of_image}
                    for word in survey.words
                ]
                if len(rows) >= _HELD:
                    writer.write_table(pa.Table.from_pylist(rows, schema=_COLUMNS))
                    rows = []
            writer.write_table(pa.Table.from_pylist(rows, schema=_COLUMNS))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _png(mask: Mask) -> bytes:
    buffer = BytesIO()
    Image.fromarray(mask).save(buffer, format="png", optimize=True)
    return buffer.getvalue()
