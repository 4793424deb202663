"""Loads a segmenter's network and processor with transformers, and checks that they are right."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from wordlight.backends.model_folder import is_there, revision_of
from wordlight.backends.segmenters.segmenter import SegmenterLoadError


def load_network(
    kind: str, model: str, revision: str | None, device: str | None
) -> tuple[Any, Any, str | None]:
    """Network, processor and revision of a Hub id or a folder; safetensors only, none of its code.

    Raises SegmenterLoadError where there are none, or not all weights, or those of another kind.
    """
    folder = Path(model)
    local = is_there(folder)
    if not local and (model.startswith(("/", ".", "~")) or model.count("/") > 1):
        raise SegmenterLoadError(f"there is no folder {model}, and it can't be a Hub id")
    try:
        import torch
        import transformers
    except ImportError as error:
        raise SegmenterLoadError(
            f"segmenters need packages that aren't installed ({error}): "
            "pip install 'wordlight[torch]'"
        ) from None
    classes = {
        "mask2former": transformers.Mask2FormerForUniversalSegmentation,
        "oneformer": transformers.OneFormerForUniversalSegmentation,
        "clipseg": transformers.CLIPSegForImageSegmentation,
    }
    # Without it transformers asks at the terminal whether a model's own code may run.
    where: dict[str, Any] = {"trust_remote_code": False}
    if not local:
        where["revision"] = revision
    try:
        config = transformers.AutoConfig.from_pretrained(model, **where)
        if config.model_type != kind:
            raise SegmenterLoadError(f"{model} is a {config.model_type} model, and no {kind}")
        if not local:
            # A branch may go on meanwhile: the rest is of the commit that was found.
            where["revision"] = _commit_of(model, revision)
        with _without_bar(transformers):
            network, report = classes[kind].from_pretrained(
                model, config=config, use_safetensors=True, output_loading_info=True, **where
            )
        processor = _processor(transformers, kind, model, where)
    except SegmenterLoadError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SegmenterLoadError(f"no {kind} can be loaded from {model}: {reason}") from None
    # Weights that are missing would be random, and nobody would know.
    parameters = {name for name, _ in network.named_parameters()}
    if missing := sorted(parameters & set(report["missing_keys"])):
        raise SegmenterLoadError(f"{model} lacks {len(missing)} weights, such as {missing[0]}")
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    found = revision_of(folder) if local else where["revision"]
    return network.to(chosen).eval(), processor, found


def digest_of_weights(network: Any) -> str:
    """A digest of a network's weights: the same wherever they were loaded from, and in however many
    files."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        # numpy knows no bfloat16, but its bytes.
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _commit_of(model: str, revision: str | None) -> str:
    from huggingface_hub import hf_hub_download

    # In the Hub's cache a folder is called by its commit.
    return Path(hf_hub_download(model, "config.json", revision=revision)).parent.name


@contextmanager
def _without_bar(transformers: Any) -> Iterator[None]:
    """None for the second in which weights are loaded; what was set is put back."""
    log = transformers.utils.logging
    shown = log.is_progress_bar_enabled()
    log.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            log.enable_progress_bar()


def _processor(transformers: Any, kind: str, model: str, where: dict[str, Any]) -> Any:
    if kind == "mask2former":
        return transformers.AutoImageProcessor.from_pretrained(model, **where)
    return transformers.AutoProcessor.from_pretrained(model, **where)
