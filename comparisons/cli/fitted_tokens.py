"""Tokens that ``wordlight attribute --fit`` fits to masks of the image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wordlight.attribution.attributor import TextImageAttributor
from wordlight.attribution.methods.open_vocabulary import OpenVocabulary
from wordlight.attribution.methods.token_fitting import fit_token, save_tokens
from wordlight.attribution.words import Word
from wordlight.backends.trajectory import Trajectory
from wordlight.comparisons.cli.given_picture import GivenPicture
from wordlight.comparisons.datasets.files import read_mask
from wordlight.comparisons.datasets.judged import resized_mask


@dataclass(frozen=True, eq=False)
class FittedTokens:
    """Masks by the words whose tokens are fitted to them."""

    masks: dict[str, npt.NDArray[np.bool_]]

    @classmethod
    def of(cls, asked: Iterable[str], methods: Sequence[str]) -> FittedTokens:
        """Read ``WORD=MASK`` pairs; raises ValueError for anything else, a word that is given
        twice, or where no method takes tokens."""
        masks: dict[str, npt.NDArray[np.bool_]] = {}
        for pair in asked:
            word, _, file = pair.rpartition("=")
            if not (word.strip() and file):
                raise ValueError(f"--fit takes WORD=MASK, such as dog=dog.png, not {pair!r}")
            if word in masks:
                raise ValueError(f"--fit names {word!r} twice")
            masks[word] = read_mask(Path(file))
        if masks and OpenVocabulary.name not in methods:
            raise ValueError(
                f"--fit is for {OpenVocabulary.name}: ask for it with --method "
                f"{OpenVocabulary.name}"
            )
        return cls(masks)

    def check_words(self, shown: Sequence[Word]) -> None:
        """Raise ValueError for a word that isn't asked about."""
        for word in self.masks:
            if not any(one.matches(word) for one in shown):
                raise ValueError(f"--fit {word}=...: ask for the word, too, with --word {word!r}")

    def fitted(
        self,
        trajectory: Trajectory,
        picture: GivenPicture | None,
        attributors: Sequence[TextImageAttributor],
        file: Path,
    ) -> list[TextImageAttributor]:
        """Return the methods, open vocabulary with the tokens that are fitted, at its own steps and
        layers, and write these into a file.

        Raises ValueError for a mask of another size than the image's.
        """
        size = trajectory.image.shape[:2]
        whole = size if picture is None else picture.pixels.shape[:2]
        for word, mask in self.masks.items():
            if mask.shape != whole:
                raise ValueError(
                    f"the mask for {word!r} is {mask.shape[1]}x{mask.shape[0]} pixels, and the "
                    f"image {whole[1]}x{whole[0]}"
                )
        masks = {word: resized_mask(mask, size) for word, mask in self.masks.items()}

        def with_tokens(method: OpenVocabulary) -> OpenVocabulary:
            tokens = {
                word: fit_token(
                    method.backend, [(trajectory, mask)], steps=method.steps, layers=method.layers
                )
                for word, mask in masks.items()
            }
            save_tokens(file, tokens, method.backend.model_id)
            return method.with_options(tokens={**(method.settings()["tokens"] or {}), **tokens})

        return [with_tokens(m) if isinstance(m, OpenVocabulary) else m for m in attributors]
