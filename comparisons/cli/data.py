"""``wordlight data``: make sets of images to annotate, and look whether one is in order."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

from wordlight.backends.arrays_file import write_atomically
from wordlight.backends.progress_bar import ProgressBar
from wordlight.backends.prompted_data import DATA
from wordlight.backends.prompts import check_split
from wordlight.comparisons.cli.arguments import (
    Commands,
    add_command,
    add_count,
    add_model,
    add_output,
    add_seed,
)
from wordlight.comparisons.runs.options import ModelOptions
from wordlight.comparisons.store.output_folder import writable_folder
from wordlight.comparisons.wording import counted

#: Doubtful masks that are named; more are counted.
_MOST_NAMED = 10

_MAKE_EPILOG = """\
Writes a folder an image: prompt.txt, output.png, seed.txt. Annotated, it has <word>.gt.png too,
with the word's mask in the alpha channel, and is read as coco-gen:FOLDER.

coco-gen draws captions as they are. unreal-gen replaces their nouns and adjectives by others of all
captions first; parts of speech come from a CoNLL-U file (# text = the caption), or from spaCy.

Run again, it goes on where it was stopped; with a larger -n it adds images.

examples:
  wordlight data make coco-gen --captions captions_val2014.json -n 200 -o out/coco-gen
  wordlight data make unreal-gen --captions captions_val2014.json --tags captions.conllu -o out/u
"""

_PROMPTS_EPILOG = """\
Writes prompts.txt, a prompt a line, and prompts.conllu, their parts of speech and dependencies as
their grammar makes them. They are those of `wordlight compare --data scenes` or `things`, for
commands that take captions.

examples:
  wordlight data prompts things -n 200 -o out/prompts
  wordlight data make coco-gen --captions out/prompts/prompts.txt --model things-dit -o out/set
"""

_CHECK_EPILOG = """\
Says how many items there are and which split each is of, how many words have a mask, and what is
malformed, and warns of masks that cover nearly all or nothing of an image. --sheet shows the images
with their masks, which is how a wrong channel, palette or size is seen. Formats, told by the layout
where they aren't said (see docs/datasets.md):

  coco:FOLDER[,subset=val2017][,kind=instances|stuff|panoptic]
  coco-gen:FOLDER[,words=all|coco80][,unannotated=yes]
  folder:FOLDER                      items.jsonl or .parquet files, images and masks of your own
  imagenet-segmentation:FILE,names=FILE[,prompt=TEMPLATE]
  rendered-scenes[,test=SPLIT], rendered-things[,test=SPLIT]
  voc:FOLDER[,subset=val][,prompt=TEMPLATE][,classes=FILE]

coco, coco-gen and folder take spacy=PIPELINE or tags=FILE (CoNLL-U): only nouns are scored then.

examples:
  wordlight data check my-images --sheet sheet.png
  wordlight data check coco-gen:out/set,unannotated=yes --masks things --sheet sheet.png
  wordlight data check coco:coco2017,kind=panoptic --skip-malformed
"""


def add_to(commands: Commands, line: str) -> None:
    """Add the command, with its line in the overview."""
    parser = add_command(commands, "data", line)
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    make = add_command(actions, "make", "draw captions, ready for annotation", _MAKE_EPILOG)
    make.add_argument(
        "kind",
        choices=("coco-gen", "unreal-gen"),
        help="the kind of set: captions as they are, or with exchanged words",
    )
    make.add_argument(
        "--captions",
        type=Path,
        required=True,
        metavar="FILE",
        help="COCO's captions (JSON), or a text file with a caption a line",
    )
    tags = make.add_mutually_exclusive_group()
    tags.add_argument(
        "--tags", type=Path, metavar="FILE", help="the captions' parts of speech (CoNLL-U)"
    )
    tags.add_argument(
        "--spacy",
        metavar="PIPELINE",
        help="the spaCy pipeline that tags captions, such as en_core_web_sm",
    )
    add_count(make, 32)
    add_seed(make, "order, words and noise")
    make.add_argument(
        "-o", "--out", type=Path, required=True, metavar="FOLDER", help="the folder for the set"
    )
    add_model(make)
    add_output(make, bars="progress bar")
    make.set_defaults(run=run_make)
    prompts = add_command(
        actions, "prompts", "write prompts that embedded models know", _PROMPTS_EPILOG
    )
    prompts.add_argument("kind", choices=tuple(DATA), help="the prompts' data")
    prompts.add_argument("--split", default="test", help="the prompts' split (default: test)")
    add_count(prompts, 200)
    prompts.add_argument(
        "-o", "--out", type=Path, required=True, metavar="FOLDER", help="the folder for the files"
    )
    add_output(prompts, bars="progress bar")
    prompts.set_defaults(run=run_prompts)
    check = add_command(actions, "check", "read a data set from end to end", _CHECK_EPILOG)
    check.add_argument("data", metavar="DATA", help="FORMAT:PATH, or a path; see docs/datasets.md")
    check.add_argument(
        "--skip-malformed", action="store_true", help="count malformed items and go on"
    )
    check.add_argument(
        "--sheet",
        type=Path,
        metavar="FILE",
        help="write the first images with their masks to this PNG",
    )
    check.add_argument(
        "--masks",
        metavar="SEGMENTER",
        help="what makes masks of images without, to be looked at: as compare --masks takes it",
    )
    add_output(check, bars="progress bar")
    check.set_defaults(run=run_check)


def run_make(arguments: argparse.Namespace) -> None:
    """Draw what isn't drawn yet."""
    from wordlight.comparisons.datasets.making import make, read_captions, shuffled, unreal_captions
    from wordlight.comparisons.datasets.tagged_text import read_conllu, tag_by_spacy

    if arguments.kind == "coco-gen" and (arguments.tags or arguments.spacy):
        raise ValueError("coco-gen draws captions as they are: --tags and --spacy are unreal-gen's")
    if arguments.kind == "unreal-gen" and not (arguments.tags or arguments.spacy):
        raise ValueError(
            "unreal-gen replaces nouns and adjectives: say which words are, as --tags FILE "
            "(CoNLL-U) or --spacy PIPELINE"
        )
    captions = shuffled(read_captions(arguments.captions), arguments.seed)
    if arguments.kind == "unreal-gen":
        tagged = (
            read_conllu(arguments.tags)
            if arguments.tags
            else tag_by_spacy([one.text for one in captions], arguments.spacy)
        )
        captions = unreal_captions(captions, tagged, arguments.seed)
    options = ModelOptions.of(arguments)
    backend = options.load()
    with ProgressBar[object](
        desc="drawing images", total=arguments.n, unit="images", disable=arguments.quiet
    ) as bar:
        made = make(
            captions,
            backend,
            arguments.out,
            arguments.n,
            seed=arguments.seed,
            kind=arguments.kind,
            drawn_with=options.identity(),
            on_image=bar.update,
        )
    for reason in made.left_out:
        print(f"wordlight: left out: {reason}", file=sys.stderr)
    facts = {"images": made.there, "drawn": made.drawn, "left_out": len(made.left_out)}
    if arguments.json:
        print(json.dumps(facts))
    else:
        print(f"{counted(made.there, 'image')} in {arguments.out}, {made.drawn} of them drawn now")


def run_prompts(arguments: argparse.Namespace) -> None:
    """Write the prompts of a split, and their tags."""
    from wordlight.comparisons.datasets.tagged_text import as_conllu
    from wordlight.comparisons.datasets.tags_of_scenes import tag_scene

    data = DATA[arguments.kind]
    check_split(arguments.split, data.splits)
    indices = ProgressBar(
        range(arguments.n), desc="writing prompts", unit="prompts", disable=arguments.quiet
    )
    scenes = [data.rendered(arguments.split, index).scene for index in indices]
    with writable_folder(arguments.out) as out:
        lines = "".join(f"{scene.prompt}\n" for scene in scenes)
        tags = "".join(as_conllu(tag_scene(scene)) for scene in scenes)
        write_atomically(out / "prompts.txt", lines.encode())
        write_atomically(out / "prompts.conllu", tags.encode())
    if arguments.json:
        print(json.dumps({"prompts": arguments.n}))
    else:
        print(f"{counted(arguments.n, 'prompt')} in {arguments.out}")


def run_check(arguments: argparse.Namespace) -> None:
    """Read every item, and say what there is."""
    from wordlight.comparisons.datasets import open_dataset
    from wordlight.comparisons.datasets.images.dataset_images import split_of_listing
    from wordlight.comparisons.results.contact_sheet import ContactSheet, doubtful_masks
    from wordlight.comparisons.rows.supervised import mask_maker

    if arguments.sheet is not None and arguments.sheet.suffix.lower() != ".png":
        raise ValueError(f"the sheet is a PNG: call it {arguments.sheet.with_suffix('.png')}")
    dataset = open_dataset(arguments.data, on_error="skip" if arguments.skip_malformed else "raise")
    words: Counter[str] = Counter()
    doubtful: list[str] = []
    maker = mask_maker(arguments.masks, None)
    sheet = ContactSheet()
    items = bare = 0
    total = len(dataset)
    splits = {
        split: len(split_of_listing(dataset.listing, split)) for split in ("calibration", "test")
    }
    for one in ProgressBar(dataset.listing, desc="reading", unit="items", disable=arguments.quiet):
        item = dataset.attempt(one.sample)
        if item is None:
            continue
        items += 1
        bare += item.annotations is None
        if maker is not None and item.annotations is None and item.image is not None:
            found, _ = maker.annotate(item.prompt, item.image)
            item = replace(item, annotations=tuple(found))
        doubtful += doubtful_masks(item)
        sheet.add(item)
        words.update(annotation.category for annotation in item.annotations or ())
    for reason in dataset.skipped.values():
        print(f"wordlight: skipped: {reason}", file=sys.stderr)
    for line in doubtful[:_MOST_NAMED]:
        print(f"wordlight: warning: {line}", file=sys.stderr)
    if len(doubtful) > _MOST_NAMED:
        print(f"wordlight: warning: {len(doubtful) - _MOST_NAMED} more such", file=sys.stderr)
    if arguments.sheet is not None:
        write_atomically(arguments.sheet, sheet.png())
    facts = {
        "format": dataset.format,
        "listed": total,
        "splits": splits,
        "read": items,
        "without_masks": bare,
        "words": dict(words),
        "skipped": len(dataset.skipped),
        "doubtful_masks": len(doubtful),
    }
    if arguments.json:
        print(json.dumps(facts))
        return
    kinds = ", ".join(f"{count} of {kind}" for kind, count in sorted(words.items())) or "none"
    print(
        f"{dataset.format}: {counted(items, 'item')}, {bare} of them without masks; words with "
        f"a mask: "
        f"{kinds}; skipped: {len(dataset.skipped)}; for calibration {splits['calibration']}, "
        f"to test on {splits['test']}" + (f"; doubtful masks: {len(doubtful)}" if words else "")
    )
