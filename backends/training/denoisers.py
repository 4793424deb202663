"""Text encoder and denoiser as one module, for each kind of diffusion that is trained here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
import torch._dynamo
from diffusers import AutoencoderKL, DiffusionPipeline, StableDiffusionPipeline, ZImagePipeline
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_z_image import ZImageTransformerBlock

from wordlight.backends.training.blueprints import Blueprint
from wordlight.backends.training.networks import (
    build_flow_scheduler,
    build_language_model,
    build_scheduler,
    build_text_encoder,
    build_transformer,
    build_unet,
)
from wordlight.backends.training.places import PlacesHead


class Denoiser(torch.nn.Module, ABC):
    """Text encoder and denoiser as one module: ids and noisy latents in, prediction out.

    ``places`` only helps in training (see ``places.py``).
    """

    def __init__(self, blueprint: Blueprint) -> None:
        super().__init__()
        self.blueprint = blueprint
        self.tokens = blueprint.tokens

    places: PlacesHead

    @abstractmethod
    def encode(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the text encoder's output, ``(batch, context, width)``."""

    @abstractmethod
    def forward(
        self, latents: torch.Tensor, timesteps: torch.Tensor, text: torch.Tensor, ids: torch.Tensor
    ) -> torch.Tensor:
        """Return the prediction, ``(batch, channels, height, width)``."""

    @abstractmethod
    def noised(
        self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return noisy latents and what the prediction of them should be."""

    @abstractmethod
    def compile_parts(self) -> None:
        """Have ``torch.compile`` compile, in place, what takes most of the time."""

    @abstractmethod
    def pipeline(self, autoencoder: AutoencoderKL) -> DiffusionPipeline:
        """Return a plain pipeline of the networks."""


class UNetDenoiser(Denoiser):
    """A Stable Diffusion: CLIP's text model, a UNet with cross-attention, v-prediction."""

    def __init__(self, blueprint: Blueprint, widths: tuple[int, ...]) -> None:
        super().__init__(blueprint)
        self.text_encoder = build_text_encoder(blueprint.sizes, self.tokens)
        self.unet = build_unet(blueprint.sizes, widths)
        self.places = _build_places(blueprint)
        self._scheduler = build_scheduler()

    def encode(self, ids: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.text_encoder(ids).last_hidden_state
        return output

    def forward(
        self, latents: torch.Tensor, timesteps: torch.Tensor, text: torch.Tensor, ids: torch.Tensor
    ) -> torch.Tensor:
        output: torch.Tensor = self.unet(latents, timesteps, text).sample
        return output

    def noised(
        self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        noisy = self._scheduler.add_noise(latents, noise, timesteps)
        return noisy, self._scheduler.get_velocity(latents, noise, timesteps)

    def compile_parts(self) -> None:
        _compile_each(self.unet, (ResnetBlock2D, BasicTransformerBlock))

    def pipeline(self, autoencoder: AutoencoderKL) -> StableDiffusionPipeline:
        return StableDiffusionPipeline(
            vae=autoencoder,
            text_encoder=self.text_encoder,
            tokenizer=self.tokens.build_tokenizer(),
            unet=self.unet,
            scheduler=build_scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )


class ZImageDenoiser(Denoiser):
    """A Z-Image: a Qwen 3 text model, joint attention over image and text, flow matching."""

    #: The pipeline hands the whole prompt to the tokenizer as a chat; here it stays as it is.
    CHAT_TEMPLATE: ClassVar[str] = "{{ messages[0]['content'] }}"

    def __init__(self, blueprint: Blueprint, widths: tuple[int, ...]) -> None:
        super().__init__(blueprint)
        self.text_encoder = build_language_model(blueprint.sizes, self.tokens)
        self.transformer = build_transformer(blueprint.sizes, widths)
        self.places = _build_places(blueprint)
        # The pipeline takes what comes before the last layer.
        self.text_encoder.layers[-1].requires_grad_(False)
        self.text_encoder.norm.requires_grad_(False)
        # 16x16 tokens are a multiple of 32, to which images and texts are filled up.
        self.transformer.x_pad_token.requires_grad_(False)

    def encode(self, ids: torch.Tensor) -> torch.Tensor:
        # Without a mask of its own, it asks whether several texts are packed into a row, and waits.
        causal = {"full_attention": None}
        output: torch.Tensor = self.text_encoder(
            ids, attention_mask=causal, output_hidden_states=True, use_cache=False
        ).hidden_states[-2]
        return output

    def forward(
        self, latents: torch.Tensor, timesteps: torch.Tensor, text: torch.Tensor, ids: torch.Tensor
    ) -> torch.Tensor:
        """Compute what the transformer's own ``forward`` does, of a batch at once.

        That one goes through images and prompts one by one. Here all are as large, and every
        prompt is filled up to the same 32 tokens.
        """
        network, n, channels, side = self.transformer, *latents.shape[:3]
        patches = side // 2
        x = latents.view(n, channels, patches, 2, patches, 2).permute(0, 2, 4, 3, 5, 1)
        x = network.all_x_embedder["2-1"](x.reshape(n, patches * patches, 4 * channels))
        moment = network.t_embedder((1.0 - _sigma(timesteps)) * network.t_scale)
        length = ids.shape[1]
        image_places, text_places = self._places(length, patches, x.device)
        for layer in network.noise_refiner:
            x = layer(x, None, image_places, moment)
        last = (ids == self.tokens.eos_id).int().argmax(1)
        given = torch.arange(length, device=x.device) <= last[:, None]
        prompt = torch.where(given[..., None], network.cap_embedder(text), network.cap_pad_token)
        for layer in network.context_refiner:
            prompt = layer(prompt, None, text_places)
        joint, places = torch.cat([x, prompt], 1), torch.cat([image_places, text_places], 1)
        for layer in network.layers:
            joint = layer(joint, None, places, moment)
        output = network.all_final_layer["2-1"](joint, c=moment)[:, : patches * patches]
        output = output.view(n, patches, patches, 2, 2, channels).permute(0, 5, 1, 3, 2, 4)
        found: torch.Tensor = -output.reshape(latents.shape)
        return found

    def _places(
        self, length: int, patches: int, device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Rotations of image tokens, which come after the text, and of text tokens."""
        grid = self.transformer.create_coordinate_grid
        image = grid((1, patches, patches), (length + 1, 0, 0), device).flatten(0, 2)
        text = grid((length, 1, 1), (1, 0, 0), device).flatten(0, 2)
        embed = self.transformer.rope_embedder
        return embed(image)[None], embed(text)[None]

    def noised(
        self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        sigma = _sigma(timesteps)[:, None, None, None]
        return (1.0 - sigma) * latents + sigma * noise, noise - latents

    def compile_parts(self) -> None:
        _compile_each(self.transformer, (ZImageTransformerBlock,))

    def pipeline(self, autoencoder: AutoencoderKL) -> ZImagePipeline:
        tokenizer: Any = self.tokens.build_tokenizer()
        tokenizer.chat_template = self.CHAT_TEMPLATE
        autoencoder.register_to_config(shift_factor=0.0)
        return ZImagePipeline(
            scheduler=build_flow_scheduler(),
            vae=autoencoder,
            text_encoder=self.text_encoder,
            tokenizer=tokenizer,
            transformer=self.transformer,
        )


#: The most sizes of a kind of block, each of which is compiled; PyTorch allows eight.
_SIZES = 64


def _compile_each(network: torch.nn.Module, kinds: tuple[type[torch.nn.Module], ...]) -> None:
    """Compile each block by itself: alike ones once, where the whole network takes minutes."""
    for module in network.modules():
        if isinstance(module, kinds):
            module.compile(dynamic=False, recompile_limit=_SIZES)


def _build_places(blueprint: Blueprint) -> PlacesHead:
    width, end_id = blueprint.sizes.text_width, blueprint.tokens.eos_id
    return PlacesHead(width, len(blueprint.named), end_id)


def _sigma(timesteps: torch.Tensor) -> torch.Tensor:
    """Return the share of noise, above 0 to 1, of timesteps 0 to 999."""
    return (timesteps.float() + 1.0) / 1000.0


DENOISERS: dict[str, type[UNetDenoiser | ZImageDenoiser]] = {
    "unet": UNetDenoiser,
    "z-image": ZImageDenoiser,
}


def build_denoiser(blueprint: Blueprint, widths: tuple[int, ...]) -> Denoiser:
    """Return a blueprint's denoiser, with random weights."""
    return DENOISERS[blueprint.denoiser](blueprint, widths)
