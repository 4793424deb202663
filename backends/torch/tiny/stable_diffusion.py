"""UNets with CLIP: Stable Diffusion 1 and XL and what is made of them."""

from __future__ import annotations

from typing import Any

from diffusers import (
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)

from wordlight.backends.torch.tiny.parts import autoencoder, quiet, rescaled
from wordlight.backends.torch.tiny.text_encoders import clip_text_encoder
from wordlight.backends.torch.tiny.tokenizers import clip_tokenizer

_BETAS: dict[str, Any] = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "steps_offset": 1,
}
_NO_CHECKER: dict[str, Any] = {"safety_checker": None, "requires_safety_checker": False}


def stable_diffusion() -> StableDiffusionPipeline:
    """Stable Diffusion 1."""
    scheduler = DDIMScheduler(**_BETAS, clip_sample=False, set_alpha_to_one=False)
    return quiet(
        StableDiffusionPipeline(
            **_one_encoder(), scheduler=scheduler, feature_extractor=None, **_NO_CHECKER
        )
    )


def latent_consistency() -> LatentConsistencyModelPipeline:
    """A latent consistency model: guidance is an input of the denoiser."""
    return quiet(
        LatentConsistencyModelPipeline(
            **_one_encoder(time_cond_proj_dim=8),
            scheduler=LCMScheduler(**{**_BETAS, "steps_offset": 0}),
            feature_extractor=None,
            **_NO_CHECKER,
        )
    )


def instruct_pix2pix() -> StableDiffusionInstructPix2PixPipeline:
    """InstructPix2Pix: eight channels in, three rows an image."""
    return quiet(
        StableDiffusionInstructPix2PixPipeline(
            **_one_encoder(in_channels=8),
            scheduler=EulerAncestralDiscreteScheduler(**_BETAS),
            feature_extractor=None,
            **_NO_CHECKER,
        )
    )


def stable_diffusion_xl() -> StableDiffusionXLPipeline:
    """Stable Diffusion XL: two text encoders, joined along the channels."""
    return quiet(
        StableDiffusionXLPipeline(
            **_encoder_one(),
            **_encoder_two(),
            unet=_xl_unet(32, n_time_ids=6),
            vae=autoencoder(4),
            scheduler=EulerDiscreteScheduler(**_BETAS),
            add_watermarker=False,
        )
    )


def stable_diffusion_xl_turbo() -> StableDiffusionXLPipeline:
    """XL Turbo: the same, with the scheduler of a distilled model that uses no guidance."""
    pipe = stable_diffusion_xl()
    pipe.scheduler = EulerAncestralDiscreteScheduler(**_BETAS, timestep_spacing="trailing")
    return pipe


def stable_diffusion_xl_refiner() -> StableDiffusionXLImg2ImgPipeline:
    """XL's refiner: the second encoder alone, and an aesthetic score."""
    return quiet(
        StableDiffusionXLImg2ImgPipeline(
            text_encoder=None,
            tokenizer=None,
            **_encoder_two(),
            unet=_xl_unet(16, n_time_ids=5),
            vae=autoencoder(4),
            scheduler=EulerDiscreteScheduler(**_BETAS),
            requires_aesthetics_score=True,
            add_watermarker=False,
        )
    )


def _one_encoder(**unet: Any) -> dict[str, Any]:
    options: dict[str, Any] = {
        "sample_size": 16,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "cross_attention_dim": 16,
        "attention_head_dim": 2,
        "norm_num_groups": 8,
    }
    denoiser = rescaled(UNet2DConditionModel(**{**options, **unet}))
    return {**_encoder_one(), "unet": denoiser, "vae": autoencoder(4)}


def _encoder_one() -> dict[str, Any]:
    tokenizer = clip_tokenizer()
    return {"tokenizer": tokenizer, "text_encoder": clip_text_encoder(tokenizer)}


def _encoder_two() -> dict[str, Any]:
    tokenizer = clip_tokenizer(pad="!")
    encoder = clip_text_encoder(tokenizer, projection=True)
    return {"tokenizer_2": tokenizer, "text_encoder_2": encoder}


def _xl_unet(channels: int, *, n_time_ids: int) -> UNet2DConditionModel:
    denoiser = UNet2DConditionModel(
        sample_size=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(16, 32),
        layers_per_block=1,
        cross_attention_dim=channels,
        attention_head_dim=(2, 4),
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=16 + 8 * n_time_ids,
        norm_num_groups=8,
    )
    return rescaled(denoiser)
