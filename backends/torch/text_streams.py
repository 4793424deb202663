"""The tokens of each family's pipeline: what its tokenizers get, and which of the tokens its
denoiser gets.

A family is one short function here, by the class of its denoiser. Read from diffusers' pipelines;
the tests hold every one against the ids that the tiny pipelines' text encoders are really given.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from wordlight.backends.tokenizing import TokenizerInput, tokens_of, with_all_vectors
from wordlight.backends.tokens import PromptTooLongError, Tokens

#: More tokens than any prompt has.
_ANY_NUMBER = 10**9
#: The tokens of each text encoder that the denoiser attends to, by the stream's name.
Streams = list[tuple[str, Tokens]]


class Reader:
    """Reads one prompt by a pipeline's tokenizers.

    ``options`` are what else the pipeline's ``encode_prompt`` was told: lengths, a system prompt.
    A prompt that is too long loses its end if ``allow_cut``.
    """

    def __init__(
        self, pipe: Any, prompt: str, options: Mapping[str, Any], *, allow_cut: bool
    ) -> None:
        self.pipe, self.prompt, self._options = pipe, prompt, options
        self.allow_cut = allow_cut

    def option(self, name: str) -> Any:
        """Return an argument of the pipeline's call, or else its default."""
        if self._options.get(name) is not None:
            return self._options[name]
        known = inspect.signature(type(self.pipe).__call__).parameters.get(name)
        return None if known is None else known.default

    @property
    def longest(self) -> int:
        """``max_sequence_length``: how many tokens the language model is given at most."""
        return int(self.option("max_sequence_length"))

    def tokens(
        self, tokenizer: str, written: TokenizerInput | None = None, **options: Any
    ) -> Tokens:
        """The prompt's tokens by one of the pipeline's tokenizers, or by a processor's."""
        read, given = self.tokenizer(tokenizer), written
        if given is None and hasattr(self.pipe, "maybe_convert_prompt"):
            given = with_all_vectors(read, self.prompt)
        given = TokenizerInput.of(self.prompt) if given is None else given
        return tokens_of(read, given, allow_cut=self.allow_cut, **options)

    def part(
        self,
        whole: TokenizerInput,
        start: int,
        stop: int,
        *,
        marks: bool = False,
        length: int = _ANY_NUMBER,
    ) -> Tokens:
        """The tokens of some characters that a pipeline reads by themselves, however many."""
        piece = TokenizerInput(whole.prompt, whole.text[start:stop], whole.sources[start:stop])
        return tokens_of(
            self.tokenizer(), piece, length=length, pad=None, marks=marks, allow_cut=self.allow_cut
        )

    def tokenizer(self, name: str = "tokenizer") -> Any:
        """One of the pipeline's tokenizers; the one within, where it is a processor."""
        whole = getattr(self.pipe, name)
        return getattr(whole, "tokenizer", whole)


def streams_of(
    pipe: Any, prompt: str, options: Mapping[str, Any], *, allow_cut: bool = True
) -> Streams:
    """The tokens that a pipeline's denoiser attends to, encoder by encoder.

    Raises PromptTooLongError unless ``allow_cut``; ValueError for a pipeline that isn't known, and
    where the pipeline was given other words for another encoder.
    """
    names = _denoiser_classes(pipe)
    read = next((STREAMS[name] for name in names if name in STREAMS), None)
    if read is None and getattr(pipe, "tokenizer_2", None) is not None:
        raise ValueError(
            f"{type(pipe).__name__} has several text encoders, and which of their tokens its "
            f"{names[0]} attends to isn't known"
        )
    for name in ("prompt_2", "prompt_3", "prompt_4"):
        other = options.get(name)
        if other and other not in (prompt, [prompt]) and read is not _flux:
            raise ValueError(
                f"the pipeline was given other words as {name}: positions of the text stand for "
                "words of both, and can't be told apart"
            )
    return (read or _plain)(Reader(pipe, prompt, options, allow_cut=allow_cut))


def _denoiser_classes(pipe: Any) -> list[str]:
    """The names of the denoiser's classes, under what torch.compile or peft put round it."""
    # A compiled module has no truth value.
    denoiser: Any = getattr(pipe, "unet", None)
    if denoiser is None:
        denoiser = getattr(pipe, "transformer", None)
    denoiser = getattr(denoiser, "_orig_mod", denoiser)
    if hasattr(denoiser, "get_base_model"):
        denoiser = denoiser.get_base_model()
    return [kind.__name__ for kind in type(denoiser).__mro__]


def _plain(reader: Reader) -> Streams:
    """One tokenizer and nothing round the prompt: Stable Diffusion, XL (whose two tokenizers
    differ in their padding alone)."""
    first = "tokenizer" if getattr(reader.pipe, "tokenizer", None) is not None else "tokenizer_2"
    return [("clip", reader.tokens(first))]


def _stable_diffusion_3(reader: Reader) -> Streams:
    clip = reader.tokens("tokenizer", length=reader.pipe.tokenizer_max_length)
    if getattr(reader.pipe, "tokenizer_3", None) is None:
        # Zeros stand in for an encoder that was left out.
        nothing = Tokens(reader.prompt, (), (), (), ())
        return [("clip", clip), ("t5", nothing.padded(reader.longest))]
    return [("clip", clip), ("t5", reader.tokens("tokenizer_3", length=reader.longest))]


def _flux(reader: Reader) -> Streams:
    return [("t5", reader.tokens("tokenizer_2", length=reader.longest))]


def _t5(reader: Reader) -> Streams:
    return [("t5", reader.tokens("tokenizer", length=reader.longest))]


def _pixart(reader: Reader) -> Streams:
    return [("t5", reader.tokens("tokenizer", _cleaned(reader), length=reader.longest))]


def _wan(reader: Reader) -> Streams:
    return [("t5", reader.tokens("tokenizer", _prompt_cleaned(reader), length=reader.longest))]


def _flux_2(reader: Reader) -> Streams:
    if not hasattr(reader.pipe, "system_message"):
        written = _chat(reader, enable_thinking=False)
        return [("qwen", reader.tokens("tokenizer", written, length=reader.longest))]
    inner = reader.prompt.replace("[IMG]", "")
    roles = (("system", reader.pipe.system_message), ("user", "{}"))
    chat = [{"role": r, "content": [{"type": "text", "text": t}]} for r, t in roles]
    template = reader.pipe.tokenizer.apply_chat_template(chat, tokenize=False)
    written = _in_template(template, reader.prompt, inner)
    side = reader.tokenizer().padding_side
    tokens = reader.tokens("tokenizer", written, length=reader.longest, pad=side, marks=False)
    return [("mistral", tokens)]


def _ovis(reader: Reader) -> Streams:
    n_dropped = reader.pipe.user_prompt_begin_id
    written = _chat(reader, before=reader.pipe.system_prompt, enable_thinking=False)
    length = reader.longest + n_dropped
    tokens = reader.tokens("tokenizer", written, length=length, marks=False)
    return [("qwen", tokens.at(range(n_dropped, len(tokens))))]


def _longcat(reader: Reader) -> Streams:
    """Text in quotation marks is read letter by letter."""
    split = inspect.getmodule(type(reader.pipe)).split_quotation  # type: ignore[union-attr]
    pieces = split(reader.prompt)
    whole = TokenizerInput.of(reader.prompt, as_="".join(text for text, _ in pieces))
    parts, start = [Tokens(reader.prompt, (), (), (), ())], 0
    for text, quoted in pieces:
        stops = range(start + 1, start + len(text) + 1) if quoted else (start + len(text),)
        for stop in stops:
            parts.append(reader.part(whole, start, stop))
            start = stop
    tokens = Tokens.concatenated(parts).cut(reader.pipe.tokenizer_max_length)
    if tokens.cut_at is not None and not reader.allow_cut:
        raise PromptTooLongError(
            f"the prompt is longer than the {len(tokens)} tokens that the text encoder reads: "
            f"shorten it; {reader.prompt[tokens.cut_at :]!r} would be cut off"
        )
    tokenizer = reader.tokenizer()
    pad = int(tokenizer.pad_token_id), str(tokenizer.pad_token)
    left = tokenizer.padding_side == "left"
    return [("qwen", tokens.padded(reader.pipe.tokenizer_max_length, left=left, pad=pad))]


def _ernie(reader: Reader) -> Streams:
    return [("mistral", reader.tokens("tokenizer", pad=None))]


def _prx(reader: Reader) -> Streams:
    write = reader.pipe.text_preprocessor
    clean = write.basic_clean if reader.option("skip_text_cleaning") else write.clean_text
    written = TokenizerInput.of(reader.prompt, as_=clean(reader.prompt))
    length, side = reader.option("tokenizer_max_length"), reader.tokenizer().padding_side
    return [("gemma", reader.tokens("tokenizer", written, length=length, pad=side))]


def _krea_2(reader: Reader) -> Streams:
    """Padding stands between the prompt and what the template has behind it."""
    pipe, n_dropped = reader.pipe, reader.pipe.prompt_template_encode_start_idx
    written = TokenizerInput.of(reader.prompt, pipe.prompt_template_encode_prefix)
    length = reader.longest + n_dropped - pipe.prompt_template_encode_num_suffix_tokens
    tokens = reader.tokens("tokenizer", written, length=length)
    suffix = pipe.prompt_template_encode_suffix
    behind = reader.part(
        TokenizerInput(reader.prompt, suffix, (None,) * len(suffix)), 0, len(suffix)
    )
    whole = Tokens.concatenated([tokens, behind])
    return [("qwen", whole.at(range(n_dropped, len(whole))))]


def _nucleus(reader: Reader) -> Streams:
    template = reader.pipe._format_prompt("{}")
    length = int(reader.option("max_sequence_length") or reader.pipe.default_max_sequence_length)
    written = _in_template(template, reader.prompt)
    tokens = reader.tokens("processor", written, length=length, pad=None)
    tokenizer = reader.tokenizer("processor")
    pad = int(tokenizer.pad_token_id), str(tokenizer.pad_token)
    left = tokenizer.padding_side == "left"
    return [("qwen", tokens.padded(len(tokens) + -len(tokens) % 8, left=left, pad=pad))]


def _z_image(reader: Reader) -> Streams:
    written = _chat(reader, enable_thinking=True)
    return [("qwen", reader.tokens("tokenizer", written, length=reader.longest, pad=None))]


def _qwen_image(reader: Reader) -> Streams:
    n_dropped = reader.pipe.prompt_template_encode_start_idx
    written = _in_template(reader.pipe.prompt_template_encode, reader.prompt)
    longest = min(reader.longest, reader.pipe.tokenizer_max_length) + n_dropped
    tokens = reader.tokens("tokenizer", written, length=longest, pad=None)
    return [("qwen", tokens.at(range(n_dropped, len(tokens))))]


def _kandinsky_5(reader: Reader) -> Streams:
    n_dropped = reader.pipe.prompt_template_encode_start_idx
    template = reader.pipe.prompt_template
    written = _in_template(template, reader.prompt, _prompt_cleaned(reader).text)
    length = reader.longest + n_dropped
    tokens = reader.tokens("tokenizer", written, length=length, pad=None)
    return [("qwen", tokens.at(range(n_dropped, len(tokens))))]


def _hunyuan_image(reader: Reader) -> Streams:
    n_dropped = reader.pipe.prompt_template_encode_start_idx
    written = _in_template(reader.pipe.prompt_template_encode, reader.prompt)
    length = reader.pipe.tokenizer_max_length + n_dropped
    # The letters of quoted text, which ByT5 reads, are told to the denoiser apart.
    tokens = reader.tokens("tokenizer", written, length=length)
    return [("qwen", tokens.at(range(n_dropped, len(tokens))))]


def _sana(reader: Reader) -> Streams:
    lines = reader.option("complex_human_instruction")
    cleaned = _cleaned(reader)
    if not lines:
        return [("gemma", reader.tokens("tokenizer", cleaned, length=reader.longest))]
    instruction = "\n".join(lines)
    n_instruction = len(reader.pipe.tokenizer.encode(instruction))
    written = TokenizerInput.of(reader.prompt, instruction, as_=cleaned.text)
    length = n_instruction + reader.longest - 2
    tokens = reader.tokens("tokenizer", written, length=length)
    # The first token and the last ones are kept of it.
    kept = [0, *range(len(tokens) - reader.longest + 1, len(tokens))]
    return [("gemma", tokens.at(kept))]


def _lumina_2(reader: Reader) -> Streams:
    system = reader.option("system_prompt") or reader.pipe.system_prompt
    written = TokenizerInput.of(reader.prompt, f"{system} <Prompt Start> ")
    return [("gemma", reader.tokens("tokenizer", written, length=reader.longest))]


def _cogview_4(reader: Reader) -> Streams:
    tokens = reader.tokens("tokenizer", length=reader.longest, pad=None)
    tokenizer = reader.pipe.tokenizer
    pad = int(tokenizer.pad_token_id), str(tokenizer.pad_token)
    return [("glm", tokens.padded(len(tokens) + -len(tokens) % 16, left=True, pad=pad))]


#: Text in quotation marks of each kind, in the order in which GLM-Image's pipeline reads them.
_QUOTED = tuple(map(re.compile, ("'([^']*)'", "“([^“”]*)”", '"([^"]*)"', "「([^「」]*)」")))


def _glm_image(reader: Reader) -> Streams:
    """ByT5's tokens of each text in quotation marks, the only ones that the denoiser is given."""
    whole = TokenizerInput.of(reader.prompt)
    spans = [found.span(1) for kind in _QUOTED for found in kind.finditer(reader.prompt)]
    if [reader.prompt[start:stop] for start, stop in spans] != reader.pipe.get_glyph_texts(
        reader.prompt
    )[0]:
        raise ValueError(
            "this version of diffusers reads text in quotation marks otherwise than is known here"
        )
    if not any(start < stop for start, stop in spans):
        raise ValueError(
            f"GLM-Image's denoiser attends to text in quotation marks alone, and {reader.prompt!r} "
            "has none: its other words reach the picture through the language model's coarse "
            "tokens, of which there are no maps"
        )
    pad = int(reader.tokenizer().pad_token_id), str(reader.tokenizer().pad_token)
    # The pipeline puts as many in front as make the number of texts odd.
    n_pads = (len(spans) + 1) % 2
    parts = []
    for start, stop in spans:
        text = reader.part(whole, start, stop, marks=True, length=reader.longest)
        parts.append(text.padded(len(text) + n_pads, left=True, pad=pad))
    return [("byt5", Tokens.concatenated(parts))]


def _hidream(reader: Reader) -> Streams:
    t5, llama = (
        reader.tokens(name, length=min(reader.longest, getattr(reader.pipe, name).model_max_length))
        for name in ("tokenizer_3", "tokenizer_4")
    )
    return [("t5", t5), ("llama", llama)]


STREAMS: dict[str, Callable[[Reader], Streams]] = {
    "UNet2DConditionModel": _plain,
    "SD3Transformer2DModel": _stable_diffusion_3,
    "FluxTransformer2DModel": _flux,
    "ChromaTransformer2DModel": _t5,
    "Flux2Transformer2DModel": _flux_2,
    "QwenImageTransformer2DModel": _qwen_image,
    "ZImageTransformer2DModel": _z_image,
    "PixArtTransformer2DModel": _pixart,
    "SanaTransformer2DModel": _sana,
    "Lumina2Transformer2DModel": _lumina_2,
    "HunyuanImageTransformer2DModel": _hunyuan_image,
    "AuraFlowTransformer2DModel": _t5,
    "CogView4Transformer2DModel": _cogview_4,
    "GlmImageTransformer2DModel": _glm_image,
    "Kandinsky5Transformer3DModel": _kandinsky_5,
    "HiDreamImageTransformer2DModel": _hidream,
    "WanTransformer3DModel": _wan,
    "LTXVideoTransformer3DModel": _t5,
    "OvisImageTransformer2DModel": _ovis,
    "LongCatImageTransformer2DModel": _longcat,
    "ErnieImageTransformer2DModel": _ernie,
    "PRXTransformer2DModel": _prx,
    "Krea2Transformer2DModel": _krea_2,
    "NucleusMoEImageTransformer2DModel": _nucleus,
}


#: Families whose batches are as long as their longest prompt, and where the others' padding is.
_RAGGED = {
    "QwenImageTransformer2DModel": "right",
    "Kandinsky5Transformer3DModel": "right",
    "CogView4Transformer2DModel": "left",
    "GlmImageTransformer2DModel": "left",
    "ErnieImageTransformer2DModel": "right",
    "NucleusMoEImageTransformer2DModel": "right",
}


def ragged_side(pipe: Any) -> str | None:
    """On which side a batch's shorter prompts are padded; None where all have one length."""
    return next((_RAGGED[name] for name in _denoiser_classes(pipe) if name in _RAGGED), None)


def _in_template(template: str, prompt: str, inner: str | None = None) -> TokenizerInput:
    before, _, after = template.partition("{}")
    return TokenizerInput.of(prompt, before, after, as_=inner)


def _chat(reader: Reader, before: str = "", **options: Any) -> TokenizerInput:
    """The prompt as a user's one message, behind a text, in the tokenizer's own template."""
    chat = [{"role": "user", "content": before + "{}"}]
    template = reader.pipe.tokenizer.apply_chat_template(
        chat, tokenize=False, add_generation_prompt=True, **options
    )
    # Templates may strip what they are given.
    inner = reader.pipe.tokenizer.apply_chat_template(
        [{"role": "user", "content": before + reader.prompt}],
        tokenize=False,
        add_generation_prompt=True,
        **options,
    )
    start, _, end = template.partition("{}")
    return TokenizerInput.of(
        reader.prompt, start, end, as_=inner[len(start) : len(inner) - len(end)]
    )


def _cleaned(reader: Reader) -> TokenizerInput:
    """As PixArt and Sana write a caption: in lower case, or cleaned of addresses and marks."""
    clean = bool(reader.option("clean_caption"))
    (text,) = reader.pipe._text_preprocessing(reader.prompt, clean_caption=clean)
    return TokenizerInput.of(reader.prompt, as_=text)


def _prompt_cleaned(reader: Reader) -> TokenizerInput:
    """As Wan and Kandinsky write a prompt: entities resolved, blanks made single."""
    clean = inspect.getmodule(type(reader.pipe)).prompt_clean  # type: ignore[union-attr]
    return TokenizerInput.of(reader.prompt, as_=clean(reader.prompt))
