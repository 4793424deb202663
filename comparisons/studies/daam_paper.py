"""The tables of the paper of DAAM, made again: from captions to a page."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import pyarrow.parquet as pq

from wordlight.attribution.maps import AttributionMaps
from wordlight.backends.arrays_file import write_atomically
from wordlight.backends.segmenters.classes import THINGS
from wordlight.backends.segmenters.matching import spellings
from wordlight.comparisons.datasets.making import noise_seed, read_captions, shuffled
from wordlight.comparisons.datasets.nouns import Nouns
from wordlight.comparisons.metrics.segmentation import PAPER_THRESHOLDS
from wordlight.comparisons.results.comparison import Comparison
from wordlight.comparisons.results.sections import Section, as_html, as_markdown, as_text
from wordlight.comparisons.rows.row import Row
from wordlight.comparisons.rows.supervised import SUPERVISED
from wordlight.comparisons.runner import compare
from wordlight.comparisons.runs.options import PATH, TEXT, option, options, whole
from wordlight.comparisons.runs.plan import Arguments
from wordlight.comparisons.stats.intervals import SHARE, Estimate, mean_over_words
from wordlight.comparisons.store.cells import SECONDS
from wordlight.comparisons.store.lock import locked
from wordlight.comparisons.store.output_folder import writable_folder
from wordlight.comparisons.studies.influence import PAPER_SPREAD, THRESHOLD, Spreads
from wordlight.comparisons.studies.relations import Overlaps
from wordlight.comparisons.studies.results import estimate_data, estimate_text, write_study
from wordlight.comparisons.studies.texts import THE_PAPER, not_placed_note
from wordlight.comparisons.wording import counted

NAME = "daam"
#: The choices of the authors' released code, see ``DAAM.original``.
METHOD = {
    "method": "daam",
    "name": "daam",
    "steps": None,
    "without_layers": ["mid_block"],
    "factors": [1, 2, 4, 16, 32],
    "clamp": "per-map",
}
WHOLE_IMAGE = "uniform"
MASKS = "clipseg:CIDAS/clipseg-rd64-refined"
SEGMENTERS = {
    "CLIPSeg": MASKS,
    "Mask2Former": "mask2former:facebook/mask2former-swin-small-coco-panoptic",
    "OneFormer": "oneformer:shi-labs/oneformer_coco_swin_large",
}
#: mIoU over words that name one of COCO's 80 classes, and over all nouns, as the abstracts have it.
#: The cells of the paper's own table aren't given here: they were not at hand to be checked.
PAPER_SEGMENTATION = (
    ("paper, arXiv version 2: DAAM", "0.610", "0.515"),
    ("paper, ACL 2023: DAAM, both of its data sets", "0.588 to 0.648", "0.588 to 0.648"),
)
#: mIoD and mIoH of words that mean the same thing; no relation of dependency.
PAPER_COREFERENCE = (0.848, 0.774)
_METRICS = tuple(f"miou@{threshold:g}" for threshold in PAPER_THRESHOLDS)
#: Words that name one of COCO's 80 classes, in the singular or the plural.
CLOSED_VOCABULARY = frozenset(form for name in THINGS for form in spellings(name))


@dataclass(frozen=True, eq=False)
class Reproduction:
    """The paper's tables of one model.

    Attributes:
        comparison: the run that all of it is made of.
        masks: the maker of the masks.
        miou: by row and metric, of words that name a COCO class and of all words.
        spread: by part of speech, the share of an image at 0.4 or more.
        overlaps: of heads and dependents.
        not_placed: the number of tagged words without a map of their own.
        maps_of: the label of the row whose maps spread and overlaps are of.
    """

    comparison: Comparison
    masks: str
    miou: Mapping[tuple[str, str], tuple[Estimate, Estimate]]
    spread: Mapping[str, Estimate]
    overlaps: Overlaps
    not_placed: int
    maps_of: str

    @property
    def title(self) -> str:
        facts = self.comparison.facts
        return f"What the DAAM, made again with {facts.model_id} on {counted(facts.n, 'image')}"

    @property
    def sections(self) -> tuple[Section, ...]:
        """The tables, with the paper's figures beside."""
        return (self._segmentation, self._parts_of_speech, self._relations, self._cost)

    @property
    def text(self) -> str:
        """The tables, for a terminal."""
        return as_text(self.title, self.sections)

    @property
    def _segmentation(self) -> Section:
        lines = [["", "words of COCO's 80 classes", "mIoU80 [95 %]", "words", "mIoU [95 %]"]]
        for row in self.comparison.table_rows:
            for metric in _metrics_of(row):
                closed, every = self.miou[row.name, metric]
                at = f" at {metric.partition('@')[2]}" if len(_metrics_of(row)) > 1 else ""
                label = "whole image" if row.name == WHOLE_IMAGE else f"{row.label}{at}"
                numbers = [estimate_text(closed), str(every.n), estimate_text(every)]
                lines.append([label, str(closed.n), *numbers])
        lines += [[who, "-", closed, "-", every] for who, closed, every in PAPER_SEGMENTATION]
        missing = self.comparison.facts.not_measured
        return Section(
            "Segmentation, closed and open vocabulary",
            "How well does a word's map, cut at a share of its range, find what the word names? "
            "Over words that name one of COCO's 80 classes, and over all nouns that have a mask.",
            lines,
            (
                f"masks: {self.masks}",
                f"paper: {THE_PAPER}: Stable Diffusion on captions of COCO, masks made by people; "
                "figures of its abstracts",
                "an image's interval is by t over images; a word without a mask is left out",
                *(f"{name}: not measured: {why}" for name, why in missing),
            ),
        )

    @property
    def _parts_of_speech(self) -> Section:
        lines = [["part of speech", "words", f"share >= {THRESHOLD:g} [95 %]", "paper"]]
        for tag, spread in self.spread.items():
            paper = PAPER_SPREAD.get(tag)
            told = "-" if paper is None else f"{paper:.3f}"
            lines.append([tag, str(spread.n), estimate_text(spread), told])
        return Section(
            "Parts of speech",
            "How far do the maps of each part of speech spread: the share of an image where a "
            f"word's map, from 0 to 1, is at least {THRESHOLD:g}.",
            lines,
            (
                f"maps: {self.maps_of}",
                f"paper: {THE_PAPER}v1, Stable Diffusion 1.4",
                *filter(None, [not_placed_note(self.not_placed)]),
            ),
        )

    @property
    def _relations(self) -> Section:
        lines = [["relation", "pairs", "mIoD [95 %]", "mIoH [95 %]", "paper mIoD/mIoH"]]
        for row in self.overlaps.rows:
            paper = "-" if row.paper is None else "{:.3f}/{:.3f}".format(*row.paper)
            numbers = [estimate_text(one) for one in (row.iod, row.ioh)]
            lines.append([row.relation, str(row.iod.n), *numbers, paper])
        return Section(
            "Heads and dependents",
            "How do the maps of a word and of the word that it depends on overlap: the share of "
            "the dependent's mask that the head's covers (mIoD), and of the head's that the "
            "dependent's covers (mIoH).",
            lines,
            (
                f"maps: {self.maps_of}, cut at {self.overlaps.threshold:g} of their range; the "
                "authors' notebook cuts raw maps at 0.15, so the numbers compare only roughly",
                "paper, coreferent words, which tags don't tell: {:.3f}/{:.3f}".format(
                    *PAPER_COREFERENCE
                ),
            ),
        )

    @property
    def _cost(self) -> Section:
        lines = [["maps of an image", "denoiser passes", "seconds"]]
        for row in self.comparison.table_rows:
            passes, seconds = (
                self.comparison.estimate(row.name, name)
                for name in ("forward-equivalents", SECONDS)
            )
            if seconds.n:
                lines.append([row.label, f"{passes.mean:.1f}", f"{seconds.mean:.2f}"])
        facts = self.comparison.facts
        return Section(
            "Cost",
            f"Of all words' maps of an image, on average, by {facts.framework} on {facts.device}; "
            "drawing the image and asking segmenters comes on top.",
            lines,
            ("the run's own page, with its images and maps: run/report.html",),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data; what can't be estimated is null."""
        facts = self.comparison.facts
        return {
            "model": facts.model_id,
            "revision": facts.revision,
            "framework": facts.framework,
            "images": facts.n,
            "masks": self.masks,
            "segmentation": [
                {
                    "row": row,
                    "metric": metric,
                    "closed": estimate_data(closed),
                    "open": estimate_data(every),
                }
                for (row, metric), (closed, every) in self.miou.items()
            ],
            "parts_of_speech": {
                tag: {**estimate_data(spread), "paper": PAPER_SPREAD.get(tag)}
                for tag, spread in self.spread.items()
            },
            "relations": [
                {
                    "relation": row.relation,
                    "miod": estimate_data(row.iod),
                    "mioh": estimate_data(row.ioh),
                    "paper": row.paper,
                }
                for row in self.overlaps.rows
            ],
            "not_placed": self.not_placed,
            "maps_of": self.maps_of,
        }

    def write(self, out: Path) -> None:
        """Write ``daam.json``, ``daam.txt``, ``daam.md`` and ``daam.html``."""
        write_study(out, NAME, self.to_json(), self.text)
        for suffix, made in (("md", as_markdown), ("html", as_html)):
            content = made(self.title, self.sections).encode("utf-8", "replace")
            write_atomically(out / f"{NAME}.{suffix}", content)


def _metrics_of(row: Row) -> tuple[str, ...]:
    """The metrics that a row is shown by: a mask, and a constant map, are the same at each cut."""
    once = row.family == SUPERVISED or row.name == WHOLE_IMAGE
    return _METRICS[1:2] if once else _METRICS


@options
class DaamPaper(Arguments):
    """The reproduction as a command: one comparison, whose maps all tables are made of."""

    name: ClassVar[str] = NAME
    line: ClassVar[str] = "the tables of the paper of DAAM, from captions to a page"
    epilog: ClassVar[str] = """\
Draws captions, makes DAAM's maps of every word, and writes the paper's tables (Tang et al.,
arXiv 2210.04885) with its figures beside: mIoU over a closed and an open vocabulary beside
supervised segmenters, how far maps of each part of speech spread, and how the maps of heads and
dependents overlap. All of it is one comparison, in OUT/run: stopped, it goes on where it was, and
--executor ray spreads it. The page is OUT/daam.html, with daam.md, daam.txt and daam.json.

Masks come from people where the captions are a folder in COCO-Gen's layout (which `wordlight data
make coco-gen` draws, for you to annotate), else from --masks. See docs/reproduce.md.

examples:
  wordlight reproduce daam --model MODEL --captions captions_val2014.json -n 200
  wordlight reproduce daam --captions prompts.txt --tags prompts.conllu -n 8 --masks clipseg:FOLDER
"""
    left_out: ClassVar[tuple[str, ...]] = (
        "budget",
        "calibration",
        "data",
        "maps",
        "metrics",
        "on_error",
        "pairs",
        "redraw",
        "steps",
    )

    captions: Path = option(
        replace(PATH, flag={"type": Path, "required": True}),
        "COCO's captions (JSON), a text file with a prompt a line, or a folder in COCO-Gen's "
        "layout, whose masks people made",
        metavar="FILE",
    )
    tags: Path | None = option(
        PATH,
        "parts of speech and dependencies of the captions, CoNLL-U (# text = the caption), in "
        "place of --spacy",
        default=None,
        metavar="FILE",
    )
    spacy: str | None = option(
        TEXT,
        "the spaCy pipeline that tags them (default: en_core_web_trf, as in the paper)",
        default=None,
        metavar="PIPELINE",
    )
    n: int = option(
        whole(1),
        "the number of captions, one an image",
        default=200,
        flags=("-n",),
        metavar="N",
        identity=True,
    )

    @classmethod
    def asked(cls, arguments: argparse.Namespace, *, progress: bool, command: str) -> Self:
        """The reproduction that a command line asks for; ``command`` is what was typed."""
        return cls(
            **{"out": Path("out/reproduce-daam"), **cls.typed(arguments)},
            progress=progress,
            command=command,
        )

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.framework or ()) > 1:
            raise ValueError("the paper's tables are of one framework: name one")
        if self.tags is not None and self.spacy is not None:
            raise ValueError("parts of speech come from --tags or from --spacy, not from both")

    @property
    def annotated(self) -> bool:
        """True if people made the masks: the captions are a folder."""
        return Path(self.captions).is_dir()

    def run(self) -> Reproduction:
        """Draw, judge and write, or what is left of it.

        Raises ValueError as ``compare`` does, and for captions or tags that can't be had.
        """
        out = Path(self.out).resolve()
        spacy = "" if self.tags is not None else self.spacy or "en_core_web_trf"
        tags = "" if self.tags is None else str(Path(self.tags).resolve())
        nouns = Nouns(tags, spacy)
        tagged_by = f",tags={tags}" if tags else f",spacy={spacy}"
        with writable_folder(out), locked(out):
            data = f"coco-gen:{Path(self.captions).resolve()}{tagged_by}"
            masks = self.masks
            if not self.annotated:
                data = f"folder:{self._prompts(out, nouns)}{tagged_by}"
                masks = masks or MASKS
                asks = isinstance(masks, str) and masks.startswith("clipseg:")
                if asks and ",classes=" not in str(masks):
                    # What it is asked for in captions: their nouns.
                    masks = f"{masks},classes={out / 'captions' / 'nouns.txt'}"
            maker = self.masks or (None if self.annotated else MASKS)
            # What made the masks is no row.
            default = {name: one for name, one in SEGMENTERS.items() if one != maker}
            given = {one.name: getattr(self, one.name) for one in fields(Arguments)}
            given |= {
                "methods": [*(self.methods or [METHOD]), WHOLE_IMAGE],
                "metrics": _METRICS,
                "data": data,
                "on_error": "skip",
                "redraw": self.annotated,
                "masks": masks,
                "segmenters": self.segmenters or default,
                "calibration": 0,
                "steps": 1,
                "out": out / "run",
            }
            comparison = compare(**given)
            named = maker if isinstance(maker, str | None) else maker.identity
            found = _found(comparison, named or "made by people", nouns)
            found.write(out)
        return found

    def _prompts(self, out: Path, nouns: Nouns) -> Path:
        """Write the prompts, with the seeds of their noise, as a data set; gives its folder."""
        captions = shuffled(read_captions(self.captions), self.seed)
        if len(captions) < self.n:
            raise ValueError(
                f"{self.captions} has captions for {counted(len(captions), 'image')}, not for "
                f"{self.n}: take -n {len(captions)}"
            )
        taken = captions[: self.n]
        items = [
            {"id": f"{one.image}", "prompt": one.text, "seed": noise_seed(self.seed, one.image)}
            for one in taken
        ]
        words = (token for one in taken for token in nouns.tagged(one.text).tokens)
        classes = sorted({one.text.lower() for one in words if one.tag in ("NOUN", "PROPN")})
        folder = out / "captions"
        content = {
            "items.jsonl": "".join(f"{json.dumps(item)}\n" for item in items),
            "nouns.txt": "".join(f"{name}\n" for name in classes),
        }
        for name, text in content.items():
            path = folder / name
            if path.exists() and path.read_text("utf-8") != text:
                raise ValueError(
                    f"{out} holds a reproduction of other captions ({path} differs): use another "
                    "folder"
                )
        folder.mkdir(exist_ok=True)
        for name, text in content.items():
            write_atomically(folder / name, text.encode())
        return folder


def _found(comparison: Comparison, masks: str, nouns: Nouns) -> Reproduction:
    spreads, overlaps = Spreads(), Overlaps(THRESHOLD)
    rows = [r for r in comparison.table_rows if r.method is not None and r.name != WHOLE_IMAGE]
    # The paper's maps are of all steps: where the first has a row of them besides, it's that one.
    extra = (row for row in rows if row.extra and type(row.method) is type(rows[0].method))
    told = next(extra, rows[0])
    cell = f"{comparison.choices[told.name].variant.cell}.safetensors"
    kept = comparison.out / "maps" / told.framework
    for path in sorted(kept.glob(f"*/{cell}")):
        maps = AttributionMaps.load(path)
        text = nouns.tagged(maps.prompt)
        spreads.add(path.parent.name, text, maps)
        overlaps.add(path.parent.name, text, maps)
    return Reproduction(
        comparison,
        masks,
        _miou(comparison),
        spreads.by_class,
        overlaps,
        spreads.not_placed,
        told.label,
    )


def _miou(comparison: Comparison) -> dict[tuple[str, str], tuple[Estimate, Estimate]]:
    """Of each row and metric the means over words of COCO's classes, and over all."""
    table = pq.read_table(
        comparison.out / "results.parquet",
        columns=["sample", "method", "word", "metric", "value"],
        filters=[("metric", "in", list(_METRICS))],
    )
    values: dict[tuple[str, str], list[tuple[str, str, float]]] = {}
    for one in table.to_pylist():
        key = (one["method"], one["metric"])
        values.setdefault(key, []).append((one["sample"], one["word"].lower(), one["value"]))

    def mean(found: Sequence[tuple[str, str, float]]) -> Estimate:
        ordered = sorted(found)
        samples, scores = [s for s, _, _ in ordered], [v for _, _, v in ordered]
        return mean_over_words(samples, scores, bounds=SHARE)

    rows = [(row.name, metric) for row in comparison.table_rows for metric in _metrics_of(row)]
    return {
        key: (mean([one for one in of if one[1] in CLOSED_VOCABULARY]), mean(of))
        for key in rows
        for of in (values.get(key, []),)
    }
