"""The families of denoisers that are known, and how each differs from the others."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from wordlight.backends.backend import Conditioning
from wordlight.backends.torch.attention_layers import attention_layers, layers_named
from wordlight.backends.torch.call_arguments import CallArguments, remembered
from wordlight.backends.torch.denoisers import Denoiser, Layout
from wordlight.backends.torch.first_call import encode_by_running, lengthened

# Latents that go in as they are, (rows, channels, height, width).


def _own(name: str) -> Callable[[Any, CallArguments], torch.Tensor]:
    def unpack(_module: Any, told: CallArguments) -> torch.Tensor:
        latents: torch.Tensor = told[name]
        return latents

    return unpack


def _whole(_module: Any, latents: torch.Tensor, _told: CallArguments) -> torch.Tensor:
    return latents


def _output(_module: Any, output: Any, told: CallArguments) -> torch.Tensor:
    """The first channels, where more are a variance that was learned too."""
    latents = told.get("hidden_states")
    if isinstance(latents, torch.Tensor) and output.shape[1] == 2 * latents.shape[1]:
        output = output.chunk(2, dim=1)[0]
    prediction: torch.Tensor = output
    return prediction


def _turned(_module: Any, output: Any, _told: CallArguments) -> torch.Tensor:
    prediction: torch.Tensor = -output
    return prediction


def _number(timestep: float, _latents: torch.Tensor) -> float:
    return timestep


def _a_row(timestep: float, latents: torch.Tensor) -> torch.Tensor:
    return torch.full((latents.shape[0],), timestep, device=latents.device, dtype=latents.dtype)


def _a_row_exact(timestep: float, latents: torch.Tensor) -> torch.Tensor:
    return torch.full((latents.shape[0],), timestep, device=latents.device)


def _sides(latents: torch.Tensor) -> tuple[int, int]:
    return int(latents.shape[-2]), int(latents.shape[-1])


def _patches(module: Any, latents: torch.Tensor) -> tuple[int, int]:
    patch = module.config.patch_size
    side = int(patch[-1] if isinstance(patch, (tuple, list)) else patch)
    height, width = _sides(latents)
    return height // side, width // side


def _unet_layout(_module: Any, told: CallArguments) -> Layout:
    """All keys of a text's attention are the text's."""
    grid, length = _sides(told["sample"]), int(told["encoder_hidden_states"].shape[1])
    return Layout(grid, slice(0, length), slice(None), length, length, grid)


def _patched_cross(module: Any, told: CallArguments) -> Layout:
    latents, length = told["hidden_states"], int(told["encoder_hidden_states"].shape[1])
    grid = _patches(module, latents)
    return Layout(grid, slice(0, length), slice(None), length, length, _sides(latents))


def _picture_first(module: Any, told: CallArguments) -> Layout:
    latents, text = told["hidden_states"], int(told["encoder_hidden_states"].shape[1])
    grid = _patches(module, latents)
    places = grid[0] * grid[1]
    return Layout(
        grid, slice(places, places + text), slice(0, places), places + text, text, _sides(latents)
    )


# Latents that go in as tokens, (rows, places, channels), perhaps with those of other pictures after
# them.


def _grid_of_ids(told: CallArguments) -> tuple[int, int]:
    """Height and width from the places' ids (picture, row, column, ...); the first picture's."""

    def read(ids: torch.Tensor) -> tuple[int, int]:
        own = ids if ids.ndim == 2 else ids[0]
        own = own[own[:, 0] == own[0, 0]].cpu()
        # They may begin at another number than 0.
        sides = own[:, 1:3].amax(0) - own[:, 1:3].amin(0) + 1
        return int(sides[0]), int(sides[1])

    return remembered(read, told["img_ids"])


def _grid_of_shapes(told: CallArguments) -> tuple[int, int]:
    """Height and width from the pictures' shapes, row by row; the first picture's."""
    first = told["img_shapes"][0]
    _, height, width = first[0] if isinstance(first[0], (list, tuple)) else first
    return int(height), int(width)


def _grid_of_places(told: CallArguments) -> tuple[int, int]:
    """Height and width from the last places of text and picture (picture, row, column)."""
    return remembered(lambda ids: (int(ids[-1, 1]) + 1, int(ids[-1, 2]) + 1), told["position_ids"])


#: How the picture's grid is read, from the argument that says it.
_GRIDS = {
    "img_ids": _grid_of_ids,
    "img_shapes": _grid_of_shapes,
    "position_ids": _grid_of_places,
}


def grid_told(told: CallArguments) -> tuple[int, int] | None:
    """The picture's grid, from whatever says it; None where nothing does."""
    name = next((name for name in _GRIDS if told.get(name) is not None), None)
    return None if name is None else _GRIDS[name](told)


def _grid(told: CallArguments) -> tuple[int, int]:
    grid = grid_told(told)
    assert grid is not None
    return grid


def _from_tokens(_module: Any, told: CallArguments) -> torch.Tensor:
    return as_grid(told["hidden_states"], _grid(told))


def as_grid(tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """The first picture of tokens ``(rows, places, channels)``, with rows and columns."""
    places: torch.Tensor = tokens[:, : grid[0] * grid[1]].transpose(1, 2).unflatten(2, grid)
    return places


def to_tokens(_module: Any, latents: torch.Tensor, told: CallArguments) -> torch.Tensor:
    """Latents as tokens, those of other pictures behind them."""
    tokens = latents.flatten(2).transpose(1, 2)
    others = told.pop("other_pictures", None)
    return tokens if others is None else torch.cat([tokens, others], dim=1)


def _other_pictures(_module: Any, told: CallArguments) -> CallArguments:
    height, width = _grid(told)
    others = told["hidden_states"][:, height * width :]
    return {"other_pictures": others} if others.shape[1] else {}


def _output_tokens(_module: Any, output: Any, told: CallArguments) -> torch.Tensor:
    return as_grid(output, _grid(told))


def _text_first(_module: Any, told: CallArguments) -> Layout:
    grid, text = _grid(told), int(told["encoder_hidden_states"].shape[1])
    places, length = grid[0] * grid[1], text + int(told["hidden_states"].shape[1])
    return Layout(grid, slice(0, text), slice(text, text + places), length, text, grid)


def _picture_tokens_first(_module: Any, told: CallArguments) -> Layout:
    """The picture and then the text, which has no queries."""
    grid, text = _grid(told), int(told["encoder_hidden_states"].shape[1])
    places = grid[0] * grid[1]
    length = places + text
    return Layout(grid, slice(places, length), slice(0, places), length, text, grid)


def _turned_tokens(module: Any, output: Any, told: CallArguments) -> torch.Tensor:
    return -_output_tokens(module, output, told)


# Videos, whose places have frames before height and width.


def _video_patches(module: Any, latents: torch.Tensor) -> tuple[int, ...]:
    """Frames, height and width of the places of latents with such axes."""
    sides = zip(latents.shape[-3:], module.config.patch_size, strict=True)
    return tuple(int(side) // int(patch) for side, patch in sides)


def _video_cross(module: Any, told: CallArguments) -> Layout:
    latents, length = told["hidden_states"], int(told["encoder_hidden_states"].shape[1])
    grid = _video_patches(module, latents)
    latent_grid = tuple(int(side) for side in latents.shape[-3:])
    return Layout(grid, slice(0, length), slice(None), length, length, latent_grid)


def _told_frames(told: CallArguments) -> tuple[int, int, int]:
    """Frames, height and width, as the denoiser is told them."""
    return int(told["num_frames"]), int(told["height"]), int(told["width"])


def _told_cross(_module: Any, told: CallArguments) -> Layout:
    grid, length = _told_frames(told), int(told["encoder_hidden_states"].shape[1])
    return Layout(grid, slice(0, length), slice(None), length, length, grid)


def _from_told_frames(_module: Any, told: CallArguments) -> torch.Tensor:
    return _in_frames(told["hidden_states"], told)


def _in_frames(tokens: torch.Tensor, told: CallArguments) -> torch.Tensor:
    places: torch.Tensor = tokens.transpose(1, 2).unflatten(2, _told_frames(told))
    return places


def _wan_second(pipe: Any) -> tuple[str, float] | None:
    """Wan 2.2's denoiser of the steps of little noise."""
    ratio = pipe.config.get("boundary_ratio")
    if getattr(pipe, "transformer_2", None) is None or ratio is None:
        return None
    return "transformer_2", float(ratio) * float(pipe.scheduler.config.num_train_timesteps)


# Families of one.


def _ernie(module: Any, told: CallArguments) -> Layout:
    return _picture_first(module, {**told, "encoder_hidden_states": told["text_bth"]})


def _prx(module: Any, told: CallArguments) -> Layout:
    """The text and then the picture, which alone has queries."""
    latents, text = told["hidden_states"], int(told["encoder_hidden_states"].shape[1])
    grid = _patches(module, latents)
    places = grid[0] * grid[1]
    return Layout(
        grid,
        slice(0, text),
        slice(0, places),
        text + places,
        text,
        _sides(latents),
        picture_keys=slice(text, text + places),
    )


def _layers_side_by_side(_module: Any, told: CallArguments) -> torch.Tensor:
    """Return embeddings ``(rows, positions, layers, channels)`` with the layers side by side."""
    embeddings: torch.Tensor = told["encoder_hidden_states"]
    return embeddings.flatten(2)


def _layers_apart(module: Any, embeddings: torch.Tensor) -> CallArguments:
    return {
        "encoder_hidden_states": embeddings.unflatten(2, (int(module.config.num_text_layers), -1))
    }


def _hidream(module: Any, told: CallArguments) -> Layout:
    """The picture, T5's text, Llama's text of its last layer, and Llama's text of another."""
    latents, t5 = told["hidden_states"], int(told["encoder_hidden_states_t5"].shape[1])
    llama = int(told["encoder_hidden_states_llama3"].shape[2])
    grid = _patches(module, latents)
    height, width = _sides(latents)
    # Pictures that aren't square are filled up.
    start = grid[0] * grid[1] if height == width else int(module.max_seq)
    stop = start + t5 + 2 * llama
    places = slice(0, grid[0] * grid[1])
    return Layout(grid, slice(start, stop), places, stop, t5 + llama, (height, width), again=llama)


def _two_texts(_module: Any, told: CallArguments) -> torch.Tensor:
    """T5's embeddings, filled up with channels of zeros, and then Llama's, layers side by side."""
    t5, llama = told["encoder_hidden_states_t5"], told["encoder_hidden_states_llama3"]
    layers = llama.movedim(0, 2).flatten(2)
    wide = torch.nn.functional.pad(t5, (0, layers.shape[-1] - t5.shape[-1]))
    return torch.cat([wide, layers.to(wide.dtype)], dim=1)


def _two_texts_apart(module: Any, embeddings: torch.Tensor) -> CallArguments:
    first, second = embeddings.chunk(2, dim=1)
    *of_llama, of_t5 = module.config.caption_channels
    layers = second.unflatten(2, (-1, int(of_llama[0])))
    return {
        "encoder_hidden_states_t5": first[..., : int(of_t5)],
        "encoder_hidden_states_llama3": layers.movedim(2, 0),
    }


def _lumina_2(module: Any, told: CallArguments) -> Layout:
    """Each row's text, without its padding, and then its picture."""
    latents, mask = told["hidden_states"], told["encoder_attention_mask"]
    grid = _patches(module, latents)
    places = grid[0] * grid[1]
    texts = _counted(mask)
    return Layout(
        grid,
        tuple(slice(0, text) for text in texts),
        tuple(slice(text, text + places) for text in texts),
        max(texts) + places,
        int(mask.shape[1]),
        _sides(latents),
    )


#: Z-Image fills up picture and text to multiples of so many tokens, with learned ones.
_Z_IMAGE_MULTIPLE = 32


def _filled(length: int) -> int:
    return -(-length // _Z_IMAGE_MULTIPLE) * _Z_IMAGE_MULTIPLE


def _z_image(_module: Any, told: CallArguments) -> Layout:
    """The picture and then the text, each filled up with tokens of its own kind."""
    latents, texts = told["x"][0], [len(text) for text in told["cap_feats"]]
    height, width = _sides(latents)
    grid = (height // 2, width // 2)
    start = _filled(grid[0] * grid[1])
    return Layout(
        grid,
        tuple(slice(start, start + text) for text in texts),
        slice(0, grid[0] * grid[1]),
        start + max(_filled(text) for text in texts),
        max(texts),
        (height, width),
    )


def _from_frames(_module: Any, told: CallArguments) -> torch.Tensor:
    return torch.stack(list(told["x"])).squeeze(2)


def _to_frames(_module: Any, latents: torch.Tensor, _told: CallArguments) -> list[torch.Tensor]:
    return list(latents.unsqueeze(2).unbind(0))


def _turned_frames(_module: Any, output: Any, _told: CallArguments) -> torch.Tensor:
    return -torch.stack(list(output)).squeeze(2)


def _one_by_one(_module: Any, embeddings: torch.Tensor) -> CallArguments:
    return {"cap_feats": list(embeddings.unbind(0))}


#: Learned tokens that AuraFlow puts before the text's.
_N_REGISTERS = 8


def _text_then_patches(module: Any, told: CallArguments, n_before: int = 0) -> Layout:
    """Learned tokens, if any, the text, the picture."""
    latents, text = told["hidden_states"], int(told["encoder_hidden_states"].shape[1])
    grid = _patches(module, latents)
    start = n_before + text
    stop = start + grid[0] * grid[1]
    return Layout(grid, slice(n_before, start), slice(start, stop), stop, text, _sides(latents))


def _hunyuan_image(module: Any, told: CallArguments) -> Layout:
    """The picture, the quoted texts' letters, the text, and then both one's padding."""
    latents, mask = told["hidden_states"], told["encoder_attention_mask"]
    grid = _patches(module, latents)
    places, letters = grid[0] * grid[1], told.get("encoder_attention_mask_2")
    texts = _counted(mask)
    n_letters = [0] * len(texts) if letters is None else _counted(letters)
    length = places + int(mask.shape[1]) + (0 if letters is None else int(letters.shape[1]))
    starts = [places + before for before in n_letters]
    return Layout(
        grid,
        tuple(slice(start, start + text) for start, text in zip(starts, texts, strict=True)),
        slice(0, places),
        length,
        int(mask.shape[1]),
        _sides(latents),
    )


def _counted(mask: torch.Tensor) -> list[int]:
    """Return the number of each row's tokens that are no padding."""
    return remembered(lambda given: [int(n) for n in given.sum(dim=1)], mask)


def _kandinsky_5(module: Any, told: CallArguments) -> Layout:
    latents, text = _from_frame(module, told), int(told["encoder_hidden_states"].shape[1])
    grid = _patches(module, latents)
    return Layout(grid, slice(0, text), slice(None), text, text, _sides(latents))


def _from_frame(_module: Any, told: CallArguments) -> torch.Tensor:
    """Unpack latents ``(rows, 1 frame, height, width, channels)``."""
    return _to_picture(_module, told["hidden_states"], told)


def _to_picture(_module: Any, frames: torch.Tensor, _told: CallArguments) -> torch.Tensor:
    return frames[:, 0].movedim(-1, 1)


def _to_frame(_module: Any, latents: torch.Tensor, _told: CallArguments) -> torch.Tensor:
    return latents.movedim(1, -1).unsqueeze(1)


@torch.no_grad()
def _encode_unet(pipe: Any, prompts: Sequence[str], options: Mapping[str, Any]) -> Conditioning:
    """By the pipeline's own ``encode_prompt``; Stable Diffusion XL's has pooled embeddings, too."""
    if not hasattr(pipe, "encode_prompt"):
        # InstructPix2Pix has the older one, which gives embeddings alone.
        return Conditioning(pipe._encode_prompt(list(prompts), pipe._execution_device, 1, False))
    made = pipe.encode_prompt(
        prompt=list(prompts),
        device=pipe._execution_device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=False,
        **{n: v for n, v in options.items() if n in ("clip_skip", "lora_scale")},
    )
    added = {}
    if pipe.unet.config.addition_embed_type == "text_time":
        pooled = made[2]
        added = {"text_embeds": pooled, "time_ids": _own_size(pipe, pooled)}
    return Conditioning(made[0], added)


@torch.no_grad()
def _encode_quoted(pipe: Any, prompts: Sequence[str], options: Mapping[str, Any]) -> Conditioning:
    """By the pipeline's own ``encode_prompt``, one by one: to run it up to its denoiser would have
    the language model write its coarse tokens, which takes longer than the rest."""
    given = {n: v for n, v in options.items() if n == "max_sequence_length"}
    rows = [
        pipe.encode_prompt([prompt], False, dtype=pipe.transformer.dtype, **given)[0][0]
        for prompt in prompts
    ]
    longest = max(len(row) for row in rows)
    return Conditioning(torch.stack([lengthened(row, longest) for row in rows]))


def _edits_pictures(arguments: CallArguments) -> str | None:
    if arguments.get("image") is None:
        return None
    return (
        "GLM-Image attends to the pictures that it edits by keys of passes of their own "
        "(kv_caches), which aren't recorded: call it without image"
    )


def _own_size(pipe: Any, pooled: torch.Tensor) -> torch.Tensor:
    """Time ids of an uncropped image of the model's own size, one row a pooled embedding."""
    sample = pipe.unet.config.sample_size
    sides = sample if isinstance(sample, (tuple, list)) else (sample, sample)
    size = tuple(int(side) * int(pipe.vae_scale_factor) for side in sides)
    told = {
        "original_size": size,
        "crops_coords_top_left": (0, 0),
        "target_size": size,
        "aesthetic_score": 6.0,
        "negative_aesthetic_score": 2.5,
        "negative_original_size": size,
        "negative_crops_coords_top_left": (0, 0),
        "negative_target_size": size,
        "dtype": pooled.dtype,
        "text_encoder_projection_dim": int(pooled.shape[-1]),
    }
    takes = inspect.signature(pipe._get_add_time_ids).parameters
    ids = pipe._get_add_time_ids(**{name: told[name] for name in takes if name in told})
    # Pipelines that start from an image make those of the negative prompt, too.
    own = ids[0] if isinstance(ids, tuple) else ids
    rows: torch.Tensor = own.to(pooled.device).expand(len(pooled), -1)
    return rows


def _added_to_unet(pipe: Any) -> frozenset[str]:
    pooled = pipe.unet.config.addition_embed_type == "text_time"
    return frozenset(("text_embeds", "time_ids") if pooled else ())


def _pushes_from_empty(pipe: Any) -> bool:
    # Stable Diffusion XL may push away from zeros.
    return not _added_to_unet(pipe)


#: What no pipeline of a transformer gives.
_NOT_OF_TRANSFORMERS = {
    "encode_from": "its embeddings aren't the states of one text encoder that is told no padding, "
    "which alone can be run from its input embeddings on"
}
_EXPERTS_ARE_CHOSEN = "experts are chosen place by place, which DeepLIFT has no rule for"
_TEXT_IS_ONLY_ATTENDED_TO = {"concept_attention": "its text doesn't attend to the picture"}
_NOT_OF_VIDEOS = _NOT_OF_TRANSFORMERS | {
    "sample": "how many frames a video has is said to its pipeline: call that inside "
    "wordlight.trace(pipe)",
    "invert": "a picture is no video",
    "decode": "the frames of a video are decoded together, into more frames",
}
_SD_3 = Denoiser(
    name="Stable Diffusion 3",
    classes=("SD3Transformer2DModel",),
    layout=_picture_first,
    unpack=_own("hidden_states"),
    pack=_whole,
    read=_output,
    told_time=_a_row_exact,
    layers=layers_named(r"transformer_blocks\.\d+\.attn"),
    sigma=lambda _module, timestep: timestep / 1000,
    encode=encode_by_running,
    lacks=_NOT_OF_TRANSFORMERS,
)
_FLUX = Denoiser(
    name="Flux.1",
    packed=True,
    classes=("FluxTransformer2DModel",),
    layout=_text_first,
    unpack=_from_tokens,
    pack=to_tokens,
    besides=_other_pictures,
    shared=frozenset(("img_ids", "txt_ids")),
    read=_output_tokens,
    told_time=_a_row,
    layers=layers_named(r"(single_)?transformer_blocks\.\d+\.attn"),
    two_calls=True,
    sigma=lambda _module, timestep: timestep,
    encode=encode_by_running,
    lacks=_NOT_OF_TRANSFORMERS,
)
_COGVIEW_4 = replace(
    _SD_3,
    name="CogView 4",
    classes=("CogView4Transformer2DModel",),
    layout=_text_then_patches,
    layers=layers_named(r"transformer_blocks\.\d+\.attn1"),
    two_calls=True,
    # It is told timesteps as they were before they are shifted by the picture's size.
    sigma=None,
    level_is_recorded=True,
)
#: Every family, the more particular first.
FAMILIES: tuple[Denoiser, ...] = (
    Denoiser(
        name="Stable Diffusion 1, 2 and XL",
        classes=("UNet2DConditionModel",),
        part="unet",
        latents="sample",
        layout=_unet_layout,
        unpack=_own("sample"),
        pack=_whole,
        read=_output,
        told_time=_number,
        layers=attention_layers,
        joint=False,
        feature_maps=True,
        conditional_first=frozenset(
            ("StableDiffusionInstructPix2PixPipeline", "StableDiffusionXLInstructPix2PixPipeline")
        ),
        encode=_encode_unet,
        added_names=_added_to_unet,
        empty_is_negative=_pushes_from_empty,
    ),
    _SD_3,
    # T5 reads the second prompt; CLIP's pooled embedding alone is of the first.
    replace(_FLUX, words="prompt_2", encoder="text_encoder_2", lacks={}),
    replace(
        _FLUX,
        name="Flux.2",
        classes=("Flux2Transformer2DModel",),
        words_are_enough=frozenset(("Flux2Pipeline", "Flux2KleinPipeline")),
    ),
    replace(_FLUX, name="Chroma", classes=("ChromaTransformer2DModel",)),
    replace(
        _FLUX,
        name="Qwen-Image",
        classes=("QwenImageTransformer2DModel",),
        guidance="true_cfg_scale",
    ),
    Denoiser(
        name="Z-Image",
        classes=("ZImageTransformer2DModel",),
        latents="x",
        time="t",
        text="cap_feats",
        layout=_z_image,
        unpack=_from_frames,
        pack=_to_frames,
        read=_turned_frames,
        told_time=_a_row,
        told_text=_one_by_one,
        layers=layers_named(r"layers\.\d+\.attention"),
        conditional_first=frozenset(("DiffusionPipeline",)),
        sigma=lambda _module, timestep: 1 - timestep,
        encode=encode_by_running,
        lacks=_NOT_OF_TRANSFORMERS,
    ),
    replace(
        _SD_3,
        name="PixArt",
        classes=("PixArtTransformer2DModel",),
        layout=_patched_cross,
        layers=layers_named(r"transformer_blocks\.\d+\.attn2", r"transformer_blocks\.\d+\.attn1"),
        joint=False,
        sigma=None,
    ),
    replace(
        _SD_3,
        name="Sana",
        classes=("SanaTransformer2DModel",),
        layout=_patched_cross,
        layers=layers_named(r"transformer_blocks\.\d+\.attn2", None),
        joint=False,
        sigma=lambda module, timestep: timestep / (1000 * module.config.timestep_scale),
        lacks=_NOT_OF_TRANSFORMERS
        | {"self_attention": "its places attend to each other linearly, without a softmax"},
    ),
    replace(
        _SD_3,
        name="Lumina 2",
        classes=("Lumina2Transformer2DModel",),
        layout=_lumina_2,
        read=_turned,
        layers=layers_named(r"layers\.\d+\.attn"),
        two_calls=True,
        sigma=lambda _module, timestep: 1 - timestep,
        lacks=_NOT_OF_TRANSFORMERS
        | {
            "denoise_parts": "the text's states are written into a tensor of the picture's, which "
            "DeepLIFT has no rule for"
        },
    ),
    replace(
        _SD_3,
        name="HunyuanImage 2.1",
        classes=("HunyuanImageTransformer2DModel",),
        layout=_hunyuan_image,
        told_time=_a_row,
        layers=layers_named(r"(single_)?transformer_blocks\.\d+\.attn"),
        two_calls=True,
    ),
    replace(
        _SD_3,
        name="AuraFlow",
        classes=("AuraFlowTransformer2DModel",),
        layout=partial(_text_then_patches, n_before=_N_REGISTERS),
        layers=layers_named(r"(joint|single)_transformer_blocks\.\d+\.attn"),
        sigma=lambda _module, timestep: timestep,
    ),
    _COGVIEW_4,
    replace(
        _COGVIEW_4,
        name="GLM-Image",
        classes=("GlmImageTransformer2DModel",),
        ignored=frozenset(("kv_caches",)),
        refused=_edits_pictures,
        prompt_form='"{prompt}"',
        # The coarse tokens of all images are written by the first one's seed.
        one_image_a_call=True,
        words_are_enough=frozenset(("GlmImagePipeline",)),
        encode=_encode_quoted,
        lacks={
            **_COGVIEW_4.lacks,
            **dict.fromkeys(
                ("attention_keys", "concept_attention"),
                "its text encoder reads text in quotation marks alone, and no words beside it",
            ),
        },
    ),
    replace(
        _SD_3,
        name="Kandinsky 5",
        classes=("Kandinsky5Transformer3DModel",),
        layout=_kandinsky_5,
        unpack=_from_frame,
        pack=_to_frame,
        shared=frozenset(("visual_rope_pos", "text_rope_pos")),
        read=_to_picture,
        told_time=_a_row,
        layers=layers_named(
            r"visual_transformer_blocks\.\d+\.cross_attention",
            r"visual_transformer_blocks\.\d+\.self_attention",
        ),
        joint=False,
        two_calls=True,
    ),
    replace(_FLUX, name="Ovis-Image", classes=("OvisImageTransformer2DModel",)),
    replace(
        _FLUX,
        name="LongCat-Image",
        classes=("LongCatImageTransformer2DModel",),
        as_given=lambda _pipe: {"enable_prompt_rewrite": False},
    ),
    replace(
        _SD_3,
        name="ERNIE-Image",
        classes=("ErnieImageTransformer2DModel",),
        text="text_bth",
        layout=_ernie,
        told_time=_a_row,
        layers=layers_named(r"layers\.\d+\.self_attention"),
        as_given=lambda pipe: {} if pipe.pe is None else {"use_pe": False},
    ),
    replace(
        _SD_3,
        name="PRX",
        classes=("PRXTransformer2DModel",),
        # It is told two timesteps, whatever the number of rows.
        one_image_a_call=True,
        layout=_prx,
        layers=layers_named(r"blocks\.\d+\.attention"),
        sigma=lambda _module, timestep: timestep,
        lacks=_NOT_OF_TRANSFORMERS | _TEXT_IS_ONLY_ATTENDED_TO,
    ),
    replace(
        _FLUX,
        name="Krea 2",
        classes=("Krea2Transformer2DModel",),
        shared=frozenset(("position_ids",)),
        read_text=_layers_side_by_side,
        told_text=_layers_apart,
    ),
    replace(
        _FLUX,
        name="NucleusMoE-Image",
        classes=("NucleusMoEImageTransformer2DModel",),
        layout=_picture_tokens_first,
        read=_turned_tokens,
        lacks=_NOT_OF_TRANSFORMERS
        | _TEXT_IS_ONLY_ATTENDED_TO
        | {"denoise_parts": _EXPERTS_ARE_CHOSEN},
    ),
    replace(
        _SD_3,
        name="HiDream",
        classes=("HiDreamImageTransformer2DModel",),
        time="timesteps",
        text="encoder_hidden_states_t5",
        more_text=("encoder_hidden_states_llama3",),
        layout=_hidream,
        read=_turned,
        read_text=_two_texts,
        told_text=_two_texts_apart,
        layers=layers_named(r"(double|single)_stream_blocks\.\d+\.block\.attn1"),
        lacks=_NOT_OF_TRANSFORMERS
        | {
            "denoise_jvp": "experts are chosen place by place, which has no forward-mode rule",
            "denoise_parts": _EXPERTS_ARE_CHOSEN,
            "attention_vjp": "Llama's tokens stand in two places among its keys",
            "attention_keys": "Llama's tokens stand in two places among its keys",
            "attention_measures": "Llama's tokens stand in two places among its keys",
        },
    ),
    replace(
        _SD_3,
        name="Wan 2.1 and 2.2",
        classes=("WanTransformer3DModel",),
        layout=_video_cross,
        layers=layers_named(r"blocks\.\d+\.attn2", r"blocks\.\d+\.attn1"),
        joint=False,
        two_calls=True,
        second=_wan_second,
        lacks=_NOT_OF_VIDEOS,
    ),
    replace(
        _SD_3,
        name="LTX Video",
        classes=("LTXVideoTransformer3DModel",),
        layout=_told_cross,
        unpack=_from_told_frames,
        pack=to_tokens,
        read=lambda _module, output, told: _in_frames(output, told),
        layers=layers_named(r"transformer_blocks\.\d+\.attn2", r"transformer_blocks\.\d+\.attn1"),
        joint=False,
        lacks=_NOT_OF_VIDEOS,
    ),
)
