"""Maps of several methods, models or frameworks side by side, to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wordlight.attribution.maps import AttributionMaps, Provenance
from wordlight.attribution.viewer import Panel, Viewer


def view(
    maps: AttributionMaps | Sequence[AttributionMaps] | Mapping[str, AttributionMaps],
) -> Viewer:
    """Return a page of maps side by side, with hover, pins, pixel and threshold linked.

    A notebook shows it; ``view(...).to_html("x.html")`` writes it.

    Args:
        maps: of one prompt, such as several methods' of one trajectory; under labels of one's own
            as a dictionary. Otherwise a label is the method's name, with whatever else tells the
            maps apart.

    Raises:
        ValueError: no maps, or maps of different prompts.
    """
    if isinstance(maps, AttributionMaps):  # which is a mapping, of words
        return Viewer([Panel.of(maps)])
    if isinstance(maps, Sequence):
        labelled = dict(zip(_labels([one.provenance for one in maps]), maps, strict=True))
    else:
        labelled = dict(maps)
    return Viewer([Panel.of(one, label) for label, one in labelled.items()])


def _labels(origins: Sequence[Provenance]) -> list[str]:
    """Method names; equal ones with the facts and settings in which they differ, or a number."""
    labels = [
        _label(origin, [o for o in origins if o.method == origin.method]) for origin in origins
    ]
    return [
        f"{label} [{labels[:index].count(label) + 1}]" if labels.count(label) > 1 else label
        for index, label in enumerate(labels)
    ]


def _label(origin: Provenance, namesakes: Sequence[Provenance]) -> str:
    own, others = _facts(origin), [_facts(other) for other in namesakes]
    told = [text for name, text in own.items() if any(other.get(name) != text for other in others)]
    return f"{origin.method} ({', '.join(told)})" if told else origin.method


def _facts(origin: Provenance) -> dict[str, str]:
    facts = {"model": origin.model_id, "framework": origin.framework, "seed": f"seed {origin.seed}"}
    return facts | {f"settings.{name}": f"{name} {v}" for name, v in origin.settings.items()}
