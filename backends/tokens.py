"""A prompt as its encoder sees it: token ids with their places in the prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class PromptTooLongError(ValueError):
    """The prompt has more tokens than the text encoder's context holds."""


@dataclass(frozen=True)
class Tokens:
    """The tokens of one prompt, padded to the encoder's context.

    ``ids`` and ``texts`` have one entry a context position. ``offsets`` gives each position's
    character span in ``prompt``; ``kinds`` says ``"text"``, ``"start"``, ``"end"`` or ``"pad"``.
    ``cut_at`` is the character from which on the context was too short, or None.
    """

    prompt: str
    ids: tuple[int, ...]
    texts: tuple[str, ...]
    offsets: tuple[tuple[int, int], ...]
    kinds: tuple[str, ...]
    cut_at: int | None = None

    def __post_init__(self) -> None:
        lengths = {len(self.ids), len(self.texts), len(self.offsets), len(self.kinds)}
        if len(lengths) != 1:
            raise ValueError("ids, texts, offsets and kinds must have one entry a position each")
        if unknown := set(self.kinds) - {"text", "start", "end", "pad"}:
            raise ValueError(f"unknown kinds of token: {sorted(unknown)}")

    def __len__(self) -> int:
        return len(self.ids)

    def positions(self, kind: str) -> tuple[int, ...]:
        """The context positions of one kind."""
        return tuple(i for i, k in enumerate(self.kinds) if k == kind)

    def to_json(self) -> dict[str, Any]:
        """Plain data that ``from_json`` reads back."""
        return {
            "prompt": self.prompt,
            "ids": list(self.ids),
            "texts": list(self.texts),
            "offsets": [list(o) for o in self.offsets],
            "kinds": list(self.kinds),
            "cut_at": self.cut_at,
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
            cut_at=None if data["cut_at"] is None else int(data["cut_at"]),
        )
