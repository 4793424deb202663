"""Prompts as the denoiser gets them: the states of one text encoder, or of two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from wordlight.backends.backend import Array, Conditioning
from wordlight.backends.flax.batches import in_parts, products
from wordlight.backends.flax.devices import Placement
from wordlight.backends.flax.loading import LoadedModel
from wordlight.backends.flax.programs import Programs
from wordlight.backends.tokenizing import tokens_of
from wordlight.backends.tokens import Tokens

_ROWS, _DIRECTIONS = 64, 32


class PromptEncoder:
    """Encodes prompts as the model's own pipeline does."""

    def __init__(self, model: LoadedModel, programs: Programs, place: Placement) -> None:
        self._programs, self._place = programs, place
        self._tokenizers = [t for t in (model.tokenizer, model.tokenizer_2) if t is not None]
        self._config = model.text_encoder.config

    def tokenize(self, prompt: str) -> Tokens:
        """By the first tokenizer: a second one differs in how it pads alone."""
        return tokens_of(self._tokenizers[0], prompt)

    def encode(
        self, parameters: Mapping[str, Any], prompts: Sequence[str], size: tuple[int, int]
    ) -> Conditioning:
        """The conditioning of an image of a size in pixels, which Stable Diffusion XL is told."""
        ids = [
            np.array([tokens_of(tokenizer, prompt).ids for prompt in prompts])
            for tokenizer in self._tokenizers
        ]
        if len(ids) == 1:
            return Conditioning(
                in_parts(
                    self._place,
                    lambda ids: self._programs.encode(parameters["text_encoder"], ids).last,
                    _ROWS,
                    *ids,
                )
            )
        both = [parameters["text_encoder"], parameters["text_encoder_2"]]
        states, pooled = in_parts(
            self._place, lambda *ids: self._programs.encode_two(both, ids), _ROWS, *ids
        )
        # As it was drawn and as it is shown are one size, with nothing cut off.
        times = np.tile(np.array([*size, 0, 0, *size], np.float32), (len(prompts), 1))
        return Conditioning(states, {"text_embeds": pooled, "time_ids": self._place.whole(times)})

    def token_embeddings(self, parameters: Mapping[str, Any], text: str) -> Array:
        ids = np.array([tokens_of(self._tokenizers[0], text, allow_cut=True).ids])
        return self._programs.embed(parameters["text_encoder"], ids)[0]

    def encode_from(self, parameters: Mapping[str, Any], token_embeddings: Array) -> Conditioning:
        self._check(token_embeddings)
        states = in_parts(
            self._place,
            lambda rows: (
                self._programs.encode(parameters["text_encoder"], _any_ids(rows), rows).last
            ),
            _ROWS,
            token_embeddings,
        )
        return Conditioning(states)

    def encode_from_jvp(
        self, parameters: Mapping[str, Any], token_embeddings: Array, tangents: Array
    ) -> tuple[Conditioning, Array]:
        self._check(token_embeddings)
        ids, program = _any_ids(token_embeddings), self._programs.encode_jvp
        states, changes = products(
            self._place,
            lambda some: program(parameters["text_encoder"], ids, token_embeddings, some),
            _DIRECTIONS,
            tangents,
        )
        return Conditioning(states), changes

    def encode_from_parts(
        self,
        parameters: Mapping[str, Any],
        token_embeddings: Array,
        baseline: Array,
        parts: Array,
    ) -> Array:
        self._check(token_embeddings)
        ids, program = _any_ids(token_embeddings), self._programs.encode_parts
        made: Array = in_parts(
            self._place,
            lambda some: program(parameters["text_encoder"], ids, token_embeddings, baseline, some),
            _DIRECTIONS,
            parts,
        )
        return made

    def _check(self, embeddings: Array) -> None:
        most, channels = self._config.max_position_embeddings, self._config.hidden_size
        shape = tuple(embeddings.shape)
        if len(shape) != 3 or shape[1] > most or shape[2] != channels:
            raise ValueError(
                f"input embeddings must be (batch, up to {most} tokens, {channels} channels), "
                f"not {shape}"
            )


def _any_ids(embeddings: Array) -> Array:
    """Return some ids: they decide nothing but the pooled state, which isn't used."""
    return jnp.zeros(embeddings.shape[:2], jnp.int32)
