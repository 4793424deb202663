"""Prompts for images that come with classes and without captions."""

from __future__ import annotations

from collections.abc import Sequence

from wordlight.comparisons.datasets.dataset import DatasetError

TEMPLATE = "a photo of {}"


def check_template(template: str) -> str:
    """The template itself; raises DatasetError unless it has ``{}`` once, for the classes."""
    if template.count("{}") != 1 or template.replace("{}", "").count("{"):
        raise DatasetError(f"a prompt's template has {{}} once, for the classes: not {template!r}")
    return template


def prompt_of(template: str, names: Sequence[str]) -> tuple[str, list[slice]]:
    """A prompt that names classes, ``a photo of a dog, a cat and an orange``, and where it does."""
    phrases = [f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}" for name in names]
    text = ", ".join(phrases[:-1]) + (" and " if len(phrases) > 1 else "") + phrases[-1]
    start = template.index("{}")
    spans = []
    position = start
    for index, (phrase, name) in enumerate(zip(phrases, names, strict=True)):
        position += len(phrase) - len(name)
        spans.append(slice(position, position + len(name)))
        position += len(name) + (len(" and ") if index == len(names) - 2 else len(", "))
    return template.replace("{}", text), spans
