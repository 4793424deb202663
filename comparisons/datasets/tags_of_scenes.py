"""Parts of speech and dependencies of the embedded models' prompts, as their grammar makes them."""

from __future__ import annotations

from wordlight.backends.prompts import GROUND, AskedScene, same_noun
from wordlight.comparisons.datasets.tagged_text import TaggedText, TaggedToken

#: How words depend on the noun that their phrase ends with, by their part of speech.
_ON_NEXT_NOUN = {
    "DET": "det", "NUM": "nummod", "ADJ": "amod", "ADP": "case", "CCONJ": "cc", "PUNCT": "punct"
}  # fmt: skip


def tag_scene(scene: AskedScene) -> TaggedText:
    """The words of a scene's prompt with their heads and relations, after Universal Dependencies.

    The first noun is the root. The nouns of ``and`` and of a list are its conjuncts (``conj``).
    In other relations the second modifies the first (``nmod``). ``left``, ``right`` and ``front``
    stand between: ``circle``, ``left``, ``square``. The ground modifies the first noun. Of a noun
    of several words (``hot dog``) the last is the head (``compound``).
    """
    words = scene.words
    nouns = [
        index
        for index, word in enumerate(words)
        if word.tag == "NOUN" and not (words[index + 1 :] and same_noun(word, words[index + 1]))
    ]
    root = nouns[0]
    spatial = scene.relation not in (None, "and")
    tokens = []
    for index, word in enumerate(words):
        head: int | None
        if index == root:
            head, relation = None, "root"
        elif index not in nouns:
            # The last full stop stands before no noun, and is the root's.
            head = next((noun for noun in nouns if noun > index), root)
            relation = "compound" if word.tag == "NOUN" else _ON_NEXT_NOUN[word.tag]
        else:
            before = nouns[nouns.index(index) - 1]
            head = before if words[before].referent is None else root
            joined = spatial or word.referent in (None, GROUND)
            relation = "nmod" if joined else "conj"
        tokens.append(TaggedToken(word.text, word.start, word.stop, word.tag, head, relation))
    return TaggedText(scene.prompt, tuple(tokens))
