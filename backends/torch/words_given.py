"""A check that words that are named for a run are those that its embeddings were made of.

Weights on words are heeded: of a word that counts for more, or less, the embedding is moved from
the empty prompt's, or to it, and a word that counts for less is blended, at all positions, with the
prompt in which nothing attends to it (Compel's way).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from wordlight.backends.torch.first_call import first_texts, lengthened
from wordlight.backends.torch.text_streams import ragged_side

if TYPE_CHECKING:
    from wordlight.backends.torch.backend import TorchBackend
    from wordlight.backends.torch.recorder import Call

#: The most of a position's embedding that may be neither of the words nor of the empty prompt: so
#: much of what it has beside the empty prompt's, since all words have much in common in some
#: encoders, and what may be rounding, more of it in half precision.
_MOST_APART, _ROUNDING, _ROUNDING_OF_HALF = 0.08, 0.02, 0.05
#: The most phrases of one prompt that count for less.
_MOST_PHRASES = 8


def check_words_given(backend: TorchBackend, call: Call, prompts: Sequence[str]) -> None:
    """Check words named as ``trace(pipe, prompts=[...])`` against a run.

    Raises ValueError where the pipeline was given other words, or embeddings that were made of
    other words: mark-up such as ``(red:1.3)`` shifts all that follow.
    """
    if call.prompts is not None and call.prompts != list(prompts):
        raise ValueError(
            f"the pipeline was given the words {call.prompts}, and prompts= names "
            f"{list(prompts)}: leave prompts out where the pipeline is given words"
        )
    if not call.given_embeddings:
        return
    assert call.embeddings is not None
    count = len(call.embeddings)
    if not prompts or count % len(prompts):
        raise ValueError(
            f"prompts= names {len(prompts)} prompt(s), and the pipeline drew {count} image(s)"
        )
    own = call.embeddings[:: count // len(prompts)]
    told, first_error = call.arguments, None
    for options in _ways_to_encode(backend, call):
        call.arguments = options
        try:
            _check_all(backend, call, prompts, own)
        except ValueError as error:
            first_error = first_error or error
        else:
            return
    call.arguments = told
    if first_error is not None:
        raise first_error


def _ways_to_encode(backend: TorchBackend, call: Call) -> Iterator[dict[str, Any]]:
    """The arguments of a call as they are, and then with those that matter for its text as the
    pipeline's ``encode_prompt`` has them by default: it may have made the embeddings."""
    yield call.arguments
    encode = getattr(backend.pipe, "encode_prompt", None)
    takes = {} if encode is None else inspect.signature(encode).parameters
    others = {
        # None would be the call's own default once more.
        name: [] if parameter.default is None else parameter.default
        for name, parameter in takes.items()
        if name in call.encoding_options
        and parameter.default not in (parameter.empty, call.arguments[name])
    }
    if others:
        yield {**call.arguments, **others}


def _check_all(
    backend: TorchBackend, call: Call, prompts: Sequence[str], own: torch.Tensor
) -> None:
    _note_length(backend, call, prompts)
    together: list[torch.Tensor | None] = [None] * len(prompts)
    if len(prompts) > 1 and ragged_side(backend.pipe) is not None:
        # Which positions are padding, and what stands there, is the whole batch's.
        together = list(first_texts(backend.pipe, prompts, call.encoding_options))
    for prompt, embeddings, expected in zip(prompts, own, together, strict=True):
        _check(backend, call, prompt, embeddings, expected)


def _note_length(backend: TorchBackend, call: Call, prompts: Sequence[str]) -> None:
    """Have a call's arguments name the ``max_sequence_length`` that its embeddings were made with,
    which may be another than the call was told.

    Raises ValueError where a prompt hasn't as many tokens as there are embeddings.
    """
    assert call.embeddings is not None
    tokens, length = backend.model.family.tokens, int(call.embeddings.shape[1])
    most = call.arguments.get("max_sequence_length")
    if isinstance(most, int) and ragged_side(backend.pipe) is None:
        n_own = len(tokens(backend.pipe, prompts[0], allow_cut=True, options=call.arguments))
        options = {**call.arguments, "max_sequence_length": most + length - n_own}
        if options["max_sequence_length"] > 0:
            made = tokens(backend.pipe, prompts[0], allow_cut=True, options=options)
            call.arguments = options if len(made) == length else call.arguments
    for prompt in prompts:
        tokens(backend.pipe, prompt, allow_cut=True, options=call.arguments, length=length)


def _check(
    backend: TorchBackend,
    call: Call,
    prompt: str,
    embeddings: torch.Tensor,
    expected: torch.Tensor | None,
) -> None:
    """Check embeddings ``(positions, channels)`` against a prompt; against ``expected`` where the
    prompt by itself has others."""
    options = call.encoding_options
    tokens = backend.model.family.tokens(
        backend.pipe, prompt, allow_cut=True, options=call.arguments, length=len(embeddings)
    )
    # Encoders that look back alone have nothing of the words behind; the position there tells.
    last = max((*(place + 1 for place in tokens.positions("text")), *tokens.positions("end"), 0))
    best, layer = len(embeddings), None
    made = list(backend.encodings(prompt, options)) if expected is None else [expected]
    for index, basis in enumerate(zip(made, backend.encodings("", options), strict=False)):
        own, empty = basis[0], lengthened(basis[1], len(embeddings))
        if own.shape == embeddings.shape:
            others = _share_of_others(embeddings, [own, empty]) > _most(embeddings, empty)
            n_others = int((others | _left_out(embeddings, own, empty))[: last + 1].sum())
            if n_others < best:
                best, layer = n_others, index
    if best and layer is not None and backend.model.family.feature_maps:
        n_text = max(tokens.positions("text"), default=0) + 1
        if _counts_for_less(backend, call, prompt, embeddings[: last + 1], layer, n_text):
            return
    if best:
        raise ValueError(
            f"the embeddings that the pipeline was given don't fit the words {prompt!r}: at {best} "
            "positions they are of other words, or not of these alone. Name the words without "
            "mark-up, such as '(red:1.3)', exactly as they were encoded"
        )


def _most(given: torch.Tensor, empty: torch.Tensor) -> torch.Tensor:
    """Return the most of each position's embedding that may be of others."""
    return _MOST_APART * _share_of_others(given, [empty]) + _rounding(given)


def _rounding(given: torch.Tensor) -> float:
    """Return the share that may be rounding: half precision's numbers end in zeros."""
    ends = given.float().contiguous().view(torch.int32) & 0x1FFF
    return _ROUNDING if ends.any() else _ROUNDING_OF_HALF


def _left_out(given: torch.Tensor, own: torch.Tensor, empty: torch.Tensor) -> torch.Tensor:
    """Return the positions whose words aren't there: what stands there is of the empty prompt."""
    rounding = _rounding(given)
    is_empty = _share_of_others(given, [empty]) < rounding
    return is_empty & (_share_of_others(own, [empty]) > 5 * rounding)


def _counts_for_less(
    backend: TorchBackend, call: Call, prompt: str, given: torch.Tensor, layer: int, n_text: int
) -> bool:
    """Return whether embeddings ``(positions, channels)`` are those of a prompt, whose text has the
    first ``n_text`` positions, some phrases of which count for less.

    The text encoder looks back alone, so the first position that isn't explained yet begins such a
    phrase; its end is the one that explains the positions behind it furthest.
    """

    def encoded(text: str) -> torch.Tensor:
        found = list(backend.encodings(text, call.encoding_options))
        made: torch.Tensor = found[layer][: len(given)]
        return made

    encoders = [
        part
        for part in backend.pipe.components.values()
        if isinstance(part, (CLIPTextModel, CLIPTextModelWithProjection))
    ]
    basis = [encoded(prompt), encoded("")]
    most, shares = _most(given, basis[1]), _share_of_others(given, basis)
    for _ in range(_MOST_PHRASES if encoders else 0):
        if not (shares > most).any():
            return True
        start = _first_of_others(shares)
        found: list[tuple[int, float, torch.Tensor, torch.Tensor]] = []
        for stop in range(start + 1, n_text + 1):
            with _unseen(encoders, slice(start, stop)):
                phrase = encoded(prompt)
            left = _share_of_others(given, [*basis, phrase])
            found.append((_first_of_others(left), -float(left.sum()), phrase, left))
        furthest = max(found, key=lambda one: one[:2], default=(start, 0.0, basis[0], shares))
        if furthest[0] == start:
            return False
        basis, shares = [*basis, furthest[2]], furthest[3]
    return not bool((shares > most).any())


def _first_of_others(shares: torch.Tensor) -> int:
    """The first position that isn't explained, or their number."""
    return next((place for place, share in enumerate(shares) if share > _ROUNDING), len(shares))


@contextmanager
def _unseen(encoders: Sequence[torch.nn.Module], positions: slice) -> Iterator[None]:
    """Have text encoders attend to nothing at some positions."""

    def hide(
        _module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        ids = args[0] if args else kwargs["input_ids"]
        mask = torch.ones_like(ids)
        mask[:, positions] = 0
        return args[:1], {**kwargs, "attention_mask": mask}

    with ExitStack() as stack:
        for encoder in encoders:
            stack.callback(encoder.register_forward_pre_hook(hide, with_kwargs=True).remove)
        yield


def _share_of_others(given: torch.Tensor, parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return of each position's embedding, ``(positions, channels)``, the share that is no mixture
    of those that it may be made of."""
    basis = torch.linalg.qr(torch.stack(list(parts), -1).double()).Q
    wanted = given.double()[..., None]
    rest = wanted - basis @ (basis.transpose(1, 2) @ wanted)
    share: torch.Tensor = rest.norm(dim=(1, 2)) / wanted.norm(dim=(1, 2))
    return share.nan_to_num(0.0)
