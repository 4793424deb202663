"""The studies of words on the embedded model, as a user types them."""

from __future__ import annotations

import json

import pytest

from wordlight.comparisons.cli.main import main

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("study", ["influence", "relations", "entanglement"])
def test_a_study_of_the_embedded_model(study, tmp_path, capsys):
    line = ["study", study, "-n", "2", "--steps", "1", "--quiet", "-o", str(tmp_path)]
    assert main([*line, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["model"], data["method"], data["images"]) == ("scenes", "daam", 2)
    assert json.loads((tmp_path / f"{study}.json").read_text()) == data
    rows = data.get("classes") or data.get("rows") or data["cohyponyms"]
    assert len(rows) > 4
    # Every word of the grammar has a map.
    assert not data.get("not_placed")
    if study == "influence":
        colours = next(row for row in rows if row["tag"] == "ADJ")
        assert colours["changed"]["mean"] > 0.05
