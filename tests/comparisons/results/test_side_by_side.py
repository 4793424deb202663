"""Maps side by side: their labels, and what is refused. (How they look: the viewer's own tests.)"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.attribution.viewer.made_up import maps_of
from wordlight.attribution.maps import AttributionMaps
from wordlight.comparisons import view


def made_by(**facts: Any) -> AttributionMaps:
    maps = maps_of()
    maps.provenance = replace(maps.provenance, **facts)
    return maps


def test_labels_tell_maps_apart() -> None:
    def labels(*maps: AttributionMaps) -> list[str]:
        return [panel.label for panel in view(maps).panels]

    assert labels(made_by(method="daam"), made_by(method="occlusion")) == ["daam", "occlusion"]
    torch, flax = (made_by(method="daam", framework=name) for name in ("torch", "flax"))
    assert labels(torch, flax) == ["daam (torch)", "daam (flax)"]
    few, many = (made_by(method="ig", settings={"n_steps": n, "wrt": "x"}) for n in (4, 32))
    assert labels(few, many, torch) == ["ig (n_steps 4)", "ig (n_steps 32)", "daam"]
    assert labels(few, few) == ["ig [1]", "ig [2]"]


def test_labels_can_be_given() -> None:
    viewer = view({"mine": maps_of(), "theirs": maps_of(signed=True)})
    assert [panel.label for panel in viewer.panels] == ["mine", "theirs"]
    assert len(view(maps_of()).panels) == 1
    assert viewer._repr_html_().startswith("<iframe")


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="one prompt"):
        view([maps_of("a dog"), maps_of("a cat")])
    with pytest.raises(ValueError, match="no maps"):
        view([])
