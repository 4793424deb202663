"""COCO-Gen and Unreal-Gen: the folders that DAAM's annotated images were released in."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from wordlight.backends.segmenters.classes import THINGS
from wordlight.backends.segmenters.matching import places, spellings
from wordlight.comparisons.datasets.dataset import (
    AnnotatedImage,
    Annotation,
    Dataset,
    DatasetError,
    ListedItem,
    OnError,
)
from wordlight.comparisons.datasets.files import inside, read_alpha_mask, read_image, read_text
from wordlight.comparisons.datasets.nouns import Nouns

PROMPT, IMAGE, SEED, MASK = "prompt.txt", "output.png", "seed.txt", ".gt.png"


class CocoGen(Dataset):
    """A folder an image: ``prompt.txt``, ``output.png``, ``seed.txt``, ``<word>.gt.png``.

    The mask of a word is where its file's alpha channel isn't zero. A word that the prompt has
    several times has one mask, of all it names, and the map of all its places together.
    Tang et al., What the DAAM, arXiv 2210.04885.

    Args:
        root: the folder of folders.
        words: ``"all"`` annotated words (the paper's mIoU over an open vocabulary), or the ones
            that name one of COCO's 80 classes (``"coco80"``, its mIoU80).
        unannotated: whether to list images without any mask, for a segmenter.
        tags, spacy: the source of prompts' parts of speech (see ``Nouns``). A word is then scored
            where it is a noun alone.
    """

    format = "coco-gen"

    def __init__(
        self,
        root: str | Path,
        *,
        words: str = "all",
        unannotated: bool = False,
        tags: str = "",
        spacy: str = "",
        on_error: OnError = "raise",
    ) -> None:
        super().__init__(root, on_error=on_error)
        if words not in ("all", "coco80"):
            raise ValueError(f"words must be 'all' or 'coco80', not {words!r}")
        self.words = words
        self.unannotated = unannotated
        self._nouns = Nouns(tags, spacy)
        self.tags, self.spacy = tags, self._nouns.release
        self._known = {form for name in THINGS for form in spellings(name)}

    @classmethod
    def recognises(cls, place: Path) -> bool:
        return place.is_dir() and any(
            (path / "prompt.txt").is_file() for path in place.iterdir() if path.is_dir()
        )

    def _list(self) -> Iterable[ListedItem]:
        if not self.root.is_dir():
            raise DatasetError(f"{self.root} is no folder")
        for name in sorted(path.name for path in self.root.iterdir()):
            # Outputs of other programs may lie beside them.
            if name.startswith(".") or not (self.root / name).is_dir():
                continue
            listed = self._attempt(name, lambda name=name: self._listed(name))  # type: ignore[misc]
            if listed is not None:
                yield listed

    def _listed(self, name: str) -> ListedItem | None:
        folder = inside(self.root, name)
        if not (folder / PROMPT).exists():
            raise DatasetError(f"{folder} has no {PROMPT}")
        prompt = read_text(inside(self.root, f"{name}/{PROMPT}"))
        words = self._masks(folder)
        if not (self.unannotated or any(self._may_be_scored(prompt, word) for word in words)):
            return None
        return ListedItem(name, prompt.lower())

    def _may_be_scored(self, prompt: str, word: str) -> bool:
        # A mask of no word of the prompt is listed: reading it says what is wrong.
        found = places(prompt, word)
        return not found or bool(self.named_in(prompt, found))

    def named_in(self, prompt: str, places: Iterable[slice]) -> tuple[slice, ...]:
        return self._nouns.places_of_nouns(prompt, places)

    def _masks(self, folder: Path) -> dict[str, Path]:
        words = {
            path.name.removesuffix(MASK).lower(): path
            for path in sorted(folder.iterdir())
            if path.name.endswith(MASK)
        }
        return {
            word: path for word, path in words.items() if self.words == "all" or word in self._known
        }

    def _read(self, sample: str) -> AnnotatedImage:
        folder = inside(self.root, sample)
        prompt = read_text(inside(self.root, f"{sample}/{PROMPT}"))
        image = read_image(inside(self.root, f"{sample}/{IMAGE}"))
        annotations = []
        for word, path in self._masks(folder).items():
            found = places(prompt, word)
            if not found:
                raise DatasetError(f"{path} is the mask of {word!r}, which {prompt!r} doesn't have")
            if not (found := self.named_in(prompt, found)):
                continue
            mask = read_alpha_mask(inside(self.root, f"{sample}/{path.name}"))
            annotations.append(Annotation(found[0] if len(found) == 1 else list(found), mask))
        masks = tuple(annotations) if self._masks(folder) else None
        return AnnotatedImage(sample, prompt, image, masks, self._seed(sample))

    def _seed(self, sample: str) -> int | None:
        path = inside(self.root, f"{sample}/{SEED}")
        if not path.exists():
            return None
        text = read_text(path)
        if not (text.isascii() and text.isdigit()):
            raise DatasetError(f"{path} should hold a seed, a whole number, not {text[:40]!r}")
        return int(text)

    def _files(self, sample: str) -> Iterable[Path]:
        own = sorted(path for path in (self.root / sample).iterdir() if path.is_file())
        return (*own, *self._nouns.files)
