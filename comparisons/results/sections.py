"""Findings as sections of a table each: as text, as Markdown, and as a page of HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from textwrap import fill

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from wordlight.comparisons.results.text_tables import (
    Lines,
    aligned,
    escape_markdown,
    markdown_table,
)

_WIDTH = 100
_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{{ title }}</title>
<style>{{ style }}</style>
</head>
<body>
<header><h1>{{ title }}</h1></header>
<main>
{% for section in sections %}
<section>
<h2>{{ section.heading }}</h2>
<p>{{ section.about }}</p>
{% if section.lines %}
<div class="wide" tabindex="0" role="region" aria-label="{{ section.heading }}">
<table>
<thead><tr>{% for cell in section.lines[0] %}<th{{ name if loop.first }}>{{ cell }}</th>\
{% endfor %}</tr></thead>
<tbody>
{% for line in section.lines[1:] %}
<tr>{% for cell in line %}<td{{ name if loop.first }}>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endif %}
{% if section.notes %}
<ul>
{% for note in section.notes %}<li><small>{{ note }}</small></li>
{% endfor %}
</ul>
{% endif %}
</section>
{% endfor %}
</main>
</body>
</html>
"""


@dataclass(frozen=True)
class Section:
    """A part of a page: what was asked, a table whose first line is its header (nothing where it
    can't be had), and notes on it."""

    heading: str
    about: str
    lines: Lines
    notes: Sequence[str] = ()


def as_text(title: str, sections: Sequence[Section]) -> str:
    """The sections for a terminal."""
    parts = [title]
    for one in sections:
        parts += ["", one.heading, fill(one.about, _WIDTH)]
        parts += ["", aligned(one.lines)] if one.lines else []
        parts += ["", *(fill(note, _WIDTH, subsequent_indent="  ") for note in one.notes)]
    return "\n".join(parts).rstrip()


def as_markdown(title: str, sections: Sequence[Section]) -> str:
    """The sections in Markdown."""
    parts = [f"# {escape_markdown(title)}"]
    for one in sections:
        parts += [f"## {escape_markdown(one.heading)}", escape_markdown(one.about)]
        parts += [markdown_table(one.lines)] if one.lines else []
        parts += ["\n".join(f"- {escape_markdown(note)}" for note in one.notes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def as_html(title: str, sections: Sequence[Section]) -> str:
    """The sections as a page that needs no other file; it runs no script."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style = files("wordlight.comparisons.results.html").joinpath("page.css").read_text("utf-8")
    return environment.from_string(_PAGE).render(
        title=title, sections=sections, style=Markup(style), name=Markup(' class="name"')
    )
