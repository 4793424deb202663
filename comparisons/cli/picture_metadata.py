"""The prompt that a picture's own file names, as AUTOMATIC1111's web UI and ComfyUI write it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

#: Exif's pointer to its own block, and the user's comment in there, where JPEG and WebP keep it.
_EXIF, _USER_COMMENT = 0x8769, 0x9286
_COMMENT_CODES = {b"UNICODE\0": "utf-16-be", b"ASCII\0\0\0": "ascii", b"\0" * 8: "utf-8"}
_NEGATIVE = "Negative prompt:"
_SETTINGS = re.compile(r"^\s*Steps: \d+(,|$)")
_NETWORK = re.compile(r"<(?:lora|lyco|hypernet):[^<>]*>")
_SCHEDULED = re.compile(r"(?<!\\)\[[^\[\]]*(?<!\\)[:|][^\[\]]*\]")
_WEIGHTED = re.compile(r"(?<!\\):\s*[-+]?\d*\.?\d+\s*(?=\))")
#: Where ComfyUI's nodes keep a prompt, in the order of preference.
_TEXTS = ("text", "text_g", "t5xxl", "text_l", "clip_l", "prompt", "string", "value")
#: The inputs of nodes that change conditioning, or put several together.
_CONDITIONING = ("conditioning", *(f"conditioning_{end}" for end in ("1", "2", "to", "from")))


class PictureMetadataError(ValueError):
    """A picture's file names no prompt, or none that can be told."""


@dataclass(frozen=True)
class PictureMetadata:
    """The prompt and settings that a picture was drawn from.

    Attributes:
        prompt: the words, without the markup of emphasis and networks.
        written: the prompt as the file has it.
        negative_prompt: the prompt that guidance pushed away from, as the file has it.
        seed, steps, guidance_scale: of the run, where the file says.
        source: the program that wrote the file.
    """

    prompt: str
    written: str
    source: str
    negative_prompt: str | None = None
    seed: int | None = None
    steps: int | None = None
    guidance_scale: float | None = None


def prompt_of_picture(file: Path | None) -> PictureMetadata:
    """Read what a picture's file says of its prompt.

    Raises:
        PictureMetadataError: no file, or one that names no prompt, several, or one that changes
            while the picture is drawn.
        OSError: a file that can't be read as a picture.
    """
    if file is None:
        raise PictureMetadataError("say what to draw: PROMPT is missing")
    with Image.open(file) as picture:
        return read_metadata(picture)


def read_metadata(picture: Image.Image) -> PictureMetadata:
    """Read the prompt from a picture's PNG text, or from the Exif comment of a JPEG or WebP.

    Raises:
        PictureMetadataError: the file names no prompt, several, or one that changes while the
            picture is drawn.
    """
    texts = {key: text for key, text in picture.info.items() if isinstance(text, str)}
    if "parameters" in texts:
        return _of_parameters(texts["parameters"])
    if "prompt" in texts:
        return _of_graph(texts["prompt"])
    comment = _user_comment(picture)
    if comment is not None:
        return _of_parameters(comment)
    if "workflow" in texts:
        raise PictureMetadataError(
            "the picture's file has ComfyUI's workflow alone, without the prompt graph that a "
            "run writes: give the prompt yourself"
        )
    raise PictureMetadataError(
        "the picture's file names no prompt (neither 'parameters', as AUTOMATIC1111's web UI "
        "writes it, nor 'prompt', as ComfyUI does): give the prompt yourself"
    )


def plain_prompt(written: str) -> str:
    """Return a prompt's words without AUTOMATIC1111's markup.

    Emphasis keeps its words, ``<lora:...>`` goes, ``\\(`` is a parenthesis.

    Raises:
        PictureMetadataError: the words change while the picture is drawn, as ``[dog:cat:0.5]`` and
            ``[dog|cat]`` have it.

    >>> plain_prompt("a (red:1.3) [circle], ((big)) <lora:shapes:0.8> \\\\(really\\\\)")
    'a red circle, big (really)'
    """
    if scheduled := _SCHEDULED.search(written):
        raise PictureMetadataError(
            f"the prompt changes while the picture is drawn, at {scheduled[0]!r}: give the words "
            "to explain yourself"
        )
    text = _WEIGHTED.sub("", _NETWORK.sub(" ", written))
    text = re.sub(r"\bBREAK\b", " ", text)
    text = re.sub(r"(?<!\\)[()\[\]]", "", text)
    text = re.sub(r"\\([()\[\]])", r"\1", text)
    return re.sub(r"\s+([,.;:!?])", r"\1", " ".join(text.split()))


def _of_parameters(text: str) -> PictureMetadata:
    """Read the web UI's text: prompt, negative prompt, a line of settings."""
    if text.lstrip().startswith("{"):
        raise PictureMetadataError(
            "the picture's 'parameters' are JSON, and not the text that AUTOMATIC1111's web UI "
            "writes: give the prompt yourself"
        )
    lines = text.strip().splitlines()
    # Extensions add lines of their own behind the settings, such as a template's.
    of_settings = [k for k, line in enumerate(lines) if _SETTINGS.match(line)]
    settings = lines[of_settings[-1]] if of_settings else ""
    lines = lines[: of_settings[-1]] if of_settings else lines
    at = next((k for k, line in enumerate(lines) if line.startswith(_NEGATIVE)), len(lines))
    negative = "\n".join(lines[at:]).removeprefix(_NEGATIVE).strip()
    found = dict(re.findall(r"([A-Z][\w ]*): (\"[^\"]*\"|[^,]*)", settings))
    return _metadata(
        "\n".join(lines[:at]).strip(),
        "AUTOMATIC1111",
        negative_prompt=negative or None,
        seed=_number(int, found.get("Seed")),
        steps=_number(int, found.get("Steps")),
        guidance_scale=_number(float, found.get("CFG scale")),
    )


def _of_graph(text: str) -> PictureMetadata:
    """Read ComfyUI's graph: the text that reaches a sampler as its positive conditioning."""
    try:
        graph = json.loads(text)
    except (ValueError, RecursionError):
        raise PictureMetadataError(
            "the picture's 'prompt' is no JSON as ComfyUI writes it"
        ) from None
    nodes = _Nodes(graph if isinstance(graph, dict) else {})
    samplers = [name for name, inputs in nodes.inputs.items() if "positive" in inputs]
    samplers += [name for name, inputs in nodes.inputs.items() if "guider" in inputs]
    prompts = list(dict.fromkeys(t for s in samplers for t in nodes.texts(s, "positive")))
    if not prompts:
        raise PictureMetadataError(
            "no text reaches a sampler in the picture's ComfyUI graph: give the prompt yourself"
        )
    if len(prompts) > 1:
        raise PictureMetadataError(
            f"{len(prompts)} texts reach samplers in the picture's ComfyUI graph "
            f"({', '.join(repr(p[:40]) for p in prompts[:3])}): give the prompt yourself"
        )
    negatives = [text for sampler in samplers for text in nodes.texts(sampler, "negative")]
    return _metadata(
        prompts[0],
        "ComfyUI",
        negative_prompt=(negatives or [""])[0] or None,
        seed=_number(int, nodes.setting("seed", "noise_seed")),
        steps=_number(int, nodes.setting("steps")),
        guidance_scale=_number(float, nodes.setting("cfg")),
    )


class _Nodes:
    """ComfyUI's nodes by name, each with its inputs: values, or ``[node, output]``."""

    def __init__(self, graph: Mapping[str, Any]) -> None:
        self.inputs: dict[str, dict[str, Any]] = {
            name: node["inputs"]
            for name, node in graph.items()
            if isinstance(node, dict) and isinstance(node.get("inputs"), dict)
        }

    def texts(self, sampler: str, side: str) -> Iterator[str]:
        """Yield the texts that reach a sampler as ``"positive"`` or ``"negative"``.

        Every node is visited once, so that circles end.
        """
        seen, waiting = {sampler}, [(sampler, _links(self.inputs[sampler], side))]
        while waiting:
            name, links = waiting.pop(0)
            for link in links:
                node = self._node(self.inputs[name].get(link))
                if node is None or node in seen:
                    continue
                seen.add(node)
                text = self._text(node)
                if text is not None:
                    yield text
                elif side in self.inputs[node] or (link, side) != ("guider", "negative"):
                    waiting.append((node, _links(self.inputs[node], side)))

    def _text(self, name: str) -> str | None:
        """A node's own text, or that of the node that its text is linked to."""
        seen = set[str]()
        while name not in seen:
            seen.add(name)
            inputs = self.inputs[name]
            value = next((inputs[key] for key in _TEXTS if inputs.get(key)), None)
            if isinstance(value, str):
                return value.strip()
            linked = self._node(value)
            if linked is None:
                return None
            name = linked
        return None

    def _node(self, link: object) -> str | None:
        if isinstance(link, list) and len(link) == 2 and str(link[0]) in self.inputs:
            return str(link[0])
        return None

    def setting(self, *names: str) -> object:
        """The first number that any node has under one of these names."""
        found = (inputs.get(name) for inputs in self.inputs.values() for name in names)
        return next((v for v in found if isinstance(v, int | float)), None)


def _links(inputs: Mapping[str, Any], side: str) -> tuple[str, ...]:
    """The inputs of a node through which one side's conditioning comes."""
    return next(((name,) for name in (side, "guider") if name in inputs), _CONDITIONING)


def _metadata(written: str, source: str, **facts: Any) -> PictureMetadata:
    prompt = plain_prompt(written)
    if not prompt:
        raise PictureMetadataError(f"the prompt that {source} wrote into the picture is empty")
    return PictureMetadata(prompt, written, source, **facts)


def _number(kind: type, value: object) -> Any:
    try:
        return None if value is None else kind(str(value))
    except ValueError:
        return None


def _user_comment(picture: Image.Image) -> str | None:
    """The Exif comment, where it is of the web UI's form."""
    comment = picture.getexif().get_ifd(_EXIF).get(_USER_COMMENT)
    if isinstance(comment, bytes) and comment[:8] in _COMMENT_CODES:
        text = comment[8:].decode(_COMMENT_CODES[comment[:8]], errors="replace").strip("\0")
    elif isinstance(comment, str):
        text = comment
    else:
        return None
    has_settings = any(_SETTINGS.match(line) for line in text.splitlines())
    return text if has_settings else None
