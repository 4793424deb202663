"""Words that a model was trained on, where they are known, and a warning of others."""

from __future__ import annotations

import re
import warnings
from functools import cache
from pathlib import Path
from unicodedata import category

from wordlight.backends.embedded import EMBEDDED

#: Beside a model's ``model_index.json``: the words of its training prompts, one a line. It has no
#: ending, so that it is none of the files that make the model's revision.
WORDS_FILE = "WORDS"
#: How many known words a warning lists.
_LISTED = 60
_WORD = re.compile(r"\w+(?:['’-]\w+)*")


class UnknownWordsWarning(UserWarning):
    """A prompt has words that the model was never trained on."""


def known_words(model_id: str) -> frozenset[str] | None:
    """Return the lower-case words that a model was trained on, or None where they aren't known.

    They are known of the embedded models and of any folder with a ``WORDS``.
    """
    file = EMBEDDED.get(model_id, Path(model_id)) / WORDS_FILE
    try:
        return _read(file) if file.is_file() else None
    except (OSError, ValueError):  # no path at all, or a file that is no text
        return None


@cache
def _read(file: Path) -> frozenset[str]:
    return frozenset(file.read_text(encoding="utf-8").lower().split())


def unknown_words(model_id: str, prompt: str) -> tuple[str, ...]:
    """Return the words of a prompt that the model was never trained on, each once, in order.

    Empty where the model's words aren't known.

    >>> unknown_words("scenes", "a red dog, and a Dog on a bench.")
    ('dog', 'bench')
    """
    known = known_words(model_id)
    if known is None:
        return ()
    words = [word.lower() for word in _WORD.findall(prompt)]
    # Symbols such as emoji say something too, and characters that can't be seen are tokens that no
    # training prompt has; marks of punctuation say nothing.
    symbols = [one for one in prompt if _is_symbol(one)]
    return tuple(dict.fromkeys(word for word in (*words, *symbols) if word not in known))


def _is_symbol(character: str) -> bool:
    kind = category(character)[0]
    return (kind == "S" and ord(character) > 127) or (kind == "C" and not character.isspace())


def unknown_words_sentence(model_id: str, prompt: str) -> str | None:
    """Return a sentence that names a prompt's unknown words.

    None where every word is known, or the model's words aren't.

    >>> unknown_words_sentence("scenes", "a red dog").partition(":")[0]
    "scenes was never trained on the word 'dog'"
    """
    words = unknown_words(model_id, prompt)
    if not words:
        return None
    plural = "s" if len(words) > 1 else ""
    return (
        f"{model_id} was never trained on the word{plural} {', '.join(map(repr, words))}: it can't "
        "draw what that says, and such maps mean nothing"
    )


def unknown_words_message(model_id: str, prompt: str) -> str | None:
    """Return a sentence that names a prompt's unknown words and lists the known ones.

    None where every word is known, or the model's words aren't.
    """
    sentence = unknown_words_sentence(model_id, prompt)
    if sentence is None:
        return None
    known = sorted(known_words(model_id) or ())
    listed = ", ".join(known[:_LISTED])
    more = f", and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
    return f"{sentence}. It knows: {listed}{more}"


def warn_of_unknown_words(model_id: str, prompt: str, stacklevel: int = 2) -> None:
    """Warn with an ``UnknownWordsWarning`` where a prompt has words that the model doesn't know."""
    message = unknown_words_message(model_id, prompt)
    if message is not None:
        warnings.warn(message, UnknownWordsWarning, stacklevel=stacklevel + 1)
