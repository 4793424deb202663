"""The report: a page that stands alone, says what the run says, and trusts nothing it shows."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import astuple
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import chromium
from tests.comparisons.fakes import Complement, FakeBackend, Planted
from wordlight.attribution import registry
from wordlight.comparisons.cli.main import main
from wordlight.comparisons.results.finished_run import FinishedRun
from wordlight.comparisons.results.html import write_report
from wordlight.comparisons.results.html.breakdowns import by_split, by_word
from wordlight.comparisons.results.html.cases import find_cases
from wordlight.comparisons.stats.intervals import mean_over_words
from wordlight.comparisons.store.json_file import file_digest, write_json
from wordlight.comparisons.store.settings_file import read_settings, write_settings

HOSTILE = '<script>document.title="taken"</script><img src="https://example.com/x.png">"\'&amp;'


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of the command on images that the renderer drew, with two methods known on paper."""
    out = tmp_path_factory.mktemp("report") / "run of mine"
    known = registry.get
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wordlight.backends.loading.load", lambda *_a, **_k: FakeBackend())
        planted = {"planted": Planted, "complement": Complement}
        patch.setattr(registry, "get", lambda name: planted.get(name) or known(name))
        methods = ["planted", "complement", "uniform", "shuffled-word"]
        line = ["compare", "-n", "8", "--calibration", "8", "--quiet", "-o", str(out)]
        assert main([*line, *(part for m in methods for part in ("--method", m))]) == 0
    return out


@pytest.fixture
def folder(finished, tmp_path):
    """The same, to be spoiled."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def seal(folder: Path, summary: dict | None = None) -> None:
    """Write the checksums anew, as if a run had left these very files."""
    if summary is None:
        summary = json.loads((folder / "summary.json").read_text())
    summary.pop("checksum")
    summary["files"] = {name: file_digest(folder / name) for name in summary["files"]}
    write_json(folder / "summary.json", summary)


def hostile(folder: Path) -> None:
    """Put markup wherever a run keeps text of others."""
    words = pq.read_table(folder / "words.parquet")
    prompts = pa.array([HOSTILE] * len(words))
    place = words.schema.get_field_index("prompt")
    pq.write_table(words.set_column(place, "prompt", prompts), folder / "words.parquet")
    summary = json.loads((folder / "summary.json").read_text())
    summary["notes"].append(HOSTILE)
    summary["versions"]["numpy"] = HOSTILE
    summary["rows"]["planted"]["label"] = HOSTILE
    seal(folder, summary)
    settings, _ = read_settings(folder)
    write_settings(folder, {**settings, "model": HOSTILE})
    (folder / "command.txt").write_text(HOSTILE)


def spoil_words(folder: Path, spoil: Callable[[], object]) -> None:
    """Change results as nobody but a program with checksums of its own could."""
    spoil()
    seal(folder)


def flip_a_digit(path: Path) -> None:
    """As a disk that fails does: the file stays good JSON."""
    text = path.read_text()
    place = next(m.start() for m in re.finditer(r"(?<=: )[1-9]", text))
    path.write_text(text[:place] + str(9 - int(text[place])) + text[place + 1 :])


def without_score(folder: Path, method: str) -> None:
    """As if a row had been scored on no word."""
    summary = json.loads((folder / "summary.json").read_text())
    for one in summary["headline"]:
        if (one["method"], one["metric"]) == (method, "miou@best"):
            one.update(mean=None, low=None, high=None, n=0, rank=None, tied=None, groups=None)
            one.update(against_best=None)
    seal(folder, summary)


class Parsed(HTMLParser):
    """Tags with their attributes, and the text outside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.shown = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside not in ("script", "style"):
            self.shown += data


def parsed(path: Path) -> Parsed:
    return Parsed(path.read_text("utf-8"))


def test_the_page_needs_nothing_beside_it(finished):
    page = parsed(finished / "report.html")
    addresses = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "xlink:href", "action", "data")
    ]
    assert len(addresses) > 20
    assert all(a is not None and a.startswith(("#", "data:")) for a in addresses)
    assert [tag for tag, _ in page.tags if tag in ("link", "iframe", "object", "form")] == ["link"]
    (policy,) = [a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a]
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; ")
    text = (finished / "report.html").read_text("utf-8")
    assert "url(http" not in text
    assert "@import" not in text


def test_every_picture_has_words_in_its_place(finished):
    pictures = [a for t, a in parsed(finished / "report.html").tags if t == "img"]
    assert len(pictures) == 3 * 2 * 6  # two methods, their three best and three worst words
    assert all(a["alt"] for a in pictures)
    assert any("planted: map of" in str(a["alt"]) for a in pictures)


def test_the_numbers_are_those_of_the_run(finished):
    summary = json.loads((finished / "summary.json").read_text())
    shown = parsed(finished / "report.html").shown
    for one in summary["headline"]:
        digits = {"forward-equivalents": 1, "seconds": 2}.get(one["metric"], 3)
        assert one["mean"] is None or f"{one['mean']:.{digits}f}" in shown
        if one["low"] is not None and digits == 3:
            assert f"[{one['low']:.3f}, {one['high']:.3f}]" in shown
    for note in summary["notes"]:
        assert note in shown
    for name, version in summary["versions"].items():
        assert name in shown
        assert version in shown
    # What was typed, to be typed again, with a folder that needs quotes.
    assert f"wordlight compare -n 8 --calibration 8 --quiet -o '{finished}'" in shown


def test_a_run_from_python_has_no_command(folder):
    (folder / "command.txt").unlink()
    assert "asked for from Python" in parsed(write_report(folder)).shown


def test_breakdowns_are_means_of_the_results(finished):
    run = FinishedRun.read(finished)
    rows = pq.read_table(finished / "results.parquet").to_pylist()
    kinds = {
        (w["sample"], w["word"], w["occurrence"]): w["kind"]
        for w in pq.read_table(finished / "words.parquet").to_pylist()
    }
    best = [r for r in rows if r["metric"] == "miou@best"]

    def values(method, kind, word=None):
        return [
            r["value"]
            for r in best
            if r["method"] == method
            and kinds[r["sample"], r["word"], r["occurrence"]] == kind
            and word in (None, r["word"].lower())
        ]

    (split,) = by_split(run).values()
    assert set(by_split(run)) == {"test"}
    for row in run.rows:
        # The same numbers, summed in another order; the table's interval counts the choice of the
        # threshold too.
        assert split[row.name].mean == pytest.approx(row.best.mean, rel=1e-12)
        own = [
            (r["sample"], r["value"])
            for r in best
            if r["method"] == row.name
            and kinds[r["sample"], r["word"], r["occurrence"]] == "headline"
        ]
        expected = mean_over_words(*zip(*own, strict=True))
        assert astuple(split[row.name]) == pytest.approx(astuple(expected), rel=1e-12)
        assert row.best.mean == pytest.approx(np.mean(values(row.name, "headline")))
    lines, left_out = by_word(run)
    assert left_out == 0
    assert len(lines) == len({(kinds[r["sample"], r["word"], r["occurrence"]], r["word"])
                              for r in best})  # fmt: skip
    for line in lines:
        for method, mean in line.means.items():
            assert mean == pytest.approx(np.mean(values(method, line.kind, line.name)))
        assert line.n == len(values("planted", line.kind, line.name))


def test_best_and_worst_are_the_ends_of_the_ranking(finished):
    run = FinishedRun.read(finished)
    planted, complement = sorted(find_cases(run), key=lambda c: c.row.name, reverse=True)
    assert (planted.row.name, complement.row.name) == ("planted", "complement")
    for cases in (planted, complement):
        values = sorted(
            r["value"]
            for r in run.scores.to_pylist()
            if r["method"] == cases.row.name and r["kind"] == "headline"
        )
        assert [c.iou for c in cases.worst] == values[:3]
        assert [c.iou for c in cases.best] == values[::-1][:3]
    assert min(c.iou for c in planted.worst) > max(c.iou for c in complement.best)


def test_rows_stand_best_first_and_controls_show_no_cases(finished):
    run = FinishedRun.read(finished)
    means = [row.best.mean for row in run.rows]
    assert means == sorted(means, reverse=True)
    assert run.rows[0].name == "planted"
    assert {c.row.family for c in find_cases(run)} == {"attention"}


def test_failed_cells_and_ranks_are_shown(folder):
    summary = json.loads((folder / "summary.json").read_text())
    assert "failed cell" not in parsed(folder / "report.html").shown
    summary["failed"] = ["planted of scenes-test-0000 (fake): MemoryError: <b>none</b> left"]
    seal(folder, summary)
    shown = parsed(write_report(folder)).shown
    assert "1 failed cell\n" in shown
    assert "MemoryError: <b>none</b> left" in shown
    ranks = {r["method"]: r for r in summary["headline"] if r["metric"] == "miou@best"}
    for row in FinishedRun.read(folder).rows:
        told = ranks[row.name]
        assert row.standing == told["against_best"]
        assert row.standing in shown


def test_each_frameworks_maps_are_its_own(folder):
    run = FinishedRun.read(folder)
    assert {row.framework for row in run.rows} == {"fake"}
    summary = json.loads((folder / "summary.json").read_text())
    summary["rows"]["planted"]["framework"] = "other"
    seal(folder, summary)
    # There are no maps of that framework, and the first one's aren't taken for them.
    missing = {c.row.name: bool(c.missing) for c in find_cases(FinishedRun.read(folder))}
    assert missing == {"planted": True, "complement": False}


def test_making_it_again_changes_nothing(folder, capsys):
    before = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    assert main(["report", str(folder)]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "report.html")
    assert (folder / "report.html").read_bytes() == before
    assert main(["report", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"report": str(folder / "report.html")}


def test_text_of_others_stays_text(folder):
    hostile(folder)
    page = parsed(write_report(folder))
    scripts = [attributes.get("type") for tag, attributes in page.tags if tag == "script"]
    assert scripts.count(None) == 1
    assert set(scripts) == {None, "application/json"}
    assert page.shown.count(HOSTILE) >= 5
    assert all(str(a["src"]).startswith("data:") for t, a in page.tags if t == "img")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "summary.json").unlink(), "holds no finished run: there is no summary"),
        (lambda f: (f / "summary.json").write_text("{"), "summary.json is damaged"),
        (lambda f: (f / "summary.json").write_text("{}"), "summary.json has no checksum"),
        (lambda f: write_json(f / "summary.json", {}), "no summary of this release"),
        (lambda f: flip_a_digit(f / "summary.json"), "summary.json is damaged: its checksum"),
        (lambda f: flip_a_digit(f / "settings.json"), "settings.json was changed"),
        (lambda f: (f / "words.parquet").write_bytes(b"PAR1"), "words.parquet was changed since"),
        (lambda f: spoil_words(f, lambda: (f / "words.parquet").write_bytes(b"PAR1")), "damaged"),
        (lambda f: rename_samples(f, "../../elsewhere"), "results.parquet was changed since"),
        (lambda f: spoil_words(f, lambda: rename_samples(f, "../../x")), "can't name a method"),
        (lambda f: spoil_words(f, lambda: put_mask(f, b"GIF89a")), "is no PNG"),
        (lambda f: spoil_words(f, lambda: shrink_masks(f)), "and the mask of"),
    ],
)
def test_a_spoiled_run_is_refused_in_one_line(folder, capsys, spoil, message):
    spoil(folder)
    before = (folder / "report.html").read_bytes()
    assert main(["report", str(folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("wordlight: error: ")
    assert message in line
    assert (folder / "report.html").read_bytes() == before


def test_maps_that_are_gone_are_said_to_be(folder):
    shutil.rmtree(folder / "maps")
    assert parsed(write_report(folder)).shown.count("Its maps aren't kept") == 2


def test_maps_that_are_damaged_are_said_to_be(folder):
    for path in (folder / "maps").rglob("planted.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    shown = parsed(write_report(folder)).shown
    assert shown.count("Its maps can't be shown") == 1
    assert "planted.safetensors is damaged" in shown
    # The other method's are whole.
    assert [bool(cases.missing) for cases in find_cases(FinishedRun.read(folder))] == [True, False]


def column(folder: Path, file: str, name: str, values) -> None:
    table = pq.read_table(folder / file)
    place = table.schema.get_field_index(name)
    made = pa.array(values(table.column(name).to_pylist()), table.schema.field(name).type)
    pq.write_table(table.set_column(place, table.schema.field(name), made), folder / file)


def rename_samples(folder: Path, name: str) -> None:
    for file in ("results.parquet", "words.parquet"):
        column(folder, file, "sample", lambda old: [f"{name}-{sample}" for sample in old])


def put_mask(folder: Path, data: bytes) -> None:
    column(folder, "words.parquet", "mask", lambda old: [data] * len(old))


def shrink_masks(folder: Path) -> None:
    from io import BytesIO

    from PIL import Image

    buffer = BytesIO()
    Image.new("1", (8, 8), 1).save(buffer, format="png")
    put_mask(folder, buffer.getvalue())


@chromium.needed
def test_the_page_in_chromium(folder):
    hostile(folder)
    without_score(folder, "uniform")
    path = write_report(folder)
    with chromium.browser() as page:
        for width, dark in ((1100, False), (400, True)):
            page.show(width, dark=dark)
            page.open(path)
            assert page.complaints() == []
            # The page itself, and nothing else.
            assert page.requests() == [path.as_uri()]
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            # Of everything that is opened too, and pictures are all there.
            page.evaluate("document.querySelectorAll('details').forEach((d) => d.open = true)")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate(
                "[...document.images].every((i) => i.complete && i.naturalWidth > 0)"
            )
            assert page.evaluate("document.title").startswith("wordlight: 8 images")
            assert HOSTILE in page.evaluate("document.body.innerText")
            colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert colour == ("rgb(21, 24, 29)" if dark else "rgb(255, 255, 255)")
        # A case opened: its word is pinned, with the true mask, beside another method's.
        page.show(1100)
        page.open(path)
        page.click("#cases .closer summary")
        page.wait_for("document.querySelector('.closer[open] .wl[data-ready]')")
        pinned = "[...document.querySelectorAll('.closer[open] [aria-pressed=true]')]"
        page.wait_for(f"{pinned}.length >= 1")
        assert page.evaluate("document.querySelectorAll('.closer[open] canvas').length") == 2
        assert page.evaluate("document.querySelectorAll('.closer[open] .wl-truth').length") >= 1
        assert page.evaluate("document.documentElement.scrollWidth") <= 1100
        assert page.complaints() == []
        first = "document.querySelector('#scores tbody tr td.name').dataset.value"
        best = page.evaluate(first)
        # The third to sort by is the score: best first, then, clicked once more, worst first.
        click = "document.querySelectorAll('#scores th button')[{}].click()"
        page.evaluate(click.format(2))
        assert page.evaluate(first) == best
        page.evaluate(click.format(2))
        assert page.evaluate(first) != best
        # What has no score stands last either way; names go from the first one on.
        for way in (1, 2):
            page.evaluate(click.format(2))
            column = "[...document.querySelector('#scores tbody').rows]"
            scores = page.evaluate(f"{column}.map((r) => r.cells[3].dataset.value)")
            assert scores[-1] == ""
            known = [float(s) for s in scores[:-1]]
            assert known == sorted(known, reverse=way == 1)
        page.evaluate(click.format(1))
        names = page.evaluate(f"{column}.map((r) => r.cells[1].dataset.value)")
        assert names == sorted(names, key=str.lower)
        assert page.complaints() == []
