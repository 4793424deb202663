"""Words beside the prompt, carried through a denoiser in rows of their own.

A further row is the first but for the words' tokens, which stand where the prompt's words do; where
these are too few places for them there are several such rows. In joint attention the words attend
to each other and to the first row's picture, masked as a word of the prompt is, and nothing attends
to them; everything else of a further row is given what the first one has. So the picture is that of
the run, whatever is asked, and no family's positions or masks are touched.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from wordlight.backends.attention import AttentionQuery, OtherKeys, shares_beside
from wordlight.backends.tokens import Tokens
from wordlight.backends.torch.attention_calls import AttentionCall, AttentionCalls, wide_product
from wordlight.backends.torch.denoisers import Layout
from wordlight.backends.torch.denominators import with_denominators
from wordlight.backends.torch.model import Model


@dataclass(frozen=True)
class TokenPlaces:
    """The places of words' tokens: of each its row and its position in the text."""

    rows: list[int]
    positions: list[int]
    #: A position where a word of the prompt stands, whose mask is theirs.
    word: int

    @classmethod
    def of(cls, tokens: Tokens, positions: int, n_words: int) -> TokenPlaces:
        """The places of ``n_words`` tokens: first where the prompt's words stand, then elsewhere
        among the first ``positions``; as many rows as it takes."""
        text = [place for place in tokens.positions("text") if place < positions]
        order = [*text, *(place for place in range(positions) if place not in set(text))]
        places = [order[index % len(order)] for index in range(n_words)]
        return cls([1 + index // len(order) for index in range(n_words)], places, order[0])

    @property
    def n_rows(self) -> int:
        """The number of rows besides the first."""
        return self.rows[-1] if self.rows else 0


@dataclass(frozen=True)
class CarriedCall:
    """One layer's attention, with the words' tokens in further rows.

    Attributes:
        call: of all rows.
        layout: the positions of text and picture, in any row.
        room: the positions of the words' tokens.
        outputs, word_outputs: A·V of the first row and of the words' tokens, ``(heads, length,
            width)``; None where text doesn't attend.
        lse: the logarithm of the sum over all keys of the first row, ``(heads, length)``; None
            where the kernel gives none.
    """

    call: AttentionCall
    layout: Layout
    room: TokenPlaces
    outputs: torch.Tensor | None = None
    word_outputs: torch.Tensor | None = None
    lse: torch.Tensor | None = None

    def of_words(self, part: torch.Tensor) -> torch.Tensor:
        """The words' own of a call's queries, keys or values: ``(1, heads, words, channels)``."""
        start = self.layout.of_row(0)[0].start
        places = [start + position for position in self.room.positions]
        return part[self.room.rows, :, places].transpose(0, 1)[None]

    def output_products(self) -> torch.Tensor:
        """⟨output of a token, output of a place⟩, ``(1, heads, places, positions + words)``."""
        assert self.outputs is not None
        assert self.word_outputs is not None
        text, picture = self.layout.of_row(0)
        tokens = self.outputs[:, text][:, : self.layout.positions]
        # What the pipeline left out of the text has no output.
        missing = self.layout.positions - tokens.shape[1]
        tokens = torch.cat([F.pad(tokens, (0, 0, 0, missing)), self.word_outputs], dim=1)
        return wide_product(self.outputs[:, picture], tokens.transpose(-1, -2))[None]

    def other_scores(self, own: Sequence[int | None]) -> torch.Tensor:
        """QKᵀ·scale of other words, ``(heads, places, others)``; those without a key have -∞.

        ``own`` has a position of the prompt for each that is one of its tokens, or None.
        """
        call = self.call
        assert call.key is not None
        text, picture = self.layout.of_row(0)
        # Masked text may be among no keys.
        places = [text.start + (self.room.word if place is None else place) for place in own]
        seen = [min(place, text.stop - 1) for place in places]
        keys = call.key[:1, :, seen].clone()
        keys[:, :, [place is None for place in own]] = self.of_words(call.key)
        scores = call.row(0).masked(call.products(slice(0, 1), keys), slice(None), seen)[
            0, :, picture
        ]
        missing = torch.tensor([place >= text.stop for place in places], device=scores.device)
        return scores.masked_fill(missing, -torch.inf)

    def other_shares(self, own: Sequence[int | None], others: OtherKeys) -> torch.Tensor:
        """Return the probabilities that other words would get, ``(1, heads, places, others)``; see
        ``shares_of_others``."""
        text, picture = self.layout.of_row(0)
        lse = self.lse
        if lse is None:
            lse = self.call.scores(slice(0, 1))[0].logsumexp(-1)
        probabilities = self.call.columns(0, picture, text, lse)
        rest = (1 - probabilities.sum(-1, keepdim=True)).clamp(min=0)
        scores = self.other_scores(own)
        relative = scores - lse[:, picture, None].to(scores.dtype)
        by_position = self.layout.by_position(probabilities)
        shares: torch.Tensor = shares_beside(by_position, rest, relative, others)
        return shares[None]


#: Takes a layer's name, its grid and its attention.
ReceiveCarried = Callable[[str, tuple[int, ...], CarriedCall], None]


class ConceptRows:
    """Carries words through a denoiser's further rows; a context manager that leaves nothing
    behind.

    From ``begin`` on, passes of one layout are looked at, in the thread that entered.

    Args:
        model: the denoiser.
        query: of which layers ``receive`` is told; words go through all of them.
        receive: called with each of these layers' attention.

    Raises:
        ValueError: a query that the model has no layers for.
    """

    def __init__(self, model: Model, query: AttentionQuery, receive: ReceiveCarried) -> None:
        query.check(model.layers("cross"))
        self._model, self._query, self._receive = model, query, receive
        self._calls = AttentionCalls(model.attending("cross"), self._see)
        self._now: tuple[Layout, TokenPlaces] | None = None

    def __enter__(self) -> ConceptRows:
        try:
            self._calls.install()
        except BaseException:
            self._calls.remove()
            raise
        self._calls.thread = threading.get_ident()
        return self

    def __exit__(self, *error: object) -> None:
        self._calls.remove()

    def begin(self, layout: Layout, room: TokenPlaces) -> None:
        """Look at passes of this layout, with words at these places."""
        self._now = layout, room

    @torch.no_grad()
    def _see(self, call: AttentionCall) -> torch.Tensor | None:
        if call.probs is not None:
            raise ValueError(
                f"{call.name} computes its probabilities itself: words beside the prompt can't be "
                "carried through it"
            )
        if self._now is None or call.keys != self._now[0].length:
            return None
        seen = CarriedCall(call, *self._now)
        assert call.query is not None
        if not self._model.family.joint or call.query.shape[2] != seen.layout.length:
            # Text doesn't attend: its keys are those of each token by itself.
            self._tell(seen)
            return None
        output, lse = _of_first_row(call)
        words = _attended(seen)
        self._tell(replace(seen, outputs=output[0], word_outputs=words[0], lse=lse))
        every = output.repeat(1 + seen.room.n_rows, 1, 1, 1)
        start = seen.layout.of_row(0)[0].start
        places = [start + position for position in seen.room.positions]
        every[seen.room.rows, :, places] = words[0].transpose(0, 1)
        return every

    def _tell(self, seen: CarriedCall) -> None:
        layout, name = seen.layout, seen.call.name
        wanted = self._query.wants_layer(name)
        if wanted and self._query.wants_grid(layout.grid, layout.latent_grid):
            self._receive(name, layout.grid, seen)


def _of_first_row(call: AttentionCall) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The output of the first row as if it were alone, and its log-sum-exp ``(heads, queries)``."""
    alone = call.row(0)
    output, lse = with_denominators(alone)
    if output is None:
        output = alone.attended()
    return output, None if lse is None else lse[0]


def _attended(seen: CarriedCall) -> torch.Tensor:
    """The words' output, over themselves and the first row's picture."""
    call = seen.call
    assert call.query is not None
    assert call.key is not None
    assert call.value is not None
    text, picture = seen.layout.of_row(0)
    key, value = (
        torch.cat([seen.of_words(part), part[:1, :, picture]], dim=2)
        for part in (call.key, call.value)
    )
    query = seen.of_words(call.query)
    if not seen.room.positions:
        return query
    word = text.start + seen.room.word
    keys = [word] * len(seen.room.positions) + list(range(call.keys))[picture]
    mask = call.row(0).mask_of([word], keys)
    if mask is not None:
        mask = mask.expand(-1, -1, query.shape[2], -1)
    return AttentionCall(
        call.name, call.module, query, key, value, mask=mask, scale=call.scale
    ).attended()
