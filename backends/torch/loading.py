"""Finds a Stable Diffusion pipeline: embedded, in a folder, on the Hub, or already alive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    EulerDiscreteScheduler,
)
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import hf_hub_download
from transformers.models.t5gemma.configuration_t5gemma import T5GemmaModuleConfig
from transformers.utils import logging as transformers_logging

from wordlight.backends.embedded import EMBEDDED
from wordlight.backends.model_folder import (
    INDEX,
    ModelLoadError,
    check_model_folder,
    components,
    is_there,
    loading_bar,
    read_index,
    revision_of,
    stored_dtype,
)
from wordlight.backends.regular_files import read_json_file
from wordlight.backends.torch.families import FAMILIES

_LOGS = (diffusers_logging, transformers_logging)
_DTYPES = ("float32", "float64", "float16", "bfloat16")
_SCHEDULERS = {"ddim": DDIMScheduler, "euler": EulerDiscreteScheduler}
_WANTED = "this backend reads pipelines of " + ", ".join(family.name for family in FAMILIES)


@dataclass(frozen=True)
class LoadedPipeline:
    """A pipeline on its device, and the name and revision that stand for it."""

    pipe: Any
    name: str
    revision: str | None


def load_pipeline(
    model: str | Path | Any,
    device: str | None,
    dtype: str | None,
    revision: str | None,
    scheduler: str | None = None,
) -> LoadedPipeline:
    """Find and load a pipeline; another scheduler than its own goes through the same noise.

    The revision of a folder is a digest of its weights, so that results can't be taken for those
    of other weights under the same name.

    Raises ModelLoadError, saying what would have been right.
    """
    if dtype is not None and dtype not in _DTYPES:
        raise ModelLoadError(f"dtype must be one of {', '.join(_DTYPES)}, not {dtype!r}")
    if scheduler is not None and scheduler not in _SCHEDULERS:
        raise ModelLoadError(f"scheduler must be 'ddim' or 'euler', not {scheduler!r}")
    if isinstance(model, DiffusionPipeline):
        if scheduler is not None:
            raise ModelLoadError("a live pipeline is used as it is: set its scheduler")
        if device is not None or dtype is not None:
            raise ModelLoadError("a live pipeline is used as it is: move it with pipe.to(...)")
        name = str(model.config.get("_name_or_path") or type(model).__name__)
        return LoadedPipeline(model, name, revision)
    if not isinstance(model, (str, Path)):
        raise ModelLoadError(
            f"a model is a name, a folder or a diffusers pipeline, not {type(model).__name__}"
        )
    name = str(model)
    folder = EMBEDDED.get(name) or Path(model)
    if name in EMBEDDED and not folder.exists():
        raise ModelLoadError(f"this installation lacks the weights of {name!r} ({folder})")
    if is_there(folder):
        if revision is not None:
            raise ModelLoadError("a revision is of a Hub id; a folder holds what it holds")
        found = LoadedPipeline(_read_folder(folder, dtype), name, revision_of(folder))
    elif isinstance(model, Path) or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelLoadError(
            f"no model {name!r}: there is no such folder, and a Hub id looks like 'owner/name'; "
            f"embedded: {', '.join(EMBEDDED)}"
        )
    else:
        found = _read_hub(name, dtype, revision)
    if scheduler is not None:
        kind, given = _SCHEDULERS[scheduler], found.pipe.scheduler.config
        # Of the schedulers, DDIM alone clips where its file doesn't say.
        kept = given if isinstance(found.pipe.scheduler, kind) else {"clip_sample": False, **given}
        found.pipe.scheduler = kind.from_config(kept)
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if where.startswith("meta"):
        raise ModelLoadError(
            "device 'meta' holds shapes and no numbers: nothing can be drawn on it"
        )
    try:
        with _quiet():
            return replace(found, pipe=found.pipe.to(where))
    except (RuntimeError, AssertionError) as error:
        raise ModelLoadError(f"device {where!r} can't be used: {_first(error)}") from None


def _read_hub(name: str, dtype: str | None, revision: str | None) -> LoadedPipeline:
    """Download, or find in the cache; the revision becomes the commit that was found."""
    try:
        with _quiet():
            # Its kind is known before gigabytes are fetched.
            index = hf_hub_download(name, INDEX, revision=revision)
            _check_kind(Path(index).parent)
            folder = DiffusionPipeline.download(name, revision=revision, use_safetensors=True)
    except (OSError, ValueError) as error:
        if isinstance(error, ModelLoadError):
            raise
        raise ModelLoadError(
            f"{name!r} is neither a folder here nor a model that the Hub gives: {_first(error)}"
        ) from None
    return LoadedPipeline(_read_folder(Path(folder), dtype), name, Path(folder).name)


_HALVES = ("float16", "bfloat16")


def _read_folder(folder: Path, dtype: str | None) -> Any:
    _check_kind(folder)
    # What is missing would be said of in the library's words, or be random: see below.
    index = check_model_folder(folder, lambda name: hasattr(diffusers.pipelines, name))
    part = next((family.part for family in FAMILIES if _class_of(index, family.part)), "unet")
    dtype = dtype or stored_dtype(folder, part) or "float32"
    try:
        with _quiet():
            # Its own class: the general one reads parts that may be left out again.
            pipe = getattr(diffusers.pipelines, index["_class_name"]).from_pretrained(
                str(folder),
                use_safetensors=True,
                local_files_only=True,
                **({"safety_checker": None} if "safety_checker" in index else {}),
                **_networks(folder, index, dtype),
            )
            if dtype not in _HALVES:
                pipe.to(dtype=getattr(torch, dtype))
            # In half precision some networks keep norms and times in float32, as they were read.
    except ModelLoadError:
        raise
    except Exception as error:  # damaged files raise whatever the libraries ran into
        raise ModelLoadError(
            f"'{folder}' can't be loaded as a diffusers model: {_first(error)}"
        ) from None
    _check_tokenizer(folder, pipe)
    return pipe


def _networks(folder: Path, index: Mapping[str, Any], dtype: str) -> dict[str, torch.nn.Module]:
    """A folder's networks by their parts' names, in a precision.

    Raises ModelLoadError where weights are missing: those would be random, and nobody would know.
    """
    kinds: dict[str, Any] = {}
    for part, library, name in components(folder, index):
        of = {"diffusers": diffusers, "transformers": transformers}.get(library)
        kind = getattr(of, name, None)
        if part != "safety_checker" and hasattr(kind, "state_dict"):  # a network of these libraries
            kinds[part] = kind
    with loading_bar(folder, tuple(kinds)) as done:
        found = {}
        for part, kind in kinds.items():
            found[part] = _network(folder / part, kind, dtype)
            done(part)
        return found


def _network(place: Path, kind: Any, dtype: str) -> torch.nn.Module:
    name = "torch_dtype" if issubclass(kind, diffusers.ModelMixin) else "dtype"
    try:
        network, report = kind.from_pretrained(
            str(place.parent),
            subfolder=place.name,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **{name: getattr(torch, dtype)},
            **_own_config(place),
        )
    except Exception as error:
        # Which of several folders it is, the libraries don't say.
        raise ModelLoadError(f"'{place}' can't be loaded: {_first(error)}") from None
    parameters = {name for name, _ in network.named_parameters()}
    if missing := sorted(parameters & set(report["missing_keys"])):
        raise ModelLoadError(
            f"{place} lacks {len(missing)} of its {len(parameters)} weights, such as {missing[0]}"
        )
    if bad := next((n for n, p in network.named_parameters() if not p.isfinite().all()), None):
        raise ModelLoadError(f"{place} has weights that are no numbers, in {bad}")
    loaded: torch.nn.Module = network
    return loaded


#: Configurations of networks that are a part of what transformers takes their class to be. They
#: would be read as the whole, which has billions of weights by default.
_PARTS = {"t5_gemma_module": T5GemmaModuleConfig}


def _own_config(place: Path) -> dict[str, Any]:
    """The argument by which a network is given the configuration that its folder holds."""
    path = place / "config.json"
    kind = _PARTS.get(read_json_file(path).get("model_type")) if path.is_file() else None
    return {} if kind is None else {"config": kind.from_pretrained(str(place))}


def _check_tokenizer(folder: Path, pipe: Any) -> None:
    """Raises ModelLoadError for words that the text encoder has no embedding for, and for none."""
    tokenizer: Any = getattr(pipe, "tokenizer", None)
    encoder: Any = getattr(pipe, "text_encoder", None)
    if not hasattr(tokenizer, "get_vocab") or not hasattr(
        getattr(encoder, "config", None), "vocab_size"
    ):
        return  # whoever uses the pipeline says so
    words = set(tokenizer.get_vocab().values())
    if not words - set(tokenizer.all_special_ids):
        raise ModelLoadError(f"{folder / 'tokenizer'} knows no word: its vocabulary is empty")
    if max(words) >= encoder.config.vocab_size:
        raise ModelLoadError(
            f"{folder / 'tokenizer'} knows more words ({len(words)}) than its text encoder "
            f"({encoder.config.vocab_size})"
        )


def _check_kind(folder: Path) -> None:
    index = read_index(folder)
    kind = str(index["_class_name"])
    denoisers = {_class_of(index, family.part) for family in FAMILIES} - {None}
    known = {name for family in FAMILIES for name in family.classes}
    if not (denoisers & known if denoisers else kind.startswith("StableDiffusion")):
        raise ModelLoadError(f"{folder} holds a {kind}; {_WANTED}")
    if not hasattr(diffusers, kind):
        raise ModelLoadError(f"{folder} holds a {kind}, which diffusers doesn't know; {_WANTED}")


def _class_of(index: Mapping[str, Any], part: str) -> str | None:
    """The name of a part's class, as an index has it beside its library."""
    given = index.get(part)
    return str(given[1]) if isinstance(given, list) and len(given) == 2 else None


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars and no remarks of the libraries while they load; their settings are put back."""
    shown = [log for log in _LOGS if log.is_progress_bar_enabled()]
    levels = [log.get_verbosity() for log in _LOGS]
    for log in _LOGS:
        log.disable_progress_bar()
        log.set_verbosity_error()
    try:
        yield
    finally:
        for log in shown:
            log.enable_progress_bar()
        for log, level in zip(_LOGS, levels, strict=True):
            log.set_verbosity(level)
