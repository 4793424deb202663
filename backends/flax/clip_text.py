"""CLIP's text encoder, as Stable Diffusion 1.x, 2.x and XL use it (transformers' ``CLIPTextModel``
and ``CLIPTextModelWithProjection``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from wordlight.backends.flax.attention import attention_scores, mean_of_values
from wordlight.backends.flax.config import read_config
from wordlight.backends.flax.errors import UnsupportedConfigError
from wordlight.backends.flax.layers import Array, embedding, gelu, layer_norm, linear, softmax

_ACTIVATIONS = {"quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x), "gelu": gelu}
#: Of the kinds of class that transformers saves, the one that projects the pooled state.
_PROJECTING = "CLIPTextModelWithProjection"
_ONLY: dict[str, tuple[Any, ...]] = {
    "hidden_act": tuple(_ACTIVATIONS),
    "model_type": ("clip_text_model",),
    "use_attention_mask": (False,),
}
_WITHOUT_EFFECT = (
    # Of training, of generation, and of how it was saved.
    "architectures attention_dropout bos_token_id dropout dtype gradient_checkpointing "
    "initializer_factor initializer_range pad_token_id torch_dtype transformers_version".split()
)


@dataclass(frozen=True)
class TextEncoderConfig:
    """The settings in a text encoder's config.json; see ``CLIPTextConfig`` in transformers."""

    vocab_size: int = 49408
    hidden_size: int = 512
    intermediate_size: int = 2048
    projection_dim: int = 512
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    eos_token_id: int = 49407
    projects: bool = False

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> TextEncoderConfig:
        """From a config.json; raises UnsupportedConfigError."""
        kinds = given.get("architectures")
        config = read_config(
            cls, given, only=_ONLY, without_effect=_WITHOUT_EFFECT, or_zero=("eos_token_id",)
        )
        if config.hidden_size % config.num_attention_heads:
            raise UnsupportedConfigError(
                f"TextEncoder: hidden_size={config.hidden_size} can't be shared out over "
                f"num_attention_heads={config.num_attention_heads}"
            )
        return replace(config, projects=isinstance(kinds, list) and _PROJECTING in kinds)


class TextStates(NamedTuple):
    """The states into which an encoder turns a text.

    Attributes:
        last: the last layer's states, normalised, ``(batch, tokens, channels)``.
        penultimate: the states before the last layer, not normalised.
        pooled: the end mark's last state ``(batch, channels)``, projected where the encoder does.
    """

    last: Array
    penultimate: Array
    pooled: Array


class SelfAttention(nnx.Module):
    """Causal attention of the tokens to each other."""

    def __init__(self, channels: int, heads: int) -> None:
        self.q_proj = linear(channels, channels)
        self.k_proj = linear(channels, channels)
        self.v_proj = linear(channels, channels)
        self.out_proj = linear(channels, channels)
        self.heads = heads

    def __call__(self, x: Array) -> Array:
        query, key, value = (
            projected.reshape(*x.shape[:2], self.heads, -1)
            for projected in (self.q_proj(x), self.k_proj(x), self.v_proj(x))
        )
        causal = jnp.tri(x.shape[1], dtype=bool)
        scores = jnp.where(causal, attention_scores(query, key), -jnp.inf)
        attended = mean_of_values(softmax(scores), value)
        merged: Array = self.out_proj(attended.reshape(x.shape))
        return merged


class Perceptron(nnx.Module):
    """Two dense layers with an activation between them."""

    def __init__(self, config: TextEncoderConfig) -> None:
        self.fc1 = linear(config.hidden_size, config.intermediate_size)
        self.fc2 = linear(config.intermediate_size, config.hidden_size)
        self.activation = config.hidden_act

    def __call__(self, x: Array) -> Array:
        projected: Array = self.fc2(_ACTIVATIONS[self.activation](self.fc1(x)))
        return projected


class EncoderLayer(nnx.Module):
    """Attention and perceptron, each normalised before and with a way round it."""

    def __init__(self, config: TextEncoderConfig) -> None:
        self.layer_norm1 = layer_norm(config.hidden_size, config.layer_norm_eps)
        self.self_attn = SelfAttention(config.hidden_size, config.num_attention_heads)
        self.layer_norm2 = layer_norm(config.hidden_size, config.layer_norm_eps)
        self.mlp = Perceptron(config)

    def __call__(self, x: Array) -> Array:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class Embeddings(nnx.Module):
    """Embeddings of tokens and positions."""

    def __init__(self, config: TextEncoderConfig) -> None:
        self.token_embedding = embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = embedding(config.max_position_embeddings, config.hidden_size)


class Encoder(nnx.Module):
    """All layers."""

    def __init__(self, config: TextEncoderConfig) -> None:
        self.layers = nnx.List([EncoderLayer(config) for _ in range(config.num_hidden_layers)])


class TextEncoder(nnx.Module):
    """Token ids, or their input embeddings, to hidden states."""

    def __init__(self, config: TextEncoderConfig) -> None:
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.final_layer_norm = layer_norm(config.hidden_size, config.layer_norm_eps)
        self.text_projection = (
            linear(config.hidden_size, config.projection_dim, bias=False)
            if config.projects
            else None
        )

    def embed(self, ids: Array) -> Array:
        """The tokens' input embeddings, ``(batch, tokens, channels)``, without positions."""
        embedded: Array = self.embeddings.token_embedding(ids)
        return embedded

    def __call__(self, ids: Array, token_embeddings: Array | None = None) -> TextStates:
        """The states of ``(batch, tokens)`` ids; ``token_embeddings`` stand for ``embed(ids)``."""
        x = self.embed(ids) if token_embeddings is None else token_embeddings
        x = x + self.embeddings.position_embedding(jnp.arange(x.shape[1]))
        before = x
        for layer in self.encoder.layers:
            before, x = x, layer(x)
        last = self.final_layer_norm(x)
        pooled = last[jnp.arange(last.shape[0]), self._ends(ids)]
        if self.text_projection is not None:
            pooled = self.text_projection(pooled)
        return TextStates(last, before, pooled)

    def _ends(self, ids: Array) -> Array:
        # Old configurations name 2 as the end mark, which it isn't: the end is the highest id.
        if self.config.eos_token_id == 2:
            return ids.argmax(axis=-1)
        return (ids == self.config.eos_token_id).argmax(axis=-1)
