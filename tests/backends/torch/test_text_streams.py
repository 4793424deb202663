"""Words on every text encoder, held against what the encoders of tiny pipelines are given."""

from types import SimpleNamespace

import pytest
import torch

from wordlight.attribution.words import PromptWords
from wordlight.backends.tokens import PromptTooLongError, Tokens
from wordlight.backends.torch.tiny import TINY, build_tiny, draw_tiny
from wordlight.backends.torch.tokenizing import tokenize

PROMPT = 'a red circle says "HI", 2 triangles & 赤い猫'
#: Where ``encode_prompt`` returns the second stream.
SECOND = {"hidream": 2}
#: Pipelines that encode the negative prompt in the same batch, before the prompt.
ALONE = {"prx": {"guidance_scale": 1.0}}


class Encoders:
    """What a pipeline's text encoders were given and what they made of it, and its embeddings."""

    def __init__(self, pipe):
        self.pipe, self.runs, self.encoded, self.options = pipe, [], None, None
        names = [n for n in pipe.components if n.startswith("text_encoder")]
        for module in (getattr(pipe, name) for name in names):
            if module is not None:
                module.register_forward_hook(self.after, with_kwargs=True)
        name = "encode_prompt" if hasattr(pipe, "encode_prompt") else "_encode_prompt"
        own = getattr(pipe, name)

        def encode_prompt(*args, **kwargs):
            result = own(*args, **kwargs)
            if self.encoded is None:
                self.encoded, self.options = result, kwargs
            return result

        setattr(pipe, name, encode_prompt)

    def after(self, module, args, kwargs, output):
        ids = kwargs.get("input_ids", args[0] if args else None)
        found = [*(output.hidden_states or ()), output[0]]
        found.append(getattr(output, "last_hidden_state", None))
        states = [s for s in found if s is not None and s.ndim == 3 and len(s) == len(ids)]
        self.runs.append((ids, states))

    def ids_of(self, rows):
        """Each row's token id, found by its values among all that the encoders gave out; None for
        a row of zeros or one that is nowhere."""
        return [self._id_of(row) for row in rows]

    def _id_of(self, row):
        for ids, states in self.runs:
            for state in (s for s in states if s.shape[-1] <= len(row)):
                at = (state[0] == row[: state.shape[-1]]).all(-1).nonzero()
                if len(at):
                    return int(ids[0, at[0, 0]])
        return None


@pytest.mark.parametrize("family", TINY)
def test_tokens_are_those_behind_the_embeddings(family):
    """Every position's id is that of the token whose state stands there in the embeddings."""
    pipe = build_tiny(family)
    encoders = Encoders(pipe)
    draw_tiny(family, pipe, PROMPT, num_inference_steps=1, **ALONE.get(family, {}))
    tokens = tokenize(pipe, PROMPT, options=encoders.options)
    rows = encoders.encoded[0]
    rows = rows if family in ("instruct-pix2pix", "ernie-image") else rows[0]
    # Krea's layers stand side by side.
    rows = rows.flatten(1)
    if family in SECOND:
        second = encoders.encoded[SECOND[family]]
        rows = torch.cat([rows, second[-1, 0] if second.ndim == 4 else second[0]])
    assert len(rows) == len(tokens)
    found = encoders.ids_of(rows)
    for place, own in enumerate(found):
        if own is None:
            assert tokens.kinds[place] == "pad"
            assert not rows[place].any()
        else:
            assert own == tokens.ids[place], (place, tokens.texts[place])


@pytest.mark.parametrize("family", TINY)
def test_words_are_found_whatever_the_tokenizer(family):
    words = PromptWords.of(tokenize(build_tiny(family), PROMPT))
    owned = sorted(t for player in words.players for t in player.tokens)
    assert owned == list(range(len(words.tokens)))
    # PixArt leaves this mark out, where what it cleans captions with is installed.
    left_out = {"&"} if family == "pixart-sigma" else set()
    # GLM-Image's denoiser is given quoted text alone.
    read = "HI" if family == "glm-image" else 'a red circle says " HI " , 2 triangles &'
    assert [w.text for w in words.words if w.text.isascii() and w.text not in left_out] == [
        word for word in read.split() if word not in left_out
    ]
    texts = words.tokens.texts
    for word in words.words:
        letters = "".join(texts[t] for t in word.tokens).lower()
        if word.text.isascii() and word.text.isalnum():
            assert word.text.lower() in letters.replace("</w>", "").replace("▁", "").replace(
                "Ġ", ""
            ).replace("</s>", "")
    if family in ("prx", "pixart-sigma", "glm-image"):
        # These leave such characters out, or what isn't quoted.
        return
    # Text without blanks: a character is asked for, or several.
    assert words.find("赤い猫").text == "赤い猫"
    assert set(words.find("猫").tokens) < set(words.find("赤い猫").tokens)


def test_what_stands_round_the_prompt_has_a_name():
    tokens = tokenize(build_tiny("z-image"), "a cat")
    assert [tokens.texts[i] for i in tokens.positions("text")] == ["a", "Ġcat"]
    words = PromptWords.of(tokens)
    before = [tokens.texts[i] for i in words.find("<template>").tokens][:3]
    assert before == ["<|im_start|>", "user", "Ċ"]
    gemma = PromptWords.of(tokenize(build_tiny("lumina-2"), "a cat"))
    assert gemma.find("<start>").tokens == (0,)
    assert len(gemma.find("<template>").tokens) > 50
    assert len(gemma.tokens) == 256


def test_several_streams_are_one_set_of_words():
    tokens = tokenize(build_tiny("sd3"), "a red circle")
    assert [tuple(s) for s in tokens.streams] == [("clip", 0, 77, None), ("t5", 77, 333, None)]
    # CLIP: <start> a red circle <end>; T5: ▁ a ▁red ▁circle </s>.
    both = PromptWords.of(tokens)
    assert [w.tokens for w in both.words] == [(1, 77, 78), (2, 79), (3, 80)]
    assert both.find("<end>").tokens == (4, 81)
    t5 = PromptWords.of(tokens.only("t5"))
    assert [w.tokens for w in t5.words] == [(77, 78), (79,), (80,)]
    assert t5.find("<other>").tokens == tuple(range(77))
    assert Tokens.from_json(tokens.to_json()) == tokens
    with pytest.raises(ValueError, match="no stream 'bert': there are clip, t5"):
        tokens.only("bert")
    with pytest.raises(ValueError, match="no stream 't5': one encoder reads the prompt"):
        tokenize(build_tiny("sd"), "a").only("t5")


def test_a_prompt_that_one_encoder_cuts_and_the_other_holds():
    prompt = " ".join(["red"] * 90 + ["circle"])
    tokens = tokenize(build_tiny("sd3"), prompt)
    assert tokens.cut_at is None
    words = PromptWords.of(tokens)
    assert len(words.find("circle").tokens) == 1
    assert words.find(("red", 0)).tokens == (1, 77)
    assert [s.cut_at for s in tokens.streams] == [75 * 4, None]
    clip = PromptWords.of(tokens.only("clip"))
    assert len(clip.words) == 75
    with pytest.raises(KeyError, match="was cut off"):
        clip.find("circle")


def test_more_than_77_tokens_where_the_model_takes_more():
    prompt = " ".join(["red"] * 200 + ["circle"])
    flux = build_tiny("flux-dev")
    assert PromptWords.of(tokenize(flux, prompt)).find("circle").tokens == (200,)
    with pytest.raises(PromptTooLongError, match=r"201 tokens .* only 99: .*cut off"):
        tokenize(flux, prompt, options={"max_sequence_length": 100})
    with pytest.raises(PromptTooLongError, match=r"longer than the 99 tokens .*cut off"):
        tokenize(build_tiny("sd3"), prompt, options={"max_sequence_length": 100})


def test_other_words_for_another_encoder_are_refused():
    with pytest.raises(ValueError, match="other words as prompt_3"):
        tokenize(build_tiny("sd3"), "a cat", options={"prompt_3": "a dog"})


def test_the_rest_of_a_batch_is_padding():
    tokens = tokenize(build_tiny("qwen-image"), "a cat", length=12)
    assert len(tokens) == 12
    assert tokens.kinds[-1] == "pad"
    with pytest.raises(ValueError, match=r"of 3 positions, and .* 7 tokens"):
        tokenize(build_tiny("qwen-image"), "a cat", length=3)
    with pytest.raises(ValueError, match=r"154 positions, .* 77 tokens, .*chunks"):
        tokenize(build_tiny("sd"), "a cat", length=154)


def test_a_prompt_that_is_cleaned_keeps_its_places():
    wan = tokenize(build_tiny("wan"), "a  cat &amp; a dog")
    words = PromptWords.of(wan)
    assert [w.text for w in words.words] == ["a", "cat", "&", "a", "dog"]
    assert words.find("dog").start == 15
    sana = PromptWords.of(tokenize(build_tiny("sana"), "  A RED Cat"))
    assert [w.text for w in sana.words] == ["A", "RED", "Cat"]


def test_several_encoders_that_are_not_known_are_refused():
    pipe = SimpleNamespace(transformer=torch.nn.Linear(1, 1), tokenizer=1, tokenizer_2=2)
    with pytest.raises(ValueError, match="its Linear attends to isn't known"):
        tokenize(pipe, "a cat")
