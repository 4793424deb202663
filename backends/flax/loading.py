"""Finds a model, embedded, in a folder or on the Hub, and reads its parts; needs no PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

from wordlight.backends.embedded import EMBEDDED
from wordlight.backends.flax.autoencoder import Autoencoder, AutoencoderConfig
from wordlight.backends.flax.checkpoint import load_network, read_json, without_weights
from wordlight.backends.flax.clip_text import TextEncoder, TextEncoderConfig
from wordlight.backends.flax.errors import CheckpointError, UnsupportedConfigError
from wordlight.backends.flax.former import as_today
from wordlight.backends.flax.schedulers import Schedule
from wordlight.backends.flax.unet import UNet, UNetConfig
from wordlight.backends.model_folder import (
    INDEX,
    ModelLoadError,
    check_model_folder,
    is_there,
    read_index,
    revision_of,
    stored_dtype,
)

_WANTED = "this backend reads Stable Diffusion 1.x, 2.x and XL pipelines"
_PARTS = ("scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet", "vae")
#: Parts that a pipeline may have without its denoiser's predictions being others.
_ASIDE = ("feature_extractor", "image_encoder", "safety_checker")
_SETTINGS = [INDEX, *(f"{part}/*{ending}" for part in _PARTS for ending in (".json", ".txt"))]
_WEIGHTS = ["*/model*.safetensors", "*/diffusion_pytorch_model*.safetensors"]
_FORMER_WEIGHTS = ["*/flax_model*.msgpack*", "*/diffusion_flax_model*.msgpack*"]


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model's parts, with weights in float32, and what stands for it."""

    name: str
    revision: str | None
    tokenizer: Any
    schedule: Schedule
    text_encoder: TextEncoder
    unet: UNet
    autoencoder: Autoencoder
    tokenizer_2: Any = None
    text_encoder_2: TextEncoder | None = None
    #: Whether guidance is away from zeros, where no negative prompt is given.
    zeros_for_empty: bool = False
    #: In which its files have it, as far as it is computed in that here.
    dtype: str = "float32"

    def without_weights(self) -> LoadedModel:
        """Return the model with shapes in the place of its weights."""
        return replace(
            self,
            text_encoder=without_weights(self.text_encoder),
            text_encoder_2=self.text_encoder_2 and without_weights(self.text_encoder_2),
            unet=without_weights(self.unet),
            autoencoder=without_weights(self.autoencoder),
        )


def load_model(
    model: str | Path | Any, revision: str | None = None, scheduler: str | None = None
) -> LoadedModel:
    """Find and read a model.

    The revision of a folder is a digest of its files, so that results can't be taken for those of
    other weights under the same name; that of a Hub id is the commit.

    Raises ModelLoadError, saying what would have been right.
    """
    if not isinstance(model, (str, Path)):
        raise ModelLoadError(
            f"a model is a name or a folder for the Flax backend, not a {type(model).__name__}: a "
            "pipeline of PyTorch's is saved first, with save_pretrained(folder)"
        )
    name = str(model)
    folder = EMBEDDED.get(name) or Path(model)
    if is_there(folder):
        if revision is not None:
            raise ModelLoadError("a revision is of a Hub id; a folder holds what it holds")
        return read_folder(folder, name, revision_of(folder), scheduler)
    if name in EMBEDDED:
        raise ModelLoadError(f"this installation lacks the weights of {name!r} ({folder})")
    if isinstance(model, Path) or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelLoadError(
            f"no model {name!r}: there is no such folder, and a Hub id looks like 'owner/name'; "
            f"embedded: {', '.join(EMBEDDED)}"
        )
    folder = _download(name, revision)
    return read_folder(folder, name, folder.name, scheduler)


def read_folder(
    folder: Path, name: str, revision: str | None, scheduler: str | None = None
) -> LoadedModel:
    """Read a folder in diffusers' format; raises ModelLoadError."""
    index = check_kind(folder)
    check_model_folder(folder)
    path = folder / "scheduler" / "scheduler_config.json"
    try:
        schedule = Schedule(read_json(path), scheduler)
    except UnsupportedConfigError as error:
        raise UnsupportedConfigError(f"{path}: {error}") from None
    loaded = LoadedModel(
        name=name,
        revision=revision,
        tokenizer=_read_tokenizer(folder / "tokenizer"),
        schedule=schedule,
        text_encoder=load_network(folder / "text_encoder", TextEncoderConfig.read, TextEncoder),
        unet=load_network(folder / "unet", UNetConfig.read, UNet),
        autoencoder=load_network(folder / "vae", AutoencoderConfig.read, Autoencoder),
        dtype="bfloat16" if stored_dtype(folder, "unet") == "bfloat16" else "float32",
        **(_second_text(folder, index) if "XL" in index["_class_name"] else {}),
    )
    for number, tokenizer, encoder in (
        ("", loaded.tokenizer, loaded.text_encoder),
        ("_2", loaded.tokenizer_2, loaded.text_encoder_2),
    ):
        if encoder is None:
            continue
        config, where = encoder.config, folder / f"tokenizer{number}"
        if max(tokenizer.get_vocab().values()) >= config.vocab_size:
            raise CheckpointError(
                f"{where} knows more words ({len(tokenizer)}) than its text encoder "
                f"({config.vocab_size})"
            )
        # Positions beyond the last have no embedding: JAX would give NaN.
        if tokenizer.model_max_length > config.max_position_embeddings:
            raise CheckpointError(
                f"{where}: model_max_length is {tokenizer.model_max_length}, and its text encoder "
                f"reads {config.max_position_embeddings} tokens"
            )
    told = loaded.unet.config.addition_time_embed_dim is not None
    if told != (loaded.text_encoder_2 is not None):
        raise UnsupportedConfigError(
            f"{folder}: a UNet that takes added conditioning has two text encoders (Stable "
            "Diffusion XL), and any other one has one"
        )
    seen, made = loaded.unet.config.in_channels, loaded.autoencoder.config.latent_channels
    if seen != made:
        raise UnsupportedConfigError(
            f"{folder}: the UNet sees {seen} channels of latents that have {made}, so it was "
            f"trained for something else (inpainting, say); {_WANTED}"
        )
    return loaded


def _second_text(folder: Path, index: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts that Stable Diffusion XL has beside those of 1.x or 2.x."""
    encoder = load_network(folder / "text_encoder_2", TextEncoderConfig.read, TextEncoder)
    return {
        "tokenizer_2": _read_tokenizer(folder / "tokenizer_2"),
        "text_encoder_2": encoder,
        "zeros_for_empty": bool(index.get("force_zeros_for_empty_prompt", True)),
    }


def check_kind(folder: Path) -> Mapping[str, Any]:
    """The folder's index; raises ModelLoadError where it holds nothing that is read here."""
    index = as_today(read_index(folder))
    kind = str(index["_class_name"])
    if not kind.startswith("StableDiffusion") or "3" in kind:
        raise ModelLoadError(f"{folder} holds a {kind}; {_WANTED}")
    for part, what in index.items():
        # [library, class], of nothing where a part was left out.
        if isinstance(what, list) and any(what) and part not in (*_PARTS, *_ASIDE):
            raise ModelLoadError(f"{folder} holds a {kind} with a {part}; {_WANTED}")
    return index


def _read_tokenizer(folder: Path) -> Any:
    # Importing transformers takes seconds.
    from transformers import CLIPTokenizer

    try:
        tokenizer = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # of what a damaged file raises there, some is a bare Exception
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{folder} holds no CLIP tokenizer: {reason}") from None
    return tokenizer


def _download(name: str, revision: str | None) -> Path:
    """Fetch from the Hub, or find in its cache, what this backend reads."""

    def fetch(*patterns: str, without: tuple[str, ...] = ()) -> Path:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=list(patterns),
                ignore_patterns=list(without),
            )
        )

    try:
        # Its kind is known before gigabytes are fetched.
        folder = fetch(*_SETTINGS)
        check_kind(folder)
        fetch(*_WEIGHTS, without=("*.fp16*", "*non_ema*", "safety_checker/*"))
        for part in ("text_encoder", "text_encoder_2", "unet", "vae"):
            if (folder / part).is_dir() and not list((folder / part).glob("*.safetensors")):
                fetch(*(f"{part}/{stem[2:]}" for stem in _WEIGHTS), without=("*non_ema*",))
            if (folder / part).is_dir() and not list((folder / part).glob("*.safetensors")):
                fetch(*(f"{part}/{stem[2:]}" for stem in _FORMER_WEIGHTS))
    except (OSError, ValueError) as error:
        if isinstance(error, ModelLoadError):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelLoadError(
            f"{name!r} is neither a folder here nor a model that the Hub gives: {reason}"
        ) from None
    return folder
