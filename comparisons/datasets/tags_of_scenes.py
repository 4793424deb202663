"""Parts of speech and dependencies of the scenes' prompts, as their grammar makes them."""

from __future__ import annotations

from wordlight.backends.prompts import GROUND
from wordlight.backends.scenes.grammar import Scene
from wordlight.comparisons.datasets.tagged_text import TaggedText, TaggedToken

#: How words depend on the noun that their phrase ends with, by their part of speech.
_ON_NEXT_NOUN = {
    "DET": "det", "NUM": "nummod", "ADJ": "amod", "ADP": "case", "CCONJ": "cc", "PUNCT": "punct"
}  # fmt: skip


def tag_scene(scene: Scene) -> TaggedText:
    """The words of a scene's prompt with their heads and relations, after Universal Dependencies.

    The first noun is the root. The nouns of ``and`` and of a list are its conjuncts (``conj``);
    in other relations the second modifies the first (``nmod``), ``left`` and ``right`` standing
    between: ``circle``, ``left``, ``square``. The ground modifies the first noun.
    """
    words = scene.words
    nouns = [index for index, word in enumerate(words) if word.tag == "NOUN"]
    root = nouns[0]
    spatial = scene.relation not in (None, "and")
    tokens = []
    for index, word in enumerate(words):
        head: int | None
        if index == root:
            head, relation = None, "root"
        elif word.tag != "NOUN":
            # The last full stop stands before no noun, and is the root's.
            head = next((noun for noun in nouns if noun > index), root)
            relation = _ON_NEXT_NOUN[word.tag]
        elif word.referent == GROUND or word.referent is None:
            head, relation = root, "nmod"
        else:
            between = [noun for noun in nouns if words[noun].referent is None]
            head = between[0] if between else root
            relation = "nmod" if spatial else "conj"
        tokens.append(TaggedToken(word.text, word.start, word.stop, word.tag, head, relation))
    return TaggedText(scene.prompt, tuple(tokens))
