"""The tokenizer of ``things``: CLIP's byte-pair encoding with a vocabulary of the grammar's words.

Compounds and most plurals are two or three tokens, as rare words are in the real models.
"""

from __future__ import annotations

from wordlight.backends.things.grammar import vocabulary
from wordlight.backends.word_pieces import WordPieces

CONTEXT = 32
#: Compounds that are cut in two; every other word is one token, and a plural its singular and "s".
_COMPOUNDS = {
    word.replace("+", ""): tuple(word.split("+"))
    for word in (
        "air+plane back+ground back+pack basket+ball broc+coli ele+phant hand+bag "
        "key+board lap+top mini+bus motor+cycle sand+wich skate+board suit+case "
        "tooth+brush umb+rella"
    ).split()
}


def _pieces(words: frozenset[str]) -> tuple[tuple[str, ...], ...]:
    """Return every word of several letters as its pieces, short ones first."""
    pieces: dict[str, tuple[str, ...]] = {}
    for word in sorted((word for word in words if len(word) > 1), key=lambda w: (len(w), w)):
        singular = word.removesuffix("s")
        is_plural = singular in pieces and len(singular) > 2
        pieces[word] = (*pieces[singular], "s") if is_plural else _COMPOUNDS.get(word, (word,))
    return tuple(pieces.values())


TOKENS = WordPieces(_pieces(vocabulary()), CONTEXT)
