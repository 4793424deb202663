"""The page of what each family can do, held against the code."""

from pathlib import Path

import pytest

from wordlight.backends.known_families import known_families, matrix_table
from wordlight.backends.torch.capabilities import CELLS, WAYS, _as_run, matrix
from wordlight.backends.torch.tiny import TINY
from wordlight.backends.torch.tiny.as_run import channels_last

PAGE = Path(__file__).parents[3] / "docs/capabilities.md"


def rows_of(page):
    reasons = dict(
        line.split(". ", 1) for line in page.splitlines() if line[:1].isdigit() and ". " in line
    )
    rows = {}
    for table in page.split("| model |")[1:]:
        cells = [
            [c.strip() for c in line.strip("|").split("|")]
            for line in ("| model |" + table).splitlines()
            if line.startswith("|")
        ]
        head, _, *own = cells
        for row in own:
            spelled = [c if c[:1] != "–" else reasons[c[2:]] for c in row[1:]]
            rows.setdefault(row[0], {}).update(zip(head[1:], spelled, strict=True))
    return rows


def table_of_page():
    text = PAGE.read_text(encoding="utf-8")
    return text.partition("<!-- matrix: begin -->")[2].partition("<!-- matrix: end -->")[0]


def test_the_page_has_every_tiny_model_and_every_column():
    rows = rows_of(table_of_page())
    assert list(rows) == list(TINY)
    assert all(list(row) == [*CELLS, *WAYS] for row in rows.values())


#: Columns that show what others don't, of one model each; all of them are slow.
QUICK = {
    "sana": CELLS,
    "cogview-4": CELLS,
    "sdxl": {name: WAYS[name] for name in ("ControlNet", "IP-Adapter", "attention slicing")},
    "flux-dev": {name: WAYS[name] for name in ("LoRA", "inpainting", "fused projections")},
    "longcat-image": {name: WAYS[name] for name in ("bfloat16",)},
    "wan-2.2": {name: WAYS[name] for name in ("sequential offload",)},
}


@pytest.mark.parametrize("family", QUICK)
def test_the_page_says_what_a_model_does(family):
    found = matrix([family], QUICK[family])[family]
    told = rows_of(table_of_page())[family]
    assert {name: told[name] for name in found} == found


def test_a_way_that_changes_the_maps_is_found():
    def wrong(pipe, *_):
        for name, weight in pipe.unet.named_parameters():
            if "attn2.to_q" in name:
                weight.data *= 1.1
        return pipe, {}

    tried = {"right": (_as_run(channels_last, same=True), "trace")}
    tried["wrong"] = (_as_run(wrong, same=True), "trace")
    assert matrix(["sd"], tried)["sd"] == {"right": "✓", "wrong": "wrong"}


@pytest.mark.slow
# As the page was made: diffusers' own pipelines warn, of what it deprecates and of half precision.
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("family", TINY)
def test_the_page_says_all_that_a_model_does(family):
    assert matrix([family])[family] == rows_of(table_of_page())[family]


def test_reasons_are_numbered_below_the_table():
    table = matrix_table({"a": {"x": "✓", "y": "no"}, "b": {"x": "no", "y": "other"}})
    assert "| a | ✓ | – 1 |" in table
    assert "| b | – 1 | – 2 |" in table
    assert table.endswith("1. no\n2. other")


def test_wide_tables_are_cut_into_several():
    rows = {name: {f"c{k}": "✓" if k else name for k in range(11)} for name in ("a", "b")}
    table = matrix_table(rows)
    assert [line.count("|") for line in table.splitlines() if "model" in line] == [10, 5]
    assert rows_of(table) == rows


def test_families_say_what_they_lack():
    found = {row["name"]: row for row in known_families()}
    assert found["Kandinsky 5"]["denoisers"] == ["Kandinsky5Transformer3DModel"]
    assert "denoise_jvp" in found["HiDream"]["lacks"]
