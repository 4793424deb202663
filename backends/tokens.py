"""A prompt as its encoder sees it: token ids with their places in the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

#: What a position can be: text of the prompt; a mark before or behind it; padding; text that the
#: pipeline wrote round the prompt; a learned token that stands for nothing; text of a stream that
#: was left out (``Tokens.only``).
KINDS = ("text", "start", "end", "pad", "template", "register", "other")


class PromptTooLongError(ValueError):
    """The prompt has more tokens than the text encoder's context holds."""


class Stream(NamedTuple):
    """One text encoder's positions, ``start`` to ``stop``, where several read the prompt.

    ``cut_at`` is the character from which on it was too short for the prompt, or None.
    """

    name: str
    start: int
    stop: int
    cut_at: int | None = None


@dataclass(frozen=True)
class Tokens:
    """The tokens of one prompt, padded to the encoder's context.

    ``ids`` and ``texts`` have one entry a context position. ``offsets`` gives each position's
    character span in ``prompt``; ``kinds`` says what it is, one of ``KINDS``. ``cut_at`` is the
    character from which on no encoder's context held the prompt, or None. ``streams`` are the
    encoders' shares of the positions, one after the other, where there are several.
    """

    prompt: str
    ids: tuple[int, ...]
    texts: tuple[str, ...]
    offsets: tuple[tuple[int, int], ...]
    kinds: tuple[str, ...]
    cut_at: int | None = None
    streams: tuple[Stream, ...] = ()

    def __post_init__(self) -> None:
        lengths = {len(self.ids), len(self.texts), len(self.offsets), len(self.kinds)}
        if len(lengths) != 1:
            raise ValueError("ids, texts, offsets and kinds must have one entry a position each")
        if unknown := set(self.kinds) - set(KINDS):
            raise ValueError(f"unknown kinds of token: {sorted(unknown)}")
        ends = [0, *(stream.stop for stream in self.streams)]
        if self.streams and (
            [stream.start for stream in self.streams] != ends[:-1] or ends[-1] != len(self)
        ):
            raise ValueError(
                f"streams must follow each other and have all {len(self)} positions, not "
                + ", ".join(f"{s.name} {s.start}:{s.stop}" for s in self.streams)
            )

    def __len__(self) -> int:
        return len(self.ids)

    def positions(self, kind: str) -> tuple[int, ...]:
        """The context positions of one kind."""
        return tuple(i for i, k in enumerate(self.kinds) if k == kind)

    def at(self, places: Sequence[int]) -> Tokens:
        """The tokens at some positions, in the order given."""
        return Tokens(
            self.prompt,
            tuple(self.ids[i] for i in places),
            tuple(self.texts[i] for i in places),
            tuple(self.offsets[i] for i in places),
            tuple(self.kinds[i] for i in places),
            self.cut_at,
        )

    def padded(self, length: int, left: bool = False, pad: tuple[int, str] = (0, "")) -> Tokens:
        """The tokens with padding, up to a length; ``pad`` is its id and text."""
        n_pads = length - len(self)

        def put(own: tuple[Any, ...], padding: Any) -> tuple[Any, ...]:
            return (padding,) * n_pads + own if left else own + (padding,) * n_pads

        return Tokens(
            self.prompt,
            put(self.ids, pad[0]),
            put(self.texts, pad[1]),
            put(self.offsets, (0, 0)),
            put(self.kinds, "pad"),
            self.cut_at,
        )

    def only(self, stream: str) -> Tokens:
        """The same positions with the text of one stream alone; that of others is ``"other"``.

        Raises ValueError, with the streams there are, for a name that is none of them.
        """
        own = [s for s in self.streams if s.name == stream]
        if not own:
            names = list(dict.fromkeys(s.name for s in self.streams))
            there = f"there are {', '.join(names)}" if names else "one encoder reads the prompt"
            raise ValueError(f"no stream {stream!r}: {there}")
        kept = {place for s in own for place in range(s.start, s.stop)}
        kinds = tuple(k if i in kept else "other" for i, k in enumerate(self.kinds))
        return replace(self, kinds=kinds, cut_at=_cut_of(own))

    @classmethod
    def joined(cls, streams: Sequence[tuple[str, Tokens]]) -> Tokens:
        """The tokens of several encoders of one prompt, one after the other."""
        named: list[Stream] = []
        for name, tokens in streams:
            start = named[-1].stop if named else 0
            named.append(Stream(name, start, start + len(tokens), tokens.cut_at))
        parts = [tokens for _, tokens in streams]
        return cls(
            parts[0].prompt,
            tuple(i for part in parts for i in part.ids),
            tuple(t for part in parts for t in part.texts),
            tuple(o for part in parts for o in part.offsets),
            tuple(k for part in parts for k in part.kinds),
            _cut_of(named),
            tuple(named),
        )

    @classmethod
    def concatenated(cls, parts: Sequence[Tokens]) -> Tokens:
        """The tokens that one encoder reads one after the other; the first cut counts."""
        joined = cls.joined([("", part) for part in parts])
        cuts = [part.cut_at for part in parts if part.cut_at is not None]
        return replace(joined, streams=(), cut_at=min(cuts, default=None))

    def cut(self, length: int) -> Tokens:
        """Return the first ``length`` tokens at most; ``cut_at`` is where text was lost."""
        lost = [i for i in self.positions("text") if i >= length]
        kept = self.at(range(min(length, len(self))))
        return replace(kept, cut_at=self.offsets[lost[0]][0]) if lost else kept

    def to_json(self) -> dict[str, Any]:
        """Plain data that ``from_json`` reads back."""
        several = {"streams": [list(stream) for stream in self.streams]} if self.streams else {}
        return {
            "prompt": self.prompt,
            "ids": list(self.ids),
            "texts": list(self.texts),
            "offsets": [list(o) for o in self.offsets],
            "kinds": list(self.kinds),
            "cut_at": self.cut_at,
            **several,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Tokens:
        """Read back what ``to_json`` gave; raises KeyError or ValueError on anything else."""
        return cls(
            prompt=str(data["prompt"]),
            ids=tuple(int(i) for i in data["ids"]),
            texts=tuple(str(t) for t in data["texts"]),
            offsets=tuple((int(a), int(b)) for a, b in data["offsets"]),
            kinds=tuple(str(k) for k in data["kinds"]),
            cut_at=_whole(data["cut_at"]),
            streams=tuple(
                Stream(str(name), int(start), int(stop), _whole(cut_at))
                for name, start, stop, cut_at in data.get("streams", ())
            ),
        )


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


def _cut_of(streams: Sequence[Stream]) -> int | None:
    """Return the place at which the stream that reads farthest was cut; None where one reads to the
    end."""
    cuts = [stream.cut_at for stream in streams]
    return None if None in cuts else max(cut for cut in cuts if cut is not None)
