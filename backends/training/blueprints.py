"""Blueprints of the embedded models: their data, who judges them, and how large their networks
are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from wordlight.backends import prompted_data
from wordlight.backends.prompted_data import PromptedData
from wordlight.backends.scenes import tokenizer as scenes_tokenizer
from wordlight.backends.scenes.grammar import COLOURS
from wordlight.backends.things import tokenizer as things_tokenizer
from wordlight.backends.things.nouns import NOUNS
from wordlight.backends.word_pieces import WordPieces


@dataclass(frozen=True)
class Sizes:
    """The networks' sizes.

    ``denoiser_widths`` are the channels of a UNet's levels, from the largest grid on, or of a
    transformer's layers, which are all the same. Nothing tells a UNet where a pixel is but the
    zeros around the image; at 4x4 every pixel has them beside it, and the words that say where
    things are ("left of") need to know.
    """

    autoencoder_widths: tuple[int, ...]
    latent_channels: int
    text_width: int
    text_layers: int
    denoiser_widths: tuple[int, ...]


@dataclass(frozen=True)
class Blueprint:
    """An embedded model to be trained.

    ``denoiser`` names its kind (see ``denoisers.py``); ``settings`` are what a checkpoint notes;
    ``named`` are the names by which the helping goal of ``places.py`` tells a scene's groups, and
    ``name_of`` a group's.
    """

    denoiser: str
    data: PromptedData
    settings: dict[str, Any]
    tokens: WordPieces
    named: tuple[str, ...]
    name_of: Callable[[Any], str]
    sizes: Sizes


SCENES = Blueprint(
    denoiser="unet",
    data=prompted_data.SCENES,
    settings={"data_version": prompted_data.SCENES.version},
    tokens=scenes_tokenizer.TOKENS,
    named=tuple(COLOURS),
    name_of=lambda group: str(group.colour),
    sizes=Sizes((8, 16, 32), 4, 96, 3, (48, 64, 96)),
)
THINGS = Blueprint(
    denoiser="unet",
    data=prompted_data.THINGS,
    settings={"model": "things", "data_version": prompted_data.THINGS.version},
    tokens=things_tokenizer.TOKENS,
    named=tuple(NOUNS),
    name_of=lambda group: str(group.noun),
    sizes=Sizes((16, 32, 64), 8, 128, 3, (64, 96, 128)),
)
#: Its patches are two by two latents, so that 32x32 latents give it 16x16 tokens.
THINGS_DIT = replace(
    THINGS,
    denoiser="z-image",
    settings={**THINGS.settings, "model": "things-dit"},
    sizes=Sizes((16, 32), 4, 128, 4, (128,) * 8),
)
BLUEPRINTS = {"scenes": SCENES, "things": THINGS, "things-dit": THINGS_DIT}
