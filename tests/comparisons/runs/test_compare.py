"""The whole way, on images that the renderer draws, with methods whose answers are known."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.comparisons.fakes import STEPS, Complement, FakeBackend, Planted
from wordlight.attribution.maps import AttributionMaps
from wordlight.attribution.methods.controls import Center, Random, Uniform
from wordlight.backends.trajectory import Trajectory
from wordlight.comparisons import compare
from wordlight.comparisons.datasets.images.generated_scenes import GeneratedScenes
from wordlight.comparisons.metrics.segmentation import BEST, THRESHOLD_GRID
from wordlight.comparisons.metrics.segmentation import METRICS as SEGMENTATION
from wordlight.comparisons.rows.row import build_rows
from wordlight.comparisons.stats.paired_tests import smallest_difference
from wordlight.comparisons.store.cells import FORWARD_EQUIVALENTS, SECONDS, CellFolder

N, CALIBRATION = 12, 8
METRICS = [metric.name for metric in SEGMENTATION]
#: What a device that doesn't tell its memory costs.
COSTS = (FORWARD_EQUIVALENTS, SECONDS)


def run(backend, methods, out, **options):
    options = {"n": N, "calibration": CALIBRATION, "progress": False, **options}
    return compare(backend, methods, out=out, **options)


@pytest.fixture(scope="module")
def backend():
    return FakeBackend()


@pytest.fixture(scope="module")
def finished(backend, tmp_path_factory):
    methods = [
        Planted(backend, steps=4),
        Complement(backend, steps=4),
        "uniform",
        "center",
        "random",
        "shuffled-word",
    ]
    return run(backend, methods, tmp_path_factory.mktemp("compare") / "out")


@pytest.fixture(scope="module")
def headline_words(backend, tmp_path_factory):
    scenes = GeneratedScenes(backend, "test", N)
    return [
        (item, scored)
        for item in scenes.stream(tmp_path_factory.mktemp("samples"))
        for scored in item.words
        if scored.headline
    ]


@pytest.fixture(scope="module")
def share(headline_words):
    """The mean share of the image that a headline word's mask covers."""
    return float(np.mean([scored.mask.mean() for _, scored in headline_words]))


def test_the_true_mask_scores_exactly_the_ceiling(finished):
    for metric in METRICS:
        # The interval of a row counts the choice of its threshold too.
        assert finished.estimate("planted", metric).mean == finished.ceiling[metric].mean
        if metric != BEST:
            assert finished.estimate("planted", metric) == finished.ceiling[metric]
    assert finished.choices["planted"].threshold == finished.ceiling_threshold
    for kind, ceiling in finished.other_ceiling.items():
        planted = next(r for r in finished.other[kind] if r.method == "planted")
        assert planted.estimate.mean == pytest.approx(ceiling.mean, nan_ok=True, rel=0)
    assert finished.estimate("planted").mean > 0.8
    assert finished.estimate("planted", "pointing-game").mean == 1.0


def test_the_complement_scores_near_nothing(finished, share):
    assert finished.estimate("complement", "miou@0.4").mean < 0.03
    assert finished.estimate("complement", "pointing-game").mean == 0
    assert finished.estimate("complement", "ap").mean < share
    # The lowest threshold leaves almost the whole image, and no more than the whole image scores.
    assert finished.estimate("complement").mean <= share


def test_the_uniform_control_scores_what_metrics_say_of_it(finished, share, headline_words):
    for metric in SEGMENTATION:
        # A map without an order ranks every second pair right.
        wanted = np.mean([metric.of_constant(scored.mask) for _, scored in headline_words])
        assert finished.estimate("uniform", metric.name).mean == pytest.approx(wanted)
        assert wanted == pytest.approx(0.5 if metric.name == "auroc" else share)


def test_the_center_scores_what_its_formula_says(finished, headline_words):
    choice = finished.choices["center"]
    width = choice.variant.options["width"]
    place = ((np.arange(64) + 0.5) / 64 - 0.5) / width
    bump = np.exp(-0.5 * (place[:, None] ** 2 + place[None, :] ** 2))
    bump = (bump - bump.min()) / (bump.max() - bump.min())
    by_hand = []
    for _, scored in headline_words:
        disc = bump >= choice.threshold
        by_hand.append((disc & scored.mask).sum() / (disc | scored.mask).sum())
    # By hand there is no latent grid between.
    assert finished.estimate("center").mean == pytest.approx(np.mean(by_hand), abs=0.01)
    assert finished.estimate("center", "pointing-game").mean == pytest.approx(
        np.mean([scored.mask[31:33, 31:33].mean() for _, scored in headline_words])
    )


def test_random_maps_find_things_by_chance_only(finished, share):
    assert finished.estimate("random", "ap").mean == pytest.approx(share, abs=0.04)
    assert finished.estimate("random").mean < share + 0.03


def test_the_shuffled_word_of_the_true_mask_finds_nothing(finished):
    shuffled = "shuffled-word.planted"
    assert finished.estimate(shuffled, "pointing-game").mean == 0
    assert finished.estimate(shuffled, "miou@0.4").mean < 0.02
    # And of the complement it finds its word, with everything else.
    assert finished.estimate("shuffled-word.complement").mean > finished.estimate("complement").mean
    labels = [entry.label for entry in finished.table_rows]
    assert "shuffled-word (planted)" in labels
    assert not any("shuffled" in label and "uniform" in label for label in labels)


def test_json_has_one_row_a_method_and_metric(finished, headline_words):
    rows = finished.to_json()
    assert len(rows) == len(finished.table_rows) * (len(METRICS) + len(COSTS))
    estimate = ["framework", "method", "metric", "mean", "low", "high", "n"]
    assert list(rows[0]) == [*estimate, "rank", "tied", "groups", "against_best"]
    planted = next(r for r in rows if (r["method"], r["metric"]) == ("planted", BEST))
    assert planted["n"] == len(headline_words)
    assert planted["low"] < planted["mean"] < planted["high"]
    cost = next(r for r in rows if (r["method"], r["metric"]) == ("planted", "forward-equivalents"))
    assert (cost["mean"], cost["n"]) == (4, N)
    json.loads(json.dumps(rows, allow_nan=False))


def test_everything_is_in_the_folder(finished):
    out = finished.out
    table = pq.read_table(out / "results.parquet").to_pandas()
    assert set(table["sample"]) == {f"scenes-test-{k:04d}" for k in range(N)}
    assert set(table["method"]) == {entry.name for entry in finished.table_rows}
    assert set(table["metric"]) == {*METRICS, *COSTS}
    assert set(table[table["word"] == ""]["occurrence"]) == {-1}
    words = pq.read_table(out / "words.parquet").to_pandas()
    both = table.merge(words, on=["sample", "word", "occurrence"])
    best = both[(both["metric"] == BEST) & (both["kind"] == "headline")]
    for entry in finished.table_rows:
        mean = best[best["method"] == entry.name]["value"].mean()
        assert mean == pytest.approx(finished.estimate(entry.name).mean)
    assert (out / "table.txt").read_text().strip() == finished.text
    assert (out / "table.md").read_text() == finished.markdown
    assert json.loads((out / "summary.json").read_text())["headline"] == finished.to_json()
    with Image.open(out / "grid.png") as picture:
        assert picture.width > 1000
    maps = AttributionMaps.load(out / "maps/fake/scenes-test-0003/planted.safetensors")
    kept = Trajectory.load(out / "samples/scenes-test-0003.safetensors")
    assert maps.prompt == kept.prompt
    assert not list(out.rglob("*.partial"))


def test_the_table_tells_what_must_be_known(finished):
    text = finished.text
    for needed in ("kept", "dropped", "ceiling", "thresholds", "width", "steps 1, 3, 5, 7 of 8"):
        assert needed in text
    # The rows stand in the order of their scores.
    lines = text.splitlines()
    first = next(k for k, line in enumerate(lines) if line.startswith("---")) + 1
    shown = [line.split("  ")[0] for line in lines[first : first + 7]]
    means = [
        finished.estimate(e.name).mean for n in shown for e in finished.table_rows if e.label == n
    ]
    assert len(means) == 7
    assert means == sorted(means, reverse=True)
    assert finished.markdown.count("|---|") == 3


def test_rows_are_tested_against_the_best_and_methods_against_their_controls(finished):
    standing = {row["method"]: row["against_best"] for row in finished.to_json() if row["tied"]}
    assert standing["planted"] == "best"
    planted = {"complement", "uniform", "center", "random", "shuffled-word.planted"}
    controls = {"uniform", "center", "random", "shuffled-word.complement"}
    pairs = {frozenset((test.first, test.second)) for test in finished.tests[BEST]}
    assert pairs == {
        *(frozenset(("planted", other)) for other in {*planted, "shuffled-word.complement"}),
        *(frozenset(("complement", control)) for control in controls),
    }
    # Best on every image, but the signs of so few images can't say it of ten pairs.
    images = finished.tests[BEST][0].images
    assert len(pairs) * 2 / 2**images > 0.05
    assert {row["method"] for row in finished.to_json() if row["against_best"] == "tied"} == {
        entry.name for entry in finished.table_rows if entry.name != "planted"
    }
    said = " ".join(finished.text.split())
    assert "against the best: whether mIoU@best is significantly lower" in said
    assert "than that of planted, which was best on the calibration images" in said
    assert "with so few images nothing could be told apart" in said
    assert "complement: uniform, center, random, shuffled-word (complement)" in said


def test_every_pair_is_tested_on_request(backend, tmp_path):
    methods = [Planted(backend, steps=4), "uniform", "random"]
    few = run(backend, methods, tmp_path, n=3, calibration=4)
    found = run(backend, methods, tmp_path, n=3, calibration=4, pairs="all")
    assert len(few.tests[BEST]) == 2
    assert len(found.tests[BEST]) == 3
    ranked = {row["method"]: row for row in found.to_json() if row["rank"] is not None}
    assert {row["metric"] for row in ranked.values()} == {BEST}
    assert set(ranked) == {e.name for e in found.table_rows if not e.extra}
    assert {(row["rank"], row["tied"], row["groups"]) for row in ranked.values()} == {
        (1, True, "a")
    }
    assert "1 tied (a)" in found.text
    assert "against the best" not in found.text
    with pytest.raises(ValueError, match=r"pairs must be 'best' or 'all'"):
        run(backend, methods, tmp_path, pairs="some")


def test_an_interval_holds_what_another_choice_of_the_threshold_would_give(finished):
    """From the cells on disk, done again with plain numpy."""
    name, cells = "complement", finished.out / "cells" / "fake"

    def column(split, threshold):
        tables = [pq.read_table(p) for p in sorted(cells.glob(f"*{split}*/{name}.parquet"))]
        table = pa_concat(tables)
        return table[table["metric"] == f"miou@{threshold:g}"]

    chosen = finished.choices[name]
    seen = np.stack([column("calibration", t)["value"] for t in THRESHOLD_GRID], axis=1)
    images = column("calibration", 0.5)["sample"].to_numpy()
    rng = np.random.default_rng(1)
    picks = np.zeros(len(THRESHOLD_GRID))
    for _ in range(2000):
        drawn = rng.choice(np.unique(images), len(np.unique(images)))
        picks[np.concatenate([seen[images == one] for one in drawn]).mean(axis=0).argmax()] += 1
    assert np.abs(picks / 2000 - chosen.shares.shares).max() < 0.06
    # A cell keeps each word's IoU at every threshold, that of the paper's metrics among them.
    folder = CellFolder(finished.out, "fake")
    for sample in {path.parent.name for path in cells.glob("*test*/complement.parquet")}:
        cell = folder.read(sample, name)
        for score in cell.scores:
            if score.metric == "miou@0.4":
                curve = cell.curves[score.word, score.occurrence]
                assert curve[THRESHOLD_GRID.index(0.4)] == score.value


def test_what_is_better_on_every_image_is_ranked_above(backend, tmp_path):
    found = run(backend, [Planted(backend, steps=4), "uniform"], tmp_path, calibration=4)
    best, control = found.standing("planted"), found.standing("uniform")
    assert (str(best), str(control)) == ("best", "lower")
    (test,) = found.tests[BEST]
    assert test.p == 2 / 2**test.images
    said = " ".join(found.text.split())
    assert "nothing could be" not in said
    assert "a method doesn't beat" not in said
    (size,) = re.findall(r"finds 80% of the time is about (\S+) ", said)
    assert float(size) == pytest.approx(smallest_difference([test]), abs=5e-4)


def test_the_other_formats_hold_the_same_numbers(finished):
    table = finished.latex
    assert (finished.out / "table.tex").read_text() == table
    assert table.count(r"\begin{tabular}") == table.count(r"\bottomrule") == 3
    planted = finished.estimate("planted")
    assert f"planted & {planted.mean:.3f} [{planted.low:.3f}, {planted.high:.3f}] & best" in table
    assert (finished.out / "table.csv").read_bytes() == finished.csv.encode()
    lines = list(csv.DictReader(io.StringIO(finished.csv)))
    assert len(lines) == len(finished.results) + sum(map(len, finished.other.values()))
    (line,) = [
        one
        for one in lines
        if (one["words"], one["method"], one["metric"]) == ("headline", "planted", BEST)
    ]
    # In full, not as the table rounds them.
    assert (float(line["mean"]), float(line["low"])) == (planted.mean, planted.low)
    assert (line["rank"], line["against_best"]) == ("", "best")


def test_thresholds_are_chosen_on_the_calibration_split(finished):
    for entry in finished.table_rows:
        folder = finished.out / "cells" / "fake"
        means = {}
        for variant in entry.variants:
            name = entry.name if entry.shuffled else variant.cell
            cells = [pq.read_table(p) for p in folder.glob(f"*calibration*/{name}.parquet")]
            assert len(cells) == CALIBRATION
            table = pa_concat(cells)
            for threshold in THRESHOLD_GRID:
                of_threshold = table[table["metric"] == f"miou@{threshold:g}"]["value"]
                means[variant.cell, threshold] = of_threshold.mean()
        choice = finished.choices[entry.name]
        assert choice.miou == pytest.approx(max(means.values()))
        assert means[choice.variant.cell, choice.threshold] == pytest.approx(choice.miou)


def pa_concat(tables):
    import pandas as pd

    return pd.concat([table.to_pandas() for table in tables])


def test_a_second_run_computes_nothing(backend, tmp_path):
    planted = Planted(backend, steps=4)
    first = run(backend, [planted], tmp_path, n=3, calibration=4)
    before = backend.evaluations.forward, len(backend.drawn)
    again = run(backend, [planted], tmp_path, n=3, calibration=4)
    assert (backend.evaluations.forward, len(backend.drawn)) == before
    assert again.to_json() == first.to_json()
    assert again.text == first.text


def test_a_missing_cell_is_made_again_and_the_same(backend, tmp_path):
    methods = [Planted(backend, steps=4), "shuffled-word"]
    first = run(backend, methods, tmp_path, n=3, calibration=4)
    shutil.rmtree(tmp_path / "cells/fake/scenes-test-0001")
    shutil.rmtree(tmp_path / "maps")
    again = run(backend, methods, tmp_path, n=3, calibration=4)
    timeless = [r for r in first.to_json() if r["metric"] != "seconds"]
    assert timeless == [r for r in again.to_json() if r["metric"] != "seconds"]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"n": 4}, "n was 3, now 4"),
        ({"seed": 1}, "seed was 0, now 1"),
        ({"steps": 2}, "steps was 4, now 2"),
        ({"methods": ["uniform", "random"]}, r"methods\.random is asked for now"),
        ({"methods": []}, "nothing to compare"),
    ],
)
def test_other_settings_in_the_same_folder_are_refused(backend, tmp_path, changed, says):
    options = {"methods": ["uniform"], "n": 3, "calibration": 4}
    run(backend, out=tmp_path, **options)
    with pytest.raises(ValueError, match=says):
        run(backend, out=tmp_path, **{**options, **changed})


def test_a_truncated_cell_stops_the_run(backend, tmp_path):
    run(backend, ["uniform"], tmp_path, n=3, calibration=4)
    path = tmp_path / "cells/fake/scenes-test-0002/uniform.parquet"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"scenes-test-0002/uniform\.parquet is damaged"):
        run(backend, ["uniform"], tmp_path, n=3, calibration=4)


def test_another_step_set_is_an_extra_row(backend, tmp_path):
    methods = [Planted(backend), Planted(backend, steps=4)]
    found = run(backend, methods, tmp_path, n=3, calibration=4)
    assert [entry.name for entry in found.table_rows] == ["planted", "planted-all-steps"]
    assert found.table_rows[1].label == "planted (all steps)"
    assert found.estimate("planted-all-steps", "forward-equivalents").mean == STEPS
    lines = found.text.splitlines()
    place = next(k for k, line in enumerate(lines) if line.startswith("planted (all steps)"))
    assert lines[place - 1].startswith("---")
    assert lines[place - 2].startswith("planted  ")


def test_attributors_by_names_of_their_own(backend, tmp_path):
    methods = {"narrow": Center(backend, width=0.1), "wide": Center(backend, width=0.5)}
    found = run(backend, methods, tmp_path, n=3, calibration=4)
    assert [entry.name for entry in found.table_rows] == ["narrow", "wide"]
    settings = json.loads((tmp_path / "settings.json").read_text())["settings"]
    assert settings["methods"]["wide"]["width"] == 0.5


@pytest.fixture
def maps_folder(backend, finished, tmp_path):
    """Precomputed maps, as somebody makes them from an earlier run's images."""
    folder = tmp_path / "maps"
    for path in (finished.out / "samples").glob("*.safetensors"):
        Planted(backend, steps=4).attribute(Trajectory.load(path)).save(folder / path.name)
    return folder


def test_precomputed_maps_score_as_live_ones(backend, finished, maps_folder, tmp_path):
    found = run(backend, ["uniform", "shuffled-word"], tmp_path / "out", maps={"mine": maps_folder})
    assert [e.name for e in found.table_rows] == ["uniform", "mine", "shuffled-word.mine"]
    for metric in METRICS:
        assert found.estimate("mine", metric) == finished.estimate("planted", metric)
        shuffled = found.estimate("shuffled-word.mine", metric)
        assert shuffled == finished.estimate("shuffled-word.planted", metric)


def spoil_missing(folder):
    (folder / "scenes-test-0002.safetensors").unlink()


def spoil_truncated(folder):
    path = folder / "scenes-test-0002.safetensors"
    path.write_bytes(path.read_bytes()[:2000])


def spoil_prompt(folder):
    shutil.copy(folder / "scenes-test-0001.safetensors", folder / "scenes-test-0002.safetensors")


def spoil_image(folder):
    path = folder / "scenes-test-0002.safetensors"
    maps = AttributionMaps.load(path)
    maps.image = np.ascontiguousarray(maps.image[::-1])
    maps.save(path)


def spoil_grid(folder):
    path = folder / "scenes-test-0002.safetensors"
    maps = AttributionMaps.load(path)
    maps.data = maps.data[:, ::2, ::2]
    maps.save(path)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (spoil_missing, r"lack .*scenes-test-0002\.safetensors \(1 of 20"),
        (spoil_truncated, "scenes-test-0002.*damaged or truncated"),
        (spoil_prompt, "scenes-test-0002.* holds maps of"),
        (spoil_image, "scenes-test-0002.* another image"),
        (spoil_grid, r"scenes-test-0002.* maps of \(8, 8\), but the latents are \(16, 16\)"),
        (shutil.rmtree, "is no folder"),
    ],
)
def test_precomputed_maps_that_do_not_fit_are_refused(backend, maps_folder, tmp_path, spoil, says):
    spoil(maps_folder)
    with pytest.raises(ValueError, match=says):
        run(backend, ["uniform"], tmp_path / "out", maps={"mine": maps_folder})


def test_changed_precomputed_maps_are_other_settings(backend, maps_folder, tmp_path):
    run(backend, ["uniform"], tmp_path / "out", maps={"mine": maps_folder})
    path = maps_folder / "scenes-test-0002.safetensors"
    maps = AttributionMaps.load(path)
    maps.data = maps.data * 2
    maps.save(path)
    with pytest.raises(ValueError, match="maps-sha256 was"):
        run(backend, ["uniform"], tmp_path / "out", maps={"mine": maps_folder})


@pytest.mark.parametrize(
    ("methods", "says"),
    [
        (["unifrom"], "did you mean uniform"),
        (["uniform", "uniform"], "two rows would be called 'uniform'"),
        (["uniform", "shuffled-word"], "takes another method's maps"),
        ([], "nothing to compare"),
        ("uniform", "must be a list"),
        ([3], "a name or an attributor"),
        ([Uniform(FakeBackend())], "another backend"),
    ],
)
def test_bad_methods_leave_nothing(backend, tmp_path, methods, says):
    with pytest.raises(ValueError, match=says):
        run(backend, methods, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_step_set_that_the_model_has_not_leaves_nothing(backend, tmp_path):
    with pytest.raises(ValueError, match="the trajectory has 8 steps, not 9"):
        run(backend, ["uniform"], tmp_path / "out", steps=9)
    with pytest.raises(ValueError, match="1 or more"):
        run(backend, ["uniform"], tmp_path / "out", steps=0)
    assert not (tmp_path / "out").exists()


def test_a_model_that_draws_nothing_is_said_so(tmp_path):
    blank = FakeBackend(blank=True)
    with pytest.raises(ValueError, match="no calibration image shows two"):
        run(blank, [Random(blank)], tmp_path / "out", n=3, calibration=4)
    # More images into the same folder are what the message says to try.
    assert not (tmp_path / "out").exists()


def test_one_image_has_no_interval(backend, tmp_path):
    found = run(backend, ["uniform"], tmp_path, n=1, calibration=4)
    assert found.to_json()[0]["low"] is None
    (line, *_) = [one for one in found.text.splitlines() if one.startswith("uniform")]
    assert "[" not in line


def test_a_center_with_a_name_of_its_own_has_its_width_chosen_too():
    backend = FakeBackend()
    named, fixed = build_rows(
        backend, [{"method": "center", "name": "c"}, {"method": "center", "width": 0.3}], {}, 2
    )
    (plain,) = build_rows(backend, ["center"], {}, 2)
    assert named.name == "c"
    assert [one.options for one in named.variants] == [one.options for one in plain.variants]
    assert len({one.cell for one in named.variants}) == len(named.variants) > 1
    assert len(fixed.variants) == 1


def test_a_call_that_does_not_fit_names_compare():
    for said, call in (
        ("compare(): missing a required argument: 'out'", lambda: compare("scenes", ["daam"])),
        ("compare(): too many positional arguments", lambda: compare("scenes", ["daam"], 2)),
        (
            "compare(): got an unexpected keyword argument 'n_images'",
            lambda: compare("scenes", out="x", n_images=2),
        ),
    ):
        with pytest.raises(TypeError) as raised:
            call()
        assert str(raised.value) == said
