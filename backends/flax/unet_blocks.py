"""The blocks of the UNet: down, middle and up, with attention to the text or without."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from flax import nnx

from wordlight.backends.flax.attention import AttentionHook
from wordlight.backends.flax.layers import Array, Convolution, double
from wordlight.backends.flax.residual import ResidualBlock
from wordlight.backends.flax.transformer import Transformer


@dataclass(frozen=True)
class TransformerSettings:
    """The settings of a block's transformers: see ``Transformer``."""

    heads: int
    layers: int
    text_channels: int
    linear_projection: bool


@dataclass(frozen=True)
class NormSettings:
    """The time embedding's channels and the norms' settings, common to all of a UNet's blocks."""

    time_channels: int
    groups: int
    epsilon: float

    def residual(self, inputs: int, outputs: int, scale: float = 1.0) -> ResidualBlock:
        """A residual block that is told the time."""
        return ResidualBlock(
            inputs,
            outputs,
            time_channels=self.time_channels,
            groups=self.groups,
            epsilon=self.epsilon,
            scale=scale,
        )

    def transformers(
        self, name: str, count: int, channels: int, attending: TransformerSettings | None
    ) -> nnx.List[Transformer] | None:
        """A block's transformers; None where it has none."""
        if attending is None:
            return None
        made = [
            Transformer(
                f"{name}.attentions.{i}",
                channels,
                heads=attending.heads,
                layers=attending.layers,
                text_channels=attending.text_channels,
                groups=self.groups,
                linear_projection=attending.linear_projection,
            )
            for i in range(count)
        ]
        return nnx.List(made)


class DownBlock(nnx.Module):
    """Residual blocks, each with a transformer where there is attention, then half the size."""

    def __init__(
        self,
        name: str,
        inputs: int,
        outputs: int,
        layers: int,
        common: NormSettings,
        attending: TransformerSettings | None,
        *,
        halve: bool,
    ) -> None:
        self.resnets = nnx.List(
            [common.residual(outputs if i else inputs, outputs) for i in range(layers)]
        )
        self.attentions = common.transformers(name, layers, outputs, attending)
        self.downsamplers = (
            nnx.List([Convolution(outputs, outputs, 3, stride=2)]) if halve else None
        )

    def __call__(
        self, x: Array, time: Array, text: Array, hook: AttentionHook | None
    ) -> tuple[Array, list[Array]]:
        """The block's output, and what is kept for the way up."""
        kept = []
        for i, resnet in enumerate(self.resnets):
            x = resnet(x, time)
            if self.attentions is not None:
                x = self.attentions[i](x, text, hook)
            kept.append(x)
        if self.downsamplers is not None:
            x = self.downsamplers[0](x)
            kept.append(x)
        return x, kept


class MiddleBlock(nnx.Module):
    """A transformer between two residual blocks."""

    def __init__(
        self, channels: int, common: NormSettings, attending: TransformerSettings, scale: float
    ) -> None:
        self.resnets = nnx.List([common.residual(channels, channels, scale) for _ in range(2)])
        self.attentions = common.transformers("mid_block", 1, channels, attending)

    def __call__(self, x: Array, time: Array, text: Array, hook: AttentionHook | None) -> Array:
        assert self.attentions is not None
        x = self.attentions[0](self.resnets[0](x, time), text, hook)
        deepened: Array = self.resnets[1](x, time)
        return deepened


class UpBlock(nnx.Module):
    """Residual blocks that also take what the way down kept, then twice the size.

    Args:
        name: the module's in the UNet.
        inputs: channels that come from below.
        kept: channels of what the way down kept, for each residual block.
        outputs: channels.
        common, attending: see there.
        enlarge: whether the block ends with twice the size.
    """

    def __init__(
        self,
        name: str,
        inputs: int,
        kept: tuple[int, ...],
        outputs: int,
        common: NormSettings,
        attending: TransformerSettings | None,
        *,
        enlarge: bool,
    ) -> None:
        self.resnets = nnx.List(
            [
                common.residual((outputs if i else inputs) + more, outputs)
                for i, more in enumerate(kept)
            ]
        )
        self.attentions = common.transformers(name, len(kept), outputs, attending)
        self.upsamplers = nnx.List([Convolution(outputs, outputs, 3)]) if enlarge else None

    def __call__(
        self,
        x: Array,
        kept: list[Array],
        time: Array,
        text: Array,
        hook: AttentionHook | None,
    ) -> Array:
        """``kept`` is what the way down kept; the block takes its share from the end."""
        for i, resnet in enumerate(self.resnets):
            x = resnet(jnp.concatenate([x, kept.pop()], axis=-1), time)
            if self.attentions is not None:
                x = self.attentions[i](x, text, hook)
        if self.upsamplers is not None:
            # Odd sizes were rounded on the way down.
            x = self.upsamplers[0](double(x, *kept[-1].shape[1:3]))
        return x
