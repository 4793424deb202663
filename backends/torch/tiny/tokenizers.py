"""Tokenizers of the real classes with a few hundred tokens each, made here.

Every one of them reads any prompt. Words that the chat templates are written with are one token
each, as in the real vocabularies, so that the prefixes which pipelines drop have their real length.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    ByT5Tokenizer,
    CLIPTokenizer,
    GemmaTokenizer,
    LlamaTokenizer,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    T5Tokenizer,
)

from wordlight.backends.byte_pairs import Merge, byte_symbols, merge_rules

#: Words as the pieces that they are cut into.
_PIECES = tuple(
    tuple(entry.split("+"))
    for entry in (
        "an two three small large red green blue yellow purple orange black white gray cat dog "
        "circle square tri+angle circle+s square+s tri+angle+s on and to the left right of above"
    ).split()
)
#: Words of the chat templates. The first of a line have no blank before them.
_AT_LINE_STARTS = "system user assistant Describe You".split()
_WITHIN_LINES = (
    "Describe are prompt engineer the image by detailing color shape size texture quantity text "
    "spatial relationships of objects and background an assistant"
).split()
#: Characters that SentencePiece vocabularies have whole.
_CHARACTERS = [chr(c) for c in range(33, 127)] + list("éüß赤い猫と青犬")

QWEN_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% endif %}{% endif %}"
)

GLM_IMAGE_TEMPLATE = (
    "{% for message in messages %}<|user|>{% for part in message.content %}"
    "{% if part.type == 'text' %}{{ part.text }}{% else %}<|image|>{% endif %}{% endfor %}"
    "<|assistant|>{% endfor %}"
)

#: The same of messages whose content is a list of parts.
QWEN_PARTS_TEMPLATE = QWEN_TEMPLATE.replace(
    "{{ message.content }}",
    "{% if message.content is string %}{{ message.content }}"
    "{% else %}{{ message.content[0].text }}{% endif %}",
)


def clip_tokenizer(pad: str = "<|endoftext|>", length: int = 77) -> CLIPTokenizer:
    """CLIP's: byte-level pairs with an end-of-word mark, 77 tokens (LongCLIP: 248).

    The larger CLIP of Stable Diffusion XL pads with ``!``.
    """
    vocabulary, merges = _clip_vocabulary()
    return CLIPTokenizer(
        vocab=vocabulary, merges=list(merges), pad_token=pad, model_max_length=length
    )


@cache
def _clip_vocabulary() -> tuple[dict[str, int], tuple[Merge, ...]]:
    merges = merge_rules(_PIECES, "</w>")
    symbols = byte_symbols()
    tokens = [*symbols, *(s + "</w>" for s in symbols), *map("".join, merges)]
    return _numbered([*tokens, "<|startoftext|>", "<|endoftext|>"]), merges


def t5_tokenizer(length: int = 512) -> T5Tokenizer:
    """T5's and UMT5's: unigrams with a mark for the blank; an unknown character is ``<unk>``."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    words = [(piece, -5.0) for piece in dict.fromkeys(_marked_pieces())]
    characters = [(c, -9.0) for c in ("▁", *_CHARACTERS)]
    return T5Tokenizer(vocab=special + words + characters, extra_ids=0, model_max_length=length)


def byt5_tokenizer() -> ByT5Tokenizer:
    """ByT5's: bytes; the class has no vocabulary to be made."""
    return ByT5Tokenizer(model_max_length=128)


def gemma_tokenizer(length: int = 4096) -> GemmaTokenizer:
    """Gemma's: pairs of whole characters with bytes for those it lacks, ``<bos>`` first."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    vocabulary, merges = _sentencepiece_pairs(special)
    tokenizer = GemmaTokenizer(vocab=vocabulary, merges=list(merges), model_max_length=length)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", vocabulary["<bos>"])]
    )
    return tokenizer


def mistral_tokenizer(padding_side: str = "left") -> LlamaTokenizer:
    """Mistral's (and Llama 2's): as Gemma's, with a blank before the first word."""
    special = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"]
    special += ["<pad>", "[IMG]", "[IMG_BREAK]", "[IMG_END]"]
    vocabulary, merges = _sentencepiece_pairs(special)
    return LlamaTokenizer(
        vocab=vocabulary,
        merges=list(merges),
        pad_token="<pad>",
        extra_special_tokens=special[3:7] + special[8:],
        model_max_length=4096,
        padding_side=padding_side,
    )


def llama3_tokenizer() -> PreTrainedTokenizerFast:
    """Llama 3's: byte-level pairs, ``<|begin_of_text|>`` first."""
    return _byte_level_tokenizer("<|begin_of_text|>", bos="<|begin_of_text|>", pad="<|eot_id|>")


def glm_tokenizer() -> PreTrainedTokenizerFast:
    """GLM 4's: byte-level pairs, ``[gMASK]<sop>`` first, padded on the left."""
    return _byte_level_tokenizer("[gMASK]", "<sop>", pad="<|endoftext|>", padding_side="left")


def glm_image_tokenizer() -> PreTrainedTokenizerFast:
    """GLM-Image's: GLM 4's with marks for pictures and their grids."""
    return _byte_level_tokenizer(
        "[gMASK]",
        "<sop>",
        pad="<|endoftext|>",
        padding_side="left",
        bos="<|dit|>",
        named={
            "image_token": "<|image|>",
            "grid_bos_token": "<|grid|>",
            "grid_eos_token": "<|grid_end|>",
            "dit_token": "<|dit|>",
            "dit_end_token": "<|dit_end|>",
            "user_token": "<|user|>",
            "assistant_token": "<|assistant|>",
        },
    )


def qwen_tokenizer() -> Qwen2Tokenizer:
    """Qwen 2's and 3's: byte-level pairs and a chat template."""
    vocabulary, merges = _byte_level_vocabulary("<|endoftext|>")
    return Qwen2Tokenizer(
        vocab=vocabulary,
        merges=list(merges),
        extra_special_tokens=["<|im_start|>", "<|im_end|>", *_QWEN_VISION],
        chat_template=QWEN_TEMPLATE,
        model_max_length=4096,
    )


_QWEN_VISION = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]


def _byte_level_tokenizer(
    *first: str,
    pad: str,
    bos: str | None = None,
    padding_side: str = "right",
    named: Mapping[str, str] | None = None,
) -> PreTrainedTokenizerFast:
    """Byte-level pairs as in GPT-2, with marks before each text, and others that the tokenizer has
    by name."""
    others = dict(named or {})
    vocabulary, merges = _byte_level_vocabulary(*dict.fromkeys((*first, pad, *others.values())))
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges)))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(
        single=" ".join((*first, "$A")), special_tokens=[(t, vocabulary[t]) for t in first]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=bos,
        eos_token=pad,
        pad_token=pad,
        padding_side=padding_side,
        extra_special_tokens=others or list(first),
        model_max_length=4096,
    )


@cache
def _byte_level_vocabulary(*special: str) -> tuple[dict[str, int], tuple[Merge, ...]]:
    blank = byte_symbols()[ord(" ")]
    inner = [(blank + pieces[0], *pieces[1:]) for pieces in _PIECES]
    lines = [(word,) for word in _AT_LINE_STARTS] + [(blank + word,) for word in _WITHIN_LINES]
    merges = merge_rules(list(dict.fromkeys([*lines, *inner])))
    return _numbered([*byte_symbols(), *map("".join, merges), *special]), merges


def _sentencepiece_pairs(special: list[str]) -> tuple[dict[str, int], tuple[Merge, ...]]:
    merges = merge_rules([("▁" + pieces[0], *pieces[1:]) for pieces in _PIECES])
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    tokens = [*special, *fallback, "▁", "\n", *_CHARACTERS, *map("".join, merges)]
    return _numbered(tokens), merges


def _marked_pieces() -> list[str]:
    return [p for pieces in _PIECES for p in ("▁" + pieces[0], *pieces[1:])]


def _numbered(tokens: list[str]) -> dict[str, int]:
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}
