"""The networks of the embedded models: a Stable Diffusion in every part, only small."""

from __future__ import annotations

from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    UNet2DConditionModel,
    ZImageTransformer2DModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, Qwen3Config, Qwen3Model

from wordlight.backends.training.blueprints import Sizes
from wordlight.backends.word_pieces import WordPieces

#: The last step's share of new noise; 0.012 in Stable Diffusion (see ``build_scheduler``).
BETA_END = 0.02


def build_autoencoder(sizes: Sizes) -> AutoencoderKL:
    """Return an autoencoder that halves 64x64 pixels with each of its levels but the first."""
    return AutoencoderKL(
        sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * len(sizes.autoencoder_widths),
        up_block_types=("UpDecoderBlock2D",) * len(sizes.autoencoder_widths),
        block_out_channels=sizes.autoencoder_widths,
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=sizes.latent_channels,
    )


def build_text_encoder(sizes: Sizes, tokens: WordPieces) -> CLIPTextModel:
    """Return a CLIP text model, to be trained together with the UNet."""
    config = CLIPTextConfig(
        vocab_size=len(tokens.vocabulary),
        hidden_size=sizes.text_width,
        intermediate_size=2 * sizes.text_width,
        num_hidden_layers=sizes.text_layers,
        num_attention_heads=4,
        max_position_embeddings=tokens.context,
        hidden_act="quick_gelu",
        projection_dim=sizes.text_width,
        bos_token_id=tokens.bos_id,
        eos_token_id=tokens.eos_id,
        pad_token_id=tokens.eos_id,
    )
    return CLIPTextModel(config)


def build_unet(sizes: Sizes, widths: tuple[int, ...]) -> UNet2DConditionModel:
    """Return a UNet with cross-attention on every level: 16x16, 8x8, ..."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=sizes.latent_channels,
        out_channels=sizes.latent_channels,
        down_block_types=("CrossAttnDownBlock2D",) * len(widths),
        up_block_types=("CrossAttnUpBlock2D",) * len(widths),
        block_out_channels=widths,
        layers_per_block=1,
        cross_attention_dim=sizes.text_width,
        attention_head_dim=(2, *(4,) * (len(widths) - 1)),  # heads, whatever it is called
        norm_num_groups=8,
    )


def build_language_model(sizes: Sizes, tokens: WordPieces) -> Qwen3Model:
    """Return a Qwen 3, whose last layer the pipeline of Z-Image doesn't use."""
    config = Qwen3Config(
        vocab_size=len(tokens.vocabulary),
        hidden_size=sizes.text_width,
        intermediate_size=2 * sizes.text_width,
        num_hidden_layers=sizes.text_layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=sizes.text_width // 4,
        # The pipeline fills every prompt up to 512 tokens before it takes the others away.
        max_position_embeddings=512,
        bos_token_id=tokens.bos_id,
        eos_token_id=tokens.eos_id,
        pad_token_id=tokens.eos_id,
    )
    return Qwen3Model(config)


def build_transformer(sizes: Sizes, widths: tuple[int, ...]) -> ZImageTransformer2DModel:
    """Return a Z-Image transformer, with as many layers as widths, which are all the same."""
    if len(set(widths)) != 1:
        raise ValueError(f"a transformer's layers are all as wide, not {widths}")
    width, heads = widths[0], 4
    return ZImageTransformer2DModel(
        in_channels=sizes.latent_channels,
        dim=width,
        n_layers=len(widths),
        n_refiner_layers=1,
        n_heads=heads,
        n_kv_heads=heads,
        cap_feat_dim=sizes.text_width,
        # Of a head's channels half say where a token is along the text, the others down and across.
        axes_dims=[width // heads // 2, width // heads // 4, width // heads // 4],
        axes_lens=[1024, 64, 64],
    )


def build_flow_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Return Euler's steps along the flow, more of them where there is much noise."""
    return FlowMatchEulerDiscreteScheduler(shift=3.0)


def build_scheduler() -> DDIMScheduler:
    """DDIM with v-prediction (with epsilon the text stays unused), and noise that hides everything.

    Stable Diffusion's own noise ends at a signal of 0.068, and a few dozen latent pixels of one
    colour are still told from that: what lies where was read off the noise, and the words that say
    so stayed unused. Ending at 0.016, and drawing from there (``trailing``), they are all there is
    (Lin et al., arXiv 2305.08891).
    """
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=BETA_END,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,  # means nothing here, but the pipeline insists
    )
