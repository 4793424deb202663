"""The ways in which people run pipelines: precisions, adapters, offloading, further inputs.

Each is a function of a tiny pipeline that makes it such a one, and says what its call needs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import diffusers
import torch
from accelerate import cpu_offload
from diffusers import (
    AutoPipelineForImage2Image,
    AutoPipelineForInpainting,
    AutoPipelineForText2Image,
)
from diffusers.models.attention_processor import (
    IPAdapterAttnProcessor2_0,
    SD3IPAdapterJointAttnProcessor2_0,
)
from diffusers.models.embeddings import (
    ImageProjection,
    IPAdapterTimeImageProjection,
    MultiIPAdapterImageProjection,
)
from diffusers.models.transformers.transformer_flux import FluxIPAdapterAttnProcessor

from wordlight.backends.torch.model import Model
from wordlight.backends.torch.tiny.parts import quiet, rescaled

#: Channels of an image prompt's embeddings.
_WIDTH = 16


class NotOfferedError(Exception):
    """Says that diffusers has no such way for a family."""


#: Takes a tiny pipeline, a picture and a mask; gives the pipeline to be called, and with what.
Way = Callable[[Any, Any, Any], tuple[Any, Mapping[str, Any]]]


def in_precision(dtype: torch.dtype) -> Way:
    """Run in another precision."""
    return lambda pipe, _picture, _mask: (pipe.to(dtype), {})


def with_lora(pipe: Any, _picture: Any, _mask: Any) -> tuple[Any, Mapping[str, Any]]:
    """With a LoRA of rank 2 on every projection of the attention to the text."""
    from peft import LoraConfig

    model = Model.of(pipe)
    names = [
        f"{layer}.{name}"
        for layer, module in model.attending("cross").items()
        for name, part in module.named_modules()
        if isinstance(part, torch.nn.Linear)
    ]
    if not hasattr(model.module, "add_adapter"):
        raise NotOfferedError(f"a {type(model.module).__name__} takes no adapter")
    adapted: Any = model.module
    adapted.add_adapter(LoraConfig(r=2, target_modules=names, init_lora_weights=False))
    return pipe, {}


def offloaded(pipe: Any, _picture: Any, _mask: Any) -> tuple[Any, Mapping[str, Any]]:
    """Each model brought to the device when its turn comes; here from the CPU to the CPU."""
    pipe.enable_model_cpu_offload(device="cpu")
    return pipe, {}


def offloaded_by_layer(pipe: Any, _picture: Any, _mask: Any) -> tuple[Any, Mapping[str, Any]]:
    """Each layer brought to the device when its turn comes, as by
    ``enable_sequential_cpu_offload``, whose own choice of buffers fails from the CPU to the CPU."""
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            # Pipelines of Flux.2 look into their autoencoder's.
            cpu_offload(part, torch.device("cpu"), offload_buffers=part is not pipe.vae)
    return pipe, {}


def offloaded_by_group(pipe: Any, _picture: Any, _mask: Any) -> tuple[Any, Mapping[str, Any]]:
    """Groups of the denoiser's layers brought to the device when their turn comes."""
    model = Model.of(pipe)
    if not hasattr(model.module, "enable_group_offload"):
        raise NotOfferedError(f"a {type(model.module).__name__} has no group offload")
    grouped: Any = model.module
    grouped.enable_group_offload(onload_device=torch.device("cpu"), offload_type="leaf_level")
    return pipe, {}


def compiled(pipe: Any, _picture: Any, _mask: Any) -> tuple[Any, Mapping[str, Any]]:
    """The denoiser behind ``torch.compile``."""
    part = Model.of(pipe).family.part
    setattr(pipe, part, torch.compile(getattr(pipe, part), backend="eager"))
    return pipe, {}


def sliced(pipe: Any, _picture: Any, _mask: Any) -> tuple[Any, Mapping[str, Any]]:
    """Attention computed slice by slice."""
    if not hasattr(Model.of(pipe).module, "set_attention_slice"):
        raise NotOfferedError("its denoiser has no attention slicing")
    pipe.enable_attention_slicing("max")
    return pipe, {}


def fused(pipe: Any, _picture: Any, _mask: Any) -> tuple[Any, Mapping[str, Any]]:
    """Queries, keys and values by one product."""
    module: Any = Model.of(pipe).module
    if not hasattr(module, "fuse_qkv_projections"):
        raise NotOfferedError("its denoiser has no fused projections")
    try:
        module.fuse_qkv_projections()
    except AttributeError as error:
        raise NotOfferedError(f"diffusers can't fuse them, {error}") from None
    return pipe, {}


def channels_last(pipe: Any, _picture: Any, _mask: Any) -> tuple[Any, Mapping[str, Any]]:
    """Weights of convolutions with channels as the last axis in memory."""
    module: Any = Model.of(pipe).module
    frames = any(weight.ndim == 5 for weight in module.parameters())
    module.to(memory_format=torch.channels_last_3d if frames else torch.channels_last)
    return pipe, {}


def from_picture(pipe: Any, picture: Any, _mask: Any) -> tuple[Any, Mapping[str, Any]]:
    """From a picture under noise."""
    made = _of_kind(AutoPipelineForImage2Image, pipe)
    if "Flux2" in type(made).__name__:
        # It takes pictures of 64 pixels a side or more.
        picture = picture.resize((2 * picture.width, 2 * picture.height))
    return made, {"image": picture, "strength": 0.9, "num_inference_steps": 3}


def inpainting(pipe: Any, picture: Any, mask: Any) -> tuple[Any, Mapping[str, Any]]:
    """A part of a picture drawn anew."""
    made = _of_kind(AutoPipelineForInpainting, pipe)
    given = {"image": picture, "mask_image": mask, "strength": 0.9, "num_inference_steps": 3}
    return made, given


def _of_kind(kind: Any, pipe: Any, **parts: Any) -> Any:
    try:
        return quiet(kind.from_pipe(pipe, **parts))
    except ValueError as error:
        if "can't find a pipeline" not in str(error):
            raise
        raise NotOfferedError(f"diffusers' {kind.__name__} has none for it") from None


#: Pictures that a ControlNet reads, by the names of its class and its pipelines' argument.
_CONTROLNETS: dict[str, tuple[str, str]] = {
    "UNet2DConditionModel": ("ControlNetModel", "image"),
    "SD3Transformer2DModel": ("SD3ControlNetModel", "control_image"),
    "FluxTransformer2DModel": ("FluxControlNetModel", "control_image"),
    "QwenImageTransformer2DModel": ("QwenImageControlNetModel", "control_image"),
}


def with_controlnet(pipe: Any, picture: Any, _mask: Any) -> tuple[Any, Mapping[str, Any]]:
    """With a ControlNet that reads a picture."""
    denoiser: Any = Model.of(pipe).module
    name, argument = _CONTROLNETS.get(type(denoiser).__name__, ("", ""))
    if not name:
        raise NotOfferedError("not tried: diffusers makes no ControlNet of its denoiser")
    if denoiser.config.get("time_cond_proj_dim"):
        raise NotOfferedError("diffusers' ControlNet isn't told the strength of guidance")
    if pipe.config.get("requires_aesthetics_score"):
        raise NotOfferedError("diffusers' ControlNet isn't told the aesthetic score")
    network = rescaled(_controlnet(getattr(diffusers, name), denoiser))
    made = _of_kind(AutoPipelineForText2Image, pipe, controlnet=network)
    if "controlnet" not in inspect.signature(type(made).__init__).parameters:
        raise NotOfferedError("diffusers' AutoPipelineForText2Image has none for it")
    return made, {argument: picture}


def _controlnet(kind: Any, denoiser: Any) -> Any:
    if hasattr(kind, "from_unet"):
        # The tiny autoencoders halve a picture's sides once.
        return kind.from_unet(denoiser, conditioning_embedding_out_channels=(8, 8))
    takes = inspect.signature(kind.from_transformer).parameters
    sizes = ("num_layers", "num_single_layers", "attention_head_dim", "num_attention_heads")
    given = {name: denoiser.config[name] for name in sizes if name in takes}
    if "num_extra_conditioning_channels" in takes:
        given["num_extra_conditioning_channels"] = 0
    return kind.from_transformer(denoiser, load_weights_from_transformer=False, **given)


def with_ip_adapter(pipe: Any, _picture: Any, _mask: Any) -> tuple[Any, Mapping[str, Any]]:
    """With an image prompt, whose embeddings are given."""
    if "ip_adapter_image_embeds" not in inspect.signature(type(pipe).__call__).parameters:
        raise NotOfferedError("its pipeline takes no image prompt")
    module: Any = Model.of(pipe).module
    adapted = _IP_ADAPTERS.get(type(module).__name__)
    if adapted is None:
        raise NotOfferedError("not tried: its denoiser has an IP-Adapter of its own kind")
    given = adapted(module)
    if "InstructPix2Pix" in type(pipe).__name__:
        # Three rows an image, of which the last has no picture.
        given = [torch.cat([given[0], given[0][:1]])]
    return pipe, {
        "ip_adapter_image_embeds": given,
        "negative_ip_adapter_image_embeds": given,
        "guidance_scale": 5.0,
    }


def _image_projection(module: Any, width: int) -> None:
    projection = ImageProjection(_WIDTH, width, num_image_text_embeds=4)
    module.encoder_hid_proj = rescaled(MultiIPAdapterImageProjection([projection]))
    module.register_to_config(encoder_hid_dim_type="ip_image_proj")


def _adapted_unet(unet: Any) -> list[torch.Tensor]:
    width = int(unet.config.cross_attention_dim)
    modules = dict(unet.named_modules())
    processors = dict(unet.attn_processors)
    for name in processors:
        inner = int(modules[name.removesuffix(".processor")].to_k.out_features)
        if name.endswith("attn2.processor"):
            processors[name] = rescaled(IPAdapterAttnProcessor2_0(inner, width, num_tokens=[4]))
    unet.set_attn_processor(processors)
    _image_projection(unet, width)
    # Of a latent consistency model guidance is an input.
    rows = 2 if unet.config.time_cond_proj_dim is None else 1
    return [torch.randn(rows, 1, _WIDTH, generator=torch.Generator().manual_seed(0))]


def _adapted_flux(transformer: Any) -> list[torch.Tensor]:
    inner, width = transformer.inner_dim, int(transformer.config.joint_attention_dim)
    transformer.set_attn_processor(
        {
            name: processor
            if name.startswith("single")
            else rescaled(FluxIPAdapterAttnProcessor(inner, width, num_tokens=[4]))
            for name, processor in transformer.attn_processors.items()
        }
    )
    _image_projection(transformer, width)
    return [torch.randn(1, 1, _WIDTH, generator=torch.Generator().manual_seed(0))]


def _adapted_sd3(transformer: Any) -> torch.Tensor:
    inner = transformer.inner_dim
    transformer.set_attn_processor(
        {
            name: rescaled(
                SD3IPAdapterJointAttnProcessor2_0(
                    inner, inner, transformer.config.attention_head_dim, timesteps_emb_dim=inner
                )
            )
            for name in transformer.attn_processors
        }
    )
    transformer.image_proj = rescaled(
        IPAdapterTimeImageProjection(
            embed_dim=_WIDTH,
            output_dim=inner,
            hidden_dim=inner,
            depth=1,
            dim_head=8,
            heads=2,
            num_queries=4,
            timestep_in_dim=320,
        )
    )
    return torch.randn(2, 3, _WIDTH, generator=torch.Generator().manual_seed(0))


_IP_ADAPTERS: dict[str, Callable[[Any], Any]] = {
    "UNet2DConditionModel": _adapted_unet,
    "FluxTransformer2DModel": _adapted_flux,
    "SD3Transformer2DModel": _adapted_sd3,
}


def with_t2i_adapter(pipe: Any, picture: Any, _mask: Any) -> tuple[Any, Mapping[str, Any]]:
    """With a T2I-Adapter that reads a picture."""
    kinds = {
        "StableDiffusionPipeline": diffusers.StableDiffusionAdapterPipeline,
        "StableDiffusionXLPipeline": diffusers.StableDiffusionXLAdapterPipeline,
    }
    kind = kinds.get(type(pipe).__name__)
    if kind is None:
        raise NotOfferedError("diffusers has T2I-Adapters of Stable Diffusion 1 and XL alone")
    takes = inspect.signature(kind.__init__).parameters
    parts = {name: part for name, part in pipe.components.items() if name in takes}
    # XL's first block has no attention: its features are added when it has halved the picture.
    is_xl = "XL" in kind.__name__
    adapter = diffusers.T2IAdapter(
        in_channels=3,
        channels=list(pipe.unet.config.block_out_channels),
        num_res_blocks=1,
        downscale_factor=4 if is_xl else 2,
        adapter_type="full_adapter_xl" if is_xl else "full_adapter",
    )
    options = {"requires_safety_checker": False} if "safety_checker" in takes else {}
    return quiet(kind(**parts, adapter=rescaled(adapter), **options)), {"image": picture}


def with_learned_word(pipe: Any, _picture: Any, _mask: Any) -> tuple[Any, Mapping[str, Any]]:
    """With a word of two vectors that was learned by textual inversion."""
    if not hasattr(pipe, "load_textual_inversion"):
        raise NotOfferedError("its pipeline takes no learned words")
    for number in ("", "_2"):
        encoder, tokenizer = (
            getattr(pipe, f"{name}{number}", None) for name in ("text_encoder", "tokenizer")
        )
        if encoder is not None:
            width = encoder.get_input_embeddings().embedding_dim
            generator = torch.Generator().manual_seed(0)
            pipe.load_textual_inversion(
                torch.randn(2, width, generator=generator) * width**-0.5,
                token="<thing>",
                text_encoder=encoder,
                tokenizer=tokenizer,
            )
    return pipe, {"prompt": "a red <thing> circle"}


def told(**options: Any) -> Way:
    """Called with options that some pipelines take."""

    def way(pipe: Any, _picture: Any, _mask: Any) -> tuple[Any, Mapping[str, Any]]:
        for name in options:
            if name not in inspect.signature(type(pipe).__call__).parameters:
                raise NotOfferedError(f"its pipeline takes no {name}")
        return pipe, options

    return way


def with_own_sigmas(pipe: Any, _picture: Any, _mask: Any) -> tuple[Any, Mapping[str, Any]]:
    """With noise levels that the caller chose."""
    if "sigmas" not in inspect.signature(type(pipe).__call__).parameters:
        raise NotOfferedError("its pipeline takes no sigmas")
    if hasattr(pipe, "unet"):
        pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipe.scheduler.config)
        return pipe, {"sigmas": [12.0, 4.0, 0.7], "num_inference_steps": 3}
    if "sigmas" not in inspect.signature(pipe.scheduler.set_timesteps).parameters:
        raise NotOfferedError("its scheduler takes no sigmas")
    return pipe, {"sigmas": [1.0, 0.7, 0.3], "num_inference_steps": 3}


def with_perturbed_attention(pipe: Any, _picture: Any, _mask: Any) -> tuple[Any, Mapping[str, Any]]:
    """Guided by perturbed attention, too."""
    made = _of_kind(AutoPipelineForText2Image, pipe, enable_pag=True)
    if "PAG" not in type(made).__name__:
        raise NotOfferedError("diffusers has no perturbed-attention guidance for it")
    return made, {"pag_scale": 3.0, "guidance_scale": 5.0}


def stopped(pipe: Any, _picture: Any, _mask: Any) -> tuple[Any, Mapping[str, Any]]:
    """Stopped by a callback after the second of three steps."""
    if "callback_on_step_end" not in inspect.signature(type(pipe).__call__).parameters:
        raise NotOfferedError("its pipeline takes no callback")
    if not hasattr(type(pipe), "interrupt"):
        raise NotOfferedError("its pipeline can't be stopped")

    def stop(running: Any, step: int, _time: Any, values: dict[str, Any]) -> dict[str, Any]:
        running._interrupt = step == 1
        return values

    return pipe, {"callback_on_step_end": stop, "num_inference_steps": 3}


#: Ways that compute what the plain pipeline does, and may round otherwise.
SAME: dict[str, Way] = {
    "model offload": offloaded,
    "sequential offload": offloaded_by_layer,
    "group offload": offloaded_by_group,
    "torch.compile": compiled,
    "attention slicing": sliced,
    "fused projections": fused,
    "channels last": channels_last,
}
#: Ways that compute something else.
OTHERS: dict[str, Way] = {
    "float16": in_precision(torch.float16),
    "bfloat16": in_precision(torch.bfloat16),
    "LoRA": with_lora,
    "image to image": from_picture,
    "inpainting": inpainting,
    "ControlNet": with_controlnet,
    "IP-Adapter": with_ip_adapter,
    "T2I-Adapter": with_t2i_adapter,
    "textual inversion": with_learned_word,
    "clip_skip": told(clip_skip=1),
    "guidance_rescale": told(guidance_rescale=0.7),
    "sigmas": with_own_sigmas,
    "perturbed attention": with_perturbed_attention,
    "stopped": stopped,
}
