"""Words and tokens: the right pixels for the right word begin here."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.toys import toy_tokens
from wordlight.attribution.attributor import partition
from wordlight.attribution.methods.noise_difference import without
from wordlight.attribution.word_spans import word_spans
from wordlight.attribution.words import PromptWords, WordKey
from wordlight.backends.scenes.tokenizer import build_tokenizer
from wordlight.backends.tokens import Tokens
from wordlight.backends.torch.tokenizing import tokenize

TOKENIZER = build_tokenizer()


def words_of(prompt: str, *, allow_cut: bool = False) -> PromptWords:
    return PromptWords.of(
        tokenize(SimpleNamespace(tokenizer=TOKENIZER), prompt, allow_cut=allow_cut)
    )


def test_a_word_of_several_tokens_has_them_all() -> None:
    words = words_of("two small triangles, on a gray background.")
    texts = words.tokens.texts
    assert [texts[t] for t in words.find("triangles").tokens] == ["tri", "angle", "s</w>"]
    assert [texts[t] for t in words.find("background").tokens] == ["back", "ground</w>"]
    assert [w.text for w in words.words][:5] == ["two", "small", "triangles", ",", "on"]


def test_words_and_specials_partition_the_context() -> None:
    words = words_of("a red circle above a blue square.")
    positions = sorted(t for player in words.players for t in player.tokens)
    assert positions == list(range(len(words.tokens)))
    assert words.find("<start>").tokens == (0,)
    assert words.tokens.kinds[words.find("<end>").tokens[0]] == "end"
    assert set(words.find("<pad>").tokens) == set(words.tokens.positions("pad"))


@given(st.text(min_size=1, max_size=24))
def test_any_text_is_partitioned(prompt: str) -> None:
    words = words_of(prompt, allow_cut=True)
    positions = sorted(t for player in words.players for t in player.tokens)
    assert len(positions) == len(set(positions))
    assert positions == list(range(len(words.tokens)))
    for word in words.words:
        assert prompt[word.start : word.stop] == word.text
        assert words.find(slice(word.start, word.stop)) is word


def cut_as(prompt: str, *pieces: str) -> PromptWords:
    """A prompt whose tokens are these pieces of it, one after the other."""
    spans, place = [], 0
    for piece in pieces:
        start = prompt.index(piece, place)
        place = start + len(piece)
        spans.append((start, place))
    return PromptWords.of(
        Tokens(
            prompt,
            tuple(range(len(pieces) + 2)),
            ("<start>", *pieces, "<end>"),
            ((0, 0), *spans, (0, 0)),
            ("start", *["text"] * len(pieces), "end"),
        )
    )


def test_marks_of_one_token_are_one_word() -> None:
    """As CLIP's vocabulary has them; five dots are two of its tokens."""
    words = cut_as("a (red)) dog!! ..... and...", *"a ( red )) dog !! ... .. and ...".split())
    texts = [w.text for w in words.words]
    assert texts == ["a", "(", "red", "))", "dog", "!!", "...", "..", "and", "..."]
    assert [w.tokens for w in words.words] == [(k,) for k in range(1, 11)]
    assert words.find("!!").text == words.find("! !").text == "!!"
    assert words.find("dog!!").tokens == (5, 6)
    assert without(words.tokens.prompt, words.find("!!")) == "a (red)) dog ..... and..."
    # The dots of two tokens, however they are asked for, are two words.
    assert words.find(".....").tokens == (7, 8)
    first, second = words.find(("...", 0)), words.find(("...", 1))
    assert (first.tokens, second.tokens) == ((7,), (10,))
    for word in words.words:
        assert words.find((word.text, word.occurrence)) is word
    with pytest.raises(KeyError, match=r"'\.' is not in the prompt"):
        words.find(".")


def test_a_mark_apart_and_one_that_shares_a_token() -> None:
    words = cut_as("wait . .. then ..", *"wait . .. then ..".split())
    # The first three are a text of three marks; two marks are each time the one word.
    assert words.find("...").tokens == (2, 3)
    assert [w.tokens for w in words.occurrences("..")] == [(3,), (5,)]
    assert [w.occurrence for w in words.words] == [0, 0, 0, 0, 1]


@given(st.data())
def test_every_position_once_wherever_the_tokenizer_cuts(data: st.DataObject) -> None:
    prompt = data.draw(st.text("ab_.,!' ", min_size=1, max_size=16).filter(str.strip))
    cuts = data.draw(st.sets(st.integers(1, len(prompt))))
    ends = sorted({0, len(prompt), *cuts})
    pieces = [p for a, b in pairwise(ends) for p in prompt[a:b].split()]
    words = cut_as(prompt, *pieces)
    owned = sorted(t for player in words.players for t in player.tokens)
    assert owned == list(range(len(pieces) + 2))
    # And every mark and letter is of one word.
    letters = [k for word in words.words for k in range(word.start, word.stop) if prompt[k] != " "]
    assert letters == [k for k, letter in enumerate(prompt) if letter != " "]
    for word in words.words:
        assert words.find((word.text, word.occurrence)) is word
        assert words.find(slice(word.start, word.stop)) is word


def test_phrases_occurrences_and_spans() -> None:
    words = PromptWords.of(toy_tokens("a red circle and a blue circle"))
    assert words.find("red circle").tokens == (2, 3)
    assert words.find(("circle", 0)).tokens == (3,)
    assert words.find(("circle", 1)).tokens == (7,)
    assert words.find("BLUE").tokens == (6,)
    assert words.find(slice(2, 12)).tokens == (2, 3)


def test_a_list_of_words_is_one_word_of_several_places() -> None:
    words = PromptWords.of(toy_tokens("a red circle and a blue circle"))
    group = words.find([("circle", 1), "red"])
    assert group.tokens == (2, 7)
    assert group.spans == ((2, 5), (24, 30))
    assert group.text == "red … circle"
    assert (group.start, group.stop) == (2, 30)
    # Words side by side are one span, and alone a phrase.
    assert words.find([slice(0, 5), "blue circle"]).spans == ((0, 5), (19, 30))
    assert words.find([("circle", 0), "red"]) == words.find("red circle")
    assert words.find(["blue"]) == words.find("blue")
    assert words.find([("a", 1), "blue"]) == words.find("a blue")
    assert words.find("blue").spans == ((19, 23),)
    assert words.find("<pad>").spans == ()


def test_a_phrase_has_its_occurrence_however_it_is_named() -> None:
    words = PromptWords.of(toy_tokens("a red circle and a red circle"))
    second = words.find(("red circle", 1))
    assert second.occurrence == 1
    assert words.find(slice(second.start, second.stop)) == second
    assert words.find([("red", 1), ("circle", 1)]) == second


def test_a_list_of_words_that_can_not_be_one() -> None:
    words = PromptWords.of(toy_tokens("a red circle and a blue circle"))
    with pytest.raises(ValueError, match="at least one"):
        words.find([])
    with pytest.raises(ValueError, match="'red circle' overlaps another"):
        words.find(["red", "red circle"])
    with pytest.raises(ValueError, match="<pad> is no text"):
        words.find(["red", "<pad>"])
    with pytest.raises(KeyError, match="'dog' is not in the prompt"):
        words.find(["red", "dog"])
    with pytest.raises(KeyError, match="occurs 2 times"):
        words.find(["red", "circle"])
    with pytest.raises(TypeError, match="holds no list"):
        words.find(["red", ["blue"]])  # type: ignore[list-item]
    # A tuple is a text and an occurrence, and nothing else.
    with pytest.raises(TypeError, match="several as one by a list"):
        words.find(("red", "blue"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="overlaps another"):
        partition(words, [["red", ("circle", 0)], ("circle", 0)])


@given(st.data())
def test_players_partition_the_context_whatever_is_asked_for(data: st.DataObject) -> None:
    letters = st.text("ab .,é", min_size=1, max_size=24)
    words = words_of(data.draw(letters), allow_cut=True)
    # Each word is left alone, or belongs to one of three players.
    chosen = data.draw(
        st.lists(st.integers(-1, 2), min_size=len(words.words), max_size=len(words.words))
    )
    groups = {
        player: [w for w, own in zip(words.words, chosen, strict=True) if own == player]
        for player in set(chosen) - {-1}
    }
    wanted: list[WordKey] = [[slice(w.start, w.stop) for w in own] for own in groups.values()]
    players = partition(words, wanted)
    owned = [t for player in players for t in player.tokens]
    assert sorted(owned) == list(range(len(words.tokens)))
    for key, own in zip(wanted, groups.values(), strict=True):
        player = words.find(key)
        assert player in players
        assert set(player.tokens) == {t for word in own for t in word.tokens}
        # Its spans are its words', and hold no other one.
        inside = [w for w in words.words if any(a <= w.start < b for a, b in player.spans)]
        assert inside == own
    assert len(players) == len(groups) + chosen.count(-1) + len(words.specials)


def test_what_is_not_there_is_said_with_what_is() -> None:
    words = PromptWords.of(toy_tokens("a red circle and a blue circle"))
    with pytest.raises(KeyError, match="'dog' is not in the prompt; its words are a, red, circle"):
        words.find("dog")
    with pytest.raises(KeyError, match="occurs 2 times"):
        words.find("circle")
    with pytest.raises(KeyError, match="no occurrence 2"):
        words.find(("circle", 2))
    with pytest.raises(KeyError, match="not whole words"):
        words.find(slice(2, 4))
    with pytest.raises(TypeError, match="named by text"):
        words.find(3)  # type: ignore[arg-type]
    with pytest.raises(KeyError, match="not in the prompt"):
        words.find("")


def test_a_word_beyond_the_context_was_cut_off() -> None:
    long = "a red circle " * 12 + "and one blue triangle"
    words = words_of(long, allow_cut=True)
    assert words.tokens.cut_at is not None
    with pytest.raises(KeyError, match="'triangle' was cut off"):
        words.find("triangle")


def test_a_word_cut_in_the_middle_is_cut_off() -> None:
    # 28 one-token words leave room for two of the three tokens of "triangles".
    words = words_of("red " * 28 + "triangles", allow_cut=True)
    with pytest.raises(KeyError, match="cut off"):
        words.find("triangles")
    assert [words.tokens.texts[t] for t in words.find("<cut>").tokens] == ["tri", "angle"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("赤い猫と青い犬", list("赤い猫と青い犬")),
        ("一只红色的猫。Tシャツ", list("一只红色的猫。Tシャツ")),
        ("red cat 猫 red", ["red", "cat", "猫", "red"]),
        ("빨간 고양이", ["빨간", "고양이"]),
        ("แมวสีแดง", ["แ", "ม", "ว", "สี", "แ", "ด", "ง"]),
        ("हिन्दी बिल्ली", ["हिन्दी", "बिल्ली"]),
        ("cafe\u0301 cat's", ["cafe\u0301", "cat's"]),
        ("👩‍🚀🐱🏽 1️⃣", ["👩‍🚀", "🐱🏽", "1️⃣"]),
        ("🇯🇵🇩🇪!", ["🇯🇵", "🇩🇪", "!"]),
        ("'quoted' dogs' don’t", ["'", "quoted", "'", "dogs", "'", "don’t"]),
        ("a_b, c-d", ["a_b", ",", "c", "-", "d"]),
    ],
)
def test_words_of_any_script(text: str, words: list[str]) -> None:
    assert [text[start:stop] for start, stop in word_spans(text)] == words


def test_text_without_blanks_is_asked_for_by_characters() -> None:
    words = words_of("赤い猫と青い犬")
    assert words.find("猫").tokens == words.find(slice(2, 3)).tokens
    assert words.find("青い犬").spans == ((4, 7),)
    assert words.find([("い", 0), "猫"]).text == "い猫"
    with pytest.raises(KeyError, match=r"'鳥' is not in the prompt; .*as slice\(0, 2\)"):
        words.find("鳥")


def test_a_part_of_what_is_one_token_is_refused_with_the_whole() -> None:
    words = cut_as("赤い猫です", "赤い", "猫", "です")
    assert [w.text for w in words.words] == ["赤い", "猫", "です"]
    assert words.find("赤い猫").tokens == (1, 2)
    with pytest.raises(KeyError, match=r"'い猫' is not .* whole words, but as a part of '赤い猫'"):
        words.find("い猫")
    with pytest.raises(KeyError, match=r"'circ' is not .* but as a part of 'circle'"):
        words_of("a red circle").find("circ")


def test_a_token_of_blanks_is_the_next_words() -> None:
    words = PromptWords.of(
        Tokens(
            "a  cat ",
            (1, 2, 3, 4),
            ("a", "Ġ", "Ġcat", "Ġ"),
            ((0, 1), (1, 2), (2, 6), (6, 7)),
            ("text",) * 4,
        )
    )
    assert [(w.text, w.tokens) for w in words.words] == [("a", (0,)), ("cat", (1, 2, 3))]


def test_a_composed_letter_is_found_as_two_code_points() -> None:
    words = words_of("a cafe\u0301 here")
    assert words.find("caf\u00e9") == words.find("cafe\u0301")
